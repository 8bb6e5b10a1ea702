"""Taking models off nodes, at once or when they are back."""

from collections.abc import Iterable

from router.domain.models import Model
from router.domain.nodes import Eviction
from router.domain.ports import Clock, Store
from router.services.ids import new_id
from router.services.watch import Topic, Watchers


class Evictions:
    """What nodes are to remove; always inside the caller's transaction."""

    def __init__(self, store: Store, watchers: Watchers, clock: Clock) -> None:
        """Keeps evictions in `store` until the nodes have carried them out."""
        self._store = store
        self._watchers = watchers
        self._clock = clock

    def place(self, model: Model, node_id: str) -> None:
        """The node removes the model's files, and no longer counts as holding it."""
        now = self._clock()
        waiting = self._store.evictions(node_id)
        if not any(eviction.manifest.same_files(model.manifest) for eviction in waiting):
            self._store.add_eviction(Eviction(new_id("evict", now), node_id, model.manifest, now))
        self._store.delete_holding(model.name, node_id)

        def tell() -> None:
            self._watchers.publish(Topic.NODE, node_id)
            self._watchers.publish(Topic.ASSIGNMENT, node_id)
            self._watchers.publish(Topic.MODEL, model.name)

        self._store.after_commit(tell)

    def withdraw(self, model: Model, node_ids: Iterable[str]) -> None:
        """What is ordered now is no longer to go, although an offline node did not evict it yet."""
        wanted = set(node_ids)
        for eviction in self._store.evictions():
            if eviction.node_id in wanted and eviction.manifest.same_files(model.manifest):
                self._store.delete_evictions(eviction.node_id, [eviction.eviction_id])
