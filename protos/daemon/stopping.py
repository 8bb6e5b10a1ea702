"""Stopping on request: SIGTERM and SIGINT become an event that the daemon waits for."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

DRAIN_SECONDS = 10.0  # SPEC: SIGTERM drains and exits 0 within this time


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yields an event that SIGTERM or SIGINT sets; enter it inside the running main-thread loop.

    The caller then drains and returns normally, so that the process exits 0. A repeated signal
    changes nothing.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
