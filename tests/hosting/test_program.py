"""`llm-router-hub` as a process: flags, ready file, logs, stopping."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from click.testing import CliRunner

from router.hosting.__main__ import main
from tests.fakes.hub import make_repo
from tests.hosting.conftest import MODEL, REPO, Models, http
from tests.support import eventually


class Program:
    """A started hub process, its ready file, and its log."""

    def __init__(self, work: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.ready_file = work / "ready.json"
        self._log = work / "log.jsonl"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "router.hosting", *arguments),
                    *("--ready-file", str(self.ready_file), "--log-format", "json"),
                ],
                stderr=log,
                stdout=subprocess.PIPE,
                env={**os.environ, **environment},
            )

    @property
    def ready(self) -> dict[str, Any]:
        """What the ready file says, once it is there."""
        eventually(lambda: self.ready_file.exists() or self.process.poll() is not None)
        said: dict[str, Any] = json.loads(self.ready_file.read_text())
        return said

    @property
    def url(self) -> str:
        return str(self.ready["http"])

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == "request"]

    def terminate(self) -> int:
        """Asks it to stop; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


class Start(Protocol):
    """Starts the program with these arguments and this additional environment."""

    def __call__(self, *arguments: str, **environment: str) -> Program:
        """Returns at once."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Program] = []

    def run(*arguments: str, **environment: str) -> Program:
        started.append(Program(tmp_path, list(arguments), environment))
        return started[-1]

    yield run
    for program in started:
        program.process.kill()
        program.process.communicate()


def test_the_hub_says_where_it_serves_and_stops_cleanly(models: Models, start: Start) -> None:
    program = start(str(models.folder), "--port", "0")

    ready = program.ready
    listed = http.get(f"{program.url}/api/models").json()
    code = program.terminate()

    assert ready["pid"] == program.process.pid
    assert ready.keys() == {"pid", "version", "http"}
    assert [model["id"] for model in listed] == [REPO]
    assert code == 0
    assert not program.ready_file.exists()


def test_the_log_shows_which_bytes_went_out(models: Models, start: Start) -> None:
    program = start(str(models.folder), "--port", "0", "--signed-urls")
    url = f"{program.url}/{REPO}/resolve/main/{MODEL}"

    location = http.get(url).headers["Location"]
    http.get(location, headers={"Range": "bytes=100-299", "Authorization": "Bearer hf_secret1"})
    eventually(lambda: len(program.requests()) == 2)
    redirect, part = program.requests()

    assert (redirect["method"], redirect["status"]) == ("GET", 302)
    assert (part["status"], part["range"], part["bytes_sent"]) == (206, "bytes=100-299", 200)
    assert part["complete"] is True
    assert part["path"].startswith(f"/lfs/{REPO}/")
    assert "Signature" not in part["path"]
    assert "secret1" not in json.dumps(program.log)


def test_flags_beat_the_environment_and_that_the_config_file(
    models: Models, tmp_path: Path, start: Start
) -> None:
    config = tmp_path / "hub.toml"
    config.write_text('port = 1\nurl-lifetime = 5\nsigned-urls = true\nlog-level = "debug"\n')
    program = start(
        *(str(models.folder), "--port", "0", "--config", str(config)),
        LLM_ROUTER_HUB_PORT="2",
        LLM_ROUTER_HUB_URL_LIFETIME="7000",
    )

    before = time.time()
    location = http.get(f"{program.url}/{REPO}/resolve/main/{MODEL}").headers["Location"]

    assert int(httpx.URL(location).params["Expires"]) - before > 6000


def test_a_download_under_way_is_finished_before_stopping(models: Models, start: Start) -> None:
    content = make_repo(models.folder, "acme/large", {"large.gguf": 3_000_000})["large.gguf"]
    program = start(str(models.folder), "--port", "0", "--max-rate", "3MB")

    with http.stream("GET", f"{program.url}/acme/large/resolve/main/large.gguf") as response:
        parts = response.iter_raw(1000)
        body = next(parts)
        program.process.send_signal(signal.SIGTERM)
        body += b"".join(parts)

    assert body == content
    assert program.process.wait(15) == 0


def test_a_client_that_does_not_read_cannot_prevent_the_stop(models: Models, start: Start) -> None:
    make_repo(models.folder, "acme/large", {"large.gguf": 20_000_000})
    program = start(str(models.folder), "--port", "0")

    with http.stream("GET", f"{program.url}/acme/large/resolve/main/large.gguf") as response:
        parts = response.iter_raw(1000)
        next(parts)
        code = program.terminate()

    assert code == 0


def test_a_folder_that_others_can_reach_must_be_asked_for(models: Models, start: Start) -> None:
    refused = CliRunner().invoke(main, [str(models.folder), "--host", "0.0.0.0"])
    program = start(str(models.folder), "--host", "0.0.0.0", "--port", "0", "--insecure")

    port = httpx.URL(program.url).port
    answer = http.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "models.example"})

    assert refused.exit_code == 2
    assert "--insecure" in refused.output
    assert answer.status_code == 200
    warnings = [line["event"] for line in program.log if line["level"] == "warning"]
    assert any("INSECURE" in warning for warning in warnings)


def test_a_port_in_use_is_said_in_one_line(models: Models, start: Start) -> None:
    port = httpx.URL(start(str(models.folder), "--port", "0").url).port

    result = CliRunner().invoke(main, [str(models.folder), "--port", str(port)])

    assert result.exit_code == 1
    assert f"cannot serve {models.folder} on 127.0.0.1:{port}" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["absent"],
        [".", "--port", "70000"],
        [".", "--url-lifetime", "0"],
        [".", "--max-rate=-1"],
    ],
)
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2
