"""The port `Store` on the tables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from typing import Any

from peewee import Field, fn

from router.domain.line import Site
from router.domain.models import Manifest, Model
from router.domain.nodes import Eviction, Node, RatesSet
from router.domain.orders import Order
from router.domain.tasks import UNFINISHED, Task, TaskMark, TaskState
from router.storage import documents, records
from router.storage.database import Database
from router.storage.tables import (
    EvictionRow,
    HoldingRow,
    ModelRow,
    NodeRow,
    OrderRow,
    SettingRow,
    SiteRow,
    Table,
    TaskRow,
)

_INSERT_BATCH = 100


class PeeweeStore:
    """What must survive: models, orders, tasks, nodes, holdings, evictions.

    Reads may run on any thread; every write must run inside `transaction`.
    """

    def __init__(self, database: Database) -> None:
        """Reads and writes `database`."""
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; durable on return; one writer at a time."""
        return self._database.transaction()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Runs `callback` once the present transaction is durable."""
        self._database.after_commit(callback)

    def next_epoch(self, now: datetime) -> int:
        """A number larger than every one before, also after the database was lost."""
        with self.transaction():
            row = SettingRow.select().where(SettingRow.name == "epoch").first(self._connection)
            epoch = max(int(now.timestamp()), 0 if row is None else row.number + 1)
            self._save(SettingRow, {"name": "epoch"}, {"number": epoch})
        return epoch

    # Models

    def add_model(self, model: Model) -> None:
        """Keeps a new model."""
        self._run(
            ModelRow.insert(
                name=model.name,
                display_name=model.display_name,
                status=model.status.value,
                repo=model.manifest.repo,
                manifest=documents.manifest_to(model.manifest),
                required_memory_bytes=model.required_memory_bytes,
                chat_template=model.chat_template,
                facts=documents.facts_to(model.facts),
                created_at=model.created_at,
            )
        )

    def save_model(self, model: Model) -> None:
        """Replaces everything of a model but its id, repository and time of registration."""
        row = {
            "display_name": model.display_name,
            "status": model.status.value,
            "manifest": documents.manifest_to(model.manifest),
            "required_memory_bytes": model.required_memory_bytes,
            "chat_template": model.chat_template,
            "facts": documents.facts_to(model.facts),
        }
        self._run(ModelRow.update(row).where(ModelRow.name == model.name))

    def save_manifest(self, name: str, manifest: Manifest) -> None:
        """Replaces a model's manifest."""
        self._run(
            ModelRow.update(manifest=documents.manifest_to(manifest)).where(ModelRow.name == name)
        )

    def delete_model(self, name: str) -> None:
        """Forgets a model and who holds it."""
        self._run(ModelRow.delete().where(ModelRow.name == name))
        self._run(HoldingRow.delete().where(HoldingRow.model_name == name))

    def model(self, name: str) -> Model | None:
        """The model with this id."""
        return next(iter(self._models(ModelRow.select().where(ModelRow.name == name))), None)

    def models(self, *, after: str = "", limit: int | None = None) -> list[Model]:
        """Models by name, those after `after`."""
        query = ModelRow.select().where(ModelRow.name > after).order_by(ModelRow.name)
        return self._models(query.limit(limit) if limit is not None else query)

    def models_of_repo(self, repo: str) -> list[Model]:
        """The models of one repository, by name."""
        query = ModelRow.select().where(ModelRow.repo == repo).order_by(ModelRow.name)
        return self._models(query)

    # Orders

    def add_order(self, order: Order) -> None:
        """Keeps a new order."""
        self._run(
            OrderRow.insert(
                order_id=order.order_id,
                model_name=order.model_name,
                target=order.target.value,
                node_ids=list(order.node_ids),
                task_ids=list(order.task_ids),
                request_id=order.request_id or None,
                created_at=order.created_at,
                labels=dict(order.labels),
                options=documents.options_to(order.options),
                priority=order.priority,
                **records.changing(order),
            )
        )

    def save_order(self, order: Order) -> None:
        """Keeps what changes of an order: its tasks, waves, exclusions, and whether it goes on."""
        query = OrderRow.update(task_ids=list(order.task_ids), **records.changing(order))
        self._run(query.where(OrderRow.order_id == order.order_id))

    def order(self, order_id: str) -> Order | None:
        """The order with this id."""
        return self._order(OrderRow.order_id == order_id)

    def order_of_request(self, request_id: str) -> Order | None:
        """The order that a request with this id made."""
        return self._order(OrderRow.request_id == request_id)

    def orders(self, *, before: str = "", limit: int = 100) -> list[Order]:
        """Orders, the newest first, those before `before`."""
        query = OrderRow.select().order_by(OrderRow.order_id.desc()).limit(limit)
        if before:
            query = query.where(OrderRow.order_id < before)
        return [records.order(row) for row in self._run(query)]

    def orders_of(self, model_name: str = "", *, watched: bool = False) -> list[Order]:
        """The orders of a model, or of all, the oldest first; only the watched ones if asked so."""
        query = OrderRow.select().order_by(OrderRow.order_id)
        if model_name:
            query = query.where(OrderRow.model_name == model_name)
        if watched:
            query = query.where(OrderRow.watched)
        return [records.order(row) for row in self._run(query)]

    # Tasks

    def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Keeps new tasks."""
        for batch in _batches(map(records.task_row, tasks)):
            self._run(TaskRow.insert_many(batch))

    def save_task(self, task: Task) -> None:
        """Replaces a task."""
        self.save_tasks([task])

    def save_tasks(self, tasks: Iterable[Task]) -> None:
        """Replaces tasks."""
        self._save_many(TaskRow, (TaskRow.task_id,), map(records.task_row, tasks))

    def task(self, task_id: str) -> Task | None:
        """The task with this id."""
        return next(iter(self._tasks(TaskRow.select().where(TaskRow.task_id == task_id))), None)

    def tasks_by_id(self, task_ids: Iterable[str]) -> list[Task]:
        """The tasks with these ids, in the order of the ids."""
        wanted = list(task_ids)
        found = {
            task.task_id: task
            for start in range(0, len(wanted), 500)
            for task in self._tasks(
                TaskRow.select().where(TaskRow.task_id.in_(wanted[start : start + 500]))
            )
        }
        return [found[task_id] for task_id in wanted if task_id in found]

    def task_marks(self, task_ids: Iterable[str]) -> list[TaskMark]:
        """Where the tasks with these ids stand, in the order of the ids."""
        wanted = list(task_ids)
        columns = (TaskRow.task_id, TaskRow.model_name, TaskRow.node_id, TaskRow.state)
        found: dict[str, TaskMark] = {}
        for start in range(0, len(wanted), 500):
            some = TaskRow.task_id.in_(wanted[start : start + 500])
            for task_id, model, node, state in self._run(
                TaskRow.select(*columns).where(some).tuples()
            ):
                found[task_id] = TaskMark(task_id, model, node, TaskState(state))
        return [found[task_id] for task_id in wanted if task_id in found]

    def tasks(
        self,
        *,
        before: str = "",
        limit: int | None = None,
        states: Iterable[TaskState] = (),
        model_name: str = "",
        node_id: str = "",
    ) -> list[Task]:
        """Tasks, the newest first, those before `before` that fit every filter given."""
        query = TaskRow.select().order_by(TaskRow.task_id.desc())
        values = [state.value for state in states]
        if values:
            query = query.where(TaskRow.state.in_(values))
        if model_name:
            query = query.where(TaskRow.model_name == model_name)
        if node_id:
            query = query.where(TaskRow.node_id == node_id)
        if before:
            query = query.where(TaskRow.task_id < before)
        return self._tasks(query.limit(limit) if limit is not None else query)

    def latest_tasks(self, *, model_name: str = "", node_id: str = "") -> list[TaskMark]:
        """Of each model on each node the newest task, unless that completed or was cancelled."""
        newest = TaskRow.select(fn.MAX(TaskRow.task_id)).group_by(
            TaskRow.model_name, TaskRow.node_id
        )
        if model_name:
            newest = newest.where(TaskRow.model_name == model_name)
        if node_id:
            newest = newest.where(TaskRow.node_id == node_id)
        shown = [state.value for state in (*UNFINISHED, TaskState.FAILED)]
        marks = TaskRow.select(TaskRow.task_id, TaskRow.model_name, TaskRow.node_id, TaskRow.state)
        query = marks.where(TaskRow.task_id.in_(newest) & TaskRow.state.in_(shown))
        return [
            TaskMark(task_id, model, node, TaskState(state))
            for task_id, model, node, state in self._run(query.tuples())
        ]

    def resumable_tasks(self, node_id: str = "") -> list[Task]:
        """The tasks of a node, or of any, whose bytes are to stay, the oldest first."""
        shown = [state.value for state in (*UNFINISHED, TaskState.FAILED)]
        query = TaskRow.select().where(TaskRow.state.in_(shown) | TaskRow.keep_partial)
        if node_id:
            query = query.where(TaskRow.node_id == node_id)
        return self._tasks(query.order_by(TaskRow.task_id))

    # Nodes

    def save_node(self, node: Node) -> None:
        """Keeps a node, new or known."""
        self._save(
            NodeRow,
            {"node_id": node.node_id},
            {
                "name": node.name,
                "version": node.version,
                "labels": dict(node.labels),
                "memory_bytes": node.memory_bytes,
                "gpus": documents.gpus_to(node.gpus),
                "disk_free_bytes": node.disk_free_bytes,
                "disk_total_bytes": node.disk_total_bytes,
                "settings": documents.settings_to(node.settings),
                "created_at": node.created_at,
                "last_seen_at": node.last_seen_at,
                "set_labels": dict(node.set_labels),
                "set_max_rate": node.set_max_rate,
                "set_max_upload_rate": node.set_max_upload_rate,
                "set_max_hub_rate": node.set_max_hub_rate,
            },
        )

    def save_disk(self, node_id: str, free: int, total: int, seen_at: datetime) -> bool:
        """Notes the bytes on a node's disk, and when it was seen; whether the node is known."""
        disk = {"disk_free_bytes": free, "disk_total_bytes": total, "last_seen_at": seen_at}
        return bool(self._run(NodeRow.update(disk).where(NodeRow.node_id == node_id)))

    def rates_set(self) -> dict[str, RatesSet]:
        """What a node itself obeys, by node, where an operator has set any of it."""
        query = NodeRow.select(NodeRow.node_id, NodeRow.set_max_rate, NodeRow.set_max_upload_rate)
        is_set = NodeRow.set_max_rate.is_null(False) | NodeRow.set_max_upload_rate.is_null(False)
        return {
            node_id: RatesSet(download, upload)
            for node_id, download, upload in self._run(query.where(is_set).tuples())
        }

    def delete_node(self, node_id: str) -> None:
        """Forgets a node with its tasks, holdings and evictions."""
        for table in (NodeRow, TaskRow, HoldingRow, EvictionRow):
            self._run(table.delete().where(table.node_id == node_id))

    def node(self, node_id: str) -> Node | None:
        """The node with this id."""
        return next(iter(self._nodes(NodeRow.select().where(NodeRow.node_id == node_id))), None)

    def nodes_named(self, name: str) -> list[Node]:
        """The nodes with this name, by id."""
        query = NodeRow.select().where(NodeRow.name == name).order_by(NodeRow.node_id)
        return self._nodes(query)

    def nodes(
        self, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[Node]:
        """Nodes by name, then id; those after the pair of name and id `after`."""
        query = NodeRow.select().order_by(NodeRow.name, NodeRow.node_id)
        if after is not None:
            name, node_id = after
            query = query.where(
                (NodeRow.name > name) | ((NodeRow.name == name) & (NodeRow.node_id > node_id))
            )
        return self._nodes(query.limit(limit) if limit is not None else query)

    def node_names(self) -> dict[str, str]:
        """The name of every node, by its id."""
        return dict(self._run(NodeRow.select(NodeRow.node_id, NodeRow.name).tuples()))

    # Sites

    def save_site(self, site: Site) -> None:
        """Keeps the limits of a site, new or known."""
        self._save(
            SiteRow,
            {"name": site.name},
            {
                "max_hub_rate": site.max_hub_rate,
                "timetable": documents.timetable_to(site.timetable),
                "time_zone": site.time_zone,
            },
        )

    def sites(self) -> list[Site]:
        """The sites that an operator has set limits of, by name."""
        return [
            Site(
                name=row.name,
                max_hub_rate=row.max_hub_rate,
                timetable=documents.timetable_from(row.timetable),
                time_zone=row.time_zone,
            )
            for row in self._run(SiteRow.select().order_by(SiteRow.name))
        ]

    # Holdings: the moment is None for what was there and is gone

    def save_holding(self, model_name: str, node_id: str, verified_at: datetime | None) -> None:
        """Notes that a node holds a model, verified at that moment, or lost it (None)."""
        self.save_holdings([(model_name, node_id, verified_at)])

    def save_holdings(self, holdings: Iterable[tuple[str, str, datetime | None]]) -> None:
        """Notes (model, node, moment): the node holds it, verified then, or lost it (None)."""
        rows = (
            {"model_name": model_name, "node_id": node_id, "verified_at": verified_at}
            for model_name, node_id, verified_at in holdings
        )
        self._save_many(HoldingRow, (HoldingRow.model_name, HoldingRow.node_id), rows)

    def delete_holding(self, model_name: str, node_id: str) -> None:
        """Forgets that a node held a model."""
        self._run(
            HoldingRow.delete().where(
                (HoldingRow.model_name == model_name) & (HoldingRow.node_id == node_id)
            )
        )

    def holdings(
        self, *, model_name: str = "", node_id: str = ""
    ) -> list[tuple[str, str, datetime | None]]:
        """(model, node, moment) of a model, of a node, or of all."""
        query = HoldingRow.select(HoldingRow.model_name, HoldingRow.node_id, HoldingRow.verified_at)
        if model_name:
            query = query.where(HoldingRow.model_name == model_name)
        if node_id:
            query = query.where(HoldingRow.node_id == node_id)
        return list(self._run(query.tuples()))

    def ready_counts(self) -> dict[str, int]:
        """On how many nodes each model is verified; models that are on none are left out."""
        query = (
            HoldingRow.select(HoldingRow.model_name, fn.COUNT(HoldingRow.node_id))
            .where(HoldingRow.verified_at.is_null(False))
            .group_by(HoldingRow.model_name)
        )
        return dict(self._run(query.tuples()))

    # Evictions

    def add_eviction(self, eviction: Eviction) -> None:
        """Keeps a new eviction."""
        self._run(
            EvictionRow.insert(
                eviction_id=eviction.eviction_id,
                node_id=eviction.node_id,
                manifest=documents.manifest_to(eviction.manifest),
                created_at=eviction.created_at,
            )
        )

    def delete_evictions(self, node_id: str, eviction_ids: Iterable[str]) -> int:
        """Forgets evictions of a node; how many there were."""
        return int(
            self._run(
                EvictionRow.delete().where(
                    (EvictionRow.node_id == node_id)
                    & EvictionRow.eviction_id.in_(list(eviction_ids))
                )
            )
        )

    def evictions(self, node_id: str = "") -> list[Eviction]:
        """The evictions that a node, or any, has not done yet, the oldest first."""
        query = EvictionRow.select()
        if node_id:
            query = query.where(EvictionRow.node_id == node_id)
        return [
            Eviction(
                eviction_id=row.eviction_id,
                node_id=row.node_id,
                manifest=documents.manifest_from(row.manifest),
                created_at=row.created_at,
            )
            for row in self._run(query.order_by(EvictionRow.eviction_id))
        ]

    @property
    def _connection(self) -> Any:
        return self._database.connection

    def _run(self, query: Any) -> Any:
        return query.execute(self._connection)

    def _save(self, table: type[Table], key: dict[str, Any], values: dict[str, Any]) -> None:
        # Update, else insert: every database understands it, and there is one writer at a time.
        where = [getattr(table, name) == value for name, value in key.items()]
        if not self._run(table.update(values).where(*where)):
            self._run(table.insert({**key, **values}))

    def _save_many(
        self, table: type[Table], key: tuple[Field, ...], rows: Iterable[dict[str, Any]]
    ) -> None:
        keys = {field.name for field in key}  # fields do not compare as values do
        others = [field for field in table._meta.sorted_fields if field.name not in keys]
        for batch in _batches(rows):
            query = table.insert_many(batch)
            self._run(query.on_conflict(conflict_target=key, preserve=others))

    def _models(self, query: Any) -> list[Model]:
        return [records.model(row) for row in self._run(query)]

    def _tasks(self, query: Any) -> list[Task]:
        return [records.task(row) for row in self._run(query)]

    def _nodes(self, query: Any) -> list[Node]:
        return [records.node(row) for row in self._run(query)]

    def _order(self, where: Any) -> Order | None:
        row = OrderRow.select().where(where).first(self._connection)
        return None if row is None else records.order(row)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    every = iter(rows)
    while batch := list(islice(every, _INSERT_BATCH)):
        yield batch
