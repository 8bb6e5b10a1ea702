"""The way to the router: addresses, calls, and the same calls as `grpcurl` commands."""

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from cli import failures
from protos.llmrouter.v1 import catalog_pb2, download_pb2, node_pb2, registration_pb2

DEFAULT_ADDRESS = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_READ_AHEAD = 256  # messages of a stream
_SILENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.2  # between two looks at how far a file has been sent
_PAUSE_SECONDS = 0.5  # between two looks for the router
CALL_SECONDS = 60.0  # a catalog page that the router has to fetch takes a few
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.%a-z]+\]")

Answer = TypeVar("Answer", bound=Message)
_PagedRequest = TypeVar(
    "_PagedRequest",
    download_pb2.ListTasksRequest,
    download_pb2.ListOrdersRequest,
    node_pb2.ListNodesRequest,
    registration_pb2.ListModelsRequest,
    registration_pb2.ListOutdatedModelsRequest,
)
_PagedAnswer = TypeVar(
    "_PagedAnswer",
    download_pb2.ListTasksResponse,
    download_pb2.ListOrdersResponse,
    node_pb2.ListNodesResponse,
    registration_pb2.ListModelsResponse,
    registration_pb2.ListOutdatedModelsResponse,
)

# Every request type belongs to one RPC, so a request tells where it goes.
_METHODS: dict[str, MethodDescriptor] = {
    method.input_type.full_name: method
    for file in (catalog_pb2, download_pb2, node_pb2, registration_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # The bound of one connection attempt: a host that swallows packets is given up after it.
    ("grpc.min_reconnect_backoff_ms", 4_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 4_000),
    # A watch notices a router that vanished without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The router is a neighbour: a proxy for the internet is not the way to it.
    ("grpc.enable_http_proxy", 0),
]


def parse_address(text: str) -> str:
    """Checks `HOST:PORT`, an IPv6 address in brackets; returns it. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if (
        not colon
        or not _HOST.fullmatch(host)
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    ):
        raise ValueError(f'"{text}" is not an address: write HOST:PORT, for example router:50051')
    return text


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where the router is, and what this operator shows it."""

    address: str
    token: str = ""


class Router:
    """Calls to one router. Every call raises `failures.Failure` when it fails."""

    def __init__(self, target: Target) -> None:
        self.address = target.address
        self._metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
        self._channel = grpc.insecure_channel(target.address, options=_CHANNEL_OPTIONS)

    def call(self, request: Message, answer: type[Answer]) -> Answer:
        """Sends a request to its RPC and waits for the answer, a minute at most."""
        call = self._channel.unary_unary(
            _path(request),
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            reply: Answer = call(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failures.from_rpc(error, self.address) from error
        return reply

    def stream(
        self, request: Message, answer: type[Answer], read_ahead: int = _READ_AHEAD
    ) -> Iterator[Answer | None]:
        """Opens a stream; None comes every other second in which nothing else does.

        At most `read_ahead` messages wait here. Raises `grpc.RpcError` when it breaks.

        A thread opens and reads it, so that Ctrl-C never strikes inside gRPC, whose locks it would
        leave taken: the command could not end then.
        """
        call = self._channel.unary_stream(
            _path(request),
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        read: Queue[Answer | grpc.RpcError | None] = Queue(read_ahead)
        begin = partial(call, request, metadata=self._metadata)
        Thread(target=_read_into, args=(read, begin), daemon=True).start()
        while True:
            try:
                item = read.get(timeout=_SILENCE_SECONDS)
            except Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, grpc.RpcError):
                raise item
            yield item

    def send(
        self, requests: Iterator[Message], kind: type[Message], answer: type[Answer]
    ) -> Iterator[Answer | None]:
        """Sends messages of one `kind` as fast as the router takes them in; ends with the answer.

        Until then None comes several times a second. A thread sends, as it reads in `stream`.
        """
        call = self._channel.stream_unary(
            _path(kind()),
            request_serializer=kind.SerializeToString,
            response_deserializer=answer.FromString,
        )
        done: Queue[Answer | grpc.RpcError | None] = Queue(2)
        begin = partial(call, requests, metadata=self._metadata)
        Thread(target=_read_into, args=(done, lambda: iter((begin(),))), daemon=True).start()
        while True:
            try:
                item = done.get(timeout=_LOOK_SECONDS)
            except Empty:
                yield None
                continue
            if isinstance(item, grpc.RpcError):
                raise failures.from_rpc(item, self.address) from item
            if item is not None:
                yield item
            return

    def reach(self) -> None:
        """Raises a Failure at once when the router is not there."""
        try:
            self._health(CALL_SECONDS, wait_for_ready=False)
        except grpc.RpcError as error:
            raise failures.from_rpc(error, self.address) from error

    def wait_until_serving(self, seconds: float) -> bool:
        """Looks for the router again and again, as long as that; tells whether it is there."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self._health(left, wait_for_ready=True):
                    return True
            except grpc.RpcError:  # it went away again
                pass
            Event().wait(min(_PAUSE_SECONDS, left))
        return False

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _health(self, seconds: float, *, wait_for_ready: bool) -> bool:
        call = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply: health_pb2.HealthCheckResponse = call(
            health_pb2.HealthCheckRequest(),
            timeout=seconds,
            wait_for_ready=wait_for_ready,
            metadata=self._metadata,
        )
        serving: bool = reply.status == health_pb2.HealthCheckResponse.SERVING
        return serving


def pages(
    router: Router, request: _PagedRequest, answer: type[_PagedAnswer]
) -> Iterator[_PagedAnswer]:
    """All pages of a listing, one call each."""
    while True:
        reply = router.call(request, answer)
        yield reply
        if not reply.next_page_token:
            return
        request.page_token = reply.next_page_token


def grpcurl_command(
    request: Message, address: str, *, with_token: bool, from_stdin: bool = False
) -> str:
    """The `grpcurl` command that sends this request, or such as it reads; for a POSIX shell.

    The token itself never shows: the command takes it from LLM_ROUTER_TOKEN.
    """
    body = json.dumps(MessageToDict(request, preserving_proto_field_name=True), ensure_ascii=False)
    header = ' -H "authorization: Bearer $LLM_ROUTER_TOKEN"' if with_token else ""
    return (
        f"grpcurl -plaintext{header} -d {'@' if from_stdin else shlex.quote(body)} "
        f"{shlex.quote(address)} {_path(request).removeprefix('/')}"
    )


def _read_into(read: "Queue[Any]", begin: Callable[[], Iterator[Message]]) -> None:
    """Puts every message into the queue, then the error that ended the stream, or None."""
    try:
        for message in begin():
            read.put(message)
    except grpc.RpcError as error:
        read.put(error)
    else:
        read.put(None)


def _path(request: Message) -> str:
    method = _METHODS[request.DESCRIPTOR.full_name]
    return f"/{method.containing_service.full_name}/{method.name}"
