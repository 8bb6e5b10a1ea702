"""What the Hub's headers and failures allow."""

import pytest

from router.domain.errors import HubRateLimited, HubUnavailable
from router.hub.budget import Budget, CallKind, Patience
from tests.hub.conftest import Clock


@pytest.fixture
def budget(clock: Clock) -> Budget:
    """A budget that pauses after three failures."""
    return Budget(clock.monotonic, clock.wall, Patience(failures=3, first_pause=2, longest_pause=5))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (
            {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
            55,
        ),
        ({"ratelimit": '"api";r=0;t=7', "retry-after": "90"}, 7),
        ({"Retry-After": "90"}, 90),
        ({"Retry-After": "Thu, 01 Jan 2026 00:02:00 GMT"}, 120),
        ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, 1),
        ({"Retry-After": "soon"}, 30),
        ({"Retry-After": "99999999"}, 3600),
        ({"RateLimit": "nonsense"}, 30),
        ({}, 30),
    ],
)
def test_a_refusal_blocks_until_the_time_that_it_tells(
    budget: Budget, clock: Clock, headers: dict[str, str], seconds: float
) -> None:
    error = budget.refused(CallKind.API, headers)

    assert error.retry_after == pytest.approx(seconds)
    clock.pass_by(seconds - 0.5)
    with pytest.raises(HubRateLimited):
        budget.admit(CallKind.API)
    clock.pass_by(1)
    budget.admit(CallKind.API)


def test_kinds_of_calls_have_their_own_limits(budget: Budget) -> None:
    budget.refused(CallKind.API, {"Retry-After": "90"})

    budget.admit(CallKind.RESOLVE)


def test_calls_that_are_left_may_be_made(budget: Budget) -> None:
    budget.answered(CallKind.API, {"RateLimit": '"api";r=1;t=55'})

    budget.admit(CallKind.API)


def test_failures_in_a_row_pause_all_calls_longer_and_longer(budget: Budget, clock: Clock) -> None:
    pauses = []
    for number in range(6):
        budget.failed("no connection")
        try:
            budget.admit(CallKind.API)
        except HubUnavailable as error:
            assert "no connection" in error.message
            pauses.append((number, error.retry_after))
            clock.pass_by(error.retry_after or 0)
    budget.admit(CallKind.RESOLVE)

    assert pauses == [(2, 2.0), (3, 4.0), (4, 5.0), (5, 5.0)]


def test_one_success_ends_the_count(budget: Budget) -> None:
    for _ in range(20):
        budget.failed("x")
        budget.failed("x")
        budget.answered(CallKind.API, {})
    budget.failed("x")

    budget.admit(CallKind.API)
