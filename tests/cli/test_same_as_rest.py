"""What the CLI prints as JSON, made from gRPC's messages, is what the REST API answers."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from cli.render import rest, wishes
from router.domain.catalog import FileRole, GgufFacts, ModelFile
from router.domain.models import Holding, HoldingState, Manifest, Model, ModelStatus, ModelView
from router.domain.nodes import Gpu, Node, NodeView, Settings
from router.domain.orders import (
    Order,
    OrderOptions,
    OrderState,
    OrderTarget,
    OrderView,
    WaitingNode,
)
from router.domain.plans import NodePlan, Plan, Verdict
from router.domain.rollouts import Rollout
from router.domain.tasks import (
    Bytes,
    Progress,
    Task,
    TaskFailure,
    TaskState,
    TaskView,
)
from router.domain.windows import Window
from router.rest.shapes.downloads import TaskShape
from router.rest.shapes.models import RegisteredModel
from router.rest.shapes.nodes import NodeShape
from router.rest.shapes.orders import OrderShape, PlanShape
from router.rpc import convert, convert_orders

_HUB = "https://hub.example"
_MODEL = "hf/acme/tiny-GGUF/tiny-Q4_K_M.gguf"
_MOMENT = datetime(2026, 5, 28, 20, 26, 40, 250_000, UTC)
_HOLDING = Holding(_MODEL, "id-1", "node-1", HoldingState.READY, _MOMENT, "t-1")


def _task(state: TaskState, progress: Progress, failure: TaskFailure | None = None) -> TaskView:
    ended = _MOMENT if state in (TaskState.COMPLETED, TaskState.FAILED) else None
    task = Task(
        task_id="t-1",
        order_id="o-1",
        model_name=_MODEL,
        node_id="id-1",
        state=state,
        attempt=2,
        bytes_total=3_000_000_000,
        priority=5,
        created_at=_MOMENT,
        updated_at=_MOMENT,
        started_at=_MOMENT,
        ended_at=ended,
        failure=failure,
        progress=progress,
    )
    return TaskView(task, node_name="node-1", node_online=True)


def _answered(shape: BaseModel) -> rest.Json:
    return shape.model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize(
    "view",
    [
        _task(TaskState.PENDING, Progress(note="the disk is full")),
        _task(
            TaskState.DOWNLOADING,
            Progress(1_000_000_000, Bytes(hub=7, peers=8, disk=9), 12_345_678, 161.5),
        ),
        _task(TaskState.COMPLETED, Progress(3_000_000_000)),
        _task(TaskState.FAILED, Progress(1), TaskFailure("disk_full", "it is full", True)),
    ],
    ids=lambda view: view.task.state.value,
)
def test_a_task(view: TaskView) -> None:
    assert rest.task(convert.task(view)) == _answered(TaskShape.of(view))


def test_a_node() -> None:
    node = Node(
        node_id="id-1",
        name="node-1",
        version="0.1.0",
        labels={"site": "berlin"},
        memory_bytes=64,
        gpus=(Gpu("RTX 6000", 48),),
        disk_free_bytes=50,
        disk_total_bytes=100,
        settings=Settings(max_rate=9, reserve=5),
        created_at=_MOMENT,
        last_seen_at=_MOMENT,
    )
    view = NodeView(node, online=True, holdings=(_HOLDING,), peer_addresses=("10.0.0.5:7070",))

    assert rest.node(convert.node(view)) == _answered(NodeShape.of(view))


def test_a_model_with_more_beside() -> None:
    manifest = Manifest.pin(
        model_name=_MODEL,
        repo="acme/tiny-GGUF",
        revision="main",
        commit="c" * 40,
        quantization="Q4_K_M",
        files=(ModelFile("tiny-Q4_K_M.gguf", 2_000, "a" * 64, FileRole.MODEL),),
    )
    model = Model(
        name=_MODEL,
        display_name="tiny Q4_K_M",
        status=ModelStatus.REGISTERED,
        manifest=manifest,
        required_memory_bytes=None,
        chat_template=None,
        facts=GgufFacts("llama", parameters=7, chat_template="{{ x }}", license="mit"),
        created_at=_MOMENT,
    )
    view = ModelView(model, holdings=(_HOLDING,))

    said = rest.model(convert.Messages(_HUB).model(view))

    answered = _answered(RegisteredModel.of(view, _HUB))
    assert {key: said[key] for key in answered} == answered
    assert set(said) - set(answered) == {"manifest_id"}


def test_a_plan() -> None:
    node = NodePlan(
        node_id="id-1",
        node_name="node-1",
        verdict=Verdict.REFUSED,
        reason="it lacks 2 GB",
        needed_bytes=3,
        free_bytes=1,
        source="hub",
        warnings=("slow",),
    )
    known = replace(
        node,
        hub_bytes=1,
        peer_bytes=2,
        expected_seconds=12.3456,
        required_memory_bytes=9,
        fits_memory=False,
    )
    plan = Plan(_MODEL, 3, (node, known), plan_id="plan-1", expected_seconds=12.3456)

    assert wishes.plan(convert_orders.plan(plan)) == _answered(PlanShape.of(plan))


@pytest.mark.parametrize(
    "options",
    [
        OrderOptions(),
        OrderOptions(True, Rollout(1, 25, 0, 2), Window("22:00", "06:00", "UTC"), "hf/a/b/c.gguf"),
    ],
    ids=["plain", "with everything"],
)
def test_an_order(options: OrderOptions) -> None:
    order = Order(
        order_id="o-1",
        model_name=_MODEL,
        target=OrderTarget.LABELS,
        node_ids=("id-1", "id-2"),
        task_ids=("t-1",),
        request_id="r",
        created_at=_MOMENT,
        labels={"gpu": "a100"},
        options=options,
    )
    view = OrderView(
        order,
        (_task(TaskState.COMPLETED, Progress(3_000_000_000)),),
        OrderState.ACTIVE,
        (WaitingNode("id-2", "node-2", "its wave begins when 1 task has ended"),),
        "waits for its window, 22:00-06:00",
    )

    assert wishes.order(convert_orders.order(view)) == _answered(OrderShape.of(view))
