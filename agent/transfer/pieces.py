"""Which bytes to fetch next, and from whom."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from agent.transfer.source import Source

PIECE_BYTES = 16 << 20
_MAX_PIECES = 4096
_SMALLEST_READ = 1 << 20


@dataclass(slots=True)
class Lease:
    """Bytes [start, end) that one thread fetches from one source; `position` is the next of them.

    Only the thread that has the lease moves `position`.
    """

    start: int
    end: int
    source: Source
    position: int


class Schedule(Protocol):
    """Decides what a thread fetches next. Safe for several threads."""

    def next_piece(self) -> Lease | None:
        """A lease, or None when there is nothing to do now; returns at once."""
        ...

    def give_back(self, lease: Lease) -> None:
        """The thread is done with a lease; what is left of it is free for others."""
        ...

    @property
    def parallel(self) -> int | None:
        """How many threads are of use at most; None when any number is."""
        ...


class InOrder:
    """All missing bytes from one source, the first ones first, so that hashing can follow.

    A lease never crosses the end of a piece. Towards the end leases get shorter, so that all
    connections end at nearly the same moment.
    """

    def __init__(
        self,
        source: Source,
        missing: Iterable[tuple[int, int]],
        size: int,
        piece_bytes: int,
        parallel: int,
    ) -> None:
        self._source = source
        self._piece_bytes = max(piece_bytes, -(-size // _MAX_PIECES))
        self._expected = max(1, parallel)
        self._lock = threading.Lock()
        self._free = sorted(missing)
        self._leased = 0

    @property
    def parallel(self) -> int | None:
        """One when the source cannot serve ranges."""
        return None if self._source.supports_ranges else 1

    def next_piece(self) -> Lease | None:
        """See `Schedule`."""
        with self._lock:
            if not self._free:
                return None
            if not self._source.supports_ranges:
                return self._whole_rest()
            start, end = self._free[0]
            left = sum(e - s for s, e in self._free)
            fair = max(_SMALLEST_READ, left // (2 * self._expected))
            border = (start // self._piece_bytes + 1) * self._piece_bytes
            stop = min(end, border, start + fair)
            if end - stop < _SMALLEST_READ and end <= border:
                stop = end  # no crumbs
            self._free[0] = (stop, end)
            if stop == end:
                self._free.pop(0)
            self._leased += 1
            return Lease(start, stop, self._source, start)

    def give_back(self, lease: Lease) -> None:
        """See `Schedule`."""
        with self._lock:
            self._leased -= 1
            if lease.position < lease.end:
                self._free = _merged([*self._free, (lease.position, lease.end)])

    def _whole_rest(self) -> Lease | None:
        """Everything from the first missing byte on, for the only connection."""
        if self._leased:
            return None
        start, end = self._free[0][0], self._free[-1][1]
        self._free = []
        self._leased += 1
        return Lease(start, end, self._source, start)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
