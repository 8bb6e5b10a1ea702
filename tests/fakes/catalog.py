"""A catalog that knows what the test gave it: the port, without a Hub."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from router.domain.catalog import (
    CatalogEntry,
    CatalogQuery,
    CatalogRepo,
    FileRole,
    FileUrl,
    Freshness,
    Gating,
    GgufFacts,
    ModelFile,
    RepoPage,
    Variant,
    VariantPage,
)
from router.domain.errors import DomainError, HubGated, RepoNotFound

COMMIT = "c" * 40
FACTS = GgufFacts(architecture="llama", vocabulary=1000, embedding_length=64, kv_bytes_per_token=10)
FETCHED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def digest(number: int) -> str:
    """A SHA-256 that stands for some content."""
    return f"{number:064x}"


def variant(
    repo: str, path: str, quantization: str, size: int = 1000, sha256: str | None = digest(1)
) -> Variant:
    """A variant of one file."""
    return Variant(repo, quantization, (ModelFile(path, size, sha256, FileRole.MODEL),))


def gguf_repo(repo: str, *variants: Variant) -> CatalogRepo:
    """An open repository; without variants it holds one, `m-Q4_K_M.gguf` of 1000 bytes."""
    return CatalogRepo(
        repo=repo,
        commit=COMMIT,
        last_modified=FETCHED_AT,
        downloads=5,
        likes=3,
        tags=("gguf",),
        gating=Gating.OPEN,
        private=False,
        pipeline_tag=None,
        license=None,
        variants=variants or (variant(repo, "m-Q4_K_M.gguf", "Q4_K_M"),),
    )


def convertible_repo(repo: str) -> CatalogRepo:
    """A repository with weights that are not GGUF."""
    files = (
        ModelFile("model.safetensors", 900, digest(7), FileRole.WEIGHTS),
        ModelFile("config.json", 100, None, FileRole.CONFIG),
    )
    return replace(gguf_repo(repo), variants=(), convertible=True, conversion_files=files)


class FakeCatalog:
    """Implements `Catalog`. `failures` are raised one by one, by whatever is asked next;
    `troubles` by name of the repository, again and again.

    `before_answer` runs in the calling thread before `repo` answers.
    """

    def __init__(self, *repos: CatalogRepo) -> None:
        self.repos = {repo.repo: repo for repo in repos}
        self.header: GgufFacts | DomainError | None = FACTS
        self.failures: list[DomainError] = []
        self.troubles: dict[str, DomainError] = {}
        self.refused: set[str] = set()  # repositories whose files are not given to us
        self.read: set[tuple[str, str, str]] = set()
        self.before_answer: Callable[[], object] = lambda: None
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def search_repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPage:
        """Every repository that fits, on one page."""
        self._fail()
        found = tuple(repo for repo in self.repos.values() if query.search in repo.repo)
        return RepoPage(found[:page_size], None, _fresh())

    def search_variants(
        self, query: CatalogQuery, limit: int, offset: int, listing: str = ""
    ) -> VariantPage:
        """A window over the variants of every repository that fits."""
        self._fail()
        entries = [
            CatalogEntry(repo, variant)
            for repo in self.repos.values()
            if query.search in repo.repo
            for variant in repo.variants
        ]
        page = tuple(entries[offset : offset + limit])
        return VariantPage(page, len(entries), offset + limit < len(entries), _fresh())

    def repo(self, repo: str, revision: str) -> CatalogRepo:
        """The repository, whatever the revision."""
        with self._lock:
            self.asked.append((repo, revision))
        self.before_answer()
        self._fail()
        if repo in self.troubles:
            raise self.troubles[repo]
        if repo not in self.repos:
            raise RepoNotFound(f'repository "{repo}" does not exist', param="repo")
        return self.repos[repo]

    def facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """`header`, or raises it."""
        if isinstance(self.header, DomainError):
            raise self.header
        self.read.add((repo, commit, variant.filename))
        return self.header

    def known_facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """`header`, once it was read."""
        if (repo, commit, variant.filename) not in self.read:
            return None
        return self.header if isinstance(self.header, GgufFacts) else None

    def read_headers(self, repo: str, commit: str, variants: Sequence[Variant]) -> None:
        """Reads `header` for each."""
        if not isinstance(self.header, DomainError):
            self.read |= {(repo, commit, variant.filename) for variant in variants}

    def file_url(self, repo: str, commit: str, path: str, *, fresh: bool = False) -> FileUrl:
        """An address that tells what was asked for."""
        self._fail()
        if repo in self.refused:
            raise HubGated(f"ask for access at http://hub/{repo}")
        return FileUrl(f"http://signed/{repo}/{commit}/{path}{'?fresh' * fresh}", None)

    def _fail(self) -> None:
        with self._lock:
            failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


def _fresh() -> Freshness:
    return Freshness(cached=False, stale=False, fetched_at=FETCHED_AT)
