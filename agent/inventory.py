"""What this node holds: looked at when the agent starts and whenever the store changes."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.manifest import ManifestFile
from agent.store import FileState, Found, StoredFile, StoreError
from protos.daemon.logs import get_logger

log = get_logger(__name__)

MAX_FILES = 20_000  # of one inventory: it is one message
_NICENESS = 10


class Shelves(Protocol):
    """The part of the store that the inventory needs."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file; `sha256` is None until it has been verified."""

    def verify(self, found: Found, stopped: Callable[[], bool]) -> Found | None:
        """Hashes a file once and remembers its digest; None when `stopped` became true."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """The visible files; `partial` while some of them are still to be verified."""

    files: tuple[StoredFile, ...]
    partial: bool


class Inventory:
    """Keeps `holdings` true, verifying what nobody has, one file at a time, at low priority.

    `changed` is called in the event loop after each change of `holdings`.
    """

    def __init__(self, store: Shelves, changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed
        self._outdated = asyncio.Event()
        self._outdated.set()
        self._stopping = threading.Event()
        self._given_up: set[tuple[Path, int]] = set()
        self.holdings: Holdings | None = None  # None before the first look

    def look_again(self) -> None:
        """Says that the store has changed; returns at once."""
        self._outdated.set()

    async def run(self) -> None:
        """Looks and verifies until cancelled."""
        with ThreadPoolExecutor(1, "inventory", initializer=_be_nice) as background:
            try:
                while True:
                    await self._outdated.wait()
                    await self._look(background)
            finally:
                self._stopping.set()

    async def _look(self, background: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        self._outdated.clear()
        try:
            files = await loop.run_in_executor(background, self._store.inventory)
        except (StoreError, OSError) as error:
            log.error("the store cannot be listed", cause=str(error))
            return
        unverified = [f for f in files if f.sha256 is None and _key(f) not in self._given_up]
        self._publish(files, partial=bool(unverified))
        for file in unverified:
            await loop.run_in_executor(background, self._verify, file)
            if self._outdated.is_set():
                return
        if unverified:
            self._outdated.set()

    def _publish(self, files: list[StoredFile], *, partial: bool) -> None:
        if len(files) > MAX_FILES:
            log.warning("too many files to report", files=len(files), reported=MAX_FILES)
            files = sorted(files, key=lambda file: not file.path.endswith(".gguf"))[:MAX_FILES]
        holdings = Holdings(tuple(files), partial)
        if holdings != self.holdings:
            self.holdings = holdings
            self._changed()

    def _verify(self, file: StoredFile) -> None:
        found = Found(
            ManifestFile(file.path, file.size_bytes, sha256=None, url=""),
            FileState.UNVERIFIED,
            file.location,
            linked=True,
        )
        try:
            verified = self._store.verify(found, self._stopping.is_set)
        except (StoreError, OSError, ValueError) as error:
            log.warning("a file cannot be verified", file=str(file.location), cause=str(error))
            verified = None
        if verified is None or verified.state is not FileState.VERIFIED:
            self._given_up.add(_key(file))


def _key(file: StoredFile) -> tuple[Path, int]:
    return file.location, file.size_bytes


def _be_nice() -> None:
    """Lets the verifying thread yield to everything else (on Linux niceness is per thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
