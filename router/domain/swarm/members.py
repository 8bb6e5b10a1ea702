"""A node that wants a file, and what it has been told to fetch."""


class Flight:
    """One piece on its way to a taker; `holder` is -1 for the Hub."""

    __slots__ = (
        "active",
        "beside",
        "digest",
        "ended",
        "holder",
        "patience",
        "piece",
        "sending",
        "started",
        "taker",
    )

    def __init__(
        self, taker: int, piece: int, holder: int, digest: bytes, started: float, beside: int
    ) -> None:
        self.taker = taker
        self.piece = piece
        self.holder = holder
        # What the piece must be; empty from the Hub.
        self.digest = digest
        self.started = started
        # Sends of the holder at the start, this one counted.
        self.beside = beside
        # Seconds after which it is given up.
        self.patience = 0.0
        # Not given up: the piece is given to nobody else meanwhile.
        self.active = True
        # The holder is thought to be busy with it.
        self.sending = holder != -1
        # The outcome is known, or nobody will tell it.
        self.ended = False


class Member:
    """Sets of pieces are bits."""

    __slots__ = (
        "capacity",
        "flights",
        "have",
        "heard",
        "hub_failures",
        "lack",
        "next_look",
        "slot",
    )

    def __init__(self, slot: int, have: int, lack: int) -> None:
        self.slot = slot
        self.have = have
        # Neither there nor on the way.
        self.lack = lack
        self.capacity = 0
        # By piece and holder, those given up included: the node still works on them.
        self.flights: dict[tuple[int, int], Flight] = {}
        # When it last said what became of a piece.
        self.heard = 0.0
        # Pieces in a row that the Hub did not bring.
        self.hub_failures = 0
        # When it is looked for pieces again that no holder it can reach has.
        self.next_look = 0.0

    @property
    def is_hungry(self) -> bool:
        """Whether it could work on a piece more."""
        return self.lack != 0 and len(self.flights) < self.capacity

    def fetches(self, piece: int) -> bool:
        """Whether a piece is on its way and not given up."""
        return any(flight.active for (number, _), flight in self.flights.items() if number == piece)
