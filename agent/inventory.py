"""What this node holds: looked at when the agent starts and whenever the store changes."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.background import Checks, be_nice
from agent.durable import write_durably
from agent.manifest import ManifestFile
from agent.store import FileState, Found, StoredFile, StoreError
from protos.daemon.logs import get_logger

log = get_logger(__name__)

MAX_FILES = 20_000  # of one inventory: it is one message


class Shelves(Protocol):
    """The part of the store that the inventory needs."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file; `sha256` is None until it has been verified."""

    def verify(self, found: Found, stopped: Callable[[], bool]) -> Found | None:
        """Hashes a file once and remembers its digest; None when `stopped` became true."""


@dataclass(frozen=True, slots=True)
class Held:
    """A visible file whose digest is known, and since when (seconds since 1970)."""

    file: StoredFile
    sha256: str
    verified_at: float


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is verified; `partial` while other visible files are still to be."""

    held: tuple[Held, ...]
    partial: bool


class Inventory:
    """Keeps `holdings` true, verifying what nobody has, one file at a time, at low priority.

    `changed` is called in the event loop after each change of `holdings`. `times_file` keeps when
    each file was verified, over restarts.
    """

    def __init__(
        self,
        store: Shelves,
        times_file: Path,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
        checks: Checks | None = None,
    ) -> None:
        self._store = store
        self._times_file = times_file
        self._changed = changed
        self._clock = clock
        self._checks = checks or Checks()
        self._times = _read_times(times_file)
        self._outdated = asyncio.Event()
        self._outdated.set()
        self._to_verify = asyncio.Event()
        self._left: list[StoredFile] = []
        self._looking = asyncio.Lock()
        self._stopping = threading.Event()
        self._given_up: set[tuple[Path, int]] = set()
        self.holdings: Holdings | None = None  # None: not known at this moment

    def look_again(self) -> None:
        """Says that the store may have changed; returns at once."""
        self._outdated.set()

    def forget(self) -> None:
        """Says that the store has changed for certain; `holdings` are None until it was looked at.

        So what the router hears after a change is never what was before it.
        """
        self.holdings = None
        self._outdated.set()

    async def run(self) -> None:
        """Looks and verifies until cancelled."""
        with ThreadPoolExecutor(1, "inventory", initializer=be_nice) as background:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._look_whenever_outdated())
                    group.create_task(self._verify_what_is_left(background))
            finally:
                self._stopping.set()

    async def _look_whenever_outdated(self) -> None:
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            async with self._looking:
                await self._look()

    async def _look(self) -> None:
        try:
            files = await asyncio.to_thread(self._store.inventory)
        except (StoreError, OSError) as error:
            log.error("the store cannot be listed", cause=str(error))
            return
        held = await asyncio.to_thread(self._held, files)
        self._left = [f for f in files if f.sha256 is None and _key(f) not in self._given_up]
        if self._outdated.is_set():
            return  # changed while it was looked at
        holdings = Holdings(held, partial=bool(self._left))
        if holdings != self.holdings:
            self.holdings = holdings
            self._changed()
        if self._left:
            self._to_verify.set()

    async def _verify_what_is_left(self, background: ThreadPoolExecutor) -> None:
        """One file after the other; reading one may take minutes, and looking goes on meanwhile."""
        loop = asyncio.get_running_loop()
        while True:
            await self._to_verify.wait()
            while self._left:
                file = self._left[0]
                await loop.run_in_executor(background, self._verify, file)
                async with self._looking:  # who began to look before would list it once more
                    self._left = [other for other in self._left if _key(other) != _key(file)]
            self._to_verify.clear()
            self._outdated.set()

    def _held(self, files: list[StoredFile]) -> tuple[Held, ...]:
        """The verified ones among the files, each with the time when that was noticed first."""
        now = self._clock()
        held = []
        times = {}
        for file in files:
            if file.sha256 is not None:
                key = str(file.location)
                sha256, at = self._times.get(key, ("", now))
                times[key] = (file.sha256, at if sha256 == file.sha256 else now)
                held.append(Held(file, file.sha256, times[key][1]))
        if times != self._times:
            self._times = times
            try:
                write_durably(self._times_file, json.dumps(times).encode())
            except OSError as error:
                log.error("the times of verification cannot be kept", cause=str(error))
        if len(held) > MAX_FILES:
            log.warning("too many files to report", files=len(held), reported=MAX_FILES)
            held = sorted(held, key=lambda one: not one.file.path.endswith(".gguf"))[:MAX_FILES]
        return tuple(held)

    def _verify(self, file: StoredFile) -> None:
        found = Found(
            ManifestFile(file.path, file.size_bytes, sha256=None, url=""),
            FileState.UNVERIFIED,
            file.location,
            linked=True,
        )
        try:
            with self._checks.reading(file.location):
                verified = self._store.verify(found, self._stopping.is_set)
        except (StoreError, OSError, ValueError) as error:
            log.warning("a file cannot be verified", file=str(file.location), cause=str(error))
            verified = None
        if verified is None or verified.state is not FileState.VERIFIED:
            self._given_up.add(_key(file))


def _read_times(path: Path) -> dict[str, tuple[str, float]]:
    """What was kept; nothing when it is damaged, which costs no more than the times."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
        kept = json.loads(path.read_bytes())
        return {key: (str(sha256), float(at)) for key, (sha256, at) in kept.items()}
    return {}


def _key(file: StoredFile) -> tuple[Path, int]:
    return file.location, file.size_bytes
