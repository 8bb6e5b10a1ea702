"""What repositories hold, by commit: a commit never changes, so each is asked for once."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime

from router.domain.ports import CatalogCache
from router.hub import rows
from router.hub.client import HubClient, ListedRepo
from router.hub.recent import Recent
from router.hub.variants import Contents, read_contents
from router.hub.workers import Flights

_KIND = "tree"


class RepoContents:
    """Contents from memory, else from the cache, else from the Hub. Safe from any thread."""

    def __init__(
        self,
        client: HubClient,
        cache: CatalogCache,
        flights: Flights,
        wall: Callable[[], datetime],
        kept: int,
    ) -> None:
        self._client = client
        self._cache = cache
        self._flights = flights
        self._wall = wall
        self._kept: Recent[tuple[str, str], Contents] = Recent(kept)

    def known(self, repo: str, commit: str) -> Contents | None:
        """The contents, if the Hub need not be asked."""
        found = self._kept.get((repo, commit))
        if found is not None:
            return found
        row = self._cache.get(_KIND, _row_key(repo, commit))
        files = rows.read_files(row[0]) if row is not None else None
        if files is None:
            return None
        return self._kept.put((repo, commit), read_contents(repo, files))

    def start(self, listed: ListedRepo) -> Future[Contents]:
        """Asks the Hub, once for all who wait."""
        key = (_KIND, listed.repo, listed.commit)
        return self._flights.start(key, lambda: self.fetch(listed.repo, listed.commit))

    def fetch(self, repo: str, commit: str) -> Contents:
        """Asks the Hub in this thread, unless it was asked before."""
        known = self.known(repo, commit)
        if known is not None:
            return known
        files = self._client.files(repo, commit)
        self._cache.put(_KIND, _row_key(repo, commit), rows.write_files(files), self._wall())
        return self._kept.put((repo, commit), read_contents(repo, files))


def _row_key(repo: str, commit: str) -> str:
    return f"{repo}@{commit}"
