"""All exchanges of a router: who takes part in which, and what follows from it for the nodes."""

import heapq
from collections import Counter
from collections.abc import Mapping

from router.domain.swarm import HUB, Accusation, Fleet, Grant, Result
from router.services.swarm.exchange import Exchange, Member
from router.services.swarm.peer import Peer
from router.services.swarm.words import GrantedPiece, WantedFile


class Exchanges:
    """Not safe from several threads: `Swarms` holds a lock.

    Whatever changes an exchange marks it; `settle` then finds what that makes possible, puts it
    into the nodes' outboxes, and returns who was accused of what.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.peers: dict[str, Peer] = {}
        self.granted: Counter[str] = Counter(hub=0, peer=0)
        self._exchanges: dict[tuple[str, str], Exchange] = {}
        self._by_swarm: dict[int, Exchange] = {}
        self._holders: dict[str, dict[str, Peer]] = {}
        self._marked: dict[tuple[str, str], Exchange] = {}
        # (moment, number, exchange); an exchange may have entries that count no more.
        self._alarms: list[tuple[float, int, Exchange]] = []
        self._alarms_set = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._exchanges)

    def at(self, sha256: str, site: str | None) -> Exchange | None:
        """Where nodes of a site share a file, if any of them fetches it."""
        return None if site is None else self._exchanges.get((sha256, site))

    def joined(self, peer: Peer, sha256: str) -> Exchange | None:
        """Where a node fetches a file together with others of its site."""
        exchange = self.at(sha256, peer.site)
        return exchange if exchange is not None and peer.node_id in exchange.members else None

    def holders(self, sha256: str) -> Mapping[str, Peer]:
        """The nodes that serve a whole file, at any site."""
        return self._holders.get(sha256, {})

    # Who takes part

    def enter(
        self,
        peer: Peer,
        sha256: str,
        file: WantedFile,
        have: int,
        digests: Mapping[int, bytes],
        now: float,
    ) -> Exchange:
        """A node fetches a file; `have` are its pieces, as bits. What it said before is void."""
        assert peer.site is not None
        exchange = self._exchanges.get((sha256, peer.site))
        if exchange is None:
            exchange = Exchange(sha256, peer.site, file, self.fleet)
            self._exchanges[exchange.key] = self._by_swarm[id(exchange.swarm)] = exchange
            for holder in self.holders(sha256).values():
                if holder.site == peer.site and holder.held[sha256] == exchange.size:
                    exchange.swarm.offer(holder.node_id, now)
        exchange.members[peer.node_id] = Member(peer, have)
        peer.joined.add(sha256)
        serves = bool(peer.reach.near)
        exchange.swarm.join(peer.node_id, have, digests, now, serves=serves)
        self.mark(exchange, changed=True)
        return exchange

    def part(self, peer: Peer, exchange: Exchange) -> None:
        """A node fetches a file no more; what it was granted is free for others."""
        del exchange.members[peer.node_id]
        peer.joined.discard(exchange.sha256)
        peer.drop(exchange.sha256)
        exchange.swarm.withdraw(peer.node_id)
        if exchange.members:
            self.mark(exchange, changed=True)
            return
        for holder in self.holders(exchange.sha256).values():
            exchange.swarm.withdraw(holder.node_id)
        del self._exchanges[exchange.key], self._by_swarm[id(exchange.swarm)]
        self._marked.pop(exchange.key, None)

    def add_holding(self, peer: Peer, sha256: str, size: int, now: float) -> None:
        """A node serves a whole file from now on, and fetches nothing of it."""
        exchange = self.joined(peer, sha256)
        if exchange is not None:
            self.part(peer, exchange)
        peer.held[sha256] = size
        self._holders.setdefault(sha256, {})[peer.node_id] = peer
        exchange = self.at(sha256, peer.site)
        if exchange is not None and exchange.size == size:
            exchange.swarm.offer(peer.node_id, now)
            self.mark(exchange, changed=True)

    def drop_holding(self, peer: Peer, sha256: str) -> None:
        """A node holds a file no more."""
        del peer.held[sha256]
        of_file = self._holders[sha256]
        del of_file[peer.node_id]
        if not of_file:
            del self._holders[sha256]
        exchange = self.at(sha256, peer.site)
        if exchange is not None and peer.node_id not in exchange.members:
            exchange.swarm.withdraw(peer.node_id)
            self.mark(exchange, changed=True)

    def remove(self, peer: Peer) -> None:
        """A node's stream has ended."""
        for sha256 in list(peer.held):
            self.drop_holding(peer, sha256)
        for exchange in self._joined_by(peer):
            self.part(peer, exchange)

    def move(self, peer: Peer, site: str, now: float) -> None:
        """A node is at another site: it shares there what it fetches and holds, with all it has."""
        fetched = [(it, it.members[peer.node_id]) for it in self._joined_by(peer)]
        held = dict(peer.held)
        self.remove(peer)
        peer.site = site
        for sha256, size in held.items():
            self.add_holding(peer, sha256, size, now)
        for before, member in fetched:
            exchange = self.enter(peer, before.sha256, before.file, member.have, {}, now)
            self.allow(exchange, peer, member.capacity)

    def _joined_by(self, peer: Peer) -> list[Exchange]:
        return [self._exchanges[sha256, peer.site or ""] for sha256 in peer.joined]

    def allow(self, exchange: Exchange, peer: Peer, capacity: int) -> None:
        """How many pieces a member can work on at a time."""
        exchange.members[peer.node_id].capacity = capacity
        exchange.swarm.set_capacity(peer.node_id, capacity)
        self.mark(exchange)

    # What follows

    def mark(self, exchange: Exchange, *, changed: bool = False) -> None:
        """Something happened there; with `changed` somebody came or went."""
        exchange.is_changed |= changed
        self._marked[exchange.key] = exchange

    def wake(self, now: float) -> None:
        """Marks what is due by its alarm."""
        self.fleet.advance(now)
        while self._alarms and self._alarms[0][0] <= now:
            exchange = heapq.heappop(self._alarms)[2]
            exchange.alarm = None
            if self._exchanges.get(exchange.key) is exchange:
                self.mark(exchange)

    def next_alarm(self) -> float | None:
        """When `wake` is due."""
        return self._alarms[0][0] if self._alarms else None

    def settle(self, now: float) -> list[tuple[Exchange, Accusation]]:
        """Finds what has become possible in the marked exchanges; who was found out."""
        found = []
        while self._marked:
            _, exchange = self._marked.popitem()
            accusations = exchange.swarm.accusations()
            exchange.is_changed |= bool(accusations)  # who is found out gives nothing any more
            found += [(exchange, accusation) for accusation in accusations]
            self._decide(exchange, now)
            for listener in self.fleet.stirred():
                stirred = self._by_swarm.get(id(listener))
                if stirred is not None:
                    self.mark(stirred)
        return found

    def _decide(self, exchange: Exchange, now: float) -> None:
        unheard: dict[str, Member] = {}
        swarm = exchange.swarm
        while grants := swarm.decide(now):
            refused = [grant for grant in grants if not self._grant(exchange, grant, unheard)]
            for grant in refused:
                swarm.outcome(
                    grant.node_id,
                    grant.piece,
                    Result.UNREACHABLE,
                    grant.holder_id,
                    b"",
                    None,
                    now,
                )
            if not refused:
                break
        for member in exchange.told_alone():
            unheard[member.peer.node_id] = member
        for member in unheard.values():
            member.peer.answer(exchange.sha256, alone=bool(member.alone))
        for wanted in swarm.digests_wanted(now):
            holder = self.peers.get(wanted.holder_id)
            if holder is not None:
                holder.ask(exchange.sha256, exchange.size, exchange.piece_bytes, wanted.pieces)
        at = swarm.wake_at()
        if at is not None and (exchange.alarm is None or at < exchange.alarm):
            exchange.alarm = at
            self._alarms_set += 1
            heapq.heappush(self._alarms, (at, self._alarms_set, exchange))

    def _grant(self, exchange: Exchange, grant: Grant, unheard: dict[str, Member]) -> bool:
        """Puts a grant into the node's outbox; False when its holder serves nowhere."""
        member = exchange.members.get(grant.node_id)
        if member is None:
            return True
        addresses: tuple[str, ...] = ()
        if grant.holder_id != HUB:
            holder = self.peers.get(grant.holder_id)
            addresses = holder.reach.addresses_for(member.peer.reach) if holder is not None else ()
            if not addresses:
                return False
        self.granted["hub" if grant.holder_id == HUB else "peer"] += 1
        member.peer.grant(
            exchange.sha256, GrantedPiece(grant.piece, grant.holder_id, addresses, grant.digest)
        )
        unheard[grant.node_id] = member
        return True
