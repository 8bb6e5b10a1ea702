"""What runs, what is reported, what is removed: over transfers that a test ends by hand."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable

import pytest

from agent.assignment import Assignment, EvictionOrder, RefusedTask, TaskOrder
from agent.manifest import Manifest
from agent.runner import Phase, Runner, TaskStatus
from agent.store import BytesFrom, StoreError
from agent.transfer import RateLimit, TransferError, TransferState, TransferStopped
from tests.agent.fakes import FakeFiles, FakeTransfer
from tests.agent.support import manifest

pytestmark = pytest.mark.anyio

TINY = manifest("acme/tiny", {"tiny.gguf": b"tiny", "mmproj.gguf": b"shared"})
OTHER = manifest("acme/other", {"other.gguf": b"other"})


class Bench:
    """A runner, and everything around it within reach."""

    def __init__(self, max_concurrent: int = 2, own_rate: int | None = None) -> None:
        self.files = FakeFiles()
        self.transfers: list[FakeTransfer] = []
        self.rate = RateLimit(own_rate)
        self.stored_models: list[Manifest] = []
        self.removed_models: list[Manifest] = []
        self.discarded_models: list[Manifest] = []
        self.upload_limits: list[int | None] = []
        self._change = asyncio.Event()
        self.runner = Runner(
            self.files,
            self._new_transfer,
            rate=self.rate,
            own_rate=own_rate,
            max_concurrent=max_concurrent,
            listener=self,
            retry_seconds=0.01,
            limit_upload=self.upload_limits.append,
        )

    def _new_transfer(self, order: TaskOrder) -> FakeTransfer:
        self.transfers.append(FakeTransfer(order))
        return self.transfers[-1]

    def changed(self) -> None:
        self._change.set()

    def stored(self, manifest: Manifest) -> None:
        self.stored_models.append(manifest)

    def removed(self, manifest: Manifest) -> None:
        self.removed_models.append(manifest)

    def discarded(self, manifests: Iterable[Manifest]) -> None:
        self.discarded_models.extend(manifests)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for a change that makes the condition true."""
        async with asyncio.timeout(20):
            while not condition():
                self._change.clear()
                await self._change.wait()

    def status(self, task_id: str = "t1") -> TaskStatus:
        """How a task stands."""
        return next(s for s in self.runner.statuses() if s.task_id == task_id)

    async def started(self, count: int = 1) -> FakeTransfer:
        """The transfer that was started last, when there are so many."""
        await self.until(lambda: len(self.transfers) >= count)
        return self.transfers[count - 1]

    def assign(self, *orders: TaskOrder, **fields: object) -> None:
        """Gives the runner an assignment from a router that it trusts."""
        leftovers = fields.pop("leftovers", ())
        in_use = fields.pop("in_use", ())
        assignment = dataclasses.replace(Assignment(tasks=orders), **fields)  # type: ignore[arg-type]
        self.runner.assign(
            assignment,
            may_remove=True,
            leftovers=leftovers,  # type: ignore[arg-type]
            in_use=lambda evicted: in_use,  # type: ignore[arg-type,return-value]
        )


def order(
    model: Manifest = TINY, task_id: str = "t1", attempt: int = 1, *, paused: bool = False
) -> TaskOrder:
    return TaskOrder(task_id, attempt, model, paused)


async def test_a_task_runs_and_its_end_is_reported_until_it_is_no_longer_listed() -> None:
    bench = Bench()
    bench.assign(order())
    (await bench.started()).end()

    await bench.until(lambda: bench.status().phase is Phase.COMPLETED)
    bench.assign(order())
    still = bench.status().phase
    bench.assign()

    assert still is Phase.COMPLETED
    assert len(bench.transfers) == 1
    assert bench.runner.statuses() == []
    assert bench.stored_models == [TINY]


async def test_no_more_transfers_run_than_allowed_and_the_next_follows_an_end() -> None:
    bench = Bench(max_concurrent=1)
    bench.assign(order(), order(OTHER, "t2"))
    first = await bench.started()

    waiting = bench.status("t2")
    first.end()
    second = await bench.started(2)

    assert waiting.phase is Phase.PENDING
    assert "waits for its turn" in waiting.note
    assert second.order.task_id == "t2"
    second.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_a_failure_tells_its_cause() -> None:
    bench = Bench()
    bench.assign(order())
    (await bench.started()).end(TransferError("digest_mismatch", "not the file", retryable=False))

    await bench.until(lambda: bench.status().phase is Phase.FAILED)

    failure = bench.status().failure
    assert failure is not None
    assert (failure.code, failure.message, failure.retryable) == (
        "digest_mismatch", "not the file", False,
    )  # fmt: skip


async def test_a_transfer_that_breaks_fails_its_task_and_nothing_else() -> None:
    bench = Bench(max_concurrent=1)
    bench.assign(order(), order(OTHER, "t2"))
    (await bench.started()).end(RuntimeError("a bug"))

    await bench.until(lambda: bench.status().phase is Phase.FAILED)
    second = await bench.started(2)

    failure = bench.status().failure
    assert failure is not None
    assert failure.code == "internal"
    second.end()
    await bench.until(lambda: bench.status("t2").phase is Phase.COMPLETED)


async def test_a_malformed_task_is_reported_as_failed_beside_the_others() -> None:
    bench = Bench()
    bench.assign(order(), refused=(RefusedTask("bad", 3, "climbs out"),))
    transfer = await bench.started()

    status = bench.status("bad")

    assert status.failure is not None
    assert (status.phase, status.attempt) == (Phase.FAILED, 3)
    assert (status.failure.code, status.failure.message) == ("invalid_manifest", "climbs out")
    transfer.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_bytes_never_run_backwards_over_a_pause_within_an_attempt() -> None:
    bench = Bench()
    bench.assign(order())
    first = await bench.started()
    first.now = dataclasses.replace(first.now, received_bytes=8, bytes_from=BytesFrom(hub=8))
    bench.assign(order(paused=True))
    first.end(TransferStopped())
    await bench.until(lambda: bench.status().phase is Phase.PAUSED)
    paused = bench.status()

    bench.assign(order())
    second = await bench.started(2)
    resumed = bench.status()

    assert first.stopped_keeping is True
    assert paused.done == 8
    assert (resumed.phase, resumed.done, resumed.bytes_from) == (
        Phase.DOWNLOADING, 8, BytesFrom(hub=8),
    )  # fmt: skip
    second.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_a_task_on_hold_keeps_what_it_has_says_why_and_goes_on_from_there() -> None:
    bench = Bench()
    bench.assign(order())
    first = await bench.started()
    first.now = dataclasses.replace(first.now, received_bytes=8, bytes_from=BytesFrom(hub=8))
    bench.assign(dataclasses.replace(order(), hold="waits for 22:00"))
    first.end(TransferStopped())
    await bench.until(lambda: bench.status().phase is Phase.PENDING)
    held = bench.status()

    bench.assign(order())
    second = await bench.started(2)

    assert first.stopped_keeping is True
    assert (held.note, held.done, len(bench.transfers)) == ("waits for 22:00", 8, 2)
    second.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_a_new_attempt_waits_for_the_end_of_the_old_one() -> None:
    bench = Bench()
    bench.assign(order())
    first = await bench.started()
    bench.assign(order(attempt=2))
    alone = len(bench.transfers)
    waiting = bench.status()
    first.end(TransferStopped())

    second = await bench.started(2)

    assert alone == 1
    assert (waiting.attempt, waiting.phase) == (2, Phase.PENDING)
    assert second.order.attempt == 2
    second.end()
    await bench.until(lambda: bench.status().phase is Phase.COMPLETED)


async def test_a_paused_task_shows_what_an_earlier_process_left_on_disk() -> None:
    bench = Bench()
    bench.files.partial_bytes = 3
    bench.assign(order(OTHER, paused=True))

    await bench.until(lambda: bench.status().done == 3)

    assert bench.status().phase is Phase.PAUSED


async def test_leftovers_are_discarded_save_files_that_are_wanted_still() -> None:
    bench = Bench()
    sharing = manifest("acme/sharing", {"sharing.gguf": b"new", "mmproj.gguf": b"shared"})
    bench.assign(leftovers=[TINY, OTHER], keep_partials=(sharing,))

    await bench.until(lambda: bench.discarded_models)

    assert bench.files.discarded == [("tiny.gguf",), ("other.gguf",)]
    assert bench.discarded_models == [TINY, OTHER]


async def test_leftovers_wait_until_the_transfer_that_writes_them_has_stopped() -> None:
    bench = Bench()
    bench.assign(order())
    transfer = await bench.started()
    bench.assign(order(OTHER, "t2"), leftovers=[TINY])
    second = await bench.started(2)
    before = list(bench.files.discarded)
    transfer.end(TransferStopped())

    await bench.until(lambda: bench.discarded_models)

    assert before == []
    assert bench.files.discarded == [("tiny.gguf", "mmproj.gguf")]
    second.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_an_assignment_that_may_not_remove_removes_nothing() -> None:
    bench = Bench()
    assignment = Assignment(tasks=(order(),), evictions=(EvictionOrder("e1", OTHER),))
    bench.runner.assign(assignment, may_remove=False, leftovers=[OTHER])
    (await bench.started()).end()

    await bench.until(lambda: bench.status().phase is Phase.COMPLETED)

    assert (bench.files.discarded, bench.files.evicted) == ([], [])
    assert bench.runner.done_evictions == []


async def test_an_eviction_leaves_the_files_that_another_model_uses() -> None:
    bench = Bench()
    sharing = manifest("acme/sharing", {"sharing.gguf": b"new", "mmproj.gguf": b"shared"})
    bench.assign(evictions=(EvictionOrder("e1", TINY),), in_use=[sharing])

    await bench.until(lambda: bench.runner.done_evictions == ["e1"])

    assert bench.files.evicted == [("tiny.gguf",)]
    assert bench.removed_models == [TINY]


async def test_an_eviction_that_fails_is_tried_again() -> None:
    bench = Bench()
    bench.files.trouble = [StoreError("store_read_only", "read-only", retryable=False)]
    bench.assign(evictions=(EvictionOrder("e1", TINY),))

    await bench.until(lambda: bench.runner.done_evictions == ["e1"])

    assert bench.files.evicted == [("tiny.gguf", "mmproj.gguf")]


async def test_a_done_eviction_is_told_only_while_it_is_listed() -> None:
    bench = Bench()
    bench.assign(evictions=(EvictionOrder("e1", TINY),))
    await bench.until(lambda: bench.runner.done_evictions == ["e1"])

    bench.assign()

    assert bench.runner.done_evictions == []


@pytest.mark.parametrize(
    ("assigned", "holds"), [(None, 500), (2_000, 2_000), (0, None)], ids=["own", "set", "lifted"]
)
async def test_the_assigned_rate_beats_the_own_one(assigned: int | None, holds: int | None) -> None:
    bench = Bench(own_rate=500)

    bench.assign(max_rate=assigned)

    assert bench.rate.bytes_per_second == holds


async def test_whoever_serves_hears_what_is_assigned_to_it() -> None:
    bench = Bench()

    for assigned in (None, 3_000, 0):
        bench.assign(max_upload_rate=assigned)

    assert bench.upload_limits == [None, 3_000, 0]


async def test_closing_stops_every_transfer_and_keeps_its_bytes() -> None:
    bench = Bench()
    bench.assign(order(), order(OTHER, "t2"))
    await bench.started(2)
    closing = asyncio.create_task(bench.runner.close())
    await asyncio.sleep(0)
    for transfer in bench.transfers:
        transfer.end(TransferStopped())

    await asyncio.wait_for(closing, 20)

    assert [transfer.stopped_keeping for transfer in bench.transfers] == [True, True]
    assert len(bench.transfers) == 2


async def test_turning_to_verifying_is_announced_at_once() -> None:
    bench = Bench()
    bench.assign(order())
    transfer = await bench.started()

    transfer.now = dataclasses.replace(transfer.now, state=TransferState.VERIFYING)
    await bench.until(lambda: bench.status().phase is Phase.VERIFYING)

    transfer.end()
    await bench.until(lambda: not bench.runner.is_busy)


async def test_digests_that_the_manifest_lacked_are_told() -> None:
    bench = Bench()
    model = manifest(files={"a.gguf": b"1"}, known_digests=False)
    bench.assign(order(model))
    (await bench.started()).end()

    await bench.until(lambda: bench.status().phase is Phase.COMPLETED)

    assert bench.status().found_sha256 == {"a.gguf": "d" * 64}
