"""The JSON of tasks. Sizes in bytes, speeds in bytes per second."""

from protos import units
from router.domain.tasks import Task, TaskState, TaskView
from router.rest.shapes.base import Moment, Shape


class BytesFrom(Shape):
    """Bytes by where they came from."""

    hub: int
    peers: int
    router: int
    disk: int


class TaskErrorShape(Shape):
    """Why a task failed."""

    code: str
    message: str
    retryable: bool


class TaskShape(Shape):
    """One model on one node. `id` and `task_id` are the same."""

    id: str
    task_id: str
    order_id: str
    model_name: str
    node_id: str
    node_name: str
    node_online: bool
    status: str
    progress: float
    bytes_done: int
    bytes_total: int
    speed_bps: int
    speed: str
    eta_seconds: float | None
    note: str
    bytes_from: BytesFrom
    attempt: int
    priority: int
    error: TaskErrorShape | None
    created_at: Moment
    started_at: Moment | None
    updated_at: Moment
    completed_at: Moment | None

    @classmethod
    def of(cls, view: TaskView) -> "TaskShape":
        """From a view; `completed_at` is when it ended, however it ended."""
        task, progress = view.task, view.task.progress
        source = progress.bytes_from
        failure = task.failure
        total = task.bytes_total
        return cls(
            id=task.task_id,
            task_id=task.task_id,
            order_id=task.order_id,
            model_name=task.model_name,
            node_id=task.node_id,
            node_name=view.node_name,
            node_online=view.node_online,
            status=task.state.value,
            progress=_share(task),
            bytes_done=progress.bytes_done,
            bytes_total=total,
            speed_bps=progress.speed,
            speed=units.rate(progress.speed) if progress.speed else "",
            eta_seconds=progress.eta,
            note=progress.note,
            bytes_from=BytesFrom(
                hub=source.hub, peers=source.peers, router=source.router, disk=source.disk
            ),
            attempt=task.attempt,
            priority=task.priority,
            error=TaskErrorShape(
                code=failure.code, message=failure.message, retryable=failure.retryable
            )
            if failure
            else None,
            created_at=task.created_at,
            started_at=task.started_at,
            updated_at=task.updated_at,
            completed_at=task.ended_at,
        )


class TaskPage(Shape):
    """Tasks, the newest first; `next_page_token` null at the end."""

    tasks: list[TaskShape]
    next_page_token: str | None


def _share(task: Task) -> float:
    """0 to 1 in steps of 0.0001; 1 only when every byte is there."""
    if task.bytes_total == 0:
        return float(task.state is TaskState.COMPLETED)
    return units.fraction(task.progress.bytes_done, task.bytes_total)
