"""One walk through the Hub's list, frozen as far as it went.

The Hub's list moves while somebody turns its pages. A generation is one walk through it: what it
has seen keeps its place for good, a repository that comes up again is left out, and what slipped
past is found by a comparison at the end. Every page that names the generation is cut from it.
"""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from router.domain.catalog import CatalogQuery, Variant
from router.hub.client import ListedRepo
from router.hub.rows import Chunk, ListingKey

_KEPT_FILTERS = 8


@dataclass(frozen=True, slots=True)
class Filter:
    """Which variants of a repository are wanted."""

    min_bytes: int | None
    max_bytes: int | None
    quantization: str

    @classmethod
    def of(cls, query: CatalogQuery) -> "Filter":
        """The part of a query that the Hub knows nothing about."""
        return cls(query.min_bytes, query.max_bytes, query.quantization.upper())

    def of_variants(self, variants: Sequence[Variant]) -> tuple[Variant, ...]:
        """Those that are wanted."""
        return tuple(v for v in variants if self._wants(v))

    def _wants(self, variant: Variant) -> bool:
        size = variant.size_bytes
        names = (variant.quantization, variant.quantization.removeprefix("UD-"))
        return (
            (self.min_bytes is None or size >= self.min_bytes)
            and (self.max_bytes is None or size <= self.max_bytes)
            and (not self.quantization or self.quantization in names)
        )


@dataclass(slots=True)
class _Counts:
    """Variants up to and including each repository, as far as it is known."""

    sums: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a variant is: which repository, and how many of its wanted variants come before."""

    repo: int
    skip: int


class Generation:
    """See the module. Safe from any thread; grows at its end only."""

    def __init__(self, name: str, key: ListingKey, gone: Sequence[str] = ()) -> None:
        self.name = name
        self.key = key
        self._lock = threading.Lock()
        self._chunks: list[Chunk] = []
        self._repos: list[ListedRepo] = []
        self._seen: set[str] = set()
        self._gone: set[str] = set(gone)
        self._counts: dict[Filter, _Counts] = {}

    @property
    def fetched_at(self) -> datetime:
        """When the walk began."""
        return self._chunks[0].fetched_at

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The pages of the Hub's list so far."""
        with self._lock:
            return tuple(self._chunks)

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""
        with self._lock:
            return self._chunks[-1].last

    @property
    def gone(self) -> tuple[str, ...]:
        """Repositories that vanished, or are not shown to us."""
        with self._lock:
            return tuple(self._gone)

    def __len__(self) -> int:
        """How many repositories were seen so far."""
        with self._lock:
            return len(self._repos)

    def has_seen(self, repo: str) -> bool:
        """Whether a repository has its place."""
        with self._lock:
            return repo in self._seen

    def add(self, position: int, chunk: Chunk) -> bool:
        """Appends what was fetched as chunk number `position`; false if another came first."""
        with self._lock:
            if position != len(self._chunks):
                return False
            self._chunks.append(chunk)
            for listed in chunk.repos:
                if listed.repo not in self._seen:
                    self._seen.add(listed.repo)
                    self._repos.append(listed)
            return True

    def repos(self, start: int, stop: int) -> tuple[ListedRepo, ...]:
        """Repositories by place."""
        with self._lock:
            return tuple(self._repos[start:stop])

    def replace(self, position: int, listed: ListedRepo) -> None:
        """The repository at this place has moved on to another commit."""
        with self._lock:
            self._repos[position] = listed

    def lose(self, repo: str) -> None:
        """The repository vanished, or is not shown to us; it keeps its place, empty."""
        with self._lock:
            self._gone.add(repo)

    def is_gone(self, repo: str) -> bool:
        """Whether it vanished."""
        with self._lock:
            return repo in self._gone

    def counted(self, wanted: Filter) -> tuple[int, int]:
        """How many repositories have been counted for this filter, and their variants."""
        with self._lock:
            sums = self._of(wanted).sums
            return len(sums), (sums[-1] if sums else 0)

    def count(self, wanted: Filter, position: int, variants: int) -> None:
        """Notes how many wanted variants the repository at `position`, the next one, has."""
        with self._lock:
            sums = self._of(wanted).sums
            if len(sums) == position:
                sums.append((sums[-1] if sums else 0) + variants)

    def place(self, wanted: Filter, offset: int) -> Place:
        """Where the wanted variant number `offset` is; it must have been counted."""
        with self._lock:
            sums = self._of(wanted).sums
            repo = bisect_right(sums, offset)
            return Place(repo, offset - (sums[repo - 1] if repo else 0))

    def most_counted(self) -> int:
        """How many repositories somebody has looked into."""
        with self._lock:
            return max((len(counts.sums) for counts in self._counts.values()), default=0)

    def _of(self, wanted: Filter) -> _Counts:
        """The counts of a filter; the one used least recently makes room."""
        counts = self._counts.pop(wanted, None) or _Counts()
        self._counts[wanted] = counts
        while len(self._counts) > _KEPT_FILTERS:
            del self._counts[next(iter(self._counts))]
        return counts
