"""Where pieces come from, and how a source says that it cannot give one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from agent.store import Origin
from agent.transfer.interrupt import Interrupt


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """The address to fetch a file from now.

    `headers` go to this origin only, never on to where it redirects. After `expires_at` (seconds
    since the epoch) the address is asked for again.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires_at: float | None = None


class RangedRead(Protocol):
    """The bytes of one range, in order."""

    def read_into(self, buffer: memoryview) -> int:
        """Receives at least one byte, at most what the range still has. Raises `SourceFailure`."""
        ...

    def close(self) -> None:
        """Ends the read; what was not received stays with the source."""
        ...


@runtime_checkable
class PipedRead(RangedRead, Protocol):
    """A read whose bytes need not come into this process."""

    def read_into_pipe(self, pipe: int, count: int) -> int:
        """Like `read_into`, of at most `count` bytes into an empty pipe."""
        ...


class Source(Protocol):
    """Something that has the file, or pieces of it. Safe for several threads."""

    @property
    def origin(self) -> Origin:
        """The kind of source, for the account of bytes."""
        ...

    @property
    def name(self) -> str:
        """How a message names this source."""
        ...

    @property
    def supports_ranges(self) -> bool:
        """Whether several reads at once, each of another range, cost no more than one."""
        ...

    def open(self, offset: int, length: int, interrupt: Interrupt) -> RangedRead:
        """Begins to read exactly [offset, offset + length).

        Blocks until the source answers. Raises `SourceFailure`, or `Interrupted` when `interrupt`
        fires meanwhile.
        """
        ...


class Cause(Enum):
    """Why a source did not give a piece: the stable code, and how often in a row it may happen.

    The counts start again whenever bytes arrive.
    """

    UNAVAILABLE = ("source_unavailable", 32)  # refused, reset, cut short, 5xx, no such host
    LIMITED = ("source_rate_limited", 8)  # 429, 503 with Retry-After
    UNTRUSTED = ("source_untrusted", 1)  # its certificate is not one that this node trusts
    STALLED = ("stalled", 5)  # connected, and silent
    REJECTED = ("source_rejected", 2)  # 4xx
    GATED = ("gated", 1)  # the repository's owner has to grant access
    MISBEHAVED = ("source_misbehaved", 4)  # not the bytes that were asked for
    CHANGED = ("source_changed", 2)  # another ETag or another file than the registered one
    WRONG_SIZE = ("size_mismatch", 2)
    NO_RANGES = ("range_not_supported", 3)
    RESOLVING = ("source_unresolved", 8)  # nobody could say where to fetch from

    def __init__(self, code: str, tries: int) -> None:
        self.code = code
        self.tries = tries

    @property
    def retryable(self) -> bool:
        """Whether the same order may succeed later by itself."""
        return self in (
            Cause.UNAVAILABLE,
            Cause.LIMITED,
            Cause.STALLED,
            Cause.MISBEHAVED,
            Cause.RESOLVING,
        )


class SourceFailure(Exception):
    """A source could not give what was asked; `wait_seconds` is what it wished for, if it said."""

    def __init__(self, cause: Cause, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.wait_seconds = wait_seconds


class RangesIgnored(Exception):
    """The source has just turned out to have no ranges: ask once more, with one read for all."""
