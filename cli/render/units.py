"""Sizes, rates, spans and moments as people read them. Sizes are decimal: 1 GB is 10⁹."""

import math
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from protos.units import STEPS, rate, size

__all__ = ["age", "plain", "rate", "share", "size", "size_of", "span"]


def size_of(done: int, total: int) -> str:
    """How much of how much, in the unit of the whole: "0.5 / 4.9 GB"."""
    whole = size(total)
    unit = whole.split(" ")[1]
    part = f"{done / 1000 ** STEPS.index(unit):.1f}" if unit != "B" else str(done)
    return f"{part} / {whole}"


def span(seconds: float) -> str:
    """A length of time by its two largest parts: "42s", "2m10s", "3h05m", "4d02h"."""
    whole = max(0, math.ceil(seconds))
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d{hours_left:02}h"
    if hours:
        return f"{hours}h{minutes_left:02}m"
    if minutes:
        return f"{minutes}m{seconds_left:02}s"
    return f"{whole}s"


def age(moment: Timestamp, now: datetime | None = None) -> str:
    """How long ago, by its largest part: "5s", "3m", "2h", "6d"; "-" when unset."""
    if not moment.seconds:
        return "-"
    passed = int((now or datetime.now(UTC)).timestamp() - moment.seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed >= 2 * length or (unit == "d" and passed >= length):
            return f"{passed // length}{unit}"
    return f"{max(0, passed)}s"


def share(part: int, whole: int) -> int:
    """Whole per cent, rounded down: 100 only when nothing is missing."""
    return min(100, part * 100 // whole) if whole > 0 else 0


def plain(text: str) -> str:
    """A text from outside without what could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
