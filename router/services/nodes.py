"""The fleet: who is there, what an operator sets on a node, and removing things from it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from protos import names
from router.domain.errors import InvalidArgument, ModelBusy, NodeBusy, NodeNotFound
from router.domain.models import Holding
from router.domain.nodes import Hello, Node, NodeView
from router.domain.ports import Clock, Store
from router.domain.tasks import UNFINISHED
from router.services import paging
from router.services.board import Board
from router.services.evictions import Evictions
from router.services.holdings import Holdings
from router.services.line import Line
from router.services.models import Models
from router.services.presence import Presence
from router.services.rollouts import Rollouts
from router.services.watch import Topic, Watchers


class Nodes:
    """The known nodes. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        models: Models,
        holdings: Holdings,
        presence: Presence,
        board: Board,
        line: Line,
        evictions: Evictions,
        rollouts: Rollouts,
        watchers: Watchers,
        clock: Clock,
    ) -> None:
        """Keeps nodes in `store`."""
        self._store = store
        self._models = models
        self._holdings = holdings
        self._presence = presence
        self._board = board
        self._line = line
        self._evictions = evictions
        self._rollouts = rollouts
        self._watchers = watchers
        self._clock = clock
        known = store.nodes()
        self._names = {node.node_id: node.name for node in known}
        self._sites = {node.node_id: node.site for node in known}

    def name(self, node_id: str) -> str:
        """The node's name; its id when it is not known any more."""
        return self._names.get(node_id, node_id)

    def site(self, node_id: str) -> str:
        """The site that the node's labels name; empty also when it is not known any more."""
        return self._sites.get(node_id, "")

    def count(self) -> int:
        """Number of known nodes."""
        return len(self._names)

    def resolve(self, reference: str) -> Node:
        """The node with this id, or alone with this name. Raises `NodeNotFound`."""
        node = self._store.node(reference)
        if node is not None:
            return node
        named = self._store.nodes_named(reference)
        if len(named) == 1:
            return named[0]
        if named:
            ids = ", ".join(node.node_id for node in named)
            raise NodeNotFound(
                f'{len(named)} nodes are named "{reference}", name one by its id: {ids}',
                param="node_id",
            )
        raise NodeNotFound(f'node "{reference}" does not exist', param="node_id")

    def get(self, reference: str) -> NodeView:
        """The node with what it holds. Raises `NodeNotFound`."""
        node = self.resolve(reference)
        return self._view(node, self._holdings.of_node(node.node_id))

    def page(self, size: int, token: str) -> paging.Page[NodeView]:
        """Nodes by name, with what they hold."""
        holdings = self._holdings.by_node()

        def fetch(after: str, limit: int) -> list[NodeView]:
            return [
                self._view(node, holdings.get(node.node_id, ()))
                for node in self._store.nodes(after=_place(after), limit=limit)
            ]

        return paging.page(size, token, fetch, lambda view: f"{view.node.name}/{view.node.node_id}")

    def all(self) -> list[NodeView]:
        """Every node by name, with what it holds."""
        holdings = self._holdings.by_node()
        return [self._view(node, holdings.get(node.node_id, ())) for node in self._store.nodes()]

    def welcome(self, hello: Hello) -> None:
        """Takes in who a node says it is; a new one becomes known."""
        now = self._clock()
        with self._store.transaction():
            known = self._store.node(hello.node_id)
            node = Node(
                node_id=hello.node_id,
                name=hello.name,
                version=hello.version,
                labels=hello.labels,
                memory_bytes=hello.memory_bytes,
                gpus=hello.gpus,
                disk_free_bytes=hello.disk_free_bytes,
                disk_total_bytes=hello.disk_total_bytes,
                settings=hello.settings,
                created_at=known.created_at if known else now,
                last_seen_at=now,
                set_labels=known.set_labels if known else {},
                set_max_rate=known.set_max_rate if known else None,
                set_max_upload_rate=known.set_max_upload_rate if known else None,
                set_max_hub_rate=known.set_max_hub_rate if known else None,
            )
            self._store.save_node(node)
            self._names[hello.node_id] = hello.name
            self._rollouts.joined(node)

            def tell() -> None:
                self._sites[node.node_id] = node.site
                self._line.know(node)
                self.published(node.node_id)

            self._store.after_commit(tell)

    def hear(self, node_id: str) -> None:
        """Notes, in memory, that a connected node has just said something; never blocks."""
        self._presence.hear(node_id, self._clock())

    def seen(
        self,
        node_id: str,
        disk_free_bytes: int,
        disk_total_bytes: int,
        *,
        at: datetime | None = None,
    ) -> None:
        """Notes that a node was alive `at` a moment, or is now, and the room on its disk."""
        with self._store.transaction():
            moment = at or self._clock()
            if self._store.save_disk(node_id, disk_free_bytes, disk_total_bytes, moment):
                self._store.after_commit(lambda: self._watchers.publish(Topic.NODE, node_id))

    def published(self, node_id: str) -> None:
        """Tells that a node came or went: it, and its tasks, are shown differently now."""
        self._watchers.publish(Topic.NODE, node_id)
        for task in self._board.of_node(node_id):
            self._watchers.publish(Topic.TASK, task.task_id)

    def update(
        self,
        reference: str,
        *,
        max_rate: int | None = None,
        max_upload_rate: int | None = None,
        max_hub_rate: int | None = None,
        labels: Mapping[str, str] | None = None,
        remove_labels: tuple[str, ...] = (),
    ) -> NodeView:
        """Changes what an operator sets; bytes per second, 0: no limit, None: unchanged.

        Raises `NodeNotFound`, `InvalidArgument`.
        """
        rates = {
            "max_rate": max_rate,
            "max_upload_rate": max_upload_rate,
            "max_hub_rate": max_hub_rate,
        }
        for name, rate in rates.items():
            if rate is not None and rate < 0:
                raise InvalidArgument("a rate is not negative; 0 means no limit", param=name)
        try:
            for key, value in (labels or {}).items():
                names.label(key, value)
        except names.InvalidName as error:
            raise InvalidArgument(str(error), param="labels") from None
        with self._store.transaction():
            node = self.resolve(reference)
            set_labels = {**node.set_labels, **(labels or {})}
            for key in remove_labels:
                set_labels.pop(key, None)
            changed = replace(
                node,
                set_labels=set_labels,
                set_max_rate=_or(max_rate, node.set_max_rate),
                set_max_upload_rate=_or(max_upload_rate, node.set_max_upload_rate),
                set_max_hub_rate=_or(max_hub_rate, node.set_max_hub_rate),
            )
            self._store.save_node(changed)
            self._rollouts.joined(changed)
            self._store.after_commit(lambda: self._sites.update({node.node_id: changed.site}))
            self._store.after_commit(lambda: self._line.know(changed))
            self._tell_of(node.node_id)
        return self.get(node.node_id)

    def remove(self, reference: str) -> None:
        """Forgets a node with its tasks; its files stay. Raises `NodeNotFound`, `NodeBusy`."""
        with self._store.transaction():
            node = self.resolve(reference)
            if self._presence.online(node.node_id):
                raise NodeBusy(
                    f'node "{node.name}" is connected: stop its agent first', param="node_id"
                )
            task_ids = [task.task_id for task in self._store.tasks(node_id=node.node_id)]
            held = [holding.model_name for holding in self._holdings.of_node(node.node_id)]
            self._store.delete_node(node.node_id)

            def tell() -> None:
                self._names.pop(node.node_id, None)
                self._sites.pop(node.node_id, None)
                self._line.forget(node.node_id)
                self._board.remove(task_ids)
                self._watchers.publish(Topic.NODE, node.node_id)
                for task_id in task_ids:
                    self._watchers.publish(Topic.TASK, task_id)
                for model_name in held:
                    self._watchers.publish(Topic.MODEL, model_name)

            self._store.after_commit(tell)

    def evict(self, reference: str, model_reference: str) -> None:
        """Removes a model's files from a node, at once or when it is back.

        Raises `NodeNotFound`, `ModelNotFound`, and `ModelBusy` while a task brings it there.
        """
        with self._store.transaction():
            node = self.resolve(reference)
            model = self._models.resolve(model_reference)
            if self._store.tasks(
                model_name=model.name, node_id=node.node_id, states=UNFINISHED, limit=1
            ):
                raise ModelBusy(
                    f'a task is bringing "{model.name}" to node "{node.name}": cancel it first',
                    param="model_name",
                )
            self._evictions.place(model, node.node_id)
            self._rollouts.evicted(model.name, node)

    def evicted(self, node_id: str, eviction_ids: tuple[str, ...]) -> None:
        """Notes that a node has carried out evictions."""
        with self._store.transaction():
            if self._store.delete_evictions(node_id, eviction_ids):
                self._tell_of(node_id)

    def _tell_of(self, node_id: str) -> None:
        def tell() -> None:
            self._watchers.publish(Topic.NODE, node_id)
            self._watchers.publish(Topic.ASSIGNMENT, node_id)

        self._store.after_commit(tell)

    def _view(self, node: Node, holdings: Iterable[Holding]) -> NodeView:
        heard_at = self._presence.heard_at(node.node_id)
        if heard_at is not None:  # the store learns it once in a lease
            node = replace(node, last_seen_at=max(node.last_seen_at, heard_at))
        return NodeView(
            node,
            self._presence.online(node.node_id),
            tuple(holdings),
            self._presence.addresses(node.node_id),
        )


def _or(given: int | None, before: int | None) -> int | None:
    return before if given is None else given


def _place(key: str) -> tuple[str, str] | None:
    """Where a page of nodes ended, from its token: a name has no slash."""
    name, _, node_id = key.partition("/")
    return (name, node_id) if key else None
