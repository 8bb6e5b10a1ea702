"""The decisions: who is to fetch which piece from where."""

from collections.abc import Iterator

from router.domain.swarm.board import Board
from router.domain.swarm.members import Flight, Member
from router.domain.swarm.values import HUB, Grant, any_bit, bits, early_bit, first_bit

# How many of a set are looked at before chance decides next time.
_TRIES = 32
# Over so many pieces for each node of a swarm is spread what nodes take from one another.
_SPREAD = 8
# Seconds between looks for what a member cut off from some holders can have from the Hub alone.
_LOOK_EVERY = 0.5
# A holder is passed by when another would have the piece and have sent it in this part of its span.
_SOONER = 0.8
# A busy holder will have sent a piece after so many times the span that it usually takes.
_BUSY = 6.0


class Granting:
    """Makes grants for what has changed on the board since the last time.

    First the Hub's line is kept busy, then whoever can send finds takers, the least busy first
    (`_push`), then whoever has capacity left takes from holders (`_pull`), at last the leases that
    take too long are doubled.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._grants: list[Grant] = []

    def decide(self, now: float) -> list[Grant]:
        """All that can be granted now."""
        board = self._board
        board.fleet.advance(now)
        board.timers.advance(now)
        self._grants = []
        if len(board.members) > 1 or not board.is_alone(next(iter(board.members), None)):
            self._lease(now)
            for piece in self._in_order(board.stirred_pieces & board.pieces.live):
                self._offer(piece, now)
            if board.hungry:
                for slot in bits(board.stirred_holders & board.present):
                    self._push(slot, now)
            takers = board.stirred_takers & board.hungry
            for slot in bits(takers):
                self._pull(board.members[slot], now)
            if board.fleet.has_cuts:
                self._serve_cut_off(takers & board.hungry, now)
            self._double(now)
        board.stirred_takers = board.stirred_holders = board.stirred_pieces = 0
        board.fleet.settled(board)
        return self._grants

    # From the Hub

    def _lease(self, now: float) -> None:
        """Gives pieces that nobody has and nobody fetches to those with the least of their own.

        The first ones first: everybody gets them next, and the file's SHA-256 needs them in order.
        """
        board = self._board
        if board.leases.count >= board.line.leases or not board.leases.open_to(board.hungry):
            return
        pieces, digests = board.pieces, board.digests
        need = pieces.live & ~board.leases.pieces
        need &= pieces.unheld | digests.contested | board.asking.unanswered & ~digests.known
        if not need:
            board.line.idle()
        tries = _TRIES
        while need and tries and board.line.has_room(board.leases.count, now):
            piece = first_bit(need)
            takers = board.lessees(piece)
            if takers:
                self._grant(board.members[self._least_burdened(takers)], piece, -1, now)
                board.line.began(now)
            else:
                tries -= 1
            need &= ~(1 << piece)
        if need and tries and board.leases.count < board.line.leases:
            board.timers.wake(board.line.next_at)

    def _least_burdened(self, takers: int) -> int:
        board = self._board
        takers = takers & ~board.fleet.slow or takers
        for burdened in board.burdens.members:
            takers = takers & burdened or takers
            if takers & burdened:
                break
        return any_bit(takers, board.random)

    def _double(self, now: float) -> None:
        """When only leased pieces are missing, a lease that takes very long is given to another."""
        board = self._board
        if not board.hungry or not board.leases.count:
            return
        if board.pieces.live & ~board.leases.pieces & board.pieces.unheld:
            return
        after = board.line.doubles_after
        for piece in list(board.leases.of):
            leases = board.leases.of[piece]
            takers = board.lessees(piece)
            alone = len(leases) == 1 and not board.pieces.holders[piece]
            if alone and takers and now - leases[0].started >= after:
                self._grant(board.members[self._least_burdened(takers)], piece, -1, now)

    def _serve_cut_off(self, takers: int, now: float) -> None:
        """Who can reach none that has, or soon has, a piece, takes it from the Hub."""
        board = self._board
        for slot in bits(board.leases.open_to(takers)):
            member, cut = board.members[slot], board.fleet.cut_of_taker(slot)
            if not cut or now < member.next_look:
                continue
            for piece in bits(member.lack & ~board.pieces.unheld & ~board.leases.pieces):
                if board.leases.count >= board.line.leases or not member.is_hungry:
                    break
                coming = board.supply.coming(piece) > now or (piece, -1) in member.flights
                if not board.pieces.holders[piece] & ~cut and not coming:
                    self._grant(member, piece, -1, now)
            member.next_look = now + _LOOK_EVERY
            board.look_after(member, member.next_look)

    # From holders

    def _pull(self, member: Member, now: float) -> None:
        """Finds holders for a member's free capacity."""
        while member.is_hungry and self._take(member, now):
            pass

    def _take(self, member: Member, now: float) -> bool:
        """Grants a member the rarest piece that it can have from a holder now."""
        board = self._board
        wanted = member.lack & board.digests.known & ~board.supply.exhausted & ~board.pieces.unheld
        for piece in self._in_order(wanted):
            holder = self._choose(member, piece, now)
            if holder >= 0:
                self._grant(member, piece, holder, now)
                return True
        return False

    def _choose(self, member: Member, piece: int, now: float) -> int:
        """The holder that would be done first; -1: none can, or waiting is better."""
        board = self._board
        holders = board.pieces.holders[piece]
        barred = board.fleet.cut_of_taker(member.slot) | self._tried(member, piece)
        holder = board.fleet.best(holders & ~barred)
        if holder < 0:
            if not holders & barred:
                board.supply.exhausted |= 1 << piece
            return -1
        return -1 if self._comes_sooner(piece, holder, barred, now) else holder

    def _offer(self, piece: int, now: float) -> None:
        """Finds takers for a piece of which more is known now."""
        board = self._board
        if not board.digests.known >> piece & 1:
            return
        takers = board.pieces.lackers[piece] & board.hungry
        while takers and not board.supply.exhausted >> piece & 1:
            taker = self._best_taker(takers)
            holder = self._choose(board.members[taker], piece, now)
            if holder >= 0:
                self._grant(board.members[taker], piece, holder, now)
            takers &= ~(1 << taker)

    def _best_taker(self, takers: int) -> int:
        """Of a set one of the least busy, and of these one that could pass the piece on first."""
        board = self._board
        for equal in board.fetching:
            fitting = equal & takers
            if fitting:
                takers = fitting
                break
        taker = board.fleet.best(takers)
        return any_bit(takers, board.random) if taker < 0 else taker

    def _push(self, slot: int, now: float) -> None:
        """Finds takers for what a holder can send."""
        board = self._board
        fleet, pieces = board.fleet, board.pieces
        while fleet.is_free(slot):
            hungry = board.hungry & ~fleet.cut_of_holder(slot) & ~(1 << slot)
            offered = board.have[slot] & pieces.live & board.digests.known
            offered &= ~(pieces.unheld | board.supply.exhausted)
            if not hungry or not offered:
                return
            if hungry.bit_count() < offered.bit_count():
                served = self._serve_taker(offered, hungry, now)
            else:
                served = self._serve_piece(offered, hungry, now)
            if not served:
                return

    def _serve_taker(self, offered: int, hungry: int, now: float) -> bool:
        """Serves the least busy taker of what is offered."""
        board = self._board
        for equal in board.fetching:
            for taker in bits(equal & hungry):
                member = board.members[taker]
                if member.lack & offered and self._take(member, now):
                    return True
        return False

    def _serve_piece(self, offered: int, hungry: int, now: float) -> bool:
        """Serves a taker of the rarest piece that is offered."""
        board = self._board
        for piece in self._in_order(offered):
            takers = board.pieces.lackers[piece] & hungry
            if takers and self._take(board.members[self._best_taker(takers)], now):
                return True
        return False

    def _in_order(self, wanted: int) -> Iterator[int]:
        """Pieces, the rarest first; among equally rare ones by chance one of the first.

        The more nodes there are, the farther they spread: they are to have different ones to give.
        """
        width = _SPREAD * len(self._board.members)
        for alike in self._board.pieces.by_rarity(wanted):
            while alike:
                piece = early_bit(alike, width, self._board.random)
                yield piece
                alike &= ~(1 << piece)

    def _tried(self, member: Member, piece: int) -> int:
        """Holders from which the member is still fetching the piece though it was given up."""
        tried = 0
        for number, holder in member.flights:
            if number == piece and holder >= 0:
                tried |= 1 << holder
        return tried

    def _comes_sooner(self, piece: int, holder: int, barred: int, now: float) -> bool:
        """Whether the piece would be there well before this holder had sent it, another way.

        From one that is just getting it, or from a much faster holder that is busy now.
        """
        board, fleet = self._board, self._board.fleet
        usual = board.piece_bytes / fleet.usual_speed
        span = fleet.span(holder, board.piece_bytes)
        when = board.supply.coming(piece)
        if when <= now or when - now + usual >= _SOONER * span:
            fast = board.pieces.holders[piece] & ~(fleet.slow | fleet.resting | barred)
            if not fleet.slow >> holder & 1 or not fast or usual * _BUSY >= span:
                return False
            when = now + usual * _BUSY
        board.supply.exhausted |= 1 << piece
        board.look_again(piece, when)
        return True

    def _grant(self, member: Member, piece: int, holder: int, now: float) -> Flight:
        board = self._board
        flight = board.start(member, piece, holder, now)
        name = HUB if holder == -1 else board.fleet.name(holder)
        self._grants.append(Grant(board.fleet.name(member.slot), piece, name, flight.digest))
        return flight
