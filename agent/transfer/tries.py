"""How often to try again, and when."""

import random
from collections import Counter
from collections.abc import Callable

from agent.transfer.source import Cause, SourceFailure

# With the default of 0.5 s no wait is longer than about 10 s: a source that is back is soon used.
_LONGEST_WAIT = 20  # times the first


class Tries:
    """Counts failures by cause and says how long to wait; not safe for several threads.

    Several connections that fail together are one failure. `forgiving_bytes` received since the
    last forgiveness start the counts again, except those of causes that are about the content.
    """

    def __init__(
        self,
        backoff_seconds: float,
        forgiving_bytes: int,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._backoff_seconds = backoff_seconds
        self._forgiving_bytes = forgiving_bytes
        self._random = rand
        self._counts: Counter[Cause] = Counter()
        self._last_at: dict[Cause, float] = {}
        self._received = 0

    def failed(
        self, failure: SourceFailure, began: float, now: float, received: int
    ) -> float | None:
        """Seconds to wait before the next try; None when there have been enough.

        `began` is when the failed request was begun: one that began before the last counted failure
        of the same cause tells nothing new. `received` is the total of bytes so far.
        """
        cause = failure.cause
        if received >= self._received + self._forgiving_bytes:
            self._received = received
            for other in [c for c in self._counts if c not in _NEVER_FORGIVEN]:
                del self._counts[other]
        if began >= self._last_at.get(cause, began):
            self._counts[cause] += 1
            self._last_at[cause] = now
        count = self._counts[cause]
        if count >= cause.tries:
            return None
        wait = self._backoff_seconds * min(_LONGEST_WAIT, 2.0 ** max(0, count - 1))
        return max(wait * (0.5 + self._random()), failure.wait_seconds or 0.0)


_NEVER_FORGIVEN = (Cause.CHANGED, Cause.WRONG_SIZE, Cause.GATED)
