"""A file on this machine's disk that is served."""

from typing import Protocol


class FileChanged(Exception):
    """The file was written, replaced or removed since it was looked at."""


class ServedFile(Protocol):
    """What is known of a file that is served; the size in bytes, the time in Unix nanoseconds."""

    @property
    def name(self) -> str:
        """How a message names it."""

    @property
    def path(self) -> str:
        """Where it lies."""

    @property
    def size(self) -> int:
        """Its length when it was looked at."""

    @property
    def mtime_ns(self) -> int:
        """When it was last written."""

    def is_still(self, size: int, mtime_ns: int, inode: int) -> bool:
        """Whether these `stat` values are those of the file that was looked at."""
