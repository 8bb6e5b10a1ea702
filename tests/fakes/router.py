"""A router that a test speaks through: the real transport, and nothing behind it.

async with FakeRouter() as router:
    session = await router.session()      # the agent's next stream, greeted
    session.assign(task(...))
    report = await session.report(lambda report: ...)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from protos.llmrouter.v1 import agent_pb2, agent_pb2_grpc, common_pb2

PATIENCE_SECONDS = 30.0


class Session:
    """One stream of one agent."""

    def __init__(self, hello: agent_pb2.Hello) -> None:
        self.hello = hello
        self.events: list[agent_pb2.ConnectRequest] = []  # everything after Hello, in order
        self.ended = asyncio.Event()
        kinds = ("report", "inventory", "file_url_request", "piece_news", "piece_digests")
        self._seen = dict.fromkeys(kinds, 0)
        self._arrived = asyncio.Condition()
        self._commands: asyncio.Queue[agent_pb2.ConnectResponse | None] = asyncio.Queue()
        self._revision = 0

    @property
    def reports(self) -> list[agent_pb2.Report]:
        """The reports so far."""
        return [event.report for event in self.events if event.HasField("report")]

    def assign(
        self,
        *tasks: agent_pb2.TaskAssignment,
        revision: int | None = None,
        evictions: Iterable[agent_pb2.Eviction] = (),
        keep_partials: Iterable[common_pb2.Manifest] = (),
        max_rate: int | None = None,
    ) -> None:
        """Sends an assignment, with the next revision unless another is given."""
        self._revision = self._revision + 1 if revision is None else revision
        assignment = agent_pb2.Assignment(
            revision=self._revision,
            tasks=tasks,
            evictions=evictions,
            keep_partials=keep_partials,
        )
        if max_rate is not None:
            assignment.max_rate_bytes_per_second = max_rate
        self.send(agent_pb2.ConnectResponse(assignment=assignment))

    def send(self, command: agent_pb2.ConnectResponse) -> None:
        """Sends any command."""
        self._commands.put_nowait(command)

    def close(self) -> None:
        """Ends the stream from the router's side."""
        self._commands.put_nowait(None)

    async def report(
        self, wanted: Callable[[agent_pb2.Report], object] = lambda report: True
    ) -> agent_pb2.Report:
        """The next report that is as wanted; reports that were looked at before do not count."""
        return (await self._next("report", lambda event: bool(wanted(event.report)))).report

    async def task(self, task_id: str, state: int, attempt: int = 1) -> agent_pb2.TaskReport:
        """What the next report says about a task that has come to a state."""

        def of_task(report: agent_pb2.Report) -> agent_pb2.TaskReport | None:
            for task in report.tasks:
                if (task.task_id, task.attempt, task.state) == (task_id, attempt, state):
                    return task
            return None

        found = of_task(await self.report(of_task))
        assert found is not None
        return found

    async def inventory(
        self, wanted: Callable[[agent_pb2.Inventory], object] = lambda inventory: True
    ) -> agent_pb2.Inventory:
        """The next inventory that is as wanted."""
        event = await self._next("inventory", lambda event: bool(wanted(event.inventory)))
        return event.inventory

    async def file_url_request(self) -> agent_pb2.FileUrlRequest:
        """The next question for a URL."""
        return (await self._next("file_url_request", lambda event: True)).file_url_request

    async def piece_news(
        self, wanted: Callable[[agent_pb2.PieceNews], object] = lambda news: True
    ) -> agent_pb2.PieceNews:
        """The next news of pieces that are as wanted."""
        return (
            await self._next("piece_news", lambda event: bool(wanted(event.piece_news)))
        ).piece_news

    async def piece_digests(self) -> agent_pb2.PieceDigests:
        """The next answer to a question for digests."""
        return (await self._next("piece_digests", lambda event: True)).piece_digests

    def grant(self, sha256: str, *grants: agent_pb2.PieceGrant, alone: bool = False) -> None:
        """Says which pieces of a file to fetch, or that nobody shares it."""
        message = agent_pb2.PieceGrants(sha256=sha256, grants=grants, alone=alone)
        self.send(agent_pb2.ConnectResponse(piece_grants=message))

    async def _next(
        self, kind: str, wanted: Callable[[agent_pb2.ConnectRequest], bool]
    ) -> agent_pb2.ConnectRequest:
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            while True:
                while self._seen[kind] < len(self.events):
                    event = self.events[self._seen[kind]]
                    self._seen[kind] += 1
                    if event.WhichOneof("event") == kind and wanted(event):
                        return event
                assert not self.ended.is_set(), "the agent's stream has ended"
                await self._arrived.wait()

    async def _take_in(self, events: AsyncIterator[agent_pb2.ConnectRequest]) -> None:
        with contextlib.suppress(asyncio.CancelledError, grpc.RpcError):
            async for event in events:
                async with self._arrived:
                    self.events.append(event)
                    self._arrived.notify_all()
        await self._end()

    async def _end(self) -> None:
        self.ended.set()
        self._commands.put_nowait(None)
        async with self._arrived:
            self._arrived.notify_all()


class FakeRouter(agent_pb2_grpc.AgentServiceServicer):
    """Greets every agent and hands its stream to the test. `address` stays the same over restarts.

    `refusals` are statuses with which the next streams end before Welcome.
    """

    def __init__(
        self,
        *,
        epoch: int = 1,
        heartbeat: float = 0.2,
        report: float = 0.05,
        peer_key: bytes = b"",
    ) -> None:
        self.epoch = epoch
        self.peer_key = peer_key
        self.address = "127.0.0.1:0"
        self.refusals: list[status_pb2.Status] = []
        self.streams = 0  # how many have come, refused ones too
        self._heartbeat = heartbeat
        self._report = report
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        """Starts listening."""
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Is gone at once."""
        await self.stop()

    async def start(self) -> None:
        """Listens, after `stop` again at the same address."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Breaks every stream and stops listening."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def session(self) -> Session:
        """The next agent that has said Hello."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._sessions.get()

    async def Connect(
        self,
        request_iterator: AsyncIterator[agent_pb2.ConnectRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[agent_pb2.ConnectResponse]:
        """See agent.proto."""
        self.streams += 1
        first = await anext(request_iterator)
        assert first.WhichOneof("event") == "hello"
        if self.refusals:
            refusal = rpc_status.to_status(self.refusals.pop(0))
            await context.abort(
                refusal.code, refusal.details, trailing_metadata=refusal.trailing_metadata
            )
        session = Session(first.hello)
        yield agent_pb2.ConnectResponse(
            welcome=agent_pb2.Welcome(
                session=self.streams,
                epoch=self.epoch,
                heartbeat_interval=span(self._heartbeat),
                report_interval=span(self._report),
                peer_key=self.peer_key,
            )
        )
        reading = asyncio.create_task(session._take_in(request_iterator))
        self._sessions.put_nowait(session)
        try:
            while (command := await session._commands.get()) is not None:
                yield command
        finally:
            reading.cancel()
            await session._end()


def fenced() -> status_pb2.Status:
    """What a stream ends with when another one has come with the same node id."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="SESSION_FENCED", domain="llm-router"))
    return status_pb2.Status(
        code=code_pb2.ABORTED, message="another stream has come", details=[detail]
    )


def span(seconds: float) -> Duration:
    """A span of time, as the wire has it."""
    span = Duration()
    span.FromNanoseconds(int(seconds * 1e9))
    return span
