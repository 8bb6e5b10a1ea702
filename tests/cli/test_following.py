"""Following tasks where there is no terminal, over restarts, to every kind of end."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from protos.llmrouter.v1 import download_pb2
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter, Refusal
from tests.cli.samples import (
    CANCELLED,
    COMPLETED,
    DOWNLOADING,
    GB,
    MODEL,
    PENDING,
    VERIFYING,
    completed,
    failed,
    moving,
    order,
    task,
)
from tests.cli.terminal import Terminal
from tests.support import eventually

_PROJECT = Path(__file__).parents[2]


def _ordered(router: FakeRouter, *tasks: download_pb2.Task) -> None:
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=order(*tasks))


def test_a_download_is_followed_until_every_task_is_completed(router: FakeRouter, cli: Cli) -> None:
    _ordered(router, task(1, PENDING), task(2, PENDING))
    router.watch = [[moving(1, GB, 9, 9), completed(2), task(1, VERIFYING, 2 * GB), completed(1)]]

    result = cli("model", "download", MODEL, "--all")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "node-1: pending",
        "node-2: pending",
        "node-1: downloading, 50% (1.0 / 2.0 GB), 9 B/s, 9s left",
        "node-2: completed",
        "node-1: verifying",
        "node-1: completed",
        "2 of 2 completed; bytes from hub 4.0 GB",
    ]
    assert router.requests[1] == download_pb2.WatchTasksRequest(task_ids=["t-1", "t-2"])


def test_there_is_at_most_one_line_for_each_tenth(router: FakeRouter, cli: Cli) -> None:
    _ordered(router, task())
    steps = [moving(1, 2 * GB * share // 1000, 9, 9) for share in range(1000)]
    router.watch = [[*steps, completed()]]

    result = cli("model", "download", MODEL, "--all")

    assert len([line for line in result.stderr.splitlines() if "downloading" in line]) == 10


def test_json_of_a_download_is_its_end_alone_on_stdout(router: FakeRouter, cli: Cli) -> None:
    _ordered(router, task())
    router.watch = [[completed()]]

    said = json.loads(cli("model", "download", MODEL, "--all", "--format", "json").stdout)

    assert said["task_ids"] == ["t-1"]
    assert said["tasks"][0]["status"] == "completed"


def test_a_quiet_download_prints_its_tasks_and_nothing_else(router: FakeRouter, cli: Cli) -> None:
    _ordered(router, task())
    router.watch = [[completed()]]

    result = cli("model", "download", MODEL, "--all", "-q")

    assert result.output == "t-1\n"


def test_a_failed_task_says_why_and_what_to_do_and_the_exit_code_tells_it(
    router: FakeRouter, cli: Cli
) -> None:
    _ordered(router, task(1), task(2))
    router.watch = [[completed(1), failed(2)]]

    result = cli("model", "download", MODEL, "--all")

    assert result.exit_code == 1
    assert result.stderr.endswith(
        "1 of 2 completed; bytes from hub 2.0 GB\n"
        "Error: node-2: the file's SHA-256 is not the registered one (digest_mismatch)\n"
        "Next:  llm-router task retry t-2\n"
    )


def test_a_cancelled_task_is_not_a_success(router: FakeRouter, cli: Cli) -> None:
    router.watch = [[task(1, CANCELLED)]]

    result = cli("task", "watch", "t-1")

    assert result.exit_code == 1
    assert "node-1: cancelled" in result.stderr


def test_a_retried_task_is_followed_to_the_end_of_its_next_attempt(
    router: FakeRouter, cli: Cli
) -> None:
    router.watch = [[failed(1), task(1, DOWNLOADING, attempt=2)], [task(1, COMPLETED, attempt=2)]]

    result = cli("task", "watch", "t-1")

    assert result.exit_code == 0
    assert "downloading, attempt 2" in result.stderr


def test_all_tasks_of_an_order_can_be_watched(router: FakeRouter, cli: Cli) -> None:
    router.answers["GetOrder"] = download_pb2.GetOrderResponse(order=order(task(1), task(2)))
    router.watch = [[completed(1), completed(2)]]

    assert cli("task", "watch", "--order", "o-1").exit_code == 0
    assert router.requests[1] == download_pb2.WatchTasksRequest(task_ids=["t-1", "t-2"])


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_watch_goes_on_after_a_break(router: FakeRouter, cli: Cli, code: grpc.StatusCode) -> None:
    def break_off() -> None:
        raise Refusal(code, "going away")

    router.watch = [[task(1, DOWNLOADING), break_off], [completed(1)]]

    result = cli("task", "watch", "t-1")

    assert result.exit_code == 0
    said = result.stderr
    assert said.index("the router is away") < said.index("the router is back")


def test_a_watch_that_ends_too_early_is_taken_up_again(router: FakeRouter, cli: Cli) -> None:
    router.watch = [[task(1, DOWNLOADING)], [completed(1)]]

    assert cli("task", "watch", "t-1").exit_code == 0


def test_a_watch_survives_a_router_that_stops_and_starts_again(
    router: FakeRouter, cli: Cli
) -> None:
    broken = threading.Event()

    def stop_and_start() -> None:
        router.stop()
        broken.set()
        router.start()

    restart = threading.Thread(target=stop_and_start)
    router.watch = [
        [moving(1, GB, 1, 1), restart.start, lambda: broken.wait(10)],
        [completed(1)],
    ]

    result = cli("task", "watch", "t-1")

    restart.join()
    assert result.exit_code == 0
    assert "the router is back" in result.stderr


def test_a_silent_watch_over_a_restart_knows_that_the_router_is_back(router: FakeRouter) -> None:
    watching, over = threading.Event(), threading.Event()
    router.watch = [[watching.set, lambda: over.wait(60)] for _ in range(2)]

    with Terminal(["task", "watch"], router.address, columns=80, lines=24) as terminal:
        assert watching.wait(60)
        eventually(lambda: "waiting for tasks" in terminal.text())
        over.set()
        router.stop()
        eventually(lambda: "the router is away" in terminal.text())
        over.clear()
        watching.clear()
        router.start()
        assert watching.wait(60)
        eventually(lambda: "the router is away" not in terminal.text())
        over.set()


def test_a_router_that_stays_away_ends_the_watch_with_the_way_back(
    router: FakeRouter, cli: Cli
) -> None:
    _ordered(router, task(1))
    stop = threading.Thread(target=router.stop)
    router.watch = [[task(1, DOWNLOADING), stop.start, lambda: stop.join(10)]]

    result = cli("model", "download", MODEL, "--all", "--wait", "0.3")

    assert result.exit_code == 5
    assert "the nodes go on without it; come back with: llm-router task watch t-1" in result.stderr


def test_a_watch_of_an_unknown_task_ends_at_once(router: FakeRouter, cli: Cli) -> None:
    def unknown() -> None:
        raise Refusal(grpc.StatusCode.NOT_FOUND, 'task "t-9" is not known', "TASK_NOT_FOUND")

    router.watch = [[unknown]]

    assert cli("task", "watch", "t-9").exit_code == 3


def test_a_watch_without_a_router_fails_at_once(router: FakeRouter, cli: Cli) -> None:
    router.stop()

    result = cli("task", "watch", "t-1")

    assert result.exit_code == 5
    assert "connection refused" in result.stderr


def test_an_order_whose_answer_was_lost_can_be_repeated_safely(
    router: FakeRouter, cli: Cli
) -> None:
    router.stop()

    result = cli("model", "download", MODEL, "--all", "--request-id", "r-7")

    assert result.exit_code == 5
    assert "--request-id r-7" in result.stderr


@pytest.mark.parametrize(
    ("count", "back"),
    [(2, "llm-router task watch t-1 t-2"), (20, "llm-router task watch --order o-1")],
)
def test_ctrl_c_detaches_cancels_nothing_and_says_how_to_come_back(
    router: FakeRouter, count: int, back: str
) -> None:
    tasks = [task(number) for number in range(1, count + 1)]
    _ordered(router, *tasks)
    watching, over = threading.Event(), threading.Event()
    router.watch = [[moving(1, GB, 1, 1), watching.set, lambda: over.wait(60)]]

    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "model", "download", MODEL, "--all"],
        env=os.environ | {"LLM_ROUTER_ADDRESS": router.address},
        cwd=_PROJECT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.wait(60)
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    over.set()

    assert line
    assert process.returncode == 130
    assert rest.endswith(f"Detached; nothing is cancelled. Come back with: {back}\n")
    assert not any("Cancel" in type(request).__name__ for request in router.requests)
