"""Members of a tar archive, one after another, as little of the format as bundles need.

Written as POSIX.1-2001 (pax): a header of 512 bytes for each member, its content, zeros up to the
next multiple of 512; two blocks of zeros end the archive. A member of 8 GiB or more has its size in
an extended header before its own.
"""

import re
import tarfile
from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
_LARGEST_EXTENDED = 1024
_SIZE_RECORD = re.compile(rb"(\d{1,3}) size=(\d{1,19})\n")


class NotOurs(ValueError):
    """The bytes are not what this module writes; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """One header. `extended` when its content speaks of the next member."""

    name: str
    size: int
    extended: bool

    @property
    def padding(self) -> int:
        """Zeros after the content."""
        return -self.size % BLOCK


def header(name: str, size: int) -> bytes:
    """What comes before the content of a regular file; one block, or three."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def member_bytes(name: str, size: int) -> int:
    """How many bytes a member takes in the archive."""
    return len(header(name, size)) + size + -size % BLOCK


def read_header(block: bytes) -> Header | None:
    """The header in one block; None for a block of zeros. Raises `NotOurs`.

    Only regular files and extended headers are taken: no links, folders or devices.
    """
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise NotOurs(f"a header cannot be read ({error})") from None
    extended = info.type == tarfile.XHDTYPE
    if info.type != tarfile.REGTYPE and not extended:
        raise NotOurs("it holds something that is not a plain file")
    if info.size < 0 or (extended and info.size > _LARGEST_EXTENDED):
        raise NotOurs("a header tells an impossible size")
    return Header(info.name, info.size, extended)


def read_extended(content: bytes) -> int:
    """The size that an extended header tells for the next member. Raises `NotOurs`."""
    match = _SIZE_RECORD.fullmatch(content)
    if match is None or int(match[1]) != len(content):
        raise NotOurs("an extended header tells more than a size")
    return int(match[2])
