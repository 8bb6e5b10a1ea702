"""How a download ends when a thread is still at a piece that came in another way meanwhile."""

import threading
from collections.abc import Callable
from pathlib import Path

from agent.store import Origin, Partial
from agent.transfer.blob import BlobDownload
from agent.transfer.interrupt import Interrupt
from agent.transfer.pieces import Lease
from agent.transfer.rate import RateLimit
from tests.agent.transfer.conftest import QUICK, SilentLog
from tests.support import eventually

SIZE = 2 << 20


class Memory:
    """A source that gives zeros once it may."""

    origin = Origin.PEER
    name = "memory"
    supports_ranges = True

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def open(self, offset: int, length: int, interrupt: Interrupt) -> "Memory":
        """Itself."""
        return self

    def read_into(self, buffer: memoryview) -> int:
        """Fills the buffer after the wait."""
        self._wait()
        return min(len(buffer), SIZE)

    def close(self) -> None:
        """Nothing."""


class SeeminglyTwice:
    """The same bytes for two threads: the first of them to come wins."""

    parallel = None
    has_help = True
    waits_for = ""

    def __init__(self, *sources: Memory) -> None:
        self._free = list(sources)
        self._lock = threading.Lock()
        self.given_back = threading.Semaphore(0)

    def next_piece(self, *, from_hub: bool = True) -> Lease | None:
        """The whole file, from the next source."""
        with self._lock:
            return Lease(0, SIZE, self._free.pop(0), 0) if self._free else None

    def give_back(self, lease: Lease) -> None:
        """Counts it."""
        self.given_back.release()


def test_a_second_way_that_comes_too_late_does_not_fail_a_complete_file(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "model.part", SIZE, "m")
    late = threading.Event()

    def until_the_end() -> None:
        late.set()
        eventually(lambda: partial.is_over)

    schedule = SeeminglyTwice(Memory(until_the_end), Memory(late.wait))
    blob = BlobDownload(partial, schedule, QUICK, RateLimit(), SilentLog())

    digests = blob.run()

    assert digests is not None
    assert schedule.given_back.acquire(timeout=20)
    assert schedule.given_back.acquire(timeout=20)
    partial.close()
