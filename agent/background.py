"""Work that yields to everything else on the machine."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_NICENESS = 10


def be_nice() -> None:
    """Lets the calling thread yield to all others (on Linux niceness is per thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Checks:
    """The files that this agent reads at this moment only to verify them; thread-safe.

    Whoever asks whether a file is in use can tell them from those that somebody needs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: list[Path] = []

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """While the body reads the file."""
        with self._lock:
            self._paths.append(path)
        try:
            yield
        finally:
            with self._lock:
                self._paths.remove(path)

    def __contains__(self, path: object) -> bool:
        """Whether a file is being read."""
        with self._lock:
            return path in self._paths
