"""Builds an agent from its parts, and runs it until it is told to stop."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from agent import host
from agent.after_commit import Arrival
from agent.assignment import TaskOrder
from agent.background import Checks
from agent.config import Config
from agent.connection import Backoff, Connection
from agent.engines import handover_to
from agent.handover import Handover
from agent.host import Gpu
from agent.identity import data_folder, node_id
from agent.inventory import Inventory
from agent.node import Node
from agent.peers import Sharing
from agent.quota import Quota
from agent.router_files import router_url
from agent.runner import Runner, Transferring, account_of
from agent.scrub import Scrub
from agent.store import Store
from agent.swarm import SwarmDesk
from agent.transfer import RateLimit, Transfer, TransferOptions, TransferProgress
from agent.urls import FileUrls, UrlDesk
from protos.daemon.logs import get_logger
from protos.daemon.ready import remove_ready_file, version, write_ready_file
from protos.daemon.stopping import DRAIN_SECONDS, stop_signals
from protos.llmrouter.v1 import agent_pb2, node_pb2

log = get_logger(__name__)

STORE_FOLDER = "store"
SCRUB_FOLDER = "scrub"
VERIFY_TIMES_FILE = "verify-times.json"
_STOPPING_SECONDS = DRAIN_SECONDS * 0.7


async def run(config: Config) -> None:
    """Runs an agent until SIGTERM or SIGINT; transfers then keep what they have.

    Raises `DataFolderInUse`, `DamagedIdentity`, `StoreError`, `OSError` when it cannot begin.
    """
    with stop_signals() as stop, data_folder(config.data_dir) as folder:
        identity = node_id(folder)
        store = Store(config.models_dir, folder / STORE_FOLDER)
        log.info(
            "agent started",
            node_id=identity,
            name=config.name,
            router=config.router,
            models_dir=str(store.models_dir),
            version=version(),
        )
        async with _serving(config, folder, identity, store) as addresses:
            write_ready_file(config.ready_file, **addresses)
            try:
                await stop.wait()
            finally:
                remove_ready_file(config.ready_file)
        log.info("agent stopped", node_id=identity)


@contextlib.asynccontextmanager
async def _serving(
    config: Config, folder: Path, identity: str, store: Store
) -> AsyncIterator[dict[str, str]]:
    """Runs everything; yields the addresses for the ready file."""
    gpus = await asyncio.to_thread(host.gpus)
    desk = UrlDesk(lambda url: router_url(url, config.router, node.router_http_port))
    hub_rate = RateLimit()
    loop = asyncio.get_running_loop()
    sharing = Sharing(config.serving, store.shelf, lambda: node.peer_key, config.router)
    swarm = SwarmDesk(store.shelf.find, lambda: node.peer_key, loop, node_id=identity)
    node = Node(
        folder,
        hello=_Introduction(config, identity, gpus, sharing).hello,
        disk=lambda: host.disk(config.models_dir),
        desk=desk,
        hub_rate=hub_rate,
        swarm=swarm,
    )
    rate = RateLimit(config.max_rate)
    checks = Checks()
    quota = Quota(store, config.max_store_bytes, node.wanted, checks, store.shelf.is_read)
    handover = handover_to(config.engines, store, folder)

    def new_transfer(order: TaskOrder) -> Transferring:
        return _Fetch(order, config, store, rate, hub_rate, desk, loop, quota, handover, swarm)

    def store_changed() -> None:
        node.inventory_changed()
        handover.wake()

    runner = Runner(
        store,
        new_transfer,
        rate=rate,
        own_rate=config.max_rate,
        max_concurrent=config.max_concurrent,
        listener=node,
        limit_upload=sharing.limit,
    )
    inventory = Inventory(store, folder / VERIFY_TIMES_FILE, store_changed, checks=checks)
    swarm.held = inventory.look_again
    scrub = Scrub(
        store,
        folder / SCRUB_FOLDER,
        interval=config.scrub_interval,
        rate=config.scrub_rate,
        wanted=lambda: node.models,
        changed=inventory.look_again,
        checks=checks,
    )
    connection = Connection(
        config.router, node, Backoff(config.backoff_first_seconds, config.backoff_max_seconds)
    )
    addresses = await asyncio.to_thread(sharing.start)
    node.follow(runner, inventory)
    async with _background(
        inventory.run(), node.keep_ledger(), connection.run(), scrub.run(), handover.run()
    ):
        try:
            yield addresses
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOPPING_SECONDS):
                    await asyncio.gather(runner.close(), asyncio.to_thread(sharing.close))
            swarm.close()
    node.save()


class _Fetch:
    """A transfer together with whom it asks for URLs: both stop as one."""

    def __init__(
        self,
        order: TaskOrder,
        config: Config,
        store: Store,
        rate: RateLimit,
        hub_rate: RateLimit,
        desk: UrlDesk,
        loop: asyncio.AbstractEventLoop,
        quota: Quota,
        handover: Handover,
        swarm: SwarmDesk,
    ) -> None:
        self._order = order
        self._snapshot = store.snapshot(order.manifest)
        self._quota = quota
        self._handover = handover
        self._urls = FileUrls(
            order.task_id, desk, loop, hub_url=config.hub_url, token=config.hf_token
        )
        self._transfer = Transfer(
            order.manifest,
            store,
            TransferOptions(
                reserve_bytes=config.reserve_bytes,
                xet=config.xet,
                stall_seconds=config.stall_seconds,
                task_id=account_of(order),
            ),
            rate,
            self._urls.resolve,
            log,
            hub_rate=hub_rate,
            swarm=swarm,
        )

    def run(self) -> None:
        """See `Transferring`."""
        manifest = self._order.manifest
        with self._quota.room_for(manifest):
            self._transfer.run()
        self._handover.arrived(Arrival(self._order.task_id, manifest, self._snapshot))

    def stop(self, keep_partial: bool = True) -> None:
        """See `Transferring`."""
        self._transfer.stop(keep_partial)
        self._urls.stop()

    def progress(self) -> TransferProgress:
        """See `Transferring`."""
        return self._transfer.progress()

    def digests(self) -> dict[str, str]:
        """See `Transferring`."""
        return self._transfer.digests()


class _Introduction:
    """What this node says of itself at each connection."""

    def __init__(
        self, config: Config, identity: str, gpus: tuple[Gpu, ...], sharing: Sharing
    ) -> None:
        self._sharing = sharing
        self._config = config
        self._identity = identity
        self._gpus = gpus
        self._instance = secrets.token_hex(8)

    def hello(self) -> agent_pb2.Hello:
        """The present greeting."""
        config = self._config
        disk = host.disk(config.models_dir)
        return agent_pb2.Hello(
            node_id=self._identity,
            name=config.name,
            version=version(),
            labels=config.labels,
            memory_bytes=host.memory_bytes(),
            gpus=[node_pb2.Gpu(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in self._gpus],
            disk_free_bytes=disk.free_bytes,
            disk_total_bytes=disk.total_bytes,
            max_rate_bytes_per_second=config.max_rate or 0,
            max_concurrent=config.max_concurrent,
            reserve_bytes=config.reserve_bytes,
            instance=self._instance,
            peer_addresses=self._sharing.addresses(),
            max_upload_rate_bytes_per_second=self._sharing.max_rate or 0,
        )


@contextlib.asynccontextmanager
async def _background(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the parts beside the body, and cancels them after it; a part that breaks ends all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
