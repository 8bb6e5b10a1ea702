"""What a transfer tells about itself while it runs."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.store import BytesFrom

SPEED_WINDOW_SECONDS = 5.0


class TransferState(StrEnum):
    """What a transfer is doing now."""

    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    WAITING = "waiting"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """A true picture of one moment.

    `received_bytes` are on this node's disk (not yet all durable); within one `Transfer` they never
    go back. `speed_bps` is bytes per second from the network over the last five seconds. `note` is
    a reason for a person while the transfer waits or stalls, else empty.
    """

    state: TransferState
    received_bytes: int
    total_bytes: int
    bytes_from: BytesFrom
    speed_bps: float
    note: str


class Speed:
    """Bytes per second over a sliding window; safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def sample(self, total: int) -> None:
        """Notes how many bytes came from the network since the beginning."""
        now = self._clock()
        with self._lock:
            self._samples.append((now, total))
            while len(self._samples) > 2 and self._samples[1][0] <= now - SPEED_WINDOW_SECONDS:
                self._samples.popleft()

    def bytes_per_second(self, total: int) -> float:
        """The mean speed from the oldest sample of the window until now."""
        now = self._clock()
        with self._lock:
            at, before = self._samples[0]
        return max(0.0, (total - before) / (now - at)) if now > at else 0.0
