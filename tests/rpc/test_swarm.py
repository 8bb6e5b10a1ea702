"""Pieces between nodes, over real streams."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from protos import pieces
from protos.llmrouter.v1 import agent_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from router.config import Timers
from tests.fakes.agent import FakeAgent
from tests.fakes.hub import FaultyHub, make_repo
from tests.fakes.running_router import RunningRouter
from tests.fakes.sharing_agent import SharingAgent
from tests.support import eventually

REPO, FILE = "owner/wide-GGUF", "wide-Q4_K_M.gguf"
COUNT = 3
CONTENT = bytes(pieces.SMALLEST_PIECE_BYTES * (COUNT - 1) + 5)
SIZE, SHA = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()


def digest(piece: int) -> bytes:
    """What a piece is, as far as the router knows."""
    return bytes([piece]) * 32


@pytest.fixture(scope="module")
def wide_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    """A hub with one file of three pieces."""
    folder = tmp_path_factory.mktemp("hub")
    make_repo(folder, REPO, {FILE: CONTENT})
    with FaultyHub(folder) as running:
        yield running


@pytest.fixture
def router(wide_hub: FaultyHub, tmp_path: Path) -> Iterator[RunningRouter]:
    """A router that knows the model."""
    with RunningRouter(tmp_path, wide_hub.url, timers=Timers(heartbeat=0.2, lease=60.0)) as running:
        running.call.registration.RegisterModel(
            registration.RegisterModelRequest(repo=REPO, file=FILE)
        )
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the agents."""
    with ExitStack() as opened:
        yield opened


class Fleet:
    """Nodes that were ordered to fetch the file."""

    def __init__(self, router: RunningRouter, stack: ExitStack) -> None:
        self._router = router
        self._stack = stack

    def node(
        self, node_id: str, *, site: str = "a", ordered: bool = True, address: str = ""
    ) -> SharingAgent:
        """A connected node that has heard of its task."""
        agent = self._stack.enter_context(
            SharingAgent(
                self._router.call.agent,
                node_id,
                site=site,
                addresses=[address or f"127.0.0.1:{7000 + int(node_id[-1])}"],
            )
        )
        agent.assignment()
        if ordered:
            self._router.call.download.StartDownload(
                download.StartDownloadRequest(
                    model_name=f"hf/{REPO}/{FILE}",
                    target=download.ORDER_TARGET_SPECIFIC,
                    node_ids=[node_id],
                )
            )
            agent.assignment(lambda assignment: assignment.tasks)
        return agent


@pytest.fixture
def fleet(router: RunningRouter, stack: ExitStack) -> Fleet:
    """Nodes of the router."""
    return Fleet(router, stack)


def metric(router: RunningRouter, name: str) -> float:
    """The present value of a series."""
    lines = httpx.get(f"{router.http_url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


def test_a_piece_from_the_hub_is_given_on_at_once_with_address_and_digest(
    router: RunningRouter, fleet: Fleet
) -> None:
    a, b = fleet.node("node-1"), fleet.node("node-2")
    a.join(SHA, SIZE)
    b.join(SHA, SIZE, capacity=0)
    (leased,) = a.granted(1)
    assert (leased.holder_node_id, list(leased.addresses), leased.digest) == ("", [], b"")

    b.news(SHA, capacity=2 * COUNT)
    a.got(SHA, leased.piece, digest=digest(leased.piece), capacity=0)
    given = b.granted_where(lambda grant: grant.holder_node_id != "")

    assert given.piece == leased.piece
    assert given.holder_node_id == "node-1"
    assert list(given.addresses) == ["127.0.0.1:7001"]
    assert given.digest == digest(leased.piece)
    b.got(SHA, given.piece, holder="node-1", capacity=0)
    eventually(lambda: metric(router, 'llm_router_piece_results_total{result="got"}') == 2)
    assert metric(router, 'llm_router_piece_grants_total{source="hub"}') >= 1
    assert metric(router, 'llm_router_piece_grants_total{source="peer"}') == 1
    assert metric(router, "llm_router_swarms") == 1


def test_a_late_node_takes_all_from_one_that_announced_the_file(fleet: Fleet) -> None:
    holder, late = fleet.node("node-1", ordered=False), fleet.node("node-2")
    holder.hold(SHA, SIZE)
    late.join(SHA, SIZE, capacity=COUNT)

    asked = holder.asked()
    assert (asked.sha256, asked.size_bytes) == (SHA, SIZE)
    assert asked.piece_bytes == pieces.SMALLEST_PIECE_BYTES
    assert sorted(asked.pieces) == list(range(COUNT))
    holder.tell_digests(asked, [(piece, digest(piece)) for piece in asked.pieces])

    granted = late.granted(COUNT)
    assert {piece.holder_node_id for piece in granted} == {"node-1"}
    assert {piece.piece: piece.digest for piece in granted} == {
        piece: digest(piece) for piece in range(COUNT)
    }


def test_a_node_hears_when_it_is_alone_and_when_no_more(fleet: Fleet) -> None:
    a, b = fleet.node("node-1"), fleet.node("node-2")

    a.join(SHA, SIZE)
    a.told_alone(True)
    b.join(SHA, SIZE)
    a.told_alone(True, False)
    b.news(SHA, leave=True)
    a.told_alone(True, False, True)


def test_a_broken_stream_frees_its_leases_for_others(fleet: Fleet) -> None:
    a, b, c = fleet.node("node-1"), fleet.node("node-2"), fleet.node("node-3")
    b.join(SHA, SIZE, capacity=0)
    c.join(SHA, SIZE, capacity=0)
    a.join(SHA, SIZE, capacity=1)
    (leased,) = a.granted(1)
    b.news(SHA, capacity=2 * COUNT)
    (other,) = b.granted(1)
    assert other.piece != leased.piece

    a.close()

    assert b.granted_where(lambda grant: grant.piece == leased.piece).holder_node_id == ""


def test_a_broken_stream_takes_what_the_node_held_with_it(fleet: Fleet) -> None:
    holder, b, c = fleet.node("node-1", ordered=False), fleet.node("node-2"), fleet.node("node-3")
    holder.hold(SHA, SIZE)
    b.join(SHA, SIZE, capacity=0)
    holder.asked()
    c.join(SHA, SIZE, capacity=0)

    c.close()
    b.told_alone(False)
    holder.close()

    b.told_alone(False, True)


def test_what_only_time_makes_possible_is_granted_without_a_word(fleet: Fleet) -> None:
    a, b = fleet.node("node-1"), fleet.node("node-2")
    b.join(SHA, SIZE, capacity=0)

    a.join(SHA, SIZE, capacity=4 * COUNT)

    # Leases do not begin all at one moment.
    assert {piece.piece for piece in a.granted(COUNT)} == set(range(COUNT))


def test_sites_do_not_mix_until_an_operator_moves_a_node(
    router: RunningRouter, fleet: Fleet
) -> None:
    a, b = fleet.node("node-1", site="a"), fleet.node("node-2", site="b")
    a.join(SHA, SIZE, [0, 1, 2], capacity=0, digests=[(i, digest(i)) for i in range(COUNT)])
    b.join(SHA, SIZE, capacity=0)
    a.told_alone(True)
    b.told_alone(True)

    router.call.node.UpdateNode(node.UpdateNodeRequest(node_id="node-1", labels={"site": "b"}))

    b.told_alone(True, False)
    b.news(SHA, capacity=1)
    a.tell_digests(a.asked(), [(i, digest(i)) for i in range(COUNT)])
    assert b.granted(1)[0].holder_node_id == "node-1"
    assert router.call.node.GetNode(node.GetNodeRequest(node_id="node-1")).node.site == "b"


def test_garbage_is_refused_and_the_stream_goes_on(fleet: Fleet) -> None:
    a, stranger = fleet.node("node-1"), fleet.node("node-2", ordered=False)

    a.join(SHA, SIZE, piece_bytes=7)
    a.told_alone(True)
    stranger.join(SHA, SIZE)
    stranger.told_alone(True)
    a.join("no digest", SIZE)
    a.join(SHA, SIZE, [COUNT])
    a.join(SHA, SIZE)
    a.ended_piece(SHA, 10_000, agent_pb2.PIECE_RESULT_GOT, digest=b"x")
    a.ended_piece(SHA, 0, agent_pb2.PIECE_RESULT_UNSPECIFIED, "x" * 1000)
    a.tell_digests(agent_pb2.DigestRequest(sha256=SHA), [(-1, b"")])
    other = fleet.node("node-3")
    other.join(SHA, SIZE)

    a.told_alone(True, False)
    stranger.told_alone(True)


def test_a_holder_of_wrong_bytes_is_counted(router: RunningRouter, fleet: Fleet) -> None:
    liar, b = fleet.node("node-1", ordered=False), fleet.node("node-2")
    liar.hold(SHA, SIZE)
    b.join(SHA, SIZE)
    liar.tell_digests(liar.asked(), [(piece, digest(piece)) for piece in range(COUNT)])
    (given,) = b.granted(1)
    assert given.holder_node_id == "node-1"

    b.ended_piece(SHA, given.piece, agent_pb2.PIECE_RESULT_WRONG, "node-1")

    b.told_alone(False, True)
    assert metric(router, "llm_router_peer_wrong_pieces_total") == 1
    assert metric(router, 'llm_router_piece_results_total{result="wrong"}') == 1


def test_a_restarted_router_learns_everything_from_the_joins(
    wide_hub: FaultyHub, tmp_path: Path, stack: ExitStack
) -> None:
    with RunningRouter(tmp_path, wide_hub.url) as first, ExitStack() as streams:
        first.call.registration.RegisterModel(
            registration.RegisterModelRequest(repo=REPO, file=FILE)
        )
        before = Fleet(first, streams)
        a, _ = before.node("node-1"), before.node("node-2")
        key = a.welcome().peer_key
    with RunningRouter(tmp_path, wide_hub.url) as second:
        a = SharingAgent(second.call.agent, "node-1")
        b = SharingAgent(second.call.agent, "node-2")
        # At once: they know their tasks, and do not wait for an assignment.
        a.join(SHA, SIZE, [0, 1, 2], capacity=0, digests=[(i, digest(i)) for i in range(COUNT)])
        b.join(SHA, SIZE, capacity=COUNT)
        stack.enter_context(a)
        stack.enter_context(b)

        granted = b.granted(COUNT)
        assert a.welcome().peer_key == key
        stack.close()

    assert {piece.holder_node_id for piece in granted} >= {"node-1"}


def test_the_secret_of_the_fleet_goes_to_agents_only(
    router: RunningRouter, fleet: Fleet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = fleet.node("node-1").welcome().peer_key

    assert len(key) == 32
    assert (tmp_path / "peer.key").read_bytes() == key
    shown = httpx.get(f"{router.http_url}/api/nodes").text + "".join(capfd.readouterr())
    assert key.hex() not in shown
    assert repr(key) not in shown


def test_a_node_is_shown_with_its_site_and_addresses(router: RunningRouter, fleet: Fleet) -> None:
    fleet.node("node-1", site="berlin", address="10.0.0.5:7070")

    shown = router.call.node.GetNode(node.GetNodeRequest(node_id="node-1")).node
    (answered,) = httpx.get(f"{router.http_url}/api/nodes").json()["nodes"]

    assert shown.site == "berlin"
    # Its stream comes from this machine.
    assert shown.peer_addresses[-1] == "10.0.0.5:7070"
    assert shown.peer_addresses[0] in ("127.0.0.1:7070", "[::1]:7070")
    assert answered["site"] == "berlin"
    assert answered["peer_addresses"] == list(shown.peer_addresses)


def test_a_node_that_lists_no_address_serves_nothing(router: RunningRouter) -> None:
    with FakeAgent(router.call.agent, "node-1"):
        shown = router.call.node.GetNode(node.GetNodeRequest(node_id="node-1")).node

    assert list(shown.peer_addresses) == []
