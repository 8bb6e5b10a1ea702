"""When we may call the Hub: one budget for the whole router.

The Hub counts calls per window and kind (`api`, `resolvers`) and tells what is left in
`RateLimit` and `RateLimit-Policy` (IETF draft-ietf-httpapi-ratelimit-headers) and `Retry-After`
(RFC 9110). Once nothing is left we stop calling until the window ends. A Hub that fails again
and again is left alone for a while too, so that an outage costs it, and us, few calls.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from huggingface_hub.utils._http import parse_ratelimit_headers

from router.domain.errors import HubRateLimited, HubUnavailable


class CallKind(StrEnum):
    """The Hub's counters."""

    API = "api"
    RESOLVE = "resolvers"


@dataclass(frozen=True, slots=True)
class Patience:
    """How we meet limits and failures; seconds.

    After `failures` calls in a row without any success nothing is called for `first_pause`, which
    doubles with each further failure up to `longest_pause`.
    """

    unknown_limit: float = 30.0
    longest_limit: float = 3600.0
    failures: int = 10
    first_pause: float = 2.0
    longest_pause: float = 30.0


DEFAULT_PATIENCE = Patience()


class Budget:
    """Says whether a call may go out, and learns from each answer. Safe from any thread.

    `monotonic` gives seconds that only grow; `wall` the time, for dates in headers.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        wall: Callable[[], datetime],
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._patience = patience
        self._lock = threading.Lock()
        self._blocked_until: dict[CallKind, float] = {}
        self._failures = 0
        self._paused_until = 0.0
        self._last_failure = ""

    def admit(self, kind: CallKind) -> None:
        """Returns when a call may go out now; else raises `HubRateLimited` or `HubUnavailable`."""
        with self._lock:
            now = self._monotonic()
            limited = self._blocked_until.get(kind, 0.0) - now
            paused = self._paused_until - now
            if limited > 0:
                raise rate_limited(limited)
            if paused > 0:
                raise HubUnavailable(
                    f"the Hub cannot be used at the moment: {self._last_failure}",
                    retry_after=paused,
                )

    def answered(self, kind: CallKind, headers: Mapping[str, str]) -> None:
        """The Hub answered with sense; the headers may say that this was the last call for now."""
        limit = parse_ratelimit_headers(headers)
        with self._lock:
            self._failures = 0
            self._paused_until = 0.0
            if limit is not None and limit.remaining <= 0:
                self._block(kind, limit.reset_in_seconds)

    def refused(self, kind: CallKind, headers: Mapping[str, str]) -> HubRateLimited:
        """The Hub answered 429. Returns the error that says for how long we wait."""
        wait = self._told_wait(headers)
        with self._lock:
            self._failures = 0
            return rate_limited(self._block(kind, wait))

    def failed(self, reason: str) -> None:
        """The Hub did not answer, or not with sense."""
        with self._lock:
            self._failures += 1
            self._last_failure = reason
            beyond = self._failures - self._patience.failures
            if beyond >= 0:
                pause = self._patience.first_pause * 2.0 ** min(beyond, 16)
                self._paused_until = self._monotonic() + min(pause, self._patience.longest_pause)

    def _block(self, kind: CallKind, seconds: float) -> float:
        seconds = min(max(seconds, 1.0), self._patience.longest_limit)
        self._blocked_until[kind] = self._monotonic() + seconds
        return seconds

    def _told_wait(self, headers: Mapping[str, str]) -> float:
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining <= 0:
            return float(limit.reset_in_seconds)
        told = next((text for key, text in headers.items() if key.lower() == "retry-after"), "")
        if told.strip().isdecimal() and len(told) < 10:
            return float(told)
        try:
            until = parsedate_to_datetime(told)
        except ValueError:
            return self._patience.unknown_limit
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return (until - self._wall()).total_seconds()


def rate_limited(seconds: float) -> HubRateLimited:
    """The error for a limit that ends in so many seconds."""
    return HubRateLimited(
        f"the Hub limits our requests for another {max(1, round(seconds))} s; a token of the Hub "
        "raises the limit",
        retry_after=seconds,
    )
