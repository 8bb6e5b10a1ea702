"""Files that were right are read again: damage on a real disk."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.manifest import Manifest
from agent.scrub import Scrub
from agent.store import FileState
from tests.agent.handover.shelf import REPO, Shelf
from tests.agent.support import manifest, until

pytestmark = pytest.mark.anyio

PIECE = 4096
CONTENT = b"".join(bytes([number]) * PIECE for number in range(5)) + b"end"


class Scrubbing:
    """A scrub over a shelf, with a clock that the test moves by hand."""

    def __init__(self, shelf: Shelf, *wanted: Manifest, interval: float = 100.0) -> None:
        self.now = 1000.0
        self.changes = 0
        self._shelf = shelf
        self._wanted = wanted
        self._interval = interval

    def scrub(self) -> Scrub:
        """One as a new process makes it."""
        return Scrub(
            self._shelf.store,
            self._shelf.folder / "scrub",
            interval=self._interval,
            rate=None,
            wanted=lambda: self._wanted,
            changed=self._changed,
            clock=lambda: self.now,
            piece_bytes=PIECE,
        )

    async def once(self) -> None:
        """One round."""
        seen = self.changes
        async with running(self.scrub()):
            await until(lambda: self.changes > seen)

    async def after(self, seconds: float) -> None:
        """One round, so much later."""
        self.now += seconds
        await self.once()

    def _changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def running(scrub: Scrub) -> AsyncIterator[None]:
    task = asyncio.create_task(scrub.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def flip(path: Path, offset: int) -> None:
    """One bit, as a disk loses it: without a trace in size or times."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def wish(path: str = "a.gguf") -> Manifest:
    return manifest(REPO, {path: CONTENT})


async def test_a_flipped_bit_is_noticed_when_its_time_has_come(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT)
    scrubbing = Scrubbing(shelf)
    await scrubbing.once()
    flip(blob, 5000)

    await scrubbing.after(99)
    early = shelf.models()
    await scrubbing.after(1)

    assert early
    assert shelf.models() == []
    assert shelf.store.locate(blob.name) is None
    assert blob.exists()  # nobody has ordered it: it is left to whoever put it there


async def test_a_right_file_stays_and_was_read(shelf: Shelf) -> None:
    shelf.put("a.gguf", CONTENT)
    scrubbing = Scrubbing(shelf)
    await scrubbing.once()

    await scrubbing.after(100)
    await scrubbing.after(100)

    assert [model.stem for model in shelf.models()] == ["a"]


async def test_an_ordered_file_goes_out_of_sight_and_keeps_its_good_pieces(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT)
    scrubbing = Scrubbing(shelf, wish())
    await scrubbing.once()
    await scrubbing.after(100)  # the pieces are known from here on
    flip(blob, 2 * PIECE + 7)

    await scrubbing.after(100)

    (found,) = shelf.store.find(wish())
    assert found.state is FileState.PARTIAL
    assert found.partial_bytes == len(CONTENT) - PIECE
    assert shelf.store.inventory() == []


async def test_before_pieces_are_known_a_damaged_file_is_fetched_whole(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT)
    scrubbing = Scrubbing(shelf, wish())
    await scrubbing.once()
    flip(blob, 5000)

    await scrubbing.after(100)

    (found,) = shelf.store.find(wish())
    assert (found.state, found.partial_bytes) == (FileState.ABSENT, 0)
    assert not blob.exists()


async def test_a_damaged_content_with_two_names_is_held_under_neither(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT)
    shelf.put("b.gguf", CONTENT)
    scrubbing = Scrubbing(shelf, wish(), wish("b.gguf"))
    await scrubbing.once()
    flip(blob, 5000)

    await scrubbing.after(100)

    assert not shelf.store.holds(wish())
    assert not shelf.store.holds(wish("b.gguf"))


async def test_a_hard_link_in_an_engines_folder_does_not_hide_damage(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT)
    os.link(blob, shelf.folder / "elsewhere")
    scrubbing = Scrubbing(shelf, wish())
    await scrubbing.once()
    flip(blob, 5000)

    await scrubbing.after(100)

    (found,) = shelf.store.find(wish())
    assert found.state is FileState.DAMAGED


async def test_a_missing_file_is_logged(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    scrubbing = Scrubbing(shelf, wish())

    async with running(scrubbing.scrub()):
        await until(lambda: scrubbing.changes)

    messages = [record.message for record in caplog.records]
    assert messages == ["a model that was ordered here is damaged or gone"]


async def test_reading_again_is_no_use_of_a_file(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", CONTENT, written_at=1)
    scrubbing = Scrubbing(shelf)
    await scrubbing.once()
    before = blob.stat().st_atime_ns

    await scrubbing.after(100)

    assert blob.stat().st_atime_ns == before


async def test_without_an_interval_nothing_runs(shelf: Shelf) -> None:
    shelf.put("a.gguf", CONTENT)
    scrubbing = Scrubbing(shelf, interval=0)

    await scrubbing.scrub().run()

    assert scrubbing.changes == 0
