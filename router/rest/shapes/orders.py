"""The JSON of orders and plans. Sizes in bytes, spans in seconds."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from router.domain.errors import InvalidOptions, InvalidTarget
from router.domain.orders import OrderOptions, OrderTarget, OrderView
from router.domain.plans import NodePlan, Plan
from router.domain.rollouts import Rollout
from router.domain.windows import Window
from router.rest.shapes.base import Moment, Shape, Text
from router.rest.shapes.downloads import TaskShape

_THEN = re.compile(r"([0-9]{1,9})(%?)")


def _number_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


# JSON has two ways to write it, `25` and `"25%"`.
_Then = Annotated[
    Text,
    BeforeValidator(_number_as_text),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]


class WindowShape(Shape):
    """A part of every day, "HH:MM" to "HH:MM"; `time_zone` "" is the router's own."""

    model_config = ConfigDict(extra="forbid")

    start: Text
    end: Text
    time_zone: Text = ""


class DownloadRequest(Shape):
    """An order, or the question what it would do. `node_ids` are ids or names.

    `then` is the size of each wave after the canary: "25%" of all nodes, or a number. `window` is
    the part of the day in which bytes flow; `replaces` a model that goes from each node once this
    one is there; `plan_id` that of a plan that was confirmed.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: Text
    target: Text | None = None
    node_ids: list[Text] = Field(default_factory=list)
    labels: dict[Text, Text] = Field(default_factory=dict)
    priority: int = 0
    follow: bool = False
    canary: int = 0
    then: _Then | None = None
    max_failures: int = 0
    window: WindowShape | None = None
    replaces: Text | None = None
    plan_id: Text | None = None

    def order_target(self) -> OrderTarget:
        """Which nodes are meant. Raises `InvalidTarget`."""
        try:
            return OrderTarget(self.target or "")
        except ValueError:
            raise InvalidTarget(
                'target is "all", "specific" with node_ids, or "labels" with labels',
                param="target",
            ) from None

    def options(self) -> OrderOptions:
        """How it is to be carried out. Raises `InvalidOptions`."""
        window = self.window
        return OrderOptions(
            follow=self.follow,
            rollout=self._rollout(),
            window=Window(window.start, window.end, window.time_zone) if window else None,
            replaces=self.replaces or "",
        )

    def _rollout(self) -> Rollout | None:
        if not (self.canary or self.then is not None or self.max_failures):
            return None
        size = _THEN.fullmatch(self.then if self.then is not None else "0")
        if size is None or (self.then is not None and int(size[1]) == 0):
            raise InvalidOptions(
                f'then is "{self.then}": write a number of nodes, or a share like "25%"',
                param="then",
            )
        return Rollout(
            canary_nodes=self.canary,
            wave_percent=int(size[1]) if size[2] else 0,
            wave_nodes=0 if size[2] else int(size[1]),
            max_failures=self.max_failures,
        )


class TaskIds(Shape):
    """The tasks of an order, one for each node."""

    order_id: str
    task_ids: list[str]


class NodePlanShape(Shape):
    """What an order would mean for one node."""

    node_id: str
    node_name: str
    verdict: Literal["ready", "fits", "refused"]
    reason: str
    needed_bytes: int
    free_bytes: int
    source: str = Field(serialization_alias="from")
    hub_bytes: int
    peer_bytes: int
    expected_seconds: float | None
    required_memory_bytes: int | None
    fits_memory: bool
    warnings: list[str]

    @classmethod
    def of(cls, plan: NodePlan) -> "NodePlanShape":
        """From a plan."""
        return cls(
            node_id=plan.node_id,
            node_name=plan.node_name,
            verdict=plan.verdict.value,
            reason=plan.reason,
            needed_bytes=plan.needed_bytes,
            free_bytes=plan.free_bytes,
            source=plan.source,
            hub_bytes=plan.hub_bytes,
            peer_bytes=plan.peer_bytes,
            expected_seconds=_milliseconds(plan.expected_seconds),
            required_memory_bytes=plan.required_memory_bytes or None,
            fits_memory=plan.fits_memory,
            warnings=list(plan.warnings),
        )


class PlanShape(Shape):
    """What an order would mean; `line_bytes` is what the Hub would serve.

    With its `plan_id`, an order is refused when it would do something else by then.
    """

    plan_id: str
    model_name: str
    line_bytes: int
    expected_seconds: float | None
    nodes: list[NodePlanShape]

    @classmethod
    def of(cls, plan: Plan) -> "PlanShape":
        """From a plan."""
        return cls(
            plan_id=plan.plan_id,
            model_name=plan.model_name,
            line_bytes=plan.line_bytes,
            expected_seconds=_milliseconds(plan.expected_seconds),
            nodes=[NodePlanShape.of(node) for node in plan.nodes],
        )


class RolloutShape(Shape):
    """In which waves an order reaches its nodes; 0: not so."""

    canary_nodes: int
    wave_percent: int
    wave_nodes: int
    max_failures: int


class WaitingNodeShape(Shape):
    """A node that an order is for and that has no task yet, and why."""

    node_id: str
    node_name: str
    reason: str


class OrderShape(Shape):
    """An order as it is now. `id` and `order_id` are the same."""

    id: str
    order_id: str
    model_name: str
    target: str
    labels: dict[str, str]
    node_ids: list[str]
    follow: bool
    rollout: RolloutShape | None
    window: WindowShape | None
    replaces: str | None
    status: str
    note: str
    completed_count: int
    failed_count: int
    ended: bool
    created_at: Moment
    task_ids: list[str]
    tasks: list[TaskShape]
    waiting: list[WaitingNodeShape]

    @classmethod
    def of(cls, view: OrderView) -> "OrderShape":
        """From a view."""
        order, options = view.order, view.order.options
        rollout, window = options.rollout, options.window
        return cls(
            id=order.order_id,
            order_id=order.order_id,
            model_name=order.model_name,
            target=order.target.value,
            labels=dict(order.labels),
            node_ids=list(order.node_ids),
            follow=options.follow,
            rollout=RolloutShape(
                canary_nodes=rollout.canary_nodes,
                wave_percent=rollout.wave_percent,
                wave_nodes=rollout.wave_nodes,
                max_failures=rollout.max_failures,
            )
            if rollout
            else None,
            window=WindowShape(start=window.start, end=window.end, time_zone=window.time_zone)
            if window
            else None,
            replaces=options.replaces or None,
            status=view.state.value,
            note=view.note,
            completed_count=view.completed,
            failed_count=view.failed,
            ended=view.ended,
            created_at=order.created_at,
            task_ids=[task.task.task_id for task in view.tasks],
            tasks=[TaskShape.of(task) for task in view.tasks],
            waiting=[
                WaitingNodeShape(node_id=node.node_id, node_name=node.node_name, reason=node.reason)
                for node in view.waiting
            ],
        )


class OrderPage(Shape):
    """Orders, the newest first; `next_page_token` null at the end."""

    orders: list[OrderShape]
    next_page_token: str | None


def _milliseconds(seconds: float | None) -> float | None:
    """As fine as the contract's other edge tells it."""
    return None if seconds is None else int(seconds * 1000) / 1000
