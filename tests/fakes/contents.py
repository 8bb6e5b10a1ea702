"""Contents that nodes hold: what the router reads from them, without a network."""

import hashlib
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from protos import tickets

KEY = b"k" * 32


class FakeReader:
    """Implements `BlobReader`. Nodes are told apart by the address in the URL.

    `breaks` are bytes after which a read from an address breaks off; `lies` changes what it sends.
    """

    def __init__(self, now: float) -> None:
        self.nodes: dict[str, dict[str, bytes]] = {}
        self.breaks: dict[str, int] = {}
        self.lies: set[str] = set()
        self.asked: list[str] = []
        self._now = now

    def put(self, address: str, *contents: bytes) -> None:
        """Lets the node at an address hold contents."""
        held = self.nodes.setdefault(address, {})
        held.update({hashlib.sha256(content).hexdigest(): content for content in contents})

    def read(self, urls: Sequence[str], offset: int, size: int) -> Iterator[bytes]:
        """See `BlobReader`; in pieces of 1000 bytes."""
        for url in urls:
            address, content = self._find(url)
            if content is None:
                continue
            self.asked.append(address)
            assert len(content) == size
            for start in range(offset, size, 1000):
                if start - offset >= self.breaks.get(address, size):
                    raise OSError("it broke off")
                piece = content[start : start + 1000]
                yield bytes(len(piece)) if address in self.lies else piece
            return
        raise OSError("nobody answers")

    def answers(self, urls: Sequence[str]) -> bool:
        """See `BlobReader`."""
        return any(self._find(url)[1] is not None for url in urls)

    def _find(self, url: str) -> tuple[str, bytes | None]:
        parts = urlsplit(url)
        sha256 = parts.path.removeprefix("/blobs/")
        query = parts.query.removesuffix("&wait=1")
        assert tickets.is_valid(KEY, sha256, query=query, now=self._now)
        return parts.netloc, self.nodes.get(parts.netloc, {}).get(sha256)
