"""A ceiling on bytes per second, shared by all transfers of an agent."""

import threading
import time
from collections.abc import Callable

_BURST_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 60.0  # the system's clock types have an end


class RateLimit:
    """A bucket that all downloading threads draw from; safe for several threads.

    Whoever received bytes takes them from the bucket, going into debt if needed, and waits before
    the next read until the debt is paid: the average over any second keeps the ceiling whatever
    the size of a read. None means no ceiling.
    """

    def __init__(
        self, bytes_per_second: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._rate = _positive(bytes_per_second)
        self._tokens = 0.0
        self._at = clock()

    @property
    def bytes_per_second(self) -> int | None:
        """The present ceiling."""
        return self._rate

    def change(self, bytes_per_second: int | None) -> None:
        """Sets another ceiling; whoever waits under the old one notices at once."""
        with self._changed:
            self._rate = _positive(bytes_per_second)
            self._tokens = 0.0
            self._at = self._clock()
            self._changed.notify_all()

    def take(self, count: int, stopped: Callable[[], bool]) -> None:
        """Accounts for `count` received bytes; blocks while the bucket is in debt.

        Returns early when `stopped` becomes true and `wake` is called.
        """
        if self._rate is None:
            return
        with self._changed:
            self._refill()
            self._tokens -= count
            while self._rate is not None and self._tokens < 0 and not stopped():
                self._changed.wait(min(_LONGEST_WAIT_SECONDS, -self._tokens / self._rate))
                self._refill()

    def wake(self) -> None:
        """Lets everybody who waits look at its `stopped` again."""
        with self._changed:
            self._changed.notify_all()

    def _refill(self) -> None:
        now = self._clock()
        if self._rate is not None:
            grown = self._tokens + (now - self._at) * self._rate
            self._tokens = min(grown, self._rate * _BURST_SECONDS)
        self._at = now


def _positive(rate: int | None) -> int | None:
    if rate is not None and rate <= 0:
        raise ValueError("a rate limit is a positive number of bytes per second, or none")
    return rate
