"""The JSON of nodes. Sizes in bytes."""

from typing import Literal

from router.domain.nodes import NodeView
from router.rest.shapes.base import Moment, Shape


class GpuShape(Shape):
    """One graphics processor."""

    name: str
    memory_bytes: int


class NodeModel(Shape):
    """One model on one node, seen from the node."""

    name: str
    status: str
    verified_at: Moment | None


class NodeShape(Shape):
    """A machine that holds models."""

    id: str
    name: str
    status: Literal["online", "offline"]
    version: str
    labels: dict[str, str]
    disk_free_bytes: int
    disk_total_bytes: int
    memory_bytes: int
    gpus: list[GpuShape]
    models: list[NodeModel]
    max_rate_bps: int
    max_upload_rate_bps: int
    max_hub_rate_bps: int
    max_concurrent: int
    reserve_bytes: int
    site: str
    peer_addresses: list[str]
    created_at: Moment
    last_seen_at: Moment

    @classmethod
    def of(cls, view: NodeView) -> "NodeShape":
        """From a view."""
        node = view.node
        return cls(
            id=node.node_id,
            name=node.name,
            status="online" if view.online else "offline",
            version=node.version,
            labels=node.effective_labels,
            disk_free_bytes=node.disk_free_bytes,
            disk_total_bytes=node.disk_total_bytes,
            memory_bytes=node.memory_bytes,
            gpus=[GpuShape(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in node.gpus],
            models=[
                NodeModel(
                    name=holding.model_name,
                    status=holding.state.value,
                    verified_at=holding.verified_at,
                )
                for holding in view.holdings
            ],
            max_rate_bps=node.max_rate,
            max_upload_rate_bps=node.max_upload_rate,
            max_hub_rate_bps=node.max_hub_rate,
            max_concurrent=node.settings.max_concurrent,
            reserve_bytes=node.settings.reserve,
            site=node.site,
            peer_addresses=list(view.peer_addresses),
            created_at=node.created_at,
            last_seen_at=node.last_seen_at,
        )


class NodeList(Shape):
    """Every node, by name."""

    nodes: list[NodeShape]
