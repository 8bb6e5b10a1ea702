"""What nodes say of pieces, and what they are told."""

from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.swarm.values import Result


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file that a node is to fetch, as its model's manifest pins it."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Join:
    """A node wants a file. `have`: bit 0 of byte 0 is piece 0; digests by piece."""

    size_bytes: int
    piece_bytes: int
    have: bytes
    digests: Sequence[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece; `holder_id` "" is the Hub, `elapsed` in seconds or None."""

    piece: int
    result: Result
    holder_id: str
    digest: bytes
    elapsed: float | None


@dataclass(frozen=True, slots=True)
class News:
    """What a node says of one file that it fetches; `capacity` in pieces at a time."""

    sha256: str
    join: Join | None
    outcomes: Sequence[Outcome]
    capacity: int
    leave: bool


@dataclass(frozen=True, slots=True)
class GrantedPiece:
    """A piece to fetch; from the Hub when `holder_id` is empty."""

    piece: int
    holder_id: str
    addresses: tuple[str, ...]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Grants:
    """What a node is to fetch next of a file; `alone`: whatever it likes, from the Hub."""

    sha256: str
    pieces: tuple[GrantedPiece, ...]
    alone: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Asks a node for the digests of pieces that it has."""

    sha256: str
    size_bytes: int
    piece_bytes: int
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers for operators: the swarms now, and since the start of the router the grants by
    source, the outcomes by result, and the accusations of having sent wrong bytes.
    """

    swarms: int
    grants: dict[str, int]
    results: dict[str, int]
    wrong_pieces: int
