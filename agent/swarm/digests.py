"""BLAKE3 of pieces that are on this disk."""

from typing import Protocol

from blake3 import blake3

from agent.store import StoreError
from agent.store.buffers import page_buffer

DIGEST_BYTES = 32
_READ_BYTES = 1 << 20


class Readable(Protocol):
    """A file of which the wanted bytes are there."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Reads at an offset; returns how many bytes, 0 at the end. Raises `StoreError`."""
        ...


def digest_of(readable: Readable, start: int, end: int) -> bytes:
    """The digest of bytes [start, end). Raises `StoreError`."""
    hasher = blake3()
    buffer = page_buffer(min(_READ_BYTES, end - start))
    while start < end:
        count = readable.read_into(buffer[: min(len(buffer), end - start)], start)
        if count == 0:
            raise StoreError("store_failed", "a file became shorter", retryable=True)
        hasher.update(buffer[:count])
        start += count
    return hasher.digest()
