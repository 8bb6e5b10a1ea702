"""The Hub's lists by query: fetched, kept, refreshed in the background, and found again.

A list has a current generation. Once that is older than the catalog's age it is still served,
while one refresh makes the next; it replaces the old one only when it is whole: as deep as the
old one was read, with what its repositories hold. When that fails the old one stays, and the
problem is told with every page until a refresh succeeds.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime

from protos.daemon.logs import get_logger
from router.domain.catalog import Freshness
from router.domain.errors import (
    DomainError,
    HubGated,
    HubUnavailable,
    InvalidArgument,
    InvalidPageToken,
    NotFound,
)
from router.domain.ports import CatalogCache
from router.hub import rows
from router.hub.client import HubClient, ListedRepo, ListingPage
from router.hub.generation import Generation
from router.hub.recent import Recent
from router.hub.rows import Chunk, GenerationRow, ListingKey
from router.hub.workers import Flights, outcome

log = get_logger(__name__)

_CURRENT, _GENERATION, _CHUNK = "listing", "generation", "chunk"


@dataclass(frozen=True, slots=True)
class ListingSettings:
    """Ages in seconds; numbers of repositories and of the Hub's pages.

    After `age` a list is refreshed in the background; after `old` a caller waits `grace` for that.
    A refresh that takes longer than `slow` is told as a problem; one that failed is tried again
    after `pause`. Lists of up to `compared` repositories are compared with the Hub's at their end.
    No list is followed beyond `longest`; all generations in memory have `kept_repos` together.
    """

    age: float = 300.0
    old: float = 3600.0
    grace: float = 1.5
    slow: float = 3.0
    pause: float = 10.0
    page: int = 100
    refreshed_pages: int = 10
    refreshed_repos: int = 200
    compared: int = 5000
    comparisons: int = 3
    longest: int = 20_000
    kept_lists: int = 256
    kept_generations: int = 128
    kept_repos: int = 50_000


class _Listing:
    """The state of one query's list; generations by name, "" is none."""

    def __init__(self, key: ListingKey, current: str) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.current = current
        self.walked = current
        self.refresh: Future[Generation] | None = None
        self.refresh_began = 0.0
        self.retry_at = 0.0
        self.problem = ""


class Listings:
    """See the module. Safe from any thread.

    `prepare` makes sure that what these repositories hold is known; it may block, and raises
    when the Hub fails. `monotonic` gives seconds that only grow.
    """

    def __init__(
        self,
        client: HubClient,
        cache: CatalogCache,
        flights: Flights,
        clocks: tuple[Callable[[], datetime], Callable[[], float]],
        prepare: Callable[[Generation, int, int], None],
        settings: ListingSettings,
    ) -> None:
        self._client = client
        self._cache = cache
        self._flights = flights
        self._wall, self._monotonic = clocks
        self._prepare = prepare
        self._settings = settings
        self._lists: Recent[ListingKey, _Listing] = Recent(settings.kept_lists)
        self._generations: Recent[str, Generation] = Recent(settings.kept_generations)

    def first(
        self, key: ListingKey, patience: float, *, walk: bool = False
    ) -> tuple[Generation, bool]:
        """The list as it is best known, and whether the Hub was waited for.

        With `walk` it is the one that `walked` gives from now on. Raises what the Hub's failure
        means when nothing is known.
        """
        listing = self._listing(key)
        current = self._find(listing.current, key)
        waited = current is None
        if current is None:
            current = outcome(self._refresh(listing), patience)
            listing.current = listing.current or current.name
        else:
            self._keep_fresh(listing, current)
            current = self._find(listing.current, key) or current
        if walk:
            listing.walked = current.name
        return current, waited

    def walked(self, key: ListingKey, patience: float) -> tuple[Generation, bool]:
        """The list whose beginning somebody asked for last, to walk it."""
        listing = self._listing(key)
        walked = self._find(listing.walked, key)
        if walked is None:
            return self.first(key, patience, walk=True)
        self._keep_fresh(listing, self._find(listing.current, key))
        return walked, False

    def named(self, name: str, key: ListingKey) -> Generation:
        """The generation that a token names; raises `InvalidPageToken`."""
        generation = self._find(name, key)
        if generation is None:
            raise InvalidPageToken(
                "the page token is of another search, or its list is no longer kept: "
                "begin again with the first page",
                param="page_token",
            )
        listing = self._listing(key)
        self._keep_fresh(listing, self._find(listing.current, key))
        return generation

    def extend(self, generation: Generation, patience: float) -> None:
        """Adds the next page of the Hub's list; raises `InvalidArgument` beyond the longest."""
        if len(generation) >= self._settings.longest:
            raise InvalidArgument(
                f"the list goes on beyond {self._settings.longest} repositories: "
                "search for something narrower",
                param="search",
            )
        position = len(generation.chunks)
        future = self._flights.start(
            (_CHUNK, generation.name, position), lambda: self._add_next(generation, position)
        )
        outcome(future, patience)
        self._generations.trim(len, self._settings.kept_repos)

    def keep_gone(self, generation: Generation) -> None:
        """Keeps the names of vanished repositories over a restart."""
        row = GenerationRow(generation.key, generation.gone)
        self._cache.put(_GENERATION, generation.name, rows.write_generation(row), self._wall())

    def freshness(self, generation: Generation, cached: bool) -> Freshness:
        """How true a page of this generation is."""
        listing = self._listing(generation.key)
        problem = ""
        if self._age(generation) > self._settings.age:
            with listing.lock:
                problem = listing.problem
                running = listing.refresh is not None and not listing.refresh.done()
                if running and self._monotonic() - listing.refresh_began > self._settings.slow:
                    problem = problem or "the Hub is slow to answer"
        return Freshness(cached, bool(problem), generation.fetched_at, problem)

    def _age(self, generation: Generation) -> float:
        return (self._wall() - generation.fetched_at).total_seconds()

    def _listing(self, key: ListingKey) -> _Listing:
        known = self._lists.get(key)
        if known is not None:
            return known
        row = self._cache.get(_CURRENT, key.text())
        name = row[0].decode(errors="replace") if row is not None else ""
        return self._lists.put(key, _Listing(key, name))

    def _find(self, name: str, key: ListingKey) -> Generation | None:
        """A generation of this list, from memory or the cache."""
        found = (self._generations.get(name) or self._load(name)) if name else None
        return found if found is not None and found.key == key else None

    def _load(self, name: str) -> Generation | None:
        """A generation from the cache: the unbroken beginning of what was kept."""
        row = self._cache.get(_GENERATION, name)
        head = rows.read_generation(row[0]) if row is not None else None
        if head is None:
            return None
        generation = Generation(name, head.key, head.gone)
        position = 0
        while (body := self._cache.get(_CHUNK, f"{name}/{position}")) is not None:
            chunk = rows.read_chunk(body[0])
            if chunk is None:
                break
            generation.add(position, chunk)
            position += 1
        return self._generations.put(name, generation) if position else None

    def _keep_fresh(self, listing: _Listing, current: Generation | None) -> None:
        age = self._age(current) if current is not None else float("inf")
        if age <= self._settings.age or self._monotonic() < listing.retry_at:
            return
        try:
            future = self._refresh(listing)
            if age > self._settings.old:
                outcome(future, self._settings.grace)
        except DomainError as error:
            log.debug("a list of the Hub is served as it is", problem=error.message)

    def _refresh(self, listing: _Listing) -> Future[Generation]:
        with listing.lock:
            running = listing.refresh
            if running is not None and not running.done():
                return running
            listing.refresh_began = self._monotonic()
            listing.refresh = self._flights.start(
                (_CURRENT, listing.key), lambda: self._make_next(listing)
            )
            return listing.refresh

    def _make_next(self, listing: _Listing) -> Generation:
        """The next generation of a list, made current once it is whole."""
        try:
            current = self._find(listing.current, listing.key)
            generation = self._walk_again(listing.key, current)
        except DomainError as error:
            self._note_failure(listing, error.message, error.retry_after or 0.0)
            log.info("a list of the Hub could not be refreshed", problem=error.message)
            raise
        except Exception:
            self._note_failure(listing, "the router failed to refresh this list", 0.0)
            log.exception("a list of the Hub could not be refreshed")
            raise
        self._generations.replace(generation.name, generation)
        self._save(generation)
        with listing.lock:
            listing.current = generation.name
            listing.problem = ""
            listing.retry_at = 0.0
        return generation

    def _note_failure(self, listing: _Listing, problem: str, wait: float) -> None:
        with listing.lock:
            listing.problem = problem
            listing.retry_at = self._monotonic() + max(self._settings.pause, wait)

    def _walk_again(self, key: ListingKey, old: Generation | None) -> Generation:
        generation = Generation(secrets.token_urlsafe(12), key)
        generation.add(0, self._fetch(generation, None))
        if old is None:
            return generation
        depth = min(len(old.chunks), self._settings.refreshed_pages)
        while len(generation.chunks) < depth and not generation.is_complete:
            position = len(generation.chunks)
            generation.add(position, self._next_chunk(generation))
        known = old.most_counted()
        if known:  # what came to the list has moved the rest, and may stand anywhere
            known += max(0, len(generation) - len(old))
        known = min(known, self._settings.refreshed_repos, len(generation))
        self._prepare(generation, 0, known)
        return generation

    def _add_next(self, generation: Generation, position: int) -> None:
        if len(generation.chunks) != position or generation.is_complete:
            return
        chunk = self._next_chunk(generation)
        if generation.add(position, chunk):
            self._cache.put(
                _CHUNK,
                f"{generation.name}/{position}",
                rows.write_chunk(chunk),
                self._wall(),
            )

    def _next_chunk(self, generation: Generation) -> Chunk:
        """The next page of the Hub's list; at its end, what slipped past while we walked."""
        cursor = generation.chunks[-1].cursor
        if cursor is not None:
            return self._fetch(generation, cursor)
        found = self._slipped_past(generation)
        compared = sum(chunk.cursor is None for chunk in generation.chunks)
        done = not found or compared >= self._settings.comparisons
        return Chunk(found, None, self._wall(), done)

    def _fetch(self, generation: Generation, cursor: str | None) -> Chunk:
        page = self._page(generation.key, cursor)
        # A list of one page is a snapshot; nothing can have slipped past.
        last = page.cursor is None and (cursor is None or len(generation) > self._settings.compared)
        return Chunk(page.repos, page.cursor, self._wall(), last)

    def _slipped_past(self, generation: Generation) -> tuple[ListedRepo, ...]:
        found: list[ListedRepo] = []
        cursor: str | None = None
        while True:
            page = self._page(generation.key, cursor)
            found += [repo for repo in page.repos if not generation.has_seen(repo.repo)]
            cursor = page.cursor
            if cursor is None:
                return tuple(found)

    def _page(self, key: ListingKey, cursor: str | None) -> ListingPage:
        page = self._client.list_models(
            key.search, key.author, key.sort, self._settings.page, cursor
        )
        if cursor is not None and page.cursor == cursor:
            raise HubUnavailable("the Hub's list does not move on")
        if all(listed.commit for listed in page.repos):
            return page
        repos = (self._with_commit(listed) for listed in page.repos)
        return replace(page, repos=tuple(listed for listed in repos if listed is not None))

    def _with_commit(self, listed: ListedRepo) -> ListedRepo | None:
        """Asks for a commit that a list left out; None when the repository has vanished."""
        if listed.commit:
            return listed
        try:
            return self._client.info(listed.repo, "main")
        except (NotFound, HubGated):
            return None

    def _save(self, generation: Generation) -> None:
        now = self._wall()
        chunks = [
            (f"{generation.name}/{position}", rows.write_chunk(chunk))
            for position, chunk in enumerate(generation.chunks)
        ]
        self._cache.put_many(_CHUNK, chunks, now)
        self.keep_gone(generation)
        self._cache.put(_CURRENT, generation.key.text(), generation.name.encode(), now)
