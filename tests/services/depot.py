"""A world whose nodes serve what they hold, and whose router takes bundles in and out."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from router.domain.catalog import FileRole, ModelFile, Variant
from router.domain.models import Model
from router.domain.nodes import Hello, Settings
from router.services.bundle_import import Imported
from router.services.bundles import Bundles
from router.services.sessions import Session
from router.services.sources import Sources
from router.storage.blobs import BlobFolder
from tests.fakes.catalog import gguf_repo
from tests.fakes.contents import KEY, FakeReader
from tests.services.world import GB, World

WEIGHTS = bytes(range(256)) * 20 + b"tail"
OTHER = b"other weights" * 300
PROJECTOR = b"a projector of several models"


def sha256(content: bytes) -> str:
    """The digest by which a content is known."""
    return hashlib.sha256(content).hexdigest()


class Depot:
    """One site. Two models are registered unless told otherwise, which share one file."""

    def __init__(self, folder: Path, *, registered: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.world = world = World(folder)
        self.reader = FakeReader(world.clock().timestamp())
        self.restart()
        for repo, content in (("o/a", WEIGHTS), ("o/b", OTHER)):
            files = (
                ModelFile("m-Q4_K_M.gguf", len(content), sha256(content), FileRole.MODEL),
                ModelFile("mmproj.gguf", len(PROJECTOR), sha256(PROJECTOR), FileRole.MMPROJ),
            )
            world.catalog.repos[repo] = gguf_repo(repo, Variant(repo, "Q4_K_M", files))
            if registered:
                world.register(repo)

    def restart(self) -> None:
        """As after a crash."""
        world = self.world
        world.restart()
        self.kept = BlobFolder(self.folder / "bundles")
        self.sources = Sources(
            world.store,
            world.plans,
            world.orders,
            world.presence,
            world.board,
            self.kept,
            self.reader,
            KEY,
            world.clock,
        )
        self.bundles = Bundles(
            world.store,
            world.models,
            world.holdings,
            self.sources,
            self.kept,
            self.reader,
            world.watchers,
            world.clock,
        )

    def connect(self, node_id: str, *addresses: str, seen: str = "", free: int = GB) -> Session:
        """A node that serves at these addresses says hello."""
        hello = Hello(
            node_id=node_id,
            name=node_id,
            version="1",
            labels={},
            memory_bytes=GB,
            gpus=(),
            disk_free_bytes=free,
            disk_total_bytes=2 * GB,
            settings=Settings(),
            instance="i",
            peer_addresses=addresses,
            seen_host=seen,
        )
        session = self.world.sessions.open(hello)
        session.disk = (free, 2 * GB)
        return session

    def hold(self, node_id: str, address: str, seen: str = "127.0.0.1") -> Session:
        """A node that holds both models, and serves them at an address."""
        session = self.connect(node_id, address, seen=seen)
        models = self.world.store.models()
        self.world.take_inventory(session, [model.manifest for model in models])
        self.reader.put(address, WEIGHTS, OTHER, PROJECTOR)
        return session

    def model(self, repo: str = "o/a") -> Model:
        """A registered model."""
        return self.world.models.of_repo(repo)[0]

    def export(self, *references: str) -> bytes:
        """A whole bundle."""
        export = self.bundles.export(references or ("o/a", "o/b"))
        content = b"".join(export.chunks)
        assert len(content) == export.size_bytes
        return content

    def take_in(self, bundle: bytes, step: int = 700) -> Imported:
        """Imports a bundle in pieces."""
        taking = self.bundles.take_in()
        try:
            for start in range(0, len(bundle), step):
                taking.feed(bundle[start : start + step])
            return taking.finish()
        finally:
            taking.discard()

    def leftovers(self) -> list[str]:
        """Everything that lies in the folder of bundles, kept or not."""
        root = self.folder / "bundles"
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def packed(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar file with these members, as any tar program would write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpacked(bundle: bytes) -> list[tuple[str, bytes]]:
    """The members of a tar file."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            members.append((info.name, file.read()))
    return members
