"""How many leases of a swarm the Hub's line carries best, and how long one usually takes."""

from router.domain.swarm.values import Settings

# A step up must bring so much more to be kept.
_GAIN = 1.1
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

    def arrived(self, elapsed: float, now: float) -> None:
        """A lease brought its piece after `elapsed` seconds."""
        self._usual = self._usual + (elapsed - self._usual) * 0.1 if self._usual else elapsed
        if self._window_start is None:
            self._window_start, self._pieces = now, 0
            return
        self._pieces += 1
        span = now - self._window_start
        if self._pieces >= 3 * self.leases and span > 0:
            self._judge(self._pieces / span)
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

    def _judge(self, rate: float) -> None:
        """Keeps a step that brought more, takes back one that did not, and tries the next."""
        if self.leases > self._before:
            if rate < self._rate * _GAIN:
                self.leases = self._before
                self._patience = _PATIENCE
                return
        elif self._patience > 0:
            self._patience -= 1
            self._rate = rate
            return
        self._rate = rate
        self._before = self.leases
        self.leases = min(self.leases + max(self.leases // 2, 1), self._settings.most_leases)
