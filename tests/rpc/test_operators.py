"""What operators call: the way from the catalog to a ready node, and every documented error."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.llmrouter.v1 import catalog_pb2 as catalog
from protos.llmrouter.v1 import common_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from tests.fakes.agent import FakeAgent
from tests.fakes.hub import Answer, FaultyHub, rate_limited
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO
from tests.rpc.errors import refused
from tests.support import eventually


def register(router: RunningRouter, repo: str = REPO, file: str = FILE) -> str:
    """Registers a file."""
    request = registration.RegisterModelRequest(repo=repo, file=file)
    return router.call.registration.RegisterModel(request).model.model_name


def start(router: RunningRouter, **options: Any) -> download.Order:
    """Orders the model onto all nodes."""
    request = download.StartDownloadRequest(
        model_name=NAME, target=download.ORDER_TARGET_ALL, **options
    )
    return router.call.download.StartDownload(request).order


def test_a_model_goes_from_the_catalog_to_a_ready_node(router: RunningRouter) -> None:
    call = router.call
    page = call.catalog.SearchCatalog(catalog.SearchCatalogRequest(search="tiny"))
    window = call.catalog.SearchCatalog(
        catalog.SearchCatalogRequest(search="tiny", window=catalog.VariantWindow(limit=1))
    )
    repo = call.catalog.GetRepo(catalog.GetRepoRequest(repo=REPO)).repo
    name = register(router)
    with FakeAgent(call.agent) as agent:
        order = start(router)
        assignment = agent.assignment(lambda a: a.tasks)
        agent.complete(assignment.tasks[0])
        states = [
            answer.task.state
            for answer in call.download.WatchTasks(
                download.WatchTasksRequest(task_ids=[order.tasks[0].task_id])
            )
        ]

    assert [variant.quantization for variant in page.repos[0].variants] == ["Q4_K_M", "Q8_0"]
    assert (len(window.repos[0].variants), window.has_more) == (1, True)
    assert repo.variants[0].model_name == name == NAME
    assert assignment.tasks[0].manifest.files[0].url.startswith("http://127.0.0.1:")
    assert states[-1] == common_pb2.TASK_STATE_COMPLETED
    model = call.registration.GetModel(registration.GetModelRequest(model_name=f"{REPO}:Q4_K_M"))
    assert model.model.ready_node_count == 1
    listed = call.registration.ListModels(registration.ListModelsRequest())
    assert [found.model_name for found in listed.models] == [NAME]
    ended = call.download.GetOrder(download.GetOrderRequest(order_id=order.order_id)).order
    assert (ended.ended, ended.completed_count, ended.failed_count) == (True, 1, 0)


def test_every_documented_error_of_the_catalog(router: RunningRouter) -> None:
    call = router.call.catalog

    for request, code, reason in (
        (catalog.GetRepoRequest(repo="owner/none"), "NOT_FOUND", "REPO_NOT_FOUND"),
        (catalog.GetRepoRequest(repo="../.."), "INVALID_ARGUMENT", "INVALID_NAME"),
        (catalog.GetRepoRequest(repo=REPO, revision="no"), "NOT_FOUND", "REVISION_NOT_FOUND"),
    ):
        answer = refused(call.GetRepo, request)
        assert (answer.code, answer.reason) == (code, reason)
    for search in (
        catalog.SearchCatalogRequest(page_size=101),
        catalog.SearchCatalogRequest(page_token="garbage"),
        catalog.SearchCatalogRequest(window=catalog.VariantWindow(offset=-1)),
    ):
        assert refused(call.SearchCatalog, search).code == "INVALID_ARGUMENT"


def test_every_documented_error_of_registration(router: RunningRouter) -> None:
    call = router.call.registration
    register(router)
    ask = registration.RegisterModelRequest

    for request, code, reason in (
        (ask(repo="nonsense"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (ask(repo=REPO, file="../../x.gguf"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (ask(repo=REPO, file=FILE, quantization="Q8_0"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (ask(repo="owner/none"), "NOT_FOUND", "REPO_NOT_FOUND"),
        (ask(repo=REPO, revision="no-such"), "NOT_FOUND", "REVISION_NOT_FOUND"),
        (ask(repo=REPO, file="none.gguf"), "NOT_FOUND", "FILE_NOT_FOUND"),
        (ask(repo=REPO, quantization="Q2_K"), "NOT_FOUND", "FILE_NOT_FOUND"),
        (ask(repo=REPO, file=FILE), "ALREADY_EXISTS", "MODEL_EXISTS"),
        (ask(repo=REPO, quantization="q4_k_m"), "ALREADY_EXISTS", "MODEL_EXISTS"),
    ):
        answer = refused(call.RegisterModel, request)
        assert (answer.code, answer.reason) == (code, reason), request
    register(router, file="tiny-Q8_0.gguf")
    for name, code, reason in (
        ("hf/o/r/none.gguf", "NOT_FOUND", "MODEL_NOT_FOUND"),
        ("nonsense", "NOT_FOUND", "MODEL_NOT_FOUND"),
        (REPO, "INVALID_ARGUMENT", "AMBIGUOUS_MODEL"),
    ):
        answer = refused(call.GetModel, registration.GetModelRequest(model_name=name))
        assert (answer.code, answer.reason) == (code, reason)
        assert (
            refused(
                call.UnregisterModel, registration.UnregisterModelRequest(model_name=name)
            ).reason
            == reason
        )
    for page in (
        registration.ListModelsRequest(page_size=1001),
        registration.ListModelsRequest(page_token="!"),
    ):
        assert refused(call.ListModels, page).code == "INVALID_ARGUMENT"


def test_a_hub_in_trouble_is_named_with_the_time_to_wait(
    troubled: RunningRouter, hub: FaultyHub
) -> None:
    ask = registration.RegisterModelRequest(repo="owner/spare-0-GGUF")
    hub.always("/api/models/owner/spare-0-GGUF*", rate_limited(7))
    limited = refused(troubled.call.registration.RegisterModel, ask)

    assert (limited.code, limited.reason) == ("UNAVAILABLE", "HUB_RATE_LIMITED")
    assert limited.retry is not None
    assert 0 < limited.retry <= 8
    assert troubled.call.registration.ListModels(registration.ListModelsRequest()).models == []


def test_a_hub_that_answers_no_sense_is_unavailable(
    troubled: RunningRouter, hub: FaultyHub
) -> None:
    hub.always("/api/models/owner/spare-1-GGUF*", Answer(200, b"not json"))
    ask = registration.RegisterModelRequest(repo="owner/spare-1-GGUF")

    answer = refused(troubled.call.registration.RegisterModel, ask)

    assert (answer.code, answer.reason) == ("UNAVAILABLE", "HUB_UNAVAILABLE")


def test_every_documented_error_of_orders_and_tasks(router: RunningRouter) -> None:
    call = router.call.download
    all_nodes, some = download.ORDER_TARGET_ALL, download.ORDER_TARGET_SPECIFIC
    ask = download.StartDownloadRequest
    register(router)
    register(router, "owner/raw", "")
    no_nodes = refused(call.StartDownload, ask(model_name=NAME, target=all_nodes))
    assert (no_nodes.code, no_nodes.reason) == ("UNAVAILABLE", "NO_NODES")
    with FakeAgent(router.call.agent, "full", free=10):
        full = refused(call.StartDownload, ask(model_name=NAME, target=all_nodes))
    assert (full.code, full.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_DISK")

    with FakeAgent(router.call.agent):
        order = start(router, request_id="r1")
        for request, code, reason in (
            (ask(model_name=NAME), "INVALID_ARGUMENT", "INVALID_TARGET"),
            (ask(model_name=NAME, target=some), "INVALID_ARGUMENT", "INVALID_TARGET"),
            (
                ask(model_name=NAME, target=some, node_ids=["node-1"], request_id="r1"),
                "INVALID_ARGUMENT",
                "REQUEST_REUSED",
            ),
            (ask(model_name="o/none", target=all_nodes), "NOT_FOUND", "MODEL_NOT_FOUND"),
            (
                ask(model_name=NAME, target=some, node_ids=["nobody"]),
                "NOT_FOUND",
                "NODE_NOT_FOUND",
            ),
            (
                ask(model_name="owner/raw", target=all_nodes),
                "FAILED_PRECONDITION",
                "PENDING_CONVERSION",
            ),
        ):
            answer = refused(call.StartDownload, request)
            assert (answer.code, answer.reason) == (code, reason), request
        task_id = order.tasks[0].task_id
        wrong: list[tuple[Any, Any]] = [
            (call.ResumeTask, download.ResumeTaskRequest(task_id=task_id)),
            (call.RetryTask, download.RetryTaskRequest(task_id=task_id)),
        ]
        for verb, asked in wrong:
            answer = refused(verb, asked)
            assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
        busy = refused(
            router.call.registration.UnregisterModel,
            registration.UnregisterModelRequest(model_name=NAME),
        )
        assert (busy.code, busy.reason) == ("FAILED_PRECONDITION", "MODEL_BUSY")
        call.CancelOrder(download.CancelOrderRequest(order_id=order.order_id))
        again = refused(call.CancelOrder, download.CancelOrderRequest(order_id=order.order_id))
        assert again.reason == "WRONG_STATE"
    unknown: list[tuple[Any, Any, str]] = [
        (call.GetTask, download.GetTaskRequest(task_id="no"), "TASK_NOT_FOUND"),
        (call.CancelTask, download.CancelTaskRequest(task_id="no"), "TASK_NOT_FOUND"),
        (call.PauseTask, download.PauseTaskRequest(task_id="no"), "TASK_NOT_FOUND"),
        (call.WatchTasks, download.WatchTasksRequest(task_ids=["no"]), "TASK_NOT_FOUND"),
        (call.GetOrder, download.GetOrderRequest(order_id="no"), "ORDER_NOT_FOUND"),
        (call.CancelOrder, download.CancelOrderRequest(order_id="no"), "ORDER_NOT_FOUND"),
    ]
    for verb, asked, reason in unknown:
        answer = refused(verb, asked)
        assert (answer.code, answer.reason) == ("NOT_FOUND", reason)


def test_a_filter_that_names_no_state_is_not_taken_for_no_filter(router: RunningRouter) -> None:
    request = download.ListTasksRequest(states=[common_pb2.TASK_STATE_UNSPECIFIED])

    assert refused(router.call.download.ListTasks, request).code == "INVALID_ARGUMENT"


def test_every_documented_error_of_nodes(router: RunningRouter) -> None:
    call = router.call.node
    register(router)
    for verb, request in (
        (call.GetNode, node.GetNodeRequest(node_id="no")),
        (call.UpdateNode, node.UpdateNodeRequest(node_id="no")),
        (call.RemoveNode, node.RemoveNodeRequest(node_id="no")),
        (call.EvictModel, node.EvictModelRequest(node_id="no", model_name=NAME)),
    ):
        answer = refused(verb, request)
        assert (answer.code, answer.reason) == ("NOT_FOUND", "NODE_NOT_FOUND")
    with FakeAgent(router.call.agent):
        busy = refused(call.RemoveNode, node.RemoveNodeRequest(node_id="node-1"))
        assert (busy.code, busy.reason) == ("FAILED_PRECONDITION", "NODE_BUSY")
        bad = refused(
            call.UpdateNode,
            node.UpdateNodeRequest(node_id="node-1", max_rate_bytes_per_second=-1),
        )
        assert bad.code == "INVALID_ARGUMENT"
        start(router)
        bringing = refused(
            call.EvictModel, node.EvictModelRequest(node_id="node-1", model_name=NAME)
        )
        assert (bringing.code, bringing.reason) == ("FAILED_PRECONDITION", "MODEL_BUSY")
    gone = node.GetNodeRequest(node_id="node-1")
    eventually(lambda: call.GetNode(gone).node.status == node.NODE_STATUS_OFFLINE)
    call.RemoveNode(node.RemoveNodeRequest(node_id="node-1"))
    assert call.ListNodes(node.ListNodesRequest()).nodes == []


def test_an_unexpected_error_leaks_nothing(
    router: RunningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("router.services.models.Models.page", explode)
    monkeypatch.setattr("router.services.models.Models.all", explode)

    for verb, request in (
        (router.call.registration.ListModels, registration.ListModelsRequest()),
        (router.call.registration.WatchModels, registration.WatchModelsRequest()),
    ):
        answer = refused(verb, request)
        assert answer.code == "INTERNAL"
        assert answer.message == "internal error: the router's log says more"
        assert answer.reason == ""


def test_an_error_that_quotes_a_huge_id_arrives_whole(router: RunningRouter) -> None:
    request = download.GetTaskRequest(task_id="🦙" * 100_000)

    answer = refused(router.call.download.GetTask, request)

    assert (answer.code, answer.reason) == ("NOT_FOUND", "TASK_NOT_FOUND")


def test_a_message_beyond_the_limit_is_refused(router: RunningRouter) -> None:
    request = download.GetTaskRequest(task_id="x" * (17 * 1024 * 1024))

    assert refused(router.call.download.GetTask, request).code == "RESOURCE_EXHAUSTED"
    assert register(router) == NAME


def test_health_and_reflection_know_every_service(router: RunningRouter) -> None:
    health = health_pb2_grpc.HealthStub(router.channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(router.channel)
    names = {
        f"llmrouter.v1.{name}Service"
        for name in ("Catalog", "Registration", "Download", "Node", "Agent")
    }

    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(reflection.ServerReflectionInfo(iter([listing])))

    listed = {service.name for service in answer.list_services_response.service}
    assert listed == names | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in ("", *names):
        check = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_method_is_unimplemented(router: RunningRouter) -> None:
    call: Any = router.channel.unary_unary("/llmrouter.v1.CatalogService/Nothing")

    with pytest.raises(grpc.RpcError) as raised:
        call(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
