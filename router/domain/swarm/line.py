"""How many leases of a swarm the Hub's line carries best, and how long one usually takes."""

from router.domain.swarm.values import Settings

# A step up must bring so much more to be kept.
_GAIN = 1.1
# A step down may cost so much.
_LOSS = 0.96
# Windows until a step up is tried again.
_PATIENCE = 24
# Seconds that a lease is thought to take before one has.
_FIRST_USUAL = 0.4


class Line:
    """Adapts the number of leases to the rate that arrives: more as long as the rate grows.

    Too few leave the line idle (each connection may be limited), too many make each slow, and lose
    more with each node that dies. The rate is measured over windows of some pieces each.
    """

    def __init__(self, settings: Settings) -> None:
        self.leases = settings.first_leases
        self._settings = settings
        # Seconds of a usual lease; 0: none has ended yet.
        self._usual = 0.0
        self._before = settings.first_leases
        self._rate = 0.0
        self._patience = 0
        # Until the first step that brings nothing, steps are large and windows short.
        self._doubling = True
        # Which way the next step goes.
        self._fewer = False
        self._window_start: float | None = None
        self._pieces = 0
        # When a lease more may begin though half of them run.
        self.next_at = 0.0

    def has_room(self, leases: int, now: float) -> bool:
        """Whether one may begin beside so many.

        The second half does not begin all at once: leases in step would end at one moment, and
        leave the line idle until the next ones have been asked for.
        """
        if leases * 2 < self.leases:
            return True
        return leases < self.leases and now >= self.next_at

    def began(self, now: float) -> None:
        """A lease begins."""
        self.next_at = now + (self._usual or _FIRST_USUAL) / (2 * self.leases)

    def idle(self) -> None:
        """Nothing was to be leased: what arrives now says nothing about the line."""
        self._window_start = None

    def arrived(self, elapsed: float, running: int, now: float) -> None:
        """A lease brought its piece after `elapsed` seconds; so many are running still."""
        self._usual = self._usual + (elapsed - self._usual) * 0.1 if self._usual else elapsed
        if self._window_start is None:
            self._window_start, self._pieces = now, 0
            return
        self._pieces += 1
        span = now - self._window_start
        window = self.leases if self._doubling else 3 * self.leases
        if self._pieces >= window and span > 0:
            # More than the members can take say nothing.
            most = min(max(running + 1, self._settings.first_leases), self._settings.most_leases)
            self._judge(self._pieces / span, most if running + 1 < self.leases else None)
            self._window_start, self._pieces = now, 0

    @property
    def doubles_after(self) -> float:
        """Seconds after which a lease of the end is given a second time."""
        usual = self._usual * self._settings.double_factor
        return max(usual, self._settings.double_floor)

    @property
    def expires_after(self) -> float:
        """Seconds after which a lease ends."""
        usual = self._usual * self._settings.lease_factor
        return max(usual, self._settings.lease_floor) if usual else 4 * self._settings.lease_floor

    def _judge(self, rate: float, taken: int | None) -> None:
        """Keeps a step that was worth it, takes back one that was not, and tries the next.

        `taken`: how many the members take, when they take fewer than they might.
        """
        if taken is not None:
            self.leases = taken
            self._fewer = True
        step = self.leases - self._before
        if step and rate < self._rate * (_GAIN if step > 0 else _LOSS):
            self.leases = self._before
            self._fewer = step > 0
            if not self._doubling:
                self._patience = _PATIENCE
            self._doubling = False
            return
        self._rate = rate
        self._before = self.leases
        if self._patience > 0:
            self._patience -= 1
            return
        least, most = self._settings.first_leases, self._settings.most_leases
        if self._fewer or self.leases == most:
            self.leases = max(self.leases * 3 // 4, least)
            self._doubling = False
            self._fewer = self.leases < self._before
        else:
            self.leases = min(self.leases * (4 if self._doubling else 3) // 2, most)
