"""Contents in the router's data folder, each in a file named by its SHA-256.

Below the folder, `blobs/<sha256>` are kept: complete, verified, flushed. `incoming/` holds what is
not, and is emptied at every start.
"""

import errno
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from protos import names
from router.domain.blobs import KeptFile
from router.domain.errors import InsufficientDisk

_FULL = (errno.ENOSPC, errno.EDQUOT)


class BlobFolder:
    """Implements `KeptBlobs` over one folder of this process. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        """Forgets what an earlier process did not finish; makes nothing. Raises `OSError`."""
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._lock = threading.Lock()
        if self._incoming.exists():
            shutil.rmtree(self._incoming)
        present = self._blobs.iterdir() if self._blobs.exists() else ()
        self._kept = {path.name for path in present if _is_sha256(path.name)}

    def has(self, sha256: str) -> bool:
        """See `KeptBlobs`."""
        return sha256 in self._kept

    def find(self, sha256: str) -> KeptFile | None:
        """See `KeptBlobs`."""
        if sha256 not in self._kept:
            return None
        path = self._blobs / sha256
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return KeptFile(sha256, str(path), found.st_size, found.st_mtime_ns, found.st_ino)

    def free_bytes(self) -> int:
        """See `KeptBlobs`."""
        place = self._blobs
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def take_in(self) -> "FolderIntake":
        """See `KeptBlobs`."""
        folder = self._incoming / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return FolderIntake(self, folder)

    def collect(self, wanted: Callable[[], set[str]]) -> int:
        """See `KeptBlobs`."""
        with self._lock:
            gone = self._kept - wanted() if self._kept else set()
            self._kept -= gone
            for sha256 in gone:
                (self._blobs / sha256).unlink(missing_ok=True)
        return len(gone)

    def keep(self, folder: Path, digests: set[str], also: Callable[[], None]) -> None:
        """Moves finished contents of `folder` to those that are kept; see `Intake.keep`."""
        with self._lock:
            new = digests - self._kept
            self._blobs.mkdir(parents=True, exist_ok=True)
            try:
                for sha256 in new:
                    (folder / sha256).rename(self._blobs / sha256)
                _flush_folder(self._blobs)
                _flush_folder(self._blobs.parent)
                self._kept |= new  # before anybody is told of the models
                also()
            except BaseException:
                self._kept -= new
                for sha256 in new:
                    (self._blobs / sha256).unlink(missing_ok=True)
                raise


class FolderIntake:
    """Implements `Intake`: a folder of its own for what comes in."""

    def __init__(self, blobs: BlobFolder, folder: Path) -> None:
        """Made by `BlobFolder.take_in`."""
        self._blobs = blobs
        self._folder = folder
        self._finished: set[str] = set()
        self._sha256 = ""
        self._file: BinaryIO | None = None

    def begin(self, sha256: str) -> None:
        """See `Intake`."""
        assert self._file is None
        self._sha256 = names.sha256(sha256)
        self._file = (self._folder / sha256).open("xb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """See `Intake`."""
        assert self._file is not None
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _named(error) from error

    def finish(self) -> None:
        """See `Intake`."""
        assert self._file is not None
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise _named(error) from error
        self._file = None
        self._finished.add(self._sha256)

    def keep(self, also: Callable[[], None]) -> None:
        """See `Intake`."""
        assert self._file is None
        self._blobs.keep(self._folder, self._finished, also)
        self.discard()

    def discard(self) -> None:
        """See `Intake`."""
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _named(error: OSError) -> Exception:
    if error.errno in _FULL:
        return InsufficientDisk("the disk of the router's data folder is full: nothing was kept")
    return error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_sha256(text: str) -> bool:
    try:
        names.sha256(text)
    except names.InvalidName:
        return False
    return True
