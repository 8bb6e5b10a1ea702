"""The unfinished tasks in memory."""

from dataclasses import replace
from datetime import UTC, datetime

from router.domain.tasks import Progress, Task, TaskState
from router.services.board import Board

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = Task(
    task_id="task-1",
    order_id="order-1",
    model_name="hf/o/r/m.gguf",
    node_id="node-1",
    state=TaskState.DOWNLOADING,
    attempt=1,
    bytes_total=100,
    priority=0,
    created_at=NOW,
    updated_at=NOW,
)


def done(board: Board) -> int:
    """Bytes that the board knows of."""
    task = board.task("task-1")
    assert task is not None
    return task.progress.bytes_done


def test_a_report_that_comes_while_a_task_is_stored_is_not_undone() -> None:
    board = Board()
    board.put([TASK])
    stored = board.settled(replace(TASK, state=TaskState.VERIFYING))
    board.report("task-1", 1, Progress(bytes_done=80))

    board.put([stored])

    assert done(board) == 80


def test_a_new_attempt_begins_with_nothing() -> None:
    board = Board()
    board.put([TASK])
    board.report("task-1", 1, Progress(bytes_done=80))

    board.put([replace(TASK, attempt=2)])
    late = board.report("task-1", 1, Progress(bytes_done=90))

    assert (done(board), late) == (0, False)


def test_what_has_ended_leaves_nothing_behind() -> None:
    board = Board()
    board.put([TASK, replace(TASK, task_id="task-2")])

    board.put([replace(TASK, state=TaskState.COMPLETED)])
    board.remove(["task-2", "task-nobody"])

    assert board.tasks() == board.of_node("node-1") == []
    assert not board.report("task-1", 1, Progress(bytes_done=5))
