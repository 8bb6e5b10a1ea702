"""`llm-router order`: what was wished, what is reached, what is missing."""

from collections.abc import Iterator

import click

from cli.commands.task import task_table
from cli.options import Group, with_session
from cli.render import rest, units, wishes
from cli.render.table import Column, Table, details
from cli.session import Session
from protos.llmrouter.v1 import common_pb2, download_pb2


@click.group(cls=Group)
def order() -> None:
    """Orders: what was wished, what is reached, what is missing."""


@order.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, help="The newest so many (100)."
)
@with_session
def list_orders(session: Session, limit: int) -> None:
    """The newest orders first."""
    request = download_pb2.ListOrdersRequest(page_size=limit)
    page = session.call(request, download_pb2.ListOrdersResponse)
    session.out.answer(
        [one.order_id for one in page.orders],
        {"orders": [wishes.order(one) for one in page.orders]},
        Table(
            [
                Column("ORDER"),
                Column("MODEL", flexible=True),
                Column("FOR", rank=3),
                Column("STATUS"),
                Column("NODES", right=True),
                Column("DONE", right=True),
                Column("FAILED", right=True, rank=2),
                Column("AGE", right=True, rank=1),
                Column("NOTE", rank=4),
            ],
            [
                [
                    one.order_id,
                    one.model_name,
                    _target(one),
                    wishes.order_status(one),
                    str(_nodes(one)),
                    str(one.completed_count),
                    str(one.failed_count),
                    units.age(one.create_time),
                    one.note,
                ]
                for one in page.orders
            ],
        ),
    )
    if page.next_page_token:
        session.out.note(f"Older orders are not shown: raise --limit ({limit}).")


@order.command("show")
@click.argument("order_id", metavar="ORDER")
@with_session
def show_order(session: Session, order_id: str) -> None:
    """One order: what was wished, what is reached, what is missing and why."""
    reply = session.call(
        download_pb2.GetOrderRequest(order_id=order_id), download_pb2.GetOrderResponse
    )
    _answer(session, reply.order)


@order.command("cancel")
@click.argument("order_id", metavar="ORDER")
@with_session
def cancel_order(session: Session, order_id: str) -> None:
    """Cancel every unfinished task of an order, its later waves, and its following."""
    reply = session.call(
        download_pb2.CancelOrderRequest(order_id=order_id), download_pb2.CancelOrderResponse
    )
    _answer(session, reply.order)


def _answer(session: Session, one: download_pb2.Order) -> None:
    missing = list(_missing(one))
    session.out.answer(
        [one.order_id],
        wishes.order(one),
        details(
            [
                ("Order", one.order_id),
                ("Model", one.model_name),
                ("Wished", _wished(one)),
                ("Follows", "nodes that join later get it, too" if one.options.follow else ""),
                ("Waves", _waves(one.options)),
                ("Window", _window(one.options)),
                ("Replaces", one.options.replaces),
                ("Status", wishes.order_status(one)),
                ("Note", one.note),
                ("Reached", f"{one.completed_count} of {_count(_nodes(one))}"),
                (
                    "Not reached",
                    f"{one.failed_count} failed or cancelled" if one.failed_count else "",
                ),
                ("Made", f"{units.age(one.create_time)} ago"),
            ]
        ),
        task_table(list(one.tasks)) if one.tasks else [],
        Table([Column("MISSING"), Column("WHY", flexible=True)], missing) if missing else [],
    )


def _missing(one: download_pb2.Order) -> Iterator[list[str]]:
    """Each node that is not reached, and why."""
    for task in one.tasks:
        if task.state != common_pb2.TASK_STATE_COMPLETED:
            yield [task.node_name or task.node_id, _why(task)]
    for node in one.waiting:
        yield [node.node_name or node.node_id, node.reason]


def _why(task: download_pb2.Task) -> str:
    if task.HasField("error"):
        return f"failed: {task.error.message} ({task.error.code})"
    if task.HasField("end_time"):
        return rest.task_status(task)
    if not task.node_online:
        return "offline: its task waits until it is back"
    return task.note or rest.task_status(task)


def _nodes(one: download_pb2.Order) -> int:
    """How many nodes it is for now."""
    return len(one.tasks) + len(one.waiting)


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _wished(one: download_pb2.Order) -> str:
    then = " when it was made" if one.options.follow else ""
    return f"on {_target(one)} ({_count(len(one.node_ids))}{then})"


def _target(one: download_pb2.Order) -> str:
    if one.target == download_pb2.ORDER_TARGET_ALL:
        return "all nodes"
    if one.target == download_pb2.ORDER_TARGET_LABELS:
        return ", ".join(f"{key}={value}" for key, value in sorted(one.label_selector.items()))
    return "chosen nodes"


def _waves(options: download_pb2.OrderOptions) -> str:
    if not options.HasField("rollout"):
        return ""
    rollout = options.rollout
    parts = [f"{_count(rollout.canary_nodes)} first" if rollout.canary_nodes else ""]
    if rollout.wave_percent:
        parts.append(f"{rollout.wave_percent}% of all at a time")
    elif rollout.wave_nodes:
        parts.append(f"{_count(rollout.wave_nodes)} at a time")
    else:
        parts.append("then all the rest")
    parts.append(f"at most {rollout.max_failures} may fail")
    return ", ".join(part for part in parts if part)


def _window(options: download_pb2.OrderOptions) -> str:
    if not options.HasField("window"):
        return ""
    window = options.window
    return f"{window.start}-{window.end} {window.time_zone or '(the time of the router)'}"
