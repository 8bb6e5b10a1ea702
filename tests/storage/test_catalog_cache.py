"""What the Hub said, kept within bounds."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router.storage.catalog_cache import StoredCatalogCache
from router.storage.database import Database

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """The present moment."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The cache's clock."""
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database file."""
    return Database(f"sqlite:///{tmp_path / 'router.db'}")


def kept(cache: StoredCatalogCache, *keys: str) -> list[str]:
    """Which of the keys are still there."""
    return [key for key in keys if cache.get("page", key) is not None]


def test_a_row_is_read_back_also_by_the_next_process(database: Database, clock: Clock) -> None:
    StoredCatalogCache(database, clock).put("page", "a", b"\0body", START)

    again = StoredCatalogCache(database, clock)

    assert again.get("page", "a") == (b"\0body", START)
    assert again.get("tree", "a") is None


def test_a_row_is_replaced_and_deleted(database: Database, clock: Clock) -> None:
    cache = StoredCatalogCache(database, clock)
    cache.put("page", "a", b"old", START)
    cache.put("page", "a", b"new", START + timedelta(1))

    replaced = cache.get("page", "a")
    cache.delete("page", "a")
    cache.delete("page", "a")

    assert replaced == (b"new", START + timedelta(1))
    assert cache.get("page", "a") is None


def test_the_least_used_rows_go_when_there_are_too_many(database: Database, clock: Clock) -> None:
    cache = StoredCatalogCache(database, clock, max_rows=3)
    for key in ("a", "b", "c"):
        clock.now += timedelta(hours=1)
        cache.put("page", key, b"x", START)
    clock.now += timedelta(hours=1)
    cache.get("page", "a")
    clock.now += timedelta(hours=1)

    cache.put("page", "d", b"x", START)

    assert kept(cache, "a", "b", "c", "d") == ["a", "c", "d"]


def test_bytes_are_bounded_over_restarts_and_replacements(database: Database, clock: Clock) -> None:
    StoredCatalogCache(database, clock, max_bytes=100).put("page", "a", b"x" * 60, START)
    cache = StoredCatalogCache(database, clock, max_bytes=100)
    for _ in range(5):
        clock.now += timedelta(hours=1)
        cache.put("page", "b", b"x" * 40, START)
    both = kept(cache, "a", "b")
    clock.now += timedelta(hours=1)

    cache.put_many("page", [("c", b"x" * 30), ("d", b"x" * 30)], START)

    assert both == ["a", "b"]
    assert kept(cache, "a", "b", "c", "d") == ["b", "c", "d"]


def test_a_body_that_could_never_fit_throws_nothing_else_out(
    database: Database, clock: Clock
) -> None:
    cache = StoredCatalogCache(database, clock, max_bytes=100)
    cache.put("page", "a", b"x", START)

    cache.put("page", "huge", b"x" * 101, START)

    assert kept(cache, "a", "huge") == ["a"]


def test_many_threads_keep_the_count(database: Database, clock: Clock) -> None:
    cache = StoredCatalogCache(database, clock, max_rows=10)

    def use(number: int) -> None:
        for step in range(10):
            cache.put("page", f"{number}-{step}", b"x" * 10, START)
            cache.get("page", f"{number}-{step}")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(use, range(6)))

    rows = sum(
        cache.get("page", f"{number}-{step}") is not None
        for number in range(6)
        for step in range(10)
    )
    assert 1 <= rows <= 10
    assert (cache._rows, cache._bytes) == (rows, rows * 10)
