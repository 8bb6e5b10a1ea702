"""The server streams: everything, then every change."""

import itertools

import grpc
import pytest

from protos.llmrouter.v1 import common_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO
from tests.rpc.errors import refused
from tests.support import eventually

MODEL = registration.RegisterModelRequest(repo=REPO, file=FILE)


def test_a_watch_of_models_shows_all_then_what_comes_and_goes(router: RunningRouter) -> None:
    call = router.call.registration
    call.RegisterModel(MODEL)
    watch = call.WatchModels(registration.WatchModelsRequest(), timeout=20)

    snapshot = list(itertools.islice(watch, 2))
    call.UnregisterModel(registration.UnregisterModelRequest(model_name=NAME))
    gone = next(watch)

    assert snapshot[0].model.model_name == NAME
    assert snapshot[1].HasField("snapshot_sent")
    assert gone.removed_model_name == NAME
    watch.cancel()


def test_a_watch_of_nodes_shows_them_come_go_and_be_forgotten(router: RunningRouter) -> None:
    watch = router.call.node.WatchNodes(node.WatchNodesRequest(), timeout=20)
    assert next(watch).HasField("snapshot_sent")

    with FakeAgent(router.call.agent):
        came = next(answer for answer in watch if answer.HasField("node"))
    left = next(a for a in watch if a.node.status == node.NODE_STATUS_OFFLINE)
    router.call.node.RemoveNode(node.RemoveNodeRequest(node_id="node-1"))
    forgotten = next(a for a in watch if a.removed_node_id)

    assert (came.node.node_id, came.node.status) == ("node-1", node.NODE_STATUS_ONLINE)
    assert left.node.node_id == forgotten.removed_node_id == "node-1"
    watch.cancel()


def test_a_watch_of_all_tasks_goes_on_when_tasks_end(router: RunningRouter) -> None:
    router.call.registration.RegisterModel(MODEL)
    watch = router.call.download.WatchTasks(download.WatchTasksRequest(), timeout=20)
    start = download.StartDownloadRequest(model_name=NAME, target=download.ORDER_TARGET_ALL)

    with FakeAgent(router.call.agent) as agent:
        task_id = router.call.download.StartDownload(start).order.tasks[0].task_id
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        seen = []
        for answer in watch:
            seen.append(answer.task)
            if answer.task.state == common_pb2.TASK_STATE_COMPLETED:
                break
        assert {task.task_id for task in seen} == {task_id}
        done = [task.bytes_done for task in seen]
        assert done == sorted(done)
        second = router.call.download.StartDownload(start).order.tasks[0].task_id
        assert next(a.task.task_id for a in watch if a.task.task_id != task_id) == second
    watch.cancel()


def test_watches_are_bounded_and_one_that_is_cancelled_makes_room(router: RunningRouter) -> None:
    call = router.call.node
    request = node.WatchNodesRequest()
    watches = [call.WatchNodes(request, timeout=20) for _ in range(4)]
    for watch in watches:
        next(watch)

    full = refused(lambda asked: call.WatchNodes(asked, timeout=20), request)
    for watch in watches:
        watch.cancel()

    assert (full.code, full.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")
    assert full.retry == pytest.approx(10.0)

    def admitted() -> bool:
        watch = call.WatchNodes(request, timeout=20)
        try:
            return next(watch).HasField("snapshot_sent")
        except grpc.RpcError:
            return False
        finally:
            watch.cancel()

    eventually(admitted)


def test_a_reader_that_stalls_holds_up_nobody(router: RunningRouter) -> None:
    router.call.registration.RegisterModel(MODEL)
    stalled = router.call.download.WatchTasks(download.WatchTasksRequest())
    start = download.StartDownloadRequest(model_name=NAME, target=download.ORDER_TARGET_ALL)
    with FakeAgent(router.call.agent) as agent:
        task_id = router.call.download.StartDownload(start).order.tasks[0].task_id
        assigned = agent.assignment(lambda a: a.tasks).tasks[0]
        for number in range(2000):
            agent.report(assigned, common_pb2.TASK_STATE_DOWNLOADING, done=number // 3)
        agent.complete(assigned)
        named = download.WatchTasksRequest(task_ids=[task_id])
        last = list(router.call.download.WatchTasks(named, timeout=20))[-1].task

    assert last.state == common_pb2.TASK_STATE_COMPLETED
    stalled.cancel()
