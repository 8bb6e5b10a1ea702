"""What the Hub offers: repositories, their files, and the variants one can choose."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from protos import names


class FileRole(StrEnum):
    """What a file of a model is for."""

    MODEL = "model"  # the GGUF itself; of a sharded one, each shard
    MMPROJ = "mmproj"  # the projector of a multimodal model
    WEIGHTS = "weights"  # not GGUF yet: safetensors or PyTorch
    CONFIG = "config"  # what a conversion needs beside the weights


class Gating(StrEnum):
    """Whether the Hub asks for an access grant."""

    OPEN = "open"
    AUTO = "auto"  # granted at once when asked for
    MANUAL = "manual"  # granted by the owner


class Sort(StrEnum):
    """Orders of the catalog; all descending."""

    TRENDING = "trending"
    DOWNLOADS = "downloads"
    LIKES = "likes"
    LAST_MODIFIED = "last_modified"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at a commit.

    `sha256` is None for a small file that the Hub keeps in git; `git_oid` is its git blob id.
    """

    path: str
    size_bytes: int
    sha256: str | None = None
    git_oid: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a variant or model."""

    path: str
    size_bytes: int
    sha256: str | None
    role: FileRole


@dataclass(frozen=True, slots=True)
class Variant:
    """One choosable thing of a repository: all its files, the first file first.

    A sharded variant holds every shard; an `mmproj` companion comes last.
    """

    repo: str
    quantization: str  # as llama.cpp reads it from the file name; "" when the name tells none
    files: tuple[ModelFile, ...]

    @property
    def name(self) -> str:
        """The id that the variant has once it is registered."""
        return names.model_name(self.repo, self.files[0].path)

    @property
    def filename(self) -> str:
        """The path of the first file."""
        return self.files[0].path

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)


class IgnoredReason(StrEnum):
    """Why a file that looks like a model is not one that can be chosen."""

    COMPANION = "companion"  # belongs to a model: importance matrix, draft model, projector
    INCOMPLETE = "incomplete"  # a shard of a set from which others are missing
    UNUSABLE = "unusable"  # empty, cut in a way that no runtime reads, or a name we do not accept


@dataclass(frozen=True, slots=True)
class IgnoredFile:
    """A file that looks like a model and is not listed; `detail` is a sentence for a person."""

    path: str
    reason: IgnoredReason
    detail: str


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What a GGUF header tells; None where it does not.

    Sizes of the model are counts, not bytes. The cache of a model with f16 keys and values takes
    `kv_bytes_per_token` for each token of the context (layers that attend to all of it) plus
    `kv_fixed_bytes` whatever the context (sliding windows, recurrent states); both are None
    when the header does not tell enough. `feed_forward_length` is that of the widest layer, of all
    experts together that one token uses.
    """

    architecture: str
    name: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    key_length: int | None = None
    value_length: int | None = None
    sliding_window: int | None = None
    experts: int | None = None
    experts_used: int | None = None
    vocabulary: int | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    license: str | None = None
    kv_bytes_per_token: int | None = None
    kv_fixed_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogRepo:
    """One repository of the Hub at one commit, with its variants.

    `variants` is empty and `convertible` true when it holds weights that are not GGUF.
    `ignored` are files that look like models and are not listed.
    """

    repo: str
    commit: str
    last_modified: datetime | None
    downloads: int
    likes: int
    tags: tuple[str, ...]
    gating: Gating
    private: bool
    pipeline_tag: str | None
    license: str | None
    variants: tuple[Variant, ...]
    convertible: bool = False
    conversion_files: tuple[ModelFile, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogQuery:
    """What to look for. Sizes are of a variant's files together, in bytes, inclusive."""

    search: str = ""
    author: str = ""
    sort: Sort = Sort.TRENDING
    min_bytes: int | None = None
    max_bytes: int | None = None
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How true a part of the catalog is now.

    `cached`: it was not fetched for this call. `stale`: it is older than the catalog's age
    because the Hub could not be asked; `problem` says why.
    """

    cached: bool
    stale: bool
    fetched_at: datetime
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RepoPage:
    """A page of repositories; `next_token` is None at the end."""

    repos: tuple[CatalogRepo, ...]
    next_token: str | None
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A variant with the repository it belongs to."""

    repo: CatalogRepo
    variant: Variant


@dataclass(frozen=True, slots=True)
class VariantPage:
    """A page of variants, counted by `offset`; `total` is None while the list's end is not known.

    A page may be shorter than asked for although more follow, when a filter fits rarely: go on
    at `offset` plus the number of entries. `listing` names the list that the page is part of:
    given back, the next page comes from the same list however the Hub's has moved since.
    """

    entries: tuple[CatalogEntry, ...]
    total: int | None
    has_more: bool
    freshness: Freshness
    listing: str = ""


@dataclass(frozen=True, slots=True)
class FileUrl:
    """Where a file's bytes can be fetched now; without `expires_at` the URL does not expire."""

    url: str
    expires_at: datetime | None
