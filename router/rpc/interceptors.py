"""What every call passes: errors become statuses, calls are counted."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from grpc import StatusCode

from protos.daemon.logs import get_logger
from router.domain.errors import DomainError
from router.metrics import RpcMetrics
from router.rpc.errors import DETAILS_KEY, code_of, details_of

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_BARE = "internal error: the router's log says more"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Translates domain errors; anything else is logged whole and leaves as INTERNAL, bare."""

    def __init__(self, metrics: RpcMetrics) -> None:
        """Counts every call in `metrics`."""
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of the call."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/llmrouter."):
            return handler
        method = handler_call_details.method
        if handler.request_streaming and not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._collecting(method, handler.stream_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._session(method, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(call):
            raise TypeError(f"{method}: a unary handler is synchronous, it runs in the pool")

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            started = time.monotonic()
            code = StatusCode.OK
            try:
                return call(request, context)
            except DomainError as error:
                code = code_of(error)
                context.set_trailing_metadata(((DETAILS_KEY, details_of(error)),))
                context.abort(code, error.message)
            except Exception:
                code = StatusCode.INTERNAL
                log.exception("call failed", method=method)
                context.abort(code, _BARE)
            finally:
                self._metrics.handled(method, code, time.monotonic() - started)

        return handle

    def _streaming(
        self, method: str, call: Callable[..., AsyncGenerator[Any, None]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            async with (
                self._translated(method, context),
                aclosing(call(request, context)) as responses,
            ):
                async for response in responses:
                    yield response

        return handle

    def _collecting(
        self, method: str, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
            async with self._translated(method, context):
                return await call(requests, context)

        return handle

    def _session(
        self, method: str, call: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        async def handle(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._translated(method, context):
                await call(requests, context)

        return handle

    @asynccontextmanager
    async def _translated(self, method: str, context: Context) -> AsyncIterator[None]:
        started = time.monotonic()
        code = StatusCode.CANCELLED
        try:
            yield
            code = StatusCode.OK
        except DomainError as error:
            code = code_of(error)
            await context.abort(code, error.message, ((DETAILS_KEY, details_of(error)),))
        except (asyncio.CancelledError, GeneratorExit, grpc.aio.AbortError):
            raise
        except Exception:
            code = StatusCode.INTERNAL
            log.exception("stream failed", method=method)
            await context.abort(code, _BARE)
        finally:
            self._metrics.handled(method, code, time.monotonic() - started)
