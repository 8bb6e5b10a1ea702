"""The catalog over the Hub: pages that hold still, answers that outlive the Hub's absence.

Calls to the Hub run in two small pools: lists, and what repositories hold. A caller waits for the
few answers that its page lacks, and for nothing else; whoever asks the same thing waits for the
same call.
"""

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from protos import names
from protos.daemon.logs import get_logger
from router.domain.catalog import (
    CatalogEntry,
    CatalogQuery,
    CatalogRepo,
    FileUrl,
    GgufFacts,
    RepoPage,
    Variant,
    VariantPage,
)
from router.domain.errors import (
    DomainError,
    HubGated,
    HubUnavailable,
    InvalidArgument,
    InvalidModelName,
    InvalidPageToken,
    NotFound,
    RevisionNotFound,
)
from router.domain.ports import CatalogCache
from router.hub import gguf_header, rows
from router.hub.budget import DEFAULT_PATIENCE, Budget, Patience
from router.hub.client import (
    DEFAULT_BOUNDS,
    DEFAULT_TIMING,
    Bounds,
    HubClient,
    ListedRepo,
    Timing,
)
from router.hub.contents import RepoContents
from router.hub.generation import Filter, Generation
from router.hub.listings import Listings, ListingSettings
from router.hub.recent import Recent
from router.hub.rows import ListingKey
from router.hub.variants import Contents
from router.hub.workers import Flights, Workers, outcome

log = get_logger(__name__)

_FACTS = "facts"
_NOTHING = Contents((), (), ())
_MAX_SEARCH = 200
# Repositories often hold some ten variants: fewer calls to the Hub than a full round.
_FIRST_BATCH = 8


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """How the catalog behaves; spans in seconds.

    A caller waits `patience` at most. One call looks into `examined` repositories at most, in
    batches; `kept_repos` stay in memory. A file's address is reused for `url_reuse`, as long as
    half of its life is left; a signed one that does not say how long it lives is believed
    for `url_lifetime`. For one repository up to `headers` headers are read, and waited for
    `header_patience`; `kept_facts` stay in memory.
    """

    patience: float = 20.0
    examined: int = 300
    parallel_calls: int = 16
    parallel_lists: int = 4
    backlog: int = 2000
    kept_repos: int = 1000
    url_reuse: float = 60.0
    url_lifetime: float = 300.0
    kept_urls: int = 1000
    headers: int = 40
    header_patience: float = 5.0
    kept_facts: int = 5000
    listing: ListingSettings = field(default_factory=ListingSettings)
    timing: Timing = DEFAULT_TIMING
    bounds: Bounds = DEFAULT_BOUNDS
    limits: Patience = DEFAULT_PATIENCE


DEFAULT_SETTINGS = CatalogSettings()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A repository of a list, what it holds, and whether the Hub was asked for that now."""

    listed: ListedRepo
    contents: Contents
    asked: bool


class HubCatalog:
    """Implements `router.domain.ports.Catalog`. Blocking; safe from any thread.

    `token` is the Hub's; it is sent to `endpoint` only. `monotonic` gives seconds that only grow.
    """

    def __init__(
        self,
        endpoint: str,
        cache: CatalogCache,
        *,
        token: str | None = None,
        settings: CatalogSettings = DEFAULT_SETTINGS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._monotonic = monotonic
        self._closing = threading.Event()
        self._client = HubClient(
            endpoint,
            token,
            Budget(monotonic, clock, settings.limits),
            clock,
            timing=settings.timing,
            bounds=settings.bounds,
            connections=settings.parallel_calls + settings.parallel_lists + 8,
            sleep=self._closing.wait,
        )
        self._pools = (
            Workers("hub-repos", settings.parallel_calls, settings.backlog),
            Workers("hub-lists", settings.parallel_lists, settings.backlog),
            Workers("hub-files", settings.parallel_lists, settings.backlog),
        )
        self._contents = RepoContents(
            self._client, cache, Flights(self._pools[0]), clock, settings.kept_repos
        )
        self._listings = Listings(
            self._client,
            cache,
            Flights(self._pools[1]),
            (clock, monotonic),
            self._prepare,
            settings.listing,
        )
        self._headers = Flights(self._pools[0])
        self._files = Flights(self._pools[2])
        self._facts: Recent[str, tuple[GgufFacts | None, ...]] = Recent(settings.kept_facts)
        self._urls: Recent[tuple[str, str, str], tuple[FileUrl, float]] = Recent(settings.kept_urls)

    def close(self) -> None:
        """Ends the calls to the Hub; whoever waits for one gets `HubUnavailable`."""
        self._closing.set()
        for pool in self._pools:
            pool.close()
        self._client.close()

    def search_repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPage:
        """One page of repositories that hold wanted variants; see the port."""
        key, wanted = _asked(query)
        deadline = self._monotonic() + self._settings.patience
        if page_token:
            name, position = _read_token(page_token)
            generation, waited = self._listings.named(name, key), False
            if position > len(generation):
                raise InvalidPageToken("the page token names no page", param="page_token")
        else:
            position = 0
            generation, waited = self._listings.first(key, self._settings.patience)
        found: list[CatalogRepo] = []
        last = position + self._settings.examined
        while len(found) < page_size and position < last:
            if position == len(generation):
                if generation.is_complete:
                    break
                self._listings.extend(generation, deadline - self._monotonic())
                waited = True
                continue
            stop = min(last, position + page_size - len(found))
            for seen in self._look(generation, position, stop, deadline):
                waited = waited or seen.asked
                variants = wanted.of_variants(seen.contents.variants)
                if variants:
                    found.append(_repo(seen.listed, replace(seen.contents, variants=variants)))
                position += 1
        ended = position == len(generation) and generation.is_complete
        return RepoPage(
            tuple(found),
            None if ended else _write_token(generation.name, position),
            self._listings.freshness(generation, cached=not waited),
        )

    def search_variants(
        self, query: CatalogQuery, limit: int, offset: int, listing: str = ""
    ) -> VariantPage:
        """One page of variants; see the port."""
        key, wanted = _asked(query)
        deadline = self._monotonic() + self._settings.patience
        if listing:
            generation, waited = self._listings.named(listing, key), False
        elif offset:
            generation, waited = self._listings.walked(key, self._settings.patience)
        else:
            generation, waited = self._listings.first(key, self._settings.patience, walk=True)
        ended, asked = self._count_up_to(generation, wanted, offset + limit, deadline)
        _, known = generation.counted(wanted)
        entries, fetched = self._cut(
            generation, wanted, range(offset, min(offset + limit, known)), deadline
        )
        return VariantPage(
            entries,
            known if ended else None,
            not ended or known > offset + limit,
            self._listings.freshness(generation, cached=not (waited or asked or fetched)),
            generation.name,
        )

    def repo(self, repo: str, revision: str) -> CatalogRepo:
        """One repository at the commit that `revision` names now; see the port."""
        try:
            names.repo_id(repo)
            names.revision(revision)
        except names.InvalidName as error:
            raise InvalidModelName(str(error), param="repo") from error
        listed = self._client.info(repo, revision)
        return _repo(listed, self._contents.fetch(listed.repo, listed.commit))

    def facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """What the first file's header tells; see the port."""
        key = _facts_key(repo, commit, variant)
        known = self._kept_facts(key)
        if known:
            return known[0]
        future = self._start_reading(key, repo, commit, variant)
        return outcome(future, self._settings.patience)

    def known_facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """What `facts` told before; see the port."""
        found = self._kept_facts(_facts_key(repo, commit, variant))
        return found[0] if found else None

    def read_headers(self, repo: str, commit: str, variants: Sequence[Variant]) -> None:
        """Sees to it that `known_facts` knows these variants; see the port."""
        deadline = self._monotonic() + self._settings.header_patience
        reading: list[Future[GgufFacts | None]] = []
        for variant in variants:
            key = _facts_key(repo, commit, variant)
            if len(reading) == self._settings.headers:
                break
            if not self._kept_facts(key):
                try:
                    reading.append(self._start_reading(key, repo, commit, variant))
                except HubUnavailable:
                    break
        for future in reading:
            try:
                outcome(future, deadline - self._monotonic())
            except DomainError as error:
                log.debug("a header is not known yet", repo=repo, problem=error.message)

    def file_url(self, repo: str, commit: str, path: str, *, fresh: bool = False) -> FileUrl:
        """A URL for an agent; see the port."""
        try:
            names.model_name(repo, path)
            names.commit(commit)
        except names.InvalidName as error:
            raise InvalidModelName(str(error), param="filename") from error
        key = (repo, commit, path)
        known = None if fresh else self._urls.get(key)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
        future = self._files.start(key, lambda: self._resolve(repo, commit, path))
        return outcome(future, self._settings.patience)

    def _resolve(self, repo: str, commit: str, path: str) -> FileUrl:
        lifetime = timedelta(seconds=self._settings.url_lifetime)
        found = self._client.resolve(repo, commit, path, lifetime)
        reuse = self._settings.url_reuse
        if found.expires_at is not None:
            reuse = min(reuse, (found.expires_at - self._clock()).total_seconds() / 2)
        self._urls.replace((repo, commit, path), (found, self._monotonic() + reuse))
        return found

    def _kept_facts(self, key: str) -> tuple[GgufFacts | None, ...]:
        """What is kept of a header, in a tuple; an empty one when it was not read."""
        kept = self._facts.get(key)
        if kept is None:
            row = self._cache.get(_FACTS, key)
            kept = self._facts.put(key, (row and rows.read_facts(row[0])) or ())
        return kept

    def _start_reading(
        self, key: str, repo: str, commit: str, variant: Variant
    ) -> Future[GgufFacts | None]:
        return self._headers.start(key, lambda: self._read_facts(key, repo, commit, variant))

    def _read_facts(self, key: str, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        first = variant.files[0]
        what = f'file "{first.path}" of "{repo}"'
        url = self._resolve(repo, commit, first.path).url
        try:
            facts = gguf_header.read_facts(
                lambda offset, length: self._client.read(url, what, offset, length),
                first.size_bytes,
            )
        except gguf_header.UnreadableHeader as error:
            log.info("a header cannot be read", repo=repo, file=first.path, problem=str(error))
            facts = None
        self._cache.put(_FACTS, key, rows.write_facts(facts), self._clock())
        self._facts.replace(key, (facts,))
        return facts

    def _prepare(self, generation: Generation, start: int, stop: int) -> None:
        deadline = self._monotonic() + self._settings.patience
        for _ in self._look(generation, start, stop, deadline):
            pass

    def _count_up_to(
        self, generation: Generation, wanted: Filter, variants: int, deadline: float
    ) -> tuple[bool, bool]:
        """Looks into repositories until more than so many wanted variants are found.

        Returns whether the list has ended, and whether the Hub was asked.
        """
        examined = 0
        asked = False
        batch = _FIRST_BATCH
        while True:
            position, known = generation.counted(wanted)
            ended = position == len(generation) and generation.is_complete
            if ended or known > variants or examined >= self._settings.examined:
                return ended, asked
            if position == len(generation):
                self._listings.extend(generation, deadline - self._monotonic())
                asked = True
                continue
            stop = position + min(batch, self._settings.parallel_calls)
            batch *= 2
            for seen in self._look(generation, position, stop, deadline):
                found = len(wanted.of_variants(seen.contents.variants))
                generation.count(wanted, position, found)
                asked = asked or seen.asked
                position += 1
                examined += 1
                known += found
                if known > variants:
                    break  # the rest of the batch arrives for the next page

    def _cut(
        self, generation: Generation, wanted: Filter, numbers: range, deadline: float
    ) -> tuple[tuple[CatalogEntry, ...], bool]:
        """The wanted variants of these numbers, all counted before; whether the Hub was asked."""
        if not numbers:
            return (), False
        first = generation.place(wanted, numbers[0])
        last = generation.place(wanted, numbers[-1])
        entries: list[CatalogEntry] = []
        asked = False
        looked = self._look(generation, first.repo, last.repo + 1, deadline)
        for place, seen in enumerate(looked, first.repo):
            asked = asked or seen.asked
            variants = wanted.of_variants(seen.contents.variants)
            start = first.skip if place == first.repo else 0
            stop = last.skip + 1 if place == last.repo else len(variants)
            if variants[start:stop]:
                repo = _repo(seen.listed, seen.contents)
                entries += [CatalogEntry(repo, variant) for variant in variants[start:stop]]
        return tuple(entries), asked

    def _look(
        self, generation: Generation, start: int, stop: int, deadline: float
    ) -> Iterator[_Seen]:
        """What the repositories at these places hold, in order.

        Asks the Hub for all that is not known at once; who stops early leaves the answers for
        later. A repository that vanished or is hidden holds nothing. Any other failure is raised:
        a page with a hole would be a lie.
        """
        asked: dict[int, Future[Contents]] = {}
        for place, listed in enumerate(generation.repos(start, stop), start):
            if self._known(generation, listed) is None:
                asked[place] = self._contents.start(listed)
        for place, listed in enumerate(generation.repos(start, stop), start):
            if place not in asked:
                contents = self._known(generation, listed)
                if contents is None:
                    asked[place] = self._contents.start(listed)
                else:
                    yield _Seen(listed, contents, asked=False)
                    continue
            try:
                contents = outcome(asked[place], deadline - self._monotonic())
            except RevisionNotFound:
                listed, contents = self._moved(generation, place, listed)
            except (NotFound, HubGated):
                self._lose(generation, listed)
                contents = _NOTHING
            yield _Seen(listed, contents, asked=True)

    def _known(self, generation: Generation, listed: ListedRepo) -> Contents | None:
        if generation.is_gone(listed.repo):
            return _NOTHING
        return self._contents.known(listed.repo, listed.commit)

    def _moved(
        self, generation: Generation, place: int, listed: ListedRepo
    ) -> tuple[ListedRepo, Contents]:
        """The repository left the commit that the list named: takes the present one."""
        try:
            present = self._client.info(listed.repo, "main")
            contents = self._contents.fetch(present.repo, present.commit)
        except (NotFound, HubGated):
            self._lose(generation, listed)
            return listed, _NOTHING
        if present.repo != listed.repo and generation.has_seen(present.repo):
            self._lose(generation, listed)
            return listed, _NOTHING
        generation.replace(place, present)
        return present, contents

    def _lose(self, generation: Generation, listed: ListedRepo) -> None:
        generation.lose(listed.repo)
        self._listings.keep_gone(generation)


def _facts_key(repo: str, commit: str, variant: Variant) -> str:
    """Equal digests are equal headers, in whatever commit."""
    return variant.files[0].sha256 or f"{repo}@{commit}/{variant.filename}"


def _asked(query: CatalogQuery) -> tuple[ListingKey, Filter]:
    search, author = " ".join(query.search.split()), query.author.strip()
    if len(search) > _MAX_SEARCH or not search.isprintable():
        raise InvalidArgument(
            f"a search has at most {_MAX_SEARCH} printable characters", param="search"
        )
    if author and ("/" in author or len(author) > 96 or not author.isprintable()):
        raise InvalidArgument("an author is the first part of a repository", param="author")
    return ListingKey(search, author, query.sort), Filter.of(query)


def _repo(listed: ListedRepo, contents: Contents) -> CatalogRepo:
    return CatalogRepo(
        repo=listed.repo,
        commit=listed.commit,
        last_modified=listed.last_modified,
        downloads=listed.downloads,
        likes=listed.likes,
        tags=listed.tags,
        gating=listed.gating,
        private=listed.private,
        pipeline_tag=listed.pipeline_tag,
        license=listed.license,
        variants=contents.variants,
        convertible=bool(contents.conversion_files),
        conversion_files=contents.conversion_files,
        ignored=contents.ignored,
    )


def _write_token(generation: str, position: int) -> str:
    text = json.dumps([generation, position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, int]:
    try:
        if len(token) > 200:
            raise ValueError("too long")
        content: Sequence[object] = json.loads(
            base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        )
        generation, position = content
    except (ValueError, TypeError, RecursionError, binascii.Error):
        generation, position = None, None
    if isinstance(generation, str) and type(position) is int and position >= 0:
        return generation, position
    raise InvalidPageToken("the page token was not given by this router", param="page_token")
