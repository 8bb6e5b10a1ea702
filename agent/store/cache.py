"""A node's store: a Hugging Face cache in which nothing unverified gets a final name."""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store.buffers import page_buffer
from agent.store.errors import StoreError, store_error
from agent.store.layout import Layout
from agent.store.locks import FileLock
from agent.store.origin import BytesFrom
from agent.store.partial import (
    WINDOW_BYTES,
    Partial,
    durable_bytes,
    make_partial_of,
    remove_partial,
    sync_folder,
)
from agent.store.shelf import Shelf
from agent.store.verified import Fingerprint, Verification, Verified

_READ_BYTES = 1 << 20


class FileState(StrEnum):
    """What the disk has of one file of a manifest."""

    VERIFIED = "verified"  # its content was hashed here, and nobody has touched it since
    UNVERIFIED = "unverified"  # the right size in the right place, not hashed yet
    DAMAGED = "damaged"  # in place, with another size or another digest
    PARTIAL = "partial"  # begun
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a manifest on this disk.

    `path` is the regular file with the content (links resolved), when there is one; `linked` says
    whether the snapshot of the manifest's commit leads to it; `sha256` is the content's digest when
    it is verified. `partial_bytes` are the durable bytes of an unfinished file.
    """

    file: ManifestFile
    state: FileState
    path: Path | None = None
    linked: bool = False
    sha256: str | None = None
    bytes_from: BytesFrom = field(default_factory=BytesFrom)
    partial_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that programs can see in the cache, whoever put it there.

    `sha256` is None until this node has verified it.
    """

    repo: str
    commit: str
    path: str
    size_bytes: int
    sha256: str | None
    location: Path


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of one content; `git_sha1` is the object id that git would give it."""

    sha256: str
    git_sha1: str | None


class Claim:
    """The right to fetch or adopt one file; nobody else on this machine has it meanwhile."""

    def __init__(self, locks: tuple[FileLock, ...]) -> None:
        self._locks = locks

    def release(self) -> None:
        """Gives the right back."""
        own, *others = self._locks
        for lock in others:
            lock.release()
        own.release(remove=True)


class Store:
    """The models of one node. Safe for several threads, and beside other programs.

    `models_dir` is a Hugging Face cache (`HF_HUB_CACHE`); `state_dir` keeps what the agent knows
    about it; `shelf` reads contents by digest, unfinished ones too. Methods raise `StoreError` when
    the disk refuses.
    """

    def __init__(self, models_dir: Path, state_dir: Path) -> None:
        try:
            self._layout = Layout(models_dir)
            state_dir.mkdir(parents=True, exist_ok=True)
            self._layout.make_folder(self._layout.partials)
            self._layout.clean_temporaries()
        except OSError as error:
            raise store_error(error, f"opening {models_dir}") from error
        self._verified = Verified(state_dir / "verified.json")
        self.shelf = Shelf(self._open_verified)
        self._coming_lock = threading.Lock()
        self._coming: list[Manifest] = []  # what the disk is promised to

    @property
    def models_dir(self) -> Path:
        """The cache's folder, links resolved."""
        return self._layout.root

    def snapshot(self, manifest: Manifest) -> Path:
        """The folder in which programs find a model's files."""
        return self._layout.snapshot(manifest)

    def free_bytes(self) -> int:
        """Bytes that this process may still write on the models' disk."""
        return shutil.disk_usage(self._layout.root).free

    def total_bytes(self) -> int:
        """The size of the models' disk."""
        return shutil.disk_usage(self._layout.root).total

    # What is here

    def holds(self, manifest: Manifest) -> bool:
        """Whether every file is verified and visible; reads no file, so it is cheap."""
        return all(f.state is FileState.VERIFIED and f.linked for f in self.find(manifest))

    def find(self, manifest: Manifest) -> list[Found]:
        """What the disk has of each file, in the manifest's order; reads no file's content."""
        return [self.find_file(manifest, file) for file in manifest.files]

    def find_file(self, manifest: Manifest, file: ManifestFile, task_id: str = "") -> Found:
        """What the disk has of one file, wherever in the cache its content is.

        A content that was fetched for `task_id` itself is accounted for where it came from, any
        other for this disk.
        """
        visible = self._layout.snapshot_file(manifest, file)
        best = Found(file, FileState.ABSENT)
        for path, own in self._candidates(manifest, file):
            state = self._state_of(file, path, own=own)
            if _RANK[state] > _RANK[best.state]:
                linked = str(path) == os.path.realpath(visible)
                best = Found(file, state, path, linked)
            if state is FileState.VERIFIED:
                break
        if best.path is not None and best.state is FileState.VERIFIED:
            record = self._record(best.path)
            if record is not None:
                bytes_from = BytesFrom(disk=file.size_bytes)
                if task_id and best.linked and record.task_id == task_id:
                    bytes_from = record.bytes_from
                return replace(best, sha256=record.sha256, bytes_from=bytes_from)
            return replace(best, state=FileState.UNVERIFIED)  # touched in this very moment
        begun = 0
        if file.sha256 is not None:
            begun = durable_bytes(
                self._layout.partial(manifest, file), file.size_bytes, file.sha256
            )
        if begun and best.state is FileState.ABSENT:
            return replace(best, state=FileState.PARTIAL, partial_bytes=begun)
        return replace(best, partial_bytes=begun)

    def inventory(self) -> list[StoredFile]:
        """Every file visible in a snapshot of the cache, whoever put it there."""
        self._verified.forget_missing()
        stored = []
        for folder in self._layout.repos():
            repo = folder.name.removeprefix("models--").replace("--", "/", 1)
            for visible in sorted(folder.glob("snapshots/*/**/*")):
                real = self._regular(visible)
                if real is None:
                    continue
                commit, _, path = (
                    visible.relative_to(folder / "snapshots").as_posix().partition("/")
                )
                record = self._record(real)
                stored.append(
                    StoredFile(
                        repo,
                        commit,
                        path,
                        real.stat().st_size,
                        None if record is None else record.sha256,
                        real,
                    )
                )
        return stored

    def locate(self, sha256: str) -> Path | None:
        """A verified file with this content, to be read, never written; None when there is none."""
        for path in reversed(self._verified.paths_of(sha256)):
            record = self._record(path)
            if record is not None and record.sha256 == sha256:
                return path
        return None

    def needed_bytes(self, manifest: Manifest) -> int:
        """How much more disk the manifest needs, with everything counted that is here already."""
        needed = 0
        for found in self.find(manifest):
            if found.state in (FileState.VERIFIED, FileState.UNVERIFIED):
                continue
            partial = self._layout.partial(manifest, found.file)
            needed += found.file.size_bytes - _set_aside(partial, found.file.size_bytes)
        return needed

    @contextlib.contextmanager
    def space_for(self, manifest: Manifest, reserve_bytes: int) -> Iterator[None]:
        """Promises a manifest the disk it needs while the body brings it.

        What is promised to others at the same time counts. Raises `insufficient_disk`, with the
        figures, when it does not fit.
        """
        with self._coming_lock:
            needed = self.needed_bytes(manifest)
            promised = sum(self.needed_bytes(other) for other in self._coming)
            free = self.free_bytes()
            if needed and needed + promised + reserve_bytes > free:
                others = f", {promised} of them promised to other downloads" if promised else ""
                raise StoreError(
                    "insufficient_disk",
                    f"{manifest.model_name} needs {needed} more bytes and {reserve_bytes} bytes "
                    f"are to stay free, but {self._layout.root} has only {free} bytes free{others};"
                    " free some space or choose another node",
                    retryable=True,
                )
            self._coming.append(manifest)
        try:
            yield
        finally:
            with self._coming_lock:
                self._coming.remove(manifest)

    # Bringing files in

    def try_claim(self, manifest: Manifest, file: ManifestFile) -> Claim | None:
        """Takes the right to fetch or adopt a file; None while another thread or program has it."""
        partial = self._layout.partial(manifest, file)
        paths = [partial.with_suffix(".lock")]
        if file.sha256 is not None:
            paths.append(self._layout.hub_lock(manifest.repo, file.sha256))
        taken: list[FileLock] = []
        try:
            for path in paths:
                self._layout.make_folder(path.parent)
                lock = FileLock(path)
                if not lock.try_acquire():
                    for other in reversed(taken):
                        other.release()
                    return None
                taken.append(lock)
        except OSError as error:
            for other in reversed(taken):
                other.release()
            raise store_error(error, "locking a file of the cache") from error
        return Claim(tuple(taken))

    def open_partial(
        self,
        manifest: Manifest,
        file: ManifestFile,
        window: int = WINDOW_BYTES,
        reserve_bytes: int = 0,
    ) -> Partial:
        """Opens the unfinished file, going on where an earlier run stopped. Needs the claim.

        A file without a digest always begins anew: nothing would tell a mixture of two versions.
        Raises `disk_full` when the disk has filled up since it was promised.
        """
        path = self._layout.partial(manifest, file)
        self._layout.make_folder(path.parent)
        if file.sha256 is None:
            remove_partial(path)
        needed = file.size_bytes - _set_aside(path, file.size_bytes)
        free = self.free_bytes() - reserve_bytes
        if needed > free:
            raise StoreError(
                "disk_full",
                f'the disk has filled up, "{file.path}" does not fit any more',
                retryable=True,
            )
        partial = Partial(path, file.size_bytes, file.sha256 or "unknown", window)
        if file.sha256 is not None:
            self.shelf.put(file.sha256, partial)
        return partial

    def commit(
        self,
        manifest: Manifest,
        file: ManifestFile,
        partial: Partial,
        digests: Digests,
        task_id: str = "",
    ) -> None:
        """Gives a complete, verified file its final name, then shows it in the snapshot.

        Size, digest, flush, rename, flush of the folder, link: whatever moment this process dies
        at, a visible file is whole and right. Raises `StoreError` `digest_mismatch` rather than
        believe its caller.
        """
        if file.sha256 not in (None, digests.sha256):
            raise StoreError(
                "digest_mismatch", f'"{file.path}" has another SHA-256', retryable=True
            )
        name = file.sha256 or digests.git_sha1 or digests.sha256
        blob = self._layout.blob(manifest.repo, name)
        try:
            self._layout.make_folder(blob.parent)
            partial.make_durable()
            if partial.path.lstat().st_size != file.size_bytes:
                raise StoreError("store_failed", f"{partial.path} changed its size", retryable=True)
            partial.path.rename(blob)
            sync_folder(blob.parent)
            # In this order, so that whoever asks by digest finds one of the two at any moment.
            self._remember(blob, digests.sha256, task_id, partial.received)
            partial.forget_journal()
        except OSError as error:
            raise store_error(error, f"committing {file.path}") from error
        self._show(manifest, file, blob)

    def verify(self, found: Found, stopped: Callable[[], bool] = lambda: False) -> Found | None:
        """Reads a file that nobody has verified here, once; returns what it turned out to be.

        None when `stopped` became true. Blocks for as long as hashing takes.
        """
        path, file = found.path, found.file
        if path is None:
            raise ValueError("there is no file to verify")
        try:
            before = Fingerprint.of(path.stat())
            digests = digest_of(path, with_git=file.sha256 is None, stopped=stopped)
            if digests is None:
                return None
            if Fingerprint.of(path.stat()) != before:
                return replace(found, state=FileState.DAMAGED)
            if (file.sha256 or digest_in_name(path)) not in (digests.sha256, digests.git_sha1):
                if file.sha256 is not None:
                    self._remember(path, digests.sha256, "", BytesFrom(disk=before.size))
                return replace(found, state=FileState.DAMAGED)
            self._remember(path, digests.sha256, "", BytesFrom(disk=before.size))
        except OSError as error:
            raise store_error(error, f"reading {path}") from error
        account = BytesFrom(disk=file.size_bytes)
        return replace(found, state=FileState.VERIFIED, sha256=digests.sha256, bytes_from=account)

    def adopt(self, manifest: Manifest, found: Found) -> None:
        """Shows a verified content, from wherever in the cache, in the manifest's snapshot."""
        path, file = found.path, found.file
        if path is None or found.sha256 is None or found.state is not FileState.VERIFIED:
            raise ValueError("only a verified file can be adopted")
        if found.linked:
            return
        own = self._layout.repo(manifest.repo) / "blobs"
        if path.parent == own:
            blob = path
        else:
            blob = self._layout.blob(manifest.repo, file.sha256 or found.sha256)
            if Path(os.path.realpath(blob)) != path:
                try:
                    self._layout.make_folder(own)
                    self._link_content(path, blob)
                    sync_folder(own)
                    self._remember(blob, found.sha256, "", found.bytes_from)
                except OSError as error:
                    raise store_error(error, f"linking {file.path}") from error
        self._show(manifest, file, blob)
        remove_partial(self._layout.partial(manifest, file))

    def finish(self, manifest: Manifest) -> None:
        """Points `refs/<revision>` to the manifest's commit, as programs expect; durable."""
        if manifest.revision == manifest.commit:
            return
        ref = self._layout.ref(manifest)
        try:
            self._layout.make_folder(ref.parent)
            if ref.is_file() and ref.read_text() == manifest.commit:
                return
            temporary = self._layout.temporary()
            with temporary.open("x") as file:
                file.write(manifest.commit)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(ref)
            sync_folder(ref.parent)
        except OSError as error:
            raise store_error(error, f"writing refs/{manifest.revision}") from error

    # Letting files go

    def discard_partials(self, manifest: Manifest) -> int:
        """Removes what is unfinished of a manifest, unless somebody fetches it now.

        Returns the bytes of disk that became free.
        """
        freed = 0
        for file in manifest.files:
            claim = self.try_claim(manifest, file)
            if claim is None:
                continue
            path = self._layout.partial(manifest, file)
            try:
                with contextlib.suppress(FileNotFoundError):
                    freed += path.lstat().st_blocks * 512
                remove_partial(path)
            except OSError as error:
                raise store_error(error, f"removing {path.name}") from error
            finally:
                claim.release()
        return freed

    def evict(self, manifest: Manifest) -> int:
        """Removes a model's files, except contents that another snapshot still shows.

        Returns the bytes of disk that became free; a second call returns 0.
        """
        freed = self.discard_partials(manifest)
        try:
            return freed + self._evict(manifest)
        except OSError as error:
            raise store_error(error, f"evicting {manifest.model_name}") from error

    def _evict(self, manifest: Manifest) -> int:
        folder = self._layout.repo(manifest.repo)
        snapshot = self._layout.snapshot(manifest)
        dropped = set()
        for file in manifest.files:
            visible = self._layout.snapshot_file(manifest, file)
            if not self._layout.contains(visible.parent):
                continue
            if visible.is_symlink():
                dropped.add(Path(os.path.normpath(visible.parent / visible.readlink())))
            if os.path.lexists(visible):
                visible.unlink()
                _remove_empty(visible.parent, snapshot)
            if file.sha256 is not None:
                dropped.add(self._layout.blob(manifest.repo, file.sha256))
        shown = self._contents_shown()
        freed = sum(self._drop_blob(blob, shown) for blob in sorted(dropped))
        if not snapshot.exists():
            for ref in sorted(folder.glob("refs/**/*")):
                if ref.is_file() and ref.read_text().strip() == manifest.commit:
                    ref.unlink()
                    _remove_empty(ref.parent, folder / "refs")
        for empty in ("snapshots", "refs", "blobs", ""):
            with contextlib.suppress(OSError):
                (folder / empty).rmdir()
        self._verified.forget_missing()
        return freed

    def _drop_blob(self, blob: Path, shown: set[Path]) -> int:
        """Removes a repository's blob, and the shared content behind it, unless it is shown."""
        if blob.parent.name != "blobs" or blob.parent.parent.parent != self._layout.root:
            return 0
        real = Path(os.path.realpath(blob))
        if not os.path.lexists(blob) or real in shown:
            return 0
        freed = _freed_by_removing(real)
        if not blob.is_symlink():
            blob.unlink()
            return freed
        blob.unlink()
        shared = self._layout.root / "blobs"
        linked = any(Path(os.path.realpath(p)) == real for p in self._layout.root.glob("*/blobs/*"))
        if real.parent.parent != shared or linked:
            return 0
        lock = FileLock(real.with_name(f"{real.name}.lock"))
        if not lock.try_acquire():
            return 0
        real.unlink(missing_ok=True)
        real.with_name(f"{real.name}.refs").unlink(missing_ok=True)
        lock.release(remove=True)
        return freed

    def _contents_shown(self) -> set[Path]:
        """The regular files that some snapshot of the cache leads to."""
        return {
            Path(os.path.realpath(visible))
            for visible in self._layout.root.glob("*/snapshots/*/**/*")
            if visible.is_file()
        }

    def _link_content(self, content: Path, blob: Path) -> None:
        """Gives a content a second name in another repository, taking no space.

        A hard link, so that evicting one repository leaves the other whole; a symbolic link where
        the file system has no hard links.
        """
        temporary = self._layout.temporary()
        try:
            os.link(content, temporary)
        except OSError:
            temporary.symlink_to(os.path.relpath(content, blob.parent))
        temporary.replace(blob)

    # When a disk forgets

    def discredit(self, location: Path, sha256: str) -> None:
        """Notes that a file has turned out to have another content than was verified.

        Whoever wants the registered content fetches it again.
        """
        with contextlib.suppress(FileNotFoundError):
            self._remember(location, sha256, "", BytesFrom())

    def salvage(self, file: StoredFile, good: Iterable[tuple[int, int]]) -> bool:
        """Takes a damaged file out of sight, and keeps its `good` ranges as an unfinished file.

        Fetching it again then brings only the others; its registered digest decides in the end.
        False, and nothing is changed, when the file has other names too or is being fetched now.
        """
        wanted = ManifestFile(file.path, file.size_bytes, file.sha256, url="")
        manifest = Manifest(file.path, file.repo, file.commit, file.commit, "", (wanted,))
        own = self._layout.repo(file.repo) / "blobs"
        claim = self.try_claim(manifest, wanted)
        if claim is None:
            return False
        try:
            stat = file.location.stat()
            if file.sha256 is None or file.location.parent != own or stat.st_nlink != 1:
                return False
            partial = self._layout.partial(manifest, wanted)
            make_partial_of(file.location, partial, file.sha256, good)
        except OSError as error:
            raise store_error(error, f"setting {file.path} aside") from error
        finally:
            claim.release()
        self._verified.forget_missing()
        return True

    # Looking

    def _candidates(self, manifest: Manifest, file: ManifestFile) -> Iterator[tuple[Path, bool]]:
        """Regular files that may have the content, best first, and whether each is in our place."""
        places = [(self._layout.snapshot_file(manifest, file), True)]
        if file.sha256 is not None:
            places.append((self._layout.blob(manifest.repo, file.sha256), True))
            places += [(path, False) for path in self._verified.paths_of(file.sha256)]
            places += [(repo / "blobs" / file.sha256, False) for repo in self._layout.repos()]
        for place, own in places:
            real = self._regular(place)
            if real is not None:
                yield real, own

    def _state_of(self, file: ManifestFile, path: Path, *, own: bool) -> FileState:
        wrong = FileState.DAMAGED if own else FileState.ABSENT
        try:
            if path.stat().st_size != file.size_bytes:
                return wrong
        except FileNotFoundError:
            return FileState.ABSENT
        record = self._record(path)
        if record is None:
            known = file.sha256 is not None or digest_in_name(path) is not None
            return FileState.UNVERIFIED if known else wrong
        return FileState.VERIFIED if file.sha256 in (None, record.sha256) else wrong

    def _regular(self, path: Path) -> Path | None:
        """The regular file behind a path, if it is inside the cache."""
        if not os.path.lexists(path):
            return None  # soon seen, which counts for models of many files
        real = Path(os.path.realpath(path))
        return real if self._layout.root in real.parents and real.is_file() else None

    def _record(self, path: Path) -> Verification | None:
        try:
            return self._verified.get(path, Fingerprint.of(path.stat()))
        except FileNotFoundError:
            return None

    def _open_verified(self, sha256: str) -> int | None:
        """Opens a verified file with this content; None when there is none."""
        for path in reversed(self._verified.paths_of(sha256)):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except (FileNotFoundError, PermissionError):
                continue
            record = self._verified.get(path, Fingerprint.of(os.fstat(descriptor)))
            if record is not None and record.sha256 == sha256:
                return descriptor
            os.close(descriptor)
        return None

    def _remember(self, path: Path, sha256: str, task_id: str, bytes_from: BytesFrom) -> None:
        fingerprint = Fingerprint.of(path.stat())
        self._verified.put(path, Verification(fingerprint, sha256, task_id, bytes_from))

    def _show(self, manifest: Manifest, file: ManifestFile, blob: Path) -> None:
        """Links the snapshot's name to a blob, in one step, durably."""
        visible = self._layout.snapshot_file(manifest, file)
        try:
            self._layout.make_folder(visible.parent)
            temporary = self._layout.temporary()
            temporary.symlink_to(os.path.relpath(blob, visible.parent))
            temporary.replace(visible)
            sync_folder(visible.parent)
        except OSError as error:
            raise store_error(error, f"linking {file.path}") from error


_RANK = {
    FileState.ABSENT: 0,
    FileState.PARTIAL: 0,
    FileState.DAMAGED: 1,
    FileState.UNVERIFIED: 2,
    FileState.VERIFIED: 3,
}


def digest_of(path: Path, *, with_git: bool, stopped: Callable[[], bool]) -> Digests | None:
    """Hashes a whole file; None when `stopped` became true."""
    sha256 = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        git = git_hash(size) if with_git else None
        buffer = page_buffer(_READ_BYTES)
        while count := file.readinto(buffer):
            if stopped():
                return None
            sha256.update(buffer[:count])
            if git is not None:
                git.update(buffer[:count])
    return Digests(sha256.hexdigest(), None if git is None else git.hexdigest())


def git_hash(size: int) -> "hashlib._Hash":
    """A hash that gives the object id of a git blob of this size (git's hash-object)."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def digest_in_name(path: Path) -> str | None:
    """The digest by which huggingface_hub named a blob."""
    is_digest = re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", path.name) is not None
    return path.name if is_digest and path.parent.name == "blobs" else None


def _set_aside(partial: Path, size: int) -> int:
    """How much disk an unfinished file of this size has already."""
    try:
        return min(partial.lstat().st_blocks * 512, size)
    except FileNotFoundError:
        return 0


def _remove_empty(folder: Path, last: Path) -> None:
    """Removes empty folders upwards, `last` included."""
    while folder == last or last in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _freed_by_removing(path: Path) -> int:
    """The disk that one more `unlink` gives back: nothing while another hard link remains."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0
    return stat.st_blocks * 512 if stat.st_nlink == 1 else 0
