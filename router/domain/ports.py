"""What the services need from outside; `app` plugs in what implements it."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from router.domain.catalog import (
    CatalogQuery,
    CatalogRepo,
    FileUrl,
    GgufFacts,
    RepoPage,
    Variant,
    VariantPage,
)

Clock = Callable[[], datetime]


class Catalog(Protocol):
    """The Hub as we see it. Blocking; safe from any thread.

    Raises `HubUnavailable`, `HubRateLimited`, `HubGated`, `RepoNotFound`, `RevisionNotFound`,
    `FileNotInRepo`; and for names that break the grammar `InvalidModelName`.
    """

    def search_repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPage:
        """One page of repositories that hold GGUF files; `page_token` "" is the first.

        A page may be short, even empty, although `next_token` is set. Raises `InvalidPageToken`.
        """

    def search_variants(
        self, query: CatalogQuery, limit: int, offset: int, listing: str = ""
    ) -> VariantPage:
        """One page of the same list, flattened to variants.

        `listing` is the one of an earlier page; without it, pages after the first come from the
        list whose first page was asked for last. Raises `InvalidPageToken`.
        """

    def repo(self, repo: str, revision: str) -> CatalogRepo:
        """One repository at the commit that `revision` names now; never from a stale cache."""

    def facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """What the first file's header tells; None when it cannot be read as GGUF."""

    def file_url(self, repo: str, commit: str, path: str) -> FileUrl:
        """A URL for an agent: it needs no token, and may expire."""


class CatalogCache(Protocol):
    """Rows of what the Hub said, kept over restarts and bounded in number and bytes."""

    def get(self, kind: str, key: str) -> tuple[bytes, datetime] | None:
        """The row's body and when it was put, or None; counts as a use."""

    def put(self, kind: str, key: str, body: bytes, at: datetime) -> None:
        """Keeps a row; what was used least recently goes when a bound is reached."""

    def put_many(self, kind: str, rows: Iterable[tuple[str, bytes]], at: datetime) -> None:
        """Keeps several rows in one transaction."""

    def delete(self, kind: str, key: str) -> None:
        """Forgets a row."""
