"""What the tests of several rooms share."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], *, within_seconds: float = 20.0) -> Value:
    """Asks again and again until the condition is true; returns its value.

    For states that announce themselves by no event. Raises `AssertionError` after the deadline.
    """
    deadline = time.monotonic() + within_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {within_seconds:.0f} s"
        time.sleep(0.02)
    return value
