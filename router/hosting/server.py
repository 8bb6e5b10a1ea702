"""Runs the Hub as a daemon: listens, says that it is ready, drains on SIGTERM."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from protos.daemon.listen import address
from protos.daemon.logs import get_logger
from protos.daemon.ready import remove_ready_file, write_ready_file
from protos.daemon.stopping import DRAIN_SECONDS, stop_signals
from router.http_server import Server, listen

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen (port 0: any free one), and where to say so."""

    host: str
    port: int
    ready_file: Path | None = None


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
