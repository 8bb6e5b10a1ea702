"""Ceilings on bytes per second, each shared by all transfers of an agent."""

import threading
import time
from collections.abc import Callable

_BURST_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 60.0  # the system's clock types have an end
_READ_SECONDS = 0.02  # of the rate; larger reads would come in gusts
_LEAST_READ_BYTES = 16 << 10
_JUDGED_SECONDS = 0.5
_HELD_BACK = 0.25  # of the time


class RateLimit:
    """A bucket that all downloading threads draw from; safe for several threads.

    Whoever received bytes takes them from the bucket, going into debt if needed, and waits before
    the next read until the debt is paid: the average over any second keeps the ceiling whatever
    the size of a read, also when the ceiling changes. None means no ceiling.
    """

    def __init__(
        self, bytes_per_second: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._rate = _positive(bytes_per_second)
        self._tokens = 0.0
        self._at = clock()
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited = 0.0  # seconds in which somebody waited
        self._judged = (self._at, 0.0)  # when, and what `_waited` was
        self._held_back = False

    @property
    def bytes_per_second(self) -> int | None:
        """The present ceiling."""
        return self._rate

    @property
    def read_bytes(self) -> int | None:
        """How much one read should ask for at most, so that bytes flow evenly; None: any."""
        rate = self._rate
        return None if rate is None else max(_LEAST_READ_BYTES, int(rate * _READ_SECONDS))

    def held_back(self) -> bool:
        """Whether it lately slowed somebody down: a quarter of the time, over half a second."""
        with self._changed:
            now = self._clock()
            since, before = self._judged
            if now - since >= _JUDGED_SECONDS:
                self._held_back = self._waited_until(now) - before >= _HELD_BACK * (now - since)
                self._judged = (now, self._waited_until(now))
            return self._held_back and self._rate is not None

    def change(self, bytes_per_second: int | None) -> None:
        """Sets another ceiling; whoever waits under the old one notices at once.

        What was received too much stays owed, unless there is no ceiling any more.
        """
        with self._changed:
            self._refill()
            self._rate = _positive(bytes_per_second)
            if self._rate is None:
                self._tokens = 0.0
            else:
                self._tokens = min(self._tokens, self._rate * _BURST_SECONDS)
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
            if self._tokens >= 0:
                return
            self._begin_waiting()
            try:
                while self._rate is not None and self._tokens < 0 and not stopped():
                    self._changed.wait(min(_LONGEST_WAIT_SECONDS, -self._tokens / self._rate))
                    self._refill()
            finally:
                self._end_waiting()

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

    def _begin_waiting(self) -> None:
        if not self._waiting:
            self._waiting_since = self._clock()
        self._waiting += 1

    def _end_waiting(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._waited += self._clock() - self._waiting_since

    def _waited_until(self, now: float) -> float:
        return self._waited + (now - self._waiting_since if self._waiting else 0.0)


def _positive(rate: int | None) -> int | None:
    if rate is not None and rate <= 0:
        raise ValueError("a rate limit is a positive number of bytes per second, or none")
    return rate
