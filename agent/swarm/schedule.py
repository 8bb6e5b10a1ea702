"""Which piece of a shared file is fetched next: by the router's grants, or freely from the Hub."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from agent.store import Partial
from agent.store.spans import Spans
from agent.swarm.lease import HubLease, PeerLease, PieceLease, SpareLease, WrongBytes
from agent.swarm.peer_source import Unreachable
from agent.swarm.standing import Mode, Standing
from agent.swarm.told import Told
from agent.swarm.turns import Turns
from agent.swarm.values import HUB, Grant, News, Patience, Result
from agent.transfer.pieces import AnyOrder, InOrder, Lease
from agent.transfer.sharing import HubWay
from agent.transfer.source import Source
from protos import pieces

_LARGEST_SPARE_BYTES = 32 << 20  # kept in memory, one at a time
_CUT = "others share the file"


class Desk(Protocol):
    """Who carries news to the router. All from any thread."""

    def tell(self) -> None:
        """There is news."""
        ...

    def unanswered(self) -> None:
        """The router did not answer in time."""
        ...

    def ended(self, *, held: bool) -> None:
        """The file is shared no more; `held` when it is whole, verified and in its place."""
        ...


class SharedSchedule:
    """One file among the nodes that share it: a `Membership`. Safe for several threads.

    Whatever the router and the other nodes do, the file arrives as long as the Hub gives it.
    """

    def __init__(
        self,
        partial: Partial,
        hub: HubWay,
        source: Callable[[Grant], Source],
        desk: Desk,
        *,
        node_id: str,
        is_connected: bool,
        is_answering: bool,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` is the file at the holder that a grant names; `node_id` is this node's; `clock`
        is in seconds.

        Not connected, or to a router that does not speak of pieces (`is_answering`): begins with
        the Hub at once.
        """
        self._partial = partial
        self._hub = hub
        self._source = source
        self._desk = desk
        self._patience = patience
        self._clock = clock
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._standing = Standing(
            patience, clock, is_connected=is_connected, is_answering=is_answering
        )
        self._told = Told(partial)
        self._turns = Turns(node_id)
        self._helped_at: float | None = None
        self._givers: set[str] = set()
        self._queue: list[Grant] = []
        self._running: list[PieceLease] = []
        self._free: dict[Lease, InOrder] = {}
        self._order: InOrder | None = None  # of what is free, while nobody shares
        self._busiest = hub.connections

    # For the transfer

    @property
    def parallel(self) -> int | None:
        """See `Schedule`."""
        if not self._hub.source.supports_ranges:
            return 1
        return self._hub.most if self._standing.mode.is_free else None

    @property
    def has_help(self) -> bool:
        """See `Schedule`."""
        with self._lock:
            coming = (*self._queue, *(lease.grant for lease in self._running))
            helped = self._helped_at
            return any(grant.holder != HUB for grant in coming) or (
                helped is not None and self._clock() - helped < self._patience.help
            )

    @property
    def waits_for(self) -> str:
        """See `Schedule`."""
        with self._lock:
            is_idle = not self._running and not self._free
            waits = self._standing.mode is Mode.GRANTED and is_idle
            return "pieces from other nodes" if waits else ""

    def follow(self, wake: Callable[[], None]) -> None:
        """See `Membership`."""
        self._wake = wake

    @property
    def givers(self) -> list[str]:
        """See `Membership`."""
        with self._lock:
            return sorted(self._givers)

    def leave(self, *, held: bool) -> None:
        """See `Membership`."""
        with self._lock:
            self._standing.part()
            self._queue.clear()
        self._desk.ended(held=held)

    def next_piece(self, *, from_hub: bool = True) -> Lease | None:
        """See `Schedule`."""
        with self._lock:
            calls = self._judge()
            lease: Lease | None = self._granted(from_hub)
            if lease is None and from_hub and self._standing.mode.is_free:
                lease = self._freely()
            self._busiest = max(self._busiest, len(self._running) + len(self._free))
            if self._told.is_behind(self._capacity):
                calls.append(self._desk.tell)
        for call in calls:
            call()
        return lease

    def give_back(self, lease: Lease) -> None:
        """See `Schedule`."""
        rivals: list[PieceLease] = []
        with self._lock:
            if isinstance(lease, PieceLease):
                rivals = self._landed(lease)
            else:
                order = self._free.pop(lease)
                if order is self._order:  # what an older one leased is found again when it is due
                    order.give_back(lease)
                self._told.came(lease.start, lease.position)
            is_behind = self._told.is_behind(self._capacity)
        for rival in rivals:
            rival.cancel()
        if is_behind:
            self._desk.tell()

    # For the router's words; in the event loop

    def connected(self) -> None:
        """A session with the router begins: what it granted before counts no more."""
        with self._lock:
            self._standing.connected()
            self._told.forget()
            self._queue.clear()

    def disconnected(self) -> None:
        """The session has ended; what was granted is still fetched."""
        with self._lock:
            self._standing.disconnected()
            self._told.forget()

    def granted(self, grants: Iterable[Grant], *, alone: bool) -> None:
        """The router has said what to fetch, or that nobody shares the file."""
        with self._lock:
            before = self._standing.mode
            self._standing.heard(alone=alone)
            mode = self._standing.mode
            if mode is not before:
                self._order = None
            for grant in grants:
                self._take_in(grant)
            if mode.is_free:
                self._drop_queue()
            elif before.is_free:
                for lease in self._free:
                    self._shorten(lease)
        self._wake()

    @property
    def is_behind(self) -> bool:
        """Whether there is news for the router."""
        with self._lock:
            return self._told.is_behind(self._capacity)

    def news(self) -> News:
        """What the router is to hear now; it counts as told."""
        with self._lock:
            return self._told.take(self._capacity)

    # Inside, under the lock

    @property
    def _capacity(self) -> int:
        """Pieces to work on: what is fetched at once, and some that hide the way to the router."""
        return self._busiest + max(2, self._busiest // 2)

    def _judge(self) -> list[Callable[[], None]]:
        """Follows the clock into another mode; returns what is to be called without the lock."""
        standing = self._standing
        before = standing.mode
        standing.judge(is_busy=bool(self._running or self._free))
        if not self._hub.source.supports_ranges:
            standing.part()
        if standing.mode is before:
            return []
        self._order = None
        self._drop_queue()
        if standing.mode is Mode.APART:
            return [lambda: self._desk.ended(held=False)]
        return [self._desk.unanswered] if standing.is_unanswered else []

    def _drop_queue(self) -> None:
        for grant in self._queue:
            self._told.failed(grant.piece, grant.holder, Result.RETURNED)
        self._queue.clear()

    def _take_in(self, grant: Grant) -> None:
        if grant.holder != HUB:
            self._turns.know(grant.holder)
        if not self._told.knows(grant.piece) or (grant.holder != HUB and not grant.digest):
            self._told.failed(grant.piece, grant.holder, Result.RETURNED)
            return
        way = grant.piece, grant.holder
        if self._told.has(grant.piece):
            self._have_already(grant)
        elif all((one.grant.piece, one.grant.holder) != way for one in self._running):
            # Otherwise a router that begins anew grants what is on its way already.
            self._queue = [one for one in self._queue if (one.piece, one.holder) != way]
            self._queue.append(grant)

    def _have_already(self, grant: Grant) -> None:
        self._told.failed(grant.piece, grant.holder, Result.RETURNED)
        self._told.came(*self._told.span(grant.piece))

    def _shorten(self, lease: Lease) -> None:
        """Ends a free lease early: the router cannot know what it fetches.

        A piece of which more than half is there is brought to its end.
        """
        if lease.position >= lease.end:
            return
        start, end = self._told.span(lease.position // pieces.piece_bytes(self._partial.size))
        if 2 * (lease.position - start) < end - start:
            lease.interrupt.fire(_CUT)
        else:
            lease.end = min(lease.end, end)

    def _granted(self, from_hub: bool) -> PieceLease | None:
        """Starts the best of the grants that can be started.

        One of the Hub's first, for what it brings is new to all; otherwise those of other nodes.
        """
        hub_reads = sum(lease.is_from_hub for lease in self._running)
        is_open = from_hub and (self._hub.most is None or hub_reads < self._hub.most)
        ranked = sorted(self._queue, key=lambda grant: (grant.holder == HUB) != (hub_reads == 0))
        for grant in ranked:
            if grant.holder == HUB and not is_open:
                continue
            if self._told.has(grant.piece):
                self._queue.remove(grant)
                self._have_already(grant)
                continue
            lease = self._started(grant)
            if lease is not None:
                self._queue.remove(grant)
                self._running.append(lease)
                return lease
        return None

    def _started(self, grant: Grant) -> PieceLease | None:
        """A lease for a grant; None when something else is at its bytes that has to end first."""
        span = self._told.span(grant.piece)
        if any(lease.start < span[1] and span[0] < lease.end for lease in self._free):
            return None
        is_hub = grant.holder == HUB
        source = self._hub.source if is_hub else self._source(grant)
        rivals = [lease for lease in self._running if lease.grant.piece == grant.piece]
        if rivals:
            busy = any(isinstance(lease, SpareLease) for lease in self._running)
            if busy or span[1] - span[0] > _LARGEST_SPARE_BYTES:
                return None
            return SpareLease(grant, span, source, rivals, self._patience)
        if is_hub:
            return HubLease(grant, span, self._partial.gaps(*span)[0], source)
        return PeerLease(grant, span, source, self._patience)

    def _landed(self, lease: PieceLease) -> list[PieceLease]:
        """Takes a lease back; returns those that are to be cancelled because its piece is there."""
        self._running.remove(lease)
        grant = lease.grant
        if lease.is_done:
            if not lease.is_from_hub:
                self._helped_at = self._clock()
                self._givers.add(grant.holder)
            self._told.got(grant.piece, grant.holder, lease.digest, lease.seconds)
            for other in [one for one in self._queue if one.piece == grant.piece]:
                self._queue.remove(other)
                self._told.failed(other.piece, other.holder, Result.RETURNED)
            return [other for other in self._running if other.grant.piece == grant.piece]
        if isinstance(lease, HubLease) and lease.failure is None and lease.position == lease.end:
            self._queue.insert(0, grant)  # it was there in parts, and another part is missing
        else:
            self._told.failed(grant.piece, grant.holder, _result(lease))
        return []

    def _freely(self) -> Lease | None:
        """A lease of bytes that nobody here fetches, all of them from the Hub."""
        lease = None if self._order is None else self._order.next_piece()
        if lease is None:
            busy = Spans((one.start, one.end) for one in [*self._running, *self._free])
            rest = [gap for missing in self._partial.missing() for gap in busy.gaps(*missing)]
            if not rest:
                return None
            self._order = self._new_order(rest)
            lease = self._order.next_piece()
        if lease is not None and self._order is not None:
            self._free[lease] = self._order
        return lease

    def _new_order(self, rest: list[tuple[int, int]]) -> InOrder:
        size, hub = self._partial.size, self._hub
        if self._standing.mode is Mode.AWAY:
            length = pieces.piece_bytes(size)
            return AnyOrder(hub.source, rest, size, length, hub.connections, self._turns.of)
        return InOrder(hub.source, rest, size, hub.piece_bytes, hub.connections)


def _result(lease: PieceLease) -> Result:
    """What became of a piece that did not come this way."""
    match lease.failure:
        case None:
            return Result.RETURNED
        case WrongBytes():
            return Result.WRONG
        case Unreachable():
            return Result.UNREACHABLE
        case _:
            return Result.FAILED
