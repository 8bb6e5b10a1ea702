"""A router that answers as a test scripts it: a real gRPC server on a free port of loopback."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from protos.llmrouter.v1 import catalog_pb2, download_pb2, node_pb2, registration_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
Script = list[download_pb2.Task | Callable[[], Any]]


class Refusal(Exception):
    """What a scripted call answers instead of a message."""

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.reason, self.retry_after = code, message, reason, retry_after

    async def send(self, context: "Context") -> None:
        """Ends the call with the status and its details, as the contract says."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="llm-router")
            status.details.append(_packed(info))
        if self.retry_after:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromSeconds(self.retry_after)
            status.details.append(_packed(retry))
        await context.abort_with_status(rpc_status.to_status(status))


class FakeRouter:
    """Serves scripted answers and remembers every request.

    `answers` maps an RPC ("GetTask") to its answer or to a `Refusal`. `watch` is a list of
    scripts, one for each call of WatchTasks: messages are sent, functions are called (they may
    block, or raise a `Refusal`).
    """

    def __init__(self) -> None:
        self.answers: dict[str, Message | Refusal | Callable[[Any], Message]] = {}
        self.watch: list[Script] = []
        self.requests: list[Message] = []
        self.metadata: list[dict[str, str]] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: grpc.aio.Server | None = None

    def __enter__(self) -> "FakeRouter":
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Serves; after a stop on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """Breaks every call and closes the port."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        healthy = health.aio.HealthServicer()
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, self._server)
        for file in (catalog_pb2, download_pb2, node_pb2, registration_pb2):
            for service in file.DESCRIPTOR.services_by_name.values():
                handlers = {method.name: self._handler(method) for method in service.methods}
                self._server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service.full_name, handlers),)
                )
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def _handler(self, method: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        request_type = method.input_type._concrete_class
        if method.name == "WatchTasks":
            return grpc.unary_stream_rpc_method_handler(
                self._watch_tasks,
                request_deserializer=request_type.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

        async def answer(request: Message, context: "Context") -> Message:
            self._remember(request, context)
            scripted = self.answers.get(method.name)
            if scripted is None:
                scripted = Refusal(grpc.StatusCode.UNIMPLEMENTED, f"no script for {method.name}")
            if isinstance(scripted, Refusal):
                await scripted.send(context)
            elif not isinstance(scripted, Message):
                scripted = scripted(request)
            assert isinstance(scripted, Message)
            return scripted

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    async def _watch_tasks(
        self, request: download_pb2.WatchTasksRequest, context: "Context"
    ) -> AsyncIterator[download_pb2.WatchTasksResponse]:
        self._remember(request, context)
        script = self.watch.pop(0)
        for step in script:
            if isinstance(step, download_pb2.Task):
                yield download_pb2.WatchTasksResponse(task=step)
                continue
            try:
                await asyncio.to_thread(step)
            except Refusal as refusal:
                await refusal.send(context)

    def _remember(self, request: Message, context: "Context") -> None:
        self.requests.append(request)
        self.metadata.append(
            {key: str(value) for key, value in context.invocation_metadata() or ()}
        )


def _packed(message: Message) -> Packed:
    packed = Packed()
    packed.Pack(message)
    return packed
