"""`llm-router task`: one model on one node."""

import click

from cli.commands.following import follow_order, follow_to_the_end
from cli.options import Group, with_session
from cli.render import rest, units
from cli.render.table import Column, Table, details
from cli.session import Session
from protos.llmrouter.v1 import common_pb2, download_pb2

_STATES = [
    common_pb2.TaskState.Name(state).removeprefix("TASK_STATE_").lower()
    for state in common_pb2.TaskState.values()
    if state != common_pb2.TASK_STATE_UNSPECIFIED
]


@click.group(cls=Group)
def task() -> None:
    """Tasks: one model on one node each."""


@task.command("list")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only these.")
@click.option("--model", "model_name", metavar="MODEL", default="", help="Only of this model.")
@click.option("--node", "node_name", metavar="NODE", default="", help="Only of this node.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, help="The newest so many (100)."
)
@with_session
def list_tasks(
    session: Session, states: tuple[str, ...], model_name: str, node_name: str, limit: int
) -> None:
    """The newest tasks first."""
    request = download_pb2.ListTasksRequest(
        page_size=limit,
        states=[common_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}") for state in states],
        model_name=model_name,
        node_id=node_name,
    )
    page = session.call(request, download_pb2.ListTasksResponse)
    session.out.answer(
        [one.task_id for one in page.tasks],
        {"tasks": [rest.task(one) for one in page.tasks]},
        task_table(list(page.tasks)),
    )
    if page.next_page_token:
        session.out.note(
            f"Older tasks are not shown: raise --limit ({limit}), or choose by --state."
        )


@task.command("show")
@click.argument("task_id", metavar="TASK")
@with_session
def show_task(session: Session, task_id: str) -> None:
    """One task: how far it is, and where its bytes came from."""
    reply = session.call(download_pb2.GetTaskRequest(task_id=task_id), download_pb2.GetTaskResponse)
    _answer(session, reply.task)


@task.command("watch")
@click.argument("task_ids", metavar="[TASK]...", nargs=-1)
@click.option("--order", "order_id", metavar="ORDER", default="", help="Every task of this order.")
@with_session
def watch_tasks(session: Session, task_ids: tuple[str, ...], order_id: str) -> None:
    """Show progress until every task has ended; without TASK, go on until Ctrl-C.

    Ctrl-C ends only the watching (exit code 130). Exit code 1: a task failed or was cancelled.
    """
    if order_id:
        if task_ids:
            raise click.UsageError("name tasks, or an --order, not both")
        found = session.call(
            download_pb2.GetOrderRequest(order_id=order_id), download_pb2.GetOrderResponse
        )
        task_ids = tuple(one.task_id for one in found.order.tasks)
        session.explain(download_pb2.WatchTasksRequest(task_ids=task_ids))
        ended = follow_order(session, found.order)
    else:
        session.explain(download_pb2.WatchTasksRequest(task_ids=task_ids))
        ended = follow_to_the_end(session, task_ids)
    session.out.answer(
        [one.task_id for one in ended.tasks], {"tasks": [rest.task(one) for one in ended.tasks]}
    )
    raise click.exceptions.Exit(ended.exit_code)


@task.command("cancel")
@click.argument("task_id", metavar="TASK")
@click.option("--keep-partial", is_flag=True, help="Keep what is downloaded, for a later retry.")
@with_session
def cancel_task(session: Session, task_id: str, keep_partial: bool) -> None:
    """Stop a task and free the disk that it used."""
    reply = session.call(
        download_pb2.CancelTaskRequest(task_id=task_id, keep_partial=keep_partial),
        download_pb2.CancelTaskResponse,
    )
    _answer(session, reply.task)


@task.command("pause")
@click.argument("task_id", metavar="TASK")
@with_session
def pause_task(session: Session, task_id: str) -> None:
    """Stop a task and keep what it has."""
    request = download_pb2.PauseTaskRequest(task_id=task_id)
    _answer(session, session.call(request, download_pb2.PauseTaskResponse).task)


@task.command("resume")
@click.argument("task_id", metavar="TASK")
@with_session
def resume_task(session: Session, task_id: str) -> None:
    """Let a paused task go on."""
    request = download_pb2.ResumeTaskRequest(task_id=task_id)
    _answer(session, session.call(request, download_pb2.ResumeTaskResponse).task)


@task.command("retry")
@click.argument("task_id", metavar="TASK")
@with_session
def retry_task(session: Session, task_id: str) -> None:
    """Begin the next attempt of a failed or cancelled task."""
    request = download_pb2.RetryTaskRequest(task_id=task_id)
    _answer(session, session.call(request, download_pb2.RetryTaskResponse).task)


def _speed(one: download_pb2.Task) -> str:
    """The rate while bytes flow, else nothing."""
    flows = one.state == common_pb2.TASK_STATE_DOWNLOADING and one.speed_bytes_per_second
    return units.rate(one.speed_bytes_per_second) if flows else ""


def _left(one: download_pb2.Task) -> str:
    """The time that is left while that means something, else nothing."""
    flows = one.state == common_pb2.TASK_STATE_DOWNLOADING and one.HasField("eta")
    return units.span(one.eta.seconds) if flows else ""


def task_table(tasks: list[download_pb2.Task]) -> Table:
    """One line a task."""
    return Table(
        [
            Column("TASK"),
            Column("MODEL", flexible=True),
            Column("NODE"),
            Column("STATUS"),
            Column("DONE", right=True),
            Column("SIZE", right=True, rank=4),
            Column("SPEED", right=True, rank=2),
            Column("ETA", right=True, rank=3),
            Column("ATTEMPT", right=True, rank=6),
            Column("AGE", right=True, rank=5),
        ],
        [
            [
                one.task_id,
                one.model_name,
                one.node_name or one.node_id,
                rest.task_status(one),
                f"{units.share(one.bytes_done, one.bytes_total)}%",
                units.size(one.bytes_total),
                _speed(one),
                _left(one),
                str(one.attempt),
                units.age(one.create_time),
            ]
            for one in tasks
        ],
    )


def _answer(session: Session, one: download_pb2.Task) -> None:
    sources = [
        f"{name} {units.size(count)}"
        for name, count in rest.task(one)["bytes_from"].items()
        if count
    ]
    node = one.node_name or one.node_id
    session.out.answer(
        [one.task_id],
        rest.task(one),
        details(
            [
                ("Task", one.task_id),
                ("Order", one.order_id),
                ("Model", one.model_name),
                ("Node", node if one.node_online else f"{node} (offline: the task waits for it)"),
                ("Status", rest.task_status(one)),
                (
                    "Progress",
                    f"{units.share(one.bytes_done, one.bytes_total)}% "
                    f"({units.size_of(one.bytes_done, one.bytes_total)})",
                ),
                ("Speed", _speed(one)),
                ("Left", _left(one)),
                ("From", ", ".join(sources)),
                ("Attempt", str(one.attempt)),
                ("Note", one.note),
                (
                    "Error",
                    f"{one.error.message} ({one.error.code})" if one.HasField("error") else "",
                ),
                ("Next", f"llm-router task retry {one.task_id}" if one.HasField("error") else ""),
                ("Made", f"{units.age(one.create_time)} ago"),
            ]
        ),
    )
