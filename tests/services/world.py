"""The services over a real store, with a clock that the test moves and a catalog of its own."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from router.domain.models import Manifest, ModelView
from router.domain.nodes import Assignment, Gpu, HeldFile, Hello, Inventory, Settings
from router.domain.orders import OrderTarget, OrderView
from router.domain.tasks import (
    Bytes,
    Progress,
    TaskFailure,
    TaskReport,
    TaskState,
)
from router.services.board import Board
from router.services.catalog import CatalogBrowser
from router.services.downloads import Downloads
from router.services.evictions import Evictions
from router.services.feeds import Feeds
from router.services.holdings import Holdings
from router.services.line import Line
from router.services.models import Models, Registration
from router.services.nodes import Nodes
from router.services.orders import Orders
from router.services.plans import Plans
from router.services.presence import Presence
from router.services.rates import Rates
from router.services.rollouts import Rollouts
from router.services.sessions import Report, Session, Sessions, Settling
from router.services.sites import Sites
from router.services.swarm import Swarms
from router.services.task_book import TaskBook
from router.services.upgrades import Upgrades
from router.services.watch import Watchers
from router.storage.database import Database
from router.storage.store import PeeweeStore
from tests.fakes.catalog import FakeCatalog, gguf_repo

GB = 10**9
LEASE_SECONDS = 40.0  # of the share of a node that went away


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The present moment."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Lets so much time go by."""
        self.now += timedelta(seconds=seconds)


class World:
    """Everything of one router but its edges."""

    def __init__(self, folder: Path, *, max_streams: int = 10, max_sessions: int = 100) -> None:
        self.clock = Clock()
        self.catalog = FakeCatalog(gguf_repo("o/r"), gguf_repo("o/other"))
        self._path = folder / "router.db"
        self._max_streams = max_streams
        self._max_sessions = max_sessions
        self.restart()

    def restart(self) -> None:
        """Builds the services anew over the same file, as after a crash."""
        self.database = Database(f"sqlite:///{self._path}")
        store = self.store = PeeweeStore(self.database)
        self.watchers = Watchers()
        presence, board = self.presence, self.board = Presence(), Board()
        holdings = self.holdings = Holdings(store, board, presence, self.watchers)
        self.models = Models(
            store, self.catalog, holdings, presence, board, self.watchers, self.clock
        )
        self.upgrades = Upgrades(
            store, self.catalog, self.models, holdings, presence, self.watchers
        )
        self.line = Line(store, board, self.watchers, self.clock, lease=LEASE_SECONDS)
        self.sites = Sites(store, presence, self.line)
        book = TaskBook(store, board, self.watchers, self.clock)
        evictions = Evictions(store, self.watchers, self.clock)
        self.rollouts = Rollouts(store, presence, book, evictions, self.watchers, self.clock)
        self.nodes = Nodes(
            store,
            self.models,
            holdings,
            presence,
            board,
            self.line,
            evictions,
            self.rollouts,
            self.watchers,
            self.clock,
        )
        rates = Rates()
        self.downloads = Downloads(
            store,
            self.models,
            self.nodes,
            presence,
            board,
            book,
            self.rollouts,
            evictions,
            rates,
            self.watchers,
            self.clock,
        )
        self.plans = Plans(store, self.models, self.nodes, presence, board, rates)
        self.orders = Orders(
            store,
            self.models,
            self.nodes,
            self.plans,
            self.downloads,
            self.rollouts,
            book,
            self.clock,
        )
        self.browser = CatalogBrowser(self.catalog, store, holdings)
        self.warnings: list[tuple[str, dict[str, object]]] = []
        self.swarms = Swarms(
            lambda: self.clock.now.timestamp(),
            lambda event, **fields: self.warnings.append((event, fields)),
        )
        self.sessions = Sessions(
            store,
            self.catalog,
            self.models,
            self.nodes,
            self.downloads,
            self.rollouts,
            holdings,
            presence,
            self.line,
            self.swarms,
            self.watchers,
            epoch=store.next_epoch(self.clock()),
            max_sessions=self._max_sessions,
        )
        self.feeds = Feeds(
            self.models, self.downloads, self.nodes, self.watchers, max_streams=self._max_streams
        )

    def register(self, repo: str = "o/r", **wanted: str) -> ModelView:
        """Registers a model of the catalog."""
        return self.models.register(Registration(repo, **wanted))[0]

    def connect(self, node_id: str = "node-1", *, name: str = "", free: int = 100 * GB) -> Session:
        """A node says hello."""
        hello = Hello(
            node_id=node_id,
            name=name or node_id,
            version="1",
            labels={"site": "a"},
            memory_bytes=64 * GB,
            gpus=(Gpu("G", 24 * GB),),
            disk_free_bytes=free,
            disk_total_bytes=200 * GB,
            settings=Settings(),
            instance="i",
        )
        session = self.sessions.open(hello)
        session.disk = (free, 200 * GB)
        return session

    def order(self, model: str = "o/r:Q4_K_M", *nodes: str, **options: str) -> OrderView:
        """Orders a model onto nodes, without any: onto all."""
        target = OrderTarget.SPECIFIC if nodes else OrderTarget.ALL
        return self.orders.start(model, target, nodes, request_id=options.get("request_id", ""))

    def report(
        self,
        session: Session,
        task_id: str,
        state: TaskState,
        *,
        done: int = 0,
        attempt: int = 1,
        speed: int = 0,
        failure: TaskFailure | None = None,
    ) -> None:
        """A node's report of one task, taken in as a stream does."""
        progress = Progress(bytes_done=done, bytes_from=Bytes(hub=done), speed=speed, eta=1.0)
        told = TaskReport(task_id, attempt, state, progress, failure)
        whole = Report((told,), 100 * GB, 200 * GB, ())
        moving = self.sessions.note_progress(session, whole.tasks)
        self.sessions.settle([Settling(session, whole, moving)])

    def assignment(self, node_id: str) -> Assignment:
        """What the node is told."""
        return self.sessions.assignments([node_id])[0]

    def complete(self, session: Session, task_id: str) -> None:
        """The node brings a task to its end."""
        self.report(session, task_id, TaskState.DOWNLOADING, done=500)
        self.report(session, task_id, TaskState.VERIFYING, done=1000)
        self.report(session, task_id, TaskState.COMPLETED, done=1000)

    def take_inventory(
        self, session: Session, manifests: Iterable[Manifest] = (), *, partial: bool = False
    ) -> None:
        """The node lists every file of these manifests, and nothing else."""
        files = tuple(
            HeldFile(
                manifest.repo,
                manifest.commit,
                file.path,
                file.size_bytes,
                file.sha256 or "f" * 64,
                self.clock(),
            )
            for manifest in manifests
            for file in manifest.files
        )
        self.sessions.inventory(session, Inventory(files, partial))
