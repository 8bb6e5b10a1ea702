"""Digests of a file that is still arriving."""

import hashlib
from collections.abc import Callable

from agent.store import Digests, Partial, StoreError
from agent.store.buffers import page_buffer
from agent.store.cache import git_hash

_READ_BYTES = 256 << 10
_LOOK_SECONDS = 1.0


class FrontierHash:
    """Follows the contiguous frontier of a partial, reading what is still in the page cache.

    What an earlier run left is read once; nothing is hashed twice.
    """

    def __init__(self, partial: Partial, *, with_git: bool) -> None:
        self._partial = partial
        self._sha256 = hashlib.sha256()
        self._git = git_hash(partial.size) if with_git else None
        self.position = 0

    def run(self, over: Callable[[], bool]) -> Digests | None:
        """Blocks until the whole file is hashed; None when `over` became true before."""
        buffer = page_buffer(min(_READ_BYTES, self._partial.size))
        while self.position < self._partial.size:
            frontier = self._partial.wait_frontier(self.position, _LOOK_SECONDS)
            while self.position < frontier:
                if over():
                    return None
                wanted = min(len(buffer), frontier - self.position)
                count = self._partial.read_into(buffer[:wanted], self.position)
                if count == 0:
                    raise StoreError(
                        "store_failed", f"{self._partial.path} became shorter", retryable=True
                    )
                self._sha256.update(buffer[:count])
                if self._git is not None:
                    self._git.update(buffer[:count])
                self.position += count
            if over():
                return None
        return Digests(
            self._sha256.hexdigest(), None if self._git is None else self._git.hexdigest()
        )
