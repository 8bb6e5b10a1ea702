"""Who fetches which piece from whom: between the nodes' streams and the scheduler of each file."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Protocol

from protos import names, pieces
from router.domain.reach import Reach
from router.domain.swarm import Fleet, Result, Settings
from router.services.swarm.exchange import Exchange
from router.services.swarm.exchanges import Exchanges
from router.services.swarm.peer import Peer
from router.services.swarm.words import Counts, Grants, Join, News, Outcome, Question, WantedFile

_MOST_JOINED = 256  # files that one node fetches at a time
_MOST_CAPACITY = 256  # pieces
_DIGEST_BYTES = 32
_GONE_REMEMBERED = 1000  # nodes: how fast each was, and what was held against it


class Warn(Protocol):
    """Writes a warning into the router's log."""

    def __call__(self, event: str, **fields: object) -> None:
        """Constant text, and fields."""


class Swarms:
    """One exchange for each file at each site, in memory: rebuilt from what the nodes say.

    Safe from any thread; waits for nothing but other calls of its own. What is found for a node
    waits in its outbox until `take`. What a node says counts for that node only, and for the
    session that says it: what a fenced one says changes nothing.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        warn: Warn,
        *,
        random: Random | None = None,
        settings: Settings | None = None,
    ) -> None:
        """`clock` gives seconds that never run backwards."""
        self._clock = clock
        self._warn = warn
        self._lock = threading.Lock()
        self._exchanges = Exchanges(Fleet(random=random or Random(), settings=settings))
        self._peers = self._exchanges.peers
        self._gone: dict[str, None] = {}
        self._results: Counter[str] = Counter({result.value: 0 for result in Result})
        self._wrong_pieces = 0
        self._alarm: float | None = None
        self._on_sooner: Callable[[], object] | None = None

    # Nodes

    def connect(self, node_id: str, session: int, reach: Reach, wake: Callable[[], None]) -> None:
        """A node's stream has begun. `wake` is called when there is something to take: from any
        thread, once until it is taken, and must not block.
        """
        with self._lock:
            older = self._peers.get(node_id)
            if older is not None:
                if older.session > session:
                    return
                self._remove(older)
            self._gone.pop(node_id, None)
            self._peers[node_id] = Peer(node_id, session, reach, wake)

    def disconnect(self, node_id: str, session: int) -> None:
        """The stream has ended: what was granted to the node is free for others at once."""
        with self._lock:
            peer = self._current(node_id, session)
            if peer is not None:
                self._remove(peer)

    def assign(self, node_id: str, site: str, wanted: Mapping[str, WantedFile]) -> None:
        """Where a node belongs, and the files (by SHA-256) that it may join others for.

        What it has joined stays; at another site it goes on there with what it has.
        """
        with self._lock:
            peer = self._peers.get(node_id)
            if peer is None:
                return
            peer.wanted = wanted
            if peer.site != site:
                self._exchanges.move(peer, site, self._clock())
                self._settle()

    def hold(
        self, node_id: str, session: int, files: Mapping[str, int], *, partial: bool = False
    ) -> None:
        """The whole files (SHA-256 to bytes) that a node holds and has verified; with `partial`
        there may be others. A node without addresses serves none of them.
        """
        with self._lock:
            peer = self._current(node_id, session)
            if peer is None or not peer.reach.near:
                return
            gone = [] if partial else [sha256 for sha256 in peer.held if sha256 not in files]
            for sha256 in gone:
                self._exchanges.drop_holding(peer, sha256)
            for sha256, size in files.items():
                if sha256 not in peer.held:
                    self._exchanges.add_holding(peer, sha256, size, self._clock())
            self._settle()

    def holders(self, sha256: str, site: str) -> set[str]:
        """The connected nodes of a site that serve a whole file."""
        with self._lock:
            of_file = self._exchanges.holders(sha256)
            return {node_id for node_id, peer in of_file.items() if peer.site == site}

    # Pieces

    def news(self, node_id: str, session: int, news: News) -> None:
        """Takes in what a node says of a file that it fetches.

        What makes no sense is left out, and logged once for each session and file; a node that may
        not join is told to go on alone.
        """
        with self._lock:
            peer = self._current(node_id, session)
            if peer is None:
                return
            if news.join is not None:
                exchange = self._join(peer, news.sha256, news.join)
            else:
                exchange = self._exchanges.joined(peer, news.sha256)
            if exchange is None:
                if news.join is None and not news.leave and news.sha256 not in peer.held:
                    self._refuse_stranger(peer, news.sha256)
                return
            now = self._clock()
            for outcome in news.outcomes:
                self._take_outcome(peer, exchange, outcome, now)
            if news.leave:
                self._leave(peer, exchange)
            else:
                self._exchanges.allow(exchange, peer, min(max(news.capacity, 0), _MOST_CAPACITY))
            self._settle()

    def digests(
        self,
        node_id: str,
        session: int,
        sha256: str,
        digests: Iterable[tuple[int, bytes]],
        missing: Iterable[int],
    ) -> None:
        """Takes in digests of pieces that a node has; those `missing` it has not."""
        with self._lock:
            peer = self._current(node_id, session)
            exchange = self._exchanges.at(sha256, peer.site) if peer is not None else None
            if peer is None or exchange is None:
                return  # nobody wants them any more
            known = self._checked(peer, sha256, exchange.count, digests)
            lost = {piece for piece in missing if exchange.has_piece(piece)}
            member = exchange.members.get(node_id)
            if member is not None:
                member.have &= ~sum(1 << piece for piece in lost)
            exchange.swarm.take_digests(node_id, known, lost, self._clock())
            self._exchanges.mark(exchange)
            self._settle()

    def take(self, node_id: str, session: int) -> list[Grants | Question]:
        """What a node is to be told now; each is given once."""
        with self._lock:
            peer = self._current(node_id, session)
            return [] if peer is None else peer.take()

    # Time

    def on_sooner(self, call: Callable[[], object]) -> None:
        """`call` is called when `tick` is due sooner than it said: from any thread."""
        with self._lock:
            self._on_sooner = call

    def tick(self) -> float | None:
        """Ends what has lasted too long. Returns when to call again, on the same clock; None: not
        before `on_sooner` is heard.
        """
        with self._lock:
            self._exchanges.wake(self._clock())
            self._settle()
            self._alarm = self._exchanges.next_alarm()
            return self._alarm

    def counts(self) -> Counts:
        """How much there is to do, and was done."""
        with self._lock:
            granted, results = dict(self._exchanges.granted), dict(self._results)
            return Counts(len(self._exchanges), granted, results, self._wrong_pieces)

    # Inside the lock

    def _current(self, node_id: str, session: int) -> Peer | None:
        peer = self._peers.get(node_id)
        return peer if peer is not None and peer.session == session else None

    def _remove(self, peer: Peer) -> None:
        del self._peers[peer.node_id]
        self._exchanges.remove(peer)
        self._settle()
        self._gone[peer.node_id] = None
        while len(self._gone) > _GONE_REMEMBERED:
            forgotten = next(iter(self._gone))
            del self._gone[forgotten]
            self._exchanges.fleet.forget(forgotten)

    def _settle(self) -> None:
        for exchange, accusation in self._exchanges.settle(self._clock()):
            self._wrong_pieces += len(accusation.pieces)
            self._warn(
                "a node gave wrong bytes or a wrong digest of a file: others take it elsewhere",
                node_id=accusation.holder_id,
                file=exchange.file.path,
                sha256=exchange.sha256,
                site=exchange.site,
                pieces=accusation.pieces[:10],
            )
        at = self._exchanges.next_alarm()
        if at is not None and (self._alarm is None or at < self._alarm):
            self._alarm = at
            if self._on_sooner is not None:
                self._on_sooner()

    def _join(self, peer: Peer, sha256: str, join: Join) -> Exchange | None:
        wanted = peer.wanted.get(sha256)
        reason = "no unfinished task of the node has it"
        if wanted is not None:
            reason = self._objection(peer, sha256, wanted, join)
        if wanted is None or reason:
            joined = self._exchanges.joined(peer, sha256)
            if joined is not None:
                self._exchanges.part(peer, joined)
                self._settle()
            self._refuse(peer, sha256, reason)
            self._send_off(peer, sha256)
            return None
        have = int.from_bytes(join.have, "little")
        known = self._checked(peer, sha256, pieces.piece_count(join.size_bytes), join.digests)
        return self._exchanges.enter(peer, sha256, wanted, have, known, self._clock())

    def _objection(self, peer: Peer, sha256: str, wanted: WantedFile, join: Join) -> str:
        """Why a node may not join others for a file of its tasks; empty: it may."""
        exchange = self._exchanges.at(sha256, peer.site)
        size = wanted.size_bytes if exchange is None else exchange.size
        if not wanted.size_bytes == join.size_bytes == size or not size:
            return "it has another size"
        if pieces.piece_bytes(size) != join.piece_bytes:
            return "its pieces have another length"
        if int.from_bytes(join.have, "little") >> pieces.piece_count(size):
            return "it has no such pieces"
        if len(peer.joined) >= _MOST_JOINED and sha256 not in peer.joined:
            return f"the node has joined others for {_MOST_JOINED} files"
        return ""

    def _refuse_stranger(self, peer: Peer, sha256: str) -> None:
        """Once: who was told to go on alone may go on telling what it gets."""
        if self._refuse(peer, sha256, "the node has not joined others for it"):
            self._send_off(peer, sha256)

    def _send_off(self, peer: Peer, sha256: str) -> None:
        """Lets a node go on alone with what it may not share."""
        try:
            names.sha256(sha256)
        except names.InvalidName:
            return
        peer.answer(sha256, alone=True)

    def _leave(self, peer: Peer, exchange: Exchange) -> None:
        """A node that has every piece serves the file from now on; its next inventory lists it."""
        whole = exchange.is_whole(exchange.members[peer.node_id])
        if whole and peer.reach.near:
            size = exchange.size
            self._exchanges.add_holding(peer, exchange.sha256, size, self._clock())
        else:
            self._exchanges.part(peer, exchange)

    def _take_outcome(self, peer: Peer, exchange: Exchange, outcome: Outcome, now: float) -> None:
        if not exchange.has_piece(outcome.piece):
            self._refuse(peer, exchange.sha256, f"it has no piece {outcome.piece}")
            return
        digest = outcome.digest
        if digest and len(digest) != _DIGEST_BYTES:
            self._refuse(peer, exchange.sha256, f"a digest has {len(digest)} bytes")
            digest = b""
        self._results[outcome.result] += 1
        if outcome.result in (Result.FAILED, Result.UNREACHABLE):
            self._note_failure(peer, exchange, outcome)
        if outcome.result is Result.GOT:
            exchange.members[peer.node_id].have |= 1 << outcome.piece
        exchange.swarm.outcome(
            peer.node_id,
            outcome.piece,
            outcome.result,
            outcome.holder_id,
            digest,
            outcome.elapsed,
            now,
        )

    def _note_failure(self, peer: Peer, exchange: Exchange, outcome: Outcome) -> None:
        """Names a node that gives no pieces: once for each file in its session."""
        holder = self._peers.get(outcome.holder_id)
        if holder is not None and holder.failed(exchange.sha256):
            self._warn(
                "a node did not give a piece: others take it elsewhere for a while",
                node_id=holder.node_id,
                result=str(outcome.result),
                told_by=peer.node_id,
                file=exchange.file.path,
                sha256=exchange.sha256,
                site=exchange.site,
            )

    def _checked(
        self, peer: Peer, sha256: str, count: int, digests: Iterable[tuple[int, bytes]]
    ) -> dict[int, bytes]:
        """The digests that can be some of this file's pieces."""
        known: dict[int, bytes] = {}
        for piece, digest in digests:
            if len(digest) == _DIGEST_BYTES and 0 <= piece < count:
                known[piece] = digest
            else:
                self._refuse(peer, sha256, f"{len(digest)} bytes are no digest of piece {piece}")
        return known

    def _refuse(self, peer: Peer, sha256: str, reason: str) -> bool:
        """Leaves something out; whether it is the first of this file in the session."""
        is_first = peer.refused(sha256)
        if is_first:
            self._warn(
                "what a node says of a file to share makes no sense and is left out",
                node_id=peer.node_id,
                sha256=sha256[:64],
                reason=reason,
            )
        return is_first
