"""Tasks: how far each is, what operators do to them, and what nodes report."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from router.domain.errors import TaskNotFound, WrongState
from router.domain.ports import Clock, Store
from router.domain.tasks import (
    EVENT_OF_REPORT,
    TRANSITIONS,
    Event,
    Task,
    TaskReport,
    TaskState,
    TaskView,
    advance,
)
from router.services import paging
from router.services.board import Board
from router.services.evictions import Evictions
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.presence import Presence
from router.services.rates import Rates
from router.services.rollouts import Rollouts
from router.services.task_book import UNDER_WAY, TaskBook
from router.services.watch import Topic, Watchers

_REPAIRS = 3  # tasks for one model on one node within the span; then a person has to look
_REPAIR_SPAN = timedelta(hours=1)
_KEPT_AT_ONCE = 500


class Downloads:
    """The tasks of all orders. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        models: Models,
        nodes: Nodes,
        presence: Presence,
        board: Board,
        book: TaskBook,
        rollouts: Rollouts,
        evictions: Evictions,
        rates: Rates,
        watchers: Watchers,
        clock: Clock,
    ) -> None:
        """Tells `rollouts` what becomes of tasks, and `rates` how fast they are."""
        self._store = store
        self._models = models
        self._nodes = nodes
        self._presence = presence
        self._board = board
        self._book = book
        self._rollouts = rollouts
        self._evictions = evictions
        self._rates = rates
        self._watchers = watchers
        self._clock = clock

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
            return [self.view(task) for task in tasks]

        return paging.page(size, token, fetch, lambda view: view.task.task_id)

    def unfinished(self) -> list[TaskView]:
        """Every unfinished task, the oldest first."""
        tasks = sorted(self._board.tasks(), key=lambda task: task.task_id)
        return [self._view(task) for task in tasks]

    def known(self, task_ids: Iterable[str]) -> list[TaskView]:
        """Those of these tasks that there are."""
        return [self._view(task) for task in self._store.tasks_by_id(task_ids)]

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
            self._evictions.withdraw(model, [task.node_id])
            self._book.save([replace(retried, bytes_total=model.manifest.total_bytes)])
            self._rollouts.retried(retried)
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
            self._rates.note(node_id, report.progress.speed)
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
            self._book.save(list(moved.values()))
            self._rollouts.settled([task for task in moved.values() if task.ended])

    def repair(self, node_id: str, model_names: Iterable[str]) -> None:
        """Brings back what a node has lost although an order had brought it there.

        Each model is one more task of that order. Where the last task did not complete, nothing is
        brought back; nor is what was lost several times within an hour, as on a failing disk. Runs
        inside the caller's transaction.
        """
        now = self._clock()
        for name in model_names:
            model = self._store.model(name)
            before = self._store.tasks(model_name=name, node_id=node_id, limit=_REPAIRS)
            if model is None or not before or before[0].state is not TaskState.COMPLETED:
                continue
            if len(before) == _REPAIRS and now - before[-1].created_at < _REPAIR_SPAN:
                continue
            order_id = before[0].order_id
            made = self._book.open(order_id, model, [node_id], before[0].priority)
            self._rollouts.repaired(order_id, made)

    def _move(self, task_id: str, event: Event, *, keep_partial: bool = False) -> TaskView:
        with self._store.transaction():
            task = self._stored_task(task_id)
            moved = advance(task, event, self._clock(), keep_partial=keep_partial)
            self._book.save([self._board.settled(moved)])
            if moved.ended:
                self._rollouts.settled([moved])
        return self.task(task_id)

    def _stored_task(self, task_id: str) -> Task:
        task = self._store.task(task_id)
        if task is None:
            raise _unknown_task(task_id)
        return task

    def view(self, task: Task) -> TaskView:
        """A task as the store has it, with its live progress."""
        return self._view(self._board.task(task.task_id) or task)

    def _view(self, task: Task) -> TaskView:
        online = self._presence.online(task.node_id)
        if not (online and task.state in UNDER_WAY):  # late reports of a paused one still come
            task = replace(task, progress=replace(task.progress, speed=0, eta=None))
        return TaskView(task=task, node_name=self._nodes.name(task.node_id), node_online=online)


def _unknown_task(task_id: str) -> TaskNotFound:
    return TaskNotFound(f'task "{task_id}" does not exist', param="task_id")
