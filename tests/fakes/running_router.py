"""The real router in this process, on free ports, in a thread with a loop of its own."""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from protos.llmrouter.v1 import (
    agent_pb2_grpc,
    catalog_pb2_grpc,
    download_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from router.app import Router
from router.config import Config, Timers
from tests.support import eventually

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Stubs:
    """A client of every service."""

    catalog: catalog_pb2_grpc.CatalogServiceStub
    registration: registration_pb2_grpc.RegistrationServiceStub
    download: download_pb2_grpc.DownloadServiceStub
    node: node_pb2_grpc.NodeServiceStub
    agent: agent_pb2_grpc.AgentServiceStub


class RunningRouter:
    """Enter it, call it; what it keeps is in `folder`, so a second one there is its restart."""

    def __init__(
        self,
        folder: Path,
        hub_url: str,
        *,
        timers: Timers | None = None,
        max_nodes: int = 50,
        max_watches: int = 50,
        hub_pass_through: bool = False,
    ) -> None:
        self._config = Config(
            host="127.0.0.1",
            http_port=0,
            grpc_port=0,
            data_dir=folder,
            database_url=f"sqlite:///{folder / 'router.db'}",
            hub_url=hub_url,
            max_nodes=max_nodes,
            max_watches=max_watches,
            timers=timers or Timers(),
            hub_pass_through=hub_pass_through,
        )
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.http_url = ""
        self.grpc_address = ""

    def __enter__(self) -> Self:
        """Returns when both ports serve."""
        self._thread.start()
        assert self._started.wait(PATIENCE_SECONDS)
        if self._failure is not None:
            raise self._failure
        self.channel = grpc.insecure_channel(self.grpc_address)
        self.call = Stubs(
            catalog_pb2_grpc.CatalogServiceStub(self.channel),
            registration_pb2_grpc.RegistrationServiceStub(self.channel),
            download_pb2_grpc.DownloadServiceStub(self.channel),
            node_pb2_grpc.NodeServiceStub(self.channel),
            agent_pb2_grpc.AgentServiceStub(self.channel),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops as SIGTERM does."""
        self.channel.close()
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)

    def clear(self) -> None:
        """Forgets every model and node, and the nodes' tasks with them. No agent may be left."""
        models, nodes = self.call.registration, self.call.node
        for model in models.ListModels(registration_pb2.ListModelsRequest()).models:
            models.UnregisterModel(
                registration_pb2.UnregisterModelRequest(model_name=model.model_name, force=True)
            )
        for node in nodes.ListNodes(node_pb2.ListNodesRequest()).nodes:
            request = node_pb2.GetNodeRequest(node_id=node.node_id)
            eventually(
                lambda asked=request: (
                    nodes.GetNode(asked).node.status  # type: ignore[misc]
                    == node_pb2.NODE_STATUS_OFFLINE
                )
            )
            nodes.RemoveNode(node_pb2.RemoveNodeRequest(node_id=node.node_id))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()
            raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        router = Router(self._config)
        try:
            await router.start()
            self.http_url, self.grpc_address = router.http_url, router.grpc_address
            self._started.set()
            await self._stop.wait()
        finally:
            await router.stop()
