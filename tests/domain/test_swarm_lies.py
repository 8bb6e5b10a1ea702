"""Wrong bytes, wrong digests: who is found out, and who is not."""

from router.domain.swarm import HUB, Accusation, Grant, Result, Settings, Swarm
from tests.domain.test_swarm_decisions import bad, digest, digests, fleet, got, join, only, swarm

LIE = b"\xff" * 32


def accused(of: Swarm) -> set[str]:
    return {accusation.holder_id for accusation in of.accusations()}


def find_wrong(of: Swarm, taker: str, now: float) -> str:
    """The taker asks for a piece and finds it wrong. Returns who sent it."""
    join(of, taker, capacity=1, now=now)
    grant = only(of.decide(now))
    bad(of, grant, Result.WRONG, now)
    of.withdraw(taker)
    return grant.holder_id


def test_who_sends_wrong_bytes_is_named_and_is_a_source_no_more() -> None:
    shared = swarm(2)
    join(shared, "liar", 0, 1, capacity=0)
    join(shared, "b", capacity=1)
    first = only(shared.decide(0.0))

    bad(shared, first, Result.WRONG, 1.0)

    again = only(shared.decide(1.0))
    assert first.holder_id == "liar"
    assert again.holder_id == HUB
    assert shared.accusations() == [Accusation("liar", (first.piece,))]
    assert shared.accusations() == []


def test_nothing_that_a_liar_told_is_believed() -> None:
    shared = swarm(2)
    join(shared, "liar", 0, 1, capacity=0)
    join(shared, "b", capacity=2)
    for grant in shared.decide(0.0):
        bad(shared, grant, Result.WRONG, 1.0)

    grants = shared.decide(1.0) + shared.decide(2.0)

    assert {(grant.holder_id, grant.digest) for grant in grants} == {(HUB, b"")}


def test_a_liar_gets_no_lease_as_long_as_others_can_take_it() -> None:
    shared = swarm(40)
    join(shared, "liar", 0, capacity=8)
    join(shared, "b", capacity=8)
    taken = [grant for grant in shared.decide(0.0) if grant.holder_id == "liar"]
    bad(shared, only(taken), Result.WRONG, 0.5)

    later = [grant for tenth in range(10, 30) for grant in shared.decide(tenth / 10)]

    assert later
    assert {grant.node_id for grant in later if grant.holder_id == HUB} == {"b"}


def test_two_takers_that_find_one_digest_wrong_from_two_holders_find_its_teller_out() -> None:
    shared = swarm(1)
    shared.offer("teller", 0.0)
    shared.digests_wanted(0.0)
    shared.take_digests("teller", {0: LIE}, [], 0.0)
    shared.withdraw("teller")
    for holder in "ab":
        shared.join(holder, 1, {}, 0.0)
    join(shared, "x", capacity=0)

    first = find_wrong(shared, "t1", 1.0)
    second = find_wrong(shared, "t2", 2.0)

    assert {first, second} == {"a", "b"}
    assert "teller" in accused(shared)
    shared.decide(3.0)
    shared.set_capacity("x", 1)
    assert {wanted.holder_id for wanted in shared.digests_wanted(3.0)} <= {"a", "b"}
    assert shared.decide(3.0) == []
    shared.take_digests("a", digests(0), [], 4.0)
    shared.take_digests("b", digests(0), [], 4.0)
    freed = only(shared.decide(4.0))
    assert freed.holder_id in {"a", "b"}
    assert freed.digest == digest(0)


def test_a_taker_that_finds_everybody_wrong_is_believed_no_more() -> None:
    shared = swarm(1)
    for holder in "abcdef":
        join(shared, holder, 0, capacity=0)
    join(shared, "x", capacity=0)
    join(shared, "broken", capacity=1)

    for now in range(6):
        for grant in shared.decide(float(now)):
            bad(shared, grant, Result.WRONG, float(now))

    shared.withdraw("broken")
    shared.set_capacity("x", 1)
    assert only(shared.decide(10.0)).holder_id in set("abcdef")


def test_a_contested_piece_is_not_exchanged_until_a_majority_settles_it() -> None:
    shared = swarm(1)
    shared.join("a", 1, {0: digest(0)}, 0.0)
    shared.join("b", 1, {0: LIE}, 0.0)
    join(shared, "c", capacity=1)
    join(shared, "d", capacity=0)

    lease = only(shared.decide(0.0))
    got(shared, lease, 1.0)
    shared.set_capacity("d", 1)
    after = only(shared.decide(1.0))

    assert lease.holder_id == HUB
    assert after.digest == digest(0)
    assert after.holder_id in {"a", "c"}
    assert accused(shared) == {"b"}


def test_the_digest_of_who_holds_the_whole_file_outranks_the_others() -> None:
    shared = swarm(1)
    shared.join("a", 1, {0: LIE}, 0.0)
    shared.offer("w", 0.0)
    shared.take_digests("w", digests(0), [], 0.0)
    join(shared, "c")

    grant = only(shared.decide(0.0))

    assert grant == Grant("c", 0, "w", digest(0))
    assert accused(shared) == {"a"}


def test_digests_of_pieces_that_a_node_has_not_are_ignored() -> None:
    shared = swarm(2)
    shared.join("a", 0, {0: LIE, 1: LIE}, 0.0)
    join(shared, "b", 0, 1, capacity=0)
    shared.set_capacity("a", 2)

    grants = shared.decide(0.0)

    assert {grant.digest for grant in grants} == {digest(0), digest(1)}


def test_a_liar_of_several_files_is_a_source_of_none_for_a_while() -> None:
    known = fleet()
    for _ in range(Settings().accused_files):
        file = swarm(1, known)
        join(file, "liar", 0, capacity=0)
        join(file, "b")
        bad(file, only(file.decide(0.0)), Result.WRONG, 0.0)

    soon, later = swarm(1, known), swarm(1, known)
    sources = []
    for file, now in ((soon, 1.0), (later, Settings().accused_pause + 1)):
        join(file, "liar", 0, capacity=0, now=now)
        join(file, "c", now=now)
        sources.append(only(file.decide(now)).holder_id)

    assert sources == [HUB, "liar"]
