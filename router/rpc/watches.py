"""The server streams: feeds as messages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from router.domain.models import ModelView
from router.domain.nodes import NodeView
from router.domain.tasks import TaskView
from router.rpc import convert
from router.services.feeds import Feeds, Item
from router.services.watch import Topic

_SYNCED = registration.SnapshotSent()


class Watches:
    """What `WatchTasks`, `WatchModels` and `WatchNodes` send."""

    def __init__(self, feeds: Feeds, messages: convert.Messages) -> None:
        """Reads `feeds`."""
        self._feeds = feeds
        self._messages = messages

    async def tasks(self, task_ids: list[str]) -> AsyncGenerator[download.WatchTasksResponse, None]:
        """Named tasks until all have ended, or all tasks without end."""
        if task_ids:
            async with aclosing(self._feeds.follow_tasks(task_ids)) as named:
                async for view in named:
                    yield download.WatchTasksResponse(task=convert.task(view))
            return
        async with aclosing(self._feeds.follow(Topic.TASK)) as feed:
            async for item in feed:
                if isinstance(item, Item) and isinstance(item.view, TaskView):
                    yield download.WatchTasksResponse(task=convert.task(item.view))

    async def models(self) -> AsyncGenerator[registration.WatchModelsResponse, None]:
        """Every model, then every change."""
        async with aclosing(self._feeds.follow(Topic.MODEL)) as feed:
            async for item in feed:
                if not isinstance(item, Item):
                    yield registration.WatchModelsResponse(snapshot_sent=_SYNCED)
                elif isinstance(item.view, ModelView):
                    yield registration.WatchModelsResponse(model=self._messages.model(item.view))
                else:
                    yield registration.WatchModelsResponse(removed_model_name=item.key)

    async def nodes(self) -> AsyncGenerator[node.WatchNodesResponse, None]:
        """Every node, then every change."""
        async with aclosing(self._feeds.follow(Topic.NODE)) as feed:
            async for item in feed:
                if not isinstance(item, Item):
                    yield node.WatchNodesResponse(snapshot_sent=_SYNCED)
                elif isinstance(item.view, NodeView):
                    yield node.WatchNodesResponse(node=convert.node(item.view))
                else:
                    yield node.WatchNodesResponse(removed_node_id=item.key)
