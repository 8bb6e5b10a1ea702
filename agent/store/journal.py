"""The list of byte ranges of an unfinished file that are known to be durable.

An append-only text file. Each line is `<CRC-32 of the rest, 8 hex digits> <rest>`; the first one
names the format, the file's size and its identity, every other one a range and its origin:

    1c291ca3 llm-router-partial 1 1048576 9f86d0…
    5a1e0b77 0 262144 hub

A reader believes lines up to the first that is torn or damaged, so a kill or a power loss in the
middle of an append loses at most that line, and with it only the right not to fetch those bytes
again.
"""

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.store.origin import Origin

_FORMAT = "llm-router-partial 1"


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, end) of a file, and the kind of source they came from."""

    start: int
    end: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal says, and how many bytes of it are believable."""

    ranges: tuple[Range, ...]
    valid_bytes: int


def read(path: Path, size: int, identity: str) -> Contents | None:
    """Reads a journal; None when there is none, or when it speaks of another file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    ranges: list[Range] = []
    valid = 0
    for number, line in enumerate(raw.split(b"\n")[:-1]):
        text = _checked(line)
        if number == 0:
            if text != f"{_FORMAT} {size} {identity}":
                return None
        else:
            entry = None if text is None else _range(text, size)
            if entry is None:
                break
            ranges.append(entry)
        valid += len(line) + 1
    return Contents(tuple(ranges), valid) if valid else None


class Journal:
    """Appends ranges. The caller makes the bytes durable first, then calls `append`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, size: int, identity: str) -> "Journal":
        """Starts an empty journal, in place of any older one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        journal = cls(path, os.open(path, flags, 0o600))
        journal._write(_line(f"{_FORMAT} {size} {identity}"))
        return journal

    @classmethod
    def resume(cls, path: Path, contents: Contents) -> "Journal":
        """Goes on after the believable part of a journal; what follows it is cut off."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.ftruncate(descriptor, contents.valid_bytes)
        return cls(path, descriptor)

    def append(self, ranges: Iterable[Range]) -> None:
        """Adds ranges whose bytes are durable, and returns when the lines are durable too."""
        lines = b"".join(_line(f"{r.start} {r.end} {r.origin.value}") for r in ranges)
        if lines:
            self._write(lines)

    def close(self) -> None:
        """Closes the file; the journal stays on disk."""
        os.close(self._descriptor)

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        os.fdatasync(self._descriptor)


def _line(text: str) -> bytes:
    raw = text.encode()
    return b"%08x %s\n" % (zlib.crc32(raw), raw)


def _checked(line: bytes) -> str | None:
    """The rest of a line whose checksum is right."""
    checksum, _, rest = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(rest):
        return None
    return rest.decode("ascii", "replace")


def _range(text: str, size: int) -> Range | None:
    parts = text.split(" ")
    if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    start, end = int(parts[0]), int(parts[1])
    if not 0 <= start < end <= size or parts[2] not in set(Origin):
        return None
    return Range(start, end, Origin(parts[2]))
