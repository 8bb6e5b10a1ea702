"""What a commit holds, and how git and git LFS name content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

MAIN = "main"
MAIN_NAMES = frozenset({MAIN, f"refs/heads/{MAIN}", "HEAD"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit. `oid` names its content; `sha256` is set for LFS files."""

    name: str
    size: int
    oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """What the Hub answers as ETag: the SHA-256 of an LFS file, else the git blob's id."""
        return self.sha256 or self.oid

    @property
    def lfs(self) -> dict[str, str | int] | None:
        """The `lfs` part of the Hub's answers, but for the name of its digest."""
        if self.sha256 is None:
            return None
        return {"size": self.size, "pointerSize": len(lfs_pointer(self.sha256, self.size))}

    @property
    def linked(self) -> dict[str, str]:
        """The headers that the Hub adds for files that it keeps in LFS."""
        if self.sha256 is None:
            return {}
        return {"X-Linked-Etag": f'"{self.sha256}"', "X-Linked-Size": str(self.size)}


def lfs_entry(name: str, size: int, sha256: str) -> Entry:
    """A file that the Hub keeps in LFS: git knows its pointer."""
    return Entry(name, size, git_oid(lfs_pointer(sha256, size)), sha256)


@dataclass(frozen=True)
class Commit:
    """The exact content of a repository, entries by name."""

    id: str
    entries: tuple[Entry, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """The entries by their names."""
        return {entry.name: entry for entry in self.entries}


def commit_of(entries: tuple[Entry, ...]) -> Commit:
    """A commit whose id is the SHA-1 of its content's canonical JSON: 40 hex digits, as in git."""
    rows = [[entry.name, entry.size, entry.oid, entry.sha256] for entry in entries]
    canonical = json.dumps(rows, separators=(",", ":")).encode()
    return Commit(hashlib.sha1(canonical, usedforsecurity=False).hexdigest(), entries)


def git_oid(content: bytes) -> str:
    """A git blob's id: SHA-1 of `blob <length>\\0` and the content (git-hash-object)."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git stores in place of an LFS file (github.com/git-lfs/git-lfs, docs/spec.md)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )
