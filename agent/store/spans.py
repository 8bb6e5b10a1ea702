"""Sets of byte ranges, half-open and merged."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Spans:
    """Which bytes of a file are there: disjoint ranges [start, end) in ascending order.

    Not safe for several threads; whoever shares one holds a lock.
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Spans({list(self)})"

    @property
    def total(self) -> int:
        """How many bytes are covered."""
        return sum(self._ends) - sum(self._starts)

    @property
    def frontier(self) -> int:
        """The end of the run that begins at byte 0; 0 when byte 0 is missing."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def run_end(self, start: int) -> int:
        """Every byte from `start` to before this one is covered; `start` when it is not."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._ends[at]) if at >= 0 else start

    def add(self, start: int, end: int) -> int:
        """Covers [start, end) and returns how many of these bytes were not covered before."""
        if start >= end:
            return 0
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first == last:
            self._starts.insert(first, start)
            self._ends.insert(first, end)
            return end - start
        already = sum(
            max(0, min(end, self._ends[i]) - max(start, self._starts[i]))
            for i in range(first, last)
        )
        merged = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [merged[0]]
        self._ends[first:last] = [merged[1]]
        return end - start - already

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of [start, end) that are not covered, in ascending order."""
        gaps = []
        position = start
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            if self._starts[at] > position:
                gaps.append((position, self._starts[at]))
            position = max(position, self._ends[at])
            at += 1
        if position < end:
            gaps.append((position, end))
        return gaps

    def missing(self, size: int) -> list[tuple[int, int]]:
        """The ranges of [0, size) that are not covered, in ascending order."""
        return self.gaps(0, size)
