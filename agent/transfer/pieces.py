"""Which bytes to fetch next, and from whom."""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from agent.store import Partial
from agent.transfer.interrupt import Interrupt
from agent.transfer.source import Source, SourceFailure

PIECE_BYTES = 16 << 20
_MAX_PIECES = 4096
_SMALLEST_READ = 1 << 20


@dataclass(slots=True, eq=False)
class Lease:
    """Bytes [start, end) that one thread fetches from one source; `position` is the next of them.

    Only the thread that has the lease moves `position`. `interrupt` ends its wait for the source
    from any thread. `stall_seconds` without a byte make a failed try; None: as the options say.
    """

    start: int
    end: int
    source: Source
    position: int
    interrupt: Interrupt = field(default_factory=Interrupt)
    stall_seconds: float | None = None
    failure: SourceFailure | None = None  # why the source did not give all
    takes_pipes: ClassVar[bool] = True  # nobody has to see the bytes

    def take(self, data: memoryview, partial: Partial) -> None:
        """Puts the next bytes in their place. Raises `StoreError`."""
        partial.write(data, self.position, self.source.origin)
        self.position += len(data)

    def take_from(self, pipe: int, count: int, partial: Partial) -> None:
        """Like `take`, of the next `count` bytes of a pipe. Raises `StoreError`."""
        partial.write_from(pipe, count, self.position, self.source.origin)
        self.position += count

    def waited(self, seconds: float, count: int) -> None:
        """So long was waited for the next `count` bytes. Raises `SourceFailure` when that is not
        worth it.
        """

    def finish(self, partial: Partial) -> None:
        """Every byte has come. Raises `SourceFailure` when they are not the right ones."""


class Schedule(Protocol):
    """Decides what a thread fetches next. Safe for several threads."""

    def next_piece(self, *, from_hub: bool = True) -> Lease | None:
        """A lease, or None when there is nothing to do now; returns at once.

        Without `from_hub` it is one that other nodes serve.
        """
        ...

    def give_back(self, lease: Lease) -> None:
        """The thread is done with a lease; what is left of it is free for others."""
        ...

    @property
    def parallel(self) -> int | None:
        """How many threads are of use at most; None when any number is."""
        ...

    @property
    def has_help(self) -> bool:
        """Whether bytes come from other nodes, so that a Hub that refuses ends nothing."""
        ...

    @property
    def waits_for(self) -> str:
        """What threads without a lease wait for, for a person; empty when for nothing special."""
        ...


class InOrder:
    """All missing bytes from one source, the first ones first, so that hashing can follow.

    A lease never crosses the end of a piece. Towards the end leases get shorter, so that all
    connections end at nearly the same moment.
    """

    has_help = False
    waits_for = ""

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

    def next_piece(self, *, from_hub: bool = True) -> Lease | None:
        """See `Schedule`."""
        with self._lock:
            if not self._free or not from_hub:
                return None
            if not self._source.supports_ranges:
                return self._whole_rest()
            number, start = self._choose(self._free)
            first, end = self._free[number]
            left = sum(e - s for s, e in self._free)
            fair = max(_SMALLEST_READ, left // (2 * self._expected))
            border = (start // self._piece_bytes + 1) * self._piece_bytes
            stop = min(end, border, start + fair)
            if min(end, border) - stop < _SMALLEST_READ:
                stop = min(end, border)  # no crumbs
            rest = [(first, start), (stop, end)]
            self._free[number : number + 1] = [(s, e) for s, e in rest if s < e]
            self._leased += 1
            return Lease(start, stop, self._source, start)

    def _choose(self, free: list[tuple[int, int]]) -> tuple[int, int]:
        """Which of the free ranges is next, and from where in it."""
        return 0, free[0][0]

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


class AnyOrder(InOrder):
    """As `InOrder`, one piece after the other, but the pieces by turn, and by chance among equals.

    Nodes that fetch the same file without speaking to one another then have different pieces to
    give when they do. A piece that was begun comes first.
    """

    def __init__(
        self,
        source: Source,
        missing: Iterable[tuple[int, int]],
        size: int,
        piece_bytes: int,
        parallel: int,
        turn: Callable[[int], int],
    ) -> None:
        """`turn` says of the number of a piece how soon it is due: the smallest first."""
        super().__init__(source, missing, size, piece_bytes, parallel)
        self._random = random.Random()
        length = self._piece_bytes
        self._turns = {
            piece: turn(piece)
            for start, end in self._free
            for piece in range(start // length, (end - 1) // length + 1)
        }

    def _choose(self, free: list[tuple[int, int]]) -> tuple[int, int]:
        for number, (start, _) in enumerate(free):
            if start % self._piece_bytes:
                return number, start
        length = self._piece_bytes
        due = [
            (self._turns[piece], self._random.random(), number, piece)
            for number, (start, end) in enumerate(free)
            for piece in range(start // length, (end - 1) // length + 1)
        ]
        _, _, number, piece = min(due)
        return number, piece * length


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
