"""Locks between processes that fetch into the same cache."""

import fcntl
import os
from pathlib import Path


class FileLock:
    """An exclusive `flock`; freed by the kernel when its holder dies.

    It is the same kind of lock that huggingface_hub takes on the same files, so that two programs
    never fetch one blob at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def try_acquire(self) -> bool:
        """Takes the lock if nobody has it; returns at once. Raises `OSError`."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            if self._is_at_path(descriptor):
                self._descriptor = descriptor
                return True
            os.close(descriptor)  # its last holder removed the file while we opened it

    def release(self, *, remove: bool = False) -> None:
        """Frees the lock; with `remove` the file goes too."""
        if self._descriptor < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
