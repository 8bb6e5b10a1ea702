"""Links as fluids, for simulations: who sends how fast at which moment of a virtual clock.

Each link shares its rate equally among its flows, and a flow runs at the smallest of its shares and
its connection's limit. What the connections' limits leave of a link is shared by the others; what a
flow leaves unused because of its other end is given to nobody else, so that the model is slower
than real links, never faster. There is no slow start and no loss; latency is a
pause before the first byte.
"""

import heapq
from collections.abc import Callable
from typing import Any


class Link:
    """One direction of a node's connection, or the source's line."""

    __slots__ = ("flows", "limited", "limits", "rate")

    def __init__(self, rate: float) -> None:
        # Bytes per second.
        self.rate = rate
        self.flows: dict[Flow, None] = {}
        # How many of them have a limit, and these together.
        self.limited = 0
        self.limits = 0.0

    def add(self, flow: "Flow") -> None:
        """A flow begins."""
        self.flows[flow] = None
        if flow.cap < self.rate:
            self.limited += 1
            self.limits += flow.cap

    def remove(self, flow: "Flow") -> None:
        """A flow ends."""
        del self.flows[flow]
        if flow.cap < self.rate:
            self.limited -= 1
            self.limits -= flow.cap

    @property
    def share(self) -> float:
        """Of a flow without a limit."""
        count = len(self.flows)
        equal = self.rate / count
        if 0 < self.limited < count and self.limits < equal * self.limited:
            return (self.rate - self.limits) / (count - self.limited)
        return equal


class Flow:
    """One piece on its way."""

    __slots__ = ("at", "cap", "done", "down", "finish", "left", "next_look", "rate", "up")

    def __init__(
        self, size: float, up: Link, down: Link, cap: float, done: Callable[["Flow"], None]
    ) -> None:
        self.left = size
        self.up = up
        self.down = down
        self.cap = cap
        self.done = done
        self.rate = 0.0
        self.at = 0.0
        self.finish = self.next_look = float("inf")


class World:
    """A virtual clock and the flows under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[Any], None], about: Any = None) -> None:
        """Has something done at a moment."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, what, about))

    def start(self, flow: Flow) -> None:
        """Its bytes begin to run."""
        flow.at = self.now
        flow.up.add(flow)
        flow.down.add(flow)
        self._share(flow.up)
        self._share(flow.down)

    def stop(self, flow: Flow) -> None:
        """It ends, whatever has arrived."""
        if flow in flow.up.flows:
            flow.up.remove(flow)
            flow.down.remove(flow)
            flow.finish = float("inf")
            self._share(flow.up)
            self._share(flow.down)

    def step(self) -> bool:
        """Does the next thing. False: nothing is left to happen."""
        if not self._events:
            return False
        self.now, _, what, about = heapq.heappop(self._events)
        what(about)
        return True

    def _share(self, link: Link) -> None:
        now = self.now
        if not link.flows:
            return
        share = link.share
        for flow in link.flows:
            other = flow.down if flow.up is link else flow.up
            rate = min(share, other.share, flow.cap)
            if rate == flow.rate:
                continue
            flow.left -= flow.rate * (now - flow.at)
            flow.at = now
            flow.rate = rate
            flow.finish = now + max(flow.left, 0.0) / rate
            if flow.finish < flow.next_look:
                flow.next_look = flow.finish
                self.at(flow.finish, self._look, flow)

    def _look(self, flow: Flow) -> None:
        if flow not in flow.up.flows:
            return
        if flow.finish > self.now + 1e-9:
            if flow.next_look <= self.now:
                flow.next_look = flow.finish
                self.at(flow.finish, self._look, flow)
            return
        self.stop(flow)
        flow.done(flow)
