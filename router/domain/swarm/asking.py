"""Whom to ask for digests of pieces that are held and wanted, but not vouched for."""

from collections.abc import Iterable
from itertools import islice

from router.domain.swarm.values import Settings, bits


class Asking:
    """A holder is asked for a few at a time, and again when it has answered. One that does not
    answer in time is asked no more; pieces that only such holders have are `unanswered`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # What each holder was asked for, and until when it may answer.
        self._asked: dict[int, tuple[int, float]] = {}
        self._silent = 0
        # Pieces whose digest cannot be had, as bits.
        self.unanswered = 0
        # Whether there may be something to ask.
        self.due = False

    def answered(self, holder: int, pieces: int, now: float) -> bool:
        """A holder told digests of these pieces, or that it has them no more. Whether it is to tell
        more, for which it has as long again.
        """
        self.due = True
        self._silent &= ~(1 << holder)
        if holder in self._asked:
            open_pieces = self._asked[holder][0] & ~pieces
            if open_pieces:
                self._asked[holder] = (open_pieces, now + self._settings.digest_patience)
                return True
            del self._asked[holder]
        return False

    def gone(self, holder: int) -> None:
        """A holder's stream has ended, or it holds the file no more."""
        self.due = True
        self._asked.pop(holder, None)
        self._silent &= ~(1 << holder)

    def overdue(self, now: float) -> None:
        """Gives up on holders that have not answered in time."""
        for holder in [slot for slot, (_, until) in self._asked.items() if until <= now]:
            del self._asked[holder]
            self._silent |= 1 << holder
            self.due = True

    def choose(
        self, needed: int, holders: Iterable[tuple[int, int]], now: float
    ) -> list[tuple[int, list[int]]]:
        """Whom to ask for which of the needed pieces.

        `holders` are slots with what they have and have not told, the best to ask first.
        """
        self.due = False
        self.unanswered = 0
        for open_pieces, _ in self._asked.values():
            needed &= ~open_pieces
        chosen: list[tuple[int, list[int]]] = []
        later = 0
        for holder, have in holders:
            if not needed:
                break
            if self._silent >> holder & 1:
                continue
            fitting = needed & have
            if holder in self._asked:
                later |= fitting
            elif fitting:
                pieces = list(islice(bits(fitting), self._settings.digests_at_once))
                asked = sum(1 << piece for piece in pieces)
                self._asked[holder] = (asked, now + self._settings.digest_patience)
                needed &= ~asked
                later |= fitting & ~asked
                chosen.append((holder, pieces))
        self.unanswered = needed & ~later
        return chosen
