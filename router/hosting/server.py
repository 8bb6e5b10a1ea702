"""Runs the Hub as a daemon: listens, says that it is ready, drains on SIGTERM."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from protos.daemon.listen import address
from protos.daemon.logs import get_logger
from protos.daemon.ready import remove_ready_file, write_ready_file
from protos.daemon.stopping import DRAIN_SECONDS, stop_signals

log = get_logger(__name__)

_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen (port 0: any free one), and where to say so."""

    host: str
    port: int
    ready_file: Path | None = None


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


async def serve(app: Starlette, endpoint: Endpoint) -> None:
    """Serves until SIGTERM or SIGINT, then lets running answers end, within `DRAIN_SECONDS`.

    Raises `OSError` when the address cannot be listened on.
    """
    listener = listen(endpoint.host, endpoint.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(DRAIN_SECONDS / 2),
        server_header=False,
    )
    server = Server(config)
    with stop_signals() as stop:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        started = asyncio.create_task(server.serving.wait())
        await asyncio.wait({running, stopping, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            url = f"http://{address(endpoint.host, listener.getsockname()[1])}"
            write_ready_file(endpoint.ready_file, http=url)
            log.info("ready", http=url)
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        remove_ready_file(endpoint.ready_file)
        server.should_exit = True
        stopping.cancel()
        started.cancel()
        await running


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address of the host; raises `OSError`."""
    bare = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return socket.create_server((str(place[0]), int(place[1])), family=family, backlog=_BACKLOG)
