"""What a node holds, over the real store."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.inventory import Holdings, Inventory
from agent.manifest import ManifestFile
from agent.store import FileState, Found, Store
from tests.agent.support import COMMIT

pytestmark = pytest.mark.anyio


class Watched:
    """An inventory and the changes it announces."""

    def __init__(self, folder: Path, now: float = 1000.0, store: Store | None = None) -> None:
        self.seen: list[Holdings] = []
        self._change = asyncio.Event()
        self.inventory = Inventory(
            store or Store(folder / "models", folder / "state"),
            folder / "times.json",
            self._changed,
            clock=lambda: now,
        )

    def _changed(self) -> None:
        assert self.inventory.holdings is not None
        self.seen.append(self.inventory.holdings)
        self._change.set()

    async def until(self, wanted: Callable[[Holdings], object]) -> Holdings:
        async with asyncio.timeout(20):
            while not self.seen or not wanted(self.seen[-1]):
                self._change.clear()
                await self._change.wait()
        return self.seen[-1]


@asynccontextmanager
async def looking(watched: Watched) -> AsyncIterator[None]:
    running = asyncio.create_task(watched.inventory.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def put(folder: Path, name: str, content: bytes, digest: str | None = None) -> None:
    """A file as huggingface_hub leaves it."""
    repo = folder / "models" / "models--acme--tiny"
    blob = repo / "blobs" / (digest or hashlib.sha256(content).hexdigest())
    link = repo / "snapshots" / COMMIT / name
    for place in (blob.parent, link.parent):
        place.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)


async def test_an_empty_store_is_known_to_be_empty(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with looking(watched):
        holdings = await watched.until(lambda holdings: True)

    assert holdings == Holdings((), partial=False)


async def test_files_of_other_programs_are_verified_and_meanwhile_it_is_partial(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.gguf", b"content")
    watched = Watched(tmp_path)
    async with looking(watched):
        await watched.until(lambda holdings: not holdings.partial)

    first, last = watched.seen[0], watched.seen[-1]
    assert first == Holdings((), partial=True)
    (held,) = last.held
    assert (held.file.repo, held.file.commit, held.file.path) == ("acme/tiny", COMMIT, "a.gguf")
    assert held.sha256 == hashlib.sha256(b"content").hexdigest()


async def test_a_damaged_file_is_told_with_the_digest_it_has_and_read_once(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", b"damaged", digest="0" * 64)
    watched = Watched(tmp_path)
    async with looking(watched):
        holdings = await watched.until(lambda holdings: not holdings.partial)

    assert "0" * 64 not in [held.sha256 for held in holdings.held]


async def test_a_new_file_is_noticed_when_asked_to_look_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    async with looking(watched):
        await watched.until(lambda holdings: not holdings.partial)
        put(tmp_path, "a.gguf", b"content")
        watched.inventory.look_again()

        holdings = await watched.until(lambda holdings: holdings.held)

    assert holdings.held[0].file.path == "a.gguf"


class SlowStore(Store):
    """A store in which reading `a.gguf` takes until `read` is set."""

    read = threading.Event()

    def verify(self, found: Found, stopped: Callable[[], bool] = lambda: False) -> Found | None:
        """See `Store`."""
        if found.file.path == "a.gguf":
            assert self.read.wait(30)
        return super().verify(found, stopped)


async def test_a_file_that_arrives_is_told_while_another_one_is_still_being_read(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.gguf", b"found at the start")
    store = SlowStore(tmp_path / "models", tmp_path / "state")
    watched = Watched(tmp_path, store=store)
    async with looking(watched):
        await watched.until(lambda holdings: holdings.partial)
        put(tmp_path, "b.gguf", b"fetched meanwhile")
        arrived = next(file for file in store.inventory() if file.path == "b.gguf")
        expected = ManifestFile("b.gguf", arrived.size_bytes, None, "")
        store.verify(Found(expected, FileState.UNVERIFIED, arrived.location))
        watched.inventory.look_again()

        meanwhile = await watched.until(lambda holdings: holdings.held)
        store.read.set()
        in_the_end = await watched.until(lambda holdings: not holdings.partial)

    assert meanwhile.partial
    assert [held.file.path for held in meanwhile.held] == ["b.gguf"]
    assert [held.file.path for held in in_the_end.held] == ["a.gguf", "b.gguf"]


async def test_the_time_of_verification_stays_over_restarts(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", b"content")
    for now in (1000.0, 2000.0):
        watched = Watched(tmp_path, now)
        async with looking(watched):
            holdings = await watched.until(lambda holdings: not holdings.partial)

    assert [held.verified_at for held in holdings.held] == [1000.0]
