"""Plans, and orders that are carried out over time, over gRPC."""

from datetime import UTC, datetime, timedelta
from typing import Any

from protos.llmrouter.v1 import common_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO
from tests.rpc.errors import refused
from tests.support import eventually

ALL = download.ORDER_TARGET_ALL
OLD = f"hf/{REPO}/tiny-Q8_0.gguf"


def register(router: RunningRouter, file: str = FILE) -> None:
    router.call.registration.RegisterModel(registration.RegisterModelRequest(repo=REPO, file=file))


def start(router: RunningRouter, options: download.OrderOptions, **fields: Any) -> download.Order:
    request = download.StartDownloadRequest(model_name=NAME, options=options, **fields)
    if not request.target:
        request.target = ALL
    return router.call.download.StartDownload(request).order


def now(router: RunningRouter, order: download.Order) -> download.Order:
    request = download.GetOrderRequest(order_id=order.order_id)
    return router.call.download.GetOrder(request).order


def test_a_plan_tells_both_sides_of_the_line_and_names_itself(router: RunningRouter) -> None:
    register(router)
    ask = download.PlanDownloadRequest(model_name=NAME, target=ALL)
    with FakeAgent(router.call.agent), FakeAgent(router.call.agent, "node-2"):
        plan = router.call.download.PlanDownload(ask)
        order = start(router, download.OrderOptions(), plan_id=plan.plan_id)
        outdated = refused(
            router.call.download.StartDownload,
            download.StartDownloadRequest(model_name=NAME, target=ALL, plan_id="plan-of-old"),
        )

    assert [(one.hub_bytes, one.peer_bytes) for one in plan.nodes] == [(1000, 0), (0, 1000)]
    assert (plan.line_bytes, plan.HasField("expected_time")) == (1000, False)
    assert plan.nodes[0].fits_memory
    assert len(order.tasks) == 2
    assert (outdated.code, outdated.reason) == ("FAILED_PRECONDITION", "PLAN_OUTDATED")


def test_a_canary_that_fails_stops_the_order_until_its_retry_completes(
    router: RunningRouter,
) -> None:
    register(router)
    agent = router.call.agent
    wish = download.OrderOptions(rollout=download.Rollout(canary_nodes=1))
    with FakeAgent(agent) as one, FakeAgent(agent, "node-2") as two:
        order = start(router, wish)
        task = one.assignment(lambda a: a.tasks).tasks[0]
        one.report(
            task,
            common_pb2.TASK_STATE_FAILED,
            error=common_pb2.TaskError(code="disk_error", message="it is broken"),
        )
        eventually(lambda: now(router, order).state == download.ORDER_STATE_STOPPED)
        stopped = now(router, order)
        router.call.download.RetryTask(download.RetryTaskRequest(task_id=task.task_id))
        one.complete(one.assignment(lambda a: a.tasks and a.tasks[0].attempt == 2).tasks[0])
        two.complete(two.assignment(lambda a: a.tasks).tasks[0])
        eventually(lambda: now(router, order).ended)

    assert "node-1 failed" in stopped.note
    assert (stopped.ended, [one.node_name for one in stopped.waiting]) == (True, ["node-2"])
    assert stopped.options == wish
    assert now(router, order).state == download.ORDER_STATE_COMPLETED


def test_a_node_that_gets_the_label_gets_the_model(router: RunningRouter) -> None:
    register(router)
    with FakeAgent(router.call.agent) as agent:
        order = start(
            router,
            download.OrderOptions(follow=True),
            target=download.ORDER_TARGET_LABELS,
            label_selector={"gpu": "a100"},
        )
        router.call.node.UpdateNode(
            node.UpdateNodeRequest(node_id="node-1", labels={"gpu": "a100"})
        )
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        eventually(lambda: now(router, order).completed_count == 1)

    assert order.state == download.ORDER_STATE_ACTIVE
    assert dict(order.label_selector) == {"gpu": "a100"}


def test_outside_of_its_window_a_task_is_on_hold(router: RunningRouter) -> None:
    register(router)
    later = datetime.now(UTC) + timedelta(hours=2)
    window = download.Window(
        start=f"{later:%H:%M}", end=f"{later + timedelta(hours=1):%H:%M}", time_zone="UTC"
    )
    with FakeAgent(router.call.agent) as agent:
        order = start(router, download.OrderOptions(window=window))
        held = agent.assignment(lambda a: a.tasks).tasks[0]
        start(router, download.OrderOptions())
        freed = agent.assignment(lambda a: a.tasks and not a.tasks[0].hold).tasks[0]

    assert held.hold == f"waits for {window.start} UTC"
    assert freed.task_id == held.task_id
    assert order.note == f"waits for its window, {window.start}-{window.end} UTC"


def test_the_old_model_is_evicted_when_the_new_one_is_there(router: RunningRouter) -> None:
    register(router)
    register(router, "tiny-Q8_0.gguf")
    with FakeAgent(router.call.agent) as agent:
        router.call.download.StartDownload(
            download.StartDownloadRequest(model_name=OLD, target=ALL)
        )
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        start(router, download.OrderOptions(replaces=f"{REPO}:Q8_0"))
        new = agent.assignment(lambda a: any(task.manifest.model_name == NAME for task in a.tasks))
        agent.complete(next(task for task in new.tasks if task.manifest.model_name == NAME))
        evicting = agent.assignment(lambda a: a.evictions)

    assert not new.evictions
    assert [one.manifest.model_name for one in evicting.evictions] == [OLD]


def test_every_documented_refusal_of_a_wish(router: RunningRouter) -> None:
    register(router)
    call = router.call.download.StartDownload
    labels = download.ORDER_TARGET_LABELS

    def ask(**options: Any) -> download.StartDownloadRequest:
        return download.StartDownloadRequest(
            model_name=NAME, target=ALL, options=download.OrderOptions(**options)
        )

    with FakeAgent(router.call.agent):
        for request, code, reason in (
            (
                ask(rollout=download.Rollout(wave_percent=10, wave_nodes=1)),
                "INVALID_ARGUMENT",
                "INVALID_OPTIONS",
            ),
            (ask(window=download.Window()), "INVALID_ARGUMENT", "INVALID_OPTIONS"),
            (ask(replaces=NAME), "INVALID_ARGUMENT", "INVALID_OPTIONS"),
            (ask(replaces="o/none"), "NOT_FOUND", "MODEL_NOT_FOUND"),
            (
                download.StartDownloadRequest(model_name=NAME, target=labels),
                "INVALID_ARGUMENT",
                "INVALID_TARGET",
            ),
            (
                download.StartDownloadRequest(
                    model_name=NAME, target=labels, label_selector={"gpu": "a100"}
                ),
                "UNAVAILABLE",
                "NO_NODES",
            ),
        ):
            answer = refused(call, request)
            assert (answer.code, answer.reason) == (code, reason), request
