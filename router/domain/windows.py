"""A part of every day in which an order may use the line, by the wall clock of a time zone."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from router.domain.errors import InvalidOptions

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` until before `end`, both "HH:MM"; over midnight when `end` is the earlier one.

    `time_zone` is a name of the IANA database; "" is the zone of the router's machine. What counts
    is what a clock on the wall shows: on the day on which the hour from 02:00 is left out, a window
    within that hour does not open; on the day on which it comes twice, it opens twice. A zone
    that this machine, unlike the one that took it in, does not know is its own zone.
    """

    start: str
    end: str
    time_zone: str = ""

    @property
    def text(self) -> str:
        """`22:00-06:00 Europe/Berlin`."""
        return f"{self.start}-{self.end} {self.time_zone}".strip()

    def is_open(self, now: datetime) -> bool:
        """Whether `now`, an aware moment, lies within; it can change at whole minutes only."""
        local = now.astimezone(_zone(self.time_zone))
        clock = time(local.hour, local.minute)
        return covers(time.fromisoformat(self.start), time.fromisoformat(self.end), clock)


def covers(start: time, end: time, clock: time) -> bool:
    """Whether a time of the day lies from `start` until before `end`.

    Over midnight when `end` is not after `start`; the whole day when they are the same.
    """
    if start < end:
        return start <= clock < end
    return clock >= start or clock < end


def knows_zone(name: str) -> bool:
    """Whether this machine knows a time zone of this name; "" is its own."""
    try:
        return not name or bool(ZoneInfo(name))
    # A name may also be no file's name at all, or that of a folder.
    except (KeyError, ValueError, OSError):
        return False


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except ZoneInfoNotFoundError:
        return None


def check(window: Window) -> None:
    """Raises `InvalidOptions` for what names no part of a day."""
    for name, text in (("start", window.start), ("end", window.end)):
        if not _CLOCK.fullmatch(text):
            raise InvalidOptions(
                f'the window\'s {name} "{text}" is not a time of day: write HH:MM, 00:00 to 23:59',
                param="window",
            )
    if window.start == window.end:
        raise InvalidOptions(
            f"the window starts and ends at {window.start}: it would never open", param="window"
        )
    if not knows_zone(window.time_zone):
        raise InvalidOptions(
            f'time zone "{window.time_zone[:100]}" is not known here: '
            'write a name of the IANA database, like "Europe/Berlin"',
            param="window",
        )
