"""Where bytes came from: the words in which the agent accounts for every byte on its disk."""

from dataclasses import dataclass
from enum import StrEnum


class Origin(StrEnum):
    """The kind of a source."""

    HUB = "hub"
    PEER = "peer"
    ROUTER = "router"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class BytesFrom:
    """Bytes by the kind of source that gave them."""

    hub: int = 0
    peers: int = 0
    router: int = 0
    disk: int = 0

    @property
    def total(self) -> int:
        """All bytes, wherever they came from."""
        return self.hub + self.peers + self.router + self.disk

    def plus(self, origin: Origin, count: int) -> "BytesFrom":
        """The same account with `count` more bytes from `origin`."""
        return BytesFrom(
            hub=self.hub + (count if origin is Origin.HUB else 0),
            peers=self.peers + (count if origin is Origin.PEER else 0),
            router=self.router + (count if origin is Origin.ROUTER else 0),
            disk=self.disk + (count if origin is Origin.DISK else 0),
        )

    def __add__(self, other: "BytesFrom") -> "BytesFrom":
        return BytesFrom(
            self.hub + other.hub,
            self.peers + other.peers,
            self.router + other.router,
            self.disk + other.disk,
        )
