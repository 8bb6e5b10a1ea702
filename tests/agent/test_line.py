"""A node's share of the line: obeyed at once, told, and kept while the router is away."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from agent.connection import Outbox
from agent.host import Disk
from agent.inventory import Inventory
from agent.ledger import read
from agent.node import LEDGER_FILE, Node
from agent.runner import Runner
from agent.store import Store
from agent.transfer import RateLimit
from agent.urls import UrlDesk
from protos.llmrouter.v1 import agent_pb2
from tests.agent.fakes import FakeFiles, FakeTransfer

pytestmark = pytest.mark.anyio


class Agent:
    """One start of an agent without tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub_rate = RateLimit()
        self.node = Node(
            folder,
            hello=lambda: agent_pb2.Hello(node_id="node-1"),
            disk=lambda: Disk(1, 1),
            desk=UrlDesk(),
            hub_rate=self.hub_rate,
        )
        runner = Runner(
            FakeFiles(),
            FakeTransfer,
            rate=RateLimit(),
            own_rate=None,
            max_concurrent=1,
            listener=self.node,
        )
        store = Store(folder / "models", folder / "store")
        self.node.follow(
            runner, Inventory(store, folder / "times.json", self.node.inventory_changed)
        )

    async def told(self, share: int | None) -> agent_pb2.Report:
        """The first report of a session after that share came."""
        outbox = Outbox()
        hour = Duration(seconds=3600)
        self.node.begin(agent_pb2.Welcome(session=1, epoch=1, heartbeat_interval=hour), outbox)
        session = asyncio.create_task(self.node.converse())
        with contextlib.suppress(TimeoutError):  # what a session begins with
            while True:
                async with asyncio.timeout(0.1):
                    await outbox.take()
        line_share = agent_pb2.LineShare(max_hub_rate_bytes_per_second=share)
        await self.node.obey(agent_pb2.ConnectResponse(line_share=line_share))
        async with asyncio.timeout(20):
            while not (event := await outbox.take()).HasField("report"):
                pass
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        return event.report


async def test_a_share_is_obeyed_and_told_at_once(tmp_path: Path) -> None:
    agent = Agent(tmp_path)

    report = await agent.told(5000)

    assert agent.hub_rate.bytes_per_second == 5000
    assert report.max_hub_rate_bytes_per_second == 5000


async def test_a_share_without_a_limit_lifts_the_one_before(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    await agent.told(5000)

    report = await agent.told(None)

    assert agent.hub_rate.bytes_per_second is None
    assert not report.HasField("max_hub_rate_bytes_per_second")


async def test_a_share_holds_over_a_restart_without_a_router(tmp_path: Path) -> None:
    before = Agent(tmp_path)
    await before.told(5000)
    before.node.save()

    after = Agent(tmp_path)

    assert read(tmp_path / LEDGER_FILE).max_hub_rate == 5000
    assert after.hub_rate.bytes_per_second == 5000


async def test_an_assignment_leaves_the_share_as_it_is(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    await agent.told(5000)

    assignment = agent_pb2.Assignment(revision=3)
    await agent.node.obey(agent_pb2.ConnectResponse(assignment=assignment))
    agent.node.save()

    assert read(tmp_path / LEDGER_FILE).max_hub_rate == 5000


async def test_a_share_of_nothing_is_not_a_share_without_a_limit(tmp_path: Path) -> None:
    agent = Agent(tmp_path)

    await agent.told(0)

    assert agent.hub_rate.bytes_per_second == 1
