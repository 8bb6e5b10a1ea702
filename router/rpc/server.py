"""The gRPC server: the services, health, reflection, and limits."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.daemon.listen import address
from protos.llmrouter.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    download_pb2,
    download_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
)
from router.rpc.agents import AgentServicer
from router.rpc.interceptors import ErrorInterceptor
from router.rpc.servicers import (
    CatalogServicer,
    DownloadServicer,
    NodeServicer,
    RegistrationServicer,
)

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MAX_METADATA_BYTES = 16 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    # A second process on the port is an error, not a silent sharer.
    ("grpc.so_reuseport", 0),
    # A client may ping every 10 s; the server notices within 40 s that a peer is gone.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
# Calls that wait for a slow Hub must not keep the others waiting; threads are made when needed.
_POOL_THREADS = 64

_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (agent_pb2, "AgentService"),
        (catalog_pb2, "CatalogService"),
        (download_pb2, "DownloadService"),
        (node_pb2, "NodeService"),
        (registration_pb2, "RegistrationService"),
    )
)


class CannotListen(Exception):
    """The address is taken or not one of this machine."""


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything that the server serves."""

    catalog: CatalogServicer
    registration: RegistrationServicer
    download: DownloadServicer
    node: NodeServicer
    agent: AgentServicer


class RpcServer:
    """The router's gRPC side. Belongs to the event loop."""

    def __init__(self, servicers: Servicers, interceptor: ErrorInterceptor) -> None:
        """Nothing listens yet."""
        self._pool = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="rpc")
        self._server = grpc.aio.server(
            migration_thread_pool=self._pool, interceptors=(interceptor,), options=_OPTIONS
        )
        server = self._server
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(servicers.catalog, server)
        registration_pb2_grpc.add_RegistrationServiceServicer_to_server(
            servicers.registration, server
        )
        download_pb2_grpc.add_DownloadServiceServicer_to_server(servicers.download, server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(servicers.node, server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(servicers.agent, server)
        self._agents = servicers.agent
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port (port 0: any free one). Raises `CannotListen`."""
        try:
            bound = self._server.add_insecure_port(address(host, port))
        except RuntimeError as error:
            raise CannotListen(
                f"gRPC cannot listen on {address(host, port)}: the port is taken, "
                "or the address is not one of this machine"
            ) from error
        await self._server.start()
        for name in ("", *_SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return int(bound)

    async def stop(self, grace: float) -> None:
        """Says NOT_SERVING, takes no new calls, ends the rest after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
        self._agents.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
