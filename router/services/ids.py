"""Ids that the router makes: short, unique, and sorted by the moment they were made."""

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS = 10
_RANDOM_DIGITS = 8


def new_id(prefix: str, now: datetime) -> str:
    """`<prefix>-<10 digits of time in ms><8 random>`: later ids are larger texts.

    Ids of the same millisecond are in no particular order.
    """
    value = int(now.timestamp() * 1000)
    digits = []
    for _ in range(_TIME_DIGITS):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    random = (secrets.choice(_ALPHABET) for _ in range(_RANDOM_DIGITS))
    return f"{prefix}-{''.join(reversed(digits))}{''.join(random)}"
