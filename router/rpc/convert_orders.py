"""Between orders and plans as the domain knows them and generated messages."""

from protos.llmrouter.v1 import download_pb2
from router.domain.errors import InvalidTarget
from router.domain.orders import OrderOptions, OrderState, OrderTarget, OrderView
from router.domain.plans import Plan, Verdict
from router.domain.rollouts import Rollout
from router.domain.windows import Window
from router.rpc import convert

_ORDER_STATES = convert.numbers(download_pb2.OrderState, "ORDER_STATE", OrderState)
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
        state=_ORDER_STATES[view.state],
        label_selector=order.labels,
        options=_options(order.options),
        waiting=[
            download_pb2.WaitingNode(
                node_id=node.node_id, node_name=node.node_name, reason=node.reason
            )
            for node in view.waiting
        ],
        note=view.note,
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
                hub_bytes=node.hub_bytes,
                peer_bytes=node.peer_bytes,
                expected_time=convert.span(node.expected_seconds),
                required_memory_bytes=node.required_memory_bytes,
                fits_memory=node.fits_memory,
                **{"from": node.source},
            )
            for node in value.nodes
        ],
        plan_id=value.plan_id,
        expected_time=convert.span(value.expected_seconds),
    )


def target_from(number: int) -> OrderTarget:
    """Which nodes an order is for. Raises `InvalidTarget`."""
    if number not in _TARGET_OF:
        raise InvalidTarget(
            "a target is missing: ORDER_TARGET_ALL, ORDER_TARGET_SPECIFIC with node_ids, "
            "or ORDER_TARGET_LABELS with label_selector",
            param="target",
        )
    return _TARGET_OF[number]


def options_from(message: download_pb2.OrderOptions) -> OrderOptions:
    """How an order is to be carried out; what is unset is None."""
    rollout, window = message.rollout, message.window
    in_waves = rollout.ByteSize() > 0
    return OrderOptions(
        follow=message.follow,
        rollout=Rollout(
            canary_nodes=rollout.canary_nodes,
            wave_percent=rollout.wave_percent,
            wave_nodes=rollout.wave_nodes,
            max_failures=rollout.max_failures,
        )
        if in_waves
        else None,
        window=Window(window.start, window.end, window.time_zone)
        if message.HasField("window")
        else None,
        replaces=message.replaces,
    )


def _options(options: OrderOptions) -> download_pb2.OrderOptions:
    rollout, window = options.rollout, options.window
    return download_pb2.OrderOptions(
        follow=options.follow,
        rollout=download_pb2.Rollout(
            canary_nodes=rollout.canary_nodes,
            wave_percent=rollout.wave_percent,
            wave_nodes=rollout.wave_nodes,
            max_failures=rollout.max_failures,
        )
        if rollout
        else None,
        window=download_pb2.Window(start=window.start, end=window.end, time_zone=window.time_zone)
        if window
        else None,
        replaces=options.replaces,
    )
