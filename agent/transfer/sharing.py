"""What the transfer engine needs of the other nodes that want or have the same file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.store import Partial
from agent.transfer.pieces import Schedule
from agent.transfer.source import Source


@dataclass(frozen=True, slots=True)
class HubWay:
    """How a file comes from the Hub when nobody shares it.

    `piece_bytes` and `connections` are what `InOrder` needs; `most` is how many reads the source
    bears at once, None: any number.
    """

    source: Source
    piece_bytes: int
    connections: int
    most: int | None = None


class Membership(Schedule, Protocol):
    """A file's place among the nodes that share it, from the first missing byte to the last."""

    def follow(self, wake: Callable[[], None]) -> None:
        """From now on `wake` is called, from any thread, when there may be more to do."""
        ...

    @property
    def givers(self) -> list[str]:
        """The nodes of which this run has pieces."""
        ...

    def leave(self, *, held: bool) -> None:
        """Ends it; `held` when the file is whole, verified and in its place."""
        ...


class Swarm(Protocol):
    """The nodes that share files with this one."""

    def join(self, sha256: str, partial: Partial, hub: HubWay) -> Membership:
        """Begins to share a file that is being fetched; returns at once."""
        ...
