"""The tasks that nodes must know of, in memory: reports of progress go here, not to the disk."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from router.domain.tasks import Progress, Task, TaskState


class Board:
    """A mirror of the store's unfinished tasks, with progress that the store does not have, and of
    the ended ones whose bytes are to stay on the node: failed, or cancelled so.

    Safe from any thread. Bytes never run backwards within an attempt, whatever a node says.
    """

    def __init__(self) -> None:
        """Empty: `put` what the store has."""
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._kept: dict[str, Task] = {}
        self._by_node: dict[str, dict[str, None]] = {}
        self._unsaved: dict[str, None] = {}

    def put(self, tasks: Iterable[Task]) -> None:
        """Takes in tasks as they were stored. The live progress of the same attempt stays."""
        with self._lock:
            for task in tasks:
                known = self._tasks.get(task.task_id)
                if task.ended:
                    self._remove(task.task_id)
                    if task.state is not TaskState.FAILED and not task.keep_partial:
                        continue
                    self._kept[task.task_id] = task
                else:
                    if known is not None and known.attempt == task.attempt:
                        task = replace(task, progress=_further(known, task.progress))
                    self._kept.pop(task.task_id, None)
                    self._tasks[task.task_id] = task
                self._by_node.setdefault(task.node_id, {})[task.task_id] = None

    def remove(self, task_ids: Iterable[str]) -> None:
        """Forgets tasks."""
        with self._lock:
            for task_id in task_ids:
                self._remove(task_id)

    def report(self, task_id: str, attempt: int, progress: Progress) -> bool:
        """Takes in the progress of an attempt; whether anything changed."""
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None or task.attempt != attempt:
                return False
            further = _further(task, progress)
            if further == task.progress:
                return False
            self._tasks[task_id] = replace(task, progress=further)
            self._unsaved[task_id] = None
            return True

    def take_unsaved(self, limit: int) -> list[Task]:
        """At most so many unfinished tasks whose progress is ahead of the store; each but once.

        Inside a transaction of the store they are what it has, but for their progress.
        """
        with self._lock:
            taken = [self._tasks[task_id] for task_id in islice(self._unsaved, limit)]
            for task in taken:
                del self._unsaved[task.task_id]
            return taken

    def settled(self, task: Task) -> Task:
        """A task that just moved, as it is to be stored: with the live progress of its attempt."""
        live = self._tasks.get(task.task_id)
        progress = task.progress
        if live is not None and live.attempt == task.attempt:
            progress = live.progress
        if task.state is TaskState.COMPLETED:
            progress = replace(progress, bytes_done=task.bytes_total)
        if task.ended or task.state is TaskState.PAUSED:
            progress = replace(progress, speed=0, eta=None, note="")
        return replace(task, progress=progress)

    def task(self, task_id: str) -> Task | None:
        """The task with its live progress, while it is unfinished."""
        return self._tasks.get(task_id)

    def of_node(self, node_id: str) -> list[Task]:
        """The unfinished tasks of a node, the oldest first."""
        with self._lock:
            of_node = self._by_node.get(node_id, ())
            return [self._tasks[task_id] for task_id in of_node if task_id in self._tasks]

    def resumable(self, node_id: str) -> list[Task]:
        """The tasks of a node whose bytes are to stay: unfinished or kept, the oldest first."""
        with self._lock:
            of_node = sorted(self._by_node.get(node_id, ()))
            return [self._tasks.get(task_id) or self._kept[task_id] for task_id in of_node]

    def tasks(self) -> list[Task]:
        """All unfinished tasks."""
        with self._lock:
            return list(self._tasks.values())

    def _remove(self, task_id: str) -> None:
        self._unsaved.pop(task_id, None)
        task = self._tasks.pop(task_id, None) or self._kept.pop(task_id, None)
        if task is not None:
            of_node = self._by_node[task.node_id]
            del of_node[task_id]
            if not of_node:
                del self._by_node[task.node_id]


def _further(task: Task, progress: Progress) -> Progress:
    done = min(progress.bytes_done, task.bytes_total)
    if done < task.progress.bytes_done:
        return replace(
            progress,
            bytes_done=task.progress.bytes_done,
            bytes_from=task.progress.bytes_from,
        )
    return progress if done == progress.bytes_done else replace(progress, bytes_done=done)
