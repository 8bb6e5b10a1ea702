"""What of the Hub's pieces each member still has to pass on."""

# From so many pieces on members count as equally burdened.
_MOST = 4


class Burdens:
    """A member's burden: pieces that it fetches from the Hub, and those it alone has since then."""

    def __init__(self) -> None:
        # Members by their burden, as bits.
        self.members = [0] * (_MOST + 1)
        self._burden: dict[int, int] = {}
        self._origin: dict[int, int] = {}

    def add(self, slot: int) -> None:
        """A member without a burden."""
        self._burden[slot] = 0
        self.members[0] |= 1 << slot

    def remove(self, slot: int, lackers: list[int]) -> None:
        """A member is gone, and with it pieces that nobody lacks need not be passed on."""
        del self._burden[slot]
        self.members = [those & ~(1 << slot) for those in self.members]
        for piece, origin in list(self._origin.items()):
            if origin == slot or not lackers[piece]:
                self._spread(piece)

    def change(self, slot: int, change: int) -> None:
        """A member has begun or ended a lease."""
        before = self._burden[slot]
        after = before + change
        self._burden[slot] = after
        self.members[min(before, _MOST)] &= ~(1 << slot)
        self.members[min(after, _MOST)] |= 1 << slot

    def arrived(self, piece: int, slot: int, holders: int, *, leased: bool) -> None:
        """A member has a piece now that so many hold; `leased`: it came from the Hub."""
        if holders == 1 and leased and piece not in self._origin:
            self._origin[piece] = slot
            self.change(slot, 1)
        elif holders == 2 and piece in self._origin:
            self._spread(piece)

    def _spread(self, piece: int) -> None:
        origin = self._origin.pop(piece)
        if origin in self._burden:
            self.change(origin, -1)
