"""A hub that can misbehave, and catalogs over it whose clock the test moves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router.hub.catalog import CatalogSettings, HubCatalog
from router.hub.client import Timing
from router.hub.listings import ListingSettings
from tests.fakes.hub import FaultyHub, make_repo
from tests.hub.memory_cache import MemoryCache

SETTINGS = CatalogSettings(
    patience=15.0,
    parallel_calls=4,
    parallel_lists=2,
    listing=ListingSettings(page=4),
    timing=Timing(connect=2.0, answer=2.0, whole=4.0, waits=()),
)
REPOS = tuple(f"owner-{n % 3}/model-{n:02}-GGUF" for n in range(12))


class Clock:
    """Time that stands still until it is moved; both clocks move together."""

    def __init__(self) -> None:
        self._passed = 0.0

    def pass_by(self, seconds: float) -> None:
        """Lets so much time go by."""
        self._passed += seconds

    def wall(self) -> datetime:
        """The time of day."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return 1000.0 + self._passed


MakeCatalog = Callable[..., HubCatalog]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve repositories with two variants each."""
    models = tmp_path / "models"
    for number, repo in enumerate(REPOS):
        make_repo(models, repo, {"m-Q4_K_M.gguf": 100 + number, "m-Q8_0.gguf": 200 + number})
    return models


@pytest.fixture
def hub(folder: Path) -> Iterator[FaultyHub]:
    """The hub over `folder`; repositories are listed in the order of their numbers."""
    with FaultyHub(folder) as running:
        for number, repo in enumerate(REPOS):
            running.set_standing(repo, downloads=1000 - number)
        yield running


@pytest.fixture
def clock() -> Clock:
    """See `Clock`."""
    return Clock()


@pytest.fixture
def cache() -> MemoryCache:
    """What survives a restart."""
    return MemoryCache()


@pytest.fixture
def make_catalog(hub: FaultyHub, cache: MemoryCache, clock: Clock) -> Iterator[MakeCatalog]:
    """Makes catalogs; keywords replace settings, `token` is the Hub's, `url` another hub's."""
    made: list[HubCatalog] = []
    usual = cache

    def make(
        token: str | None = None, url: str = "", cache: MemoryCache = usual, **changes: object
    ) -> HubCatalog:
        settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
        catalog = HubCatalog(
            url or hub.url,
            cache,
            token=token,
            settings=settings,
            clock=clock.wall,
            monotonic=clock.monotonic,
        )
        made.append(catalog)
        return catalog

    yield make
    for catalog in made:
        catalog.close()


@pytest.fixture
def catalog(make_catalog: MakeCatalog) -> HubCatalog:
    """A catalog without a token."""
    return make_catalog()
