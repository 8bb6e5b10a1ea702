"""Builds the router: the only file that knows every room."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from protos.daemon.listen import address
from protos.daemon.logs import get_logger
from protos.daemon.ready import remove_ready_file, version, write_ready_file
from protos.daemon.stopping import DRAIN_SECONDS
from router.config import Config
from router.http_server import Server, listen
from router.hub.catalog import CatalogSettings, HubCatalog
from router.hub.heads import HubHeads
from router.hub.listings import ListingSettings
from router.metrics import FleetMetrics, RpcMetrics, SwarmMetrics, exposition
from router.peer_reader import PeerReader
from router.rest.app import Edge, create_app
from router.rest.events import Events
from router.rest.hub import HubSettings, SiteHub
from router.rpc.agents import AgentServicer
from router.rpc.agents import Timers as StreamTimers
from router.rpc.bundles import BundleStreams
from router.rpc.convert import Messages
from router.rpc.interceptors import ErrorInterceptor
from router.rpc.pieces import keep_time
from router.rpc.server import RpcServer, Servicers
from router.rpc.servicers import (
    CatalogServicer,
    DownloadServicer,
    NodeServicer,
    RegistrationServicer,
)
from router.rpc.watches import Watches
from router.services.board import Board
from router.services.bundles import Bundles
from router.services.catalog import CatalogBrowser
from router.services.downloads import Downloads
from router.services.evictions import Evictions
from router.services.feeds import Feeds
from router.services.holdings import Holdings
from router.services.line import Line
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.orders import Orders
from router.services.plans import Plans
from router.services.presence import Presence
from router.services.rates import Rates
from router.services.rollouts import Rollouts
from router.services.sessions import Sessions
from router.services.sites import Sites
from router.services.sources import Sources
from router.services.swarm import Swarms
from router.services.task_book import TaskBook
from router.services.upgrades import Upgrades
from router.services.watch import Topic, Watchers
from router.storage.blobs import BlobFolder
from router.storage.catalog_cache import StoredCatalogCache
from router.storage.database import Database
from router.storage.peer_key import peer_key
from router.storage.store import PeeweeStore

log = get_logger(__name__)

_THREADS = 32
# Streams never end by themselves: they are cut after this grace, well within the drain.
_GRACE_SECONDS = DRAIN_SECONDS / 4
# After a crash of the router an offline node's tasks are shown as they were so long ago.
_KEEP_PROGRESS_SECONDS = 1.0
_DIVIDE_PAUSE_SECONDS = 0.03  # what changes at one moment on many nodes is divided once
_DIVIDE_SHARE = 0.1  # of the time, at most
_DIVIDE_AGAIN_SECONDS = 5.0  # after an error
_KEEP_PROGRESS_SHARE = 0.05  # of the time, at most: with very many tasks less often


class Router:
    """One router process. `start`, then `stop`; both inside one event loop."""

    def __init__(self, config: Config) -> None:
        """Opens the database; raises `UnusableDatabase`."""
        self._config = config
        self._ready = False
        self._database = Database(config.database_url)
        store = PeeweeStore(self._database)
        self._catalog = HubCatalog(
            config.hub_url,
            StoredCatalogCache(self._database, _now),
            token=config.hub_token,
            settings=CatalogSettings(listing=ListingSettings(age=config.timers.catalog_age)),
        )
        epoch = store.next_epoch(_now())
        self._watchers = Watchers()
        presence, board = Presence(), Board()
        holdings = Holdings(store, board, presence, self._watchers)
        models = Models(
            store,
            self._catalog,
            holdings,
            presence,
            board,
            self._watchers,
            _now,
            context=config.default_context,
        )
        upgrades = Upgrades(
            store,
            self._catalog,
            models,
            holdings,
            presence,
            self._watchers,
            context=config.default_context,
        )
        line = Line(store, board, self._watchers, _now, lease=config.timers.lease)
        self._line = line
        sites = Sites(store, presence, line)
        book = TaskBook(store, board, self._watchers, _now)
        evictions = Evictions(store, self._watchers, _now)
        rollouts = Rollouts(store, presence, book, evictions, self._watchers, _now)
        self._rollouts = rollouts
        nodes = Nodes(
            store,
            models,
            holdings,
            presence,
            board,
            line,
            evictions,
            rollouts,
            self._watchers,
            _now,
        )
        rates = Rates()
        downloads = Downloads(
            store,
            models,
            nodes,
            presence,
            board,
            book,
            rollouts,
            evictions,
            rates,
            self._watchers,
            _now,
        )
        self._downloads = downloads
        plans = Plans(store, models, nodes, presence, board, rates)
        orders = Orders(store, models, nodes, plans, downloads, rollouts, book, _now)
        self._swarms = swarms = Swarms(time.monotonic, log.warning)
        key, kept = peer_key(config.data_dir), BlobFolder(config.data_dir / "bundles")
        self._reader = reader = PeerReader()
        self._heads = HubHeads(config.hub_url)
        sources = Sources(store, plans, orders, presence, board, kept, reader, key, _now)
        self._bundles = bundles = Bundles(
            store, models, holdings, sources, kept, reader, self._watchers, _now
        )
        browser = CatalogBrowser(self._catalog, store, holdings, context=config.default_context)
        sessions = Sessions(
            store,
            self._catalog,
            models,
            nodes,
            downloads,
            rollouts,
            holdings,
            presence,
            line,
            swarms,
            self._watchers,
            epoch=epoch,
            max_sessions=config.max_nodes,
        )
        feeds = Feeds(models, downloads, nodes, self._watchers, max_streams=config.max_watches)
        registry = CollectorRegistry()
        FleetMetrics(
            registry,
            nodes=lambda: _by_presence(presence.count(), nodes.count()),
            tasks=lambda: Counter(task.state.value for task in board.tasks()),
        )
        SwarmMetrics(
            registry,
            swarms=lambda: swarms.counts().swarms,
            grants=lambda: swarms.counts().grants,
            results=lambda: swarms.counts().results,
            wrong_pieces=lambda: swarms.counts().wrong_pieces,
        )
        self._rpc = _rpc_server(
            config,
            registry,
            browser,
            models,
            upgrades,
            plans,
            orders,
            downloads,
            nodes,
            sites,
            sessions,
            swarms,
            feeds,
            self._watchers,
            BundleStreams(bundles),
            Messages(config.hub_url, kept.has),
            key,
            lambda: self._http_port,
        )
        self._http_app = create_app(
            Edge(
                browser=browser,
                models=models,
                upgrades=upgrades,
                plans=plans,
                orders=orders,
                downloads=downloads,
                nodes=nodes,
                sites=sites,
                events=Events(
                    feeds, config.hub_url, epoch, comment_seconds=config.timers.event_comment
                ),
                hub=SiteHub(
                    models,
                    sources,
                    self._watchers,
                    HubSettings(config.hub_url, config.hub_pass_through, config.timers.hub_hold),
                    self._heads.told,
                ),
                hub_url=config.hub_url,
                host=config.host,
                ready=lambda: self._ready,
                metrics=lambda: exposition(registry),
            )
        )
        self._http: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._swarming: asyncio.Task[None] | None = None
        self._timing: asyncio.Task[None] | None = None
        self._dividing: asyncio.Task[None] | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._http_port = 0
        self.http_url = ""
        self.grpc_address = ""

    async def start(self) -> None:
        """Listens on both ports, then writes the ready file.

        Raises `CannotListen`, `OSError` when an address is taken.
        """
        config = self._config
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="core")
        )
        listener = listen(config.host, config.http_port)
        self._http_port = listener.getsockname()[1]
        grpc_port = await self._rpc.start(config.host, config.grpc_port)
        self._http = Server(_uvicorn_config(self._http_app))
        self._serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        await self._http.serving.wait()
        self.http_url = f"http://{address(config.host, self._http_port)}"
        self.grpc_address = address(config.host, grpc_port)
        self._keeping = asyncio.create_task(self._keep_progress())
        self._collecting = asyncio.create_task(self._collect_bundles())
        self._swarming = asyncio.create_task(keep_time(self._swarms))
        self._dividing = asyncio.create_task(self._divide_lines())
        self._timing = asyncio.create_task(self._look_at_the_time())
        self._ready = True
        write_ready_file(config.ready_file, http=self.http_url, grpc=self.grpc_address)
        log.info(
            "ready",
            version=version(),
            http=self.http_url,
            grpc=self.grpc_address,
            hub=config.hub_url,
        )

    async def stop(self) -> None:
        """Takes no new calls, lets short ones end, cuts streams, closes the database."""
        self._ready = False
        log.info("stopping")
        remove_ready_file(self._config.ready_file)
        self._catalog.close()
        self._reader.close()
        self._heads.close()
        if self._http is not None and self._serving is not None:
            self._http.should_exit = True
            await asyncio.gather(self._rpc.stop(_GRACE_SECONDS), self._serving)
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.wait({self._collecting})
        if self._dividing is not None:
            self._dividing.cancel()
            await asyncio.wait({self._dividing})
        if self._timing is not None:
            self._timing.cancel()
            await asyncio.wait({self._timing})
        if self._swarming is not None:
            self._swarming.cancel()
            await asyncio.wait({self._swarming})
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            await asyncio.to_thread(self._downloads.keep_progress)
        self._database.close()

    async def _collect_bundles(self) -> None:
        """At the start, and whenever a model may have gone: files of bundles that none needs."""
        with self._watchers.watch(Topic.MODEL) as watch:
            while True:
                try:
                    await asyncio.to_thread(self._bundles.collect)
                except Exception:  # they take room until the next time
                    log.exception("files of bundles that no model needs are not removed")
                await watch.changes()

    async def _look_at_the_time(self) -> None:
        """At every full minute: orders' windows open and close at no other moment."""
        while True:
            try:
                await asyncio.to_thread(self._rollouts.look_at_the_time)
            except Exception:  # the next minute may go better
                log.exception("orders are not carried on")
            await asyncio.sleep(60 - _now().timestamp() % 60)

    async def _keep_progress(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = _KEEP_PROGRESS_SECONDS
        while True:
            await asyncio.sleep(pause)
            begun = clock()
            try:
                await asyncio.to_thread(self._downloads.keep_progress)
            except Exception:  # a full disk is no reason to stop: what moves says so itself
                log.exception("progress is not kept")
            pause = max(_KEEP_PROGRESS_SECONDS, (clock() - begun) / _KEEP_PROGRESS_SHARE)

    async def _divide_lines(self) -> None:
        """Whenever something has changed at a site, or may have by itself."""
        clock = asyncio.get_running_loop().time
        with self._watchers.watch(Topic.SITE) as watch:
            while True:
                begun = clock()
                pause: float | None = _DIVIDE_AGAIN_SECONDS
                try:
                    pause = await asyncio.to_thread(self._line.divide)
                except Exception:  # the shares of before hold meanwhile
                    log.exception("the lines to the Hub are not divided")
                rest = max(_DIVIDE_PAUSE_SECONDS, (clock() - begun) / _DIVIDE_SHARE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await watch.changes()
                await asyncio.sleep(rest)


def _rpc_server(
    config: Config,
    registry: CollectorRegistry,
    browser: CatalogBrowser,
    models: Models,
    upgrades: Upgrades,
    plans: Plans,
    orders: Orders,
    downloads: Downloads,
    nodes: Nodes,
    sites: Sites,
    sessions: Sessions,
    swarms: Swarms,
    feeds: Feeds,
    watchers: Watchers,
    bundles: BundleStreams,
    messages: Messages,
    key: bytes,
    http_port: Callable[[], int],
) -> RpcServer:
    watches = Watches(feeds, messages)
    timers = StreamTimers(heartbeat=config.timers.heartbeat, lease=config.timers.lease)
    return RpcServer(
        Servicers(
            catalog=CatalogServicer(browser, messages),
            registration=RegistrationServicer(models, upgrades, bundles, messages, watches),
            download=DownloadServicer(plans, orders, downloads, watches),
            node=NodeServicer(nodes, sites, watches),
            agent=AgentServicer(sessions, swarms, watchers, messages, timers, key, http_port),
        ),
        ErrorInterceptor(RpcMetrics(registry)),
    )


def _uvicorn_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_GRACE_SECONDS),
    )


def _by_presence(online: int, known: int) -> dict[str, int]:
    return {"online": online, "offline": max(known - online, 0)}


def _now() -> datetime:
    return datetime.now(UTC)
