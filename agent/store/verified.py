"""What this node has hashed before, so that no file is read twice to be believed."""

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.store.origin import BytesFrom


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when somebody writes to a file or puts another one in its place."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Fingerprint":
        """Reads it from a `stat` result."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(frozen=True, slots=True)
class Verification:
    """The SHA-256 a file had when it was read, and how its bytes had come here."""

    fingerprint: Fingerprint
    sha256: str
    task_id: str  # the task they were fetched for; "" for files found on disk
    bytes_from: BytesFrom


class Verified:
    """Remembers verifications by path, in one JSON file that is replaced whole; thread-safe.

    Losing the file costs time only: everything is hashed once more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._by_path = _load(path)

    def get(self, path: Path, fingerprint: Fingerprint) -> Verification | None:
        """The verification of exactly this state of a file."""
        with self._lock:
            found = self._by_path.get(str(path))
        return found if found is not None and found.fingerprint == fingerprint else None

    def paths_of(self, sha256: str) -> list[Path]:
        """Where this content was seen, most recent last."""
        with self._lock:
            return [Path(p) for p, v in self._by_path.items() if v.sha256 == sha256]

    def put(self, path: Path, verification: Verification) -> None:
        """Remembers one, durably."""
        with self._lock:
            self._by_path.pop(str(path), None)
            self._by_path[str(path)] = verification
            self._save()

    def forget_missing(self) -> None:
        """Drops files that are gone."""
        with self._lock:
            present = {p: v for p, v in self._by_path.items() if os.path.lexists(p)}
            if len(present) != len(self._by_path):
                self._by_path = present
                self._save()

    def _save(self) -> None:
        content = {
            path: {
                "size": v.fingerprint.size,
                "mtime_ns": v.fingerprint.mtime_ns,
                "inode": v.fingerprint.inode,
                "sha256": v.sha256,
                "task_id": v.task_id,
                "from": [
                    v.bytes_from.hub, v.bytes_from.peers, v.bytes_from.router, v.bytes_from.disk
                ],
            }
            for path, v in self._by_path.items()
        }  # fmt: skip
        temporary = self._path.with_name(f"{self._path.name}.new")
        with temporary.open("w") as file:
            file.write(json.dumps(content))  # many times faster than json.dump
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _load(path: Path) -> dict[str, Verification]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            with contextlib.suppress(KeyError, TypeError):
                return {name: _verification(v) for name, v in content.items()}
    return {}


def _verification(value: dict[str, Any]) -> Verification:
    hub, peers, router, disk = (int(n) for n in value["from"])
    return Verification(
        Fingerprint(int(value["size"]), int(value["mtime_ns"]), int(value["inode"])),
        str(value["sha256"]),
        str(value["task_id"]),
        BytesFrom(hub, peers, router, disk),
    )
