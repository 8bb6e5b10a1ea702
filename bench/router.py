"""The router's figures, with real processes: registrations, orders, progress, memory, updates.

    python -m bench.router [--big] [--json FILE]

`llm-router-server` and `llm-router-hub` run as they are installed; simulated agents in a process of
their own hold real streams to the router and claim to download. In the same run a bare grpc.aio
server (`bench.bare`) does the least that such a router could do: `x bare` is the ratio to it, and
says more than a number that depends on the machine and on what else runs there.
"""

import asyncio
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import grpc
import httpx
import psutil

from bench.bare import BareFleet, BareServer
from bench.fleet import CHANNEL_OPTIONS, Fleet
from bench.remote import Remote
from deploy.demo.processes import Daemons
from deploy.demo.tiny_llama import make_model
from protos.llmrouter.v1 import (
    common_pb2,
    download_pb2,
    download_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)

_SCRIPTS = Path(sys.executable).parent
_MIB = 1 << 20
_MAX_MESSAGE = (("grpc.max_receive_message_length", 64 * _MIB),)
_REPOS = 120
_SMALL, _MIDDLE, _LARGE, _HUGE = 20, 100, 1000, 5000
_ORDERS = {_MIDDLE: 20, _LARGE: 10}
_ASSIGNMENT_BYTES = 520  # of one task: what the bare server writes to each
_REPORT_BYTES = 700  # of ten tasks
_STEADY_SECONDS = 6.0
_FLOOD_SECONDS = 5.0
_INSTANT_MS = 100.0
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured; `limit` None: only for information.

    `peer` is the bare server's median. With `at_least` larger is better, and the median counts;
    otherwise the worst that `counts` names does.
    """

    what: str
    unit: str
    median: float
    worst: float
    counts: str
    limit: float | None = None
    peer: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the figure is reached."""
        if self.limit is None:
            return None
        return self.median >= self.limit if self.at_least else self.worst <= self.limit

    def text(self) -> str:
        """The line."""
        wanted = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:,.0f}"
        ratio = "" if not self.peer else f"{self.median / self.peer:.2f}"
        verdict = {None: "", True: "met", False: "NOT MET"}[self.met]
        return (
            f"{self.what:<66}{self.unit:>6}{self.median:>11,.1f}{self.worst:>11,.1f} "
            f"{self.counts:<4}{wanted:>9}{ratio:>8}  {verdict}"
        )


def spread(
    what: str,
    seconds: list[float],
    limit_ms: float | None = None,
    *,
    quantile: int = 99,
    peer: float | None = None,
) -> Row:
    """A row of durations."""
    ordered = sorted(seconds)
    worst = ordered[math.ceil(quantile / 100 * len(ordered)) - 1]
    median = statistics.median(ordered)
    return Row(
        what,
        "ms",
        median * 1000,
        worst * 1000,
        f"P{quantile}",
        limit_ms,
        None if peer is None else peer * 1000,
    )


def single(
    what: str,
    unit: str,
    value: float,
    limit: float | None = None,
    *,
    peer: float | None = None,
    at_least: bool = False,
) -> Row:
    """A row of one number."""
    return Row(what, unit, value, value, "", limit, peer, at_least)


class Process:
    """What a process uses."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._since = (0.0, 0.0)

    def memory(self) -> float:
        """Resident MiB."""
        return float(self._process.memory_info().rss) / _MIB

    def begin(self) -> None:
        """Counts processor time from now."""
        self._since = (time.monotonic(), self._used())

    def load(self) -> float:
        """Percent of one core since `begin`."""
        return 100 * self.used() / (time.monotonic() - self._since[0])

    def used(self) -> float:
        """Seconds of processor time since `begin`."""
        return self._used() - self._since[1]

    def _used(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class TaskWatch:
    """A reader of `WatchTasks`: when each task was first seen running, how old each report was."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.running: dict[str, float] = {}
        self.ages: list[float] = []
        self._wanted: set[str] = set()
        self._all = asyncio.Event()
        self._more = asyncio.Event()
        self._began = time.monotonic()
        stub = download_pb2_grpc.DownloadServiceStub(channel)
        self._call = stub.WatchTasks(download_pb2.WatchTasksRequest())
        self._reading = asyncio.create_task(self._read())

    async def all_running(self, task_ids: list[str]) -> list[float]:
        """The moments at which the tasks were seen running; waits for the last."""
        self._wanted = set(task_ids) - set(self.running)
        if self._wanted:
            self._all.clear()
            async with asyncio.timeout(_PATIENCE):
                await self._all.wait()
        return [self.running[task_id] for task_id in task_ids]

    async def so_many_running(self, count: int) -> None:
        """Waits until so many tasks were seen running: a snapshot of many takes a while."""
        while len(self.running) < count:
            self._more.clear()
            async with asyncio.timeout(_PATIENCE):
                await self._more.wait()

    def close(self) -> None:
        """Leaves."""
        self._call.cancel()
        self._reading.cancel()

    async def _read(self) -> None:
        async for response in self._call:
            now, task = time.monotonic(), response.task
            # A snapshot shows what was reported before anybody watched.
            if task.note and float(task.note) > self._began:
                self.ages.append(now - float(task.note))
            if task.state != common_pb2.TASK_STATE_PENDING and task.task_id not in self.running:
                self.running[task.task_id] = now
                self._more.set()
                if task.task_id in self._wanted:
                    self._wanted.discard(task.task_id)
                    if not self._wanted:
                        self._all.set()


class Bench:
    """Measures one router."""

    def __init__(self, pid: int, fleet: Remote, http: str, address: str, peer: "Bare") -> None:
        self._process = Process(pid)
        self._fleet = fleet
        self._peer = peer
        self._address = address
        self._http = httpx.AsyncClient(base_url=f"http://{http}", timeout=_PATIENCE)
        self._channel = self._connect()
        self._models = registration_pb2_grpc.RegistrationServiceStub(self._channel)
        self._downloads = download_pb2_grpc.DownloadServiceStub(self._channel)
        self._names: list[str] = []

    async def rows(self, *, big: bool) -> AsyncIterator[Row]:
        """All measurements; the fleet grows from one to the next."""
        yield single("memory, no agent", "MiB", self._process.memory())
        await self._fleet.call("connect", _SMALL)
        async for row in self._registrations():
            yield row
        async for row in self._instant():
            yield row
        await self._fleet.call("connect", _MIDDLE)
        async for row in self._orders(_MIDDLE, 250):
            yield row
        await self._fleet.call("finish")
        async for row in self._progress():
            yield row
        await self._fleet.call("finish")
        async for row in self._large():
            yield row
        if big:
            seconds = await self._fleet.call("connect", _HUGE)
            yield single(f"connecting {_HUGE - _LARGE} more agents", "s", seconds)
            yield single(f"memory, {_HUGE} agents", "MiB", self._process.memory(), 512)
            yield await self._steady(f"{_HUGE} agents")
            yield single(f"memory after that, {_HUGE} agents", "MiB", self._process.memory(), 512)
        await self._http.aclose()

    async def _large(self) -> AsyncIterator[Row]:
        before = self._process.memory()
        seconds = await self._fleet.call("connect", _LARGE)
        after = self._process.memory()
        each = (after - before) / (_LARGE - _MIDDLE) * 1024
        yield single(f"connecting {_LARGE - _MIDDLE} more agents", "s", seconds)
        yield single("memory for each agent", "KiB", each, peer=self._peer.memory_each)
        yield single(f"memory, {_LARGE} agents", "MiB", after, 200)
        async for row in self._orders(_LARGE, 1000):
            yield row
        tasks = _ORDERS[_LARGE]
        yield single(f"memory, {tasks} tasks each", "MiB", self._process.memory(), 200)
        watch = TaskWatch(self._channel)
        await watch.so_many_running(_LARGE * tasks)
        yield await self._steady(f"{_LARGE} agents, {tasks} tasks each")
        yield spread("node → watcher at that rate", watch.ages)
        watch.close()
        flooded, seconds = await self._fleet.call("flood", _FLOOD_SECONDS)
        bare = tasks * self._peer.messages
        yield single(
            "task updates taken", "/s", flooded / seconds, 10_000, peer=bare, at_least=True
        )
        yield single("memory after that", "MiB", self._process.memory(), 200)
        await self._fleet.call("finish")

    async def _registrations(self) -> AsyncIterator[Row]:
        by_stream = Moments()
        by_event = Moments()
        reading = [
            asyncio.create_task(self._read_models(by_stream)),
            asyncio.create_task(self._read_events(by_event)),
        ]
        calls: list[float] = []
        seen: dict[str, list[float]] = {}
        for number in range(_REPOS):
            began = time.monotonic()
            answer = await self._models.RegisterModel(
                registration_pb2.RegisterModelRequest(repo=_repo(number))
            )
            confirmed = time.monotonic()
            calls.append(confirmed - began)
            name = answer.model.model_name
            self._names.append(name)
            for what, visible in (
                ("GET /v1/models", self._in_openai(name)),
                ("ListModels", self._in_list(name)),
                ("WatchModels", by_stream.of(name)),
                ("GET /api/events", by_event.of(name)),
            ):
                began = time.monotonic() if what in ("GET /v1/models", "ListModels") else confirmed
                seen.setdefault(what, []).append(max(0.0, await visible - began))
        for task in reading:
            task.cancel()
        yield spread(f"RegisterModel ({_REPOS}, the Hub's answers included)", calls)
        for what, latencies in seen.items():
            yield spread(f"registered → seen by {what}", latencies, 100)

    async def _read_models(self, seen: "Moments") -> None:
        request = registration_pb2.WatchModelsRequest()
        async for response in self._models.WatchModels(request):
            seen.note(response.model.model_name)

    async def _read_events(self, seen: "Moments") -> None:
        async with self._http.stream("GET", "/api/events", timeout=None) as answer:
            event = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and event == "model":
                    seen.note(json.loads(line.removeprefix("data: "))["name"])

    async def _in_openai(self, name: str) -> float:
        while True:
            answer = await self._http.get("/v1/models")
            if any(model["id"] == name for model in answer.json()["data"]):
                return time.monotonic()

    async def _in_list(self, name: str) -> float:
        request = registration_pb2.ListModelsRequest(page_size=1000)
        while True:
            answer = await self._models.ListModels(request)
            if any(model.model_name == name for model in answer.models):
                return time.monotonic()

    async def _instant(self) -> AsyncIterator[Row]:
        for name in self._names[:5]:
            await self._start(name)
        reporting = asyncio.create_task(self._fleet.call("report", _STEADY_SECONDS, 1.0))
        page = 4
        pages = [f"/api/models/available?limit={page}&offset={page * n}" for n in range(20)]
        for path in pages:
            await self._http.get(path)  # the Hub's answers; `bench.catalog` measures those
        asked: dict[str, list[Callable[[], Awaitable[object]]]] = {
            "20 catalog pages": [partial(self._http.get, path) for path in pages * 2],
            "ListTasks": [partial(self._downloads.ListTasks, download_pb2.ListTasksRequest())] * 40,
        }
        for path in ("/v1/models", "/api/models", "/api/nodes", "/api/tasks", "/dashboard"):
            asked[f"GET {path}"] = [partial(self._http.get, path)] * 40
        for what, calls in asked.items():
            seconds = []
            for call in calls:
                began = time.monotonic()
                await call()
                seconds.append(time.monotonic() - began)
            scale = f"{_REPOS} models, {_SMALL} nodes"
            yield spread(f"{what} ({scale})", seconds, _INSTANT_MS, quantile=95)
        await reporting
        await self._fleet.call("finish")

    async def _start(self, name: str) -> list[str]:
        request = download_pb2.StartDownloadRequest(
            model_name=name, target=download_pb2.ORDER_TARGET_ALL
        )
        answer = await self._downloads.StartDownload(request)
        return [task.task_id for task in answer.order.tasks]

    async def _orders(self, nodes: int, limit_ms: float) -> AsyncIterator[Row]:
        """From the call until a watcher has seen the task of every node running."""
        watch = TaskWatch(self._channel)
        await asyncio.sleep(1)
        seconds = []
        self._process.begin()
        for _ in range(_ORDERS[nodes]):
            name = self._names.pop()
            began = time.monotonic()
            task_ids = await self._start(name)
            moments = await watch.all_running(task_ids)
            seconds.append(max(moments) - began)
        used = self._process.used()
        watch.close()
        what = f"order → running on all {nodes} nodes ({len(seconds)} orders)"
        yield spread(what, seconds, limit_ms, peer=self._peer.order[nodes])
        each = used * 1000 / len(seconds)
        bare = self._peer.order_load[nodes] * 1000
        yield single("processor time of such an order", "ms", each, peer=bare)

    async def _progress(self) -> AsyncIterator[Row]:
        await self._start(self._names.pop())
        for readers, stuck in ((1, 0), (20, 0), (20, 1)):
            channels = [self._connect() for _ in range(readers + stuck)]
            watches = [TaskWatch(channel) for channel in channels[:readers]]
            unread = [
                download_pb2_grpc.DownloadServiceStub(channel).WatchTasks(
                    download_pb2.WatchTasksRequest()
                )
                for channel in channels[readers:]
            ]
            await self._fleet.call("report", _STEADY_SECONDS, 1.0)
            for watch in watches:
                watch.close()
            for call in unread:
                call.cancel()
            for channel in channels:
                await channel.close()
            ages = [age for watch in watches for age in watch.ages]
            more = " and one that never reads" if stuck else ""
            yield spread(f"node → watcher, {readers} watcher(s){more}", ages, 100)

    async def _steady(self, what: str) -> Row:
        self._process.begin()
        updates = await self._fleet.call("report", _STEADY_SECONDS, 1.0)
        load = self._process.load()
        rate = updates / _STEADY_SECONDS
        return single(f"processor at {rate:,.0f} updates/s ({what}), of a core", "%", load)

    def _connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS + _MAX_MESSAGE)


class Moments:
    """When each thing was first seen."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, asyncio.Future[float]] = defaultdict(asyncio.Future)

    def note(self, name: str) -> None:
        """It is seen now."""
        if not self._seen[name].done():
            self._seen[name].set_result(time.monotonic())

    async def of(self, name: str) -> float:
        """Waits until it is seen."""
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.shield(self._seen[name])


@dataclass(frozen=True, slots=True)
class Bare:
    """What the bare server takes: seconds, and of its processor, for an order by number of clients;
    KiB for each; messages/s.
    """

    order: dict[int, float]
    order_load: dict[int, float]
    memory_each: float
    messages: float


async def measure_bare() -> Bare:
    """Runs the bare server and its clients."""
    with Remote(BareServer) as server:
        port = await server.call("start")
        process = Process(server.pid)
        with Remote(BareFleet, f"127.0.0.1:{port}") as clients:
            order, order_load = {}, {}
            memory = 0.0
            for count in (_MIDDLE, _LARGE):
                memory = process.memory()
                await clients.call("connect", count)
                memory = process.memory() - memory
                process.begin()
                times = [await server.call("tell_all", _ASSIGNMENT_BYTES) for _ in range(10)]
                order[count] = statistics.median(times)
                order_load[count] = process.used() / len(times)
            messages = await clients.call("flood", _FLOOD_SECONDS, _REPORT_BYTES)
    return Bare(order, order_load, memory / (_LARGE - _MIDDLE) * 1024, messages)


def _repo(number: int) -> str:
    return f"bench-{number % 8}/model-{number:03}-GGUF"


def _lay_out(folder: Path) -> None:
    """Repositories of one small real model each."""
    made = make_model(folder / "made.gguf", "Q8_0")
    for number in range(_REPOS):
        target = folder / "hub" / _repo(number) / f"model-{number:03}-Q8_0.gguf"
        target.parent.mkdir(parents=True)
        shutil.copyfile(made, target)


async def measure(folder: Path, *, big: bool) -> AsyncIterator[Row]:
    """Starts everything, and measures."""
    await asyncio.to_thread(_lay_out, folder)
    peer = await measure_bare()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with Daemons(folder, environment) as daemons:
        hub = daemons.start(
            "hub", [str(_SCRIPTS / "llm-router-hub"), str(folder / "hub"), "--port", "0"]
        )
        (hub_address,) = await asyncio.to_thread(hub.addresses, "http")
        command = [str(_SCRIPTS / "llm-router-server"), "--http-port", "0", "--grpc-port", "0"]
        command += ["--data-dir", str(folder / "data"), "--hub-url", f"http://{hub_address}"]
        router = daemons.start("router", [*command, "--max-nodes", str(_HUGE)])
        http, address = await asyncio.to_thread(router.addresses, "http", "grpc")
        click.echo(f"router: process {router.pid}", err=True)
        with Remote(Fleet, address, "bench") as fleet:
            async for row in Bench(router.pid, fleet, http, address, peer).rows(big=big):
                yield row


@click.command()
@click.option("--big", is_flag=True, help=f"Goes on to {_HUGE} agents.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Writes the rows here too.")
def main(big: bool, file: Path | None) -> None:
    """Measures the router's figures; exits 0 whether they are met or not."""
    began = time.monotonic()
    rows: list[Row] = []

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async for row in measure(Path(folder), big=big):
                rows.append(row)
                click.echo(row.text())

    click.echo(f"{'':<66}{'unit':>6}{'median':>11}{'worst':>11} {'':<4}{'figure':>9}{'x bare':>8}")
    asyncio.run(run())
    click.echo(f"{time.monotonic() - began:.0f} s on {os.cpu_count()} cores")
    if file is not None:
        file.write_text(json.dumps([asdict(row) | {"met": row.met} for row in rows], indent=1))


if __name__ == "__main__":
    main()
