"""Serving HTTP: a listening socket, and uvicorn without its own mind about signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

_BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, but the caller decides about signals and learns when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then sets `serving`."""
        await super().startup(sockets)
        self.serving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the caller, who exits 0 after a drain."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address of the host; raises `OSError`."""
    bare = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    place = (str(place[0]), int(place[1]))
    listener = socket.create_server(place, family=family, backlog=_BACKLOG)
    # asyncio does this only for sockets that name TCP; without it an answer in two writes waits
    # 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
