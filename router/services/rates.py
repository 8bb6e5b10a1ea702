"""How fast nodes were of late. In memory: what a plan expects is a guess in any case."""

from statistics import median

from router.domain.nodes import Node

_WEIGHT = 0.3  # of the newest word; the rest is what was known before


class Rates:
    """The bytes per second that nodes reported last, smoothed. Safe from any thread."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._seen: dict[str, float] = {}

    def note(self, node_id: str, speed: int) -> None:
        """A node says that its bytes flow at this rate; 0 says nothing."""
        if speed > 0:
            before = self._seen.get(node_id, speed)
            self._seen[node_id] = before + _WEIGHT * (speed - before)

    def expected(self, node: Node) -> float | None:
        """The rate to expect of a node, below its limit; None when no node has told any.

        Of one that has not been heard, what is usual among the others.
        """
        rate = self._seen.get(node.node_id)
        if rate is None:
            others = list(self._seen.values())
            rate = median(others) if others else None
        if rate is None:
            return None
        return min(rate, node.max_rate) if node.max_rate else rate
