"""Who decides what is fetched next: the router, or this node by itself."""

from collections.abc import Callable
from enum import Enum

from agent.swarm.values import Patience


class Mode(Enum):
    """Who decides what is fetched next."""

    ASKING = "nobody: the router was asked, and nothing has begun"
    GRANTED = "the router: others share the file"
    ALONE = "this node, in order: nobody shares the file"
    AWAY = "this node, by turns: the router is away or silent"
    APART = "this node, in order: it shares the file no more"

    @property
    def is_free(self) -> bool:
        """Whether this node decides."""
        return self in (Mode.ALONE, Mode.AWAY, Mode.APART)


class Standing:
    """How this node stands with the router over one file. Not safe for several threads."""

    def __init__(
        self,
        patience: Patience,
        clock: Callable[[], float],
        *,
        is_connected: bool,
        is_answering: bool,
    ) -> None:
        """Begins asking, or, where nobody would answer, freely; `clock` is in seconds."""
        self._patience = patience
        self._clock = clock
        self.mode = Mode.ASKING if is_connected and is_answering else Mode.AWAY
        self.is_unanswered = False  # it went on because the router did not answer
        self._lost_at = None if is_connected else clock()
        self._quiet_since = clock()

    def connected(self) -> None:
        """A session with the router begins."""
        self._lost_at = None
        self._quiet_since = self._clock()

    def disconnected(self) -> None:
        """The session has ended."""
        self._lost_at = self._clock()

    def heard(self, *, alone: bool) -> None:
        """The router has spoken of the file."""
        self._quiet_since = self._clock()
        self.is_unanswered = False
        if self.mode is not Mode.APART:
            self.mode = Mode.ALONE if alone else Mode.GRANTED

    def part(self) -> None:
        """The file is shared no more, for good."""
        self.mode = Mode.APART

    def judge(self, *, is_busy: bool) -> None:
        """Follows the clock; `is_busy` when something is being fetched."""
        now, patience = self._clock(), self._patience
        if is_busy:
            self._quiet_since = now
        quiet = now - self._quiet_since
        if self.mode is Mode.ASKING:
            if self._lost_at is not None or quiet >= patience.answer:
                self.is_unanswered = self._lost_at is None
                self.mode = Mode.AWAY
        elif self.mode is Mode.GRANTED:
            gone = self._lost_at is not None and now - self._lost_at >= patience.away
            if gone or (self._lost_at is None and quiet >= patience.silence):
                self.mode = Mode.AWAY
