"""Alone, by grants, and without a router: the file arrives, and nothing unverified ever counts."""

from agent.store import Origin
from agent.store.partial import Partial
from agent.transfer import TransferState
from protos.llmrouter.v1 import agent_pb2
from tests.agent.swarm.conftest import (
    GOT,
    HUB,
    PIECE,
    PIECES,
    RETURNED,
    SIZE,
    Fleet,
    digest_of,
    silent_after,
)
from tests.agent.transfer.conftest import KIB, MIB, Running, random_bytes
from tests.support import eventually


def alone(fleet: Fleet, *, alone: bool = True) -> agent_pb2.PieceGrants:
    """The router's word that nobody shares the file, or that somebody does."""
    return agent_pb2.PieceGrants(sha256=fleet.sha256, alone=alone)


def durable(fleet: Fleet) -> int:
    """How many bytes the journal vouches for."""
    found = fleet.store.find_file(fleet.manifest, fleet.manifest.files[0])
    return found.partial_bytes


def test_alone_a_node_fetches_in_order_and_tells_what_it_gets(fleet: Fleet) -> None:
    fleet.plan.alone = True

    assert Running(fleet.transfer(connections=1, max_connections=1)).wait() is None

    fleet.assert_whole()
    starts = [asked.start for asked in fleet.hub.asked]
    assert starts == sorted(starts)
    fleet.router.wait(lambda: len(fleet.router.outcomes) == PIECES)
    assert set(fleet.router.told()) == {(piece, GOT, HUB) for piece in range(PIECES)}
    assert not any(o.digest for news in fleet.router.news for o in news.outcomes)


def test_a_node_waits_for_the_first_answer_before_it_takes_from_the_hub(fleet: Fleet) -> None:
    fleet.plan.silent = True
    running = Running(fleet.transfer())
    fleet.router.wait(lambda: fleet.router.joins)

    asked_before = list(fleet.hub.asked)
    fleet.router.say(alone(fleet))

    assert running.wait() is None
    assert asked_before == []
    fleet.assert_whole()


def test_a_router_that_does_not_answer_is_not_waited_for(fleet: Fleet) -> None:
    fleet.plan.silent = True
    fleet.open_desk(answer=0.05)
    fleet.router.connect()

    assert Running(fleet.transfer()).wait() is None

    fleet.assert_whole()


def test_without_a_session_a_node_fetches_at_once(fleet: Fleet) -> None:
    fleet.router.vanish()

    assert Running(fleet.transfer()).wait() is None

    fleet.assert_whole()
    assert fleet.router.news == []
    assert fleet.hub.bytes_served == SIZE


def test_when_others_come_grants_rule_and_what_was_begun_is_gone_on_with(fleet: Fleet) -> None:
    fleet.plan.silent = True
    fleet.hub.rule = silent_after(fleet.hub, MIB)
    running = Running(
        fleet.transfer(connections=1, max_connections=1, stall_seconds=600.0, piece_bytes=SIZE)
    )
    fleet.router.wait(lambda: fleet.router.joins)
    fleet.router.say(alone(fleet))
    eventually(lambda: running.transfer.progress().received_bytes == MIB)
    fleet.peer("boreas")
    fleet.hub.rule = lambda asked: None
    fleet.plan.silent = False
    fleet.plan.by("boreas")
    fleet.plan.ways[0] = [HUB]
    grants = [fleet.plan.grant(piece, fleet.plan.ways[piece][0]) for piece in range(PIECES)]

    fleet.router.say(agent_pb2.PieceGrants(sha256=fleet.sha256, grants=grants))

    assert running.wait() is None
    fleet.assert_whole()
    assert fleet.hub.asked[-1].start == MIB
    assert running.transfer.progress().bytes_from.hub == PIECE


def test_a_node_that_is_left_alone_goes_on_by_itself(fleet: Fleet) -> None:
    slow = fleet.faulty("slow")
    slow.rule = silent_after(slow, 0)
    fleet.plan.by("slow")
    fleet.open_desk(stall=600.0)
    fleet.router.connect()
    running = Running(fleet.transfer(connections=2, max_connections=2))
    slow.wait_for_requests(2)
    fleet.plan.silent = True

    fleet.router.say(alone(fleet))
    slow.close()

    assert running.wait() is None
    fleet.assert_whole()
    fleet.router.wait(lambda: sum(o[1] == RETURNED for o in fleet.router.outcomes) == 2)


def test_while_the_router_is_away_pieces_come_from_the_hub_and_then_it_joins_again(
    fleet: Fleet,
) -> None:
    fleet.plan.ways[0] = ["slow"]
    fleet.plan.withheld = {2, 3, 4}
    slow = fleet.faulty("slow")
    slow.rule = silent_after(slow, 0)
    fleet.open_desk(stall=600.0)
    fleet.router.connect()
    running = Running(fleet.transfer(connections=2, max_connections=2))
    fleet.router.wait(lambda: (1, GOT, HUB) in fleet.router.outcomes)
    slow.wait_for_requests(1)

    fleet.router.vanish()
    eventually(lambda: running.transfer.progress().received_bytes >= 2 * PIECE)
    fleet.plan.withheld = set()
    fleet.plan.by(HUB)
    fleet.router.connect()
    slow.close()

    assert running.wait() is None
    fleet.assert_whole()
    first, second = fleet.router.joins
    assert first.have == b"\0"
    assert second.have[0] & 2
    assert {digest.piece for digest in second.digests} == {1}


def test_a_router_that_grants_nothing_any_more_is_not_waited_for_for_ever(fleet: Fleet) -> None:
    fleet.plan.silent = True
    fleet.open_desk(silence=0.3)
    fleet.router.connect()
    running = Running(fleet.transfer())
    fleet.router.wait(lambda: fleet.router.joins)

    fleet.router.say(alone(fleet, alone=False))

    assert running.wait() is None
    fleet.assert_whole()


def test_what_a_node_waits_for_is_said_when_it_lasts(fleet: Fleet) -> None:
    fleet.plan.silent = True
    running = Running(fleet.transfer())
    fleet.router.wait(lambda: fleet.router.joins)
    fleet.router.say(alone(fleet, alone=False))

    before = running.transfer.progress()
    eventually(lambda: running.transfer.progress().state is TransferState.WAITING)

    assert before.note == ""
    assert running.transfer.progress().note == "waiting for pieces from other nodes"
    running.stop()


def test_after_a_kill_only_whole_pieces_of_other_nodes_count(fleet: Fleet) -> None:
    peer = fleet.faulty("boreas")

    broken = silent_after(peer, PIECE - 100)
    peer.rule = lambda asked: broken(asked) if asked.start else None
    fleet.plan.by("boreas")
    fleet.open_desk(stall=600.0)
    fleet.router.connect()
    running = Running(fleet.transfer(connections=3, max_connections=3))
    peer.wait_for_requests(4)
    peer.wait_for_bytes(PIECE + 3 * (PIECE - 100))
    eventually(lambda: durable(fleet) == PIECE)  # what a kill would leave

    assert running.transfer.progress().received_bytes == PIECE
    running.stop()
    assert durable(fleet) == PIECE

    peer.rule = lambda asked: None
    again = fleet.transfer()
    assert Running(again).wait() is None
    fleet.assert_whole()
    assert fleet.router.joins[-1].have == b"\1"


def test_a_file_that_is_wrong_in_the_end_comes_once_more_from_the_hub_alone(fleet: Fleet) -> None:
    other = random_bytes(SIZE, seed=99)
    fleet.faulty("liar", other)
    fleet.plan.by("liar")
    fleet.plan.digests = {piece: digest_of(other, piece) for piece in range(PIECES)}
    held = Running(fleet.transfer(stall_seconds=600.0))
    fleet.hub.rule = silent_after(fleet.hub, KIB)

    fleet.hub.wait_for_requests(1)
    fleet.router.wait(lambda: fleet.router.news[-1].leave)
    note = held.transfer.progress().note
    held.stop()
    fleet.hub.rule = lambda asked: None
    fleet.router.vanish()

    assert note == (
        'fetching "model.gguf" once more, from the Hub alone: put together with pieces of other '
        "nodes it was not the registered file"
    )
    named = [fields["given_by"] for _, fields in fleet.log.events if "given_by" in fields]
    assert named == [["the source", "liar"]]
    assert Running(fleet.transfer()).wait() is None
    fleet.assert_whole()


def test_a_node_leaves_when_the_inventory_has_told_that_it_holds_the_file(fleet: Fleet) -> None:
    looked = []
    desk = fleet.router.desk
    assert desk is not None
    desk.held = lambda: looked.append(True)

    assert Running(fleet.transfer()).wait() is None
    eventually(lambda: looked)
    left_before = any(news.leave for news in fleet.router.news)
    fleet.router.call(lambda: desk.told_inventory([fleet.sha256]))

    fleet.router.wait(lambda: fleet.router.news[-1].leave)
    assert not left_before


def test_digests_are_told_of_finished_files_and_of_unfinished_ones(fleet: Fleet) -> None:
    file = fleet.manifest.files[0]
    partial = fleet.store.open_partial(fleet.manifest, file)
    fill(partial, fleet.content, 1)
    fill(partial, fleet.content, 4)
    desk = fleet.router.desk
    assert desk is not None
    request = agent_pb2.DigestRequest(
        sha256=fleet.sha256, size_bytes=SIZE, piece_bytes=PIECE, pieces=[4, 0, 1, 99]
    )

    fleet.router.call(lambda: desk.obey_digest_request(request))

    told = fleet.router.digests
    fleet.router.wait(lambda: sum(len(d.digests) + len(d.missing) for d in told) == 4)
    assert {d.piece: d.digest for told_once in told for d in told_once.digests} == {
        piece: fleet.plan.digests[piece] for piece in (1, 4)
    }
    assert sorted(n for told_once in told for n in told_once.missing) == [0, 99]
    partial.close()


def fill(partial: Partial, content: bytes, piece: int) -> None:
    """Puts a piece into an unfinished file."""
    start, end = piece * PIECE, min(SIZE, (piece + 1) * PIECE)
    partial.write(memoryview(content)[start:end], start, Origin.HUB)


def test_placed_bytes_change_nothing_that_counts(fleet: Fleet) -> None:
    partial = fleet.store.open_partial(fleet.manifest, fleet.manifest.files[0])
    partial.write(memoryview(b"right"), 2, Origin.HUB)

    partial.place(memoryview(b"wrongwrong"), 0)
    before = partial.received.total, partial.covered_until(0)
    partial.accept(0, 10, Origin.PEER)

    buffer = bytearray(10)
    partial.read_into(memoryview(buffer), 0)
    assert before == (5, 0)
    assert bytes(buffer) == b"wrrightong"
    assert (partial.received.hub, partial.received.peers) == (5, 5)
    assert partial.covered_until(0) == 10
    partial.close()
