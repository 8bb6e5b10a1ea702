"""What is where: joins what nodes hold with what they were ordered to bring."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from router.domain.models import Holding, HoldingState, Manifest
from router.domain.nodes import Inventory
from router.domain.ports import Store
from router.domain.tasks import TaskMark, TaskState
from router.services.board import Board
from router.services.presence import Presence
from router.services.watch import Topic, Watchers


class Holdings:
    """Which model is on which node, and how far."""

    def __init__(self, store: Store, board: Board, presence: Presence, watchers: Watchers) -> None:
        """Reads the store and the board."""
        self._store = store
        self._board = board
        self._presence = presence
        self._watchers = watchers

    def of_model(self, model_name: str) -> tuple[Holding, ...]:
        """One entry for each node that holds the model, lost it, or was ordered to bring it."""
        return self._joined(model_name=model_name)

    def of_node(self, node_id: str) -> tuple[Holding, ...]:
        """One entry for each model that the node holds, lost, or was ordered to bring."""
        return self._joined(node_id=node_id)

    def by_model(self) -> dict[str, list[Holding]]:
        """Of every model."""
        found: dict[str, list[Holding]] = {}
        for holding in self._joined():
            found.setdefault(holding.model_name, []).append(holding)
        return found

    def by_node(self) -> dict[str, list[Holding]]:
        """Of every node."""
        found: dict[str, list[Holding]] = {}
        for holding in self._joined():
            found.setdefault(holding.node_id, []).append(holding)
        return found

    def ready_counts(self) -> dict[str, int]:
        """On how many nodes each model is verified; models that are on none are left out."""
        return self._store.ready_counts()

    def take_inventory(self, node_id: str, inventory: Inventory) -> list[str]:
        """Notes what a node says it holds; what it held and no longer names is missing.

        What it is still to evict is on its way out, and does not count. Returns the models that the
        node has lost: held until now, and not told to remove.
        """
        self._presence.hold(node_id, inventory)
        # Inside the transaction: a model that is registered meanwhile either finds this inventory
        # or is found by it.
        with self._store.transaction():
            known = {name: moment for name, _, moment in self._store.holdings(node_id=node_id)}
            leaving = [eviction.manifest for eviction in self._store.evictions(node_id)]
            changed: dict[str, datetime | None] = {}
            for model in self._store.models():
                verified_at = inventory.verified_at(model.manifest)
                before = known.get(model.name)
                if verified_at is not None and verified_at != before:
                    if not any(model.manifest.same_files(other) for other in leaving):
                        changed[model.name] = verified_at
                elif verified_at is None and before is not None and not inventory.partial:
                    changed[model.name] = None
            self._store.save_holdings((name, node_id, moment) for name, moment in changed.items())
            if changed:
                self._store.after_commit(lambda: self._publish(changed, [node_id]))
        return [name for name, moment in changed.items() if moment is None]

    def find(self, manifest: Manifest) -> None:
        """Notes which connected nodes hold a model that was just registered.

        Runs inside the caller's transaction.
        """
        found = self._holders(manifest)
        self._store.save_holdings(
            (manifest.model_name, node_id, verified_at) for node_id, verified_at in found.items()
        )
        self._store.after_commit(lambda: self._publish([manifest.model_name], found))

    def renew(self, manifest: Manifest) -> set[str]:
        """Notes who holds the files of a manifest that has just taken the place of another.

        Who held the earlier ones and is offline, or lacks a new one, misses it from now on.
        Returns all nodes concerned. Runs inside the caller's transaction.
        """
        name = manifest.model_name
        found = self._holders(manifest)
        affected = {node_id for _, node_id, _ in self._store.holdings(model_name=name)} | set(found)
        self._store.save_holdings((name, node_id, found.get(node_id)) for node_id in affected)
        affected |= {task.node_id for task in self._store.latest_tasks(model_name=name)}
        self._store.after_commit(lambda: self._publish([name], affected))
        return affected

    def _holders(self, manifest: Manifest) -> dict[str, datetime]:
        """The connected nodes that hold every file and are not to evict them; since when."""
        leaving = {
            eviction.node_id
            for eviction in self._store.evictions()
            if eviction.manifest.same_files(manifest)
        }
        return {
            node_id: verified_at
            for node_id, inventory in self._presence.inventories().items()
            if node_id not in leaving
            and (verified_at := inventory.verified_at(manifest)) is not None
        }

    def _publish(self, model_names: Iterable[str], node_ids: Iterable[str]) -> None:
        for name in model_names:
            self._watchers.publish(Topic.MODEL, name)
        for node_id in node_ids:
            self._watchers.publish(Topic.NODE, node_id)

    def _joined(self, *, model_name: str = "", node_id: str = "") -> tuple[Holding, ...]:
        rows = self._store.holdings(model_name=model_name, node_id=node_id)
        tasks = self._store.latest_tasks(model_name=model_name, node_id=node_id)
        names = self._node_names(node_id)
        joined: dict[tuple[str, str], Holding] = {}
        for task in tasks:
            joined[task.model_name, task.node_id] = Holding(
                model_name=task.model_name,
                node_id=task.node_id,
                node_name=names.get(task.node_id, task.node_id),
                state=_state(task),
                task_id=task.task_id,
            )
        for name, node, verified_at in rows:
            brought = joined.get((name, node))
            held = Holding(
                model_name=name,
                node_id=node,
                node_name=names.get(node, node),
                state=HoldingState.MISSING if verified_at is None else HoldingState.READY,
                verified_at=verified_at,
            )
            if brought is None:
                joined[name, node] = held
            elif verified_at is not None:
                joined[name, node] = replace(held, task_id=brought.task_id)
        return tuple(sorted(joined.values(), key=lambda h: (h.model_name, h.node_name, h.node_id)))

    def _node_names(self, node_id: str) -> dict[str, str]:
        if not node_id:
            return self._store.node_names()
        node = self._store.node(node_id)
        return {} if node is None else {node_id: node.name}


def _state(task: TaskMark) -> HoldingState:
    if task.state is TaskState.FAILED:
        return HoldingState.FAILED
    if task.state in (TaskState.DOWNLOADING, TaskState.VERIFYING):
        return HoldingState.DOWNLOADING
    return HoldingState.PENDING
