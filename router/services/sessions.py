"""The agents' sessions: who is connected, what each is told, what each says."""

import threading
from collections.abc import Iterable
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
from router.domain.nodes import Assignment, Hello, Inventory, TaskAssignment
from router.domain.ports import Catalog, Store
from router.domain.tasks import TaskReport, TaskState
from router.services.downloads import Downloads
from router.services.holdings import Holdings
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.presence import Presence
from router.services.watch import Topic, Watchers

_REVISIONS_PER_EPOCH = 1_000_000


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says at a heartbeat, in absolute numbers."""

    tasks: tuple[TaskReport, ...]
    disk_free_bytes: int
    disk_total_bytes: int
    done_evictions: tuple[str, ...]
    found_digests: tuple[tuple[str, dict[str, str]], ...] = ()


class Sessions:
    """Opens and ends sessions, and says what a node should be doing."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        models: Models,
        nodes: Nodes,
        downloads: Downloads,
        holdings: Holdings,
        presence: Presence,
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
        self._holdings = holdings
        self._presence = presence
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
        number = self._presence.arrive(hello.node_id)
        try:
            self._nodes.welcome(hello)
        except BaseException:
            self._presence.leave(hello.node_id, number)
            raise
        # Wakes an older session of the node, which finds that it is fenced.
        self._watchers.publish(Topic.ASSIGNMENT, hello.node_id)
        return Session(self, hello.node_id, number)

    def close(self, session: "Session") -> None:
        """The stream has ended; the node is offline unless it has come back already."""
        if self._presence.leave(session.node_id, session.number):
            if session.disk is not None:
                self._nodes.seen(session.node_id, *session.disk)
            self._nodes.published(session.node_id)

    def fenced(self, session: "Session") -> bool:
        """Whether a newer session of the same node has come."""
        return not self._presence.current(session.node_id, session.number)

    def assignment(self, node_id: str) -> Assignment:
        """Everything that the node should be doing and holding."""
        with self._lock:
            self._revision += 1
            revision = self._revision
        manifests: dict[str, Manifest | None] = {}
        running, kept = [], []
        for task in self._store.resumable_tasks(node_id):
            if task.model_name not in manifests:
                model = self._store.model(task.model_name)
                manifests[task.model_name] = None if model is None else model.manifest
            manifest = manifests[task.model_name]
            if manifest is None:
                continue
            if task.ended:
                kept.append(manifest)
            else:
                running.append(
                    TaskAssignment(
                        task_id=task.task_id,
                        attempt=task.attempt,
                        manifest=manifest,
                        paused=task.state is TaskState.PAUSED,
                        priority=task.priority,
                    )
                )
        node = self._store.node(node_id)
        return Assignment(
            revision=revision,
            tasks=tuple(running),
            evictions=tuple(self._store.evictions(node_id)),
            keep_partials=tuple(dict.fromkeys(kept)),
            max_rate=node.set_max_rate if node else None,
        )

    def settle(self, session: "Session", report: Report, moving: Iterable[TaskReport]) -> None:
        """Stores what a report changes for good."""
        if self.fenced(session):
            return
        for task_id, digests in report.found_digests:
            self._fix_digests(session.node_id, task_id, digests)
        self._downloads.settle(session.node_id, moving)
        if report.done_evictions:
            self._nodes.evicted(session.node_id, report.done_evictions)

    def seen(self, session: "Session") -> None:
        """Stores the room on the node's disk, and that it is alive."""
        if session.disk is not None and not self.fenced(session):
            self._nodes.seen(session.node_id, *session.disk)

    def inventory(self, session: "Session", inventory: Inventory) -> None:
        """Takes in what the node holds."""
        if not self.fenced(session):
            self._holdings.take_inventory(session.node_id, inventory)

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
        return self._catalog.file_url(model.manifest.repo, model.manifest.commit, path)

    def note_progress(self, session: "Session", reports: Iterable[TaskReport]) -> list[TaskReport]:
        """Takes in progress, in memory alone; what is left is for `settle`. Never blocks."""
        if self.fenced(session):
            return []
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


class Session:
    """One stream of one node. `disk` is (free, total) bytes of its last report."""

    def __init__(self, sessions: Sessions, node_id: str, number: int) -> None:
        """Made by `Sessions.open`."""
        self._sessions = sessions
        self.node_id = node_id
        self.number = number
        self.disk: tuple[int, int] | None = None
