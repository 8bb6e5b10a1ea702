"""The whole story on one machine: a hub, a router, three agents, and two models onto all of them.

`python -m deploy.demo.demo` starts the installed programs on free ports, does the main job through
the real CLI, checks the SHA-256 of every file on every node, and ends everything it started. Its
exit code is 0 only if everything held. With `KEEP=1` in the environment everything is left running
until Ctrl-C. Needs no root and no internet, and 1.5 GiB of disk for as long as it runs.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.demo.models import BIG, MIB, SHARDED, make_catalog
from deploy.demo.processes import Daemons, DaemonTrouble, end_with_parent
from protos import names

CHECKOUT = Path(__file__).parents[2]
NODES = ("node-1", "node-2", "node-3")
_NEEDED_BYTES = 1536 * MIB
_COMMAND_SECONDS = 900
_NODES_ONLINE_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoFailed(Exception):
    """Something did not hold; the message says what."""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One file as the hub serves it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WantedModel:
    """One model that every node shall hold."""

    repo: str
    quantization: str
    files: tuple[WantedFile, ...]

    @property
    def alias(self) -> str:
        """How a person names it."""
        return f"{self.repo}:{self.quantization}"

    @property
    def name(self) -> str:
        """Its id."""
        return names.model_name(self.repo, self.files[0].path)


def wanted_model(catalog: Path, repo: str, quantization: str) -> WantedModel:
    """Reads what the folder of the hub really holds of one model."""
    root = catalog / repo
    files = [
        WantedFile(path.relative_to(root).as_posix(), path.stat().st_size, sha256_of(path))
        for path in sorted(root.rglob(f"*-{quantization}*.gguf"))
    ]
    return WantedModel(repo, quantization, tuple(files))


def sha256_of(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problems_on_node(models_dir: Path, model: WantedModel) -> dict[str, str]:
    """Reads every file of the model through the node's Hugging Face cache, whole.

    Returns what is wrong by path; nothing when all bytes are those of the hub.
    """
    root = models_dir / f"models--{model.repo.replace('/', '--')}"
    try:
        commit = (root / "refs" / "main").read_text().strip()
    except OSError:
        return {file.path: "not in the cache" for file in model.files}
    problems = {}
    for file in model.files:
        path = root / "snapshots" / commit / file.path
        if not path.is_file():
            problems[file.path] = "missing"
        elif sha256_of(path) != file.sha256:
            problems[file.path] = "wrong bytes"
    return problems


class Demo:
    """One run of the story."""

    def __init__(
        self, scripts: Path, folder: Path, console: Console, *, big_bytes: int | None = None
    ) -> None:
        """`scripts` holds the installed programs; everything is written below `folder`.

        `big_bytes` replaces the size of the largest models.
        """
        self._scripts = scripts
        self._folder = folder
        self._console = console
        self._big_bytes = big_bytes
        self._environment = _environment(folder)
        self._http = self._grpc = self._hub = ""

    def run(self, *, keep: bool) -> None:
        """Tells the story; with `keep` waits for Ctrl-C at its end.

        Raises `DemoFailed` (after saying why on the console) when anything did not hold. Every
        process is gone afterwards, however it ends.
        """
        with Daemons(self._folder, self._environment) as daemons:
            try:
                started = time.monotonic()
                models = self._make_models()
                self._start(daemons)
                self._distribute(models)
                self._show_models(models)
                self._verify(models)
                if dead := daemons.dead():
                    raise DemoFailed(f"{dead[0].name} ended by itself")
                self._sum_up(models, time.monotonic() - started)
                if keep:
                    self._keep_running()
            except (DemoFailed, DaemonTrouble) as failure:
                self._show_logs(daemons)
                raise DemoFailed(str(failure)) from failure
            self._step("End everything")
            if troubles := daemons.stop():
                self._show_logs(daemons)
                raise DemoFailed("; ".join(troubles))
            self._console.print("Hub, router and agents stopped with exit code 0.")

    def _make_models(self) -> list[WantedModel]:
        self._step("Make a catalog of small, real GGUF models")
        catalog = self._folder / "catalog"
        repos = make_catalog(catalog, big_bytes=self._big_bytes)
        files = [path for path in catalog.rglob("*.gguf") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        self._console.print(f"{len(repos)} repositories, {len(files)} GGUF files, {_size(size)}")
        return [wanted_model(catalog, BIG, "F16"), wanted_model(catalog, SHARDED, "Q8_0")]

    def _start(self, daemons: Daemons) -> None:
        self._step("Start a hub, a router and three agents")
        hub = daemons.start(
            "hub", [self._script("llm-router-hub"), "--port", "0", str(self._folder / "catalog")]
        )
        (self._hub,) = hub.addresses("http")
        self._console.print(f"hub     http://{self._hub}")
        router = daemons.start(
            "router",
            [
                *(self._script("llm-router-server"), "--http-port", "0", "--grpc-port", "0"),
                *("--data-dir", str(self._folder / "router" / "data")),
                *("--hub-url", f"http://{self._hub}"),
            ],
        )
        self._http, self._grpc = router.addresses("http", "grpc")
        self._environment["LLM_ROUTER_ADDRESS"] = self._grpc
        self._console.print(f"router  http://{self._http}/dashboard, gRPC {self._grpc}")
        agents = [
            daemons.start(
                node,
                [
                    *(self._script("llm-router-agent"), "--router", self._grpc, "--name", node),
                    *("--data-dir", str(self._folder / node / "data")),
                    *("--models-dir", str(self._models_dir(node)), "--reserve", "0"),
                ],
            )
            for node in NODES
        ]
        for agent in agents:
            agent.addresses()
        deadline = time.monotonic() + _NODES_ONLINE_SECONDS
        while (online := self._nodes_online()) < len(NODES):
            if dead := daemons.dead():
                raise DemoFailed(f"{dead[0].name} ended with code {dead[0].exit_code}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{online} of {len(NODES)} agents reached the router")
        self._console.print(f"agents  {', '.join(NODES)}")

    def _nodes_online(self) -> int:
        command = [self._script("llm-router"), "node", "list", "-q"]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=_COMMAND_SECONDS
        )
        if done.returncode:
            raise DemoFailed(f"llm-router node list failed: {done.stderr.strip()}")
        return len(done.stdout.split())

    def _distribute(self, models: list[WantedModel]) -> None:
        self._step("Browse the catalog")
        self._cli("model", "list", "--search", "llama")
        self._step("Register two models: one large file, and one in three shards")
        for model in models:
            self._cli("model", "add", model.alias)
        self._step("Order them onto all nodes")
        for model in models:
            self._cli("model", "download", model.alias, "--all")
        self._step("Look at the fleet")
        self._cli("task", "list")
        self._cli("node", "list")
        self._cli("status")

    def _show_models(self, models: list[WantedModel]) -> None:
        self._step("Ask as an OpenAI client does")
        url = f"http://{self._http}/v1/models"
        if curl := shutil.which("curl"):
            self._console.print(f"\n[dim]$ curl -s {url}[/]", soft_wrap=True)
            done = subprocess.run(
                [curl, "-fsS", "--noproxy", "*", url],
                capture_output=True,
                text=True,
                timeout=60,
            )
            if done.returncode:
                raise DemoFailed(f"GET {url} failed: {done.stderr.strip()}")
            text = done.stdout
        else:
            self._console.print(f"(curl is not installed; Python asks for {url})")
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with direct.open(url, timeout=60) as response:
                    text = response.read().decode()
            except OSError as error:
                raise DemoFailed(f"GET {url} failed: {error}") from error
        self._console.print_json(text)
        ready = {entry["id"]: entry.get("ready") for entry in json.loads(text)["data"]}
        for model in models:
            if model.name not in ready:
                raise DemoFailed(f"/v1/models does not list {model.name}")
            if ready[model.name] is not True:
                raise DemoFailed(f"/v1/models says that no node holds {model.name}")

    def _verify(self, models: list[WantedModel]) -> None:
        self._step("Read every file on every node, and compare its SHA-256 with the hub's")
        table = Table("FILE", "SIZE", "SHA-256", *NODES, box=None, pad_edge=False)
        problems = []
        for model in models:
            found = {node: problems_on_node(self._models_dir(node), model) for node in NODES}
            for file in model.files:
                verdicts = [found[node].get(file.path) for node in NODES]
                cells = [
                    f"[red]{verdict}[/]" if verdict else "[green]same[/]" for verdict in verdicts
                ]
                name = escape(file.path.rpartition("/")[2])
                table.add_row(name, _size(file.size_bytes), file.sha256[:8], *cells)
            problems += [
                f"{path} on {node}: {problem}"
                for node, by_path in found.items()
                for path, problem in by_path.items()
            ]
        self._console.print(table)
        if problems:
            raise DemoFailed("; ".join(problems))

    def _sum_up(self, models: list[WantedModel], seconds: float) -> None:
        files = [file for model in models for file in model.files]
        size = sum(file.size_bytes for file in files) * len(NODES)
        self._console.print(
            f"\n[bold green]Everything held:[/] {len(models)} models on {len(NODES)} nodes, "
            f"{len(files) * len(NODES)} files, {_size(size)} verified in {seconds:.0f} s."
        )

    def _keep_running(self) -> None:
        try:
            self._print_addresses()
            signal.pause()
        except KeyboardInterrupt:
            self._console.print()

    def _print_addresses(self) -> None:
        folder, scripts = os.path.relpath(self._folder), os.path.relpath(self._scripts)
        cli = f"{scripts}/llm-router"
        table = Table.grid(padding=(0, 2))
        table.add_row("dashboard", f"http://{self._http}/dashboard")
        table.add_row("REST", f"http://{self._http}/v1/models, http://{self._http}/docs")
        table.add_row("gRPC", self._grpc)
        table.add_row("hub", f"http://{self._hub}")
        table.add_row("files", folder)
        self._step("Everything is left running; Ctrl-C ends it")
        self._console.print(table)
        self._console.print("\nTry, in another terminal:", style="bold")
        for line in (
            f"export LLM_ROUTER_ADDRESS={self._grpc}",
            f"{cli} model list --search stories",
            f"{cli} model add story-lab/bedtime-stories-GGUF:Q8_0",
            f"{cli} model download story-lab/bedtime-stories-GGUF:Q8_0 --node {NODES[0]}",
            f"{cli} node show {NODES[0]}",
            f"curl -s http://{self._http}/v1/models",
            f"grpcurl -plaintext {self._grpc} list",
            f"HF_ENDPOINT=http://{self._hub} {scripts}/hf download {BIG} README.md "
            f"--local-dir {folder}/downloads",
        ):
            self._console.print(f"  {line}", soft_wrap=True, markup=False)

    def _cli(self, *arguments: str) -> None:
        """Runs one command of the CLI with its output on this terminal, so that bars are live."""
        line = " ".join(("llm-router", *arguments))
        self._console.print(f"\n[dim]$ {escape(line)}[/]", soft_wrap=True)
        self._console.file.flush()
        command = [self._script("llm-router"), *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                timeout=_COMMAND_SECONDS,
                preexec_fn=end_with_parent,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{line} did not end within {_COMMAND_SECONDS} s") from None
        if done.returncode:
            raise DemoFailed(f"{line} ended with code {done.returncode}")

    def _script(self, name: str) -> str:
        path = self._scripts / name
        if not path.exists():
            raise DemoFailed(f"{path} is missing: install the project first (make demo does)")
        return str(path)

    def _models_dir(self, node: str) -> Path:
        return self._folder / node / "models"

    def _step(self, title: str) -> None:
        self._console.print(f"\n[bold cyan]▸ {title}[/]")

    def _show_logs(self, daemons: Daemons) -> None:
        """The end of the log of each daemon that ended badly, or of all when none did."""
        for daemon in [daemon for daemon in daemons if daemon.exit_code] or daemons:
            ended = "still ran" if daemon.exit_code is None else f"ended with {daemon.exit_code}"
            self._console.print(f"\n[bold red]{daemon.name} {ended}; its last lines:[/]")
            for line in daemon.last_lines():
                self._console.print(f"  {line}", markup=False, soft_wrap=True)


def _environment(folder: Path) -> dict[str, str]:
    """The environment of this process without what would lead a program of the demo elsewhere."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LLM_ROUTER_", "HF_", "HUGGING"))
    }
    return kept | {
        "HF_HOME": str(folder / "hf-home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
    }


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"  # decimal, as the CLI shows sizes


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is gone afterwards, and its parent too when that is empty then."""
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(parent.iterdir()):
            parent.rmdir()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the demo in good order; from then on signals are ignored until all is cleaned up."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(
    *,
    keep: bool = False,
    parent: Path = CHECKOUT / ".demo",
    scripts: Path = Path(sys.executable).parent,
    big_bytes: int | None = None,
) -> int:
    """Runs the demo; returns the exit code: 0 all held, 1 something did not, 130 interrupted."""
    console = Console(highlight=False)
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN or each is signal.SIGINT:
            signal.signal(each, _interrupt)
    try:
        with _own_folder(parent) as folder:
            if big_bytes is None and shutil.disk_usage(folder).free < _NEEDED_BYTES:
                raise DemoFailed(f"{parent} has less than {_size(_NEEDED_BYTES)} of free disk")
            Demo(scripts, folder, console, big_bytes=big_bytes).run(keep=keep)
    except DemoFailed as failure:
        console.print(f"\n[bold red]The demo failed:[/] {escape(str(failure))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything that was started is ended.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(keep=os.environ.get("KEEP") == "1"))
