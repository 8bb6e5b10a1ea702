"""The least that a router of streams can be: what grpc.aio alone costs on this machine, now.

The server keeps the streams and does nothing with what it reads, and it writes the same bytes to
everyone; so what the router takes beyond it, is the router's own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from bench.fleet import CHANNEL_OPTIONS

_METHOD = "/bare.Streams/Connect"
_CONNECTING_AT_A_TIME = 50
Raw = AsyncIterator[bytes]
Context = grpc.aio.ServicerContext[bytes, bytes]


class BareServer:
    """Counts what arrives, and can write to all."""

    def __init__(self) -> None:
        self._streams: set[Any] = set()
        self._answers = 0
        self._expected = 0
        self._all = asyncio.Event()
        self._server = grpc.aio.server()

    async def start(self) -> int:
        """Listens; the port."""
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        service = grpc.method_handlers_generic_handler("bare.Streams", {"Connect": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def tell_all(self, size: int) -> float:
        """Writes `size` bytes to every stream; seconds until the last one's answer came."""
        self._answers, self._expected = 0, len(self._streams)
        self._all.clear()
        message = b"o" * size
        began = time.monotonic()
        await asyncio.gather(*(context.write(message) for context in self._streams))
        await self._all.wait()
        return time.monotonic() - began

    async def _connect(self, requests: Raw, context: Context) -> None:
        self._streams.add(context)
        try:
            async for request in requests:
                if request.startswith(b"a"):
                    self._answers += 1
                    if self._answers == self._expected:
                        self._all.set()
                elif request.startswith(b"s"):
                    await context.write(b"settled")
        finally:
            self._streams.discard(context)


class BareFleet:
    """Clients that answer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._clients: list[tuple[Any, asyncio.Lock]] = []  # a call takes one write at a time
        self._reading: list[asyncio.Task[None]] = []
        self._settled = 0
        self._all_settled = asyncio.Event()

    async def connect(self, count: int) -> None:
        """Grows to `count` connected clients."""
        gate = asyncio.Semaphore(_CONNECTING_AT_A_TIME)

        async def add() -> None:
            async with gate:
                channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
                call: Any = channel.stream_stream(_METHOD)()
                await call.write(b"hello")
                lock = asyncio.Lock()
                self._clients.append((call, lock))
                self._reading.append(asyncio.create_task(self._read(call, lock)))

        await asyncio.gather(*(add() for _ in range(len(self._clients), count)))

    async def flood(self, seconds: float, size: int) -> float:
        """Everyone writes messages of `size` bytes as fast as they are read: messages a second."""
        begin, message = time.monotonic(), b"r" * size
        self._settled = 0
        self._all_settled.clear()

        async def without_end(call: Any, lock: asyncio.Lock) -> int:
            sent = 0
            async with lock:
                while time.monotonic() < begin + seconds:
                    await call.write(message)
                    sent += 1
                await call.write(b"s")
            return sent

        flooding = (without_end(call, lock) for call, lock in self._clients)
        sent = sum(await asyncio.gather(*flooding))
        await self._all_settled.wait()
        return sent / (time.monotonic() - begin)

    async def _read(self, call: Any, lock: asyncio.Lock) -> None:
        async for command in call:
            if command == b"settled":
                self._settled += 1
                if self._settled == len(self._clients):
                    self._all_settled.set()
            else:
                async with lock:
                    await call.write(b"answer" * 10)
