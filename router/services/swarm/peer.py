"""A connected node as the swarms see it, with what it is still to be told."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from router.domain.reach import Reach
from router.services.swarm.words import GrantedPiece, Grants, Question, WantedFile

_MOST_FILES_DUE = 1024
_MOST_LOGGED = 64  # files of one kind, in a session


@dataclass(slots=True)
class _Due:
    """What a node is to be told of one file, the latest of each kind."""

    alone: bool = False
    told: bool = False  # whether anything but a question is due
    pieces: dict[tuple[int, str], GrantedPiece] = field(default_factory=dict)
    asked: dict[int, None] = field(default_factory=dict)
    size_bytes: int = 0
    piece_bytes: int = 0


class Peer:
    """One session of one node. Guarded by the lock of the swarms.

    What is due is kept once for each piece of each file, so that a node that does not read costs
    no more than what it joined.
    """

    def __init__(self, node_id: str, session: int, reach: Reach, wake: Callable[[], None]) -> None:
        """`wake` tells the node's stream that something is due; from any thread, never blocks."""
        self.node_id = node_id
        self.session = session
        self.reach = reach
        # None: it has not been told yet what to do.
        self.site: str | None = None
        self.wanted: Mapping[str, WantedFile] = {}
        # The whole files that it serves, with their sizes.
        self.held: dict[str, int] = {}
        # The files that it fetches together with others.
        self.joined: set[str] = set()
        self._wake = wake
        self._woken = False
        self._due: dict[str, _Due] = {}
        self._refusals: set[str] = set()
        self._failures: set[str] = set()

    def grant(self, sha256: str, piece: GrantedPiece) -> None:
        """A piece is to be fetched."""
        self._of(sha256).pieces[piece.piece, piece.holder_id] = piece

    def answer(self, sha256: str, *, alone: bool) -> None:
        """It is to be told whether it is alone, with the grants that are due."""
        if len(self._due) >= _MOST_FILES_DUE and sha256 not in self._due:
            return  # it reads nothing: it does not wait for an answer either
        due = self._of(sha256)
        due.alone, due.told = alone, True
        self.rouse()

    def ask(self, sha256: str, size: int, piece_bytes: int, pieces: Iterable[int]) -> None:
        """Digests are wanted of it."""
        due = self._of(sha256)
        due.size_bytes, due.piece_bytes = size, piece_bytes
        due.asked.update(dict.fromkeys(pieces))
        self.rouse()

    def drop(self, sha256: str) -> None:
        """Nothing of a file is due any more."""
        self._due.pop(sha256, None)

    def take(self) -> list[Grants | Question]:
        """Everything that is due; from then on it is not."""
        self._woken = False
        taken, self._due = self._due, {}
        messages: list[Grants | Question] = []
        for sha256, due in taken.items():
            if due.told:
                messages.append(Grants(sha256, tuple(due.pieces.values()), due.alone))
            if due.asked:
                messages.append(Question(sha256, due.size_bytes, due.piece_bytes, tuple(due.asked)))
        return messages

    def refused(self, sha256: str) -> bool:
        """Notes that something of a file was refused; whether that is worth a word in the log."""
        return _is_news(self._refusals, sha256)

    def failed(self, sha256: str) -> bool:
        """Notes that it did not give of a file; whether that is worth a word in the log."""
        return _is_news(self._failures, sha256)

    def rouse(self) -> None:
        """Wakes the stream, once until it has taken what is due."""
        if not self._woken:
            self._woken = True
            self._wake()

    def _of(self, sha256: str) -> _Due:
        due = self._due.get(sha256)
        if due is None:
            due = self._due[sha256] = _Due()
        return due


def _is_news(known: set[str], sha256: str) -> bool:
    if sha256 in known or len(known) >= _MOST_LOGGED:
        return False
    known.add(sha256)
    return True
