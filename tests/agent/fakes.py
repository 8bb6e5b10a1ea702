"""Transfers and a disk that do what a test says."""

import threading

from agent.assignment import TaskOrder
from agent.manifest import Manifest, ManifestFile
from agent.store import BytesFrom, FileState, Found, StoreError
from agent.transfer import TransferProgress, TransferState


class FakeTransfer:
    """Runs until the test ends it."""

    def __init__(self, order: TaskOrder) -> None:
        self.order = order
        self.stopped_keeping: bool | None = None
        self.now = TransferProgress(
            TransferState.DOWNLOADING, 0, order.manifest.total_bytes, BytesFrom(), 0.0, ""
        )
        self._ends = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        assert self._ends.wait(30)
        if self._error is not None:
            raise self._error

    def stop(self, keep_partial: bool = True) -> None:
        self.stopped_keeping = keep_partial

    def progress(self) -> TransferProgress:
        return self.now

    def digests(self) -> dict[str, str]:
        return {file.path: "d" * 64 for file in self.order.manifest.files}

    def end(self, error: Exception | None = None) -> None:
        self._error = error
        self._ends.set()


class FakeFiles:
    """A disk that notes what was removed."""

    def __init__(self) -> None:
        self.discarded: list[tuple[str, ...]] = []
        self.evicted: list[tuple[str, ...]] = []
        self.partial_bytes = 0
        self.trouble: list[StoreError] = []

    def find_file(self, manifest: Manifest, file: ManifestFile, task_id: str = "") -> Found:
        return Found(file, FileState.PARTIAL, partial_bytes=self.partial_bytes)

    def discard_partials(self, manifest: Manifest) -> int:
        self.discarded.append(tuple(file.path for file in manifest.files))
        return 1

    def evict(self, manifest: Manifest) -> int:
        if self.trouble:
            raise self.trouble.pop()
        self.evicted.append(tuple(file.path for file in manifest.files))
        return 1
