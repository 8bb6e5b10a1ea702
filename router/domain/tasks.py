"""Tasks, and the one table by which a task moves."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from router.domain.errors import WrongState


class TaskState(StrEnum):
    """The states of a task; the finished ones end in -ED, save PAUSED, which waits."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"


ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
UNFINISHED = frozenset(TaskState) - ENDED


class Event(StrEnum):
    """What happens to a task: what its node reports, then what an operator asks for."""

    WAITED = "waited"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


VERBS = frozenset({Event.CANCEL, Event.PAUSE, Event.RESUME, Event.RETRY})

TRANSITIONS: dict[tuple[TaskState, Event], TaskState] = {
    (TaskState.PENDING, Event.DOWNLOADED): TaskState.DOWNLOADING,
    (TaskState.PENDING, Event.VERIFIED): TaskState.VERIFYING,
    (TaskState.DOWNLOADING, Event.VERIFIED): TaskState.VERIFYING,
    # Bytes that turn out wrong while they are verified are fetched again.
    (TaskState.VERIFYING, Event.DOWNLOADED): TaskState.DOWNLOADING,
    # A node may have finished before a pause reached it.
    **{(state, Event.COMPLETED): TaskState.COMPLETED for state in UNFINISHED},
    **{(state, Event.FAILED): TaskState.FAILED for state in UNFINISHED},
    **{(state, Event.CANCEL): TaskState.CANCELLED for state in UNFINISHED},
    (TaskState.PENDING, Event.PAUSE): TaskState.PAUSED,
    (TaskState.DOWNLOADING, Event.PAUSE): TaskState.PAUSED,
    (TaskState.VERIFYING, Event.PAUSE): TaskState.PAUSED,
    (TaskState.PAUSED, Event.RESUME): TaskState.PENDING,
    (TaskState.FAILED, Event.RETRY): TaskState.PENDING,
    (TaskState.CANCELLED, Event.RETRY): TaskState.PENDING,
}


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why a task failed; `code` is lower_snake and stable."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes on the node's disk, by where they came from."""

    hub: int = 0
    peers: int = 0
    router: int = 0
    disk: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an attempt stands. `speed` in bytes per second; `eta` in seconds or None."""

    bytes_done: int = 0
    bytes_from: Bytes = field(default_factory=Bytes)
    speed: int = 0
    eta: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One model on one node. `progress` is as of the last change of state."""

    task_id: str
    order_id: str
    model_name: str
    node_id: str
    state: TaskState
    attempt: int
    bytes_total: int
    priority: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: TaskFailure | None = None
    keep_partial: bool = False
    progress: Progress = field(default_factory=Progress)

    @property
    def ended(self) -> bool:
        """Whether only a retry can move it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class TaskMark:
    """Where a task stands, in short: for lists that join thousands."""

    task_id: str
    model_name: str
    node_id: str
    state: TaskState


def advance(
    task: Task,
    event: Event,
    now: datetime,
    *,
    failure: TaskFailure | None = None,
    keep_partial: bool = False,
) -> Task:
    """The task after the event; the same object when a report says nothing new.

    Raises `WrongState` for an operator's verb that the state does not allow. A node's report that
    does not fit is late, and changes nothing.
    """
    target = TRANSITIONS.get((task.state, event))
    if target is None:
        if event in VERBS:
            raise WrongState(
                f'task "{task.task_id}" is {task.state}: it cannot be {_PAST[event]}',
                param="task_id",
            )
        return task
    begun = target in (TaskState.DOWNLOADING, TaskState.VERIFYING, TaskState.COMPLETED)
    retried = event is Event.RETRY
    return replace(
        task,
        state=target,
        updated_at=now,
        attempt=task.attempt + 1 if retried else task.attempt,
        started_at=None if retried else (task.started_at or (now if begun else None)),
        ended_at=now if target in ENDED else None,
        failure=failure if target is TaskState.FAILED else None,
        keep_partial=keep_partial and target is TaskState.CANCELLED,
        progress=Progress() if retried else task.progress,
    )


_PAST = {
    Event.CANCEL: "cancelled",
    Event.PAUSE: "paused",
    Event.RESUME: "resumed",
    Event.RETRY: "retried",
}


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as it is shown: with live progress and the node's name."""

    task: Task
    node_name: str
    node_online: bool


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What a node says of one task, in absolute numbers."""

    task_id: str
    attempt: int
    state: TaskState
    progress: Progress
    failure: TaskFailure | None = None


EVENT_OF_REPORT = {
    TaskState.PENDING: Event.WAITED,
    TaskState.DOWNLOADING: Event.DOWNLOADED,
    TaskState.VERIFYING: Event.VERIFIED,
    TaskState.COMPLETED: Event.COMPLETED,
    TaskState.FAILED: Event.FAILED,
}
