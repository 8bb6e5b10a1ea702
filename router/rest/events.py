"""Server-sent events: the present state, then every change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from router.domain.models import ModelView
from router.domain.nodes import NodeView
from router.domain.tasks import TaskView
from router.rest.shapes.downloads import TaskShape
from router.rest.shapes.models import RegisteredModel
from router.rest.shapes.nodes import NodeShape
from router.services.feeds import Feeds, Item, Synced
from router.services.watch import Topic

_RETRY_MILLISECONDS = 1000
_MAX_DIGITS = 20


class Events:
    """The stream of `/api/events`."""

    def __init__(self, feeds: Feeds, hub_url: str, epoch: int, *, comment_seconds: float) -> None:
        """An event's id is `<epoch>-<sequence>`: unique over restarts of the router."""
        self._feeds = feeds
        self._hub_url = hub_url
        self._epoch = epoch
        self._comment_seconds = comment_seconds

    def require_room(self) -> None:
        """Raises `TooManyStreams` when no further stream may begin now."""
        self._feeds.require_room()

    async def stream(self, last_event_id: str | None) -> AsyncIterator[str]:
        """Text of the stream. Whoever comes back with the last id gets no snapshot if nothing
        happened since; else everything as it is now: that heals whatever was missed.
        """
        yield f"retry: {_RETRY_MILLISECONDS}\n\n"
        since = self._sequence(last_event_id or "")
        feed = self._feeds.follow(Topic.NODE, Topic.MODEL, Topic.TASK, since=since)
        async with aclosing(feed):
            following = asyncio.ensure_future(anext(feed))
            try:
                while True:
                    done, _ = await asyncio.wait({following}, timeout=self._comment_seconds)
                    if not done:
                        yield ": still here\n\n"
                        continue
                    item = following.result()
                    following = asyncio.ensure_future(anext(feed))
                    yield self._event(item)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _sequence(self, event_id: str) -> int | None:
        """The sequence of an event of this run of the router."""
        epoch, _, sequence = event_id.partition("-")
        ours = epoch == str(self._epoch) and sequence.isdecimal() and len(sequence) <= _MAX_DIGITS
        return int(sequence) if ours else None

    def _event(self, item: Item | Synced) -> str:
        identity = f"id: {self._epoch}-{item.sequence}"
        if isinstance(item, Synced):
            return f"{identity}\nevent: synced\ndata: {{}}\n\n"
        return f"{identity}\nevent: {item.topic.value}\ndata: {self._data(item)}\n\n"

    def _data(self, item: Item) -> str:
        match item.view:
            case TaskView():
                return TaskShape.of(item.view).model_dump_json()
            case ModelView():
                return RegisteredModel.of(item.view, self._hub_url).model_dump_json()
            case NodeView():
                return NodeShape.of(item.view).model_dump_json()
            case None:
                key = "name" if item.topic is Topic.MODEL else "id"
                return json.dumps({key: item.key, "deleted": True})
