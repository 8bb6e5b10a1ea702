"""A buffer in the kernel, through which bytes go from a socket to a file without coming here."""

import contextlib
import fcntl
import os

_WANTED_BYTES = 1 << 20  # what the system gives everybody (pipe(7), pipe-max-size)
_LEAST_BYTES = 256 << 10  # smaller ones are slower than a buffer of our own


class Pipe:
    """Both ends of a pipe; for one thread, which empties it before it fills it again."""

    def __init__(self, out_end: int, in_end: int, capacity: int) -> None:
        self.out_end = out_end
        self.in_end = in_end
        self.capacity = capacity

    def close(self) -> None:
        """Closes both ends; what is inside is lost."""
        os.close(self.out_end)
        os.close(self.in_end)


def open_pipe() -> Pipe | None:
    """A pipe of a useful size; None where this system has no `splice` or grants no such pipe."""
    if not hasattr(os, "splice"):
        return None
    with contextlib.suppress(OSError):
        out_end, in_end = os.pipe()
        pipe = Pipe(out_end, in_end, 0)
        with contextlib.suppress(OSError):
            pipe.capacity = fcntl.fcntl(in_end, fcntl.F_SETPIPE_SZ, _WANTED_BYTES)
        if pipe.capacity >= _LEAST_BYTES:
            return pipe
        pipe.close()
    return None
