"""A bounded memory of what was used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps up to `most` values; the least recently used goes first. Safe from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which counts as used now."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> V:
        """Keeps the value, unless there is one already; returns the one that is kept."""
        with self._lock:
            kept = self._values.setdefault(key, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            return kept

    def replace(self, key: K, value: V) -> None:
        """Keeps the value instead of any other."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def trim(self, weigh: Callable[[V], int], most: int) -> None:
        """Forgets the least recently used until all together weigh no more; keeps the last one."""
        with self._lock:
            weight = sum(weigh(value) for value in self._values.values())
            while weight > most and len(self._values) > 1:
                weight -= weigh(self._values.popitem(last=False)[1])
