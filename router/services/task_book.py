"""Tasks are written down here first, and then everybody who cares is told."""

from collections.abc import Iterable, Sequence

from router.domain.models import Model
from router.domain.ports import Clock, Store
from router.domain.tasks import UNFINISHED, Event, Task, TaskState, advance
from router.services.board import Board
from router.services.ids import new_id
from router.services.watch import Topic, Watchers

# Only a node's own reports lead here: they change nothing in what the node is told.
UNDER_WAY = frozenset({TaskState.DOWNLOADING, TaskState.VERIFYING})


class TaskBook:
    """Makes tasks and keeps what became of them; always inside the caller's transaction."""

    def __init__(self, store: Store, board: Board, watchers: Watchers, clock: Clock) -> None:
        """Writes to `store`, and to `board` what it has for it."""
        self._store = store
        self._board = board
        self._watchers = watchers
        self._clock = clock
        board.put(store.resumable_tasks())

    def open(
        self, order_id: str, model: Model, node_ids: Iterable[str], priority: int
    ) -> list[Task]:
        """One new task for each node."""
        now = self._clock()
        made = [
            Task(
                task_id=new_id("task", now),
                order_id=order_id,
                model_name=model.name,
                node_id=node_id,
                state=TaskState.PENDING,
                attempt=1,
                bytes_total=model.manifest.total_bytes,
                priority=priority,
                created_at=now,
                updated_at=now,
            )
            for node_id in node_ids
        ]
        if made:
            self._store.add_tasks(made)
            self._store.after_commit(lambda: self._tell(made))
        return made

    def running(self, model_name: str, node_id: str = "") -> dict[str, Task]:
        """The unfinished tasks of a model, by node."""
        tasks = self._store.tasks(model_name=model_name, node_id=node_id, states=UNFINISHED)
        return {task.node_id: task for task in tasks}

    def cancel(self, tasks: Iterable[Task]) -> list[Task]:
        """Cancels unfinished tasks; as they are then."""
        now = self._clock()
        moved = [self._board.settled(advance(task, Event.CANCEL, now)) for task in tasks]
        self.save(moved)
        return moved

    def save(self, tasks: Sequence[Task]) -> None:
        """Keeps moved tasks."""
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
        for node_id in {task.node_id for task in tasks if task.state not in UNDER_WAY}:
            self._watchers.publish(Topic.ASSIGNMENT, node_id)
