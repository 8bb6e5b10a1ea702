"""Progress where there is no terminal: a line for each change, and one for each tenth."""

from contextlib import AbstractContextManager
from typing import IO, Any, Self

import click

from cli.render import rest, units
from protos.llmrouter.v1 import common_pb2, download_pb2


class Lines(AbstractContextManager["Lines"]):
    """Writes lines to `out`; `with_model` names the model in each, for tasks of several."""

    def __init__(self, out: IO[Any], *, with_model: bool = False) -> None:
        self._out = out
        self._with_model = with_model
        self._told: dict[str, tuple[int, int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, task: download_pb2.Task) -> None:
        """Writes a line when the task's state, attempt or tenth is another than it was."""
        tenth = units.share(task.bytes_done, task.bytes_total) // 10
        seen = (task.state, task.attempt, tenth)
        if self._told.get(task.task_id) == seen:
            return
        self._told[task.task_id] = seen
        self._write(f"{self._name(task)}: {_sentence(task)}")

    def router_away(self, until: float) -> None:
        """Says so."""
        self._write("the router is away; the nodes go on; looking for it")

    def router_back(self) -> None:
        """Says so."""
        self._write("the router is back")

    def _name(self, task: download_pb2.Task) -> str:
        node = task.node_name or task.node_id
        return f"{task.task_id} {node} {task.model_name}" if self._with_model else node

    def _write(self, text: str) -> None:
        click.echo(units.plain(text), file=self._out)


def _sentence(task: download_pb2.Task) -> str:
    status = rest.task_status(task)
    parts = [f"{status}, attempt {task.attempt}" if task.attempt > 1 else status]
    if task.state == common_pb2.TASK_STATE_DOWNLOADING:
        parts.append(
            f"{units.share(task.bytes_done, task.bytes_total)}% "
            f"({units.size_of(task.bytes_done, task.bytes_total)})"
        )
        if task.speed_bytes_per_second:
            parts.append(units.rate(task.speed_bytes_per_second))
        if task.HasField("eta"):
            parts.append(f"{units.span(task.eta.seconds)} left")
    if task.state == common_pb2.TASK_STATE_PENDING and not task.node_online:
        parts.append("the node is offline: the task waits for it")
    if task.note:
        parts.append(task.note)
    if task.HasField("error"):
        parts.append(f"{task.error.message} ({task.error.code})")
    return ", ".join(parts)
