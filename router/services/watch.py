"""Who wants to know what, and what has changed since they looked."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    """Kinds of things that change."""

    TASK = "task"
    MODEL = "model"
    NODE = "node"
    ASSIGNMENT = "assignment"  # keyed by node: what it should be doing
    LINE = "line"  # keyed by node: how fast it may take from the Hub
    SITE = "site"  # keyed by site: its line is to be divided anew


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed: not what it is now; whoever wants to know looks it up when it sends it.

    `sequence` grows with every change of anything.
    """

    topic: Topic
    key: str
    sequence: int


class Watch:
    """One watcher's mailbox. It keeps one entry for each thing, so a slow reader costs no more
    memory than the things it watches, and always reads the latest.
    """

    def __init__(self, watchers: "Watchers", interests: list[tuple[Topic, str | None]]) -> None:
        """Belongs to the running event loop. Use `Watchers.watch`."""
        self._watchers = watchers
        self._interests = interests
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._lock = threading.Lock()
        self._changes: dict[tuple[Topic, str], Change] = {}
        self._woken = False

    async def changes(self) -> list[Change]:
        """Waits for at least one change; all that came, oldest first."""
        await self._wake.wait()
        with self._lock:
            self._wake.clear()
            self._woken = False
            taken, self._changes = self._changes, {}
        return list(taken.values())

    def close(self) -> None:
        """No more changes come."""
        self._watchers.forget(self, self._interests)

    def __enter__(self) -> "Watch":
        """The watch itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the watch."""
        self.close()

    def offer(self, change: Change) -> None:
        """Puts a change into the mailbox; from any thread, never blocks."""
        with self._lock:
            self._changes.pop((change.topic, change.key), None)
            self._changes[change.topic, change.key] = change
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            self.close()  # the loop is closed: nobody reads any more


class Watchers:
    """Tells every watcher what changed. Safe from any thread."""

    def __init__(self) -> None:
        """Nobody watches yet."""
        self._lock = threading.RLock()
        self._sequence = 0
        self._watches: dict[tuple[Topic, str | None], set[Watch]] = {}

    @property
    def sequence(self) -> int:
        """Of the last change."""
        return self._sequence

    def watch(self, *topics: Topic, keys: Iterable[str] | None = None) -> Watch:
        """A mailbox for all changes of the topics, or for those of some keys only."""
        named = [None] if keys is None else list(keys)
        watch = Watch(self, [(topic, key) for topic in topics for key in named])
        with self._lock:
            for interest in watch._interests:
                self._watches.setdefault(interest, set()).add(watch)
        return watch

    def forget(self, watch: Watch, interests: list[tuple[Topic, str | None]]) -> None:
        """Stops offering changes to a watch."""
        with self._lock:
            for interest in interests:
                others = self._watches.get(interest)
                if others is not None:
                    others.discard(watch)
                    if not others:
                        del self._watches[interest]

    def publish(self, topic: Topic, key: str) -> None:
        """Tells that a thing has changed, appeared or gone."""
        # Offered under the lock: whoever knows a sequence has been offered all that came before.
        with self._lock:
            self._sequence += 1
            change = Change(topic, key, self._sequence)
            for interest in ((topic, None), (topic, key)):
                for watch in tuple(self._watches.get(interest, ())):
                    watch.offer(change)
