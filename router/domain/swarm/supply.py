"""Which pieces no holder is to send now, and which are on their way to a new holder."""


class Supply:
    """Keeps decisions from looking again and again at pieces that cannot be had; sets are bits."""

    def __init__(self) -> None:
        # All their holders send as much as they may, or the piece comes sooner another way.
        self.exhausted = 0
        # Those of them that are not because of one holder that can send again; each is in one set.
        self._reopened: dict[int, int] = {}
        self._in_reopened = 0
        # When the first of the transfers of a piece is thought to be done.
        self._coming: dict[int, float] = {}

    def free(self, slot: int, have: int) -> None:
        """A holder can send again."""
        opened = self.exhausted & have
        self.open(have)
        if opened:
            self._reopened[slot] = self._reopened.get(slot, 0) | opened
            self._in_reopened |= opened

    def full(self, slot: int, have_alone: int) -> None:
        """A holder sends as much as it may; it alone has these pieces."""
        self.exhausted |= have_alone | self._take_reopened(slot)

    def open(self, pieces: int) -> None:
        """These pieces are to be looked at again."""
        self.exhausted &= ~pieces
        if not self._in_reopened & pieces:
            return
        self._in_reopened &= ~pieces
        for slot, reopened in list(self._reopened.items()):
            if reopened & ~pieces:
                self._reopened[slot] = reopened & ~pieces
            else:
                del self._reopened[slot]

    def gone(self, slot: int) -> None:
        """A holder is none any more."""
        self._take_reopened(slot)

    def _take_reopened(self, slot: int) -> int:
        reopened = self._reopened.pop(slot, 0)
        self._in_reopened &= ~reopened
        return reopened

    def coming(self, piece: int) -> float:
        """When a piece is thought to be at a new holder; 0: none is getting it."""
        return self._coming.get(piece, 0.0)

    def expect(self, piece: int, done: float, now: float) -> None:
        """A transfer of a piece has begun."""
        known = self._coming.get(piece, 0.0)
        if known <= now or done < known:
            self._coming[piece] = done

    def expect_no_more(self, piece: int) -> bool:
        """The transfer has ended, one way or the other. Whether it was expected."""
        return self._coming.pop(piece, None) is not None
