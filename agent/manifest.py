"""What a model is to an agent: exact files, checked against the grammar of names once more."""

from dataclasses import dataclass

from protos import names

ROUTER_SCHEME = "router:"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its path in the repository, its size in bytes, its SHA-256 when it is known.

    `url` is where the Hub serves it, pinned to the manifest's commit, or `router:/path` for what
    the router itself has. Without a digest (a small file that the Hub keeps in git) the first
    verified download fixes it.
    """

    path: str
    size_bytes: int
    sha256: str | None
    url: str

    @property
    def is_from_router(self) -> bool:
        """Whether the router itself has the file."""
        return self.url.startswith(ROUTER_SCHEME)

    def __post_init__(self) -> None:
        names.file_path(self.path)
        if self.sha256 is not None:
            names.sha256(self.sha256)
        if self.size_bytes < 0:
            raise names.InvalidName(f'"{self.path}" has a negative size')


@dataclass(frozen=True, slots=True)
class Manifest:
    """The exact files of one model at one commit, the first file first."""

    model_name: str
    repo: str
    revision: str  # the branch or tag that was asked for: `refs/<revision>` of the cache
    commit: str
    manifest_id: str
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        names.repo_id(self.repo)
        names.revision(self.revision)
        names.commit(self.commit)
        if not self.files:
            raise names.InvalidName(f'the manifest of "{self.model_name}" names no file')

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)
