"""Orders and tasks: what was wished, and how far it is."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from router.domain.errors import (
    InsufficientDisk,
    InvalidArgument,
    InvalidTarget,
    NoNodes,
    OrderNotFound,
    PendingConversion,
    RequestReused,
    TaskNotFound,
    WrongState,
)
from router.domain.models import Model, ModelStatus
from router.domain.nodes import Node
from router.domain.ports import Clock, Store
from router.domain.tasks import (
    EVENT_OF_REPORT,
    TRANSITIONS,
    UNFINISHED,
    Event,
    NodePlan,
    Order,
    OrderTarget,
    OrderView,
    Plan,
    Task,
    TaskReport,
    TaskState,
    TaskView,
    Verdict,
    advance,
)
from router.services import paging
from router.services.board import Board
from router.services.ids import new_id
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.presence import Presence
from router.services.watch import Topic, Watchers

_MAX_REQUEST_ID = 128
_MAX_PRIORITY = 1000
_REPAIRS = 3  # tasks for one model on one node within the span; then a person has to look
_REPAIR_SPAN = timedelta(hours=1)
_KEPT_AT_ONCE = 500
# Only a node's own reports lead here: they change nothing in what the node is told.
_UNDER_WAY = frozenset({TaskState.DOWNLOADING, TaskState.VERIFYING})


class Downloads:
    """Plans, orders and tasks. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        models: Models,
        nodes: Nodes,
        presence: Presence,
        board: Board,
        watchers: Watchers,
        clock: Clock,
    ) -> None:
        """Puts on the board what the store has for it."""
        self._store = store
        self._models = models
        self._nodes = nodes
        self._presence = presence
        self._board = board
        self._watchers = watchers
        self._clock = clock
        board.put(store.resumable_tasks())

    # Orders

    def plan(self, reference: str, target: OrderTarget, node_ids: Sequence[str]) -> Plan:
        """What an order would mean on each node; changes nothing.

        Raises `ModelNotFound`, `PendingConversion`, `InvalidTarget`, `NodeNotFound`, `NoNodes`.
        """
        model = self._orderable(reference)
        targets = self._targets(target, node_ids)
        ready = self._ready_nodes(model)
        plans = [self._plan_node(model, node, ready) for node in targets]
        line = sum(plan.needed_bytes for plan in plans if plan.verdict is Verdict.FITS)
        return Plan(model.name, line, tuple(plans))

    def start(
        self,
        reference: str,
        target: OrderTarget,
        node_ids: Sequence[str],
        *,
        request_id: str = "",
        priority: int = 0,
    ) -> OrderView:
        """Orders a model onto nodes; one task for each, an unfinished one is kept.

        The same `request_id` with the same wish returns the order that it made. Raises what `plan`
        raises, `RequestReused`, and `InsufficientDisk` when every named node lacks the space.
        """
        if len(request_id) > _MAX_REQUEST_ID:
            raise InvalidArgument(
                f"a request id has at most {_MAX_REQUEST_ID} characters", param="request_id"
            )
        if abs(priority) > _MAX_PRIORITY:
            raise InvalidArgument(
                f"a priority lies between -{_MAX_PRIORITY} and {_MAX_PRIORITY}", param="priority"
            )
        with self._store.transaction():
            made = self._store.order_of_request(request_id) if request_id else None
            if made is not None:
                self._refuse_other_wish(made, reference, target, node_ids)
                return self._order_view(made)
            model = self._orderable(reference)
            targets = self._targets(target, node_ids)
            self._refuse_full(model, targets)
            return self._order_view(self._place(model, target, targets, request_id, priority))

    def order(self, order_id: str) -> OrderView:
        """The order with its tasks. Raises `OrderNotFound`."""
        return self._order_view(self._stored_order(order_id))

    def orders(self, size: int, token: str) -> paging.Page[OrderView]:
        """Orders with their tasks, the newest first."""

        def fetch(before: str, limit: int) -> list[OrderView]:
            return [
                self._order_view(order) for order in self._store.orders(before=before, limit=limit)
            ]

        return paging.page(size, token, fetch, lambda view: view.order.order_id)

    def cancel_order(self, order_id: str) -> OrderView:
        """Cancels every unfinished task of an order. Raises `OrderNotFound`, `WrongState`."""
        order = self._stored_order(order_id)
        with self._store.transaction():
            tasks = [task for task in self._store.tasks_by_id(order.task_ids) if not task.ended]
            if not tasks:
                raise WrongState(
                    f'order "{order_id}" has no unfinished task: there is nothing to cancel',
                    param="order_id",
                )
            now = self._clock()
            self._save([self._board.settled(advance(task, Event.CANCEL, now)) for task in tasks])
        return self._order_view(order)

    # Tasks

    def task(self, task_id: str) -> TaskView:
        """The task with its live progress. Raises `TaskNotFound`."""
        return self._view(self._board.task(task_id) or self._stored_task(task_id))

    def live(self, task_id: str) -> TaskView | None:
        """The task while it is unfinished, from memory; never blocks."""
        task = self._board.task(task_id)
        return None if task is None else self._view(task)

    def tasks(
        self,
        size: int = 0,
        token: str = "",
        *,
        states: Iterable[TaskState] = (),
        model: str = "",
        node: str = "",
    ) -> paging.Page[TaskView]:
        """Tasks that fit every filter given, the newest first; `node` is an id or a name."""
        node_id = self._nodes.resolve(node).node_id if node else ""
        model_name = self._models.resolve(model).name if model else ""

        def fetch(before: str, limit: int) -> list[TaskView]:
            tasks = self._store.tasks(
                before=before,
                limit=limit,
                states=states,
                model_name=model_name,
                node_id=node_id,
            )
            return [self._view(self._board.task(task.task_id) or task) for task in tasks]

        return paging.page(size, token, fetch, lambda view: view.task.task_id)

    def unfinished(self) -> list[TaskView]:
        """Every unfinished task, the oldest first."""
        tasks = sorted(self._board.tasks(), key=lambda task: task.task_id)
        return [self._view(task) for task in tasks]

    def cancel(self, task_id: str, *, keep_partial: bool = False) -> TaskView:
        """Stops a task and frees its disk. Raises `TaskNotFound`, `WrongState`."""
        return self._move(task_id, Event.CANCEL, keep_partial=keep_partial)

    def pause(self, task_id: str) -> TaskView:
        """Stops a task and keeps what it has. Raises `TaskNotFound`, `WrongState`."""
        return self._move(task_id, Event.PAUSE)

    def resume(self, task_id: str) -> TaskView:
        """Lets a paused task go on. Raises `TaskNotFound`, `WrongState`."""
        return self._move(task_id, Event.RESUME)

    def retry(self, task_id: str) -> TaskView:
        """Begins the next attempt. Raises `TaskNotFound`, `ModelNotFound`, and `WrongState`, also
        when a newer task has taken the place of this one.
        """
        with self._store.transaction():
            task = self._stored_task(task_id)
            retried = advance(task, Event.RETRY, self._clock())
            model = self._models.resolve(task.model_name)
            newest = self._store.tasks(model_name=task.model_name, node_id=task.node_id, limit=1)[0]
            if newest.task_id != task_id:
                raise WrongState(
                    f'task "{task_id}" cannot be retried: "{newest.task_id}" ({newest.state}) came '
                    "after it for the same model and node",
                    param="task_id",
                )
            self._withdraw_evictions(model, [task.node_id])
            self._save([replace(retried, bytes_total=model.manifest.total_bytes)])
        return self.task(task_id)

    # What nodes are told, and report

    def resumable(self, node_id: str) -> list[Task]:
        """The tasks of a node whose bytes are to stay, the oldest first; never blocks."""
        return self._board.resumable(node_id)

    def note_progress(self, node_id: str, reports: Iterable[TaskReport]) -> list[TaskReport]:
        """Takes in what changes no state, in memory alone; returns the other reports for `settle`.

        Never blocks. Reports of older attempts, of ended tasks or of another node's are dropped.
        """
        moving = []
        for report in reports:
            task = self._board.task(report.task_id)
            if task is None or task.node_id != node_id or task.attempt != report.attempt:
                continue
            event = EVENT_OF_REPORT.get(report.state)
            if event is not None and (task.state, event) in TRANSITIONS:
                moving.append(report)
            elif self._board.report(report.task_id, report.attempt, report.progress):
                self._watchers.publish(Topic.TASK, report.task_id)
        return moving

    def keep_progress(self) -> None:
        """Stores the bytes that came since the last time, so that a crash sets nobody's bars back.

        In transactions of a bounded length: orders get in between.
        """
        kept = _KEPT_AT_ONCE
        while kept == _KEPT_AT_ONCE:
            with self._store.transaction():
                tasks = self._board.take_unsaved(_KEPT_AT_ONCE)
                if tasks:
                    self._store.save_tasks(tasks)
            kept = len(tasks)

    def settle(self, told: Sequence[tuple[str, TaskReport]]) -> None:
        """Moves tasks as their nodes (by id) report; stored before anybody is told."""
        with self._store.transaction():
            known = self._store.tasks_by_id({report.task_id for _, report in told})
            tasks = {task.task_id: task for task in known}
            moved: dict[str, Task] = {}
            for node_id, report in told:
                self._board.report(report.task_id, report.attempt, report.progress)
                task = tasks.get(report.task_id)
                event = EVENT_OF_REPORT.get(report.state)
                if task is None or task.node_id != node_id or event is None:
                    continue
                if task.attempt != report.attempt:
                    continue
                after = advance(task, event, self._clock(), failure=report.failure)
                if after is not task:
                    tasks[task.task_id] = moved[task.task_id] = self._board.settled(after)
            self._store.save_holdings(
                (task.model_name, task.node_id, task.updated_at)
                for task in moved.values()
                if task.state is TaskState.COMPLETED
            )
            self._save(list(moved.values()))

    def repair(self, node_id: str, model_names: Iterable[str]) -> None:
        """Brings back what a node has lost although an order had brought it there.

        Each model is one more task of that order. Where the last task did not complete, nothing is
        brought back; nor is what was lost several times within an hour, as on a failing disk. Runs
        inside the caller's transaction.
        """
        now = self._clock()
        made = []
        for name in model_names:
            model = self._store.model(name)
            before = self._store.tasks(model_name=name, node_id=node_id, limit=_REPAIRS)
            if model is None or not before or before[0].state is not TaskState.COMPLETED:
                continue
            if len(before) == _REPAIRS and now - before[-1].created_at < _REPAIR_SPAN:
                continue
            made.append(
                Task(
                    task_id=new_id("task", now),
                    order_id=before[0].order_id,
                    model_name=name,
                    node_id=node_id,
                    state=TaskState.PENDING,
                    attempt=1,
                    bytes_total=model.manifest.total_bytes,
                    priority=before[0].priority,
                    created_at=now,
                    updated_at=now,
                )
            )
        if made:
            self._store.add_tasks(made)
            self._store.after_commit(lambda: self._tell(made))

    def _move(self, task_id: str, event: Event, *, keep_partial: bool = False) -> TaskView:
        with self._store.transaction():
            task = self._stored_task(task_id)
            moved = advance(task, event, self._clock(), keep_partial=keep_partial)
            self._save([self._board.settled(moved)])
        return self.task(task_id)

    def _stored_task(self, task_id: str) -> Task:
        task = self._store.task(task_id)
        if task is None:
            raise _unknown_task(task_id)
        return task

    def _save(self, tasks: Sequence[Task]) -> None:
        """Stores moved tasks; after the commit everybody who cares is told."""
        self._store.save_tasks(tasks)
        self._store.after_commit(lambda: self._tell(tasks))

    def _tell(self, tasks: Sequence[Task]) -> None:
        self._board.put(tasks)
        for task in tasks:
            self._watchers.publish(Topic.TASK, task.task_id)
        for name in {task.model_name for task in tasks}:
            self._watchers.publish(Topic.MODEL, name)
        for node_id in {task.node_id for task in tasks}:
            self._watchers.publish(Topic.NODE, node_id)
        for node_id in {task.node_id for task in tasks if task.state not in _UNDER_WAY}:
            self._watchers.publish(Topic.ASSIGNMENT, node_id)

    def _place(
        self,
        model: Model,
        target: OrderTarget,
        nodes: Sequence[Node],
        request_id: str,
        priority: int,
    ) -> Order:
        now = self._clock()
        order_id = new_id("order", now)
        running = {
            task.node_id: task.task_id
            for task in self._store.tasks(model_name=model.name, states=UNFINISHED)
        }
        made = [
            Task(
                task_id=new_id("task", now),
                order_id=order_id,
                model_name=model.name,
                node_id=node.node_id,
                state=TaskState.PENDING,
                attempt=1,
                bytes_total=model.manifest.total_bytes,
                priority=priority,
                created_at=now,
                updated_at=now,
            )
            for node in nodes
            if node.node_id not in running
        ]
        by_node = {**running, **{task.node_id: task.task_id for task in made}}
        order = Order(
            order_id=order_id,
            model_name=model.name,
            target=target,
            node_ids=tuple(node.node_id for node in nodes),
            task_ids=tuple(by_node[node.node_id] for node in nodes),
            request_id=request_id,
            created_at=now,
        )
        self._store.add_order(order)
        self._store.add_tasks(made)
        self._withdraw_evictions(model, by_node)
        self._store.after_commit(lambda: self._tell(made))
        return order

    def _withdraw_evictions(self, model: Model, node_ids: Iterable[str]) -> None:
        """What is ordered now is no longer to go, although an offline node did not evict it yet."""
        wanted = set(node_ids)
        for eviction in self._store.evictions():
            if eviction.node_id in wanted and eviction.manifest.same_files(model.manifest):
                self._store.delete_evictions(eviction.node_id, [eviction.eviction_id])

    def _refuse_other_wish(
        self, made: Order, reference: str, target: OrderTarget, node_ids: Sequence[str]
    ) -> None:
        same = made.target is target and self._models.same(reference, made.model_name)
        if same and target is OrderTarget.SPECIFIC:
            same = {self._nodes.resolve(node).node_id for node in node_ids} == set(made.node_ids)
        if not same:
            raise RequestReused(
                f'request id "{made.request_id}" was used for another order, '
                f'"{made.order_id}": choose a new one',
                param="request_id",
            )

    def _orderable(self, reference: str) -> Model:
        model = self._models.resolve(reference)
        if model.status is not ModelStatus.REGISTERED:
            raise PendingConversion(
                f'model "{model.name}" is not GGUF ({model.status}): '
                "it can be ordered once it is converted",
                param="model_name",
            )
        return model

    def _targets(self, target: OrderTarget, node_ids: Sequence[str]) -> list[Node]:
        if target is OrderTarget.ALL:
            if node_ids:
                raise InvalidTarget('target "all" takes no node ids', param="node_ids")
            nodes = self._store.nodes()
            if not nodes:
                raise NoNodes("no node is known yet: start llm-router-agent on a machine")
            return nodes
        if not node_ids:
            raise InvalidTarget(
                'target "specific" needs node_ids: name at least one node', param="node_ids"
            )
        found = {node.node_id: node for node in map(self._nodes.resolve, node_ids)}
        return list(found.values())

    def _ready_nodes(self, model: Model) -> set[str]:
        held = self._store.holdings(model_name=model.name)
        return {node_id for _, node_id, verified_at in held if verified_at is not None}

    def _plan_node(self, model: Model, node: Node, ready_nodes: set[str]) -> NodePlan:
        ready = node.node_id in ready_nodes
        total = model.manifest.total_bytes
        needed = 0 if ready else total - self._there(model, node)
        free = node.disk_free_bytes
        room = free - node.settings.reserve - self._promised(node.node_id, model.name)
        verdict, reason = Verdict.FITS, ""
        if ready:
            verdict, reason = Verdict.READY, "it holds the model, verified"
        elif needed > room:
            verdict = Verdict.REFUSED
            reason = f"insufficient_disk: it needs {needed} bytes and has {max(room, 0)} to spare"
        warnings = []
        if not self._presence.online(node.node_id):
            warnings.append("it is offline: the task waits until it is back")
        memory = max(node.memory_bytes, sum(gpu.memory_bytes for gpu in node.gpus))
        if model.required_memory_bytes and memory < model.required_memory_bytes:
            warnings.append(
                f"it has {memory} bytes of memory; the model is estimated to need "
                f"{model.required_memory_bytes}"
            )
        source = "" if ready else "hub" if needed else "disk"
        return NodePlan(
            node_id=node.node_id,
            node_name=node.name,
            verdict=verdict,
            reason=reason,
            needed_bytes=needed,
            free_bytes=free,
            source=source,
            warnings=tuple(warnings),
        )

    def _there(self, model: Model, node: Node) -> int:
        """Bytes of the model on the node's disk: whole files, or what a task has brought so far."""
        inventory = self._presence.inventory(node.node_id)
        held = inventory.held_bytes(model.manifest) if inventory else 0
        brought = [
            task.progress.bytes_done
            for task in self._board.of_node(node.node_id)
            if task.model_name == model.name
        ]
        return max(held, *brought) if brought else held

    def _promised(self, node_id: str, model_name: str) -> int:
        """Bytes that the node's unfinished tasks for other models will still take."""
        return sum(
            task.bytes_total - task.progress.bytes_done
            for task in self._board.of_node(node_id)
            if task.model_name != model_name
        )

    def _refuse_full(self, model: Model, nodes: Sequence[Node]) -> None:
        ready = self._ready_nodes(model)
        refused = []
        for node in nodes:
            plan = self._plan_node(model, node, ready)
            if plan.verdict is not Verdict.REFUSED:
                return
            refused.append(plan)
        reasons = "; ".join(f"{plan.node_name}: {plan.reason}" for plan in refused[:5])
        raise InsufficientDisk(
            f'no named node has the space for "{model.name}": {reasons}', param="node_ids"
        )

    def _stored_order(self, order_id: str) -> Order:
        order = self._store.order(order_id)
        if order is None:
            raise OrderNotFound(f'order "{order_id}" does not exist', param="order_id")
        return order

    def _order_view(self, order: Order) -> OrderView:
        tasks = self._store.tasks_by_id(order.task_ids)
        return OrderView(
            order, tuple(self._view(self._board.task(task.task_id) or task) for task in tasks)
        )

    def _view(self, task: Task) -> TaskView:
        online = self._presence.online(task.node_id)
        if not (online and task.state in _UNDER_WAY):  # late reports of a paused one still come
            task = replace(task, progress=replace(task.progress, speed=0, eta=None))
        return TaskView(task=task, node_name=self._nodes.name(task.node_id), node_online=online)


def _unknown_task(task_id: str) -> TaskNotFound:
    return TaskNotFound(f'task "{task_id}" does not exist', param="task_id")
