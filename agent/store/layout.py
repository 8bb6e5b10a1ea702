"""Where things are in a Hugging Face cache, and nowhere else.

The layout is that of huggingface_hub 2.x ("Understand caching" in its documentation):
`models--<owner>--<repo>/{blobs,snapshots/<commit>,refs}`. Our own unfinished files are under
`.locks/llm-router`, on the same file system, in the one folder that scanners of the cache skip.
"""

import hashlib
import os
import secrets
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store.errors import StoreError
from agent.store.partial import sync_folder
from protos import names


class Layout:
    """Paths inside one cache folder; every name is checked before it becomes part of a path."""

    def __init__(self, models_dir: Path) -> None:
        models_dir.mkdir(parents=True, exist_ok=True)
        self.root = models_dir.resolve()

    @property
    def partials(self) -> Path:
        """The folder of unfinished files."""
        return self.root / ".locks" / "llm-router"

    def repo(self, repo: str) -> Path:
        """The folder of one repository."""
        return self.root / f"models--{names.repo_id(repo).replace('/', '--')}"

    def repos(self) -> list[Path]:
        """The folders of all repositories of models."""
        return sorted(p for p in self.root.glob("models--*--*") if p.is_dir())

    def blob(self, repo: str, name: str) -> Path:
        """One content of a repository; `name` is a SHA-256, or a git object id for small files."""
        return self.repo(repo) / "blobs" / blob_name(name)

    def snapshot(self, manifest: Manifest) -> Path:
        """The folder of one commit."""
        return self.repo(manifest.repo) / "snapshots" / names.commit(manifest.commit)

    def snapshot_file(self, manifest: Manifest, file: ManifestFile) -> Path:
        """Where programs look for a file."""
        return self.snapshot(manifest) / names.file_path(file.path)

    def ref(self, manifest: Manifest) -> Path:
        """The file that says which commit a branch is at."""
        return self.repo(manifest.repo) / "refs" / names.revision(manifest.revision)

    def partial(self, manifest: Manifest, file: ManifestFile) -> Path:
        """The unfinished file; the same for all manifests that want the same content."""
        return self.partials / f"{self.partial_key(manifest, file)}.part"

    def partial_key(self, manifest: Manifest, file: ManifestFile) -> str:
        """The content's name while it is unfinished."""
        if file.sha256 is not None:
            return names.sha256(file.sha256)
        place = f"{manifest.repo}\n{manifest.commit}\n{file.path}"
        return hashlib.sha256(place.encode()).hexdigest()

    def temporary(self) -> Path:
        """A new name for a link or a small file that is renamed in the same breath."""
        return self.partials / f"{secrets.token_hex(8)}.new"

    def clean_temporaries(self) -> None:
        """Removes those whose maker died between making and renaming them."""
        for leftover in self.partials.glob("*.new"):
            leftover.unlink(missing_ok=True)

    def hub_lock(self, repo: str, name: str) -> Path:
        """The lock that huggingface_hub holds while it fetches the same blob."""
        return self.root / ".locks" / self.repo(repo).name / f"{blob_name(name)}.lock"

    def make_folder(self, folder: Path) -> None:
        """Makes a folder and its parents, durably.

        Raises `StoreError` when a link on the way would lead out of the cache.
        """
        if os.path.realpath(folder) == str(folder) and folder.is_dir():
            return  # nearly always: it is there, and no link leads to it
        current = self.root
        for part in folder.relative_to(self.root).parts:
            parent, current = current, current / part
            if not current.exists() and not current.is_symlink():
                current.mkdir(exist_ok=True)
                sync_folder(parent)
            if not self.contains(current) or not current.is_dir():
                raise StoreError(
                    "store_failed",
                    f'"{current}" is not a folder inside the models folder',
                    retryable=False,
                )

    def contains(self, path: Path) -> bool:
        """Whether a path, after all links, is inside the cache."""
        real = Path(os.path.realpath(path))
        return real == self.root or self.root in real.parents


def blob_name(text: str) -> str:
    """Checks the name of a blob: 64 or 40 hex digits."""
    if len(text) == 40:
        return names.commit(text)  # a git object id has the same grammar
    return names.sha256(text)
