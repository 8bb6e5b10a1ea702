"""The state of one swarm, and the steps that keep its parts in agreement."""

from router.domain.swarm.asking import Asking
from router.domain.swarm.burdens import Burdens
from router.domain.swarm.digests import Digests
from router.domain.swarm.fleet import Fleet
from router.domain.swarm.leases import Leases
from router.domain.swarm.line import Line
from router.domain.swarm.members import Flight, Member
from router.domain.swarm.pieces import Pieces
from router.domain.swarm.supply import Supply
from router.domain.swarm.timers import Timers
from router.domain.swarm.values import Settings, bits

# A piece that a node gave back, or a Hub that failed it, is left alone for so many seconds.
_PUT_OFF = 30.0
_HUB_REST, _LONGEST_HUB_REST = 1.0, 60.0
# Members that fetch so many pieces or more count as equally busy.
_MOST_FETCHING = 16


class Board:
    """Sets of nodes (by slot) and of pieces are bits."""

    def __init__(
        self, piece_count: int, piece_bytes: int, fleet: Fleet, settings: Settings
    ) -> None:
        self.piece_bytes = piece_bytes
        self.piece_count = piece_count
        self.settings = settings
        self.fleet = fleet
        self.random = fleet.random
        self._number = fleet.new_file()
        self.pieces = Pieces(piece_count)
        self.digests = Digests(piece_count)
        self.asking = Asking(settings)
        self.line = Line(settings)
        self.members: dict[int, Member] = {}
        # What each node has that takes part.
        self.have: dict[int, int] = {}
        self.present = 0
        self._members = 0
        # Those that want nothing, and those that have verified the whole file.
        self._offers = 0
        self._wholes = 0
        # Holders that lied, each with the pieces it was about, and members that serve nothing.
        self._shunned: dict[int, int] = {}
        self.shunned = 0
        self._mute = 0
        # Members that could work on a piece more.
        self.hungry = 0
        # Members by how many pieces they are fetching.
        self.fetching: list[int] = [0] * (_MOST_FETCHING + 1)
        # What has to be looked at again.
        self.stirred_takers = 0
        self.stirred_holders = 0
        self.stirred_pieces = 0
        self.supply = Supply()
        self.leases = Leases(settings.reserved)
        # Pieces that are looked at again at a moment.
        self._looks: set[int] = set()
        self.burdens = Burdens()
        self._sending: dict[int, set[Flight]] = {}
        self.timers = Timers()
        self._attached: set[int] = set()

    # Who takes part

    def is_piece(self, piece: int) -> bool:
        """Whether the file has such a piece."""
        return 0 <= piece < self.piece_count

    def member(self, node_id: str) -> Member | None:
        """The member of this id."""
        slot = self.fleet.known(node_id)
        return None if slot is None else self.members.get(slot)

    def is_whole(self, slot: int) -> bool:
        """Whether the node has verified the whole file."""
        return bool(self._wholes >> slot & 1)

    def is_alone(self, slot: int | None) -> bool:
        """Whether no other node wants the file or can give of it."""
        others = self._members | self._offers & ~self.shunned
        if slot is not None:
            others &= ~(1 << slot)
            if self._mute >> slot & 1:
                others &= ~self._mute
        return not others

    def add_member(self, slot: int, have: int, now: float, *, serves: bool) -> None:
        """A node that does not take part begins to, with capacity 0."""
        if not serves:
            self._mute |= 1 << slot
            self._shunned.setdefault(slot, 0)
            self.shunned |= 1 << slot
        elif self._mute >> slot & 1:
            self._mute &= ~(1 << slot)
            self.pardon(slot, 0)
        member = Member(slot, have, self.pieces.all & ~have)
        self.members[slot] = member
        self._members |= 1 << slot
        self.burdens.add(slot)
        self.fetching[0] |= 1 << slot
        self.pieces.lack(member.lack, slot)
        self._add(slot, have, now)
        self.stirred_takers |= self._members

    def complete(self, slot: int) -> bool:
        """A member becomes a holder of the whole file. False: it lacked something, or is none."""
        member = self.members.get(slot)
        if member is None or member.have != self.pieces.all:
            return False
        self._end_membership(member)
        self._offers |= 1 << slot
        self._wholes |= 1 << slot
        return True

    def add_whole(self, slot: int, now: float) -> None:
        """A node that does not take part begins to, as a holder of the whole file."""
        self._offers |= 1 << slot
        self._wholes |= 1 << slot
        self._add(slot, self.pieces.all, now)
        self.stirred_takers |= self._members

    def _add(self, slot: int, have: int, now: float) -> None:
        if slot not in self._attached:
            self._attached.add(slot)
            self.fleet.attach(slot, self)
            if self.fleet.is_banned(slot, now):
                self._shunned[slot] = 0
                self.shunned |= 1 << slot
                self.digests.distrust(slot)
        self.present |= 1 << slot
        self.have[slot] = have
        self.asking.due = True
        if slot not in self._shunned:
            self.pieces.hold(have, slot)
            self.holder_free(slot)

    def remove(self, slot: int) -> None:
        """A node takes part no more. What it was to fetch, and to send, is free."""
        if not self.present >> slot & 1:
            return
        member = self.members.get(slot)
        if member is not None:
            self._end_membership(member)
        self.present &= ~(1 << slot)
        self._offers &= ~(1 << slot)
        self._wholes &= ~(1 << slot)
        have = self.have.pop(slot)
        if slot not in self._shunned:
            self.pieces.drop(have, slot)
        for flight in list(self._sending.get(slot, ())):
            self._abandon(flight)
        self.supply.gone(slot)
        self.asking.gone(slot)
        self.stirred_takers |= self._members

    def _end_membership(self, member: Member) -> None:
        slot, bit = member.slot, 1 << member.slot
        for flight in list(member.flights.values()):
            expected = flight.active
            self._end(flight)
            if expected:
                self._comes_not(flight.piece)
        self.pieces.unlack(member.lack, slot)
        del self.members[slot]
        self._members &= ~bit
        self.hungry &= ~bit
        self.leases.gone(slot)
        self.fetching[0] &= ~bit
        self.burdens.remove(slot, self.pieces.lackers)
        self.stirred_takers |= self._members

    def close(self) -> None:
        """Nobody takes part any more."""
        for slot in self._attached:
            self.fleet.detach(slot, self)
        self._attached.clear()

    # Truth and lies

    def shun(self, slot: int, pieces: int, now: float) -> bool:
        """A holder lied about these pieces: it is a source no more. Whether that is news."""
        news = pieces & ~self._shunned.get(slot, 0)
        if slot not in self._shunned:
            self.pieces.drop(self.have.get(slot, 0), slot)
            for flight in list(self._sending.get(slot, ())):
                self._abandon(flight)
            self.asking.gone(slot)
            self.stirred_takers |= self._members
        self._shunned[slot] = self._shunned.get(slot, 0) | pieces
        self.shunned |= 1 << slot
        self.fleet.accuse(slot, self._number, now)
        return bool(news)

    def pardon(self, slot: int, piece: int) -> bool:
        """It was not the holder's fault. Whether it is a source again."""
        left = self._shunned.get(slot, 0) & ~(1 << piece)
        if slot not in self._shunned or left or self._mute >> slot & 1:
            if left:
                self._shunned[slot] = left
            return False
        del self._shunned[slot]
        self.shunned &= ~(1 << slot)
        self.fleet.pardon(slot, self._number)
        self.pieces.hold(self.have.get(slot, 0), slot)
        self.holder_free(slot)
        self.asking.due = True
        return True

    def settled(self, changed: int) -> None:
        """What is believed of these pieces has changed."""
        if changed:
            self._stir(changed)
            self.asking.due = True

    def ask(self, now: float) -> list[tuple[int, list[int]]]:
        """Of whom which digests are to be asked."""
        if not self.asking.due:
            return []
        needed = self.pieces.live & ~self.pieces.unheld & ~self.digests.known
        unanswered = self.asking.unanswered
        vouchers = self._vouchers() if needed else []
        chosen = self.asking.choose(needed, vouchers, now)
        if self.asking.unanswered != unanswered:
            self.stirred_takers |= self.hungry
            self.timers.wake(now)
        if chosen:
            self.timers.at(now + self.settings.digest_patience, self.asking.overdue)
        return chosen

    def answered(self, slot: int, pieces: int, now: float) -> None:
        """A holder told digests of these pieces, or that it has them no more."""
        if self.asking.answered(slot, pieces, now):
            self.timers.at(now + self.settings.digest_patience, self.asking.overdue)

    def _vouchers(self) -> list[tuple[int, int]]:
        sources = [slot for slot in self.have if slot not in self._shunned]
        sources.sort(key=lambda slot: not self.is_whole(slot))
        return [
            (slot, self.have[slot] & ~self.digests.told_by(slot))
            for slot in sources
            if self.is_whole(slot) or self.have[slot] & ~self.digests.contested
        ]

    # Pieces

    def gain(self, member: Member, piece: int, *, leased: bool) -> None:
        """A member has a piece; `leased`: from the Hub, by a grant."""
        bit = 1 << piece
        if member.have & bit:
            return
        member.have |= bit
        self.have[member.slot] = member.have
        if member.lack & bit:
            member.lack &= ~bit
            self.pieces.unlack(bit, member.slot)
        self.supply.expect_no_more(piece)
        if leased:
            member.hub_failures = 0
        if member.slot in self._shunned:
            return
        self.pieces.hold(bit, member.slot)
        self.burdens.arrived(piece, member.slot, self.pieces.count(piece), leased=leased)
        self.supply.open(bit)
        self.stirred_holders |= 1 << member.slot
        if not self.digests.known & bit:
            self.asking.due = True

    def lose(self, slot: int, gone: int) -> None:
        """A holder has these pieces no more."""
        gone &= self.have[slot]
        if not gone:
            return
        self.have[slot] &= ~gone
        self._wholes &= ~(1 << slot)
        if slot not in self._shunned:
            self.pieces.drop(gone, slot)
        member = self.members.get(slot)
        if member is not None:
            member.have &= ~gone
            lack = sum(1 << piece for piece in bits(gone) if not member.fetches(piece))
            member.lack |= lack
            self.pieces.lack(lack, slot)
            self.weigh(member)
        elif not self.have[slot]:
            self.remove(slot)
        self.stirred_takers |= self._members

    def put_off(self, member: Member, piece: int, now: float) -> None:
        """A member gave a piece back: it is not granted to it again for a while."""
        bit = 1 << piece
        if member.lack & bit:
            member.lack &= ~bit
            self.pieces.unlack(bit, member.slot)
            self.timers.at(now + _PUT_OFF, self._want_again, (member, piece))

    def _want_again(self, which: tuple[Member, int]) -> None:
        member, piece = which
        if self.members.get(member.slot) is member:
            self._restore(member, piece)

    def _restore(self, member: Member, piece: int) -> None:
        bit = 1 << piece
        if not (member.have | member.lack) & bit and not member.fetches(piece):
            member.lack |= bit
            self.pieces.lack(bit, member.slot)
            self.weigh(member)
            if not self.digests.known & bit:
                self.asking.due = True

    def rest_from_hub(self, member: Member, now: float) -> None:
        """The Hub failed a member: it gets no lease for a while, longer each time in a row."""
        rest = min(_HUB_REST * 2**member.hub_failures, _LONGEST_HUB_REST)
        member.hub_failures = min(member.hub_failures + 1, 10)
        self.leases.rest(member.slot)
        self.timers.at(now + rest, self._rested, member)

    def _rested(self, member: Member) -> None:
        if self.members.get(member.slot) is member:
            self.leases.rested(member.slot)
            self.stirred_takers |= 1 << member.slot

    def lessees(self, piece: int) -> int:
        """Members to whom a lease of the piece could be given.

        One that lied or serves nothing gets it only when nobody else lacks it: nobody would take
        it from there.
        """
        lackers = self.pieces.lackers[piece]
        if self._shunned:
            honest = lackers & ~self.shunned
            lackers = honest or lackers
        return self.leases.open_for(piece, lackers & self.hungry)

    # Transfers

    def start(self, member: Member, piece: int, holder: int, now: float) -> Flight:
        """A member is told to fetch a piece; `holder` is -1 for the Hub."""
        settings, bit = self.settings, 1 << piece
        if member.lack & bit:
            member.lack &= ~bit
            self.pieces.unlack(bit, member.slot)
        if holder == -1:
            flight = Flight(member.slot, piece, -1, b"", now, 0)
            self.leases.begin(flight, member)
            self.burdens.change(member.slot, 1)
            self.timers.at(now + self.line.expires_after, self._expire, flight)
            self.timers.wake(now + self.line.doubles_after, flight)
        else:
            span = self.fleet.span(holder, self.piece_bytes)
            self.fleet.began(holder)
            digest = self.digests.of(piece)
            flight = Flight(member.slot, piece, holder, digest, now, self.fleet.sends(holder))
            self._sending.setdefault(holder, set()).add(flight)
            self.supply.expect(piece, now + span, now)
            flight.patience = max(settings.peer_floor, settings.peer_factor * span)
            self.timers.at(now + flight.patience, self._expire, flight)
        self._move(member, 1)
        member.flights[piece, holder] = flight
        if len(member.flights) >= member.capacity or not member.lack:
            self.hungry &= ~(1 << member.slot)
        return flight

    def land(self, member: Member, piece: int, holder: int, *, got: bool) -> Flight | None:
        """A transfer has ended. Returns it; None: there was none."""
        flight = member.flights.get((piece, holder))
        if flight is not None:
            self._end(flight)
            if not got:
                self._comes_not(piece)
                self._restore(member, piece)
        return flight

    def _end(self, flight: Flight) -> None:
        self._give_up(flight)
        flight.ended = True
        member = self.members[flight.taker]
        self._move(member, -1)
        del member.flights[flight.piece, flight.holder]
        if flight.holder != -1:
            self._sending[flight.holder].discard(flight)
            self._stop_sending(flight)
        else:
            self.leases.end(flight)

    def _stop_sending(self, flight: Flight) -> None:
        """The holder is thought to be busy with a transfer no more."""
        if flight.sending:
            flight.sending = False
            self.fleet.ended(flight.holder)

    def _move(self, member: Member, change: int) -> None:
        """Sorts a member that begins or ends a transfer; to be called before it does."""
        before, bit = len(member.flights), 1 << member.slot
        self.fetching[min(before, _MOST_FETCHING)] &= ~bit
        self.fetching[min(before + change, _MOST_FETCHING)] |= bit

    def _give_up(self, flight: Flight) -> None:
        """Counts on a transfer no more."""
        if not flight.active:
            return
        flight.active = False
        if flight.holder == -1:
            self.leases.give_up(flight)
            self.burdens.change(flight.taker, -1)

    def _abandon(self, flight: Flight) -> None:
        """A transfer will not end well, or takes too long: its taker may have another way."""
        if flight.active and not flight.ended:
            self._give_up(flight)
            self._comes_not(flight.piece)
            self._restore(self.members[flight.taker], flight.piece)

    def _expire(self, flight: Flight) -> None:
        """A transfer takes too long: because of its holder, unless the taker is silent as a whole.

        In the end the holder is free for others either way, also when the taker never speaks again.
        """
        if not flight.active or flight.ended:
            return
        if flight.holder != -1:
            due, half = flight.started + flight.patience, flight.patience / 2
            if self.members[flight.taker].heard < due - half:
                self._stop_sending(flight)
            else:
                self.fleet.crawls(flight.holder, self.piece_bytes, flight.patience)
                self.timers.at(due + flight.patience, self._stop_sending, flight)
        self._abandon(flight)

    def look_again(self, piece: int, when: float) -> None:
        """A piece was not granted because it comes sooner another way: if it does not, it is."""
        if piece not in self._looks:
            self._looks.add(piece)
            self.timers.at(when, self._look, piece)

    def look_after(self, member: Member, when: float) -> None:
        """A member is to be looked at again at a moment."""
        self.timers.at(when, self._look_after, member)

    def _look_after(self, member: Member) -> None:
        if self.members.get(member.slot) is member:
            self.weigh(member)

    def _look(self, piece: int) -> None:
        self._looks.discard(piece)
        self._stir(1 << piece)

    def _stir(self, pieces: int) -> None:
        self.supply.open(pieces)
        self.stirred_pieces |= pieces

    def _comes_not(self, piece: int) -> None:
        """A transfer that others may have waited for ends without the piece."""
        if self.supply.expect_no_more(piece):
            self._stir(1 << piece)

    def weigh(self, member: Member) -> None:
        """Finds out anew whether a member could work on a piece more."""
        if member.is_hungry:
            self.hungry |= 1 << member.slot
            self.stirred_takers |= 1 << member.slot
        else:
            self.hungry &= ~(1 << member.slot)

    # What the fleet tells

    def holder_free(self, slot: int) -> None:
        """The holder can send again."""
        self.stirred_holders |= 1 << slot
        self.supply.free(slot, self.have.get(slot, 0))

    def holder_full(self, slot: int) -> None:
        """The holder sends as much as it may."""
        if slot not in self._shunned:
            self.supply.full(slot, self.have.get(slot, 0) & self.pieces.held_once)

    def pair_open(self, taker: int, holder: int) -> None:
        """The taker may try the holder again."""
        if self.present >> holder & 1:
            self.stirred_takers |= 1 << taker
