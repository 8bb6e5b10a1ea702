"""The Hub's catalog, with what has become of each variant here."""

from dataclasses import dataclass
from enum import StrEnum

from protos import names
from router.domain.catalog import (
    CatalogQuery,
    CatalogRepo,
    Freshness,
    GgufFacts,
    Variant,
)
from router.domain.errors import DomainError, InvalidArgument, InvalidModelName
from router.domain.memory import required_memory_bytes
from router.domain.models import display_name
from router.domain.ports import Catalog, Store
from router.services.holdings import Holdings

DEFAULT_PAGE = 20
MAX_PAGE = 100


class VariantStatus(StrEnum):
    """What has become of a variant here."""

    AVAILABLE = "available"
    REGISTERED = "registered"
    DOWNLOADED = "downloaded"


@dataclass(frozen=True, slots=True)
class VariantView:
    """A variant as it is shown; memory in bytes, None: not known."""

    variant: Variant
    display_name: str
    status: VariantStatus
    required_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class RepoView:
    """A repository with its variants as they are shown."""

    repo: CatalogRepo
    variants: tuple[VariantView, ...]
    facts: GgufFacts | None = None


@dataclass(frozen=True, slots=True)
class RepoPageView:
    """A page of repositories; `next_token` "" is the end."""

    repos: tuple[RepoView, ...]
    next_token: str
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class VariantPageView:
    """A window over the variants; `limit` is the one that was used."""

    entries: tuple[tuple[CatalogRepo, VariantView], ...]
    limit: int
    offset: int
    total: int | None
    has_more: bool
    freshness: Freshness


class CatalogBrowser:
    """Pages of the Hub's catalog. Raises `HubUnavailable`, `HubRateLimited` as the port does."""

    def __init__(self, catalog: Catalog, store: Store, holdings: Holdings) -> None:
        """Browses `catalog`."""
        self._catalog = catalog
        self._store = store
        self._holdings = holdings

    def repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPageView:
        """A page of repositories. Raises `InvalidArgument`, `InvalidPageToken`."""
        page = self._catalog.search_repos(query, _bounded(page_size, "page_size"), page_token)
        statuses = self._statuses()
        return RepoPageView(
            tuple(self._repo_view(repo, statuses, None) for repo in page.repos),
            page.next_token or "",
            page.freshness,
        )

    def variants(self, query: CatalogQuery, limit: int, offset: int) -> VariantPageView:
        """`limit` variants after the first `offset`. Raises `InvalidArgument`."""
        if offset < 0:
            raise InvalidArgument("an offset is not negative", param="offset")
        bounded = _bounded(limit, "limit")
        page = self._catalog.search_variants(query, bounded, offset)
        statuses = self._statuses()
        return VariantPageView(
            tuple(
                (entry.repo, self._variant_view(entry.repo, entry.variant, statuses, None))
                for entry in page.entries
            ),
            bounded,
            offset,
            page.total,
            page.has_more,
            page.freshness,
        )

    def repo(self, repo: str, revision: str) -> RepoView:
        """One repository as it is now, with what the header of its first variant tells.

        Raises `InvalidModelName`, `RepoNotFound`, `RevisionNotFound`, `HubGated`.
        """
        try:
            names.repo_id(repo)
            names.revision(revision or "main")
        except names.InvalidName as error:
            raise InvalidModelName(str(error), param="repo") from None
        found = self._catalog.repo(repo, revision or "main")
        facts = None
        if found.variants:
            try:
                facts = self._catalog.facts(found.repo, found.commit, found.variants[0])
            except DomainError:
                facts = None  # the page is worth showing without it
        return self._repo_view(found, self._statuses(), facts)

    def _statuses(self) -> dict[str, VariantStatus]:
        ready = self._holdings.ready_counts()
        return {
            model.name: VariantStatus.DOWNLOADED
            if model.name in ready
            else VariantStatus.REGISTERED
            for model in self._store.models()
        }

    def _repo_view(
        self, repo: CatalogRepo, statuses: dict[str, VariantStatus], facts: GgufFacts | None
    ) -> RepoView:
        variants = tuple(
            self._variant_view(repo, variant, statuses, facts) for variant in repo.variants
        )
        return RepoView(repo, variants, facts)

    def _variant_view(
        self,
        repo: CatalogRepo,
        variant: Variant,
        statuses: dict[str, VariantStatus],
        facts: GgufFacts | None,
    ) -> VariantView:
        return VariantView(
            variant=variant,
            display_name=display_name(repo.repo, variant.filename, variant.quantization),
            status=statuses.get(variant.name, VariantStatus.AVAILABLE),
            required_memory_bytes=required_memory_bytes(variant.size_bytes, facts),
        )


def _bounded(size: int, param: str) -> int:
    if not 0 <= size <= MAX_PAGE:
        raise InvalidArgument(f"{param} is 1 to {MAX_PAGE}", param=param)
    return size or DEFAULT_PAGE
