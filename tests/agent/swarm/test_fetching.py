"""A file comes in pieces, by the router's grants, from other nodes and from the Hub."""

import pytest

from agent.store import BytesFrom
from agent.transfer import TransferError
from protos.llmrouter.v1 import agent_pb2
from tests.agent.swarm.conftest import (
    FAILED,
    GOT,
    HUB,
    PIECE,
    PIECES,
    RETURNED,
    SIZE,
    UNREACHABLE,
    WRONG,
    Fleet,
    digest_of,
    silent_after,
)
from tests.agent.transfer.conftest import KIB, MIB, Running
from tests.fakes.http_source import Answer, Asked, Ending, once
from tests.support import eventually


def test_pieces_come_from_a_node_and_from_the_hub_as_granted(fleet: Fleet) -> None:
    fleet.peer("boreas")
    fleet.plan.by("boreas")
    fleet.plan.ways[1] = [HUB]

    assert Running(fleet.transfer()).wait() is None

    fleet.assert_whole()
    assert sorted(fleet.router.told()) == [
        (0, GOT, "boreas"),
        (1, GOT, HUB),
        *((piece, GOT, "boreas") for piece in range(2, PIECES)),
    ]
    assert fleet.hub.bytes_served == PIECE
    record = fleet.store.find_file(fleet.manifest, fleet.manifest.files[0])
    assert record.sha256 == fleet.sha256


def test_bytes_are_accounted_for_where_they_came_from(fleet: Fleet) -> None:
    fleet.peer("boreas")
    fleet.plan.by("boreas")
    fleet.plan.ways[1] = [HUB]
    transfer = fleet.transfer()

    assert Running(transfer).wait() is None

    assert transfer.progress().bytes_from == BytesFrom(hub=PIECE, peers=SIZE - PIECE)


def test_pieces_of_the_hub_are_reported_with_their_digest_and_how_long_they_took(
    fleet: Fleet,
) -> None:
    assert Running(fleet.transfer()).wait() is None

    fleet.router.told()
    told = {
        outcome.piece: (outcome.digest, outcome.elapsed.ToNanoseconds() > 0)
        for news in fleet.router.news
        for outcome in news.outcomes
    }
    assert told == {piece: (digest_of(fleet.content, piece), True) for piece in range(PIECES)}


def test_a_node_says_what_it_has_and_how_much_it_can_take(fleet: Fleet) -> None:
    assert Running(fleet.transfer(connections=4)).wait() is None

    first = fleet.router.news[0]
    assert first.sha256 == fleet.sha256
    assert first.join == agent_pb2.SwarmJoin(size_bytes=SIZE, piece_bytes=PIECE, have=b"\0")
    assert first.capacity == 6
    assert not first.leave


def bent(asked: Asked, source_right: Answer, body: bytes) -> Answer:
    """The right answer with another body."""
    length = {"Content-Length": str(len(source_right.body))}
    return Answer(206, {**source_right.fields, **length}, body, Ending.CLOSE)


@pytest.mark.parametrize("fault", ["flips a bit", "sends another file"])
def test_wrong_bytes_cost_one_piece_and_are_never_counted(fleet: Fleet, fault: str) -> None:
    peer = fleet.faulty("liar")
    if fault == "flips a bit":

        def rule(asked: Asked) -> Answer:
            right = peer.right(asked)
            flipped = bytearray(right.body)
            flipped[len(flipped) // 2] ^= 1
            return bent(asked, right, bytes(flipped))

        peer.rule = rule
    else:
        peer.content = bytes(SIZE)
    fleet.plan.ways[2] = ["liar", HUB]
    transfer = fleet.transfer()

    assert Running(transfer).wait() is None

    fleet.assert_whole()
    assert [outcome for outcome in fleet.router.told() if outcome[0] == 2] == [
        (2, WRONG, "liar"),
        (2, GOT, HUB),
    ]
    assert len(peer.asked) == 1
    assert transfer.progress().bytes_from == BytesFrom(hub=SIZE)


def refusal(status: int, **fields: str) -> Answer:
    """An answer without the piece."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Answer(status, named, b"no")


@pytest.mark.parametrize(
    "answer",
    [
        refusal(401),
        refusal(404),
        refusal(409),
        refusal(416),
        refusal(503, Retry_After="60"),
        refusal(302, Location="http://127.0.0.1:9/blobs/x"),
        Answer(200, {}, b"something else"),
        Answer(206, {"Content-Range": "bytes 0-1/2"}, b"no"),
    ],
    ids=["401", "404", "409", "416", "503", "redirect", "200", "other range"],
)
def test_a_node_that_refuses_holds_up_nothing(fleet: Fleet, answer: Answer) -> None:
    fleet.faulty("shut").rule = lambda asked: answer
    fleet.plan.by("shut", HUB)

    assert Running(fleet.transfer(backoff_seconds=600.0)).wait() is None

    fleet.assert_whole()
    told = fleet.router.told()
    assert {outcome for outcome in told if outcome[1] != GOT} == {
        (piece, FAILED, "shut") for piece in range(PIECES)
    }
    assert {outcome for outcome in told if outcome[1] == GOT} == {
        (piece, GOT, HUB) for piece in range(PIECES)
    }


@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET, Ending.SILENCE])
def test_a_node_that_breaks_off_or_falls_silent_is_left(fleet: Fleet, ending: Ending) -> None:
    peer = fleet.faulty("weak")

    def rule(asked: Asked) -> Answer:
        right = peer.right(asked)
        fields = {**right.fields, "Content-Length": str(len(right.body))}
        return Answer(206, fields, right.body[: 64 * KIB], ending)

    peer.rule = rule
    fleet.plan.ways[0] = ["weak", HUB]

    assert Running(fleet.transfer(stall_seconds=600.0)).wait() is None

    fleet.assert_whole()
    assert (0, FAILED, "weak") in fleet.router.told()
    assert len(peer.asked) == 1


def test_a_node_that_nobody_finds_is_told_as_unreachable(fleet: Fleet) -> None:
    gone = fleet.faulty("gone")
    gone.close()
    fleet.plan.by("gone", HUB)

    assert Running(fleet.transfer(backoff_seconds=600.0)).wait() is None

    fleet.assert_whole()
    assert {(p, UNREACHABLE, "gone") for p in range(PIECES)} < set(fleet.router.told())


def test_the_address_that_works_is_found_and_remembered(fleet: Fleet) -> None:
    fleet.peer("boreas")
    gone = fleet.faulty("gone")
    gone.close()
    stranger = fleet.faulty("stranger")  # another machine at an address of boreas
    stranger.rule = lambda asked: refusal(404)
    addresses = fleet.plan.addresses
    addresses["boreas"] = [*addresses["gone"], *addresses["stranger"], *addresses["boreas"]]
    fleet.plan.by("boreas")

    assert Running(fleet.transfer(connections=1, max_connections=1)).wait() is None

    fleet.assert_whole()
    assert len(stranger.asked) == 1
    assert {outcome[1:] for outcome in fleet.router.told()} == {(GOT, "boreas")}


def test_no_proxy_stands_between_nodes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fleet.open_desk()
    fleet.router.connect()
    fleet.peer("boreas")
    fleet.plan.by("boreas")

    assert Running(fleet.transfer()).wait() is None

    fleet.assert_whole()
    assert fleet.hub.bytes_served == 0


def test_while_other_nodes_help_a_hub_that_refuses_ends_nothing(fleet: Fleet) -> None:
    fleet.peer("boreas")
    fleet.hub.rule = lambda asked: refusal(404)
    fleet.plan.by("boreas")
    fleet.plan.ways[0] = [HUB, HUB, "boreas"]
    fleet.faulty("slow").rule = lambda asked: refusal(503)
    fleet.plan.ways[4] = ["slow", "boreas"]

    assert Running(fleet.transfer()).wait() is None

    fleet.assert_whole()
    assert (0, FAILED, HUB) in fleet.router.told()


def test_a_hub_that_refuses_ends_the_transfer_when_nobody_helps(fleet: Fleet) -> None:
    fleet.hub.rule = lambda asked: refusal(404)

    error = Running(fleet.transfer()).wait()

    assert isinstance(error, TransferError)
    assert error.code == "source_rejected"
    fleet.router.wait(lambda: fleet.router.news[-1].leave)


def test_a_piece_that_was_partly_there_is_completed(fleet: Fleet) -> None:
    fleet.plan.alone = True
    fleet.hub.rule = once(silent_after(fleet.hub, MIB))
    first = Running(
        fleet.transfer(connections=1, max_connections=1, stall_seconds=600.0, piece_bytes=PIECE)
    )
    eventually(lambda: first.transfer.progress().received_bytes == MIB)
    first.stop()
    fleet.plan.alone = False
    fleet.peer("boreas")
    fleet.plan.by("boreas")
    fleet.plan.ways[4] = [HUB]

    second = fleet.transfer()
    assert Running(second).wait() is None

    fleet.assert_whole()
    assert second.progress().bytes_from.hub == 2 * MIB
    assert set(fleet.router.told()) >= {(piece, GOT, "boreas") for piece in range(1, 4)}


def test_a_second_way_wins_when_the_first_takes_too_long(fleet: Fleet) -> None:
    slow = fleet.faulty("slow")
    slow.rule = silent_after(slow, KIB)
    fleet.open_desk(stall=600.0)
    fleet.router.connect()
    fleet.peer("boreas")
    fleet.plan.ways[3] = ["slow"]
    running = Running(fleet.transfer())
    slow.wait_for_requests(1)
    fleet.router.wait(lambda: len(fleet.router.outcomes) == PIECES - 1)

    fleet.router.say(
        agent_pb2.PieceGrants(sha256=fleet.sha256, grants=[fleet.plan.grant(3, "boreas")])
    )

    assert running.wait() is None
    fleet.assert_whole()
    fleet.router.wait(lambda: (3, RETURNED, "slow") in fleet.router.outcomes)
    assert (3, GOT, "boreas") in fleet.router.told()


def test_what_a_node_has_already_is_given_back(fleet: Fleet) -> None:
    fleet.plan.ways[4] = ["slow"]
    slow = fleet.faulty("slow")
    slow.rule = silent_after(slow, 0)
    fleet.open_desk(stall=600.0)
    fleet.router.connect()
    running = Running(fleet.transfer())
    fleet.router.wait(lambda: (0, GOT, HUB) in fleet.router.outcomes)

    fleet.router.say(
        agent_pb2.PieceGrants(sha256=fleet.sha256, grants=[fleet.plan.grant(0, "slow")])
    )

    fleet.router.wait(lambda: (0, RETURNED, "slow") in fleet.router.outcomes)
    running.stop()
    fleet.router.wait(lambda: fleet.router.news[-1].leave)


def test_grants_of_an_unknown_file_are_given_back(fleet: Fleet) -> None:
    fleet.router.say(agent_pb2.PieceGrants(sha256="0" * 64, grants=[fleet.plan.grant(1, "boreas")]))

    fleet.router.wait(lambda: fleet.router.outcomes == [(1, RETURNED, "boreas")])
    assert fleet.router.news[0].sha256 == "0" * 64


@pytest.mark.parametrize(
    "grant",
    [
        agent_pb2.PieceGrant(piece=PIECES),
        agent_pb2.PieceGrant(piece=-1),
        agent_pb2.PieceGrant(piece=0, holder_node_id="boreas", digest=b"short"),
        agent_pb2.PieceGrant(piece=0, holder_node_id="boreas"),
    ],
)
def test_a_grant_that_means_nothing_is_given_back(
    fleet: Fleet, grant: agent_pb2.PieceGrant
) -> None:
    fleet.hub.rule = silent_after(fleet.hub, 0)
    running = Running(fleet.transfer())
    fleet.hub.wait_for_requests(1)

    fleet.router.say(agent_pb2.PieceGrants(sha256=fleet.sha256, grants=[grant]))

    given_back = (grant.piece, RETURNED, grant.holder_node_id)
    fleet.router.wait(lambda: given_back in fleet.router.outcomes)
    running.stop()
