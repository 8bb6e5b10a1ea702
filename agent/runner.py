"""Runs transfers in threads, so many at a time, and knows how every task stands.

Everything here belongs to the event loop, save what a transfer's own thread does.
"""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agent.assignment import Assignment, TaskOrder
from agent.manifest import Manifest, ManifestFile
from agent.reconcile import Run, RunStatus, contents, reconcile
from agent.store import BytesFrom, FileState, Found, StoreError
from agent.transfer import (
    RateLimit,
    TransferError,
    TransferProgress,
    TransferState,
    TransferStopped,
)
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_LOOK_SECONDS = 0.1


class Transferring(Protocol):
    """One try to bring a manifest's files here."""

    def run(self) -> None:
        """Blocks until every file is verified and visible.

        Raises `TransferError`, `StoreError`, or `TransferStopped` after `stop`.
        """

    def stop(self, keep_partial: bool = True) -> None:
        """Makes `run` end soon; returns at once, from any thread."""

    def progress(self) -> TransferProgress:
        """How it stands, from any thread."""

    def digests(self) -> Mapping[str, str]:
        """The SHA-256 of every file that is done, by path."""


class Files(Protocol):
    """The part of the store that the runner needs."""

    def find_file(self, manifest: Manifest, file: ManifestFile, task_id: str = "") -> Found:
        """What the disk has of one file; `task_id` is whose bytes are accounted for by source."""

    def discard_partials(self, manifest: Manifest) -> int:
        """Removes what is unfinished of a manifest, unless somebody fetches it now."""

    def evict(self, manifest: Manifest) -> int:
        """Removes a model's files."""


class Listener(Protocol):
    """Who is told, in the event loop."""

    def changed(self) -> None:
        """A task or an eviction has changed its state."""

    def stored(self, manifest: Manifest) -> None:
        """Every file of a model has arrived."""

    def removed(self, manifest: Manifest) -> None:
        """A model was evicted."""

    def discarded(self, manifests: Iterable[Manifest]) -> None:
        """The partial files that only these wanted are gone."""


class Phase(StrEnum):
    """How a task stands on this node."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    FAILED = "failed"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed; `code` is stable, `message` is for a person."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task in absolute numbers; `done` never runs backwards within an attempt."""

    task_id: str
    attempt: int
    phase: Phase
    done: int = 0
    total: int = 0
    bytes_from: BytesFrom = field(default_factory=BytesFrom)
    speed: float = 0.0  # bytes per second
    note: str = ""
    failure: Failure | None = None
    found_sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def eta_seconds(self) -> float | None:
        """Until the last byte is here; None when nobody can say."""
        if self.phase is not Phase.DOWNLOADING or self.speed < 1 or self.note:
            return None
        return (self.total - self.done) / self.speed


@dataclass(slots=True)
class _Live:
    """A transfer that was started, and how it ended."""

    order: TaskOrder
    transfer: Transferring
    status: RunStatus = RunStatus.RUNNING
    ended: TaskStatus | None = None


class Runner:
    """Makes what runs and what is on disk follow the newest assignment.

    At most `max_concurrent` transfers are alive at once; `own_rate` (bytes per second, None: no
    limit) holds unless the assignment sets another. `limit_upload` is told what each assignment
    says about bytes to other nodes (0: no limit; None: the agent's own flag). What could not be
    evicted is tried again after `retry_seconds`.
    """

    def __init__(
        self,
        files: Files,
        new_transfer: Callable[[TaskOrder], Transferring],
        *,
        rate: RateLimit,
        own_rate: int | None,
        max_concurrent: int,
        listener: Listener,
        retry_seconds: float = 30.0,
        limit_upload: Callable[[int | None], None] = lambda bytes_per_second: None,
    ) -> None:
        self._files = files
        self._new_transfer = new_transfer
        self._rate = rate
        self._own_rate = own_rate
        self._max_concurrent = max_concurrent
        self._listener = listener
        self._retry_seconds = retry_seconds
        self._limit_upload = limit_upload
        self._loop = asyncio.get_running_loop()
        self._assignment = Assignment()
        self._lives: dict[str, _Live] = {}
        self._last: dict[tuple[str, int], TaskStatus] = {}
        self._to_measure: set[tuple[str, int]] = set()
        self._leftovers: tuple[Manifest, ...] = ()
        self._may_remove = False
        self._in_use: Callable[[Manifest], Iterable[Manifest]] = lambda evicted: ()
        self._evicted: set[str] = set()
        self._refused_evictions: set[str] = set()
        self._tidying: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._closing = False

    # What is wanted

    def assign(
        self,
        assignment: Assignment,
        *,
        may_remove: bool,
        leftovers: Iterable[Manifest] = (),
        in_use: Callable[[Manifest], Iterable[Manifest]] = lambda evicted: (),
    ) -> None:
        """Follows this assignment from now on; returns at once.

        With `may_remove`, partial files of `leftovers` that nobody wants any more are removed, and
        evictions are done; `in_use(evicted)` are the other models whose files stay.
        """
        self._assignment = assignment
        self._may_remove = may_remove
        self._leftovers = tuple(leftovers)
        self._in_use = in_use
        self._refused_evictions.clear()
        listed = {(order.task_id, order.attempt) for order in assignment.tasks}
        self._to_measure |= listed - self._last.keys()
        for gone in self._last.keys() - listed:
            del self._last[gone]
        self._evicted &= {eviction.eviction_id for eviction in assignment.evictions}
        limit = self._own_rate if assignment.max_rate is None else assignment.max_rate or None
        if limit != self._rate.bytes_per_second:
            self._rate.change(limit)
            log.info("the rate limit changed", bytes_per_second=limit)
        self._limit_upload(assignment.max_upload_rate)
        self._step()

    # How it stands

    @property
    def is_busy(self) -> bool:
        """Whether a transfer is alive."""
        return any(live.status is not RunStatus.ENDED for live in self._lives.values())

    @property
    def done_evictions(self) -> list[str]:
        """The listed evictions that are done."""
        return sorted(self._evicted)

    def statuses(self) -> list[TaskStatus]:
        """Every task of the assignment, in its order; refused ones as failed."""
        refused = [
            TaskStatus(
                task.task_id,
                task.attempt,
                Phase.FAILED,
                failure=Failure("invalid_manifest", task.reason, retryable=False),
            )
            for task in self._assignment.refused
        ]
        return [self._status(order) for order in self._assignment.tasks] + refused

    # Ending

    async def close(self) -> None:
        """Stops every transfer, keeping what is there, and waits for their threads.

        Cancel it to wait no longer: threads that do not end are left to the end of the process.
        """
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
        for live in self._lives.values():
            if live.status is RunStatus.RUNNING:
                self._stop(live)
        if self._tidying is not None:
            await asyncio.shield(self._tidying)
        while self.is_busy:
            self._idle.clear()
            await self._idle.wait()

    # Inside

    def _step(self) -> None:
        """Does what can be done now; called again whenever that may have become more."""
        if self._closing:
            return
        runs = {
            task_id: Run(live.order.attempt, live.order.manifest, live.status)
            for task_id, live in self._lives.items()
        }
        steps = reconcile(self._assignment.tasks, runs, self._max_concurrent)
        for task_id in steps.forget:
            del self._lives[task_id]
        for task_id in steps.stop:
            self._stop(self._lives[task_id])
        if self._tidying is None:
            if self._has_to_tidy():
                self._tidying = self._loop.create_task(self._tidy())
            else:
                for order in steps.start:
                    self._start(order)
        self._listener.changed()

    def _start(self, order: TaskOrder) -> None:
        log.info(
            "task started",
            task_id=order.task_id,
            attempt=order.attempt,
            model=order.manifest.model_name,
        )
        live = _Live(order, self._new_transfer(order))
        self._lives[order.task_id] = live
        thread = threading.Thread(
            target=self._run, args=(live,), name=f"task-{order.task_id}", daemon=True
        )
        thread.start()
        if self._watching is None:
            self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        """Notices what a transfer tells only when asked: that it turned to verifying, or waits."""
        told: list[tuple[str, TransferState]] = []
        while self.is_busy:
            seen = [
                (task_id, live.transfer.progress().state)
                for task_id, live in self._lives.items()
                if live.status is RunStatus.RUNNING
            ]
            if seen != told:
                told = seen
                self._listener.changed()
            await asyncio.sleep(_LOOK_SECONDS)
        self._watching = None

    def _stop(self, live: _Live) -> None:
        live.status = RunStatus.STOPPING
        live.transfer.stop(keep_partial=True)

    def _run(self, live: _Live) -> None:
        """The thread of one transfer."""
        failure: Failure | None = None
        stopped = False
        found: dict[str, str] = {}
        try:
            live.transfer.run()
            found = _found_digests(live)
        except TransferStopped:
            stopped = True
        except (TransferError, StoreError) as error:
            failure = Failure(error.code, error.message, error.retryable)
        except Exception:
            log.exception("a transfer broke", task_id=live.order.task_id)
            failure = Failure(
                "internal", "the agent broke while it fetched; its log says where", retryable=True
            )
        with contextlib.suppress(RuntimeError):  # the loop is gone: the process is ending
            self._loop.call_soon_threadsafe(self._ended, live, stopped, failure, found)

    def _ended(
        self,
        live: _Live,
        stopped: bool,
        failure: Failure | None,
        found: dict[str, str],
    ) -> None:
        order = live.order
        now = self._observe(live)
        if stopped:
            del self._lives[order.task_id]
            log.info("task stopped", task_id=order.task_id, attempt=order.attempt)
        else:
            phase = Phase.COMPLETED if failure is None else Phase.FAILED
            live.status = RunStatus.ENDED
            live.ended = dataclasses.replace(
                now, phase=phase, speed=0.0, note="", failure=failure, found_sha256=found
            )
            if failure is None:
                log.info("task completed", task_id=order.task_id, attempt=order.attempt)
                self._listener.stored(order.manifest)
            else:
                log.warning(
                    "task failed",
                    task_id=order.task_id,
                    attempt=order.attempt,
                    code=failure.code,
                    cause=failure.message,
                )
        self._idle.set()
        self._step()

    def _status(self, order: TaskOrder) -> TaskStatus:
        live = self._lives.get(order.task_id)
        mine = live is not None and live.order.attempt == order.attempt
        if live is not None and mine and live.ended is not None:
            return live.ended
        if live is not None and mine:
            return self._observe(live)
        last = self._last.get((order.task_id, order.attempt))
        if last is None:
            last = TaskStatus(
                order.task_id, order.attempt, Phase.PENDING, total=order.manifest.total_bytes
            )
        phase = Phase.PAUSED if order.paused else Phase.PENDING
        note = "" if order.paused else order.hold or self._why_waiting(order)
        return dataclasses.replace(last, phase=phase, speed=0.0, note=note)

    def _observe(self, live: _Live) -> TaskStatus:
        """The present state of a transfer; never behind what was said of this attempt before."""
        order = live.order
        key = (order.task_id, order.attempt)
        progress = live.transfer.progress()
        last = self._last.get(key)
        behind = last is not None and progress.received_bytes < last.done
        verifying = progress.state is TransferState.VERIFYING
        status = TaskStatus(
            order.task_id,
            order.attempt,
            Phase.VERIFYING if verifying else Phase.DOWNLOADING,
            done=last.done if last is not None and behind else progress.received_bytes,
            total=progress.total_bytes or order.manifest.total_bytes,
            bytes_from=last.bytes_from if last is not None and behind else progress.bytes_from,
            speed=progress.speed_bps,
            note=progress.note,
        )
        self._last[key] = status
        return status

    def _why_waiting(self, order: TaskOrder) -> str:
        alive = [live for live in self._lives.values() if live.status is not RunStatus.ENDED]
        busy = {content for live in alive for content in contents(live.order.manifest)}
        if not busy.isdisjoint(contents(order.manifest)):
            return "waits for another download of the same file"
        if len(alive) >= self._max_concurrent:
            return f"waits for its turn: this node runs {self._max_concurrent} downloads at once"
        return ""

    # Tidying

    def _has_to_tidy(self) -> bool:
        if any(live.status is RunStatus.STOPPING for live in self._lives.values()):
            return False  # what is being stopped still writes; its end calls again
        return bool(self._to_measure) or (
            self._may_remove and (bool(self._leftovers) or bool(self._due_evictions()))
        )

    def _due_evictions(self) -> dict[str, Manifest]:
        """The evictions not done yet whose model no listed task brings back at this moment."""
        coming = {_identity(order.manifest) for order in self._assignment.tasks}
        return {
            eviction.eviction_id: eviction.manifest
            for eviction in self._assignment.evictions
            if eviction.eviction_id not in self._evicted | self._refused_evictions
            and _identity(eviction.manifest) not in coming
        }

    async def _tidy(self) -> None:
        """Looks at what is on disk and removes what is to go. No transfer starts meanwhile."""
        measured = set(self._to_measure)
        orders = [o for o in self._assignment.tasks if (o.task_id, o.attempt) in measured]
        wanted = self._assignment.wanted_partials
        coming = [order.manifest for order in self._assignment.tasks]
        leftovers = self._leftovers if self._may_remove else ()
        evictions = self._due_evictions() if self._may_remove else {}
        try:
            for status in await asyncio.to_thread(self._measure, orders):
                self._last.setdefault((status.task_id, status.attempt), status)
            self._listener.discarded(await asyncio.to_thread(self._discard, leftovers, wanted))
            for eviction_id, manifest in evictions.items():
                kept = [*self._in_use(manifest), *coming]
                if await asyncio.to_thread(self._evict, manifest, kept):
                    self._evicted.add(eviction_id)
                    self._listener.removed(manifest)
                else:
                    self._refused_evictions.add(eviction_id)
                    self._loop.call_later(self._retry_seconds, self._try_evicting_again)
        finally:
            self._to_measure -= measured
            if self._leftovers is leftovers:
                self._leftovers = ()
            self._tidying = None
            self._step()

    def _try_evicting_again(self) -> None:
        self._refused_evictions.clear()
        self._step()

    def _measure(self, orders: Iterable[TaskOrder]) -> list[TaskStatus]:
        """What earlier runs, of this process or another, left of each task."""
        return [self._measured(order) for order in orders]

    def _measured(self, order: TaskOrder) -> TaskStatus:
        bytes_from = BytesFrom()
        done = 0
        try:
            for file in order.manifest.files:
                found = self._files.find_file(order.manifest, file, account_of(order))
                if found.state is FileState.VERIFIED:
                    bytes_from += found.bytes_from
                    done += file.size_bytes
                elif found.state is FileState.PARTIAL:
                    done += found.partial_bytes
        except (StoreError, OSError) as error:
            log.warning("the disk cannot be read", task_id=order.task_id, cause=str(error))
        return TaskStatus(
            order.task_id,
            order.attempt,
            Phase.PENDING,
            done=done,
            total=order.manifest.total_bytes,
            bytes_from=bytes_from,
        )

    def _discard(self, leftovers: Iterable[Manifest], wanted: Iterable[Manifest]) -> list[Manifest]:
        """Removes partial files; returns the leftovers that are none any more."""
        keep = {content for manifest in wanted for content in contents(manifest)}
        discarded = []
        for manifest in leftovers:
            rest = _without(manifest, keep)
            try:
                freed = 0 if rest is None else self._files.discard_partials(rest)
            except (StoreError, OSError) as error:
                log.warning("a partial file stays", model=manifest.model_name, cause=str(error))
                continue
            if freed:
                log.info("partial files removed", model=manifest.model_name, freed_bytes=freed)
            discarded.append(manifest)
        return discarded

    def _evict(self, manifest: Manifest, kept: Iterable[Manifest]) -> bool:
        rest = _without(manifest, {content for other in kept for content in contents(other)})
        try:
            freed = 0 if rest is None else self._files.evict(rest)
        except (StoreError, OSError) as error:
            log.error("a model cannot be evicted", model=manifest.model_name, cause=str(error))
            return False
        log.info("model evicted", model=manifest.model_name, freed_bytes=freed)
        return True


def account_of(order: TaskOrder) -> str:
    """For whom the store accounts for bytes: what an earlier attempt left counts as on disk."""
    return f"{order.task_id}/{order.attempt}"


def _found_digests(live: _Live) -> dict[str, str]:
    """The digests that the manifest did not have."""
    digests = live.transfer.digests()
    return {
        file.path: digests[file.path]
        for file in live.order.manifest.files
        if file.sha256 is None and file.path in digests
    }


def _without(manifest: Manifest, keep: set[tuple[str, ...]]) -> Manifest | None:
    """The manifest with only the files that nobody else wants; None when that leaves nothing."""
    rest = tuple(
        file
        for file in manifest.files
        if contents(dataclasses.replace(manifest, files=(file,))).isdisjoint(keep)
    )
    return dataclasses.replace(manifest, files=rest) if rest else None


def _identity(manifest: Manifest) -> tuple[str, str, frozenset[str]]:
    return manifest.repo, manifest.commit, frozenset(file.path for file in manifest.files)
