"""The agents' streams."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from protos.llmrouter.v1 import agent_pb2, common_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from router.config import Timers
from router.domain.catalog import FileUrl
from router.domain.nodes import Hello
from router.services.nodes import Nodes
from tests.fakes.agent import FakeAgent, hello
from tests.fakes.hub import FaultyHub
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO
from tests.rpc.errors import told
from tests.support import eventually


@pytest.fixture
def stocked(router: RunningRouter) -> RunningRouter:
    """A router that knows a model."""
    router.call.registration.RegisterModel(registration.RegisterModelRequest(repo=REPO, file=FILE))
    return router


@pytest.fixture
def impatient(hub: FaultyHub, tmp_path: Path) -> Iterator[RunningRouter]:
    """A router whose leases are short."""
    timers = Timers(heartbeat=0.1, lease=0.4)
    with RunningRouter(tmp_path, hub.url, timers=timers) as running:
        yield running


_CANCELLED_CONNECTS = 'grpc_server_handled_total{grpc_code="CANCELLED",grpc_method="Connect",'


def order(router: RunningRouter) -> str:
    """Orders the model onto all nodes; the only task."""
    request = download.StartDownloadRequest(model_name=NAME, target=download.ORDER_TARGET_ALL)
    return router.call.download.StartDownload(request).order.tasks[0].task_id


def task(router: RunningRouter, task_id: str) -> download.Task:
    """The task as it is now."""
    return router.call.download.GetTask(download.GetTaskRequest(task_id=task_id)).task


def online(router: RunningRouter, node_id: str = "node-1") -> bool:
    """Whether the node counts as connected."""
    found = router.call.node.GetNode(node.GetNodeRequest(node_id=node_id)).node
    return found.status == node.NODE_STATUS_ONLINE


def test_an_agent_is_greeted_with_its_timers_and_told_what_to_do(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        welcome = agent.welcome()
        first = agent.assignment()

        assert welcome.session > 0
        assert welcome.epoch > 0
        assert welcome.heartbeat_interval.ToMilliseconds() == 200
        assert list(first.tasks) == []
        assert [command.WhichOneof("command") for command in agent.commands[:2]] == [
            "welcome",
            "assignment",
        ]
        assert online(stocked)


@pytest.mark.parametrize(
    "first",
    [
        agent_pb2.ConnectRequest(),
        agent_pb2.ConnectRequest(report=agent_pb2.Report()),
        hello("../escape"),
        hello("node-1", name="not a name"),
    ],
)
def test_a_stream_that_does_not_begin_with_a_good_hello_is_refused(
    router: RunningRouter, first: agent_pb2.ConnectRequest
) -> None:
    agent = FakeAgent(router.call.agent, first=first)

    assert told(agent.ended()).code == "INVALID_ARGUMENT"
    assert router.call.node.ListNodes(node.ListNodesRequest()).nodes == []


def test_a_second_hello_ends_the_stream(router: RunningRouter) -> None:
    with FakeAgent(router.call.agent) as agent:
        agent.say(hello("node-2"))

        assert told(agent.ended()).code == "INVALID_ARGUMENT"


def test_an_event_of_a_later_version_is_passed_over(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        assigned = agent.assignment(lambda a: a.tasks).tasks[0]
        agent.say(agent_pb2.ConnectRequest())
        agent.report(assigned, common_pb2.TASK_STATE_DOWNLOADING, done=7)

        eventually(lambda: task(stocked, task_id).bytes_done == 7)
        assert online(stocked)


def test_a_second_stream_of_a_node_fences_the_first_loudly(router: RunningRouter) -> None:
    with FakeAgent(router.call.agent) as first, FakeAgent(router.call.agent) as second:
        error = told(first.ended())

        assert (error.code, error.reason) == ("ABORTED", "SESSION_FENCED")
        assert "a data folder of its own" in error.message
        assert second.welcome().session > first.welcome().session
        assert online(router)


def test_many_streams_of_one_node_at_once_leave_exactly_one(router: RunningRouter) -> None:
    agents = [FakeAgent(router.call.agent) for _ in range(12)]

    def alive() -> list[FakeAgent]:
        return [agent for agent in agents if not agent._ended]

    eventually(lambda: len(alive()) == 1)
    assert online(router)
    alive()[0].close()
    eventually(lambda: not online(router))


def test_a_silent_node_is_offline_after_its_lease_and_its_task_waits(
    impatient: RunningRouter,
) -> None:
    impatient.call.registration.RegisterModel(
        registration.RegisterModelRequest(repo=REPO, file=FILE)
    )
    agent = FakeAgent(impatient.call.agent)
    agent.welcome()
    task_id = order(impatient)

    agent.ended()
    eventually(lambda: not online(impatient))

    waiting = task(impatient, task_id)
    assert waiting.state == common_pb2.TASK_STATE_PENDING
    assert not waiting.node_online


def test_a_node_beyond_the_ceiling_is_told_to_come_later(hub: FaultyHub, tmp_path: Path) -> None:
    with (
        RunningRouter(tmp_path, hub.url, max_nodes=1) as router,
        FakeAgent(router.call.agent, "node-1"),
    ):
        error = told(FakeAgent(router.call.agent, "node-2").ended())

    assert (error.code, error.reason, error.retry) == (
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_STREAMS",
        30.0,
    )


def test_an_order_reaches_a_connected_node_and_one_that_comes_later(
    stocked: RunningRouter,
) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        at_once = agent.assignment(lambda a: a.tasks)
    with FakeAgent(stocked.call.agent) as agent:
        later = agent.assignment()

    assert [task.task_id for task in at_once.tasks] == [task_id]
    assert [task.task_id for task in later.tasks] == [task_id]
    assert later.revision > at_once.revision


def test_what_an_operator_does_to_a_task_reaches_its_node(stocked: RunningRouter) -> None:
    call = stocked.call.download
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        call.PauseTask(download.PauseTaskRequest(task_id=task_id))
        agent.assignment(lambda a: a.tasks and a.tasks[0].paused)
        call.ResumeTask(download.ResumeTaskRequest(task_id=task_id))
        call.CancelTask(download.CancelTaskRequest(task_id=task_id, keep_partial=True))
        kept = agent.assignment(lambda a: a.keep_partials)
        call.RetryTask(download.RetryTaskRequest(task_id=task_id))
        retried = agent.assignment(lambda a: a.tasks and a.tasks[0].attempt == 2)

    assert list(kept.tasks) == []
    assert [task.attempt for task in retried.tasks] == [2]


def test_a_node_that_fails_without_a_word_still_leaves_a_reason(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        assigned = agent.assignment(lambda a: a.tasks).tasks[0]
        agent.report(assigned, common_pb2.TASK_STATE_FAILED)
        eventually(lambda: task(stocked, task_id).state == common_pb2.TASK_STATE_FAILED)

    error = task(stocked, task_id).error
    assert (error.code, error.message) == ("unknown", "the node did not say why")


def test_a_flood_of_reports_is_taken_in_and_the_last_one_counts(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        assigned = agent.assignment(lambda a: a.tasks).tasks[0]
        for number in range(5000):
            agent.report(assigned, common_pb2.TASK_STATE_DOWNLOADING, done=number // 6)
        agent.report(assigned, common_pb2.TASK_STATE_DOWNLOADING, done=999)

        eventually(lambda: task(stocked, task_id).bytes_done == 999)
        assert online(stocked)


def test_nonsense_in_a_report_hurts_nobody(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        nonsense = agent_pb2.TaskReport(
            task_id=task_id,
            attempt=1,
            state=common_pb2.TASK_STATE_DOWNLOADING,
            bytes_done=2**62,
            speed_bytes_per_second=-1,
            eta=Duration(seconds=2**60),
            note="x" * 1_000_000,
            found_sha256={"../x": "no digest"},
        )
        unknown = agent_pb2.TaskReport(task_id=task_id, attempt=1, state=99)  # type: ignore[arg-type]
        agent.say_report([unknown, nonsense, agent_pb2.TaskReport()], evicted=["evict-nobody"])
        eventually(lambda: task(stocked, task_id).bytes_done)

        shown = task(stocked, task_id)
        assert shown.bytes_done == shown.bytes_total
        assert not shown.HasField("eta")
        assert len(shown.note) <= 300
        assert online(stocked)


def test_an_inventory_makes_a_model_ready_and_one_of_no_calendar_ends_the_stream(
    stocked: RunningRouter,
) -> None:
    ask = registration.GetModelRequest(model_name=NAME)
    model = stocked.call.registration.GetModel(ask).model
    held = agent_pb2.HeldFile(
        repo=REPO,
        commit=model.manifest.commit,
        path=FILE,
        size_bytes=1000,
        sha256=model.manifest.files[0].sha256,
    )
    with FakeAgent(stocked.call.agent) as agent:
        agent.say(agent_pb2.ConnectRequest(inventory=agent_pb2.Inventory(files=[held])))
        eventually(lambda: stocked.call.registration.GetModel(ask).model.ready_node_count == 1)
        held.verify_time.CopyFrom(Timestamp(seconds=2**50))
        agent.say(agent_pb2.ConnectRequest(inventory=agent_pb2.Inventory(files=[held])))

        assert told(agent.ended()).code == "INVALID_ARGUMENT"


def test_a_node_is_told_where_to_fetch_its_files_and_nothing_else(stocked: RunningRouter) -> None:
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        for request_id, asked_id, path in (
            ("good", task_id, FILE),
            ("other-file", task_id, "../../secret"),
            ("other-task", "task-nobody", FILE),
        ):
            request = agent_pb2.FileUrlRequest(request_id=request_id, task_id=asked_id, path=path)
            agent.say(agent_pb2.ConnectRequest(file_url_request=request))
        good, bad_file, bad_task = (
            agent.url_result(name) for name in ("good", "other-file", "other-task")
        )

    assert good.url.endswith(FILE)
    assert (bad_file.url, bad_file.error.code) == ("", "file_not_found")
    assert (bad_task.url, bad_task.error.code) == ("", "task_not_found")


def test_an_unexpected_error_while_looking_for_a_url_is_answered_too(
    stocked: RunningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("swordfish")

    monkeypatch.setattr("router.hub.catalog.HubCatalog.file_url", explode)
    with FakeAgent(stocked.call.agent) as agent:
        request = agent_pb2.FileUrlRequest(request_id="r", task_id=order(stocked), path=FILE)
        agent.say(agent_pb2.ConnectRequest(file_url_request=request))
        error = agent.url_result("r").error

    assert (error.code, error.retryable) == ("unavailable", True)
    assert "swordfish" not in error.message


def test_a_hub_that_does_not_answer_holds_up_no_task(
    stocked: RunningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()

    def wait(*_: object, **__: object) -> FileUrl:
        answer.wait(20)
        return FileUrl("http://late/", None)

    monkeypatch.setattr("router.hub.catalog.HubCatalog.file_url", wait)
    with FakeAgent(stocked.call.agent) as agent:
        task_id = order(stocked)
        assigned = agent.assignment(lambda a: a.tasks).tasks[0]
        for number in range(60):
            request = agent_pb2.FileUrlRequest(request_id=f"{number}", task_id=task_id, path=FILE)
            agent.say(agent_pb2.ConnectRequest(file_url_request=request))
        agent.complete(assigned)
        eventually(lambda: task(stocked, task_id).state == common_pb2.TASK_STATE_COMPLETED)
        answer.set()

        assert agent.url_result("0").url == "http://late/"


def test_an_agent_that_leaves_while_it_is_taken_in_does_not_stay_online(
    stocked: RunningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    welcome = Nodes.welcome

    def slowly(nodes: Nodes, first: Hello) -> None:
        reached.set()
        go_on.wait(20)
        welcome(nodes, first)

    def cancelled() -> float:
        metrics = httpx.get(f"{stocked.http_url}/metrics").text.splitlines()
        counts = [line.split()[-1] for line in metrics if _CANCELLED_CONNECTS in line]
        return sum(map(float, counts))

    monkeypatch.setattr(Nodes, "welcome", slowly)
    before = cancelled()
    agent = FakeAgent(stocked.call.agent)
    reached.wait(20)
    agent.close()
    eventually(lambda: cancelled() > before)
    go_on.set()

    ask = node.ListNodesRequest()
    eventually(lambda: stocked.call.node.ListNodes(ask).nodes)
    eventually(lambda: not online(stocked))


def test_what_was_confirmed_is_there_after_a_restart(hub: FaultyHub, tmp_path: Path) -> None:
    with RunningRouter(tmp_path, hub.url) as router:
        router.call.registration.RegisterModel(
            registration.RegisterModelRequest(repo=REPO, file=FILE)
        )
        with FakeAgent(router.call.agent) as agent:
            task_id = order(router)
            before = agent.assignment(lambda a: a.tasks)
            epoch = agent.welcome().epoch
    with RunningRouter(tmp_path, hub.url) as router:
        found = task(router, task_id)
        with FakeAgent(router.call.agent) as agent:
            after = agent.assignment()
            later = agent.welcome().epoch

    assert (found.state, found.attempt) == (common_pb2.TASK_STATE_PENDING, 1)
    assert [task.task_id for task in after.tasks] == [task_id]
    assert after.revision > before.revision
    assert later > epoch
