"""After a change for certain, nothing older than it is told."""

import asyncio
from pathlib import Path

import pytest

from agent.inventory import Holdings, Inventory
from agent.store import StoredFile
from tests.agent.handover.shelf import Shelf

pytestmark = pytest.mark.anyio


class Slow:
    """A store whose listing is under way until the test lets it end."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.listed = asyncio.Event()
        self.go = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def inventory(self) -> list[StoredFile]:
        files = self._shelf.store.inventory()
        self._loop.call_soon_threadsafe(self.listed.set)
        asyncio.run_coroutine_threadsafe(self.go.wait(), self._loop).result(30)
        return files

    verify = None


async def test_a_look_that_began_before_a_change_is_never_told(
    tmp_path: Path, shelf: Shelf
) -> None:
    shelf.put("a.gguf", b"a")
    told: list[Holdings | None] = []
    changed = asyncio.Event()

    def note() -> None:
        told.append(inventory.holdings)
        changed.set()

    slow = Slow(shelf)
    inventory = Inventory(slow, tmp_path / "times.json", note)  # type: ignore[arg-type]
    running = asyncio.create_task(inventory.run())
    async with asyncio.timeout(30):
        await slow.listed.wait()

        shelf.remove("a.gguf")
        inventory.forget()
        slow.go.set()
        await changed.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert told == [Holdings((), partial=False)]


async def test_what_was_known_is_unknown_until_the_next_look(tmp_path: Path, shelf: Shelf) -> None:
    changed = asyncio.Event()
    inventory = Inventory(shelf.store, tmp_path / "times.json", changed.set)
    running = asyncio.create_task(inventory.run())
    async with asyncio.timeout(30):
        await changed.wait()
        changed.clear()

        inventory.forget()
        between = inventory.holdings
        await changed.wait()  # told anew although it is the same
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert between is None
    assert inventory.holdings == Holdings((), partial=False)
