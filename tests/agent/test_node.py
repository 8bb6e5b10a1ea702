"""A node's side of the conversation, without a network in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.assignment import TaskOrder
from agent.connection import Outbox
from agent.host import Disk
from agent.inventory import Inventory
from agent.ledger import Remembered, read
from agent.manifest import Manifest
from agent.node import LEDGER_FILE, Node
from agent.runner import Runner
from agent.store import Store
from agent.transfer import RateLimit, TransferStopped
from agent.urls import UrlDesk
from agent.wire import manifest_to_pb
from protos.llmrouter.v1 import agent_pb2, common_pb2
from tests.agent.fakes import FakeFiles, FakeTransfer
from tests.agent.support import manifest, task, until
from tests.fakes.router import span

pytestmark = pytest.mark.anyio

TINY = manifest("acme/tiny")
OTHER = manifest("acme/other", {"other.gguf": b"other"})


class Bench:
    """One start of an agent whose transfers the test ends; several may follow in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = FakeFiles()
        self.desk = UrlDesk()
        self.transfers: list[FakeTransfer] = []
        self.node = Node(
            folder,
            hello=lambda: agent_pb2.Hello(node_id="node-1"),
            disk=lambda: Disk(30, 100),
            desk=self.desk,
        )
        self._runner = Runner(
            self.files,
            self._new_transfer,
            rate=RateLimit(),
            own_rate=None,
            max_concurrent=2,
            listener=self.node,
        )
        store = Store(folder / "models", folder / "store")
        self.inventory = Inventory(store, folder / "times.json", self.node.inventory_changed)
        self.node.follow(self._runner, self.inventory)

    def _new_transfer(self, order: TaskOrder) -> FakeTransfer:
        self.transfers.append(FakeTransfer(order))
        return self.transfers[-1]

    async def close(self) -> None:
        """Ends everything and keeps the ledger."""
        for transfer in self.transfers:
            transfer.end(TransferStopped())
        await self._runner.close()
        self.node.save()

    def remembered(self) -> Remembered:
        """What the next start will know."""
        self.node.save()
        return read(self.folder / LEDGER_FILE)


class Talk:
    """A session, as a router hears it."""

    def __init__(self, node: Node, outbox: Outbox) -> None:
        self._node = node
        self._outbox = outbox

    async def hear(
        self, wanted: Callable[[agent_pb2.ConnectRequest], object]
    ) -> agent_pb2.ConnectRequest:
        """The next event that is as wanted."""
        async with asyncio.timeout(20):
            while not wanted(event := await self._outbox.take()):
                pass
        return event

    async def report(
        self, wanted: Callable[[agent_pb2.Report], object] = lambda report: True
    ) -> agent_pb2.Report:
        """The next report that is as wanted."""
        event = await self.hear(lambda e: e.HasField("report") and bool(wanted(e.report)))
        return event.report

    async def assign(
        self,
        revision: int,
        *tasks: agent_pb2.TaskAssignment,
        evict: Manifest | None = None,
        keep: Manifest | None = None,
    ) -> None:
        """Sends an assignment."""
        assignment = agent_pb2.Assignment(revision=revision, tasks=tasks)
        if evict is not None:
            assignment.evictions.add(eviction_id="e1", manifest=manifest_to_pb(evict))
        if keep is not None:
            assignment.keep_partials.append(manifest_to_pb(keep))
        await self._node.obey(agent_pb2.ConnectResponse(assignment=assignment))


@asynccontextmanager
async def talking(bench: Bench, epoch: int = 1, heartbeat: float = 3600) -> AsyncIterator[Talk]:
    welcome = agent_pb2.Welcome(
        session=1,
        epoch=epoch,
        heartbeat_interval=span(heartbeat),
        report_interval=span(0.05),
    )
    outbox = Outbox()
    bench.node.begin(welcome, outbox)
    session = asyncio.create_task(bench.node.converse())
    try:
        yield Talk(bench.node, outbox)
    finally:
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


async def test_a_session_begins_with_a_report_and_goes_on_at_every_heartbeat(bench: Bench) -> None:
    async with talking(bench, heartbeat=0.05) as talk:
        reports = [await talk.report() for _ in range(3)]

    assert reports[0] == reports[2]
    assert (reports[0].disk_free_bytes, reports[0].disk_total_bytes) == (30, 100)
    assert reports[0].assignment_revision == 0


async def test_all_tasks_are_in_every_report(bench: Bench) -> None:
    async with talking(bench) as talk:
        await talk.assign(7, task(TINY, "t1"), task(OTHER, "t2"))

        report = await talk.report(lambda report: report.assignment_revision == 7)

    assert [told.task_id for told in report.tasks] == ["t1", "t2"]


async def test_an_assignment_that_was_overtaken_is_ignored(bench: Bench) -> None:
    async with talking(bench) as talk:
        await talk.assign(7, task(TINY))
        await talk.assign(6)

        report = await talk.report(lambda report: report.tasks)

    assert report.assignment_revision == 7


async def test_an_older_router_is_obeyed_but_nothing_is_removed_for_it(bench: Bench) -> None:
    async with talking(bench, epoch=5) as talk:
        await talk.assign(9, task(OTHER, paused=True))
        await talk.report(lambda report: report.assignment_revision == 9)
    async with talking(bench, epoch=4) as talk:
        await talk.assign(1, task(TINY, "t2"), evict=OTHER)
        await talk.report(
            lambda report: any(t.state == common_pb2.TASK_STATE_DOWNLOADING for t in report.tasks)
        )

    assert (bench.files.evicted, bench.files.discarded) == ([], [])
    assert bench.remembered().epoch == 5


async def test_what_an_older_router_would_not_want_is_discarded_for_the_next_newer_one(
    bench: Bench,
) -> None:
    async with talking(bench, epoch=5) as talk:
        await talk.assign(9, task(OTHER, paused=True))
    async with talking(bench, epoch=4) as talk:
        await talk.assign(1)
    async with talking(bench, epoch=6) as talk:
        await talk.assign(1)
        await until(lambda: bench.files.discarded)

    assert bench.files.discarded == [("other.gguf",)]


async def test_partials_stay_while_some_manifest_of_the_assignment_cannot_be_read(
    bench: Bench,
) -> None:
    async with talking(bench) as talk:
        await talk.assign(1, task(OTHER, paused=True))
        bad = agent_pb2.TaskAssignment(task_id="bad", attempt=1)
        await talk.assign(2, bad, task(TINY, "t2"))
        await until(lambda: bench.transfers)
        kept = list(bench.files.discarded)
        report = await talk.report(lambda report: report.assignment_revision == 2)
        await talk.assign(3)
        bench.transfers[0].end(TransferStopped())
        await until(lambda: bench.files.discarded)

    told = next(told for told in report.tasks if told.task_id == "bad")
    assert told.error.code == "invalid_manifest"
    assert kept == []


async def test_a_restarted_agent_goes_on_without_its_router(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    async with talking(before) as talk:
        await talk.assign(7, task(TINY))
        await until(lambda: before.transfers)
    await before.close()

    after = Bench(tmp_path)
    await until(lambda: after.transfers)
    async with talking(after) as talk:
        report = await talk.report()
    await after.close()

    assert after.transfers[0].order.task_id == "t1"
    assert report.assignment_revision == 7


async def test_partials_that_were_to_go_go_after_a_restart_too(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    async with talking(before) as talk:
        await talk.assign(7, task(TINY, paused=True))
    await before.close()

    after = Bench(tmp_path)
    at_start = list(after.files.discarded)
    async with talking(after) as talk:
        await talk.assign(8)
        await until(lambda: after.files.discarded)
    left = after.remembered().leftovers
    await after.close()

    assert at_start == []
    assert after.files.discarded == [("tiny-Q4_0.gguf",)]
    assert left == ()


async def test_partials_that_the_router_keeps_stay(bench: Bench) -> None:
    async with talking(bench) as talk:
        await talk.assign(1, task(TINY, paused=True), task(OTHER, "t2", paused=True))
        await talk.assign(2, keep=TINY)
        await until(lambda: bench.files.discarded)

    assert bench.files.discarded == [("other.gguf",)]


async def test_models_that_came_stay_known_until_they_are_evicted(bench: Bench) -> None:
    async with talking(bench) as talk:
        await talk.assign(1, task(TINY))
        await until(lambda: bench.transfers)
        bench.transfers[0].end()
        await talk.report(
            lambda report: any(t.state == common_pb2.TASK_STATE_COMPLETED for t in report.tasks)
        )
        held = bench.remembered().models
        await talk.assign(2, evict=TINY)
        await talk.report(lambda report: "e1" in report.done_eviction_ids)

    assert held == (TINY,)
    assert bench.remembered().models == ()


async def test_a_question_without_an_answer_is_asked_again_in_the_next_session(
    bench: Bench,
) -> None:
    async with talking(bench) as talk:
        asking = asyncio.create_task(bench.desk.ask("t1", "a.gguf"))
        first = await talk.hear(lambda event: event.HasField("file_url_request"))
    async with talking(bench) as talk:
        second = await talk.hear(lambda event: event.HasField("file_url_request"))
        result = agent_pb2.FileUrlResult(
            request_id=second.file_url_request.request_id, url="https://cdn.example/a"
        )
        await bench.node.obey(agent_pb2.ConnectResponse(file_url_result=result))

        answer = await asyncio.wait_for(asking, 20)

    assert first == second
    assert answer.url == "https://cdn.example/a"


async def test_the_inventory_is_sent_at_the_beginning_of_each_session(bench: Bench) -> None:
    looking = asyncio.create_task(bench.inventory.run())
    for _ in range(2):
        async with talking(bench) as talk:
            event = await talk.hear(lambda event: event.HasField("inventory"))
            assert not event.inventory.partial
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_a_command_of_a_later_version_is_passed_over(bench: Bench) -> None:
    async with talking(bench) as talk:
        await bench.node.obey(agent_pb2.ConnectResponse())

        assert await talk.report()
