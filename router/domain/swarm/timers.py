"""What is to be done at which moment."""

import heapq
from collections.abc import Callable
from typing import Any

from router.domain.swarm.members import Flight


class Timers:
    """Moments in order; what is due is done by `advance`."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[Any], None], about: Any = None) -> None:
        """Has something done at a moment; it is given `about`, or the moment when there is none."""
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, what, about))

    def wake(self, when: float, about: Flight | None = None) -> None:
        """A moment at which there may be more to decide, though nothing has happened."""
        self.at(when, _nothing, about)

    def advance(self, now: float) -> None:
        """Does what is due."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, what, about = heapq.heappop(timers)
            what(now if about is None else about)

    def next(self) -> float | None:
        """When something is due next."""
        timers = self._timers
        while timers and isinstance(timers[0][3], Flight) and timers[0][3].ended:
            heapq.heappop(timers)
        return timers[0][0] if timers else None


def _nothing(_: object) -> None:
    """The moment itself is all."""
