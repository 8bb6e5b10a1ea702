"""Keeps the stream to the router: connects, greets, reads, writes, and comes back for ever."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2, agent_pb2_grpc

log = get_logger(__name__)

MAX_MESSAGE_BYTES = 16 << 20
WELCOME_SECONDS = 20.0
FENCED = "SESSION_FENCED"
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Waiting between tries is this module's business: gRPC's own would add to it.
    ("grpc.use_local_subchannel_pool", 1),
)


class Outbox:
    """What is still to be sent: for each key only the newest, made at the moment it is sent.

    A slow or absent router costs no memory, and what it gets in the end is the present state.
    """

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[], agent_pb2.ConnectRequest | None]] = {}
        self._filled = asyncio.Event()

    def put(self, key: str, make: Callable[[], agent_pb2.ConnectRequest | None]) -> None:
        """Asks for a message to be sent; `make` may return None when there is no need any more."""
        self._makers[key] = make
        self._filled.set()

    def clear(self) -> None:
        """Forgets everything."""
        self._makers.clear()
        self._filled.clear()

    async def take(self) -> agent_pb2.ConnectRequest:
        """Waits for the next message, the one asked for first."""
        while True:
            await self._filled.wait()
            while self._makers:
                make = self._makers.pop(next(iter(self._makers)))
                if not self._makers:
                    self._filled.clear()
                message = make()
                if message is not None:
                    return message
            self._filled.clear()


class Dialogue(Protocol):
    """What is said on the stream. All in the event loop; nothing here may raise."""

    def hello(self) -> agent_pb2.Hello:
        """Who this node is, asked at each connection."""

    def begin(self, welcome: agent_pb2.Welcome, outbox: Outbox) -> None:
        """A session begins; what is put into `outbox` is sent while it lasts."""

    async def converse(self) -> None:
        """Runs beside reader and writer while a session lasts; cancelled at its end."""

    async def obey(self, command: agent_pb2.ConnectResponse) -> None:
        """Takes in one command after Welcome."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next try: doubling, with jitter, up to a ceiling (seconds).

    After a session was fenced (another agent has this node's id) the wait is `fenced`.
    """

    first: float = 0.5
    ceiling: float = 5.0
    fenced: float = 300.0

    def wait(self, failures: int, chance: float) -> float:
        """Before the try after so many failures in a row; `chance` is from 0 to 1.

        Between half and the whole of the doubled time, so that a fleet does not come back as one.
        """
        longest = min(self.ceiling, self.first * 2.0 ** min(failures - 1, 32))
        return longest * (0.5 + chance / 2)


class Connection:
    """One stream to the router at a time, for ever, until `run` is cancelled."""

    def __init__(self, target: str, dialogue: Dialogue, backoff: Backoff) -> None:
        self._target = target
        self._dialogue = dialogue
        self._backoff = backoff

    async def run(self) -> None:
        """Connects, stays, connects again; returns only by cancellation."""
        failures = 0
        last_cause = ""
        while True:
            end = await self._session()
            failures = 1 if end.welcomed else failures + 1
            is_news = end.cause != last_cause or failures & (failures - 1) == 0
            last_cause = end.cause
            if end.reason == FENCED:
                wait = self._backoff.fenced * (0.5 + random.random() / 2)
                log.error(
                    "another agent is connected with this node's id; give each machine its own "
                    "data folder and restart this agent",
                    router=self._target,
                    retry_in_seconds=round(wait),
                )
            else:
                wait = self._backoff.wait(failures, random.random())
                tell = log.warning if is_news else log.debug  # a long absence fills no disk
                tell(
                    "not connected to the router; downloads go on",
                    failures=failures,
                    router=self._target,
                    cause=end.cause,
                    retry_in_seconds=round(wait, 1),
                )
            await asyncio.sleep(wait)

    async def _session(self) -> "_End":
        async with grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS) as channel:
            stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
            call = stub.Connect()
            welcomed = False
            try:
                async with asyncio.timeout(WELCOME_SECONDS):
                    await call.write(agent_pb2.ConnectRequest(hello=self._dialogue.hello()))
                    first = await call.read()
                if not isinstance(first, agent_pb2.ConnectResponse):
                    return await _end(call, welcomed)
                if first.WhichOneof("command") != "welcome":
                    return _End(False, "the router did not say welcome")
                welcomed = True
                log.info(
                    "connected to the router",
                    router=self._target,
                    session=first.welcome.session,
                    epoch=first.welcome.epoch,
                )
                await self._stay(call, first.welcome)
                return await _end(call, welcomed)
            except TimeoutError:
                return _End(False, f"the router was silent for {WELCOME_SECONDS:.0f} s")
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return await _end(call, welcomed)
            except Exception:  # a fault of ours in one session must not end the agent
                log.exception("the session broke", router=self._target)
                return _End(welcomed, "this agent broke; the lines before say where")
            finally:
                call.cancel()

    async def _stay(self, call: "_Call", welcome: agent_pb2.Welcome) -> None:
        """Until the stream ends; raises what ended it."""
        outbox = Outbox()
        self._dialogue.begin(welcome, outbox)
        parts = [
            asyncio.create_task(self._read(call)),
            asyncio.create_task(_write(call, outbox)),
            asyncio.create_task(self._dialogue.converse()),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _read(self, call: "_Call") -> None:
        while isinstance(command := await call.read(), agent_pb2.ConnectResponse):
            await self._dialogue.obey(command)


_Call = grpc.aio.StreamStreamCall[agent_pb2.ConnectRequest, agent_pb2.ConnectResponse]


@dataclass(frozen=True, slots=True)
class _End:
    """How a session ended; `reason` is the router's stable word when it gave one."""

    welcomed: bool
    cause: str
    reason: str | None = None


async def _write(call: _Call, outbox: Outbox) -> None:
    while True:
        await call.write(await outbox.take())


async def _end(call: _Call, welcomed: bool) -> _End:
    code = await call.code()
    details = await call.details()
    cause = f"{code.name}: {details}" if details else code.name
    return _End(welcomed, cause, await _reason(call))


async def _reason(call: _Call) -> str | None:
    """`google.rpc.ErrorInfo.reason` of the status, if any."""
    with contextlib.suppress(ValueError):  # details that do not match the status
        error = grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            await call.details(),
        )
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
    return None
