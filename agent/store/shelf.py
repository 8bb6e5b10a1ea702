"""What can be read of a content now, finished or not, by whoever knows its SHA-256."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from agent.store.errors import store_error
from agent.store.partial import Partial


class Readable:
    """One content, held open: it stays readable until `close`, whatever becomes of its names.

    For one thread.
    """

    def __init__(
        self,
        descriptor: int,
        size: int,
        partial: Partial | None,
        closed: Callable[["Readable"], None],
    ) -> None:
        """Takes the descriptor over. `partial` tells what is there; None: everything is."""
        stat = os.fstat(descriptor)
        self.descriptor = descriptor
        self.size = size
        self.identity = stat.st_dev, stat.st_ino
        self._partial = partial
        self._closed = closed

    def __enter__(self) -> "Readable":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def received_bytes(self) -> int:
        """How many bytes are there, wherever in the file."""
        return self.size if self._partial is None else self._partial.received.total

    @property
    def is_growing(self) -> bool:
        """Whether bytes that are missing may still come."""
        return self._partial is not None and not self._partial.is_over

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte of [start, end) is there, which is inside the file."""
        return start <= end <= self.size and (start == end or self.covered_until(start) >= end)

    def covered_until(self, start: int) -> int:
        """Every byte from `start` to before this one is there; `start` itself when it is not."""
        return self.size if self._partial is None else self._partial.covered_until(start)

    def wait_covered(self, start: int, timeout: float) -> int:
        """Waits until byte `start` is there, or for `timeout` seconds; returns `covered_until`.

        Returns at once when nothing more will come.
        """
        return self.size if self._partial is None else self._partial.wait_covered(start, timeout)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Reads bytes that are there; returns how many, 0 at the end. Raises `StoreError`."""
        try:
            return os.preadv(self.descriptor, [buffer], offset)
        except OSError as error:
            raise store_error(error, "reading a file of the cache") from error

    def close(self) -> None:
        """Lets go of the file; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._closed(self)


class Shelf:
    """Finds contents by digest, and nothing by any other name. Safe for several threads."""

    def __init__(self, open_verified: Callable[[str], int | None]) -> None:
        """`open_verified` opens a verified file with a SHA-256; None when there is none."""
        self._open_verified = open_verified
        self._lock = threading.Lock()
        self._partials: dict[str, list[Partial]] = {}
        self._open: list[Readable] = []

    def put(self, sha256: str, partial: Partial) -> None:
        """Lets an unfinished file be read until it is closed."""
        with self._lock:
            for known, partials in list(self._partials.items()):
                left = [other for other in partials if not other.is_closed]
                if left:
                    self._partials[known] = left
                else:
                    del self._partials[known]
            self._partials.setdefault(sha256, []).append(partial)

    def find(self, sha256: str) -> Readable | None:
        """A content that is here, or is being fetched now; the caller closes it.

        Only bytes that were verified, and those of transfers that are alive. Raises `OSError` when
        the system has no more descriptors.
        """
        # Again after the unfinished ones: one of them may have been finished in between.
        return self._finished(sha256) or self._unfinished(sha256) or self._finished(sha256)

    def is_read(self, path: Path) -> bool:
        """Whether somebody holds the file at this path open, under whatever name."""
        try:
            stat = path.stat()
        except OSError:
            return False
        with self._lock:
            return any(one.identity == (stat.st_dev, stat.st_ino) for one in self._open)

    def _finished(self, sha256: str) -> Readable | None:
        descriptor = self._open_verified(sha256)
        if descriptor is None:
            return None
        return self._readable(descriptor, os.fstat(descriptor).st_size, None)

    def _unfinished(self, sha256: str) -> Readable | None:
        with self._lock:
            partials = list(self._partials.get(sha256, ()))
        for partial in sorted(partials, key=lambda one: one.received.total, reverse=True):
            descriptor = partial.duplicate()
            if descriptor is not None:
                return self._readable(descriptor, partial.size, partial)
        return None

    def _readable(self, descriptor: int, size: int, partial: Partial | None) -> Readable:
        readable = Readable(descriptor, size, partial, self._forget)
        with self._lock:
            self._open.append(readable)
        return readable

    def _forget(self, readable: Readable) -> None:
        with self._lock:
            self._open.remove(readable)
