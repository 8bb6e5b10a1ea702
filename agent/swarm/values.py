"""The words of the swarm on this node."""

from dataclasses import dataclass
from enum import StrEnum

HUB = ""  # the Hub, where a holder is named


class Result(StrEnum):
    """What became of a piece; the same words as `PieceResult` on the wire."""

    GOT = "got"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    WRONG = "wrong"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Grant:
    """The router's word: fetch this piece from this node, or from the Hub.

    `addresses` are where the holder serves ("host:port"), the likeliest first. `digest` is what the
    piece must be (BLAKE3); empty only from the Hub.
    """

    piece: int
    holder: str = HUB
    addresses: tuple[str, ...] = ()
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece. `digest` (GOT only) may be empty; `seconds` None: not measured."""

    piece: int
    result: Result
    holder: str = HUB
    digest: bytes = b""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """What a node has of a file when it begins to share it: whole pieces, and digests it knows."""

    size: int
    have: frozenset[int]
    digests: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class News:
    """What the router does not know yet; `join` in the first news of a session only."""

    capacity: int
    outcomes: tuple[Outcome, ...] = ()
    join: Join | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long this node waits for others, in seconds."""

    answer: float = 0.5  # for the router's first word, before bytes come from the Hub
    away: float = 2.0  # for a router that is gone
    silence: float = 20.0  # for a grant, while nothing is being fetched
    help: float = 30.0  # since another node gave a piece, as long as one counts on them
    stall: float = 5.0  # for a byte of another node, and for what `pace` says of this time
    pace: float = 64e3  # bytes per second that make another node worth waiting for
    connect: float = 2.0  # for each address of another node
