"""Strangers' tools, by reflection alone: grpcurl and buf curl."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO

BUF = Path(sys.executable).parent / "buf"


def grpcurl(router: RunningRouter, method: str, request: dict[str, Any]) -> str:
    """Its answer on stdout."""
    path = shutil.which("grpcurl")
    if path is None:
        pytest.skip(
            "grpcurl is not on PATH: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"
        )
    command = [path, "-plaintext", "-d", json.dumps(request), router.grpc_address, method]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def buf_curl(router: RunningRouter, method: str, request: dict[str, Any]) -> str:
    """Its answer on stdout."""
    if not BUF.exists():
        pytest.skip("buf is not in the environment: pip install -e '.[dev]'")
    command = [
        str(BUF),
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--data",
        json.dumps(request),
        f"http://{router.grpc_address}/{method}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents that follow one another, with the names of fields as in the protos.

    Protobuf allows `taskId` and `task_id` alike, and the tools differ in what they print.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_named_as_in_protos)
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def _named_as_in_protos(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name): value
        for name, value in pairs
    }


@pytest.mark.parametrize("tool", [grpcurl, buf_curl])
def test_a_stranger_s_tool_does_the_main_job(
    router: RunningRouter, tool: Callable[[RunningRouter, str, dict[str, Any]], str]
) -> None:
    def call(method: str, **request: Any) -> list[dict[str, Any]]:
        return list(documents(tool(router, f"llmrouter.v1.{method}", request)))

    [page] = call("CatalogService/SearchCatalog", search="tiny")
    [registered] = call("RegistrationService/RegisterModel", repo=REPO, file=FILE)
    with FakeAgent(router.call.agent) as agent:
        [started] = call("DownloadService/StartDownload", modelName=NAME, target="ORDER_TARGET_ALL")
        task_id = started["order"]["tasks"][0]["task_id"]
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        watched = call("DownloadService/WatchTasks", taskIds=[task_id])

    assert page["repos"][0]["repo"] == REPO
    assert registered["model"]["model_name"] == NAME
    assert watched[-1]["task"]["state"] == "TASK_STATE_COMPLETED"
