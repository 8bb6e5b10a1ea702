"""How a line is divided, over many made-up sites."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.line import Claim, fair_shares, next_shares

MB = 10**6
LIMITS = st.integers(100_000, 10**9)


@st.composite
def made_up(draw: st.DrawFn, limit: int) -> list[Claim]:
    """Nodes of every kind at one site."""
    rates = st.one_of(st.just(math.inf), st.floats(1, 2 * limit))
    return [
        Claim(
            f"node-{number}",
            transfers=draw(st.integers(0, 5)),
            priority=draw(st.sampled_from([0, 0, 7])),
            demand=draw(st.one_of(st.just(0.0), rates)),
            ceiling=draw(rates),
        )
        for number in range(draw(st.integers(1, 20)))
    ]


SITES = LIMITS.flatmap(lambda limit: st.tuples(st.just(limit), made_up(limit)))


@given(site=SITES)
def test_shares_never_add_up_to_more_than_the_limit_nor_any_to_more_than_its_ceiling(
    site: tuple[int, list[Claim]],
) -> None:
    limit, claims = site

    shares = fair_shares(limit, claims)

    assert sum(shares.values()) <= limit
    assert all(1 <= shares[claim.node_id] <= max(1, claim.ceiling) for claim in claims)


@given(site=SITES)
def test_nothing_of_the_line_is_left_while_a_node_may_take_more(
    site: tuple[int, list[Claim]],
) -> None:
    limit, claims = site

    shares = fair_shares(limit, claims)

    could_take_more = [
        claim for claim in claims if claim.transfers and shares[claim.node_id] < claim.ceiling - 1
    ]
    # What nodes without transfers keep to begin with, and a byte each of rounding.
    kept = sum(shares[claim.node_id] for claim in claims if not claim.transfers)
    assert kept <= 0.02 * limit
    if could_take_more:
        assert sum(shares.values()) >= limit - len(claims)


@given(site=SITES)
def test_the_order_of_the_claims_plays_no_part(site: tuple[int, list[Claim]]) -> None:
    limit, claims = site
    assert fair_shares(limit, claims[::-1]) == fair_shares(limit, claims)


@given(site=SITES)
def test_nobody_has_more_for_each_transfer_than_another_of_its_rank_that_wants_more(
    site: tuple[int, list[Claim]],
) -> None:
    limit, claims = site
    shares = fair_shares(limit, claims)
    reserve = 0.02 * limit / len(claims)
    hungry = [
        claim
        for claim in claims
        if claim.transfers
        and math.isinf(claim.demand)
        and shares[claim.node_id] < claim.ceiling - 1
    ]

    for poor in hungry:
        for rich in claims:
            if rich.transfers and rich.priority == poor.priority:
                for_each = (shares[poor.node_id] - reserve) / poor.transfers
                assert (shares[rich.node_id] - reserve) / rich.transfers <= for_each + 2


def test_equal_nodes_have_equal_shares_by_their_transfers() -> None:
    shares = fair_shares(30 * MB, [Claim("one", transfers=1), Claim("two", transfers=2)])

    assert shares["one"] == pytest.approx(10 * MB, rel=0.02)
    assert shares["two"] == pytest.approx(20 * MB, rel=0.02)


def test_what_a_slow_node_leaves_the_others_have_and_it_keeps_room_to_grow() -> None:
    slow, quick = Claim("slow", transfers=1, demand=2 * MB), Claim("quick", transfers=1)

    shares = fair_shares(20 * MB, [slow, quick])

    assert 2.05 * MB < shares["slow"] < 2.7 * MB
    assert sum(shares.values()) == pytest.approx(20 * MB, abs=2)


def test_a_higher_priority_has_the_line_first_and_the_others_can_begin_all_the_same() -> None:
    urgent, usual = Claim("urgent", transfers=1, priority=5), Claim("usual", transfers=4)

    shares = fair_shares(20 * MB, [urgent, usual])

    assert shares["urgent"] >= 0.95 * 20 * MB
    assert shares["usual"] >= 0.005 * 20 * MB


def test_what_a_higher_priority_leaves_the_lower_has() -> None:
    urgent = Claim("urgent", transfers=1, priority=5, ceiling=5 * MB)

    shares = fair_shares(20 * MB, [urgent, Claim("usual", transfers=1)])

    assert shares["urgent"] == 5 * MB
    assert shares["usual"] == pytest.approx(15 * MB, rel=0.01)


def test_a_node_that_has_not_begun_has_a_share_to_begin_with() -> None:
    shares = fair_shares(20 * MB, [Claim("busy", transfers=1), Claim("idle")])

    assert shares["idle"] >= 100_000
    assert shares["busy"] >= 0.97 * 20 * MB


def test_a_site_without_nodes_divides_nothing() -> None:
    assert fair_shares(1, []) == {}


@given(limit=LIMITS, data=st.data())
def test_on_the_way_to_new_shares_the_limit_holds_at_every_moment(
    limit: int, data: st.DataObject
) -> None:
    """Nodes obey in any order: what counts is the most that each may be taking."""
    before, after = data.draw(made_up(limit)), data.draw(made_up(limit))
    chance = data.draw(st.randoms())
    obeyed: dict[str, int] = dict(fair_shares(limit, before))
    targets = fair_shares(limit, after)
    held: dict[str, list[int]] = {node_id: [share] for node_id, share in obeyed.items()}
    gone = [node_id for node_id in held if node_id not in targets]
    for node_id in gone:
        del held[node_id]

    for _ in range(60):
        told = next_shares(limit, targets, {one: max(shares) for one, shares in held.items()})
        for node_id, share in told.items():
            held.setdefault(node_id, []).append(share)
        assert sum(max(shares) for shares in held.values()) <= limit + len(held)
        for node_id in chance.sample(sorted(held), max(1, len(held) // 2)):
            held[node_id] = held[node_id][-1:]

    assert {node_id: shares[-1] for node_id, shares in held.items()} == pytest.approx(
        targets, rel=0.01, abs=2
    )


def test_nobody_is_raised_while_somebody_may_still_take_without_a_limit() -> None:
    told = next_shares(10 * MB, {"new": 5 * MB, "old": 5 * MB}, {"old": math.inf})

    assert told == {"new": 1, "old": 5 * MB}
