"""Who has and who lacks each piece of one file; sets of nodes and of pieces are bits."""

from collections.abc import Iterator

from router.domain.swarm.values import bits


class Pieces:
    """Pieces are sorted by how many hold them, in classes 0, 1, 2–3, 4–7, …: close enough to the
    rarest first, and the class changes seldom.
    """

    def __init__(self, count: int) -> None:
        self.all = (1 << count) - 1
        self.holders = [0] * count
        # Who lacks a piece and is not fetching it.
        self.lackers = [0] * count
        # The pieces that somebody lacks.
        self.live = 0
        self._counts = [0] * count
        self._classes = [self.all, 0]

    @property
    def unheld(self) -> int:
        """The pieces that nobody has."""
        return self._classes[0]

    @property
    def held_once(self) -> int:
        """The pieces that one node has."""
        return self._classes[1]

    def count(self, piece: int) -> int:
        """How many have a piece."""
        return self._counts[piece]

    def by_rarity(self, pieces: int) -> Iterator[int]:
        """Splits a set of held pieces into classes, the rarest first."""
        for held in self._classes[1:]:
            fitting = held & pieces
            if fitting:
                yield fitting

    def hold(self, pieces: int, slot: int) -> None:
        """A node has these pieces, which it had not."""
        for piece in bits(pieces):
            self.holders[piece] |= 1 << slot
            self._recount(piece, 1)

    def drop(self, pieces: int, slot: int) -> None:
        """A node has these pieces no more."""
        for piece in bits(pieces):
            self.holders[piece] &= ~(1 << slot)
            self._recount(piece, -1)

    def lack(self, pieces: int, slot: int) -> None:
        """A node lacks these pieces and is not fetching them."""
        self.live |= pieces
        for piece in bits(pieces):
            self.lackers[piece] |= 1 << slot

    def unlack(self, pieces: int, slot: int) -> None:
        """A node has these pieces, or fetches them, or wants them no more."""
        for piece in bits(pieces):
            rest = self.lackers[piece] & ~(1 << slot)
            self.lackers[piece] = rest
            if not rest:
                self.live &= ~(1 << piece)

    def _recount(self, piece: int, change: int) -> None:
        before = self._counts[piece]
        after = before + change
        self._counts[piece] = after
        old, new = before.bit_length(), after.bit_length()
        if old != new:
            if new == len(self._classes):
                self._classes.append(0)
            self._classes[old] ^= 1 << piece
            self._classes[new] ^= 1 << piece
