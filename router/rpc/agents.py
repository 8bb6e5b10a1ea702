"""The agents' streams: one reader, one writer, and a lease that silence ends."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2 as agent
from protos.llmrouter.v1 import agent_pb2_grpc as agent_grpc
from protos.llmrouter.v1 import common_pb2
from router.domain.errors import DomainError, InvalidArgument, SessionFenced, Unavailable
from router.domain.tasks import ENDED
from router.rpc import convert, convert_sites, pieces
from router.rpc.batches import Batches
from router.services.sessions import Report, Session, Sessions, Settling
from router.services.swarm import Swarms
from router.services.watch import Topic, Watch, Watchers

log = get_logger(__name__)

Requests = AsyncIterator[agent.ConnectRequest]
Context = grpc.aio.ServicerContext[agent.ConnectRequest, agent.ConnectResponse]

_MAX_WAITING_URLS = 64  # of one agent
_URL_THREADS = 16


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds: between reports, also while bytes flow; of silence; until Hello."""

    heartbeat: float = 10.0
    lease: float = 40.0
    report: float = 0.5
    hello: float = 10.0


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all streams use: an order concerns all nodes at one moment, and all answer at the next.

    The pool is for what asks the Hub: a slow one must not hold up the rest.
    """

    sessions: Sessions
    swarms: Swarms
    timers: Timers
    assignments: Batches[str, agent.Assignment]
    settling: Batches[Settling, None]
    hub_pool: ThreadPoolExecutor


class AgentServicer(agent_grpc.AgentServiceServicer):
    """Takes agents in."""

    def __init__(
        self,
        sessions: Sessions,
        swarms: Swarms,
        watchers: Watchers,
        messages: convert.Messages,
        timers: Timers,
        peer_key: bytes,
        http_port: Callable[[], int] = lambda: 0,
    ) -> None:
        """Feeds `sessions` and `swarms`; every agent is given `peer_key`, and nobody else.

        `http_port` is where the router serves files, 0 while it does not.
        """
        self._http_port = http_port
        self._sessions = sessions
        self._swarms = swarms
        self._peer_key = peer_key
        self._watchers = watchers
        self._messages = messages
        self._timers = timers
        self._shared = _Shared(
            sessions,
            swarms,
            timers,
            assignments=Batches(self._assign),
            settling=Batches(self._settle),
            hub_pool=ThreadPoolExecutor(_URL_THREADS, thread_name_prefix="urls"),
        )

    def _assign(self, node_ids: Sequence[str]) -> list[agent.Assignment]:
        return self._messages.assignments(self._sessions.assignments(node_ids))

    def _settle(self, told: Sequence[Settling]) -> list[None]:
        self._sessions.settle(told)
        return [None] * len(told)

    def stop(self) -> None:
        """Looks up no more URLs."""
        self._shared.hub_pool.shutdown(wait=False, cancel_futures=True)

    # The stubs know the generator style only; reading and writing at once needs the context.
    async def Connect(  # type: ignore[override]
        self, request_iterator: Requests, context: Context
    ) -> None:
        """See agent.proto."""
        hello = await self._hello(request_iterator)
        session = await self._open(hello, context.peer())
        session.disk = (hello.disk_free_bytes, hello.disk_total_bytes)
        log.info("node connected", node=hello.name, node_id=session.node_id, session=session.number)
        stream = _Stream(session, self._shared)
        self._swarms.connect(session.node_id, session.number, session.reach, stream.rouse)
        try:
            with self._watchers.watch(
                Topic.ASSIGNMENT, Topic.LINE, keys=[session.node_id]
            ) as watch:
                await context.write(self._welcome(session))
                await _first_to_end(
                    stream.read(request_iterator), stream.follow(watch), stream.write(context)
                )
        finally:
            try:
                self._swarms.disconnect(session.node_id, session.number)
            finally:
                await asyncio.shield(asyncio.to_thread(self._sessions.close, session))
            log.info("node disconnected", node=hello.name, session=session.number)

    async def _open(self, hello: agent.Hello, peer: str) -> Session:
        opening = asyncio.ensure_future(
            asyncio.to_thread(self._sessions.open, convert.hello_from(hello, peer))
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The agent has gone while the thread goes on: it must not count as connected for ever.
            opening.add_done_callback(self._close_unused)
            raise

    def _close_unused(self, opening: asyncio.Future[Session]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            asyncio.get_running_loop().run_in_executor(None, self._sessions.close, opening.result())

    async def _hello(self, requests: Requests) -> agent.Hello:
        try:
            async with asyncio.timeout(self._timers.hello):
                first = await anext(requests, None)
        except TimeoutError:
            first = None
        if first is None or first.WhichOneof("event") != "hello":
            raise InvalidArgument("the first event of a stream is Hello", param="hello")
        return first.hello

    def _welcome(self, session: Session) -> agent.ConnectResponse:
        return agent.ConnectResponse(
            welcome=agent.Welcome(
                session=session.number,
                epoch=self._sessions.epoch,
                heartbeat_interval=convert.span(self._timers.heartbeat),
                report_interval=convert.span(self._timers.report),
                peer_key=self._peer_key,
                http_port=self._http_port(),
            )
        )


async def _first_to_end(*parts: Coroutine[None, None, None]) -> None:
    """Runs the parts until one ends, and stops the others; raises what that one raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Stream:
    """One connected agent: one reader, one writer, who alone sends. Belongs to the event loop."""

    def __init__(
        self,
        session: Session,
        shared: _Shared,
    ) -> None:
        self._session = session
        self._key = (session.node_id, session.number)
        self._sessions = shared.sessions
        self._swarms = shared.swarms
        self._timers = shared.timers
        self._assignments = shared.assignments
        self._settling = shared.settling
        self._hub_pool = shared.hub_pool
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._wake = asyncio.Event()
        self._is_assigned = asyncio.Event()
        self._assignment_due = False
        self._line_due = False
        self._url_results: list[agent.FileUrlResult] = []
        self._looking_up: set[asyncio.Task[None]] = set()
        self._disk_noted_at = -shared.timers.lease

    async def read(self, requests: Requests) -> None:
        """Takes in what the agent says; ends with the stream, or after a lease of silence."""
        while True:
            try:
                async with asyncio.timeout(self._timers.lease):
                    request = await anext(requests, None)
            except TimeoutError:
                log.warning("node is silent", node_id=self._session.node_id)
                return
            if request is None:
                return
            match request.WhichOneof("event"):
                case "report":
                    await self._report(convert.report_from(request.report))
                case "inventory":
                    inventory = convert.inventory_from(request.inventory)
                    await asyncio.to_thread(self._sessions.inventory, self._session, inventory)
                case "piece_news":
                    await self._piece_news(request.piece_news)
                case "piece_digests":
                    told = request.piece_digests
                    digests = [(one.piece, one.digest) for one in told.digests]
                    self._swarms.digests(*self._key, told.sha256, digests, told.missing)
                case "file_url_request":
                    self._look_up(request.file_url_request)
                case "hello":
                    raise InvalidArgument("Hello comes once", param="event")
                case other:
                    log.debug("an event that this router does not know", kind=other)

    async def follow(self, watch: Watch) -> None:
        """Sees to it that the agent is told of every change. Raises `SessionFenced`."""
        topics = {Topic.ASSIGNMENT, Topic.LINE}
        while True:
            # Before the first change too: a newer session may have come before the watch began.
            if self._sessions.fenced(self._session):
                raise SessionFenced(
                    f'node "{self._session.node_id}" has connected once more: '
                    "two agents with one identity? each needs a data folder of its own"
                )
            self._due(topics)
            topics = {change.topic for change in await watch.changes()}

    async def write(self, context: Context) -> None:
        """Sends what is due; the latest assignment and share only, however many were missed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._assignment_due:
                self._assignment_due = False
                assignment = await self._assignments.do(self._session.node_id)
                self._is_assigned.set()
                await context.write(agent.ConnectResponse(assignment=assignment))
            if self._line_due:
                self._line_due = False
                share = self._sessions.line_share(self._session)
                if share is not None:
                    await context.write(convert_sites.line_share(share))
            for message in self._swarms.take(*self._key):
                await context.write(pieces.command(message))
            results, self._url_results = self._url_results, []
            for result in results:
                await context.write(agent.ConnectResponse(file_url_result=result))

    def rouse(self) -> None:
        """Has the writer look at what the swarms have for the node; from any thread."""
        if threading.get_ident() == self._thread:
            self._wake.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is told any more
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _piece_news(self, told: agent.PieceNews) -> None:
        if told.HasField("join"):  # the swarms learn from the assignment what a node may join
            await self._is_assigned.wait()
        self._swarms.news(*self._key, pieces.news_from(told))

    def _due(self, topics: Collection[Topic]) -> None:
        self._assignment_due |= Topic.ASSIGNMENT in topics
        self._line_due |= Topic.LINE in topics
        self._wake.set()

    async def _report(self, report: Report) -> None:
        moving = self._sessions.note_progress(self._session, report.tasks)
        self._sessions.note_line(self._session, report)
        if report.disk_total_bytes:
            self._session.disk = (report.disk_free_bytes, report.disk_total_bytes)
        now = asyncio.get_running_loop().time()
        seen = now - self._disk_noted_at >= self._timers.lease or any(
            task.state in ENDED for task in moving
        )
        if seen:
            self._disk_noted_at = now
        if seen or moving or report.done_evictions or report.found_digests:
            await self._settling.do(Settling(self._session, report, moving, seen=seen))

    def _look_up(self, request: agent.FileUrlRequest) -> None:
        if len(self._url_results) >= _MAX_WAITING_URLS:
            raise InvalidArgument(
                f"{_MAX_WAITING_URLS} answers wait that this agent does not read", param="event"
            )
        if len(self._looking_up) >= _MAX_WAITING_URLS:
            error = common_pb2.TaskError(
                code="too_many_requests",
                message=f"more than {_MAX_WAITING_URLS} URLs asked for at a time",
                retryable=True,
            )
            self._answer(agent.FileUrlResult(request_id=request.request_id, error=error))
            return
        task = asyncio.create_task(self._find_url(request))
        self._looking_up.add(task)
        task.add_done_callback(self._looking_up.discard)

    async def _find_url(self, request: agent.FileUrlRequest) -> None:
        try:
            url = await asyncio.get_running_loop().run_in_executor(
                self._hub_pool,
                self._sessions.file_url,
                self._session,
                request.task_id,
                request.path,
            )
        except Exception as problem:
            error = problem
            if not isinstance(error, DomainError):
                log.exception("no URL for a node", node_id=self._session.node_id)
                error = Unavailable("internal error: the router's log says more")
            retryable = isinstance(error, Unavailable)
            failed = common_pb2.TaskError(
                code=error.code, message=error.message, retryable=retryable
            )
            self._answer(agent.FileUrlResult(request_id=request.request_id, error=failed))
        else:
            self._answer(convert.url_result(request.request_id, url))

    def _answer(self, result: agent.FileUrlResult) -> None:
        self._url_results.append(result)
        self._wake.set()
