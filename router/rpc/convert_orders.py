"""Between orders and plans as the domain knows them and generated messages."""

from protos.llmrouter.v1 import download_pb2
from router.domain.errors import InvalidTarget
from router.domain.tasks import OrderTarget, OrderView, Plan, Verdict
from router.rpc import convert

_ORDER_TARGETS = convert.numbers(download_pb2.OrderTarget, "ORDER_TARGET", OrderTarget)
_VERDICTS = convert.numbers(download_pb2.PlanVerdict, "PLAN_VERDICT", Verdict)
_TARGET_OF: dict[int, OrderTarget] = {number: target for target, number in _ORDER_TARGETS.items()}


def order(view: OrderView) -> download_pb2.Order:
    """An order with its tasks."""
    order = view.order
    return download_pb2.Order(
        order_id=order.order_id,
        model_name=order.model_name,
        target=_ORDER_TARGETS[order.target],
        node_ids=order.node_ids,
        create_time=convert.moment(order.created_at),
        tasks=map(convert.task, view.tasks),
        completed_count=view.completed,
        failed_count=view.failed,
        ended=view.ended,
    )


def plan(value: Plan) -> download_pb2.PlanDownloadResponse:
    """What an order would mean."""
    return download_pb2.PlanDownloadResponse(
        model_name=value.model_name,
        line_bytes=value.line_bytes,
        nodes=[
            # `from` is a word of Python's: it can be passed by name in a mapping only.
            download_pb2.NodePlan(
                node_id=node.node_id,
                node_name=node.node_name,
                verdict=_VERDICTS[node.verdict],
                reason=node.reason,
                needed_bytes=node.needed_bytes,
                free_bytes=node.free_bytes,
                warnings=node.warnings,
                **{"from": node.source},
            )
            for node in value.nodes
        ],
    )


def target_from(number: int) -> OrderTarget:
    """Which nodes an order is for. Raises `InvalidTarget`."""
    if number not in _TARGET_OF:
        raise InvalidTarget(
            "a target is missing: ORDER_TARGET_ALL, or ORDER_TARGET_SPECIFIC with node_ids",
            param="target",
        )
    return _TARGET_OF[number]
