"""How many connections one file should have."""

import math

_PROBE_SECONDS = 1.0
_GAIN = 1.15
_HOLD_SECONDS = 30.0


class Width:
    """Climbs while more connections make the whole faster; safe to read from any thread.

    A source that throttles each connection is seen by the gain that twice as many bring. When a
    doubling brings less than 15 % it is taken back, and the next is tried 30 s later. When the
    source pushes back, the number is halved.
    """

    def __init__(self, first: int, most: int) -> None:
        self.wanted = max(1, min(first, most))
        self._most = max(1, most)
        self._mark: tuple[float, int] | None = None
        self._before: tuple[int, float] | None = None  # width and speed before the last doubling
        self._hold_until = 0.0
        self._pushed_at = -math.inf

    def observe(self, now: float, received: int, throttled: bool) -> None:
        """Takes the total of received bytes; call it often. `throttled`: nothing can be learnt."""
        if throttled or self._mark is None:
            self._mark = (now, received)
            return
        since, before = self._mark
        if now - since < _PROBE_SECONDS:
            return
        speed = (received - before) / (now - since)
        self._mark = (now, received)
        if self._before is not None:
            width, slower = self._before
            self._before = None
            if speed < slower * _GAIN:
                self.wanted = width
                self._hold_until = now + _HOLD_SECONDS
                return
        if now >= self._hold_until and speed > 0 and self.wanted < self._most:
            self._before = (self.wanted, speed)
            self.wanted = min(self._most, self.wanted * 2)

    def push_back(self, now: float) -> None:
        """The source refused or broke a connection: fewer of them, and no probing for a while."""
        if now < self._pushed_at + _PROBE_SECONDS:
            return  # connections that fail together are one refusal
        self._pushed_at = now
        self.wanted = max(1, self.wanted // 2)
        self._before = None
        self._hold_until = now + _HOLD_SECONDS
