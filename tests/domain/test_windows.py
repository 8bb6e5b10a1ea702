"""A part of every day, by the clock on the wall."""

from datetime import UTC, datetime, timedelta

import pytest

from router.domain.errors import InvalidOptions
from router.domain.windows import Window, check

BERLIN = "Europe/Berlin"


def moment(text: str) -> datetime:
    """A moment in UTC, from "MM-DD HH:MM" of 2026."""
    return datetime.strptime(f"2026-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def opened(window: Window, day: str) -> list[str]:
    """The times in UTC at which the window opens or closes on a day, "+05:00" and so on."""
    start = moment(f"{day} 00:00")
    minutes = [start + timedelta(minutes=number) for number in range(24 * 60)]
    states = [window.is_open(minute) for minute in minutes]
    return [
        f"{'+' if after else '-'}{minute:%H:%M}"
        for before, after, minute in zip(states, states[1:], minutes[1:], strict=False)
        if before != after
    ]


@pytest.mark.parametrize(
    ("window", "day", "changes"),
    [
        (Window("09:00", "17:30", "UTC"), "01-05", ["+09:00", "-17:30"]),
        (Window("22:00", "06:00", "UTC"), "01-05", ["-06:00", "+22:00"]),
        (Window("22:00", "06:00", BERLIN), "01-05", ["-05:00", "+21:00"]),
        (Window("22:00", "06:00", BERLIN), "07-05", ["-04:00", "+20:00"]),
        # Clocks are set forward at 01:00 UTC of March 29, back at 01:00 UTC of October 25.
        (Window("01:00", "05:00", BERLIN), "03-29", ["-03:00", "+23:00"]),
        (Window("02:15", "02:45", BERLIN), "03-29", []),
        (Window("01:30", "02:30", BERLIN), "03-29", ["+00:30", "-01:00", "+23:30"]),
        (Window("01:30", "03:30", BERLIN), "03-29", ["+00:30", "-01:30", "+23:30"]),
        (Window("02:15", "02:45", BERLIN), "10-25", ["+00:15", "-00:45", "+01:15", "-01:45"]),
        (Window("01:00", "05:00", BERLIN), "10-25", ["-04:00"]),
    ],
    ids=str,
)
def test_a_window_opens_and_closes_by_the_wall_clock(
    window: Window, day: str, changes: list[str]
) -> None:
    assert opened(window, day) == changes


def test_its_end_does_not_belong_to_it() -> None:
    window = Window("22:00", "06:00", "UTC")

    assert window.is_open(moment("01-05 22:00"))
    assert window.is_open(moment("01-05 05:59") + timedelta(seconds=59.9))
    assert not window.is_open(moment("01-05 06:00"))


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Window("25:00", "06:00"), "start"),
        (Window("22:00", "6:00"), "end"),
        (Window("22:00", "24:00"), "end"),
        (Window("", "06:00"), "HH:MM"),
        (Window("22:00", "22:00"), "never open"),
        (Window("22:00", "06:00", "Mars/Olympus"), "Mars/Olympus"),
        (Window("22:00", "06:00", "../../etc/passwd"), "IANA"),
        (Window("22:00", "06:00", "Europe"), "IANA"),
        (Window("22:00", "06:00", "x\0y"), "IANA"),
    ],
    ids=str,
)
def test_what_names_no_part_of_a_day_is_refused_with_a_reason(window: Window, words: str) -> None:
    with pytest.raises(InvalidOptions, match=words):
        check(window)


def test_the_zone_of_the_machine_is_a_zone() -> None:
    check(Window("22:00", "06:00"))

    assert isinstance(Window("00:00", "12:00").is_open(moment("01-05 05:00")), bool)


def test_a_zone_that_is_not_known_any_more_stops_nothing() -> None:
    kept = Window("00:00", "12:00", "Formerly/Known")

    assert kept.is_open(moment("01-05 05:00")) is Window("00:00", "12:00").is_open(
        moment("01-05 05:00")
    )
