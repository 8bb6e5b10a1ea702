"""The JSON of the Hub's catalog."""

from typing import Literal

from router.domain.catalog import CatalogRepo
from router.domain.models import file_url
from router.rest.shapes.base import Moment, Shape
from router.rest.shapes.files import FileShape, file_shapes
from router.services.catalog import VariantPageView, VariantView


class AvailableModel(Shape):
    """A variant of the Hub's catalog."""

    name: str
    display_name: str
    source: Literal["hf_gguf", "hf_pending_conversion"]
    size_bytes: int
    download_url: str
    repo: str
    filename: str
    files: list[FileShape]
    quantization: str
    last_modified: Moment | None
    tags: list[str]
    downloads: int
    likes: int
    gated: bool
    private: bool
    required_memory_bytes: int | None
    status: Literal["available", "registered", "downloaded"]

    @classmethod
    def of(cls, repo: CatalogRepo, view: VariantView, hub_url: str) -> "AvailableModel":
        """From a variant of `repo`."""
        variant = view.variant
        return cls(
            name=variant.name,
            display_name=view.display_name,
            source="hf_pending_conversion" if repo.convertible else "hf_gguf",
            size_bytes=variant.size_bytes,
            download_url=file_url(hub_url, repo.repo, repo.commit, variant.filename),
            repo=repo.repo,
            filename=variant.filename,
            files=file_shapes(variant.files, hub_url, repo.repo, repo.commit),
            quantization=variant.quantization,
            last_modified=repo.last_modified,
            tags=list(repo.tags),
            downloads=repo.downloads,
            likes=repo.likes,
            gated=repo.gating.value != "open",
            private=repo.private,
            required_memory_bytes=view.required_memory_bytes,
            status=view.status.value,
        )


class Pagination(Shape):
    """Where a page lies; `total` null: the end is not known yet.

    `listing`, given back with the next request, keeps all pages on one list.
    """

    limit: int
    offset: int
    total: int | None
    has_more: bool
    listing: str


class AvailableModels(Shape):
    """A page of the catalog. `problem` says why it is stale."""

    models: list[AvailableModel]
    source: Literal["hf"] = "hf"
    cached: bool
    stale: bool
    fetched_at: Moment
    problem: str
    pagination: Pagination

    @classmethod
    def of(cls, page: VariantPageView, hub_url: str) -> "AvailableModels":
        """From a page."""
        return cls(
            models=[AvailableModel.of(repo, view, hub_url) for repo, view in page.entries],
            cached=page.freshness.cached,
            stale=page.freshness.stale,
            fetched_at=page.freshness.fetched_at,
            problem=page.freshness.problem,
            pagination=Pagination(
                limit=page.limit,
                offset=page.offset,
                total=page.total,
                has_more=page.has_more,
                listing=page.listing,
            ),
        )
