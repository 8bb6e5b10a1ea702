"""Work that yields to everything else on the machine."""

import contextlib
import os
import threading

_NICENESS = 10


def be_nice() -> None:
    """Lets the calling thread yield to all others (on Linux niceness is per thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
