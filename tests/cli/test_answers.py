"""What the commands send and answer."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from protos.llmrouter.v1 import catalog_pb2, download_pb2, node_pb2, registration_pb2
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter
from tests.cli.samples import (
    COMPLETED,
    GB,
    MODEL,
    MOMENT,
    PAUSED,
    catalog,
    completed,
    failed,
    model,
    moving,
    node,
    order,
    outdated,
    repo,
    task,
    upgraded,
)

_GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())

_CASES: dict[str, tuple[tuple[str, ...], str, Message]] = {
    "task show": (
        ("task", "show", "t-1"),
        "GetTask",
        download_pb2.GetTaskResponse(task=moving(1, GB // 2, 12_300_000, 122)),
    ),
    "task of a failure": (
        ("task", "show", "t-1"),
        "GetTask",
        download_pb2.GetTaskResponse(task=failed()),
    ),
    "node show": (("node", "show", "id-1"), "GetNode", node_pb2.GetNodeResponse(node=node())),
    "model show": (
        ("model", "show", MODEL),
        "GetModel",
        registration_pb2.GetModelResponse(model=model()),
    ),
    "model list": (("model", "list", "--limit", "2"), "SearchCatalog", catalog()),
    "model add": (
        ("model", "add", "acme/tiny-GGUF"),
        "RegisterModel",
        registration_pb2.RegisterModelResponse(model=model(), warnings=["large"]),
    ),
    "model outdated": (
        ("model", "outdated"),
        "ListOutdatedModels",
        registration_pb2.ListOutdatedModelsResponse(models=[outdated()]),
    ),
    "model upgrade": (("model", "upgrade", MODEL), "UpgradeModel", upgraded()),
    "model plan": (
        ("model", "plan", MODEL, "--all"),
        "PlanDownload",
        download_pb2.PlanDownloadResponse(
            model_name=MODEL,
            line_bytes=2 * GB,
            nodes=[
                download_pb2.NodePlan(
                    node_id="id-1",
                    node_name="node-1",
                    verdict=download_pb2.PLAN_VERDICT_FITS,
                    needed_bytes=2 * GB,
                    free_bytes=50 * GB,
                    hub_bytes=GB,
                    peer_bytes=GB,
                    required_memory_bytes=3 * GB,
                    fits_memory=True,
                    expected_time=Duration(seconds=20),
                    **{"from": "hub"},
                )
            ],
            plan_id="plan-1",
            expected_time=Duration(seconds=20),
        ),
    ),
    "order show": (
        ("order", "show", "o-1"),
        "GetOrder",
        download_pb2.GetOrderResponse(order=order(completed())),
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_json_has_the_names_of_the_rest_api(router: FakeRouter, cli: Cli, case: str) -> None:
    arguments, method, answer = _CASES[case]
    router.answers[method] = answer

    said = cli.json(*arguments)

    assert said == _GOLDEN[case]


_REQUESTS: list[tuple[tuple[str, ...], str, Message, Message]] = [
    (
        (
            *("model", "list", "--search", "qwen 3", "--author", "acme", "--sort", "likes"),
            *("--min-size", "500MB", "--max-size", "4.5GB", "--quant", "Q4_K_M"),
            *("--limit", "5", "--offset", "10"),
        ),
        "SearchCatalog",
        catalog_pb2.SearchCatalogRequest(
            search="qwen 3",
            author="acme",
            sort=catalog_pb2.CATALOG_SORT_LIKES,
            min_bytes=500_000_000,
            max_bytes=4_500_000_000,
            quantization="Q4_K_M",
            window=catalog_pb2.VariantWindow(limit=5, offset=10),
        ),
        catalog(),
    ),
    (
        ("model", "show", "acme/tiny-GGUF"),
        "GetRepo",
        catalog_pb2.GetRepoRequest(repo="acme/tiny-GGUF"),
        catalog_pb2.GetRepoResponse(repo=repo()),
    ),
    (
        ("model", "add", "acme/tiny-GGUF:Q4_K_M", "--revision", "v1", "--display-name", "Tiny"),
        "RegisterModel",
        registration_pb2.RegisterModelRequest(
            repo="acme/tiny-GGUF", quantization="Q4_K_M", revision="v1", display_name="Tiny"
        ),
        registration_pb2.RegisterModelResponse(model=model()),
    ),
    (
        ("model", "add", MODEL),
        "RegisterModel",
        registration_pb2.RegisterModelRequest(repo="acme/tiny-GGUF", file="tiny-Q4_K_M.gguf"),
        registration_pb2.RegisterModelResponse(model=model()),
    ),
    (
        ("model", "remove", MODEL, "--evict", "--force"),
        "UnregisterModel",
        registration_pb2.UnregisterModelRequest(model_name=MODEL, evict=True, force=True),
        registration_pb2.UnregisterModelResponse(),
    ),
    (
        ("model", "download", MODEL, "--all", "--detach", "--priority", "7", "--request-id", "r"),
        "StartDownload",
        download_pb2.StartDownloadRequest(
            model_name=MODEL, target=download_pb2.ORDER_TARGET_ALL, request_id="r", priority=7
        ),
        download_pb2.StartDownloadResponse(order=order(task())),
    ),
    (
        ("task", "list", "--state", "paused", "--model", MODEL, "--node", "node-1", "--limit", "9"),
        "ListTasks",
        download_pb2.ListTasksRequest(
            page_size=9, states=[PAUSED], model_name=MODEL, node_id="node-1"
        ),
        download_pb2.ListTasksResponse(tasks=[task()]),
    ),
    (
        ("task", "cancel", "t-1", "--keep-partial"),
        "CancelTask",
        download_pb2.CancelTaskRequest(task_id="t-1", keep_partial=True),
        download_pb2.CancelTaskResponse(task=task()),
    ),
    (
        ("task", "resume", "t-1"),
        "ResumeTask",
        download_pb2.ResumeTaskRequest(task_id="t-1"),
        download_pb2.ResumeTaskResponse(task=task()),
    ),
    (
        ("task", "retry", "t-1"),
        "RetryTask",
        download_pb2.RetryTaskRequest(task_id="t-1"),
        download_pb2.RetryTaskResponse(task=task()),
    ),
    (
        ("order", "list"),
        "ListOrders",
        download_pb2.ListOrdersRequest(page_size=100),
        download_pb2.ListOrdersResponse(orders=[order(task())]),
    ),
    (
        ("order", "cancel", "o-1"),
        "CancelOrder",
        download_pb2.CancelOrderRequest(order_id="o-1"),
        download_pb2.CancelOrderResponse(order=order(task())),
    ),
    (
        ("node", "set", "node-1", "--max-rate", "50MB/s", "--label", "site=a", "--label", "x="),
        "UpdateNode",
        node_pb2.UpdateNodeRequest(
            node_id="node-1", max_rate_bytes_per_second=50_000_000, labels={"site": "a", "x": ""}
        ),
        node_pb2.UpdateNodeResponse(node=node()),
    ),
    (
        ("node", "set", "node-1", "--max-rate", "0", "--remove-label", "site"),
        "UpdateNode",
        node_pb2.UpdateNodeRequest(
            node_id="node-1", max_rate_bytes_per_second=0, remove_labels=["site"]
        ),
        node_pb2.UpdateNodeResponse(node=node()),
    ),
    (
        ("node", "remove", "node-1"),
        "RemoveNode",
        node_pb2.RemoveNodeRequest(node_id="node-1"),
        node_pb2.RemoveNodeResponse(),
    ),
    (
        ("node", "evict", "node-1", MODEL),
        "EvictModel",
        node_pb2.EvictModelRequest(node_id="node-1", model_name=MODEL),
        node_pb2.EvictModelResponse(),
    ),
]


@pytest.mark.parametrize(
    ("arguments", "method", "request_", "answer"),
    _REQUESTS,
    ids=[" ".join(case[0][:2]) for case in _REQUESTS],
)
@pytest.mark.parametrize("form", ["table", "json", "quiet"])
def test_a_command_sends_what_was_asked_for_and_shows_the_answer(
    router: FakeRouter,
    cli: Cli,
    arguments: tuple[str, ...],
    method: str,
    request_: Message,
    answer: Message,
    form: str,
) -> None:
    router.answers[method] = answer

    result = cli(*arguments, *(("-q",) if form == "quiet" else ("--format", form)))

    assert result.exit_code == 0, result.output
    assert router.requests == [request_]
    assert result.stdout.strip()
    if form == "json":
        json.loads(result.stdout)


def test_all_pages_of_a_listing_are_shown(router: FakeRouter, cli: Cli) -> None:
    def page(request: Any) -> node_pb2.ListNodesResponse:
        if request.page_token == "second":
            return node_pb2.ListNodesResponse(nodes=[node(2)])
        return node_pb2.ListNodesResponse(nodes=[node(1)], next_page_token="second")

    router.answers["ListNodes"] = page

    assert cli("node", "list", "-q").stdout.split() == ["id-1", "id-2"]


def test_registered_models_are_searched_and_cut_to_a_window(router: FakeRouter, cli: Cli) -> None:
    models = [
        registration_pb2.Model(model_name=f"hf/acme/{name}/{name}.gguf")
        for name in ("apple", "pear", "apple-pie")
    ]
    router.answers["ListModels"] = registration_pb2.ListModelsResponse(models=models)

    result = cli("model", "list", "--registered", "--search", "Apple", "--offset", "1", "-q")

    assert result.stdout == "hf/acme/apple-pie/apple-pie.gguf\n"


def test_a_stale_catalog_says_so_beside_the_answer(router: FakeRouter, cli: Cli) -> None:
    answer = catalog()
    answer.stale = True
    answer.problem = "it answered 503"
    router.answers["SearchCatalog"] = answer

    result = cli("model", "list", "--format", "json")

    assert json.loads(result.stdout)["stale"] is True
    assert "The Hub does not answer (it answered 503)" in result.stderr
    assert "--offset 2" in result.stderr


def test_long_ids_are_whole_where_there_is_no_terminal(router: FakeRouter, cli: Cli) -> None:
    long = f"hf/acme/{'very-' * 30}long/model.gguf"
    answer = registration_pb2.ListModelsResponse(models=[registration_pb2.Model(model_name=long)])
    router.answers["ListModels"] = answer

    header, row = cli("model", "list", "--registered", COLUMNS="80").stdout.splitlines()

    assert header.startswith("NAME")
    assert row.startswith(f"{long}  ")


def test_a_table_has_screaming_headers_and_right_aligned_numbers(
    router: FakeRouter, cli: Cli
) -> None:
    router.answers["ListTasks"] = download_pb2.ListTasksResponse(
        tasks=[moving(1, GB, 12_300_000, 81), task(20, COMPLETED, 2 * GB)]
    )

    lines = cli("task", "list").stdout.splitlines()

    assert lines[0].split()[:5] == ["TASK", "MODEL", "NODE", "STATUS", "DONE"]
    assert lines[1].index("50%") + 3 == lines[2].index("100%") + 4 == lines[0].index("DONE") + 4
    assert "12.3 MB/s" in lines[1] and "1m21s" in lines[1]


def test_a_warning_of_a_registration_is_told_beside_the_answer(
    router: FakeRouter, cli: Cli
) -> None:
    router.answers["RegisterModel"] = registration_pb2.RegisterModelResponse(
        model=model(), warnings=["no node has the memory"]
    )

    result = cli("model", "add", "acme/tiny-GGUF")

    assert "Warning: no node has the memory" in result.stderr
    assert f"llm-router model download {MODEL} --all" in result.stderr


def test_status_shows_what_is_offline_and_what_runs(router: FakeRouter, cli: Cli) -> None:
    away = node(2)
    away.status = node_pb2.NODE_STATUS_OFFLINE
    router.answers["ListNodes"] = node_pb2.ListNodesResponse(nodes=[node(1), away])
    router.answers["ListModels"] = registration_pb2.ListModelsResponse(models=[model()])
    router.answers["ListTasks"] = download_pb2.ListTasksResponse(
        tasks=[moving(1, GB, 10_000_000, 100)]
    )

    said = cli.json("status")

    assert said == {
        "router": router.address,
        "nodes": {"total": 2, "online": 1, "offline": ["node-2"]},
        "models": {"total": 1, "ready": 1},
        "tasks": {"unfinished": 1, "by_status": {"downloading": 1}, "speed_bps": 10_000_000},
    }
    assert "node-2" in cli("status").stdout


def test_an_order_shows_what_is_missing(router: FakeRouter, cli: Cli) -> None:
    wished = order(completed(1), moving(2, GB, 1, 1), task(3, end_time=MOMENT))
    wished.completed_count = 1
    router.answers["GetOrder"] = download_pb2.GetOrderResponse(order=wished)

    said = cli("order", "show", "o-1").stdout

    assert "Reached:  1 of 3 nodes" in said
    assert re.search(r"MISSING +WHY\nnode-2 +downloading\n", said)
