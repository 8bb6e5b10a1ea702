"""A real agent process says on its stream what it has of a file, and obeys the grants."""

from pathlib import Path

import pytest

from protos.llmrouter.v1 import agent_pb2, common_pb2
from tests.agent.support import agent_process, is_whole, published, task
from tests.agent.swarm.conftest import GOT
from tests.fakes.hub import FaultyHub
from tests.fakes.router import FakeRouter

pytestmark = pytest.mark.anyio

SIZE = 9 << 20  # three pieces


@pytest.fixture
def anyio_backend() -> str:
    """The loop that the agent runs in."""
    return "asyncio"


async def test_an_agent_joins_fetches_what_is_granted_tells_digests_and_leaves(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"tiny-Q4_0.gguf": SIZE})
    sha256 = model.files[0].sha256
    assert sha256 is not None
    async with FakeRouter(peer_key=b"k" * 32) as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            joined = await session.piece_news(lambda news: news.HasField("join"))
            session.grant(sha256, *(agent_pb2.PieceGrant(piece=piece) for piece in range(3)))
            await session.task("t1", common_pb2.TASK_STATE_COMPLETED)
            left = await session.piece_news(lambda news: news.leave)
            request = agent_pb2.DigestRequest(
                sha256=sha256, size_bytes=SIZE, piece_bytes=4 << 20, pieces=[2]
            )
            session.send(agent_pb2.ConnectResponse(digest_request=request))
            answer = await session.piece_digests()

            told = {
                outcome.piece: outcome.digest
                for event in session.events
                for outcome in event.piece_news.outcomes
                if outcome.result == GOT
            }
            assert (joined.sha256, joined.join.size_bytes) == (sha256, SIZE)
            assert left.sha256 == sha256
            assert {d.piece: d.digest for d in answer.digests} == {2: told[2]}
            assert sorted(told) == [0, 1, 2]
            assert is_whole(agent.models_dir, model)


async def test_a_router_from_before_the_swarm_hears_nothing_of_pieces(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"tiny-Q4_0.gguf": SIZE})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            done = await session.task("t1", common_pb2.TASK_STATE_COMPLETED)

    assert done.bytes_from == common_pb2.BytesBySource(hub=SIZE)
    assert {event.WhichOneof("event") for event in session.events} == {"report", "inventory"}
