"""Reads verified files again from time to time: disks forget."""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.background import Checks, be_nice
from agent.durable import write_durably
from agent.manifest import Manifest
from agent.store import StoredFile, StoreError
from agent.store.buffers import page_buffer
from agent.store.loadable import is_sound
from agent.transfer import RateLimit
from protos.daemon.logs import get_logger

log = get_logger(__name__)

PIECE_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_LOOK_SECONDS = 300.0
_ROUND_SECONDS = 30.0


class Shelves(Protocol):
    """The part of the store that scrubbing needs."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file; `sha256` is None until it has been verified."""

    def holds(self, manifest: Manifest) -> bool:
        """Whether every file is verified and visible."""

    def discredit(self, location: Path, sha256: str) -> None:
        """Notes that a file turned out to have another content than was verified."""

    def salvage(self, file: StoredFile, good: Sequence[tuple[int, int]]) -> bool:
        """Makes a damaged file an unfinished one that lacks all but `good`; whether it could."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """When a content was read last, and the CRC-32 of each of its pieces then."""

    at: float
    piece_bytes: int = 0
    crcs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reading:
    sha256: str
    crcs: tuple[int, ...]


class Scrub:
    """Reads each verified file once in `interval` seconds, at low priority, at most at `rate`.

    A file that turns out damaged is no longer held. When one of the `wanted` models needs it, its
    good pieces stay, so that a repair fetches the others only. `changed` is called in the event
    loop after damage, and every few minutes, so that missing files are noticed too. `folder` keeps
    what was read when.
    """

    def __init__(
        self,
        store: Shelves,
        folder: Path,
        *,
        interval: float,
        rate: int | None,
        wanted: Callable[[], Iterable[Manifest]],
        changed: Callable[[], None],
        checks: Checks | None = None,
        clock: Callable[[], float] = time.time,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._store = store
        self._folder = folder
        self._interval = interval
        self._rate = RateLimit(rate)
        self._wanted = wanted
        self._changed = changed
        self._checks = checks or Checks()
        self._clock = clock
        self._piece_bytes = piece_bytes
        self._stopping = threading.Event()
        self._missing: set[str] = set()

    async def run(self) -> None:
        """Scrubs until cancelled."""
        if self._interval <= 0:
            return
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "scrub", initializer=be_nice) as background:
            try:
                while True:
                    rest = await loop.run_in_executor(background, self._round)
                    self._changed()
                    await asyncio.sleep(min(rest, _LOOK_SECONDS))
            finally:
                self._stopping.set()
                self._rate.wake()

    def _round(self) -> float:
        """Reads files that are due, until one is damaged or some time has gone by.

        Returns the seconds until the next one is due.
        """
        try:
            files = self._store.inventory()
            self._notice_missing()
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._scrub(files)
        except (StoreError, OSError) as error:
            log.error("the models cannot be verified again", cause=str(error))
            return _LOOK_SECONDS

    def _notice_missing(self) -> None:
        missing = {model.model_name for model in self._wanted() if not self._store.holds(model)}
        for name in sorted(missing - self._missing):
            log.error("a model that was ordered here is damaged or gone", model=name)
        self._missing = missing

    def _scrub(self, files: Iterable[StoredFile]) -> float:
        contents: dict[int, list[StoredFile]] = {}
        for file in files:
            with contextlib.suppress(OSError):
                if is_sound(file):
                    contents.setdefault(file.location.stat().st_ino, []).append(file)
        self._forget({str(same[0].sha256) for same in contents.values()})
        begun = self._clock()
        rest = self._interval
        for same in contents.values():
            sums = self._known(same[0])
            due = sums.at + self._interval - self._clock()
            if due <= 0:
                with self._checks.reading(same[0].location):
                    is_right = self._check(same, sums)
                if not is_right or self._clock() - begun > _ROUND_SECONDS:
                    return 0.0
                due = self._interval
            rest = min(rest, due)
        return max(rest, 0.0)

    def _check(self, same: Sequence[StoredFile], sums: _Sums) -> bool:
        """Reads one content, which may have several names; false when it was not read as right."""
        file = same[0]
        before = _fingerprint(file.location)
        reading = self._read(file.location)
        if reading is not None and reading.sha256 != file.sha256:
            log.warning("a file reads differently than before", file=str(file.location))
            reading = self._read(file.location)
            if reading is not None and reading.sha256 == file.sha256:
                log.error(
                    "a file read wrongly once and rightly then: disk or memory is failing",
                    file=str(file.location),
                )
        if reading is None or _fingerprint(file.location) != before:
            return False  # stopped, or somebody has written to it: then it is verified anew anyway
        if reading.sha256 == file.sha256:
            self._remember(file, _Sums(self._clock(), self._piece_bytes, reading.crcs))
            return True
        good = _good(file.size_bytes, sums, reading, self._piece_bytes)
        repaired = self._is_wanted(file) and self._store.salvage(file, good)
        for other in same if not repaired else same[1:]:
            self._store.discredit(other.location, reading.sha256)
        log.error(
            "a file is damaged",
            repo=file.repo,
            path=file.path,
            file=str(file.location),
            expected=file.sha256,
            found=reading.sha256,
            good_bytes=sum(end - start for start, end in good),
            set_aside=repaired,
        )
        return False

    def _is_wanted(self, file: StoredFile) -> bool:
        return any(other.sha256 == file.sha256 for model in self._wanted() for other in model.files)

    def _read(self, path: Path) -> _Reading | None:
        """Reads a file from the disk itself; None when stopped."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:  # when it was used last is for the quota, and this is no use
            descriptor = os.open(path, flags | os.O_NOATIME)
        except PermissionError:
            descriptor = os.open(path, flags)
        sha256 = hashlib.sha256()
        crcs: list[int] = []
        crc = position = 0
        buffer = page_buffer(min(_READ_BYTES, self._piece_bytes))
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while True:
                left = self._piece_bytes - position % self._piece_bytes
                count = os.readv(descriptor, [buffer[: min(left, len(buffer))]])
                if self._stopping.is_set():
                    return None
                if count == 0:
                    break
                sha256.update(buffer[:count])
                crc = zlib.crc32(buffer[:count], crc)
                position += count
                if position % self._piece_bytes == 0:
                    crcs.append(crc)
                    crc = 0
                    os.posix_fadvise(descriptor, 0, position, os.POSIX_FADV_DONTNEED)
                self._rate.take(count, self._stopping.is_set)
            if position % self._piece_bytes:
                crcs.append(crc)
            return _Reading(sha256.hexdigest(), tuple(crcs))
        finally:
            os.close(descriptor)

    # What was read when

    def _known(self, file: StoredFile) -> _Sums:
        """A content that is seen for the first time was verified just now."""
        path = self._folder / f"{file.sha256}.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_bytes())
            crcs = tuple(int(crc) for crc in content["crcs"])
            return _Sums(float(content["at"]), int(content["piece_bytes"]), crcs)
        sums = _Sums(self._clock())
        self._remember(file, sums)
        return sums

    def _remember(self, file: StoredFile, sums: _Sums) -> None:
        content = {"at": sums.at, "piece_bytes": sums.piece_bytes, "crcs": sums.crcs}
        write_durably(self._folder / f"{file.sha256}.json", json.dumps(content).encode())

    def _forget(self, present: set[str]) -> None:
        """Drops what was read of contents that are gone for good."""
        wanted = {str(file.sha256) for model in self._wanted() for file in model.files}
        for path in self._folder.glob("*.json"):
            if path.stem not in present | wanted:
                path.unlink(missing_ok=True)


def _good(size: int, sums: _Sums, reading: _Reading, piece_bytes: int) -> list[tuple[int, int]]:
    """The ranges that read as they did when the file was right."""
    if sums.piece_bytes != piece_bytes or len(sums.crcs) != len(reading.crcs):
        return []
    return [
        (index * piece_bytes, min(size, (index + 1) * piece_bytes))
        for index, (then, now) in enumerate(zip(sums.crcs, reading.crcs, strict=True))
        if then == now
    ]


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
