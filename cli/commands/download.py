"""`llm-router model plan` and `download`: looking ahead, and ordering; completes `model`."""

import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import click

from cli.commands.following import follow_order
from cli.commands.model import model
from cli.failures import ExitCode, Failure
from cli.options import label, with_session
from cli.render import rest, units, wishes
from cli.render.table import Column, Table
from cli.session import Session
from protos.llmrouter.v1 import download_pb2

__all__ = ["model"]

_MOST_NODES = 999_999_999
_WINDOW = re.compile(r"(\d\d:\d\d)\s*(?:-|–|\.\.)\s*(\d\d:\d\d)")
_THEN = re.compile(r"([1-9]\d{0,8})(%?)")


def _target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--label",
            "labels",
            metavar="KEY=VALUE",
            multiple=True,
            help="Every node with this label; repeated: with all of them.",
        ),
        click.option(
            "--node", "nodes", metavar="NODE", multiple=True, help="This node; may be repeated."
        ),
        click.option("--all", "everywhere", is_flag=True, help="Every node that is known now."),
    ):
        command = option(command)
    return command


@model.command("plan")
@click.argument("name", metavar="MODEL")
@_target_options
@with_session
def plan_download(
    session: Session,
    name: str,
    everywhere: bool,
    nodes: tuple[str, ...],
    labels: tuple[str, ...],
) -> None:
    """What a download would mean for each node; changes nothing."""
    reply = session.call(
        download_pb2.PlanDownloadRequest(
            model_name=name,
            target=_target(everywhere, nodes, labels),
            node_ids=nodes,
            label_selector=dict(map(label, labels)),
        ),
        download_pb2.PlanDownloadResponse,
    )
    session.out.answer(
        [one.node_id for one in reply.nodes],
        wishes.plan(reply),
        Table(
            [
                Column("NAME", flexible=True),
                Column("VERDICT"),
                Column("NEEDED", right=True),
                Column("FREE", right=True, rank=2),
                Column("HUB", right=True, rank=3),
                Column("PEERS", right=True, rank=3),
                Column("TIME", right=True, rank=4),
                Column("MEMORY", rank=5),
                Column("REASON", flexible=True),
            ],
            [
                [
                    one.node_name or one.node_id,
                    wishes.verdict(one),
                    units.size(one.needed_bytes),
                    units.size(one.free_bytes),
                    units.size(one.hub_bytes) if one.hub_bytes else "",
                    units.size(one.peer_bytes) if one.peer_bytes else "",
                    _time(one),
                    _memory(one),
                    "; ".join([part for part in (one.reason, *one.warnings) if part]),
                ]
                for one in reply.nodes
            ],
        ),
    )
    for line in _totals(reply):
        session.out.note(line)
    if any(one.verdict == download_pb2.PLAN_VERDICT_FITS for one in reply.nodes):
        where = _where(everywhere, nodes, labels)
        session.out.note(
            f"To do exactly this: llm-router model download {name} {where} --plan {reply.plan_id}"
        )


def _totals(reply: download_pb2.PlanDownloadResponse) -> list[str]:
    """How many nodes are how, and what it costs all of them together."""
    verdicts = [wishes.verdict(one) for one in reply.nodes]
    counts = [
        f"{verdicts.count(word)} {text}"
        for word, text in (("fits", "to fetch"), ("ready", "ready"), ("refused", "refused"))
        if word in verdicts
    ]
    fitting = [one for one in reply.nodes if one.verdict == download_pb2.PLAN_VERDICT_FITS]
    peers = sum(one.peer_bytes for one in fitting)
    cost = f"the Hub would serve {units.size(reply.line_bytes)} for all nodes together"
    if peers:
        cost += f", other nodes {units.size(peers)}"
    if reply.HasField("expected_time"):
        cost += f"; about {units.span(reply.expected_time.ToTimedelta().total_seconds())}"
    return [f"{', '.join(counts)}: {cost}."]


def _time(one: download_pb2.NodePlan) -> str:
    if not one.HasField("expected_time") or not one.needed_bytes:
        return ""
    return units.span(one.expected_time.ToTimedelta().total_seconds())


def _memory(one: download_pb2.NodePlan) -> str:
    if not one.required_memory_bytes:
        return ""
    return "enough" if one.fits_memory else "too little"


@model.command("download")
@click.argument("name", metavar="MODEL")
@_target_options
@click.option("--follow", is_flag=True, help="Nodes that join later get it, too.")
@click.option(
    "--canary", type=click.IntRange(1, _MOST_NODES), metavar="N", help="So many nodes go first."
)
@click.option("--then", metavar="25%|N", help="Then so many at a time (all the rest).")
@click.option(
    "--max-failures",
    type=click.IntRange(0, _MOST_NODES),
    metavar="F",
    help="With more failed tasks no further wave begins (0).",
)
@click.option("--window", metavar="22:00-06:00", help="Bytes flow in this part of the day only.")
@click.option(
    "--time-zone",
    metavar="ZONE",
    default="",
    help="Of --window: Europe/Berlin (the router's own).",
)
@click.option(
    "--replace",
    "replaces",
    metavar="OLD",
    default="",
    help="This model goes from each node once the other is there.",
)
@click.option(
    "--plan",
    "plan_id",
    metavar="PLAN",
    default="",
    help="Only if it would do what this plan says.",
)
@click.option("--detach", is_flag=True, help="Order it and return; do not watch.")
@click.option(
    "--priority",
    type=click.IntRange(-1000, 1000),
    default=0,
    help="Larger goes first on each node (0).",
)
@click.option(
    "--request-id",
    metavar="ID",
    help="The same request with the same id is carried out once: to repeat safely.",
)
@with_session
def download_model(
    session: Session,
    name: str,
    everywhere: bool,
    nodes: tuple[str, ...],
    labels: tuple[str, ...],
    follow: bool,
    canary: int | None,
    then: str | None,
    max_failures: int | None,
    window: str | None,
    time_zone: str,
    replaces: str,
    plan_id: str,
    detach: bool,
    priority: int,
    request_id: str | None,
) -> None:
    """Order a model onto nodes, and show progress until every task has ended.

    Ctrl-C ends only the watching (exit code 130); the nodes go on. Exit code 1: a task failed or
    was cancelled, or too many failed for the next wave.
    """
    request = download_pb2.StartDownloadRequest(
        model_name=name,
        target=_target(everywhere, nodes, labels),
        node_ids=nodes,
        label_selector=dict(map(label, labels)),
        request_id=request_id or str(uuid.uuid4()),
        priority=priority,
        options=download_pb2.OrderOptions(
            follow=follow,
            rollout=_rollout(canary, then, max_failures),
            window=_window(window, time_zone),
            replaces=replaces,
        ),
        plan_id=plan_id,
    )
    if not request.options.ByteSize():
        request.ClearField("options")
    try:
        order = session.call(request, download_pb2.StartDownloadResponse).order
    except Failure as failure:
        if failure.exit_code is ExitCode.UNREACHABLE:
            failure.hint += f"; repeat safely with --request-id {request.request_id}"
        raise
    ids = [one.task_id for one in order.tasks]
    answer = {"order_id": order.order_id, "model_name": order.model_name, "task_ids": ids}
    if detach:
        session.out.answer(
            ids,
            answer,
            Table(
                [Column("TASK"), Column("NODE"), Column("STATUS")],
                [[t.task_id, t.node_name or t.node_id, rest.task_status(t)] for t in order.tasks],
            ),
        )
        if order.waiting:
            session.out.note(f"{len(order.waiting)} more nodes follow in later waves.")
        if order.note:
            session.out.note(f"The order {order.note}.")
        session.out.note(f"Watch: llm-router task watch --order {order.order_id}")
        return
    if session.out.quiet:  # a script has the ids even when the watching is cut short
        session.out.answer(ids, answer)
    ended = follow_order(session, order)
    if not session.out.quiet:
        answer["task_ids"] = [one.task_id for one in ended.tasks]
        session.out.answer(ids, answer | {"tasks": [rest.task(one) for one in ended.tasks]})
    raise click.exceptions.Exit(ended.exit_code)


def _target(
    everywhere: bool, nodes: Sequence[str], labels: Sequence[str]
) -> download_pb2.OrderTarget.ValueType:
    if (everywhere, bool(nodes), bool(labels)).count(True) != 1:
        raise click.UsageError(
            "say where: --all, or --node NODE for each node, or --label KEY=VALUE"
        )
    if everywhere:
        return download_pb2.ORDER_TARGET_ALL
    return download_pb2.ORDER_TARGET_SPECIFIC if nodes else download_pb2.ORDER_TARGET_LABELS


def _where(everywhere: bool, nodes: Sequence[str], labels: Sequence[str]) -> str:
    named = [f"--node {node}" for node in nodes] + [f"--label {one}" for one in labels]
    return "--all" if everywhere else " ".join(named)


def _rollout(
    canary: int | None, then: str | None, max_failures: int | None
) -> download_pb2.Rollout | None:
    if canary is None and then is None:
        if max_failures is not None:
            raise click.UsageError("--max-failures needs waves: give --canary, --then or both")
        return None
    size = _THEN.fullmatch(then or "")
    if then is not None and size is None:
        raise click.UsageError(f'--then "{then}": write a share like 25%, or a number of nodes')
    number = int(size[1]) if size else 0
    in_percent = bool(size and size[2])
    return download_pb2.Rollout(
        canary_nodes=canary or 0,
        wave_percent=number if in_percent else 0,
        wave_nodes=0 if in_percent else number,
        max_failures=max_failures or 0,
    )


def _window(window: str | None, time_zone: str) -> download_pb2.Window | None:
    if window is None:
        if time_zone:
            raise click.UsageError("--time-zone goes with --window")
        return None
    times = _WINDOW.fullmatch(window.strip())
    if times is None:
        raise click.UsageError(f'--window "{window}": write it like 22:00-06:00')
    return download_pb2.Window(start=times[1], end=times[2], time_zone=time_zone)
