"""A real store that a test fills."""

import hashlib
import os
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store import FileState, Found, Store
from agent.store.loadable import Loadable, loadable_models
from tests.agent.support import COMMIT

REPO = "acme/tiny-GGUF"


class Shelf:
    """A Hugging Face cache below a test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "models", folder / "state")

    def put(
        self,
        path: str,
        content: bytes,
        *,
        repo: str = REPO,
        commit: str = COMMIT,
        verify: bool = True,
        written_at: int | None = None,
    ) -> Path:
        """A file as huggingface_hub leaves it, verified unless said otherwise; its blob."""
        root = self.store.models_dir / f"models--{repo.replace('/', '--')}"
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        link = root / "snapshots" / commit / path
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        if written_at is not None:
            os.utime(blob, (written_at, written_at))
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
        if verify:
            file = ManifestFile(path, len(content), blob.name, "")
            self.store.verify(Found(file, FileState.UNVERIFIED, blob, linked=True))
        return blob

    def remove(self, path: str, *, repo: str = REPO, commit: str = COMMIT) -> None:
        """Takes a file out again, as `evict` does."""
        file = ManifestFile(path, 0, None, "")
        self.store.evict(Manifest("m", repo, commit, commit, "", (file,)))

    def models(self) -> list[Loadable]:
        """What an engine could load."""
        return loadable_models(self.store.inventory())
