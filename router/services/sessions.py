"""The agents' sessions: who is connected, what each is told, what each says."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from protos import names
from router.domain.catalog import FileUrl
from router.domain.errors import (
    FileNotInRepo,
    InvalidArgument,
    ModelNotFound,
    TaskNotFound,
    TooManyStreams,
)
from router.domain.models import Manifest
from router.domain.nodes import Assignment, Eviction, Hello, Inventory, RatesSet, TaskAssignment
from router.domain.ports import Catalog, Store
from router.domain.reach import Reach, reach
from router.domain.tasks import Task, TaskReport, TaskState
from router.services.downloads import Downloads
from router.services.holdings import Holdings
from router.services.line import Line, Share
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.presence import Presence
from router.services.rollouts import Rollouts
from router.services.swarm import Swarms, WantedFile
from router.services.watch import Topic, Watchers

_REVISIONS_PER_EPOCH = 1_000_000
_NOTHING_SET = RatesSet()
_TOLD = 1000  # files of which a session remembers that it was told an address


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says at a heartbeat, in absolute numbers.

    `max_hub_rate` is the share of the line that it follows, None when it has none; `held_back`: it
    could take more.
    """

    tasks: tuple[TaskReport, ...]
    disk_free_bytes: int
    disk_total_bytes: int
    done_evictions: tuple[str, ...]
    found_digests: tuple[tuple[str, dict[str, str]], ...] = ()
    max_hub_rate: int | None = None
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Settling:
    """What is to be stored of a report: `moving` is what `note_progress` left of it; with `seen`
    also that the node is alive, and the room on its disk.
    """

    session: "Session"
    report: Report
    moving: Sequence[TaskReport]
    seen: bool = False


class Sessions:
    """Opens and ends sessions, and says what a node should be doing."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        models: Models,
        nodes: Nodes,
        downloads: Downloads,
        rollouts: Rollouts,
        holdings: Holdings,
        presence: Presence,
        line: Line,
        swarms: Swarms,
        watchers: Watchers,
        *,
        epoch: int,
        max_sessions: int,
    ) -> None:
        """`epoch` grows with each start of the router."""
        self._store = store
        self._catalog = catalog
        self._models = models
        self._nodes = nodes
        self._downloads = downloads
        self._rollouts = rollouts
        self._holdings = holdings
        self._presence = presence
        self._line = line
        self._swarms = swarms
        self._watchers = watchers
        self._max_sessions = max_sessions
        self.epoch = epoch
        self._lock = threading.Lock()
        self._revision = epoch * _REVISIONS_PER_EPOCH

    def open(self, hello: Hello) -> "Session":
        """Takes a node in; an older session of it is fenced.

        Raises `InvalidArgument` for names that break the grammar, `TooManyStreams`.
        """
        try:
            names.node_id(hello.node_id)
            names.node_name(hello.name)
            for key, value in hello.labels.items():
                names.label(key, value)
        except names.InvalidName as error:
            raise InvalidArgument(str(error), param="hello") from None
        crowded = self._presence.count() >= self._max_sessions
        if crowded and not self._presence.online(hello.node_id):
            raise TooManyStreams(
                f"{self._max_sessions} nodes are connected, the limit of this router",
                retry_after=30,
            )
        reached = reach(hello.peer_addresses, hello.seen_host)
        number = self._presence.arrive(hello.node_id, reached)
        try:
            self._nodes.welcome(hello)
            self._line.arrive(hello.node_id)
        except BaseException:
            self._presence.leave(hello.node_id, number)
            raise
        # Wakes an older session of the node, which finds that it is fenced.
        self._watchers.publish(Topic.ASSIGNMENT, hello.node_id)
        return Session(self, hello.node_id, number, reached)

    def close(self, session: "Session") -> None:
        """The stream has ended; the node is offline unless it has come back already."""
        heard_at = self._presence.heard_at(session.node_id)
        if self._presence.leave(session.node_id, session.number):
            self._line.leave(session.node_id)
            if session.disk is not None:
                self._nodes.seen(session.node_id, *session.disk, at=heard_at)
            self._nodes.published(session.node_id)

    def fenced(self, session: "Session") -> bool:
        """Whether a newer session of the same node has come."""
        return not self._presence.current(session.node_id, session.number)

    def assignments(self, node_ids: Sequence[str]) -> list[Assignment]:
        """Everything that each node should be doing and holding.

        Of several nodes together: an order concerns them all at one moment.
        """
        tasks = {node_id: self._downloads.resumable(node_id) for node_id in node_ids}
        # The store is looked at after the board, which follows it.
        named = {task.model_name for of_node in tasks.values() for task in of_node}
        models = (self._store.model(name) for name in named)
        manifests = {model.name: model.manifest for model in models if model is not None}
        evictions: dict[str, list[Eviction]] = {}
        for eviction in self._store.evictions(node_ids[0] if len(node_ids) == 1 else ""):
            evictions.setdefault(eviction.node_id, []).append(eviction)
        rates = self._store.rates_set()
        holds = self._rollouts.holds()
        # Before the nodes hear of them: they share these files at once.
        for node_id in node_ids:
            site = self._nodes.site(node_id)
            self._swarms.assign(node_id, site, _wanted(tasks[node_id], manifests))
        with self._lock:
            first = self._revision + 1
            self._revision += len(node_ids)
        return [
            Assignment(
                revision=first + place,
                tasks=tuple(_assigned(tasks[node_id], manifests, holds)),
                evictions=tuple(evictions.get(node_id, ())),
                keep_partials=tuple(_kept(tasks[node_id], manifests)),
                max_rate=rates.get(node_id, _NOTHING_SET).max_rate,
                max_upload_rate=rates.get(node_id, _NOTHING_SET).max_upload_rate,
            )
            for place, node_id in enumerate(node_ids)
        ]

    def settle(self, told: Sequence[Settling]) -> None:
        """Stores what reports change for good; of all of them, or of none if it raises."""
        with self._store.transaction():
            current = [settling for settling in told if not self.fenced(settling.session)]
            for settling in current:
                for task_id, digests in settling.report.found_digests:
                    self._fix_digests(settling.session.node_id, task_id, digests)
            self._downloads.settle(
                [
                    (settling.session.node_id, report)
                    for settling in current
                    for report in settling.moving
                ]
            )
            for settling in current:
                session = settling.session
                if settling.report.done_evictions:
                    self._nodes.evicted(session.node_id, settling.report.done_evictions)
                if settling.seen and session.disk is not None:
                    self._nodes.seen(session.node_id, *session.disk)

    def inventory(self, session: "Session", inventory: Inventory) -> None:
        """Takes in what the node holds; what it has lost is brought back where it was ordered."""
        if self.fenced(session):
            return
        with self._store.transaction():
            lost = self._holdings.take_inventory(session.node_id, inventory)
            self._downloads.repair(session.node_id, lost)
        files = {file.sha256: file.size_bytes for file in inventory.files}
        self._swarms.hold(session.node_id, session.number, files, partial=inventory.partial)

    def file_url(self, session: "Session", task_id: str, path: str) -> FileUrl:
        """A URL for a file of one of the node's own tasks. Asks the Hub.

        Raises `TaskNotFound`, `ModelNotFound`, `FileNotInRepo`, and what the Hub says.
        """
        task = self._store.task(task_id)
        if task is None or task.node_id != session.node_id:
            raise TaskNotFound(f'task "{task_id}" is not one of this node', param="task_id")
        model = self._store.model(task.model_name)
        if model is None:
            raise ModelNotFound(f'model "{task.model_name}" is not registered', param="task_id")
        if all(file.path != path for file in model.manifest.files):
            raise FileNotInRepo(f'model "{model.name}" has no file "{path}"', param="path")
        # Who asks a second time was refused at what it got.
        fresh = (task_id, path) in session.told
        session.told[task_id, path] = None
        while len(session.told) > _TOLD:
            session.told.pop(next(iter(session.told)), None)
        pinned = model.manifest
        return self._catalog.file_url(pinned.repo, pinned.commit, path, fresh=fresh)

    def note_line(self, session: "Session", report: Report) -> None:
        """Takes in what the node takes of its site's line, in memory alone. Never blocks."""
        if not self.fenced(session):
            self._line.report(
                session.node_id,
                report.tasks,
                follows=report.max_hub_rate,
                held_back=report.held_back,
            )

    def line_share(self, session: "Session") -> Share | None:
        """How fast the node may take from the Hub now; None before that was found out."""
        return self._line.share(session.node_id)

    def note_progress(self, session: "Session", reports: Iterable[TaskReport]) -> list[TaskReport]:
        """Takes in progress, in memory alone; what is left is for `settle`. Never blocks."""
        if self.fenced(session):
            return []
        self._nodes.hear(session.node_id)
        return self._downloads.note_progress(session.node_id, reports)

    def _fix_digests(self, node_id: str, task_id: str, digests: dict[str, str]) -> None:
        task = self._store.task(task_id)
        if task is None or task.node_id != node_id:
            return
        try:
            checked = {path: names.sha256(digest) for path, digest in digests.items()}
        except names.InvalidName:
            return
        self._models.fix_digests(task.model_name, checked)


def _assigned(
    tasks: Iterable[Task], manifests: Mapping[str, Manifest], holds: Mapping[str, str]
) -> Iterator[TaskAssignment]:
    for task in tasks:
        if not task.ended and task.model_name in manifests:
            yield TaskAssignment(
                task_id=task.task_id,
                attempt=task.attempt,
                manifest=manifests[task.model_name],
                paused=task.state is TaskState.PAUSED,
                priority=task.priority,
                hold=holds.get(task.task_id, ""),
            )


def _kept(tasks: Iterable[Task], manifests: Mapping[str, Manifest]) -> Iterable[Manifest]:
    kept = (manifests.get(task.model_name) for task in tasks if task.ended)
    return dict.fromkeys(manifest for manifest in kept if manifest is not None)


def _wanted(tasks: Iterable[Task], manifests: Mapping[str, Manifest]) -> dict[str, WantedFile]:
    """The files of the unfinished tasks by digest; those without one cannot be shared."""
    return {
        file.sha256: WantedFile(file.path, file.size_bytes)
        for task in tasks
        if not task.ended and task.model_name in manifests
        for file in manifests[task.model_name].files
        if file.sha256 is not None
    }


class Session:
    """One stream of one node. `disk` is (free, total) bytes of its last report."""

    def __init__(self, sessions: Sessions, node_id: str, number: int, reach: Reach) -> None:
        """Made by `Sessions.open`."""
        self._sessions = sessions
        self.node_id = node_id
        self.number = number
        self.reach = reach
        self.disk: tuple[int, int] | None = None
        self.told: dict[tuple[str, str], None] = {}  # (task, path) of the addresses given
