"""The words between the swarm's scheduler and who asks it, its settings, and sets kept as bits."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

# The holder id of the Hub.
HUB = ""


class Result(StrEnum):
    """What became of a piece; the same words as `PieceResult` on the wire."""

    GOT = "got"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    WRONG = "wrong"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Grant:
    """A node is to fetch a piece from a holder.

    A second grant of a piece that the node is still fetching names another holder: the first way
    takes too long, whichever comes first counts. `digest` is empty from the Hub.
    """

    node_id: str
    piece: int
    holder_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """The digests of `pieces` are to be asked of a holder, in this order."""

    holder_id: str
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Accusation:
    """`holder_id` sent wrong bytes, or told a wrong digest, for these pieces."""

    holder_id: str
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Spans are in seconds, speeds in bytes per second."""

    # Of one holder, over all files.
    sends: int = 4
    # Assumed of a holder of whom nothing is known, as long as nothing is known of others.
    speed: float = 50e6
    # Leases from the Hub at a time in a swarm: where it begins, and how far it may grow.
    first_leases: int = 4
    most_leases: int = 64
    # So much of a node's capacity is kept for pieces from holders.
    reserved: int = 2
    # A lease ends after so many times the usual span, but not before the floor.
    lease_factor: float = 6.0
    lease_floor: float = 15.0
    # At the end a lease is given a second time after so many times the usual span.
    double_factor: float = 3.0
    double_floor: float = 2.0
    # A peer's transfer is given up after so many times its expected span, but not before the floor.
    peer_factor: float = 4.0
    peer_floor: float = 3.0
    # How long a pair is left alone after it failed to connect, and after it connected and failed;
    # twice as long each further time.
    unreachable_pause: float = 60.0
    failed_pause: float = 5.0
    longest_pause: float = 1800.0
    # A holder that failed so many takers in a row rests.
    strikes: int = 3
    # A holder that sent wrong bytes in so many files is a source of none for so long.
    accused_files: int = 3
    accused_pause: float = 3600.0
    # How many digests are asked for at once, and how long the next of an answer may take.
    digests_at_once: int = 64
    digest_patience: float = 4.0


def bits(mask: int) -> Iterator[int]:
    """The members of a set, smallest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def any_bit(mask: int, random: Random) -> int:
    """One member of a set that is not empty, spread by chance."""
    start = int(random.random() * mask.bit_length())
    high = mask >> start
    return start + (high & -high).bit_length() - 1


def first_bit(mask: int) -> int:
    """The smallest member of a set that is not empty."""
    return (mask & -mask).bit_length() - 1


def early_bit(mask: int, width: int, random: Random) -> int:
    """One member of a set that is not empty, less than `width` after the first, by chance."""
    return any_bit(mask & ((1 << (first_bit(mask) + width)) - 1), random)
