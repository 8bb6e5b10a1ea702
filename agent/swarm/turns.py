"""How nodes that cannot ask the router share the work: each piece is one node's before others'."""

import hashlib

_MOST_KNOWN = 32  # other nodes; more would cost more time than they save


class Turns:
    """Which of the nodes that are known to share a file is to fetch a piece first.

    All that know the same nodes come to the same order, without a word (rendezvous hashing). Not
    safe for several threads.
    """

    def __init__(self, own: str) -> None:
        """`own` is this node's id."""
        self._own = own
        self._others: dict[str, None] = {}

    def know(self, node_id: str) -> None:
        """Another node shares the file."""
        if node_id != self._own and len(self._others) < _MOST_KNOWN:
            self._others[node_id] = None

    def of(self, piece: int) -> int:
        """How many of the others fetch a piece before this node does."""
        own = _weight(self._own, piece)
        return sum(_weight(other, piece) > own for other in self._others)


def _weight(node_id: str, piece: int) -> bytes:
    return hashlib.blake2b(f"{node_id} {piece}".encode(), digest_size=8).digest()
