"""Live feeds: the present state, then every change. What a watch sends over either edge."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from router.domain.errors import NotFound, TooManyStreams
from router.domain.models import HoldingState, ModelView
from router.domain.nodes import NodeView
from router.domain.tasks import TaskView
from router.services.downloads import Downloads
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.watch import Change, Topic, Watchers

_PAUSE_SECONDS = 0.05  # after news of models and nodes, which take many look-ups
_MANY_NODES = 16
AnyView = TaskView | ModelView | NodeView


@dataclass(frozen=True, slots=True)
class Item:
    """Something as it is now; `view` None: it is gone."""

    topic: Topic
    key: str
    view: AnyView | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything was sent once; what follows are changes."""

    sequence: int


class Feeds:
    """Makes feeds, at most `max_streams` at a time. Belongs to the event loop."""

    def __init__(
        self,
        models: Models,
        downloads: Downloads,
        nodes: Nodes,
        watchers: Watchers,
        *,
        max_streams: int,
    ) -> None:
        """Shows the services' views."""
        self._watchers = watchers
        self._max_streams = max_streams
        self._open = 0
        self._models = models
        self._downloads = downloads
        self._nodes = nodes

    @property
    def open_streams(self) -> int:
        """Number of feeds that somebody reads now."""
        return self._open

    async def follow(
        self, *topics: Topic, since: int | None = None
    ) -> AsyncGenerator[Item | Synced, None]:
        """All things of the topics, `Synced`, then changes; ends when the reader leaves.

        Of tasks, the unfinished ones; with models, also those that tell why a node failed to get
        one. Nothing but changes when `since` is still the sequence of
        the last change of anything. Raises `TooManyStreams`.
        """
        self._admit()
        try:
            with self._watchers.watch(*topics) as watch:
                sequence = self._watchers.sequence
                for topic in topics if since != sequence else ():
                    for key, view in await asyncio.to_thread(self._snapshot, topic, topics):
                        yield Item(topic, key, view, sequence)
                yield Synced(sequence)
                while True:
                    changes = await watch.changes()
                    many = await self._look_up_nodes(changes)
                    for change in changes:
                        found = many.get(change) or await self._look_up(change.topic, change.key)
                        yield Item(change.topic, change.key, found, change.sequence)
                    if any(change.topic is not Topic.TASK for change in changes):
                        # A thousand nodes that settle change one model a thousand times: it is
                        # looked up and sent once for each pause.
                        await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._open -= 1

    async def follow_tasks(self, task_ids: list[str]) -> AsyncGenerator[TaskView, None]:
        """Each named task as it is, then its changes; ends when all have ended.

        Raises `TaskNotFound`, `TooManyStreams`.
        """
        self._admit()
        try:
            with self._watchers.watch(Topic.TASK, keys=task_ids) as watch:
                running = set()
                for task_id in dict.fromkeys(task_ids):
                    view = await asyncio.to_thread(self._downloads.task, task_id)
                    if not view.task.ended:
                        running.add(task_id)
                    yield view
                while running:
                    for change in await watch.changes():
                        found = await self._look_up(change.topic, change.key)
                        if not isinstance(found, TaskView):
                            running.discard(change.key)  # its node was removed
                            continue
                        if found.task.ended:
                            running.discard(change.key)
                        else:
                            running.add(change.key)
                        yield found
        finally:
            self._open -= 1

    def require_room(self) -> None:
        """Raises `TooManyStreams` when no further feed may begin now."""
        if self._open >= self._max_streams:
            raise TooManyStreams(
                f"{self._max_streams} watches are open, the limit of this router", retry_after=10
            )

    def _admit(self) -> None:
        self.require_room()
        self._open += 1

    def _snapshot(self, topic: Topic, topics: Sequence[Topic]) -> list[tuple[str, AnyView]]:
        if topic is Topic.MODEL:
            return [(view.model.name, view) for view in self._models.all()]
        if topic is Topic.NODE:
            return [(view.node.node_id, view) for view in self._nodes.all()]
        tasks = self._downloads.unfinished()
        if Topic.MODEL in topics:
            tasks += self._downloads.known(
                holding.task_id
                for view in self._models.all()
                for holding in view.holdings
                if holding.state is HoldingState.FAILED
            )
        return [(view.task.task_id, view) for view in tasks]

    async def _look_up_nodes(self, changes: Sequence[Change]) -> dict[Change, NodeView]:
        """An order changes all nodes at once: they are read together then, not one by one."""
        changed = {change.key: change for change in changes if change.topic is Topic.NODE}
        if len(changed) < _MANY_NODES:
            return {}
        views = await asyncio.to_thread(self._nodes.all)
        return {changed[view.node.node_id]: view for view in views if view.node.node_id in changed}

    async def _look_up(self, topic: Topic, key: str) -> AnyView | None:
        if topic is Topic.TASK:
            live = self._downloads.live(key)
            if live is not None:
                return live
        try:
            return await asyncio.to_thread(self._stored, topic, key)
        except NotFound:
            return None

    def _stored(self, topic: Topic, key: str) -> AnyView:
        if topic is Topic.MODEL:
            return self._models.view(key)
        if topic is Topic.NODE:
            return self._nodes.get(key)
        return self._downloads.task(key)
