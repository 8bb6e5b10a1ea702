"""Pieces on their way from the Hub, and who may have more of them."""

from router.domain.swarm.members import Flight, Member


class Leases:
    """Sets of nodes (by slot) and of pieces are bits. A lease that was given up is none."""

    def __init__(self, reserved: int) -> None:
        self.count = 0
        # The pieces, and the leases of each.
        self.pieces = 0
        self.of: dict[int, list[Flight]] = {}
        # Of each member's capacity, kept for pieces from holders.
        self._reserved = reserved
        self._own: dict[int, int] = {}
        # Members whose further capacity is for pieces from holders.
        self._full = 0
        # Members that the Hub has just failed.
        self._resting = 0
        # Per piece those that are still fetching it though their lease was given up.
        self._overdue: dict[int, int] = {}

    def begin(self, flight: Flight, member: Member) -> None:
        """A member begins to fetch a piece."""
        self.of.setdefault(flight.piece, []).append(flight)
        self.pieces |= 1 << flight.piece
        self.count += 1
        own = self._own.get(member.slot, 0) + 1
        self._own[member.slot] = own
        if own >= max(member.capacity - self._reserved, 1):
            self._full |= 1 << member.slot

    def give_up(self, flight: Flight) -> None:
        """Nobody counts on a lease any more, until `end` the member still works on it."""
        left = self.of[flight.piece]
        left.remove(flight)
        if not left:
            del self.of[flight.piece]
            self.pieces &= ~(1 << flight.piece)
        self.count -= 1
        self._own[flight.taker] -= 1
        self._full &= ~(1 << flight.taker)
        self._overdue[flight.piece] = self._overdue.get(flight.piece, 0) | 1 << flight.taker

    def end(self, flight: Flight) -> None:
        """The member works on a piece, whose lease was given up, no more."""
        left = self._overdue.get(flight.piece, 0) & ~(1 << flight.taker)
        if left:
            self._overdue[flight.piece] = left
        else:
            self._overdue.pop(flight.piece, None)

    def rest(self, slot: int) -> None:
        """A member is to have no lease, until `rested`."""
        self._resting |= 1 << slot

    def rested(self, slot: int) -> None:
        """A member may have leases again."""
        self._resting &= ~(1 << slot)

    def gone(self, slot: int) -> None:
        """A member whose leases have ended is none any more."""
        self.rested(slot)
        self._own.pop(slot, None)

    def open_to(self, members: int) -> int:
        """Those of the members that may have a lease."""
        return members & ~(self._resting | self._full)

    def open_for(self, piece: int, members: int) -> int:
        """Those of the members that may have a lease of this piece."""
        return self.open_to(members) & ~self._overdue.get(piece, 0)
