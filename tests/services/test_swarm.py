"""Pieces between nodes, without streams: what nodes say goes in, what they are told comes out."""

import random
from dataclasses import dataclass, field

import pytest

from protos import pieces
from router.domain.reach import Reach
from router.domain.swarm import Result
from router.services.swarm import (
    GrantedPiece,
    Grants,
    Join,
    News,
    Outcome,
    Question,
    Swarms,
    WantedFile,
)

SHA = "a" * 64
PIECE = pieces.SMALLEST_PIECE_BYTES
COUNT = 6
SIZE = COUNT * PIECE
HUB = ""


def digest(piece: int, of: str = "file") -> bytes:
    """What a piece is, as far as the router knows."""
    return f"{of} {piece}".encode().ljust(32)


@dataclass
class Site:
    """The swarms of a router, with a clock that the test moves."""

    now: float = 1000.0
    warnings: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    sooner: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.swarms = Swarms(
            lambda: self.now,
            lambda event, **fields: self.warnings.append((event, fields)),
            random=random.Random(7),
        )
        self.swarms.on_sooner(lambda: self.sooner.append(self.now))


class Node:
    """A node that says what the test wants."""

    def __init__(
        self, site: Site, name: str, *, place: str = "", serves: bool = True, session: int = 1
    ) -> None:
        self._swarms = site.swarms
        self.name, self.session = name, session
        self.wakes = 0
        address = (f"{name}:7",) if serves else ()
        self._swarms.connect(name, session, Reach(name, address, address), self._wake)
        self.assign(place)

    def _wake(self) -> None:
        self.wakes += 1

    def assign(self, place: str, size: int = SIZE) -> None:
        """It is told to fetch the file."""
        self._swarms.assign(self.name, place, {SHA: WantedFile("m.gguf", size)})

    def hold(self, *held: str, partial: bool = False) -> None:
        """It lists what it holds."""
        files = dict.fromkeys(held, SIZE)
        self._swarms.hold(self.name, self.session, files, partial=partial)

    def say(
        self,
        *outcomes: Outcome,
        join: Join | None = None,
        capacity: int = 2,
        leave: bool = False,
        sha: str = SHA,
    ) -> None:
        """It says something of the file."""
        self._swarms.news(self.name, self.session, News(sha, join, outcomes, capacity, leave))

    def join(
        self,
        *have: int,
        capacity: int = 2,
        size: int = SIZE,
        piece_bytes: int = PIECE,
        digests: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        """It wants the file, and has these pieces."""
        mask = sum(1 << piece for piece in have)
        told = Join(size, piece_bytes, mask.to_bytes(8, "little"), digests)
        self.say(join=told, capacity=capacity)

    def got(self, piece: int, source: str = HUB, *, capacity: int = 2, of: str = "file") -> None:
        """It has a piece."""
        told = digest(piece, of) if source == HUB else b""
        self.say(Outcome(piece, Result.GOT, source, told, 0.5), capacity=capacity)

    def failed(self, piece: int, source: str, result: Result) -> None:
        """It did not get a piece."""
        self.say(Outcome(piece, result, source, b"", None))

    def answer(self, question: Question, *, of: str = "file") -> None:
        """It tells the digests that it was asked for."""
        told = [(piece, digest(piece, of)) for piece in question.pieces]
        self._swarms.digests(self.name, self.session, question.sha256, told, ())

    def take(self) -> list[Grants | Question]:
        """What it is told."""
        return self._swarms.take(self.name, self.session)

    def grants(self) -> list[GrantedPiece]:
        """The pieces that it is to fetch now."""
        return [piece for said in self.take() if isinstance(said, Grants) for piece in said.pieces]

    def alone(self) -> bool | None:
        """Whether it is told to go on alone; None: it is told nothing."""
        said = [message.alone for message in self.take() if isinstance(message, Grants)]
        return said[-1] if said else None

    def question(self) -> Question:
        """What it is asked."""
        (asked,) = [message for message in self.take() if isinstance(message, Question)]
        return asked

    def gone(self) -> None:
        """Its stream ends."""
        self._swarms.disconnect(self.name, self.session)


@pytest.fixture
def site() -> Site:
    """A router that knows nobody yet."""
    return Site()


def fetch_all(site: Site, *nodes: Node) -> dict[str, list[str]]:
    """Lets nodes do all that they are told to, until nothing is left; where each piece is from."""
    sources: dict[str, list[str]] = {node.name: [] for node in nodes}
    idle = 0
    while idle < 5:
        idle += 1
        for node in nodes:
            for message in node.take():
                idle = 0
                if isinstance(message, Question):
                    node.answer(message)
                    continue
                for piece in message.pieces:
                    sources[node.name].append(piece.holder_id)
                    node.got(piece.piece, piece.holder_id)
        site.now += 0.1
        site.swarms.tick()
    return sources


def test_a_node_alone_is_told_so_and_again_when_that_changes(site: Site) -> None:
    a = Node(site, "a")
    a.join()
    assert a.alone() is True

    b = Node(site, "b")
    b.join(capacity=0)

    assert a.alone() is False
    assert b.alone() is False
    b.gone()
    assert a.alone() is True


def test_what_one_fetched_from_the_hub_is_given_to_the_other_with_its_digest(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(capacity=1)
    b.join(capacity=0)
    (leased,) = a.grants()
    assert leased.holder_id == HUB
    assert leased.digest == b""

    a.got(leased.piece, capacity=0)
    b.say(capacity=2 * COUNT)

    (granted,) = [piece for piece in b.grants() if piece.holder_id != HUB]
    assert granted == GrantedPiece(leased.piece, "a", ("a:7",), digest(leased.piece))


def test_nothing_crosses_the_line_twice(site: Site) -> None:
    nodes = [Node(site, name) for name in ("a", "b", "c")]
    for node in nodes:
        node.join()

    sources = fetch_all(site, *nodes)

    assert sum(source == HUB for came in sources.values() for source in came) == COUNT
    assert {len(came) for came in sources.values()} == {COUNT}
    counts = site.swarms.counts()
    assert counts.grants == {"hub": COUNT, "peer": 2 * COUNT}
    assert counts.results["got"] == 3 * COUNT


def test_a_late_node_takes_all_from_one_that_merely_holds_the_file(site: Site) -> None:
    holder, late = Node(site, "holder"), Node(site, "late")
    holder.hold(SHA)
    late.join()

    question = holder.question()
    assert (question.sha256, question.size_bytes, question.piece_bytes) == (SHA, SIZE, PIECE)
    assert late.alone() is False
    holder.answer(question)

    assert set(fetch_all(site, holder, late)["late"]) == {"holder"}
    assert site.swarms.counts().grants["hub"] == 0


def test_a_node_that_is_done_gives_from_then_on(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(*range(COUNT))
    a.say(leave=True)
    b.join()

    assert set(fetch_all(site, a, b)["b"]) == {"a"}
    assert site.swarms.holders(SHA, "") == {"a"}


def test_a_node_that_stops_gives_no_more(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(0, 1)
    b.join()
    a.say(leave=True)

    assert "a" not in fetch_all(site, a, b)["b"]
    assert site.swarms.holders(SHA, "") == set()


def test_what_was_granted_to_a_node_that_is_gone_is_granted_to_another_at_once(site: Site) -> None:
    a, b, c = Node(site, "a"), Node(site, "b"), Node(site, "c")
    a.join(capacity=COUNT)
    b.join(capacity=COUNT)
    c.join(capacity=0)
    assert a.grants()
    without = fetch_all(site, b)

    a.gone()

    assert b.grants()
    assert len(without["b"]) < COUNT


def test_nodes_of_different_sites_do_not_mix(site: Site) -> None:
    a, b = Node(site, "a", place="x"), Node(site, "b", place="y")
    holder = Node(site, "holder", place="y")
    holder.hold(SHA)
    a.join()

    assert a.alone() is True
    assert holder.take() == []
    assert site.swarms.holders(SHA, "x") == set()
    assert site.swarms.holders(SHA, "y") == {"holder"}
    b.join()
    assert holder.question().sha256 == SHA
    assert site.swarms.counts().swarms == 2


def test_a_node_that_moves_goes_on_at_the_other_site_with_what_it_has(site: Site) -> None:
    a, b = Node(site, "a", place="x"), Node(site, "b", place="y")
    a.join(0, 1, 2)
    b.join(3, 4, 5)
    assert (a.alone(), b.alone()) == (True, True)

    a.assign("y")

    sources = fetch_all(site, a, b)
    assert sources == {"a": ["b"] * 3, "b": ["a"] * 3}
    assert site.swarms.counts().swarms == 1


def test_what_a_node_holds_moves_with_it(site: Site) -> None:
    holder, late = Node(site, "holder", place="x"), Node(site, "late", place="y")
    holder.hold(SHA)
    late.join()
    assert late.alone() is True

    holder.assign("y")

    assert late.alone() is False
    assert site.swarms.holders(SHA, "y") == {"holder"}


def test_a_new_router_learns_all_from_those_who_join_again(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(0, 1, 2, digests=tuple((piece, digest(piece)) for piece in (0, 1, 2)))
    b.join(3, 4, 5)

    sources = fetch_all(site, a, b)

    assert sources == {"a": ["b"] * 3, "b": ["a"] * 3}


def test_a_node_that_serves_nowhere_is_given_to_but_not_taken_from(site: Site) -> None:
    mute, b = Node(site, "mute", serves=False), Node(site, "b")
    mute.hold(SHA)
    mute.join(0, 1, 2, digests=tuple((piece, digest(piece)) for piece in (0, 1, 2)))
    b.join()

    sources = fetch_all(site, mute, b)

    assert set(sources["b"]) == {HUB}
    assert "b" in sources["mute"]
    assert site.swarms.holders(SHA, "") == set()


def test_a_fenced_session_changes_nothing(site: Site) -> None:
    old, b = Node(site, "a"), Node(site, "b")
    old.join()
    new = Node(site, "a", session=2)
    b.join()
    assert b.alone() is True

    old.join()
    old.hold(SHA)
    old.gone()

    assert old.take() == []
    assert b.alone() is None
    new.join()
    assert b.alone() is False


def test_a_lease_that_lasts_too_long_ends_by_the_clock(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(capacity=COUNT)
    b.join(capacity=0)
    taken = {piece.piece for piece in a.grants()}
    assert taken
    assert site.sooner
    b.say(capacity=COUNT)
    b.grants()

    again: set[int] = set()
    for _ in range(200):
        at = site.swarms.tick()
        if at is None or again >= taken:
            break
        site.now = at
        again |= {piece.piece for piece in b.grants()}

    assert again & taken


def test_the_clock_is_told_only_when_something_is_due_sooner(site: Site) -> None:
    assert site.swarms.tick() is None
    a, b = Node(site, "a"), Node(site, "b")
    a.join()
    b.join()
    told = len(site.sooner)

    assert told >= 1
    at = site.swarms.tick()
    assert at is not None
    assert at > site.now
    site.swarms.tick()
    assert len(site.sooner) == told


def test_a_holder_of_wrong_bytes_is_named_once_and_left_alone(site: Site) -> None:
    liar, b = Node(site, "liar"), Node(site, "b")
    liar.hold(SHA)
    b.join()
    liar.answer(liar.question())
    (first, *_) = b.grants()
    assert first.holder_id == "liar"

    b.failed(first.piece, "liar", Result.WRONG)

    assert [fields["node_id"] for _, fields in site.warnings] == ["liar"]
    assert site.warnings[0][1]["file"] == "m.gguf"
    assert site.swarms.counts().wrong_pieces == 1
    assert b.alone() is True
    Node(site, "c").join()
    assert "liar" not in fetch_all(site, b)["b"]


def test_an_inventory_that_no_longer_names_a_file_withdraws_it(site: Site) -> None:
    holder, b = Node(site, "holder"), Node(site, "b")
    holder.hold(SHA)
    b.join(capacity=0)
    assert b.alone() is False

    holder.hold(partial=True)
    assert b.alone() is None
    holder.hold()

    assert b.alone() is True
    assert site.swarms.holders(SHA, "") == set()


def test_the_outbox_of_a_node_that_does_not_read_stays_small(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    b.join()
    a.join(capacity=COUNT)
    wakes = a.wakes
    for _ in range(100):
        a.join(capacity=COUNT)
        b.gone()
        b = Node(site, "b", session=b.session + 1)
        b.join()

    assert len(a.grants()) <= COUNT
    assert a.wakes == wakes
    b.gone()
    assert a.wakes == wakes + 1


@pytest.mark.parametrize(
    ("size", "piece_bytes", "have"),
    [
        (SIZE - 1, PIECE, ()),
        (SIZE, PIECE * 2, ()),
        (SIZE, 0, ()),
        (0, PIECE, ()),
        (-1, PIECE, ()),
        (SIZE, PIECE, (COUNT,)),
    ],
    ids=["size", "pieces", "no pieces", "empty", "negative", "beyond"],
)
def test_a_join_that_does_not_fit_the_file_is_refused_and_logged_once(
    site: Site, size: int, piece_bytes: int, have: tuple[int, ...]
) -> None:
    a = Node(site, "a")

    for _ in range(3):
        a.join(*have, size=size, piece_bytes=piece_bytes)
        a.got(0)

    assert a.alone() is True
    assert len(site.warnings) == 1
    assert site.swarms.counts().swarms == 0
    a.join()
    assert site.swarms.counts().swarms == 1


def test_only_a_file_of_an_unfinished_task_may_be_joined(site: Site) -> None:
    a = Node(site, "a")
    site.swarms.assign("a", "", {})

    a.join()
    a.say(join=Join(SIZE, PIECE, b"", ()), sha="../../etc")

    assert [(m.sha256, m.alone) for m in a.take() if isinstance(m, Grants)] == [(SHA, True)]
    assert site.swarms.counts().swarms == 0


def test_garbage_about_a_joined_file_is_left_out(site: Site) -> None:
    a, b = Node(site, "a"), Node(site, "b")
    a.join(capacity=0, digests=((0, b"short"), (COUNT, digest(0)), (-1, digest(0))))
    b.join(capacity=10**9)
    b.grants()

    a.say(
        Outcome(COUNT, Result.GOT, HUB, digest(0), 1.0),
        Outcome(-1, Result.GOT, HUB, digest(0), 1.0),
        Outcome(0, Result.GOT, HUB, b"short", 1.0),
        Outcome(1, Result.WRONG, "nobody", b"", None),
        capacity=-5,
    )
    site.swarms.digests("b", 1, SHA, [(99, digest(0)), (0, b"")], [99, -1])
    site.swarms.digests("b", 1, "f" * 64, [(0, digest(0))], [])
    site.swarms.digests("nobody", 1, SHA, [(0, digest(0))], [])

    assert [fields["node_id"] for _, fields in site.warnings] == ["a", "b"]
    assert site.swarms.counts().swarms == 1
    assert set(fetch_all(site, a, b)) == {"a", "b"}


def test_a_node_that_gives_no_pieces_is_named_once_for_a_file() -> None:
    site = Site()
    seed, taker = Node(site, "seed"), Node(site, "taker")
    seed.hold(SHA)
    taker.join(capacity=2)
    seed.answer(seed.question())

    for piece in [piece.piece for piece in taker.grants()]:
        taker.failed(piece, "seed", Result.FAILED)

    assert [fields["node_id"] for _, fields in site.warnings] == ["seed"]
    assert site.warnings[0][1]["told_by"] == "taker"
