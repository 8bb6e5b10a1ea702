"""One unfinished file on disk: its bytes in place, and the journal of those that are durable."""

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.store import journal
from agent.store.errors import StoreError, store_error
from agent.store.journal import Journal, Range
from agent.store.origin import BytesFrom, Origin
from agent.store.spans import Spans

WINDOW_BYTES = 64 << 20
_NOBODY = 1 << 63  # more bytes than any file has
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Partial:
    """The bytes of a file that is being fetched; safe for several threads.

    Everything `write` accepted is readable at once, and survives the death of this process once
    `flush` has run after it. At most `window` bytes are ever waiting for a flush: `write` blocks
    beyond that, so a kill or a power loss costs at most so much.
    """

    def __init__(self, path: Path, size: int, identity: str, window: int = WINDOW_BYTES) -> None:
        """Opens `path` (and `path` with `.journal` appended), going on where an older run stopped.

        `identity` names the content; a partial of another size or identity is thrown away. The
        whole size is set aside on the disk. Raises `StoreError` (`disk_full`, …).
        """
        self.path = path
        self.size = size
        self.takes_pipes = True  # until the file system turns out not to know `splice`
        self._journal_path = path.with_name(f"{path.name}.journal")
        self._window = window
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._arrived = threading.Condition(lock)  # for those who follow from a place of their own
        self._awaited: list[int] = []  # the places
        self._flushing = threading.Lock()
        # File systems let one thread write to a file at a time, and the others spin meanwhile.
        self._one_writes = threading.Lock()
        self._spans = Spans()
        self._from = BytesFrom()
        self._unflushed: dict[int, Range] = {}  # by end, so that a following write extends it
        self._unflushed_bytes = 0
        # What the hashing and the flushing thread wait for, so that no other write wakes them.
        self._wanted_frontier = _NOBODY
        self._wanted_unflushed = _NOBODY
        self._abandoned = False
        self._users = 0  # threads inside a read or write, for which `close` waits
        self._descriptor = -1
        self._journal: Journal | None = None
        try:
            self._open(identity)
        except OSError as error:
            self.close()
            raise store_error(error, f"opening {path.name}") from error
        self._taken_over = self._from.total

    def _open(self, identity: str) -> None:
        contents = None
        if _size_of(self.path) == self.size:
            contents = journal.read(self._journal_path, self.size, identity)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if contents is None:
            self._journal_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._descriptor = os.open(self.path, flags | os.O_EXCL, 0o666)
            try:
                _allocate(self._descriptor, self.size)
                os.fdatasync(self._descriptor)
            except OSError:
                self.path.unlink()
                raise
            self._journal = Journal.create(self._journal_path, self.size, identity)
            sync_folder(self.path.parent)
            return
        self._descriptor = os.open(self.path, flags, 0o666)
        self._journal = Journal.resume(self._journal_path, contents)
        for entry in contents.ranges:
            self._count(entry.start, entry.end, entry.origin)

    @property
    def taken_over_bytes(self) -> int:
        """How many bytes an earlier run left here."""
        return self._taken_over

    @property
    def received(self) -> BytesFrom:
        """The bytes that are here, each counted once, for the source that gave it first."""
        return self._from

    @property
    def frontier(self) -> int:
        """Every byte before this one is here."""
        with self._changed:
            return self._spans.frontier

    def missing(self) -> list[tuple[int, int]]:
        """The ranges that are not here, in ascending order."""
        with self._changed:
            return self._spans.missing(self.size)

    def covered_until(self, start: int) -> int:
        """Every byte from `start` to before this one is here; `start` itself when it is not."""
        with self._changed:
            return self._spans.run_end(start)

    def wait_covered(self, start: int, timeout: float) -> int:
        """Waits until byte `start` is here, or for `timeout`; returns `covered_until(start)`.

        For any number of threads. Returns at once when nothing more will come.
        """
        with self._arrived:
            self._awaited.append(start)
            try:
                self._arrived.wait_for(
                    lambda: self._spans.run_end(start) > start or self._abandoned, timeout
                )
            finally:
                self._awaited.remove(start)
            return self._spans.run_end(start)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the transfer has ended, one way or another."""
        return self._abandoned

    @property
    def is_closed(self) -> bool:
        """Whether the files are closed."""
        return self._descriptor < 0

    def duplicate(self) -> int | None:
        """A descriptor of the file for reading, which the caller closes; None once it is closed.

        It outlives the partial: after a commit it reads the finished file.
        """
        with self._changed:
            return None if self._descriptor < 0 else os.dup(self._descriptor)

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of [start, end) that are not here, in ascending order."""
        with self._changed:
            return self._spans.gaps(start, end)

    def write(self, data: memoryview, offset: int, origin: Origin) -> None:
        """Puts bytes in their place; blocks while the window is full. Raises `StoreError`."""
        self._put(data, offset)
        self._admit(offset, offset + len(data), origin)

    def write_from(self, pipe: int, count: int, offset: int, origin: Origin) -> None:
        """Like `write`, of the next `count` bytes of a pipe, which must be in it already.

        They do not pass through this process where the file system knows `splice`.
        """
        end = offset + count
        with self._writing(end):
            at = offset
            while at < end:
                try:
                    at += os.splice(pipe, self._descriptor, end - at, offset_dst=at)
                except OSError as error:
                    if error.errno not in _NO_SPLICE:
                        raise
                    self.takes_pipes = False
                    data = os.read(pipe, end - at)
                    self._write_all(memoryview(data), at)
                    at += len(data)
        self._admit(offset, end, origin)

    def place(self, data: memoryview, offset: int) -> None:
        """Puts bytes in their place that do not count until `accept`. Raises `StoreError`.

        Where bytes are that count, nothing is changed. Of two threads that place or write the same
        bytes at once, the last one wins: whoever is not sure of the bytes lets only one.
        """
        for start, end in self.gaps(offset, offset + len(data)):
            self._put(data[start - offset : end - offset], start)

    def accept(self, start: int, end: int, origin: Origin) -> None:
        """From now on [start, end), which was placed, counts; blocks while the window is full."""
        for gap in self.gaps(start, end):
            self._admit(*gap, origin)

    def _put(self, data: memoryview, offset: int) -> None:
        with self._writing(offset + len(data)):
            self._write_all(data, offset)

    def _write_all(self, data: memoryview, offset: int) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    @contextlib.contextmanager
    def _writing(self, end: int) -> Iterator[None]:
        """Around what writes to the file, up to `end`. Raises `StoreError`."""
        if end > self.size:
            raise ValueError("a write beyond the end of the file")
        self._enter()
        try:
            with self._one_writes:
                yield
        except OSError as error:
            raise store_error(error, f"writing {self.path.name}") from error
        finally:
            self._leave()

    def _admit(self, start: int, end: int, origin: Origin) -> None:
        """Counts bytes that are in their place; they are durable after the next flush."""
        with self._changed:
            before = self._unflushed.pop(start, None)
            if before is not None and before.origin is not origin:
                self._unflushed[start] = before
                before = None
            first = start if before is None else before.start
            self._unflushed[end] = Range(first, end, origin)
            self._unflushed_bytes += end - start
            self._count(start, end, origin)
            if (
                self._spans.frontier > self._wanted_frontier
                or self._unflushed_bytes >= self._wanted_unflushed
            ):
                self._changed.notify_all()
            while self._unflushed_bytes >= self._window and not self._abandoned:
                self._changed.wait()

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Reads back what is here; returns how many bytes. Raises `StoreError`."""
        self._enter()
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise store_error(error, f"reading {self.path.name}") from error
        finally:
            self._leave()

    def wait_frontier(self, beyond: int, timeout: float) -> int:
        """Waits until the frontier is beyond a position, or for `timeout`; returns the frontier.

        For one thread at a time, as is `wait_unflushed`.
        """
        with self._changed:
            self._wanted_frontier = beyond
            self._changed.wait_for(
                lambda: self._spans.frontier > beyond or self._abandoned, timeout
            )
            self._wanted_frontier = _NOBODY
            return self._spans.frontier

    def wait_unflushed(self, at_least: int, timeout: float) -> int:
        """Waits until so many bytes need a flush, or for `timeout`; returns how many do."""
        with self._changed:
            self._wanted_unflushed = at_least
            self._changed.wait_for(
                lambda: self._unflushed_bytes >= at_least or self._abandoned, timeout
            )
            self._wanted_unflushed = _NOBODY
            return self._unflushed_bytes

    def flush(self) -> None:
        """Makes all bytes written so far durable, then says so in the journal."""
        with self._flushing:
            with self._changed:
                ranges = tuple(self._unflushed.values())
                count = self._unflushed_bytes
                self._unflushed = {}
            if not ranges or self._descriptor < 0:
                return
            try:
                os.fdatasync(self._descriptor)
                if self._journal is not None:
                    self._journal.append(ranges)
            except OSError as error:
                raise store_error(error, f"flushing {self.path.name}") from error
            with self._changed:
                self._unflushed_bytes -= count
                self._changed.notify_all()

    def release_waiters(self) -> None:
        """Lets every thread that is blocked in here return now; nothing more is read or written."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            self._arrived.notify_all()

    def close(self) -> None:
        """Closes the files once no thread is at them; the bytes stay on disk for the next run."""
        self.release_waiters()
        with self._flushing:
            with self._changed:
                self._changed.wait_for(lambda: self._users == 0)
            if self._descriptor >= 0:
                with self._changed:
                    os.close(self._descriptor)
                    self._descriptor = -1
                if self._journal is not None:
                    self._journal.close()

    def discard(self) -> None:
        """Closes and removes everything."""
        self.close()
        remove_partial(self.path)

    def make_durable(self) -> None:
        """Flushes bytes, size and metadata of the file. Raises `StoreError`."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise store_error(error, f"flushing {self.path.name}") from error

    def forget_journal(self) -> None:
        """Removes the journal of a file that has got its final name, and closes."""
        self.close()
        self._journal_path.unlink(missing_ok=True)

    def _enter(self) -> None:
        """Keeps the descriptor open: a closed one's number might be another file's next moment."""
        with self._changed:
            if self._abandoned:
                raise StoreError("store_failed", f"{self.path.name} is closed", retryable=True)
            self._users += 1

    def _leave(self) -> None:
        with self._changed:
            self._users -= 1
            if self._abandoned:
                self._changed.notify_all()

    def _count(self, start: int, end: int, origin: Origin) -> None:
        new = self._spans.add(start, end)
        if new:
            self._from = self._from.plus(origin, new)
            if any(start <= place < end for place in self._awaited):
                self._arrived.notify_all()


def make_partial_of(
    path: Path, partial: Path, identity: str, good: Iterable[tuple[int, int]]
) -> None:
    """Makes a file an unfinished one that lacks all but the `good` ranges. Raises `OSError`."""
    remove_partial(partial)
    stat = path.stat()
    entries = Journal.create(partial.with_name(f"{partial.name}.journal"), stat.st_size, identity)
    try:
        entries.append(Range(start, end, Origin.DISK) for start, end in good)
    finally:
        entries.close()
    path.chmod(stat.st_mode | 0o600)
    path.rename(partial)
    sync_folder(path.parent)
    sync_folder(partial.parent)


def remove_partial(path: Path) -> None:
    """Removes a partial that nobody has open; the journal goes first, so it never speaks alone."""
    path.with_name(f"{path.name}.journal").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def durable_bytes(path: Path, size: int, identity: str) -> int:
    """How much of a partial, which may be in use just now, has reached the disk for good."""
    if _size_of(path) != size:
        return 0
    contents = journal.read(path.with_name(f"{path.name}.journal"), size, identity)
    ranges = () if contents is None else contents.ranges
    return Spans((entry.start, entry.end) for entry in ranges).total


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_of(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _allocate(descriptor: int, size: int) -> None:
    """Sets the whole size aside where the file system can (fallocate(2)), else only sets it.

    `os.posix_fallocate` is not used: where the file system cannot, it writes the file once over.
    """
    if size == 0:
        return
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is not None:
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(descriptor, 0, 0, size) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number))
    os.ftruncate(descriptor, size)
