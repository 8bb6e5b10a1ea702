"""Which limit counts at a moment, also on the days when clocks change."""

from datetime import UTC, datetime

import pytest

from router.domain.errors import InvalidArgument
from router.domain.line import Site, timed_rate

DAY, NIGHT = 5, 0
BERLIN = Site("a", DAY, (timed_rate("22:00", "06:00", NIGHT),), "Europe/Berlin")


def at(text: str) -> datetime:
    """A moment of UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "rate"),
    [
        # In winter Berlin is an hour ahead.
        ("2026-01-10 20:59:59", DAY),
        ("2026-01-10 21:00:00", NIGHT),
        ("2026-01-11 04:59:59", NIGHT),
        ("2026-01-11 05:00:00", DAY),
        # The night to summer time, 2026-03-29: 02:00 becomes 03:00, and the night is an hour less.
        ("2026-03-28 21:00:00", NIGHT),
        ("2026-03-29 03:59:59", NIGHT),
        ("2026-03-29 04:00:00", DAY),
        # The night back, 2026-10-25: 03:00 becomes 02:00, and the night is an hour more.
        ("2026-10-24 19:59:59", DAY),
        ("2026-10-24 20:00:00", NIGHT),
        ("2026-10-25 04:59:59", NIGHT),
        ("2026-10-25 05:00:00", DAY),
    ],
)
def test_the_clock_on_the_wall_decides(moment: str, rate: int) -> None:
    assert BERLIN.rate_at(at(moment)) == rate


@pytest.mark.parametrize(
    ("moment", "rate"),
    [
        ("2026-03-29 00:59:59", DAY),  # 01:59:59
        ("2026-03-29 01:00:00", DAY),  # 03:00: 02:30 to 03:00 does not come
        ("2026-10-25 00:30:00", NIGHT),  # 02:30 for the first time
        ("2026-10-25 01:00:00", DAY),  # 02:00 again
        ("2026-10-25 01:30:00", NIGHT),  # 02:30 for the second time
        ("2026-10-25 02:00:00", DAY),  # 03:00
    ],
)
def test_a_span_that_a_change_of_clocks_leaves_out_or_repeats_counts_as_the_wall_shows_it(
    moment: str, rate: int
) -> None:
    site = Site("a", DAY, (timed_rate("02:30", "03:00", NIGHT),), "Europe/Berlin")

    assert site.rate_at(at(moment)) == rate


def test_the_first_entry_that_covers_the_moment_counts() -> None:
    site = Site("a", 9, (timed_rate("10:00", "12:00", 1), timed_rate("00:00", "00:00", 2)), "UTC")

    assert [site.rate_at(at(f"2026-01-01 {hour}:00")) for hour in (10, 12)] == [1, 2]


def test_a_site_without_a_timetable_has_one_limit() -> None:
    assert Site("a", 7, time_zone="UTC").rate_at(at("2026-01-01 00:00")) == 7


@pytest.mark.parametrize("text", ["", "24:00", "6:00", "06:00:00", "T0600", "ab:cd", "-1:00"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        timed_rate(text, "06:00", 1)
