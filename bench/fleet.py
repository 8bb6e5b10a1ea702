"""Simulated agents: they speak the agents' stream, and claim to download without doing it."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import grpc

from protos.llmrouter.v1 import agent_pb2 as agent
from protos.llmrouter.v1 import agent_pb2_grpc, common_pb2

# Each agent has a connection of its own, as if it were on a machine of its own.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
_CONNECTING_AT_A_TIME = 50
_DISK_BYTES = 4_000_000_000_000


@dataclass(slots=True)
class _Agent:
    """One stream. Takes each new task up at once, and reports it as downloading."""

    number: int
    channel: grpc.aio.Channel
    report: agent.Report = field(default_factory=agent.Report)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    call: "grpc.aio.StreamStreamCall[agent.ConnectRequest, agent.ConnectResponse] | None" = None
    reading: "asyncio.Task[None] | None" = None

    async def connect(self, prefix: str) -> None:
        """Says Hello, and waits for the first assignment."""
        self.call = agent_pb2_grpc.AgentServiceStub(self.channel).Connect()
        self.report.disk_free_bytes = self.report.disk_total_bytes = _DISK_BYTES
        hello = agent.Hello(
            node_id=f"{prefix}-{self.number:05}",
            name=f"{prefix}-{self.number:05}",
            version="0.0.0",
            memory_bytes=64_000_000_000,
            disk_free_bytes=_DISK_BYTES,
            disk_total_bytes=_DISK_BYTES,
            max_concurrent=2,
            instance="bench",
        )
        await self.call.write(agent.ConnectRequest(hello=hello))
        self.reading = asyncio.create_task(self._read())
        await self.told.wait()

    async def send(self) -> None:
        """Sends the whole report."""
        assert self.call is not None
        async with self.writing:
            await self.call.write(agent.ConnectRequest(report=self.report))

    async def settled(self) -> None:
        """Waits until the router has taken in every report so far: it reads a stream in order."""
        assert self.call is not None
        self.taken.clear()
        async with self.writing:
            request = agent.FileUrlRequest(request_id="r", task_id="none", path="none")
            await self.call.write(agent.ConnectRequest(file_url_request=request))
        await self.taken.wait()

    def progress(self, note: str) -> int:
        """Every task is a little further; the number of tasks."""
        for task in self.report.tasks:
            task.bytes_done = min(task.bytes_done + 1, task.bytes_total)
            task.note = note
        return len(self.report.tasks)

    async def _read(self) -> None:
        assert self.call is not None
        async for command in self.call:
            match command.WhichOneof("command"):
                case "assignment":
                    await self._take(command.assignment)
                    self.told.set()
                case "file_url_result":
                    self.taken.set()

    async def _take(self, assignment: agent.Assignment) -> None:
        known = {task.task_id: task for task in self.report.tasks}
        self.report.assignment_revision = assignment.revision
        del self.report.tasks[:]
        begun = False
        for task in assignment.tasks:
            if task.task_id in known:
                self.report.tasks.append(known[task.task_id])
                continue
            begun = True
            self.report.tasks.add(
                task_id=task.task_id,
                attempt=task.attempt,
                state=common_pb2.TASK_STATE_DOWNLOADING,
                bytes_total=task.manifest.total_bytes,
            )
        if begun:
            await self.send()


class Fleet:
    """Many agents of one process."""

    def __init__(self, address: str, prefix: str) -> None:
        """Nodes will be named `prefix`-NUMBER."""
        self._address = address
        self._prefix = prefix
        self._agents: list[_Agent] = []

    async def connect(self, count: int) -> float:
        """Grows to `count` connected agents; seconds that it took."""
        began = time.monotonic()
        gate = asyncio.Semaphore(_CONNECTING_AT_A_TIME)

        async def add(number: int) -> _Agent:
            async with gate:
                channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
                one = _Agent(number, channel)
                await one.connect(self._prefix)
                return one

        new = range(len(self._agents), count)
        self._agents += await asyncio.gather(*map(add, new))
        return time.monotonic() - began

    async def report(self, seconds: float, interval: float) -> int:
        """Every agent reports all its tasks once an interval; the number of task updates.

        The note of each is the moment of sending, in monotonic seconds of this machine.
        """
        begin = time.monotonic()

        async def steadily(one: _Agent) -> int:
            due, updates = begin + random.random() * interval, 0
            while due < begin + seconds:
                await asyncio.sleep(due - time.monotonic())
                updates += one.progress(f"{time.monotonic():.6f}")
                await one.send()
                due += interval
            return updates

        return sum(await asyncio.gather(*map(steadily, self._agents)))

    async def flood(self, seconds: float) -> tuple[int, float]:
        """Every agent reports as fast as the router takes it in.

        The number of task updates, and the seconds until the router had taken in the last one.
        """
        begin = time.monotonic()

        async def without_end(one: _Agent) -> int:
            updates = 0
            while time.monotonic() < begin + seconds:
                updates += one.progress("")
                await one.send()
            await one.settled()
            return updates

        updates = sum(await asyncio.gather(*map(without_end, self._agents)))
        return updates, time.monotonic() - begin

    async def finish(self) -> None:
        """Every agent reports all its tasks as completed, and waits until that is taken in."""

        async def finish(one: _Agent) -> None:
            for task in one.report.tasks:
                task.bytes_done = task.bytes_total
                task.state = common_pb2.TASK_STATE_COMPLETED
            await one.send()
            await one.settled()

        await asyncio.gather(*map(finish, self._agents))
