"""Following tasks to their end: the progress on stderr, then what became of each."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import click
from rich.console import Console

from cli import failures
from cli.failures import ExitCode
from cli.follow import RouterGone, View, follow
from cli.render import rest, units
from cli.render.bars import Bars
from cli.render.lines import Lines
from cli.session import Session
from protos.llmrouter.v1 import common_pb2, download_pb2

_MOST_IDS = 4


@dataclass(frozen=True, slots=True)
class Ended:
    """The followed tasks as they were last seen."""

    tasks: tuple[download_pb2.Task, ...]

    @property
    def exit_code(self) -> ExitCode:
        """DONE when every task completed."""
        completed = all(one.state == common_pb2.TASK_STATE_COMPLETED for one in self.tasks)
        return ExitCode.DONE if completed else ExitCode.FAILED


class _Latest:
    """Keeps the latest of each task, and passes everything on to the view that a person sees."""

    def __init__(self, view: View | None) -> None:
        self.tasks: dict[str, download_pb2.Task] = {}
        self._view = view

    def show(self, task: download_pb2.Task) -> None:
        self.tasks[task.task_id] = task
        if self._view:
            self._view.show(task)

    def router_away(self, until: float) -> None:
        if self._view:
            self._view.router_away(until)

    def router_back(self) -> None:
        if self._view:
            self._view.router_back()


def follow_to_the_end(
    session: Session,
    task_ids: Sequence[str],
    *,
    order_id: str = "",
    known: Sequence[download_pb2.Task] = (),
) -> Ended:
    """Shows progress until all tasks have ended, then says what became of them.

    `known` are the tasks as an earlier answer told them; with them a router that just went away
    is waited for. Ctrl-C says how to come back and ends the command with 130; a router that stays
    away ends it with 5. Neither stops a download.
    """
    back = _way_back(task_ids, order_id)
    with _view(session, with_model=not known and not order_id) as view:
        latest = _Latest(view)
        for one in known:
            latest.show(one)
        outcome: failures.Failure | click.exceptions.Exit | None = None
        try:
            follow(session.router, task_ids, latest, wait=session.wait, patient=bool(known))
        except KeyboardInterrupt:
            outcome = click.exceptions.Exit(ExitCode.DETACHED)
        except RouterGone:
            outcome = failures.unreachable(
                session.router.address,
                f"it stayed away for {units.span(session.wait)}",
                f"the nodes go on without it; come back with: {back}",
            )
    if isinstance(outcome, click.exceptions.Exit):
        click.echo(f"Detached; nothing is cancelled. Come back with: {back}", err=True)
    if outcome is not None:
        raise outcome
    ended = Ended(tuple(latest.tasks[task_id] for task_id in task_ids))
    _tell(session, ended)
    return ended


def _view(session: Session, *, with_model: bool) -> AbstractContextManager[View | None]:
    if session.out.quiet:
        return nullcontext()
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return Bars(console)
    return Lines(sys.stderr, with_model=with_model)


def _way_back(task_ids: Sequence[str], order_id: str) -> str:
    if order_id and len(task_ids) > _MOST_IDS:
        return f"llm-router task watch --order {shlex.quote(order_id)}"
    return " ".join(["llm-router", "task", "watch", *(shlex.quote(one) for one in task_ids)])


def _tell(session: Session, ended: Ended) -> None:
    """The summary, then each task that did not complete: why, and what to do."""
    done = [one for one in ended.tasks if one.state == common_pb2.TASK_STATE_COMPLETED]
    moved = {"hub": 0, "peers": 0, "router": 0, "disk": 0}
    for one in ended.tasks:
        for name, count in rest.task(one)["bytes_from"].items():
            moved[name] += count
    sources = ", ".join(f"{name} {units.size(count)}" for name, count in moved.items() if count)
    session.out.note(
        f"{len(done)} of {len(ended.tasks)} completed"
        + (f"; bytes from {sources}" if sources else "")
    )
    for one in ended.tasks:
        if one.state == common_pb2.TASK_STATE_COMPLETED:
            continue
        why = (
            f"{one.error.message} ({one.error.code})"
            if one.HasField("error")
            else rest.task_status(one)
        )
        session.out.problem(
            f"{one.node_name or one.node_id}: {why}",
            f"llm-router task retry {shlex.quote(one.task_id)}",
        )
