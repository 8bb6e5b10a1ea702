"""Digests of files as git and git LFS name content, computed once and remembered.

A file is known by path, size, modification time and inode; as long as these stay, so does its
digest. The memory is kept in a file, best effort: a folder that cannot be written costs a second
reading after a restart, nothing else.
"""

import hashlib
import io
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from protos.daemon.logs import get_logger
from router.protocol.commits import git_oid, lfs_pointer
from router.protocol.files import FileChanged

log = get_logger(__name__)

LFS_FROM_BYTES = 1 << 20
LFS_SUFFIXES = frozenset(
    [
        ".7z",
        ".arrow",
        ".bin",
        ".bz2",
        ".ckpt",
        ".ftz",
        ".gguf",
        ".gz",
        ".h5",
        ".imatrix",
        ".joblib",
        ".lz4",
        ".mlmodel",
        ".model",
        ".msgpack",
        ".npy",
        ".npz",
        ".onnx",
        ".ot",
        ".parquet",
        ".pb",
        ".pickle",
        ".pkl",
        ".pt",
        ".pth",
        ".rar",
        ".safetensors",
        ".tar",
        ".tflite",
        ".tgz",
        ".wasm",
        ".xz",
        ".zip",
        ".zst",
    ]
)
_STATE_VERSION = 1
_READ_BYTES = 1 << 20


class Stopped(Exception):
    """The process is stopping; the file was not read to its end."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a repository as the last look at the folder found it.

    `name` is its path in the repository, `path` where it really lies (links resolved).
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    inode: int

    @property
    def is_lfs(self) -> bool:
        """Whether the Hub would keep it in LFS: by suffix, or above 1 MiB."""
        return self.size > LFS_FROM_BYTES or self.suffix in LFS_SUFFIXES

    @property
    def suffix(self) -> str:
        """`.gguf`, `.json`, … in lower case; "" without one."""
        return os.path.splitext(self.name)[1].lower()  # noqa: PTH122 - many names, Path is slow

    @property
    def key(self) -> str:
        """What the digest is remembered by."""
        kind = "lfs" if self.is_lfs else "git"
        return f"{kind} {self.size} {self.mtime_ns} {self.inode} {self.path}"

    def is_still(self, size: int, mtime_ns: int, inode: int) -> bool:
        """Whether these `stat` values are those of the file that was found."""
        return (self.size, self.mtime_ns, self.inode) == (size, mtime_ns, inode)


@dataclass(frozen=True, slots=True)
class Digest:
    """`oid` is the git blob's SHA-1; of an LFS file that of its pointer, beside its SHA-256."""

    oid: str
    sha256: str | None


class Digests:
    """Computes digests in its own threads; any thread may ask."""

    def __init__(self, memory: Path, threads: int = 2) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known: dict[str, Digest] = _load(memory)
        self._running: dict[str, Future[Digest]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="digest")
        self._changed = False
        self._stopping = threading.Event()

    def of(self, file: FoundFile) -> Future[Digest]:
        """The digest, done already when it is known; raises `FileChanged` or `OSError` in it."""
        key = file.key
        with self._lock:
            if (digest := self._known.get(key)) is not None:
                done: Future[Digest] = Future()
                done.set_result(digest)
                return done
            if (running := self._running.get(key)) is None:
                running = self._running[key] = self._pool.submit(self._compute, key, file)
            return running

    def forget_others(self, files: list[FoundFile]) -> None:
        """Forgets every digest but those of these files, so that the memory does not grow."""
        keys = {file.key for file in files}
        with self._lock:
            gone = self._known.keys() - keys
            for key in gone:
                del self._known[key]
            self._changed = self._changed or bool(gone)

    def close(self) -> None:
        """Stops reading, within a moment, and saves."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._save()

    def _compute(self, key: str, file: FoundFile) -> Digest:
        try:
            digest = digest_of(file, self._stopping)
        except BaseException:
            with self._lock:
                del self._running[key]
            raise
        with self._lock:
            self._known[key] = digest
            self._changed = True
            del self._running[key]
            idle = not self._running
        if idle:
            self._save()
        return digest

    def _save(self) -> None:
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            digests = {key: [digest.oid, digest.sha256] for key, digest in self._known.items()}
            save_json(self._memory, {"version": _STATE_VERSION, "digests": digests})


def digest_of(file: FoundFile, stopping: threading.Event) -> Digest:
    """Reads the file; raises `FileChanged` when it is not the one that was found, or `Stopped`."""
    with Path(file.path).open("rb", buffering=0) as content:
        _check(file, content.fileno())
        if file.is_lfs:
            sha256 = _sha256(content, stopping)
            digest = Digest(git_oid(lfs_pointer(sha256, file.size)), sha256)
        else:
            digest = Digest(git_oid(content.read(LFS_FROM_BYTES + 1)), None)
        _check(file, content.fileno())
    return digest


def _sha256(content: io.FileIO, stopping: threading.Event) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    while count := content.readinto(buffer):
        if stopping.is_set():
            raise Stopped
        digest.update(buffer[:count])
    return digest.hexdigest()


def save_json(path: Path, content: object) -> None:
    """Writes in one step, best effort: a folder that cannot be written is logged, not an error."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        log.debug("cannot remember across restarts", path=path, error=error)


def _check(file: FoundFile, descriptor: int) -> None:
    now = os.fstat(descriptor)
    if not file.is_still(now.st_size, now.st_mtime_ns, now.st_ino):
        raise FileChanged(file.name)


def _load(memory: Path) -> dict[str, Digest]:
    try:
        saved = json.loads(memory.read_text(encoding="utf-8"))
        if saved["version"] != _STATE_VERSION:
            return {}
        return {key: Digest(str(oid), sha256) for key, (oid, sha256) in saved["digests"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning(
            "the remembered digests cannot be read, reading again", path=memory, error=error
        )
        return {}
