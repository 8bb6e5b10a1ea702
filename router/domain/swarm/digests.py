"""Which digest of a piece is believed, and who told it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.swarm.values import bits


@dataclass(slots=True)
class _Told:
    """What was told about one piece: slot of the teller to digest, those of whole files apart."""

    whole: dict[int, bytes] = field(default_factory=dict)
    fetched: dict[int, bytes] = field(default_factory=dict)


class Digests:
    """Of the pieces of one file.

    A digest by who holds the whole, verified file outranks those by who fetched the piece from the
    Hub. Tellers of equal rank that differ make a piece contested, until a majority of at least two
    says the same; as long as it is contested nothing is believed.
    """

    def __init__(self, piece_count: int) -> None:
        self._told: dict[int, _Told] = {}
        self._believed: list[bytes] = [b""] * piece_count
        self._told_by: dict[int, int] = {}
        self._distrusted = 0
        # The pieces with a digest, and those with too many, as bits.
        self.known = 0
        self.contested = 0

    def of(self, piece: int) -> bytes:
        """The digest that is believed; empty: none."""
        return self._believed[piece]

    def tell(self, teller: int, digests: Mapping[int, bytes], *, whole: bool) -> int:
        """Takes in what a node says. Returns the pieces whose state has changed, as bits."""
        changed = 0
        for piece, digest in digests.items():
            told = self._told.setdefault(piece, _Told())
            rank, other = (told.whole, told.fetched) if whole else (told.fetched, told.whole)
            if rank.get(teller) == digest and teller not in other:
                continue
            other.pop(teller, None)
            rank[teller] = digest
            self._told_by[teller] = self._told_by.get(teller, 0) | 1 << piece
            changed |= self._settle(piece)
        return changed

    def tellers(self, piece: int, digest: bytes) -> list[int]:
        """Who told this digest."""
        told = self._told.get(piece)
        if told is None:
            return []
        return [
            slot for rank in (told.whole, told.fetched) for slot in rank if rank[slot] == digest
        ]

    def told_by(self, teller: int) -> int:
        """The pieces of which a node has told a digest, as bits."""
        return self._told_by.get(teller, 0)

    def losers(self, piece: int) -> list[int]:
        """Who told another digest than the believed one."""
        told, believed = self._told.get(piece), self._believed[piece]
        if told is None or not believed:
            return []
        return [
            slot
            for rank in (told.whole, told.fetched)
            for slot, digest in rank.items()
            if digest != believed
        ]

    def distrust(self, teller: int) -> int:
        """Believes nothing that a node says or said. Returns the changed pieces, as bits."""
        self._distrusted |= 1 << teller
        return self._settle_told_by(teller)

    def trust(self, teller: int) -> int:
        """Takes `distrust` back."""
        self._distrusted &= ~(1 << teller)
        return self._settle_told_by(teller)

    def promote(self, teller: int) -> int:
        """A node has verified the whole file. Returns the changed pieces, as bits."""
        changed = 0
        for piece in bits(self.told_by(teller)):
            told = self._told[piece]
            digest = told.fetched.pop(teller, b"")
            if digest:
                told.whole[teller] = digest
                changed |= self._settle(piece)
        return changed

    def _settle_told_by(self, teller: int) -> int:
        changed = 0
        for piece in bits(self.told_by(teller)):
            changed |= self._settle(piece)
        return changed

    def _settle(self, piece: int) -> int:
        before = (self._believed[piece], self.contested >> piece & 1)
        believed, contested = self._judge(self._told[piece])
        bit = 1 << piece
        self._believed[piece] = believed
        self.known = self.known | bit if believed else self.known & ~bit
        self.contested = self.contested | bit if contested else self.contested & ~bit
        return bit if before != (believed, int(contested)) else 0

    def _judge(self, told: _Told) -> tuple[bytes, bool]:
        for rank in (told.whole, told.fetched):
            votes: dict[bytes, int] = {}
            for slot, digest in rank.items():
                if not self._distrusted >> slot & 1:
                    votes[digest] = votes.get(digest, 0) + 1
            if len(votes) == 1:
                return next(iter(votes)), False
            if votes:
                first, second = sorted(votes, key=lambda digest: -votes[digest])[:2]
                if votes[first] > votes[second]:
                    return first, False
                return b"", True
        return b"", False
