"""Supported models and the manifests that say exactly what they are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote

from protos import names
from router.domain.catalog import FileRole, GgufFacts, ModelFile, Variant


class ModelStatus(StrEnum):
    """Whether a model can be ordered."""

    REGISTERED = "registered"
    PENDING_CONVERSION = "pending_conversion"
    CONVERTING = "converting"
    CONVERSION_FAILED = "conversion_failed"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The exact files of a model at one commit: what every node gets. The first file first."""

    model_name: str
    repo: str
    revision: str
    commit: str
    quantization: str
    files: tuple[ModelFile, ...]
    manifest_id: str

    @classmethod
    def pin(
        cls,
        *,
        model_name: str,
        repo: str,
        revision: str,
        commit: str,
        quantization: str,
        files: tuple[ModelFile, ...],
    ) -> "Manifest":
        """A manifest whose id is computed from what it pins."""
        content = [(file.path, file.size_bytes, file.sha256 or "") for file in files]
        return cls(
            model_name=model_name,
            repo=repo,
            revision=revision,
            commit=commit,
            quantization=quantization,
            files=files,
            manifest_id=names.manifest_id(repo, commit, content),
        )

    def same_files(self, other: "Manifest") -> bool:
        """Whether both name the same files of the same commit, known digests or not."""
        return (self.repo, self.commit, {file.path for file in self.files}) == (
            other.repo,
            other.commit,
            {file.path for file in other.files},
        )

    @property
    def format(self) -> str:
        """`gguf` or `safetensors`."""
        return "gguf" if self.files[0].role is FileRole.MODEL else "safetensors"

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)

    def url(self, file: ModelFile, hub_url: str) -> str:
        """Where the Hub at `hub_url` serves the file, pinned to the commit."""
        return file_url(hub_url, self.repo, self.commit, file.path)


def file_url(hub_url: str, repo: str, revision: str, path: str) -> str:
    """Where a Hub serves a file: `<hub>/<owner>/<repo>/resolve/<revision>/<path>`."""
    return f"{hub_url.rstrip('/')}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def plain_name(repo: str) -> str:
    """A repository as people read it, without its owner: `tiny-llama`."""
    return repo.partition("/")[2].removesuffix("-GGUF").removesuffix("-gguf")


def variant_name(variant: Variant) -> str:
    """What people read when nobody chose a name: `tiny-llama Q4_K_M`."""
    tag = variant.quantization or variant.filename.rpartition("/")[2]
    return f"{plain_name(variant.repo)} {tag}"


@dataclass(frozen=True, slots=True)
class Model:
    """A registered variant. Sizes in bytes; None: not known."""

    name: str
    display_name: str
    status: ModelStatus
    manifest: Manifest
    required_memory_bytes: int | None
    chat_template: str | None
    facts: GgufFacts | None
    created_at: datetime


class HoldingState(StrEnum):
    """What one model is on one node."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    READY = "ready"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Holding:
    """One model on one node; `verified_at` only when it is ready."""

    model_name: str
    node_id: str
    node_name: str
    state: HoldingState
    verified_at: datetime | None = None
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as it is shown: with every node that holds it or was ordered to."""

    model: Model
    holdings: tuple[Holding, ...]

    @property
    def ready_nodes(self) -> int:
        """Number of nodes that hold it, verified."""
        return sum(holding.state is HoldingState.READY for holding in self.holdings)
