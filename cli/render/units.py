"""Sizes, rates, spans and moments as people write and read them. Sizes are decimal: 1 GB is 10⁹."""

import math
import re
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from protos.units import STEPS, rate, size

__all__ = ["age", "parse_size", "plain", "rate", "share", "size", "size_of", "span"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?)b?|b)?", re.IGNORECASE)


def size_of(done: int, total: int) -> str:
    """How much of how much, in the unit of the whole: "0.5 / 4.9 GB"."""
    whole = size(total)
    unit = whole.split(" ")[1]
    part = f"{done / 1000 ** STEPS.index(unit):.1f}" if unit != "B" else str(done)
    return f"{part} / {whole}"


def parse_size(text: str) -> int:
    """Reads "4GB", "500 MB", "1.5g", "2GiB" or a plain number of bytes.

    Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f'"{text}" is not a size: write for example 500MB, 4.5GB or 2GiB')
    number, letter, binary = match.groups()
    power = "kmgtp".index(letter.lower()) + 1 if letter else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


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
