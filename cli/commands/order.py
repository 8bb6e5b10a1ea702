"""`llm-router order`: what was wished, what is reached, what is missing."""

import click

from cli.commands.task import task_table
from cli.options import Group, with_session
from cli.render import rest, units
from cli.render.table import Column, Table, details
from cli.session import Session
from protos.llmrouter.v1 import download_pb2


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
        {"orders": [rest.order(one) for one in page.orders]},
        Table(
            [
                Column("ORDER"),
                Column("MODEL", flexible=True),
                Column("STATUS"),
                Column("NODES", right=True),
                Column("DONE", right=True),
                Column("FAILED", right=True, rank=2),
                Column("AGE", right=True, rank=1),
            ],
            [
                [
                    one.order_id,
                    one.model_name,
                    rest.order_status(one),
                    str(len(one.node_ids)),
                    str(one.completed_count),
                    str(one.failed_count),
                    units.age(one.create_time),
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
    """One order with its tasks."""
    reply = session.call(
        download_pb2.GetOrderRequest(order_id=order_id), download_pb2.GetOrderResponse
    )
    _answer(session, reply.order)


@order.command("cancel")
@click.argument("order_id", metavar="ORDER")
@with_session
def cancel_order(session: Session, order_id: str) -> None:
    """Cancel every unfinished task of an order."""
    reply = session.call(
        download_pb2.CancelOrderRequest(order_id=order_id), download_pb2.CancelOrderResponse
    )
    _answer(session, reply.order)


def _answer(session: Session, one: download_pb2.Order) -> None:
    everywhere = one.target == download_pb2.ORDER_TARGET_ALL
    missing = [
        task.node_name or task.node_id for task in one.tasks if not task.HasField("end_time")
    ]
    session.out.answer(
        [one.order_id],
        rest.order(one),
        details(
            [
                ("Order", one.order_id),
                ("Model", one.model_name),
                ("Wished", f"on {'all' if everywhere else 'chosen'} nodes ({len(one.node_ids)})"),
                ("Status", rest.order_status(one)),
                ("Reached", f"{one.completed_count} of {len(one.node_ids)} nodes"),
                (
                    "Not reached",
                    f"{one.failed_count} failed or cancelled" if one.failed_count else "",
                ),
                ("Missing", ", ".join(missing)),
                ("Made", f"{units.age(one.create_time)} ago"),
            ]
        ),
        task_table(list(one.tasks)),
    )
