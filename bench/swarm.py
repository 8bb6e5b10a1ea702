"""One model onto a whole fleet over one limited line: our swarm beside what people do today.

    python -m bench.swarm [--nodes 8] [--size-mib 256] [--line-mb 20] [--only WORD …]
                          [--faults] [--link-mbit N] [--dir FOLDER] [--json] [--plot FILE.svg]

Everything runs on this machine. The source is `llm-router-hub`, limited to `--line-mb` MB/s for all
its clients together; it counts what it serves. Each contestant brings the same file into one folder
for each node, in the same run: real agents with a router; `hf download` and `curl` on each node; a
libtorrent swarm with the source as its web seed (`pip install llm-router[bench]`). With `--faults`
also ours with two nodes killed and one that sends at 1 MB/s, and with the router killed for 10 s.
With `--link-mbit` every node of ours and of `curl` is in a network namespace of its own behind a
link that carries so much each way (root). What is not installed is left out, and said.

Per contestant: the time until the last living node has the whole file (ours, libtorrent: verified)
and the bytes that the source served, both as multiples of the least that is possible (size ÷ line,
size); processor seconds of a node and, for ours, of the router. `hf` and `curl` can only come to
about as many multiples as there are nodes: they get a file of an eighth of the size.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from bench.links import HERE, Links, Place, shaped_links
from bench.plot import Bar, write_bars
from bench.sources import File, make_file
from deploy.demo.processes import Daemon, Daemons, end_with_parent

_SCRIPTS = Path(sys.executable).parent
_REPO = "bench/fleet"
_NAME = "model-Q4_K_M.gguf"
_LOOK_SECONDS = 0.05
_SETTLE_SECONDS = 0.5
_LOOK_AT_TASKS_SECONDS = 1.0  # rarely: the router has better to do
_LONGEST = 20.0  # multiples of size ÷ line; then a contestant has failed
_TORRENT_PIECE = 1 << 20
_ROUTER_AWAY_SECONDS = 10.0
_SLOW_UPLOAD = "1MB"


@dataclass(frozen=True)
class Line:
    """The source that all share."""

    url: str
    rate: int  # bytes per second
    file: File
    log: Path

    @property
    def host(self) -> str:
        """Of the source."""
        return str(httpx.URL(self.url).host)

    @property
    def least_seconds(self) -> float:
        """To bring the file over the line once."""
        return self.file.size / self.rate

    @property
    def resolve_url(self) -> str:
        """The file's address."""
        return f"{self.url}/{_REPO}/resolve/main/{_NAME}"

    def served(self) -> int:
        """Bytes of the file that were sent, once the last request has been written down."""
        served = -1
        while served != (now := self._written_down()):
            served = now
            time.sleep(_SETTLE_SECONDS)
        return served

    def _written_down(self) -> int:
        requests = (json.loads(line) for line in self.log.read_text().splitlines())
        return sum(
            request["bytes_sent"]
            for request in requests
            if request.get("event") == "request" and request["path"].endswith(_NAME)
        )


@dataclass(frozen=True)
class Run:
    """What one contestant took; processor seconds for each node, and of the router."""

    seconds: float
    node_cpu_seconds: float
    router_cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """One contestant; times and bytes as multiples of the least possible."""

    contestant: str
    nodes: int
    size_mib: float
    seconds: float
    time_ratio: float
    source_ratio: float
    node_cpu_s_per_gib: float
    router_cpu_seconds: float


@dataclass(frozen=True)
class Trouble:
    """What happens on the way: nodes killed at a third, nodes that send slowly, router gone."""

    killed: int = 0
    slow: int = 0
    router_away: bool = False


Contestant = Callable[[Line, Path, Sequence[Place]], Run]


def swarm(trouble: Trouble) -> Contestant:
    """Real agents under a real router."""

    def run(line: Line, folder: Path, nodes: Sequence[Place]) -> Run:
        with Daemons(folder, _environment()) as daemons:
            return _Fleet(line, folder, daemons, nodes, trouble).run()

    return run


class _Fleet:
    def __init__(
        self,
        line: Line,
        folder: Path,
        daemons: Daemons,
        nodes: Sequence[Place],
        trouble: Trouble,
    ) -> None:
        self._line = line
        self._folder = folder
        self._daemons = daemons
        self._trouble = trouble
        self._ports = ("0", "0")
        self._router_cpu = 0.0
        self._router = self._start_router()
        self._agents = [self._start_agent(number, place) for number, place in enumerate(nodes)]
        for agent in self._agents:
            agent.addresses("peer")

    def run(self) -> Run:
        """Orders the model onto all nodes; returns when every living one has it."""
        trouble, least = self._trouble, self._line.least_seconds
        victims = self._agents[: trouble.killed]
        survivors = self._agents[trouble.killed :]
        with self._client() as client:
            while _online(client) < len(self._agents):
                time.sleep(_LOOK_SECONDS)
            body = {"repo": _REPO, "filename": _NAME}
            model = client.post("/api/models/register", json=body).raise_for_status().json()
            wish = {"model_name": model["name"], "target": "all"}
            before = _cpu_seconds(survivors)
            router_before = _cpu_seconds([self._router])
            began = time.time()
            client.post("/api/models/download", json=wish).raise_for_status()
        if trouble.killed or trouble.router_away:
            time.sleep(least / 3)
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        if trouble.router_away:
            self._router_cpu += _cpu_seconds([self._router])
            os.kill(self._router.pid, signal.SIGKILL)
            time.sleep(_ROUTER_AWAY_SECONDS)
            self._router = self._start_router()
            router_before = 0.0
        with self._client() as client:
            deadline = time.monotonic() + _LONGEST * least
            while len(completed := _completed(client)) < len(survivors):
                if time.monotonic() > deadline:
                    raise SystemExit(f"not done after {_LONGEST} times the least")
                time.sleep(_LOOK_AT_TASKS_SECONDS)
        seconds = max(_moment(task["completed_at"]) for task in completed) - began
        router_cpu = self._router_cpu + _cpu_seconds([self._router]) - router_before
        node_cpu = (_cpu_seconds(survivors) - before) / len(survivors)
        return Run(seconds, node_cpu, router_cpu)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self._line.host}:{self._ports[0]}", timeout=30)

    def _start_router(self) -> Daemon:
        http, grpc = self._ports
        router = self._daemons.start(
            f"router-{time.monotonic_ns()}",
            [
                str(_SCRIPTS / "llm-router-server"), "--http-port", http, "--grpc-port", grpc,
                "--data-dir", str(self._folder / "router-data"), "--hub-url", self._line.url,
                "--host", self._line.host, "--insecure",
            ],
        )  # fmt: skip
        addresses = router.addresses("http", "grpc")
        self._ports = (addresses[0].rpartition(":")[2], addresses[1].rpartition(":")[2])
        return router

    def _start_agent(self, number: int, place: Place) -> Daemon:
        name = f"node-{number}"
        is_slow = self._trouble.killed <= number < self._trouble.killed + self._trouble.slow
        return self._daemons.start(
            name,
            [
                *place.prefix,
                str(_SCRIPTS / "llm-router-agent"),
                "--router", f"{self._line.host}:{self._ports[1]}",
                "--peer-host", place.address, "--insecure", "--name", name, "--reserve", "0",
                "--data-dir", str(self._folder / f"{name}-data"),
                "--models-dir", str(self._folder / f"{name}-models"),
                *(("--max-upload-rate", _SLOW_UPLOAD) if is_slow else ()),
            ],
        )  # fmt: skip


def each(command: Callable[[Line, Path], list[str]]) -> Contestant:
    """A program on every node at the same time, each for itself."""

    def run(line: Line, folder: Path, nodes: Sequence[Place]) -> Run:
        began = time.monotonic()
        running = []
        for number, place in enumerate(nodes):
            own = folder / f"node-{number}"
            own.mkdir(parents=True)
            with (own / "log.txt").open("wb") as log:
                running.append(
                    subprocess.Popen([*place.prefix, *command(line, own)], stdout=log, stderr=log)
                )
        cpu = 0.0
        for process in running:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if status:
                log_of = folder / f"node-{running.index(process)}" / "log.txt"
                raise SystemExit(f"{process.args!r} failed: {log_of.read_text()[-500:]}")
            cpu += usage.ru_utime + usage.ru_stime
        return Run(time.monotonic() - began, cpu / len(nodes))

    return run


def curl(line: Line, folder: Path) -> list[str]:
    """One connection."""
    return ["curl", "-sS", "--fail", "-L", "-o", str(folder / _NAME), line.resolve_url]


def hf(line: Line, folder: Path) -> list[str]:
    """The Hub's own command."""
    return [
        "env", f"HF_ENDPOINT={line.url}", f"HF_HOME={folder}", "HF_HUB_DISABLE_TELEMETRY=1",
        "HF_HUB_DISABLE_PROGRESS_BARS=1", str(_SCRIPTS / "hf"), "download", _REPO, _NAME,
    ]  # fmt: skip


def torrent(line: Line, folder: Path, nodes: Sequence[Place]) -> Run:
    """On every node one of libtorrent, all knowing one another, with the source as web seed."""
    import libtorrent

    files = libtorrent.list_files(str(line.file.path))
    made = libtorrent.create_torrent(files, _TORRENT_PIECE, libtorrent.create_torrent.v1_only)
    made.add_url_seed(line.resolve_url)
    libtorrent.set_piece_hashes(made, str(line.file.path.parent))
    written = folder / "model.torrent"
    folder.mkdir(parents=True)
    written.write_bytes(libtorrent.bencode(made.generate()))
    running: list[subprocess.Popen[str]] = []
    try:
        for number in range(len(nodes)):
            own = folder / f"node-{number}"
            own.mkdir()
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "bench.torrent_node", str(written), str(own)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    preexec_fn=end_with_parent,
                )
            )
        ports = [_said(process) for process in running]
        before = sum(_cpu_of(process.pid) for process in running)
        began = time.monotonic()
        for process, own_port in zip(running, ports, strict=True):
            assert process.stdin is not None
            process.stdin.write(" ".join(port for port in ports if port != own_port) + "\n")
            process.stdin.flush()
        for process in running:
            _said(process)
        seconds = time.monotonic() - began
        cpu = (sum(_cpu_of(process.pid) for process in running) - before) / len(nodes)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return Run(seconds, cpu)


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit("a libtorrent node ended")
    return line


@contextmanager
def _fleet(count: int, link_mbit: float | None) -> Iterator[Links | None]:
    if link_mbit is None:
        yield Links(HERE.address, (HERE,) * count)
        return
    with shaped_links(count, link_mbit) as links:
        yield links


def contestants(
    words: Sequence[str], faults: bool, *, linked: bool
) -> list[tuple[str, Contestant, bool]]:
    """Name, how it runs, and whether it gets the whole file; says on stderr what is left out."""
    found: list[tuple[str, Contestant, bool]] = [("llm-router", swarm(Trouble()), True)]
    if faults:
        found += [
            ("llm-router, 2 killed, 1 slow", swarm(Trouble(killed=2, slow=1)), True),
            ("llm-router, router away 10 s", swarm(Trouble(router_away=True)), True),
        ]
    if importlib.util.find_spec("libtorrent") is None:
        print("libtorrent is left out: pip install 'llm-router[bench]'", file=sys.stderr)
    elif not linked:
        found.append(("libtorrent, web seed", torrent, True))
    for program, name, command in (("curl", "curl each", curl), ("hf", "hf download each", hf)):
        if shutil.which(program) or (_SCRIPTS / program).exists():
            found.append((name, each(command), False))
        else:
            print(f"{program} is left out: it is not installed", file=sys.stderr)
    return [entry for entry in found if not words or any(word in entry[0] for word in words)]


def measure(
    name: str,
    contestant: Contestant,
    folder: Path,
    nodes: Sequence[Place],
    size: int,
    rate: int,
    host: str,
) -> Result:
    """One contestant with a source of its own."""
    catalog = folder / "catalog"
    (catalog / _REPO).mkdir(parents=True)
    file = make_file(catalog / _REPO / _NAME, size)
    with Daemons(folder, _environment()) as daemons:
        hub = daemons.start(
            "hub",
            [
                str(_SCRIPTS / "llm-router-hub"), "--port", "0", "--log-format", "json",
                "--host", host, "--insecure", "--max-rate", str(rate), str(catalog),
            ],
        )  # fmt: skip
        line = Line("http://" + hub.addresses("http")[0], rate, file, hub.log)
        httpx.get(f"{line.url}/api/models/{_REPO}/tree/main", timeout=60)  # it hashes the file now
        run = contestant(line, folder / "fleet", nodes)
        served = line.served()
    shutil.rmtree(folder)
    return Result(
        name, len(nodes), size / 2**20, round(run.seconds, 2),
        round(run.seconds / line.least_seconds, 3), round(served / size, 3),
        round(run.node_cpu_seconds / (size / 2**30), 2), round(run.router_cpu_seconds, 2),
    )  # fmt: skip


def show(row: Result) -> None:
    """A line for a person."""
    print(
        f"{row.contestant:<30} {row.nodes:3} nodes {row.size_mib:6.0f} MiB  {row.seconds:7.2f} s  "
        f"{row.time_ratio:6.3f} x size/line  source {row.source_ratio:6.3f} x size  "
        f"{row.node_cpu_s_per_gib:6.2f} node CPU s/GiB  router {row.router_cpu_seconds:5.2f} s",
        flush=True,
    )


def plot(path: Path, results: Sequence[Result]) -> None:
    """Draws time and source bytes of every contestant."""

    def bar(row: Result, value: float) -> Bar:
        is_ours = row.contestant.startswith("llm-router")
        label = f"{row.contestant} ({row.nodes} nodes)"
        return Bar(label, value, value, value, f"{value:.2f}", is_ours)

    write_bars(
        path,
        "One model onto a fleet over one line",
        [
            ("Time until the last node has it ÷ (size ÷ line)",
             [bar(row, row.time_ratio) for row in results]),
            ("Bytes over the line ÷ size", [bar(row, row.source_ratio) for row in results]),
        ],
    )  # fmt: skip


def _environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("LLM_ROUTER_")}
    return own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _online(client: httpx.Client) -> int:
    nodes = client.get("/api/nodes").raise_for_status().json()["nodes"]
    return sum(node["status"] == "online" for node in nodes)


def _completed(client: httpx.Client) -> list[dict[str, str]]:
    tasks = client.get("/api/tasks").raise_for_status().json()["tasks"]
    if failed := [task for task in tasks if task["status"] == "failed"]:
        raise SystemExit(f"a task failed: {failed[0]['error']}")
    return [task for task in tasks if task["status"] == "completed"]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _cpu_seconds(daemons: Sequence[Daemon]) -> float:
    return sum(_cpu_of(daemon.pid) for daemon in daemons)


def _cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, action="append")
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--line-mb", type=float, default=20.0)
    parser.add_argument("--only", action="append", default=[], help="contestants with this word")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--link-mbit", type=float, metavar="N", help="shaped links (root)")
    parser.add_argument("--dir", type=Path, help="where everything lies; temporary if unset")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    rate = int(arguments.line_mb * 1e6)
    results = []
    competing = contestants(
        arguments.only, arguments.faults, linked=arguments.link_mbit is not None
    )
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        for count in arguments.nodes or [8]:
            with _fleet(count, arguments.link_mbit) as links:
                if links is None:
                    continue
                for number, (title, contestant, whole) in enumerate(competing):
                    size = (arguments.size_mib << 20) // (1 if whole else 8)
                    folder = Path(name) / f"{count}-{number}"
                    row = measure(title, contestant, folder, links.nodes, size, rate, links.middle)
                    results.append(row)
                    if not arguments.json:
                        show(row)
    if arguments.json:
        print(json.dumps([asdict(row) for row in results], indent=2))
    if arguments.plot:
        plot(arguments.plot, results)


if __name__ == "__main__":
    main()
