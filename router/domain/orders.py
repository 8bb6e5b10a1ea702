"""Orders: what an operator wishes, and how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from router.domain.rollouts import Rollout
from router.domain.tasks import TaskState, TaskView
from router.domain.windows import Window


class OrderTarget(StrEnum):
    """Which nodes an order is for."""

    ALL = "all"
    SPECIFIC = "specific"
    LABELS = "labels"


class OrderState(StrEnum):
    """How an order stands as a whole."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OrderOptions:
    """How an order is carried out. `replaces` is the id of a model, or ""."""

    follow: bool = False
    rollout: Rollout | None = None
    window: Window | None = None
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """The operator's wish: this model on these nodes. `request_id` "" means none was given.

    `node_ids` are those it was for when it was made, `task_ids` every task that was made or kept
    for it, in that order. `waves` are the nodes of each wave that has begun. On `excluded` nodes
    the model was evicted by hand: they are left alone. `watched` while a change of its tasks or of
    the fleet may ask for something to be done.
    """

    order_id: str
    model_name: str
    target: OrderTarget
    node_ids: tuple[str, ...]
    task_ids: tuple[str, ...]
    request_id: str
    created_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    options: OrderOptions = field(default_factory=OrderOptions)
    priority: int = 0
    waves: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    cancelled: bool = False
    watched: bool = False

    def is_for(self, node_id: str, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is in it."""
        if node_id in self.excluded:
            return False
        if not self.options.follow:
            return node_id in self.node_ids
        return self.target is OrderTarget.ALL or fits(labels, self.labels)


def fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether `labels` have all of `selector`."""
    return all(labels.get(key) == value for key, value in selector.items())


@dataclass(frozen=True, slots=True)
class WaitingNode:
    """A node that an order is for and that has no task yet; `reason` is for a person."""

    node_id: str
    node_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order as it is now: of each node the newest task, and who waits for one."""

    order: Order
    tasks: tuple[TaskView, ...]
    state: OrderState
    waiting: tuple[WaitingNode, ...] = ()
    note: str = ""

    @property
    def completed(self) -> int:
        """Number of tasks that completed."""
        return sum(view.task.state is TaskState.COMPLETED for view in self.tasks)

    @property
    def failed(self) -> int:
        """Number of tasks that ended without completing."""
        return sum(view.task.ended for view in self.tasks) - self.completed

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself, save that nodes may join."""
        all_ended = all(view.task.ended for view in self.tasks)
        return all_ended and self.state is not OrderState.ACTIVE
