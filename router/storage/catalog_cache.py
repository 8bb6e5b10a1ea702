"""What the Hub said, kept over restarts and bounded in rows and bytes."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from peewee import fn

from router.storage.database import Database
from router.storage.tables import CatalogRow

_USE_WORTH_A_WRITE = timedelta(minutes=10)


class StoredCatalogCache:
    """The port `CatalogCache` on the catalog table.

    A use is written down at most every ten minutes, so that reading stays reading.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        max_rows: int = 100_000,
        max_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        """Bounds: rows, and bytes of all bodies together."""
        self._database = database
        self._clock = clock
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._bounds_lock = threading.Lock()
        totals = CatalogRow.select(fn.COUNT(CatalogRow.key), fn.SUM(CatalogRow.size_bytes))
        count, size = next(iter(totals.tuples().execute(database.connection)))
        self._rows = int(count)
        self._bytes = int(size or 0)

    def get(self, kind: str, key: str) -> tuple[bytes, datetime] | None:
        """The row's body and when it was put, or None; counts as a use."""
        row = CatalogRow.select().where(_is(kind, key)).first(self._database.connection)
        if row is None:
            return None
        now = self._clock()
        if now - row.used_at > _USE_WORTH_A_WRITE:
            with self._database.transaction():
                CatalogRow.update(used_at=now).where(_is(kind, key)).execute(
                    self._database.connection
                )
        return bytes(row.body), row.fetched_at

    def put(self, kind: str, key: str, body: bytes, at: datetime) -> None:
        """Keeps a row; what was used least recently goes when a bound is reached."""
        self.put_many(kind, [(key, body)], at)

    def put_many(self, kind: str, rows: Iterable[tuple[str, bytes]], at: datetime) -> None:
        """Keeps several rows in one transaction."""
        wanted = {key: body for key, body in rows if len(body) <= self._max_bytes}
        if not wanted:
            return
        used_at = self._clock()
        connection = self._database.connection
        with self._bounds_lock, self._database.transaction():
            for key, body in wanted.items():
                self._forget(_is(kind, key))
                CatalogRow.insert(
                    kind=kind,
                    key=key,
                    body=body,
                    size_bytes=len(body),
                    fetched_at=at,
                    used_at=used_at,
                ).execute(connection)
                self._rows += 1
                self._bytes += len(body)
            while self._rows > self._max_rows or self._bytes > self._max_bytes:
                oldest = CatalogRow.select(CatalogRow.kind, CatalogRow.key).order_by(
                    CatalogRow.used_at
                )
                for row in list(oldest.limit(max(1, self._rows // 20)).execute(connection)):
                    self._forget(_is(row.kind, row.key))

    def delete(self, kind: str, key: str) -> None:
        """Forgets a row."""
        with self._bounds_lock, self._database.transaction():
            self._forget(_is(kind, key))

    def _forget(self, where: object) -> None:
        connection = self._database.connection
        row = CatalogRow.select(CatalogRow.size_bytes).where(where).first(connection)
        if row is not None:
            CatalogRow.delete().where(where).execute(connection)
            self._rows -= 1
            self._bytes -= row.size_bytes


def _is(kind: str, key: str) -> object:
    return (CatalogRow.kind == kind) & (CatalogRow.key == key)
