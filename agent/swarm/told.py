"""What the router knows of the pieces that this node has, and what it does not know yet."""

from agent.store import Partial
from agent.swarm.values import HUB, Join, News, Outcome, Result
from protos import pieces


class Told:
    """The news of one file. Not safe for several threads."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._size = partial.size
        self._count = pieces.piece_count(partial.size)
        self._joined = False
        self._outcomes: list[Outcome] = []
        self._reported: set[int] = set()
        self._digests: dict[int, bytes] = {}
        self._capacity = 0

    def forget(self) -> None:
        """The router knows nothing any more: the next news say all."""
        self._joined = False
        self._outcomes.clear()

    def knows(self, piece: int) -> bool:
        """Whether the file has such a piece."""
        return 0 <= piece < self._count

    def span(self, piece: int) -> tuple[int, int]:
        """Where a piece is in the file."""
        return pieces.piece_span(piece, self._size)

    def has(self, piece: int) -> bool:
        """Whether the whole piece is here, and right as far as one knows."""
        start, end = self.span(piece)
        return self._partial.covered_until(start) >= end

    def got(self, piece: int, holder: str, digest: bytes, seconds: float) -> None:
        """A granted piece is here; an empty digest is one that is not known."""
        if digest:
            self._digests[piece] = digest
        self._reported.add(piece)
        self._add(Outcome(piece, Result.GOT, holder, digest, seconds))

    def failed(self, piece: int, holder: str, result: Result) -> None:
        """A granted piece did not come that way."""
        self._add(Outcome(piece, result, holder))

    def came(self, start: int, end: int) -> None:
        """Bytes [start, end) came without a grant: what is whole by now is told."""
        if start >= end:
            return
        length = pieces.piece_bytes(self._size)
        for piece in range(start // length, (end - 1) // length + 1):
            if self._joined and piece not in self._reported and self.has(piece):
                self._reported.add(piece)
                self._add(Outcome(piece, Result.GOT, HUB, self._digests.get(piece, b"")))

    def is_behind(self, capacity: int) -> bool:
        """Whether the router does not know all."""
        return bool(self._outcomes) or (self._joined and capacity != self._capacity)

    def take(self, capacity: int) -> News:
        """The news; they count as told."""
        join = None
        if not self._joined:
            have = frozenset(filter(self.has, range(self._count)))
            known = {piece: self._digests[piece] for piece in have & self._digests.keys()}
            join = Join(self._size, have, known)
            self._joined = True
            self._reported = set(have)
        outcomes, self._outcomes = tuple(self._outcomes), []
        self._capacity = capacity
        return News(capacity, outcomes, join)

    def _add(self, outcome: Outcome) -> None:
        if self._joined:
            self._outcomes.append(outcome)
