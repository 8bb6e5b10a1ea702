"""One file: several connections fetch pieces in parallel, one thread hashes, one flushes."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.store import BytesFrom, Digests, Origin, Partial, StoreError
from agent.transfer.errors import TransferError, TransferStopped
from agent.transfer.hashing import FrontierHash
from agent.transfer.interrupt import Interrupted
from agent.transfer.options import TransferOptions
from agent.transfer.pieces import Lease, Schedule
from agent.transfer.pipe import Pipe, open_pipe
from agent.transfer.progress import TransferState
from agent.transfer.rate import RateLimit
from agent.transfer.source import Cause, PipedRead, RangedRead, RangesIgnored, SourceFailure
from agent.transfer.tries import Tries
from agent.transfer.width import Width

_BUFFER_BYTES = 256 << 10  # what a read over TLS fills (ADR 2)
_TICK_SECONDS = 0.1
_FLUSH_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.2  # how often a thread without a lease asks for one
_HELPED_SECONDS = 5.0  # between tries of a Hub that has refused, while other nodes help
_SMALL_BYTES = 1 << 20  # so little is hashed and flushed in the end, without threads for it
_JOIN_SECONDS = 0.5


class Log(Protocol):
    """Constant text plus fields."""

    def info(self, event: str, **fields: object) -> None:
        """Something worth knowing."""
        ...

    def warning(self, event: str, **fields: object) -> None:
        """Something went wrong, and was dealt with."""
        ...


@dataclass(slots=True)
class _Worker:
    number: int
    lease: Lease | None = None
    listening_since: float | None = None  # set while blocked on the network
    pipe: Pipe | None = None


class BlobDownload:
    """Fetches what a partial lacks. `run` blocks; the other methods are for other threads.

    With `verify` false nothing is hashed and `run` returns None: for measurements only.
    """

    def __init__(
        self,
        partial: Partial,
        schedule: Schedule,
        options: TransferOptions,
        rate: RateLimit,
        log: Log,
        *,
        hub_rate: RateLimit | None = None,
        with_git: bool = False,
        verify: bool = True,
    ) -> None:
        """Bytes from the Hub obey `hub_rate` (None: no ceiling) besides `rate`, which all obey."""
        self._partial = partial
        self._schedule = schedule
        self._options = options
        self._rate = rate
        self._hub_rate = hub_rate or RateLimit()
        self._log = log
        self._changed = threading.Condition()
        self._stopped = False
        self._ended = False  # it is decided how; what threads meet from now on changes nothing
        self._failure: TransferError | StoreError | None = None
        self._digests: Digests | None = None
        self._hash = FrontierHash(partial, with_git=with_git) if verify else None
        self._is_small = partial.size <= _SMALL_BYTES and partial.size < options.window_bytes
        self._workers: dict[int, _Worker] = {}
        self._threads: list[threading.Thread] = []
        self._tries = Tries(
            options.backoff_seconds, max(1, min(options.piece_bytes, partial.size // 64))
        )
        self._width = Width(options.connections, options.max_connections)
        self._gate_until = 0.0
        self._gate_note = ""
        self._source_name = "the source"
        self._last_byte_at = time.monotonic()

    def run(self) -> Digests | None:
        """Returns the digests of the complete file.

        Raises `TransferError`, `StoreError`, or `TransferStopped` after `stop`.
        """
        if not self._is_small:
            if self._hash is not None:
                self._start(self._follow, "hash")
            self._start(self._flush, "flush")
        try:
            self._supervise()
        finally:
            self._end()
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if not self._is_complete() or (self._hash is not None and self._digests is None):
                raise TransferStopped
            return self._digests

    def stop(self) -> None:
        """Ends `run` within moments. Safe from any thread, also before `run`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._wake_everybody("stopped")

    def look_again(self) -> None:
        """Says that the schedule may have something to do now. Safe from any thread."""
        with self._changed:
            self._changed.notify_all()

    def state(self) -> tuple[TransferState, str]:
        """What is going on, and a reason for a person when nothing moves."""
        if self._is_complete():
            return TransferState.VERIFYING, ""
        now = time.monotonic()
        silent = now - self._last_byte_at
        wait = self._gate_until - now
        if wait > 0 and silent > min(1.0, wait):
            return TransferState.WAITING, f"waiting {math.ceil(wait)} s: {self._gate_note}"
        if silent > _SILENCE_SECONDS and (awaited := self._schedule.waits_for):
            return TransferState.WAITING, f"waiting for {awaited}"
        if silent > _SILENCE_SECONDS and not self._is_held_back():
            return TransferState.STALLED, f"no bytes from {self._source_name} for {int(silent)} s"
        return TransferState.DOWNLOADING, ""

    def received(self) -> BytesFrom:
        """The bytes on disk, an earlier run's included."""
        return self._partial.received

    def _is_complete(self) -> bool:
        return self._partial.received.total == self._partial.size

    def _is_over(self) -> bool:
        return self._stopped or self._ended or self._failure is not None

    # The thread that called run

    def _supervise(self) -> None:
        ticked = time.monotonic()
        while True:
            with self._changed:
                if self._is_over() or (
                    self._is_complete() and (self._hash is None or self._digests is not None)
                ):
                    return
            now = time.monotonic()
            if self._is_small and self._hash is not None and self._is_complete():
                self._follow()
                continue
            if not self._is_complete():
                self._width.observe(now, self._partial.received.total, self._is_throttled(now))
                self._keep_workers()
                self._break_stalls(now)
            with self._changed:
                if not self._is_over():
                    self._changed.wait(_TICK_SECONDS)
            if now - ticked > 60:
                ticked = now
                self._log.info("download goes on", received_bytes=self._partial.received.total)

    def _is_throttled(self, now: float) -> bool:
        """Whether more connections could not help anyway."""
        return self._is_held_back() or self._gate_until > now

    def _is_held_back(self) -> bool:
        return self._rate.held_back() or self._hub_rate.held_back()

    def _keep_workers(self) -> None:
        with self._changed:
            left = self._partial.size - self._partial.received.total
            useful = max(1, -(-left // (1 << 20)))
            parallel = min(self._width.wanted, useful, self._schedule.parallel or useful)
            for number in range(parallel):
                if number not in self._workers:
                    worker = _Worker(number)
                    self._workers[number] = worker
                    self._start(self._work, f"fetch-{number}", worker)

    def _break_stalls(self, now: float) -> None:
        with self._changed:
            workers = list(self._workers.values())
        for worker in workers:
            lease, since = worker.lease, worker.listening_since
            if lease is None or since is None:
                continue
            if now - since > self._patience(lease):
                lease.interrupt.fire("stalled")

    def _patience(self, lease: Lease) -> float:
        seconds = lease.stall_seconds
        return self._options.stall_seconds if seconds is None else seconds

    def _end(self) -> None:
        with self._changed:
            self._ended = True
        self._wake_everybody("over")
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            # A thread may be inside a look-up of a name, which nothing can end; it touches the
            # partial no more.
            thread.join(max(0.0, deadline - time.monotonic()))

    def _wake_everybody(self, reason: str) -> None:
        with self._changed:
            leases = [worker.lease for worker in self._workers.values()]
            self._changed.notify_all()
        for lease in leases:
            if lease is not None:
                lease.interrupt.fire(reason)
        self._rate.wake()
        self._hub_rate.wake()
        self._partial.release_waiters()

    def _start(self, target: Callable[..., None], name: str, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=f"transfer-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fail(self, failure: TransferError | StoreError) -> None:
        with self._changed:
            if not self._is_over():
                self._failure = failure
            self._changed.notify_all()

    # Threads that fetch

    def _work(self, worker: _Worker) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        worker.pipe = open_pipe()
        try:
            while (lease := self._next_lease(worker)) is not None:
                try:
                    self._fetch(lease, worker, buffer)
                finally:
                    self._schedule.give_back(lease)
                    with self._changed:
                        worker.lease = None
                        self._changed.notify_all()
        except (TransferError, StoreError) as error:
            self._fail(error)
        except Exception as error:
            self._log.warning("fetching failed unexpectedly", error=repr(error))
            self._fail(
                TransferError("internal", f"the agent made an error: {error!r}", retryable=True)
            )
            raise
        finally:
            if worker.pipe is not None:
                worker.pipe.close()
            with self._changed:
                self._workers.pop(worker.number, None)

    def _next_lease(self, worker: _Worker) -> Lease | None:
        """Waits for something to do; None when the thread is not needed any more."""
        with self._changed:
            while True:
                limit = self._schedule.parallel
                wanted = self._width.wanted if limit is None else min(limit, self._width.wanted)
                if self._is_over() or self._is_complete() or worker.number >= wanted:
                    return None
                wait = self._gate_until - time.monotonic()
                worker.lease = self._schedule.next_piece(from_hub=wait <= 0)
                if worker.lease is not None:
                    return worker.lease
                self._changed.wait(min(wait, _LOOK_SECONDS) if wait > 0 else _LOOK_SECONDS)

    def _fetch(self, lease: Lease, worker: _Worker, buffer: memoryview) -> None:
        began = time.monotonic()
        self._source_name = lease.source.name
        try:
            self._receive(lease, worker, buffer)
        except RangesIgnored as ignored:
            self._log.info("fetching with one connection", reason=str(ignored))
        except SourceFailure as failure:
            lease.failure = failure
        except Interrupted as interrupted:
            if interrupted.reason == "stalled":
                lease.failure = SourceFailure(
                    Cause.STALLED,
                    f"no byte came from {lease.source.name} for {self._patience(lease):g} s",
                )
        if lease.failure is None:
            return
        if lease.source.origin is not Origin.PEER:
            self._suffer(lease.failure, began)
        elif not self._is_over():
            self._log.warning(
                "another node did not give a piece",
                code=lease.failure.cause.code,
                reason=lease.failure.message,
            )

    def _receive(self, lease: Lease, worker: _Worker, buffer: memoryview) -> None:
        worker.listening_since = time.monotonic()
        try:
            read = lease.source.open(lease.start, lease.end - lease.start, lease.interrupt)
            try:
                while lease.position < lease.end and not self._is_over():
                    before = lease.position
                    self._take_some(read, lease, worker, buffer)
                    count = lease.position - before
                    self._last_byte_at = time.monotonic()
                    self._rate.take(count, self._is_over)
                    if lease.source.origin is Origin.HUB:
                        self._hub_rate.take(count, self._is_over)
            finally:
                read.close()
            if lease.position == lease.end:
                lease.finish(self._partial)
        finally:
            worker.listening_since = None
            lease.interrupt.detach()

    def _take_some(
        self, read: RangedRead, lease: Lease, worker: _Worker, buffer: memoryview
    ) -> None:
        """Receives some bytes into their place; inside the kernel where nobody has to see them."""
        most, pipe = self._most(lease), worker.pipe
        worker.listening_since = time.monotonic()
        if (
            pipe is not None
            and lease.takes_pipes
            and self._partial.takes_pipes
            and isinstance(read, PipedRead)
        ):
            size = pipe.capacity if most is None else min(most, pipe.capacity)
            count = read.read_into_pipe(pipe.in_end, size)
            _end_wait(worker, lease, count)
            lease.take_from(pipe.out_end, count, self._partial)
        else:
            count = read.read_into(buffer if most is None else buffer[:most])
            _end_wait(worker, lease, count)
            lease.take(buffer[:count], self._partial)

    def _most(self, lease: Lease) -> int | None:
        """How many bytes one read may ask for; None: any number."""
        most = self._rate.read_bytes
        if lease.source.origin is Origin.HUB:
            hub_most = self._hub_rate.read_bytes
            if most is None or (hub_most is not None and hub_most < most):
                most = hub_most
        return most

    def _suffer(self, failure: SourceFailure, began: float) -> None:
        """Decides what a failed try means: a pause for all connections, or the end."""
        with self._changed:
            if self._is_over():
                return
            now = time.monotonic()
            wait = self._tries.failed(failure, began, now, self._partial.received.total)
            if wait is None and self._schedule.has_help:
                wait = _HELPED_SECONDS
            if failure.cause in (Cause.LIMITED, Cause.UNAVAILABLE):
                self._width.push_back(now)
            if wait is not None:
                self._gate_until = max(self._gate_until, now + wait)
                self._gate_note = failure.message
            self._changed.notify_all()
        cause = failure.cause
        if wait is None:
            self._fail(TransferError(cause.code, failure.message, retryable=cause.retryable))
        else:
            self._log.warning(
                "a source failed", code=cause.code, reason=failure.message, wait_seconds=wait
            )

    # The threads that hash and flush

    def _follow(self) -> None:
        assert self._hash is not None
        try:
            digests = self._hash.run(self._is_over)
        except StoreError as error:
            self._fail(error)
            return
        with self._changed:
            self._digests = digests
            self._changed.notify_all()

    def _flush(self) -> None:
        """Ends after a last flush, so that a kill while hashing goes on costs nothing."""
        complete = False
        while not complete and not self._is_over():
            self._partial.wait_unflushed(self._options.window_bytes // 4, _FLUSH_SECONDS)
            complete = self._is_complete()
            if self._is_over():
                return
            try:
                self._partial.flush()
            except StoreError as error:
                self._fail(error)
                return


def _end_wait(worker: _Worker, lease: Lease, count: int) -> None:
    since, worker.listening_since = worker.listening_since, None
    if since is not None:
        lease.waited(time.monotonic() - since, count)
