"""A ceiling for the models on disk: what no order wants goes, the least recently used first."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.background import Checks
from agent.manifest import Manifest, ManifestFile
from agent.store import Claim, StoredFile, StoreError
from agent.store.cache import digest_in_name
from agent.store.loadable import shard_set
from protos.daemon.logs import get_logger

log = get_logger(__name__)

Content = tuple[str, ...]  # a SHA-256, or where a file without one belongs


class Shelves(Protocol):
    """The part of the store that the quota needs."""

    @property
    def models_dir(self) -> Path:
        """The cache's folder."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file."""

    def needed_bytes(self, manifest: Manifest) -> int:
        """How much more disk a manifest needs."""

    def try_claim(self, manifest: Manifest, file: ManifestFile) -> Claim | None:
        """The right to bring or remove a content; None while somebody else has it."""

    def evict(self, manifest: Manifest) -> int:
        """Removes files, except contents that another snapshot shows; the bytes freed."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Files that only make sense together, and when any of them was last used."""

    files: tuple[StoredFile, ...]
    used_at: float


class Quota:
    """Keeps the models folder below `max_bytes` whenever something is to be fetched.

    `wanted` are the manifests of every order: brought, being brought, or to be brought. Safe for
    several threads.
    """

    def __init__(
        self,
        store: Shelves,
        max_bytes: int | None,
        wanted: Callable[[], Iterable[Manifest]],
        checks: Checks | None = None,
        is_served: Callable[[Path], bool] = lambda path: False,
    ) -> None:
        """`checks` are the files that this agent reads only to verify them.

        `is_served` says whether a file is being read by another node just now.
        """
        self._store = store
        self._max_bytes = max_bytes
        self._wanted = wanted
        self._checks = checks or Checks()
        self._is_served = is_served
        self._lock = threading.Lock()
        self._coming: list[Manifest] = []

    @contextlib.contextmanager
    def room_for(self, manifest: Manifest) -> Iterator[None]:
        """Sees to it that a manifest fits while the body fetches it; what else is fetched counts.

        Raises `StoreError` `quota_exceeded` with the figures.
        """
        if self._max_bytes is None:
            yield
            return
        with self._lock:
            self._make_room(manifest, self._max_bytes)
            self._coming.append(manifest)
        try:
            yield
        finally:
            with self._lock:
                self._coming.remove(manifest)

    def _make_room(self, manifest: Manifest, max_bytes: int) -> None:
        needed = self._store.needed_bytes(manifest)
        if not needed:
            return
        promised = sum(self._store.needed_bytes(other) for other in self._coming)
        used = used_bytes(self._store.models_dir)
        for unit in sorted(self._units(manifest), key=lambda unit: unit.used_at):
            if used + promised + needed <= max_bytes:
                return
            if self._evict(unit, manifest):
                used = used_bytes(self._store.models_dir)
        if used + promised + needed > max_bytes:
            coming = f", {promised} are promised to other downloads" if promised else ""
            raise StoreError(
                "quota_exceeded",
                f'"{manifest.model_name}" needs {needed} more bytes; of the {max_bytes} that the '
                f"models of this node may take {used} are used{coming}, and nothing more can go: "
                "the rest is ordered or in use; evict a model, or raise --max-store",
                retryable=True,
            )

    def _units(self, coming: Manifest) -> list[_Unit]:
        """What may go: no content of it is wanted, whatever it is called."""
        wanted = self._contents_wanted(coming)
        units: dict[tuple[str, str, str], list[StoredFile]] = {}
        for file in self._store.inventory():
            units.setdefault((file.repo, file.commit, shard_set(file.path)), []).append(file)
        return [
            _Unit(tuple(files), max(_used_at(file) for file in files))
            for files in units.values()
            if not any(wanted & _contents(file) for file in files)
        ]

    def _contents_wanted(self, coming: Manifest) -> set[Content]:
        manifests = [*self._wanted(), *self._coming, coming]
        return {
            content
            for manifest in manifests
            for file in manifest.files
            for content in _contents_of(manifest, file)
        }

    def _evict(self, unit: _Unit, coming: Manifest) -> bool:
        """Removes one unit, unless it is used or has come to be wanted; whether it did."""
        first = unit.files[0]
        if any(self._is_used(file.location) for file in unit.files):
            log.info("a model in use stays", repo=first.repo, path=first.path)
            return False
        with contextlib.ExitStack() as claims:
            for file in unit.files:
                manifest = _manifest(first, [(file, file.sha256 or digest_in_name(file.location))])
                claim = self._store.try_claim(manifest, manifest.files[0])
                if claim is None:
                    return False
                claims.callback(claim.release)
            # An order that came before the claims is seen now; one that comes later waits for them.
            wanted = self._contents_wanted(coming)
            if any(wanted & _contents(file) for file in unit.files):
                return False
            # Without digests: partial files of the same contents are not the quota's business.
            freed = self._store.evict(_manifest(first, [(file, None) for file in unit.files]))
        log.warning(
            "removed to keep the quota: no order wants it",
            repo=first.repo,
            path=first.path,
            files=len(unit.files),
            freed_bytes=freed,
        )
        return True

    def _is_used(self, path: Path) -> bool:
        """Whether any program has a file open or mapped, other than to verify it."""
        if self._is_served(path):
            return True
        return _is_open_elsewhere(path) if path in self._checks else _is_open(path)


def used_bytes(models_dir: Path) -> int:
    """The disk that a cache's models take, unfinished ones too; a content counts once."""
    taken: dict[tuple[int, int], int] = {}
    folders = (*models_dir.glob("models--*"), models_dir / "blobs", models_dir / ".locks")
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                stat = path.lstat()
                if not path.is_symlink() and not path.is_dir():
                    taken[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(taken.values())


def _is_open(path: Path) -> bool:
    """Whether any process has a file open or mapped.

    The kernel gives a write lease only on a file that nobody else has open (fcntl(2), F_SETLEASE).
    Where there are no leases, nobody counts: removing a name never takes a content from a reader.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Whoever opens the file in this moment must not cost us a SIGIO, which would be the end.
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        return False
    finally:
        os.close(descriptor)


def _is_open_elsewhere(path: Path) -> bool:
    """The same for other processes alone, as far as this user may look at them (proc(5))."""
    try:
        wanted = path.stat()
    except OSError:
        return False
    inode = str(wanted.st_ino)
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and fields[4] == inode and fields[5] == str(path):
                    return True
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.path.samestat(descriptor.stat(), wanted):
                        return True
    return False


_F_SETSIG = 10  # fcntl.h; missing in the module


def _used_at(file: StoredFile) -> float:
    try:
        stat = file.location.stat()
    except OSError:
        return 0.0
    return max(stat.st_atime, stat.st_mtime)


def _contents(file: StoredFile) -> set[Content]:
    digests = {file.sha256, digest_in_name(file.location)} - {None}
    return {(file.repo, file.commit, file.path), *((str(digest),) for digest in digests)}


def _contents_of(manifest: Manifest, file: ManifestFile) -> set[Content]:
    place = manifest.repo, manifest.commit, file.path
    return {place} if file.sha256 is None else {place, (file.sha256,)}


def _manifest(first: StoredFile, files: list[tuple[StoredFile, str | None]]) -> Manifest:
    """A manifest of files that are here already."""
    listed = tuple(
        ManifestFile(file.path, file.size_bytes, _sha256(digest), url="") for file, digest in files
    )
    return Manifest(first.path, first.repo, first.commit, first.commit, "", listed)


def _sha256(digest: str | None) -> str | None:
    return digest if digest is not None and len(digest) == 64 else None
