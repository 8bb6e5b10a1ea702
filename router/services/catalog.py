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
from router.domain.errors import InvalidArgument, InvalidModelName
from router.domain.memory import DEFAULT_CONTEXT, required_memory_bytes
from router.domain.models import variant_name
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
    """A variant as it is shown; memory in bytes, without `facts` estimated from the size alone."""

    variant: Variant
    display_name: str
    status: VariantStatus
    required_memory_bytes: int
    facts: GgufFacts | None


@dataclass(frozen=True, slots=True)
class RepoView:
    """A repository with its variants as they are shown; `facts` are those of the first."""

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
    """A window over the variants; `limit` is the one that was used.

    It may hold fewer although more follow; `listing` leads to the next window of the same list.
    """

    entries: tuple[tuple[CatalogRepo, VariantView], ...]
    limit: int
    offset: int
    total: int | None
    has_more: bool
    freshness: Freshness
    listing: str


class CatalogBrowser:
    """Pages of the Hub's catalog. Raises `HubUnavailable`, `HubRateLimited` as the port does."""

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        holdings: Holdings,
        *,
        context: int = DEFAULT_CONTEXT,
    ) -> None:
        """Browses `catalog`; memory is estimated for `context` tokens."""
        self._catalog = catalog
        self._store = store
        self._holdings = holdings
        self._context = context

    def repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPageView:
        """A page of repositories. Raises `InvalidArgument`, `InvalidPageToken`."""
        page = self._catalog.search_repos(query, _bounded(page_size, "page_size"), page_token)
        statuses = self._statuses()
        return RepoPageView(
            tuple(self._repo_view(repo, statuses) for repo in page.repos),
            page.next_token or "",
            page.freshness,
        )

    def variants(
        self, query: CatalogQuery, limit: int, offset: int, listing: str = ""
    ) -> VariantPageView:
        """`limit` variants after the first `offset`, of the list that an earlier window named.

        Raises `InvalidArgument`, `InvalidPageToken`.
        """
        if offset < 0:
            raise InvalidArgument("an offset is not negative", param="offset")
        bounded = _bounded(limit, "limit")
        page = self._catalog.search_variants(query, bounded, offset, listing)
        statuses = self._statuses()
        return VariantPageView(
            tuple(
                (entry.repo, self._variant_view(entry.repo, entry.variant, statuses))
                for entry in page.entries
            ),
            bounded,
            offset,
            page.total,
            page.has_more,
            page.freshness,
            page.listing,
        )

    def repo(self, repo: str, revision: str) -> RepoView:
        """One repository as it is now, with what the headers of its variants tell.

        Raises `InvalidModelName`, `RepoNotFound`, `RevisionNotFound`, `HubGated`.
        """
        try:
            names.repo_id(repo)
            names.revision(revision or "main")
        except names.InvalidName as error:
            raise InvalidModelName(str(error), param="repo") from None
        found = self._catalog.repo(repo, revision or "main")
        self._catalog.read_headers(found.repo, found.commit, found.variants)
        return self._repo_view(found, self._statuses())

    def _statuses(self) -> dict[str, VariantStatus]:
        ready = self._holdings.ready_counts()
        return {
            model.name: VariantStatus.DOWNLOADED
            if model.name in ready
            else VariantStatus.REGISTERED
            for model in self._store.models()
        }

    def _repo_view(self, repo: CatalogRepo, statuses: dict[str, VariantStatus]) -> RepoView:
        variants = tuple(self._variant_view(repo, variant, statuses) for variant in repo.variants)
        return RepoView(repo, variants, variants[0].facts if variants else None)

    def _variant_view(
        self, repo: CatalogRepo, variant: Variant, statuses: dict[str, VariantStatus]
    ) -> VariantView:
        facts = self._catalog.known_facts(repo.repo, repo.commit, variant)
        return VariantView(
            variant=variant,
            display_name=variant_name(variant),
            status=statuses.get(variant.name, VariantStatus.AVAILABLE),
            required_memory_bytes=required_memory_bytes(variant.size_bytes, facts, self._context),
            facts=facts,
        )


def _bounded(size: int, param: str) -> int:
    if not 0 <= size <= MAX_PAGE:
        raise InvalidArgument(f"{param} is 1 to {MAX_PAGE}", param=param)
    return size or DEFAULT_PAGE
