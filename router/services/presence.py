"""Which nodes are connected now, and what they hold. In memory: sessions rebuild it."""

import threading
from datetime import datetime

from router.domain.nodes import Inventory
from router.domain.reach import Reach


class Presence:
    """Who is here. Safe from any thread."""

    def __init__(self) -> None:
        """Nobody is here yet."""
        self._lock = threading.Lock()
        self._sessions: dict[str, int] = {}
        self._reach: dict[str, Reach] = {}
        self._inventories: dict[str, Inventory] = {}
        self._heard_at: dict[str, datetime] = {}
        self._last = 0

    def arrive(self, node_id: str, reach: Reach) -> int:
        """The node's new session number, larger than every one before; it fences older ones."""
        with self._lock:
            self._last += 1
            self._reach[node_id] = reach
            self._sessions[node_id] = self._last
            return self._last

    def leave(self, node_id: str, session: int) -> bool:
        """The session is over; whether the node is gone with it (no newer session)."""
        with self._lock:
            if self._sessions.get(node_id) != session:
                return False
            del self._sessions[node_id]
            self._reach.pop(node_id, None)
            self._inventories.pop(node_id, None)
            self._heard_at.pop(node_id, None)
            return True

    def current(self, node_id: str, session: int) -> bool:
        """Whether no newer session has come for the node."""
        return self._sessions.get(node_id) == session

    def hear(self, node_id: str, moment: datetime) -> None:
        """Notes that a connected node has just said something."""
        if node_id in self._sessions:
            self._heard_at[node_id] = moment

    def heard_at(self, node_id: str) -> datetime | None:
        """When a connected node last said something after its hello."""
        return self._heard_at.get(node_id)

    def addresses(self, node_id: str) -> tuple[str, ...]:
        """Where a connected node serves pieces, the likeliest first; none for any other."""
        reach = self._reach.get(node_id)
        return reach.near if reach is not None else ()

    def reach(self, node_id: str) -> Reach:
        """How a connected node is reached; of any other, that it is not."""
        return self._reach.get(node_id, Reach())

    def online(self, node_id: str) -> bool:
        """Whether the node is connected."""
        return node_id in self._sessions

    def count(self) -> int:
        """Number of connected nodes."""
        return len(self._sessions)

    def hold(self, node_id: str, inventory: Inventory) -> None:
        """Notes what a connected node holds."""
        with self._lock:
            if node_id in self._sessions:
                self._inventories[node_id] = inventory

    def inventory(self, node_id: str) -> Inventory | None:
        """What a connected node holds, if it has said so."""
        return self._inventories.get(node_id)

    def inventories(self) -> dict[str, Inventory]:
        """What every connected node holds."""
        with self._lock:
            return dict(self._inventories)
