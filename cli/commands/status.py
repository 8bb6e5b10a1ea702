"""`llm-router status`: whether all is well, at one look."""

from collections import Counter

import click
from rich.text import Text

from cli.client import pages
from cli.commands.task import task_table
from cli.options import Command, with_session
from cli.render import rest, units
from cli.render.table import details
from cli.session import Session
from protos.llmrouter.v1 import common_pb2, download_pb2, node_pb2, registration_pb2

_PAGE = 1000
_UNFINISHED = (
    common_pb2.TASK_STATE_PENDING,
    common_pb2.TASK_STATE_DOWNLOADING,
    common_pb2.TASK_STATE_VERIFYING,
    common_pb2.TASK_STATE_PAUSED,
)
_SHOWN = 20


@click.command(cls=Command)
@with_session
def status(session: Session) -> None:
    """Nodes, models and running tasks at one look. With -q the exit code alone."""
    of_nodes = node_pb2.ListNodesRequest(page_size=_PAGE)
    of_models = registration_pb2.ListModelsRequest(page_size=_PAGE)
    of_tasks = download_pb2.ListTasksRequest(page_size=_PAGE, states=_UNFINISHED)
    session.explain(of_nodes, of_models, of_tasks)
    router = session.router
    nodes = [n for p in pages(router, of_nodes, node_pb2.ListNodesResponse) for n in p.nodes]
    models = [
        m for p in pages(router, of_models, registration_pb2.ListModelsResponse) for m in p.models
    ]
    tasks = [t for p in pages(router, of_tasks, download_pb2.ListTasksResponse) for t in p.tasks]

    offline = [node.name for node in nodes if node.status != node_pb2.NODE_STATUS_ONLINE]
    ready = sum(1 for model in models if model.ready_node_count)
    states = Counter(rest.task_status(task) for task in tasks)
    speed = sum(task.speed_bytes_per_second for task in tasks)
    session.out.answer(
        [],
        {
            "router": router.address,
            "nodes": {"total": len(nodes), "online": len(nodes) - len(offline), "offline": offline},
            "models": {"total": len(models), "ready": ready},
            "tasks": {"unfinished": len(tasks), "by_status": dict(states), "speed_bps": speed},
        },
        details(
            [
                ("Router", router.address),
                ("Nodes", f"{len(nodes) - len(offline)} of {len(nodes)} online"),
                ("Offline", ", ".join(offline)),
                ("Models", f"{len(models)} registered, {ready} ready on some node"),
                (
                    "Tasks",
                    ", ".join(f"{n} {state}" for state, n in states.items()) or "none running",
                ),
                ("Speed", units.rate(speed) if speed else ""),
            ]
        ),
        task_table(tasks[:_SHOWN]) if tasks else [],
        [Text(f"and {len(tasks) - _SHOWN} more: llm-router task list")]
        if len(tasks) > _SHOWN
        else [],
    )
