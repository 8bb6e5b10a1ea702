"""Which piece from where: one rule at a time."""

from random import Random

import pytest

from router.domain.swarm import HUB, Fleet, Grant, Result, Settings, Swarm

MIB = 1 << 20
PIECE = 4 * MIB


def digest(piece: int) -> bytes:
    return piece.to_bytes(32, "big")


def digests(*pieces: int) -> dict[int, bytes]:
    return {piece: digest(piece) for piece in pieces}


def mask(*pieces: int) -> int:
    return sum(1 << piece for piece in pieces)


def fleet(settings: Settings | None = None) -> Fleet:
    return Fleet(random=Random(7), settings=settings)


def swarm(pieces: int, shared: Fleet | None = None) -> Swarm:
    return Swarm(pieces, PIECE, shared or fleet())


def join(of: Swarm, node: str, *have: int, capacity: int = 4, now: float = 0.0) -> None:
    """A node joins, knowing the digests of what it has."""
    of.join(node, mask(*have), digests(*have), now)
    of.set_capacity(node, capacity)


def got(of: Swarm, grant: Grant, now: float, told: bytes | None = None) -> None:
    """A node got what it was granted."""
    if told is None:
        told = b"" if grant.holder_id else digest(grant.piece)
    of.outcome(grant.node_id, grant.piece, Result.GOT, grant.holder_id, told, 0.2, now)


def bad(of: Swarm, grant: Grant, result: Result, now: float) -> None:
    """A node did not get what it was granted."""
    of.outcome(grant.node_id, grant.piece, result, grant.holder_id, b"", None, now)


def only(grants: list[Grant]) -> Grant:
    assert len(grants) == 1
    return grants[0]


def test_a_node_alone_is_granted_nothing() -> None:
    shared = swarm(8)
    join(shared, "a")

    grants = shared.decide(0.0)

    assert grants == []
    assert shared.is_alone("a")


def test_a_node_is_alone_no_more_when_another_wants_or_has_the_file() -> None:
    wanting, having = swarm(8), swarm(8)
    for each in (wanting, having):
        join(each, "a")

    join(wanting, "b")
    having.offer("b", 0.0)

    assert not wanting.is_alone("a")
    assert not having.is_alone("a")


def test_nodes_that_serve_nothing_are_alone_with_one_another_only() -> None:
    shared = swarm(8)
    for name in ("mute", "silent"):
        shared.join(name, 0, {}, 0.0, serves=False)
    before = shared.is_alone("mute"), shared.is_alone("silent")

    join(shared, "a")

    assert before == (True, True)
    assert not any(map(shared.is_alone, ("mute", "silent", "a")))


def test_a_node_that_serves_nothing_takes_from_others_and_is_asked_for_nothing() -> None:
    shared = swarm(2)
    shared.join("mute", mask(0), digests(0), 0.0, serves=False)
    shared.set_capacity("mute", 4)
    join(shared, "a")

    leases = [*shared.decide(0.0), *shared.decide(1.0)]
    for grant in leases:
        got(shared, grant, 2.0)

    assert {(grant.node_id, grant.holder_id) for grant in leases} == {("a", HUB)}
    assert {grant.piece for grant in leases} == {0, 1}
    assert only(shared.decide(2.0)) == Grant("mute", 1, "a", digest(1))
    assert shared.digests_wanted(2.0) == []


def test_different_pieces_come_from_the_hub_to_different_nodes() -> None:
    shared = swarm(64)
    for name in "abcd":
        join(shared, name)

    grants = shared.decide(0.0) + shared.decide(1.0) + shared.decide(2.0)

    assert {grant.holder_id for grant in grants} == {HUB}
    assert len({grant.piece for grant in grants}) == len(grants) == 4
    assert {grant.node_id for grant in grants} == set("abcd")


def test_a_piece_that_a_peer_has_is_not_fetched_from_the_hub() -> None:
    shared = swarm(2)
    join(shared, "a", 0, 1)
    join(shared, "b")

    grants = shared.decide(0.0)

    assert sorted(grants, key=lambda grant: grant.piece) == [
        Grant("b", piece, "a", digest(piece)) for piece in (0, 1)
    ]


def test_a_new_piece_is_passed_on_at_once() -> None:
    shared = swarm(1)
    join(shared, "a")
    join(shared, "b")
    first = only(shared.decide(0.0))

    got(shared, first, 1.0)

    second = only(shared.decide(1.0))
    assert second.holder_id == first.node_id
    assert second.digest == digest(0)


def test_without_a_digest_nothing_is_exchanged_and_it_is_asked_for_once() -> None:
    shared = swarm(2)
    shared.offer("a", 0.0)
    join(shared, "b")

    before = shared.decide(0.0)
    asked, again = shared.digests_wanted(0.0), shared.digests_wanted(0.0)
    shared.take_digests("a", digests(0, 1), [], 1.0)
    after = shared.decide(1.0)

    assert before == []
    assert [(wanted.holder_id, wanted.pieces) for wanted in asked] == [("a", (0, 1))]
    assert again == []
    assert {(grant.piece, grant.holder_id) for grant in after} == {(0, "a"), (1, "a")}


def test_a_holder_that_tells_no_digest_does_not_hold_up_the_others() -> None:
    shared = swarm(1)
    shared.offer("a", 0.0)
    join(shared, "b")
    shared.digests_wanted(0.0)

    later = Settings().digest_patience + 1
    shared.decide(later)
    shared.digests_wanted(later)

    assert only(shared.decide(later)).holder_id == HUB


def test_a_holder_that_goes_on_telling_digests_is_waited_for() -> None:
    shared = swarm(3)
    shared.offer("a", 0.0)
    join(shared, "b")
    shared.digests_wanted(0.0)
    patience = Settings().digest_patience

    for piece in (0, 1):
        at = (piece + 1) * patience * 0.75
        shared.take_digests("a", digests(piece), [], at)
        shared.decide(at)
        shared.digests_wanted(at)
    late = shared.decide(patience * 1.5 + patience / 2)

    assert all(grant.holder_id == "a" for grant in late)


@pytest.mark.parametrize("last_word", [0.0, 2.9])
def test_a_taker_that_freezes_keeps_no_holder_from_others(last_word: float) -> None:
    shared = swarm(8)
    shared.offer("seed", 0.0)
    join(shared, "frozen", capacity=5)
    shared.take_digests("seed", digests(*range(8)), [], 0.0)
    held = shared.decide(0.0)
    assert {grant.holder_id for grant in held} == {"seed"}
    if last_word:
        got(shared, held.pop(), last_word)
    shared.decide(last_word)

    join(shared, "b", capacity=8, now=last_word)
    granted = [grant for at in range(3, 20) for grant in shared.decide(float(at))]

    assert {grant.holder_id for grant in granted if grant.node_id == "b"} >= {"seed"}
    assert any(grant.node_id == "b" for grant in granted)


def test_what_a_holder_says_it_has_no_more_is_fetched_from_the_hub() -> None:
    shared = swarm(2)
    shared.offer("a", 0.0)
    join(shared, "b")
    shared.digests_wanted(0.0)

    shared.take_digests("a", digests(1), [0], 1.0)

    assert {(grant.piece, grant.holder_id) for grant in shared.decide(1.0)} == {(0, HUB), (1, "a")}


def test_a_holder_that_has_no_piece_any_more_is_no_company() -> None:
    shared = swarm(1)
    shared.offer("a", 0.0)
    join(shared, "b")

    shared.take_digests("a", {}, [0], 1.0)

    assert shared.is_alone("b")


def test_the_rarest_piece_goes_first() -> None:
    shared = swarm(8)
    for name in "abcd":
        join(shared, name, 0, 1, 2, 3, 4, 5, 6, capacity=0)
    join(shared, "e", 7, capacity=0)
    join(shared, "f", capacity=1)

    grant = only(shared.decide(0.0))

    assert (grant.piece, grant.holder_id) == (7, "e")


def test_the_holder_that_is_done_first_sends() -> None:
    known = fleet()
    for holder, seconds in (("slow", 2.0), ("fast", 0.04)):
        earlier = swarm(1, known)
        join(earlier, holder, 0, capacity=0)
        join(earlier, "taker")
        grant = only(earlier.decide(0.0))
        earlier.outcome("taker", grant.piece, Result.GOT, holder, b"", seconds, seconds)
    shared = swarm(2, known)
    join(shared, "slow", 0, 1, capacity=0)
    join(shared, "fast", 0, 1, capacity=0)
    join(shared, "taker", capacity=2)

    grants = shared.decide(10.0)

    assert [grant.holder_id for grant in grants] == ["fast", "fast"]


def test_a_holder_sends_a_few_pieces_at_a_time() -> None:
    shared = swarm(64)
    join(shared, "a", *range(64), capacity=0)
    for name in "bcdefgh":
        join(shared, name)

    grants = shared.decide(0.0)

    assert len(grants) == Settings().sends


def test_a_holder_is_not_overloaded_by_two_files() -> None:
    both = fleet()
    first, second = swarm(8, both), swarm(8, both)
    for each in (first, second):
        join(each, "a", *range(8), capacity=0)
        join(each, "b", capacity=8)
    taken = first.decide(0.0)

    waiting = second.decide(0.0)
    got(first, taken[0], 1.0)

    assert waiting == []
    assert both.stirred()
    assert len(second.decide(1.0)) == 1


def test_the_leases_of_a_node_whose_stream_ended_are_free_at_once() -> None:
    shared = swarm(1)
    for name in "abc":
        join(shared, name)
    lease = only(shared.decide(0.0))

    shared.withdraw(lease.node_id)

    again = only(shared.decide(0.0))
    assert (again.piece, again.holder_id) == (0, HUB)
    assert again.node_id != lease.node_id


def test_a_lease_ends_after_a_while() -> None:
    shared = swarm(1)
    join(shared, "a")
    join(shared, "b")
    lease = only(shared.decide(0.0))

    times: list[float] = []
    while not (again := shared.decide(times[-1] if times else 0.0)):
        wake = shared.wake_at()
        assert wake is not None
        assert not times or wake > times[-1]
        times.append(wake)

    assert only(again).node_id != lease.node_id
    assert times[-1] > 1.0


def test_the_last_lease_is_doubled_only_when_it_takes_much_longer_than_usual() -> None:
    shared = swarm(9)
    for name in "abc":
        join(shared, name)
    now, waiting, last = 0.0, shared.decide(0.0), None
    while waiting:
        grant = waiting.pop(0)
        if grant.holder_id == HUB and grant.piece == 8:
            last = grant
        else:
            now += 0.02
            got(shared, grant, now)
        waiting += shared.decide(now)
    assert last is not None

    soon = shared.decide(now + 0.1)
    later = shared.decide(now + 10.0)

    assert soon == []
    assert (only(later).piece, only(later).holder_id) == (8, HUB)
    assert only(later).node_id != last.node_id
    assert shared.decide(now + 10.1) == []


def test_a_pair_that_cannot_connect_is_left_alone_for_a_while() -> None:
    shared = swarm(1)
    join(shared, "a", 0, capacity=0)
    join(shared, "b", capacity=1)
    first = only(shared.decide(0.0))

    bad(shared, first, Result.UNREACHABLE, 1.0)
    second = only(shared.decide(1.0))
    bad(shared, second, Result.RETURNED, 2.0)
    later = shared.decide(1.0 + Settings().unreachable_pause)

    assert first.holder_id == "a"
    assert second.holder_id == HUB
    assert only(later).holder_id == "a"


def test_who_cannot_reach_a_holder_gets_the_piece_from_another() -> None:
    shared = swarm(1)
    join(shared, "a", 0, capacity=0)
    join(shared, "b", 0, capacity=0)
    join(shared, "c")
    first = only(shared.decide(0.0))

    bad(shared, first, Result.FAILED, 1.0)

    second = only(shared.decide(1.0))
    assert {first.holder_id, second.holder_id} == {"a", "b"}


def test_a_transfer_that_hangs_is_given_another_way() -> None:
    shared = swarm(1)
    join(shared, "a", 0, capacity=0)
    join(shared, "b", 0, capacity=0)
    join(shared, "c")
    first = only(shared.decide(0.0))

    second = only(shared.decide(60.0))

    assert second.node_id == first.node_id == "c"
    assert {first.holder_id, second.holder_id} == {"a", "b"}


def test_a_node_that_the_hub_fails_rests_and_another_goes_on() -> None:
    shared = swarm(1)
    join(shared, "a")
    join(shared, "b")
    lease = only(shared.decide(0.0))

    bad(shared, lease, Result.FAILED, 1.0)

    assert only(shared.decide(1.0)).node_id != lease.node_id


def test_a_piece_given_back_is_not_granted_again_at_once() -> None:
    shared = swarm(1)
    join(shared, "a", 0, capacity=0)
    join(shared, "b")
    grant = only(shared.decide(0.0))

    bad(shared, grant, Result.RETURNED, 1.0)

    assert shared.decide(1.0) == []
    assert only(shared.decide(100.0)).piece == 0


def test_a_node_that_leaves_complete_is_a_source_and_wants_nothing() -> None:
    shared = swarm(2)
    join(shared, "a", 0, 1)
    join(shared, "b")

    shared.leave("a", complete=True, now=0.0)

    assert {grant.holder_id for grant in shared.decide(0.0)} == {"a"}


def test_an_empty_swarm_says_so() -> None:
    shared = swarm(2)
    join(shared, "a", 0, 1)
    shared.offer("b", 0.0)

    shared.leave("a", complete=False, now=1.0)
    shared.withdraw("b")

    assert shared.is_empty
    assert shared.decide(1.0) == []


@pytest.mark.parametrize("piece", [-1, 2, 10**6])
def test_outcomes_that_mean_nothing_change_nothing(piece: int) -> None:
    shared = swarm(2)
    join(shared, "a", 0, 1)
    join(shared, "b")
    granted = shared.decide(0.0)

    shared.outcome("b", piece, Result.GOT, "a", b"", 0.1, 1.0)
    shared.outcome("stranger", 0, Result.GOT, HUB, b"", 0.1, 1.0)
    shared.outcome("b", 0, Result.GOT, "stranger", b"", 0.1, 1.0)

    assert len(granted) == 2
    assert shared.decide(1.0) == []
