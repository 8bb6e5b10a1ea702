"""Who fetches which piece of one file in one site, and from where."""

from collections.abc import Collection, Mapping

from router.domain.swarm.board import Board
from router.domain.swarm.fleet import Fleet
from router.domain.swarm.granting import Granting
from router.domain.swarm.members import Flight
from router.domain.swarm.values import HUB, Accusation, Grant, Result, Settings, Wanted, bits

# From so many holders on that one taker finds wrong, its word is weighed against the others'.
_MOST_FINDS = 4


class Swarm:
    """A pure object: events go in by methods, decisions come out of `decide`; nothing is done.

    `now` is any clock that does not go back, in seconds, the same for all swarms of a fleet. What
    an event makes possible is found by the next `decide`, and by those of `fleet.stirred()`. Not to
    be used from two threads at a time, and neither are two swarms of one fleet. A swarm that
    `is_empty` is to be dropped.
    """

    def __init__(
        self, piece_count: int, piece_bytes: int, fleet: Fleet, *, settings: Settings | None = None
    ) -> None:
        self._board = Board(piece_count, piece_bytes, fleet, settings or fleet.settings)
        self._granting = Granting(self._board)
        self._fleet = fleet
        self._accusations: list[Accusation] = []
        # Per piece and digest: takers that found it wrong, and holders they had it from.
        self._wrong: dict[tuple[int, bytes], dict[int, int]] = {}
        # Per taker: the holders it found wrong, each with the pieces.
        self._finds: dict[int, dict[int, int]] = {}
        self._doubted: set[int] = set()
        # Tellers shunned because another digest was believed, each with the pieces.
        self._outvoted: dict[int, int] = {}

    # Who takes part

    def join(
        self,
        node_id: str,
        have: int,
        digests: Mapping[int, bytes],
        now: float,
        *,
        serves: bool = True,
    ) -> None:
        """A node wants the file, has these pieces (bits), and knows these digests.

        One that does not serve takes from others, and is nobody's source. Whatever was known of it
        in this swarm is replaced; its capacity is 0 until it is set.
        """
        slot = self._fleet.slot(node_id)
        self._board.remove(slot)
        self._board.add_member(slot, have & self._board.pieces.all, now, serves=serves)
        self._tell(slot, digests, whole=False, now=now)

    def offer(self, node_id: str, now: float) -> None:
        """A node holds the whole file, verified, and fetches nothing of it."""
        slot = self._fleet.slot(node_id)
        if not self._board.complete(slot):
            self._board.remove(slot)
            self._board.add_whole(slot, now)
        self._settle(self._board.digests.promote(slot), now)

    def withdraw(self, node_id: str) -> None:
        """A node's stream has ended, or it holds the file no more: no member, and no holder."""
        slot = self._fleet.known(node_id)
        if slot is not None:
            self._board.remove(slot)
            if self.is_empty:
                self._board.close()

    def leave(self, node_id: str, complete: bool, now: float) -> None:
        """A node has the whole file and holds it from now on, or stops."""
        if complete:
            self.offer(node_id, now)
        else:
            self.withdraw(node_id)

    def set_capacity(self, node_id: str, pieces: int) -> None:
        """How many pieces a member can work on at a time, those it was granted included."""
        member = self._board.member(node_id)
        if member is not None:
            member.capacity = max(pieces, 0)
            self._board.weigh(member)

    # What happens

    def take_digests(
        self,
        node_id: str,
        digests: Mapping[int, bytes],
        missing: Collection[int],
        now: float,
    ) -> None:
        """A holder's answer: digests of pieces it has, and pieces that it has not (any more)."""
        slot = self._fleet.known(node_id)
        if slot is None or slot not in self._board.have:
            return
        whole = self._board.is_whole(slot)
        gone = sum(1 << piece for piece in set(missing) if self._board.is_piece(piece))
        self._board.lose(slot, gone)
        self._tell(slot, digests, whole=whole, now=now)
        told = sum(1 << piece for piece in digests if self._board.is_piece(piece))
        self._board.answered(slot, told | gone, now)

    def outcome(
        self,
        node_id: str,
        piece: int,
        result: Result,
        holder_id: str,
        digest: bytes,
        elapsed: float | None,
        now: float,
    ) -> None:
        """What became of a piece at a member, granted or not.

        `holder_id` is where it came from, or should have; `digest` (of a piece GOT from the Hub)
        may be empty; `elapsed` in seconds, None when it was not measured.
        """
        board = self._board
        member = board.member(node_id)
        if member is None or not board.is_piece(piece):
            return
        member.heard = now
        holder = -1 if holder_id == HUB else self._fleet.known(holder_id)
        flight = (
            None if holder is None else board.land(member, piece, holder, got=result is Result.GOT)
        )
        if result is Result.GOT:
            if flight is not None:
                self._measure(flight, elapsed, now)
            board.gain(member, piece, leased=flight is not None and holder == -1)
            if holder == -1:
                self._tell(member.slot, {piece: digest}, whole=False, now=now)
        elif result is Result.RETURNED:
            board.put_off(member, piece, now)
        elif flight is not None:
            if flight.holder == -1:
                board.rest_from_hub(member, now)
            elif result is Result.WRONG:
                self._found_wrong(flight, now)
            else:
                settings = board.settings
                unreachable = result is Result.UNREACHABLE
                pause = settings.unreachable_pause if unreachable else settings.failed_pause
                self._fleet.cut(flight.taker, flight.holder, pause, now)
        board.weigh(member)

    # What follows

    def decide(self, now: float) -> list[Grant]:
        """All that can be granted now. Costs in proportion to what has happened since the last."""
        return self._granting.decide(now)

    def digests_wanted(self, now: float) -> list[Wanted]:
        """Digests to be asked for; each is asked of one holder, once as long as it may answer."""
        return [
            Wanted(self._fleet.name(slot), tuple(pieces)) for slot, pieces in self._board.ask(now)
        ]

    def wake_at(self) -> float | None:
        """When `decide` may find something new though nothing has happened; None: never."""
        times = [
            time for time in (self._board.timers.next(), self._fleet.wake_at()) if time is not None
        ]
        return min(times, default=None)

    def accusations(self) -> list[Accusation]:
        """Holders found out since the last call, for the log and for people."""
        found, self._accusations = self._accusations, []
        return found

    def is_alone(self, node_id: str) -> bool:
        """Whether nobody else of the swarm wants the file or can give of it."""
        return self._board.is_alone(self._fleet.known(node_id))

    @property
    def is_empty(self) -> bool:
        """Whether nobody wants the file or has it."""
        return not self._board.present

    # Truth and lies

    def _measure(self, flight: Flight, elapsed: float | None, now: float) -> None:
        span = now - flight.started if elapsed is None else elapsed
        if flight.holder == -1:
            self._board.line.arrived(span, self._board.leases.count, now)
        else:
            beside = (flight.beside + self._fleet.sends(flight.holder) + 1) / 2
            self._fleet.sent(flight.holder, self._board.piece_bytes, span, beside)
            self._fleet.reached(flight.taker, flight.holder)

    def _tell(self, slot: int, digests: Mapping[int, bytes], *, whole: bool, now: float) -> None:
        have = self._board.have.get(slot, 0)
        sound = {
            piece: digest
            for piece, digest in digests.items()
            if digest and self._board.is_piece(piece) and have >> piece & 1
        }
        self._settle(self._board.digests.tell(slot, sound, whole=whole), now)

    def _settle(self, changed: int, now: float) -> None:
        """Digests of these pieces changed: who told another than the believed one is found out."""
        self._board.settled(changed)
        losers: dict[int, int] = {}
        for piece in bits(changed & self._board.digests.known):
            for slot in self._board.digests.losers(piece):
                losers[slot] = losers.get(slot, 0) | 1 << piece
            for slot in self._board.digests.tellers(piece, self._board.digests.of(piece)):
                if self._outvoted.get(slot, 0) >> piece & 1:
                    self._outvoted[slot] &= ~(1 << piece)
                    self._pardon(slot, piece, now)
        for slot, pieces in losers.items():
            if self._accuse(slot, pieces, now):
                self._outvoted[slot] = self._outvoted.get(slot, 0) | pieces

    def _found_wrong(self, flight: Flight, now: float) -> None:
        """A holder sent other bytes than the digest says: it lies, or who told the digest does.

        The holder, until another taker finds the same digest wrong from another holder. A taker
        that finds many holders wrong whom nobody else does may be wrong itself: from then on its
        word only keeps it away from them.
        """
        board, piece, holder = self._board, flight.piece, flight.holder
        finds = self._finds.setdefault(flight.taker, {})
        finds[holder] = finds.get(holder, 0) | 1 << piece
        if flight.taker in self._doubted:
            self._fleet.cut(flight.taker, holder, board.settings.unreachable_pause, now)
            return
        found = self._wrong.setdefault((piece, flight.digest), {})
        found[holder] = flight.taker
        tellers = board.digests.tellers(piece, flight.digest)
        several = len(found) > 1 and len(set(found.values())) > 1
        if several and set(tellers) - set(found):
            for teller in tellers:
                self._accuse(teller, 1 << piece, now)
            for freed in set(found) - set(tellers):
                self._pardon(freed, piece, now)
        else:
            self._accuse(holder, 1 << piece, now)
        if len(finds) >= _MOST_FINDS:
            self._doubt(flight.taker, finds, now)

    def _doubt(self, taker: int, finds: Mapping[int, int], now: float) -> None:
        """Frees the holders that only this taker found wrong, when all it accused are such."""
        others = {
            holder for found in self._wrong.values() for holder, by in found.items() if by != taker
        }
        if others & set(finds):
            return
        self._doubted.add(taker)
        for holder, pieces in finds.items():
            for piece in bits(pieces):
                self._pardon(holder, piece, now)

    def _pardon(self, slot: int, piece: int, now: float) -> None:
        if self._board.pardon(slot, piece):
            self._settle(self._board.digests.trust(slot), now)

    def _accuse(self, slot: int, pieces: int, now: float) -> bool:
        """A holder is a source no more, and nothing it told is believed. Whether that is news."""
        if not self._board.shun(slot, pieces, now):
            return False
        self._accusations.append(Accusation(self._fleet.name(slot), tuple(bits(pieces))))
        self._settle(self._board.digests.distrust(slot), now)
        return True
