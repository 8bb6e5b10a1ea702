"""One file at one site: the scheduler's swarm with what the router itself must know beside it."""

from protos import pieces
from router.domain.swarm import Fleet, Swarm
from router.services.swarm.peer import Peer
from router.services.swarm.words import WantedFile


class Member:
    """A node that fetches the file."""

    __slots__ = ("alone", "capacity", "have", "peer")

    def __init__(self, peer: Peer, have: int) -> None:
        self.peer = peer
        # Pieces, as bits.
        self.have = have
        self.capacity = 0
        # As it was told last; None: not yet.
        self.alone: bool | None = None


class Exchange:
    """Lasts as long as somebody fetches the file."""

    def __init__(self, sha256: str, site: str, file: WantedFile, fleet: Fleet) -> None:
        self.key = (sha256, site)
        self.sha256 = sha256
        self.site = site
        # Its path is for people: as the first who fetched it calls it.
        self.file = file
        self.size = file.size_bytes
        self.piece_bytes = pieces.piece_bytes(self.size)
        self.count = pieces.piece_count(self.size)
        self.swarm = Swarm(self.count, self.piece_bytes, fleet)
        self.members: dict[str, Member] = {}
        # Who came or went since the nodes were told whether they are alone.
        self.is_changed = True
        # When it is looked at next without being asked; None: never.
        self.alarm: float | None = None

    def has_piece(self, piece: int) -> bool:
        """Whether the file has a piece of this number."""
        return 0 <= piece < self.count

    def is_whole(self, member: Member) -> bool:
        """Whether a member has every piece."""
        return member.have == (1 << self.count) - 1

    def told_alone(self) -> list[Member]:
        """The members that are to be told anew whether they are alone."""
        if not self.is_changed:
            return []
        self.is_changed = False
        changed = []
        for node_id, member in self.members.items():
            alone = self.swarm.is_alone(node_id)
            if alone != member.alone:
                member.alone = alone
                changed.append(member)
        return changed
