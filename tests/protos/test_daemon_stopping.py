"""Stopping a daemon by signal."""

import asyncio
import os
import signal

import pytest

from protos.daemon.stopping import stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_instead_of_killing(number: signal.Signals) -> None:
    async def daemon() -> bool:
        with stop_signals() as stop:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            async with asyncio.timeout(10):
                return await stop.wait()

    stopped = asyncio.run(daemon())

    assert stopped
