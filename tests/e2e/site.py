"""A whole site on one machine: hub, router and agents, each a process of its own."""

import json
import os
import signal
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import httpx

from deploy.demo.processes import Daemon, Daemons
from tests.support import eventually

SCRIPTS = Path(sysconfig.get_path("scripts"))
_FOREIGN = ("LLM_ROUTER_", "HF_", "HUGGING")


def environment() -> dict[str, str]:
    """The environment of this process without what would point the programs elsewhere."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    return own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class Site:
    """Processes below `folder`; `catalog` is the folder that the hub serves."""

    def __init__(self, folder: Path, daemons: Daemons) -> None:
        self.folder = folder
        self.catalog = folder / "catalog"
        self.catalog.mkdir()
        self._daemons = daemons
        self._starts = 0
        self._http_port = self._grpc_port = "0"
        self.client = httpx.Client(timeout=30)

    def start_hub(self, *flags: str) -> None:
        """Starts the hub; `hub_url` is where."""
        command = [str(SCRIPTS / "llm-router-hub"), "--port", "0", "--log-format", "json"]
        self.hub = self._daemons.start("hub", [*command, *flags, str(self.catalog)])
        self.hub_url = "http://" + self.hub.addresses("http")[0]

    def start_router(self) -> None:
        """Starts the router, the second time on the same ports and data."""
        self.router = self._start(
            "router",
            *("llm-router-server", "--http-port", self._http_port, "--grpc-port", self._grpc_port),
            *("--data-dir", str(self.folder / "router-data"), "--hub-url", self.hub_url),
        )
        http, self.grpc = self.router.addresses("http", "grpc")
        self._http_port, self._grpc_port = http.rpartition(":")[2], self.grpc.rpartition(":")[2]
        self.client.base_url = httpx.URL(f"http://{http}")

    def start_agent(self, name: str, *flags: str) -> Daemon:
        """Starts an agent, the second time on the same data."""
        agent = self._start(
            name,
            *("llm-router-agent", "--router", self.grpc, "--name", name, "--reserve", "0"),
            *("--data-dir", str(self.folder / f"{name}-data")),
            *("--models-dir", str(self.models_dir(name)), *flags),
        )
        agent.addresses()
        return agent

    def models_dir(self, name: str) -> Path:
        """Where an agent keeps models."""
        return self.folder / f"{name}-models"

    def cli(self, *arguments: str, expect: int = 0) -> str:
        """Runs the operator's command line; returns what it prints on stdout."""
        command = [str(SCRIPTS / "llm-router"), "--router", self.grpc, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment(), check=False
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def cli_json(self, *arguments: str) -> Any:
        """Runs the operator's command line; returns the JSON that it prints."""
        return json.loads(self.cli(*arguments, "--format", "json"))

    def get(self, path: str) -> Any:
        """The JSON of a REST answer."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def task(self, task_id: str) -> Any:
        """A task as REST shows it."""
        return self.get(f"/api/tasks/{task_id}")

    def wait_for_node(self, name: str, status: str = "online") -> None:
        """Waits until the router shows a node so."""
        eventually(
            lambda: (name, status) in {(n["name"], n["status"]) for n in self._nodes()},
            within_seconds=60,
        )

    def _nodes(self) -> Any:
        return self.get("/api/nodes")["nodes"]

    def bytes_served(self, filename: str) -> int:
        """How many bytes of a file the hub has sent, by its own log."""
        lines = self.hub.log.read_text().splitlines()
        requests = [json.loads(line) for line in lines if '"request"' in line]
        return sum(
            request["bytes_sent"]
            for request in requests
            if request["method"] == "GET" and request["path"].endswith(filename)
        )

    def _start(self, name: str, script: str, *flags: str) -> Daemon:
        self._starts += 1
        return self._daemons.start(f"{name}-{self._starts}", [str(SCRIPTS / script), *flags])


def kill(daemon: Daemon) -> None:
    """SIGKILL; returns when the process is gone."""
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: daemon.exit_code is not None)
