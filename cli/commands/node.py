"""`llm-router node`: the machines that hold models."""

import click

from cli.client import pages
from cli.options import Group, label, with_session
from cli.render import rest, units
from cli.render.table import Column, Table, details
from cli.session import Session
from protos.daemon.sizes import ByteSize
from protos.llmrouter.v1 import node_pb2

_LARGEST_PAGE = 1000


@click.group(cls=Group)
def node() -> None:
    """The machines that hold models. NODE is an id or a name."""


@node.command("list")
@with_session
def list_nodes(session: Session) -> None:
    """All nodes."""
    request = node_pb2.ListNodesRequest(page_size=_LARGEST_PAGE)
    session.explain(request)
    found = [
        one
        for page in pages(session.router, request, node_pb2.ListNodesResponse)
        for one in page.nodes
    ]
    session.out.answer(
        [one.node_id for one in found],
        {"nodes": [rest.node(one) for one in found]},
        node_table(found),
    )
    if not found:
        session.out.note("No node yet: start an agent with llm-router-agent --router HOST:PORT")


@node.command("show")
@click.argument("name", metavar="NODE")
@with_session
def show_node(session: Session, name: str) -> None:
    """One node and the models on it."""
    reply = session.call(node_pb2.GetNodeRequest(node_id=name), node_pb2.GetNodeResponse)
    _answer(session, reply.node)


@node.command("set")
@click.argument("name", metavar="NODE")
@click.option(
    "--max-rate",
    type=ByteSize(),
    metavar="RATE",
    help="Bytes per second over all its downloads, for example 50MB; 0: no limit.",
)
@click.option(
    "--max-hub-rate",
    type=ByteSize(),
    metavar="RATE",
    help="Bytes per second from the Hub, whatever its site may take; 0: no limit.",
)
@click.option(
    "--max-upload-rate",
    type=ByteSize(),
    metavar="RATE",
    help="Bytes per second to other nodes; 0: no limit.",
)
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="Set a label.")
@click.option("--remove-label", "removed", metavar="KEY", multiple=True, help="Take one away.")
@with_session
def set_node(
    session: Session,
    name: str,
    max_rate: int | None,
    max_hub_rate: int | None,
    max_upload_rate: int | None,
    labels: tuple[str, ...],
    removed: tuple[str, ...],
) -> None:
    """Change what an operator sets on a node; a connected node obeys at once."""
    rates = (max_rate, max_hub_rate, max_upload_rate)
    if rates == (None, None, None) and not labels and not removed:
        raise click.UsageError(
            "nothing to set: give --max-rate, --max-hub-rate, --max-upload-rate, --label or "
            "--remove-label"
        )
    reply = session.call(
        node_pb2.UpdateNodeRequest(
            node_id=name,
            max_rate_bytes_per_second=max_rate,
            max_hub_rate_bytes_per_second=max_hub_rate,
            max_upload_rate_bytes_per_second=max_upload_rate,
            labels=dict(label(text) for text in labels),
            remove_labels=removed,
        ),
        node_pb2.UpdateNodeResponse,
    )
    _answer(session, reply.node)


@node.command("remove")
@click.argument("name", metavar="NODE")
@with_session
def remove_node(session: Session, name: str) -> None:
    """Forget a node and its tasks; its files stay. Stop its agent first."""
    session.call(node_pb2.RemoveNodeRequest(node_id=name), node_pb2.RemoveNodeResponse)
    session.out.answer([name], {"id": name, "removed": True})
    session.out.done(f"node {name} removed; its files are still on it")


@node.command("evict")
@click.argument("name", metavar="NODE")
@click.argument("model_name", metavar="MODEL")
@with_session
def evict_model(session: Session, name: str, model_name: str) -> None:
    """Remove a model's files from a node; an offline node does it when it is back."""
    session.call(
        node_pb2.EvictModelRequest(node_id=name, model_name=model_name),
        node_pb2.EvictModelResponse,
    )
    session.out.answer([name], {"id": name, "model_name": model_name, "evicted": True})
    session.out.done(f"{model_name} is taken off node {name}")


def node_table(nodes: list[node_pb2.Node]) -> Table:
    """One line a node."""
    return Table(
        [
            Column("NAME", flexible=True),
            Column("ID", rank=1),
            Column("STATUS"),
            Column("MODELS", right=True),
            Column("DISK FREE", right=True),
            Column("DISK", right=True, rank=3),
            Column("MEMORY", right=True, rank=4),
            Column("GPUS", rank=6),
            Column("LABELS", rank=7),
            Column("VERSION", rank=5),
            Column("SEEN", right=True, rank=2),
        ],
        [
            [
                one.name,
                one.node_id,
                rest.node_status(one),
                _models(one),
                units.size(one.disk_free_bytes),
                units.size(one.disk_total_bytes),
                units.size(one.memory_bytes),
                ", ".join(gpu.name for gpu in one.gpus),
                ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items())),
                one.version,
                units.age(one.last_seen_time),
            ]
            for one in nodes
        ],
    )


def _models(one: node_pb2.Node) -> str:
    states = [rest.holding_status(holding) for holding in one.holdings]
    ready = states.count("ready")
    return f"{ready}/{len(states)}" if ready != len(states) else str(ready)


def _answer(session: Session, one: node_pb2.Node) -> None:
    session.out.answer(
        [one.node_id],
        rest.node(one),
        details(
            [
                ("Name", one.name),
                ("Id", one.node_id),
                ("Status", rest.node_status(one)),
                (
                    "Seen",
                    f"{units.age(one.last_seen_time)} ago"
                    if one.last_seen_time.seconds
                    else "never",
                ),
                ("Version", one.version),
                ("Labels", ", ".join(f"{k}={v}" for k, v in sorted(one.labels.items()))),
                (
                    "Disk",
                    f"{units.size(one.disk_free_bytes)} free of "
                    f"{units.size(one.disk_total_bytes)}, "
                    f"{units.size(one.reserve_bytes)} to keep free",
                ),
                ("Memory", units.size(one.memory_bytes)),
                (
                    "GPUs",
                    ", ".join(f"{gpu.name} ({units.size(gpu.memory_bytes)})" for gpu in one.gpus),
                ),
                ("Site", one.site),
                ("Rate", _limit(one.max_rate_bytes_per_second)),
                ("From the Hub", _limit(one.max_hub_rate_bytes_per_second)),
                ("To nodes", _limit(one.max_upload_rate_bytes_per_second)),
                ("Downloads", f"{one.max_concurrent} at a time" if one.max_concurrent else ""),
            ]
        ),
        Table(
            [
                Column("MODEL", flexible=True),
                Column("STATUS"),
                Column("VERIFIED", right=True),
                Column("TASK", rank=1),
            ],
            [
                [
                    holding.model_name,
                    rest.holding_status(holding),
                    units.age(holding.verify_time),
                    holding.task_id,
                ]
                for holding in one.holdings
            ],
        )
        if one.holdings
        else [],
    )


def _limit(rate: int) -> str:
    return f"at most {units.rate(rate)}" if rate else "no limit"
