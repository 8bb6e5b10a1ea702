"""Orders and plans of the contract as the REST API writes them."""

from cli.render.rest import Json, moment, task, word
from protos.llmrouter.v1 import download_pb2


def order_status(message: download_pb2.Order) -> str:
    """The state's word: "active", "completed", "failed", "stopped" or "cancelled"."""
    return word(download_pb2.OrderState.Name(message.state), "ORDER_STATE_")


def verdict(plan: download_pb2.NodePlan) -> str:
    """The verdict's word: "ready", "fits" or "refused"."""
    return word(download_pb2.PlanVerdict.Name(plan.verdict), "PLAN_VERDICT_")


def target(message: download_pb2.Order) -> str:
    """The target's word: "all", "specific" or "labels"."""
    return word(download_pb2.OrderTarget.Name(message.target), "ORDER_TARGET_")


def order(message: download_pb2.Order) -> Json:
    """An order as in `GET /api/orders/{id}`."""
    options = message.options
    return {
        "id": message.order_id,
        "order_id": message.order_id,
        "model_name": message.model_name,
        "target": target(message),
        "labels": dict(sorted(message.label_selector.items())),
        "node_ids": list(message.node_ids),
        "follow": options.follow,
        "rollout": {
            "canary_nodes": options.rollout.canary_nodes,
            "wave_percent": options.rollout.wave_percent,
            "wave_nodes": options.rollout.wave_nodes,
            "max_failures": options.rollout.max_failures,
        }
        if options.HasField("rollout")
        else None,
        "window": {
            "start": options.window.start,
            "end": options.window.end,
            "time_zone": options.window.time_zone,
        }
        if options.HasField("window")
        else None,
        "replaces": options.replaces or None,
        "status": order_status(message),
        "note": message.note,
        "completed_count": message.completed_count,
        "failed_count": message.failed_count,
        "ended": message.ended,
        "created_at": moment(message.create_time),
        "task_ids": [one.task_id for one in message.tasks],
        "tasks": [task(one) for one in message.tasks],
        "waiting": [
            {"node_id": one.node_id, "node_name": one.node_name, "reason": one.reason}
            for one in message.waiting
        ],
    }


def plan(message: download_pb2.PlanDownloadResponse) -> Json:
    """A plan as in `POST /api/models/plan`."""
    return {
        "plan_id": message.plan_id,
        "model_name": message.model_name,
        "line_bytes": message.line_bytes,
        "expected_seconds": _expected(message),
        "nodes": [
            {
                "node_id": one.node_id,
                "node_name": one.node_name,
                "verdict": verdict(one),
                "reason": one.reason,
                "needed_bytes": one.needed_bytes,
                "free_bytes": one.free_bytes,
                "from": getattr(one, "from"),
                "hub_bytes": one.hub_bytes,
                "peer_bytes": one.peer_bytes,
                "expected_seconds": _expected(one),
                "required_memory_bytes": one.required_memory_bytes or None,
                "fits_memory": one.fits_memory,
                "warnings": list(one.warnings),
            }
            for one in message.nodes
        ],
    }


def _expected(message: download_pb2.NodePlan | download_pb2.PlanDownloadResponse) -> float | None:
    if not message.HasField("expected_time"):
        return None
    return message.expected_time.ToTimedelta().total_seconds()
