"""A site with the names of the REST API."""

from typing import Any

from protos.llmrouter.v1 import node_pb2


def site(message: node_pb2.Site) -> dict[str, Any]:
    """A site as in `GET /api/sites`."""
    return {
        "name": message.name,
        "max_hub_rate_bps": message.max_hub_rate_bytes_per_second,
        "timetable": [
            {
                "start": entry.start,
                "end": entry.end,
                "max_hub_rate_bps": entry.max_hub_rate_bytes_per_second,
            }
            for entry in message.timetable
        ],
        "time_zone": message.time_zone,
        "present_max_hub_rate_bps": message.present_max_hub_rate_bytes_per_second,
        "hub_bps": message.hub_bytes_per_second,
        "nodes": message.nodes,
        "online_nodes": message.online_nodes,
    }
