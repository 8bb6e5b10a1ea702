"""A `CatalogCache` in memory: what survives when a catalog is made anew."""

import threading
from collections.abc import Iterable
from datetime import datetime


class MemoryCache:
    """Implements `router.domain.ports.CatalogCache` without bounds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rows: dict[tuple[str, str], tuple[bytes, datetime]] = {}

    def get(self, kind: str, key: str) -> tuple[bytes, datetime] | None:
        """See the port."""
        with self._lock:
            return self.rows.get((kind, key))

    def put(self, kind: str, key: str, body: bytes, at: datetime) -> None:
        """See the port."""
        with self._lock:
            self.rows[kind, key] = (body, at)

    def put_many(self, kind: str, rows: Iterable[tuple[str, bytes]], at: datetime) -> None:
        """See the port."""
        with self._lock:
            self.rows.update({(kind, key): (body, at) for key, body in rows})

    def delete(self, kind: str, key: str) -> None:
        """See the port."""
        with self._lock:
            self.rows.pop((kind, key), None)
