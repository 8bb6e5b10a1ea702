"""One granted piece on its way here: what comes from another node counts only once it is right."""

import threading
import time
from collections.abc import Iterable

from blake3 import blake3

from agent.store import Partial
from agent.swarm.digests import digest_of
from agent.swarm.values import HUB, Grant, Patience
from agent.transfer.interrupt import Interrupted
from agent.transfer.pieces import Lease
from agent.transfer.source import Cause, Source, SourceFailure

_CANCELLED = "cancelled"


class WrongBytes(SourceFailure):
    """A node sent other bytes than the digest says."""

    def __init__(self, source: Source, piece: int) -> None:
        super().__init__(Cause.MISBEHAVED, f"{source.name} sent wrong bytes for piece {piece}")


class PieceLease(Lease):
    """A lease of bytes of one granted piece; `span` is where the piece is in its file.

    `is_done` once the whole piece is there and counts, `digest` is then its own (empty: unknown).
    """

    takes_pipes = False  # their digest needs the bytes

    def __init__(
        self,
        grant: Grant,
        span: tuple[int, int],
        part: tuple[int, int],
        source: Source,
        stall_seconds: float | None = None,
    ) -> None:
        super().__init__(part[0], part[1], source, part[0], stall_seconds=stall_seconds)
        self.grant = grant
        self.span = span
        self._began = time.monotonic()
        self.digest = b""
        self.is_done = False
        self.is_cancelled = False
        self._guard = threading.Lock()  # whoever has it puts bytes into the file, or forbids it

    @property
    def is_from_hub(self) -> bool:
        """Whether the Hub was to give it."""
        return self.grant.holder == HUB

    @property
    def seconds(self) -> float:
        """How long it has been on its way."""
        return time.monotonic() - self._began

    def cancel(self) -> bool:
        """Nothing more of it gets into the file; False when it is done already."""
        with self._guard:
            if self.is_done:
                return False
            self.is_cancelled = True
        self.interrupt.fire(_CANCELLED)
        return True

    def _check_wanted(self) -> None:
        if self.is_cancelled:
            raise Interrupted(_CANCELLED)


class _Pace:
    """Whether a node sends fast enough, by the time that is spent waiting for its bytes."""

    def __init__(self, source: Source, patience: Patience) -> None:
        self._source = source
        self._patience = patience
        self._seconds = 0.0
        self._count = 0

    def waited(self, seconds: float, count: int) -> None:
        """See `Lease`."""
        self._seconds += seconds
        self._count += count
        if self._seconds < self._patience.stall:
            return
        if self._count < self._seconds * self._patience.pace:
            raise SourceFailure(
                Cause.STALLED,
                f"{self._source.name} sent {self._count} bytes in {self._seconds:.0f} s",
            )
        self._seconds, self._count = 0.0, 0


class HubLease(PieceLease):
    """Bytes of the Hub: they count as they come, and are digested on the way."""

    def __init__(
        self, grant: Grant, span: tuple[int, int], part: tuple[int, int], source: Source
    ) -> None:
        super().__init__(grant, span, part, source)
        self._hasher = blake3() if part == span else None

    def take(self, data: memoryview, partial: Partial) -> None:
        """See `Lease`."""
        with self._guard:
            self._check_wanted()
            partial.write(data, self.position, self.source.origin)
        if self._hasher is not None:
            self._hasher.update(data)
        self.position += len(data)

    def finish(self, partial: Partial) -> None:
        """See `Lease`; a piece that came in parts is read back from the disk."""
        if partial.gaps(*self.span):
            return
        self.digest = (
            digest_of(partial, *self.span) if self._hasher is None else self._hasher.digest()
        )
        with self._guard:
            self._check_wanted()
            self.is_done = True


class PeerLease(PieceLease):
    """A whole piece from another node, in its place at once, and accepted in the end."""

    def __init__(
        self, grant: Grant, span: tuple[int, int], source: Source, patience: Patience
    ) -> None:
        super().__init__(grant, span, span, source, patience.stall)
        self._hasher = blake3()
        self._pace = _Pace(source, patience)

    def waited(self, seconds: float, count: int) -> None:
        """See `Lease`."""
        self._pace.waited(seconds, count)

    def take(self, data: memoryview, partial: Partial) -> None:
        """See `Lease`."""
        self._hasher.update(data)
        with self._guard:
            self._check_wanted()
            partial.place(data, self.position)
        self.position += len(data)

    def finish(self, partial: Partial) -> None:
        """See `Lease`."""
        if self._hasher.digest() != self.grant.digest:
            raise WrongBytes(self.source, self.grant.piece)
        with self._guard:
            self._check_wanted()
            partial.accept(*self.span, self.source.origin)
            self.is_done = True
        self.digest = self.grant.digest


class SpareLease(PieceLease):
    """A piece that is on its way already, from a second source: the first to be whole counts.

    It is kept in memory until then, because the other one has the piece's place in the file.
    """

    def __init__(
        self,
        grant: Grant,
        span: tuple[int, int],
        source: Source,
        rivals: Iterable[PieceLease],
        patience: Patience,
    ) -> None:
        is_hub = grant.holder == HUB
        super().__init__(grant, span, span, source, None if is_hub else patience.stall)
        self._pace = None if is_hub else _Pace(source, patience)
        self._rivals = tuple(rivals)
        self._bytes = bytearray(span[1] - span[0])
        self._hasher = blake3()

    def waited(self, seconds: float, count: int) -> None:
        """See `Lease`."""
        if self._pace is not None:
            self._pace.waited(seconds, count)

    def take(self, data: memoryview, partial: Partial) -> None:
        """See `Lease`."""
        self._check_wanted()
        at = self.position - self.start
        self._bytes[at : at + len(data)] = data
        self._hasher.update(data)
        self.position += len(data)

    def finish(self, partial: Partial) -> None:
        """See `Lease`; not done when a rival was first."""
        digest = self._hasher.digest()
        if not self.is_from_hub and digest != self.grant.digest:
            raise WrongBytes(self.source, self.grant.piece)
        with self._guard:
            self._check_wanted()
            if all(rival.cancel() for rival in self._rivals):
                partial.place(memoryview(self._bytes), self.start)
                partial.accept(*self.span, self.source.origin)
                self.digest = digest
                self.is_done = True
