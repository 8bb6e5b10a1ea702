"""Contents by digest that the router itself keeps, and reading them from nodes: the ports."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A content that the router keeps: verified, durable, and never written again."""

    name: str  # its SHA-256
    path: str
    size: int
    mtime_ns: int
    inode: int

    def is_still(self, size: int, mtime_ns: int, inode: int) -> bool:
        """Whether these `stat` values are those of this file."""
        return (self.size, self.mtime_ns, self.inode) == (size, mtime_ns, inode)


class Intake(Protocol):
    """Contents that come in and are not kept yet. For one thread at a time; blocking.

    Exactly one of `keep` and `discard` ends it.
    """

    def begin(self, sha256: str) -> None:
        """The bytes of a content follow; one that was begun before must be finished."""

    def write(self, data: bytes | memoryview) -> None:
        """Its next bytes. Raises `InsufficientDisk`, `OSError`."""

    def finish(self) -> None:
        """Makes it durable, without being kept yet. Raises `InsufficientDisk`, `OSError`."""

    def keep(self, also: Callable[[], None]) -> None:
        """Keeps every content, durably, then calls `also`: when that raises, nothing is kept.

        No `collect` comes between.
        """

    def discard(self) -> None:
        """Removes what came in; harmless after the end."""


class KeptBlobs(Protocol):
    """Contents on the router's disk. Safe from any thread."""

    def has(self, sha256: str) -> bool:
        """Whether it is kept; asks no disk."""

    def find(self, sha256: str) -> KeptFile | None:
        """The file of a content; None when it is not kept."""

    def free_bytes(self) -> int:
        """Room on the disk that they are on."""

    def take_in(self) -> Intake:
        """Begins to take contents in."""

    def collect(self, wanted: Callable[[], set[str]]) -> int:
        """Removes every content that is not `wanted`; how many there were."""


class BlobReader(Protocol):
    """Reads contents from nodes."""

    def read(self, urls: Sequence[str], offset: int, size: int) -> Iterator[bytes]:
        """The bytes of a content from `offset` to its end at `size`, from the first that answers.

        Blocks; no piece is longer than 1 MiB. The bytes are not verified. Raises `OSError` when
        none answers, or when it breaks off.
        """

    def answers(self, urls: Sequence[str]) -> bool:
        """Whether a node has a content, or is fetching it, at the first URL that can be reached."""
