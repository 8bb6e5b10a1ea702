"""A node's store, a source that can misbehave, and transfers between them."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.manifest import Manifest, ManifestFile
from agent.store import Store
from agent.transfer import (
    Proxies,
    RateLimit,
    SourceUrl,
    Transfer,
    TransferOptions,
    TransferStopped,
)
from tests.fakes.http_source import FaultySource

KIB = 1 << 10
MIB = 1 << 20
QUICK = TransferOptions(
    backoff_seconds=0.005,
    stall_seconds=5.0,
    piece_bytes=256 * KIB,
    window_bytes=512 * KIB,
    proxies=Proxies(),
)


class SilentLog:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        """See `Log`."""
        self.events.append((event, fields))

    def warning(self, event: str, **fields: object) -> None:
        """See `Log`."""
        self.events.append((event, fields))


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that are the same every time."""
    return random.Random(seed).randbytes(size)


def manifest_of(*files: tuple[str, bytes], digests: bool = True, repo: str = "o/r") -> Manifest:
    """A manifest of files with these contents."""
    listed = tuple(
        ManifestFile(
            path,
            len(content),
            hashlib.sha256(content).hexdigest() if digests else None,
            f"https://hub.invalid/{path}",
        )
        for path, content in files
    )
    return Manifest(f"hf/{repo}/{files[0][0]}", repo, "main", "c" * 40, "m" * 64, listed)


@dataclass
class Scene:
    """One node and one source."""

    folder: Path
    source: FaultySource
    manifest: Manifest
    options: TransferOptions = QUICK
    rate: RateLimit = field(default_factory=RateLimit)
    hub_rate: RateLimit = field(default_factory=RateLimit)
    log: SilentLog = field(default_factory=SilentLog)
    resolve: Callable[[ManifestFile], SourceUrl] | None = None

    @property
    def store(self) -> Store:
        """The store as a newly started agent opens it."""
        return Store(self.folder / "hub", self.folder / "state")

    @property
    def final(self) -> Path:
        """Where programs find the first file."""
        return (
            self.folder / "hub" / "models--o--r" / "snapshots" / ("c" * 40)
            / self.manifest.files[0].path
        )  # fmt: skip

    def transfer(self, **changes: object) -> Transfer:
        """A transfer of the manifest; `changes` are options."""
        return Transfer(
            self.manifest,
            self.store,
            replace(self.options, **changes),  # type: ignore[arg-type]
            self.rate,
            self.resolve or (lambda file: SourceUrl(self.source.url)),
            self.log,
            hub_rate=self.hub_rate,
        )

    def assert_whole(self) -> None:
        """The file is there, right, and nothing unfinished is left."""
        assert self.final.read_bytes() == self.source.content
        assert self.store.holds(self.manifest)
        assert self.leftovers() == []

    def assert_nothing_visible(self) -> None:
        """No file has a final name."""
        assert not list((self.folder / "hub").glob("models--*/snapshots/*/*"))
        assert not list((self.folder / "hub").glob("models--*/blobs/*"))

    def leftovers(self) -> list[str]:
        """Unfinished files on disk."""
        partials = self.folder / "hub" / ".locks" / "llm-router"
        return sorted(p.name for p in partials.iterdir() if p.suffix != ".lock")


class Running:
    """A transfer in a thread of its own."""

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.transfer.run()
        except BaseException as error:
            self.error = error

    def wait(self) -> BaseException | None:
        """Waits for its end and returns the error it ended with."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the transfer does not end"
        return self.error

    def stop(self, *, keep_partial: bool = True) -> None:
        """Stops it and sees that it stopped for that reason."""
        self.transfer.stop(keep_partial)
        assert isinstance(self.wait(), TransferStopped)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A node and a source with one file of 4 MiB: sixteen pieces."""
    content = random_bytes(4 * MIB)
    with FaultySource(content) as source:
        yield Scene(tmp_path, source, manifest_of(("model.gguf", content)))
