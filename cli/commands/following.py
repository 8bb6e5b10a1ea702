"""Following tasks to their end: the progress on stderr, then what became of each."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import click
from rich.console import Console

from cli import failures
from cli.failures import ExitCode
from cli.follow import ENDED, RouterGone, View, follow
from cli.render import rest, units
from cli.render.bars import Bars
from cli.render.lines import Lines
from cli.session import Session
from protos.llmrouter.v1 import common_pb2, download_pb2

_MOST_IDS = 4
# How often an order is looked at while it is followed: while tasks run, and when none does.
_LOOK_SECONDS = 10.0
_LOOK_SOON_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """The followed tasks as they were last seen, and the order that they belong to, if known."""

    tasks: tuple[download_pb2.Task, ...]
    order: download_pb2.Order | None = None

    @property
    def exit_code(self) -> ExitCode:
        """DONE when every task completed."""
        if self.order is not None and self.order.state == download_pb2.ORDER_STATE_STOPPED:
            return ExitCode.FAILED
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


class _Order(_Latest):
    """Keeps to the tasks of one order, also those that come later, until it has ended."""

    def __init__(self, view: View | None, session: Session, order: download_pb2.Order) -> None:
        super().__init__(view)
        self._session = session
        self._looked_at: float | None = None
        self.order = order
        for one in order.tasks:
            super().show(one)

    def show(self, task: download_pb2.Task) -> None:
        if task.order_id == self.order.order_id or task.task_id in self.tasks:
            super().show(task)
            if not self._goes_on:  # the next wave, or the end, is there at once
                self._looked_at = None

    def router_back(self) -> None:
        self._looked_at = None
        super().router_back()

    @property
    def _goes_on(self) -> bool:
        return any(one.state not in ENDED for one in self.tasks.values())

    def has_ended(self) -> bool:
        """Whether nothing more comes; asks the router again where only it can tell."""
        pause = _LOOK_SECONDS if self._goes_on else _LOOK_SOON_SECONDS
        if self._looked_at is not None and time.monotonic() < self._looked_at + pause:
            return False
        self._looked_at = time.monotonic()
        request = download_pb2.GetOrderRequest(order_id=self.order.order_id)
        try:
            self.order = self._session.router.call(request, download_pb2.GetOrderResponse).order
        except failures.Failure as failure:
            if failure.exit_code is ExitCode.UNREACHABLE:
                return False  # the stream notices it, too
            raise
        for one in self.order.tasks:
            if self.tasks.get(one.task_id) != one:
                super().show(one)
        return self.order.ended


def follow_order(session: Session, order: download_pb2.Order) -> Ended:
    """Shows progress until an order has ended, also of waves that are still to come.

    Otherwise like `follow_to_the_end`. An order that waits for its first node is only told.
    """
    ids = [one.task_id for one in order.tasks]
    if not ids:
        session.out.note(f"The order {order.note or 'has no task'}.")
        return Ended((), order)
    if not order.options.HasField("rollout"):
        return follow_to_the_end(session, ids, order_id=order.order_id, known=order.tasks)
    back = f"llm-router task watch --order {shlex.quote(order.order_id)}"
    with _view(session, with_model=False) as view:
        latest = _Order(view, session, order)
        outcome = _followed(session, (), latest, back, patient=True, enough=latest.has_ended)
    _raise(outcome, back)
    ended = Ended(tuple(latest.order.tasks), latest.order)
    _tell(session, ended)
    if latest.order.note:
        session.out.problem(
            f"the order {latest.order.note}",
            f"llm-router order show {shlex.quote(order.order_id)}",
        )
    return ended


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
        outcome = _followed(session, task_ids, latest, back, patient=bool(known))
    _raise(outcome, back)
    ended = Ended(tuple(latest.tasks[task_id] for task_id in task_ids))
    _tell(session, ended)
    return ended


def _followed(
    session: Session,
    task_ids: Sequence[str],
    latest: _Latest,
    back: str,
    *,
    patient: bool,
    enough: Callable[[], bool] = lambda: False,
) -> failures.Failure | click.exceptions.Exit | None:
    """Follows; what ended it early, if something did."""
    try:
        follow(session.router, task_ids, latest, wait=session.wait, patient=patient, enough=enough)
    except KeyboardInterrupt:
        return click.exceptions.Exit(ExitCode.DETACHED)
    except RouterGone:
        return failures.unreachable(
            session.router.address,
            f"it stayed away for {units.span(session.wait)}",
            f"the nodes go on without it; come back with: {back}",
        )
    return None


def _raise(outcome: failures.Failure | click.exceptions.Exit | None, back: str) -> None:
    if isinstance(outcome, click.exceptions.Exit):
        click.echo(f"Detached; nothing is cancelled. Come back with: {back}", err=True)
    if outcome is not None:
        raise outcome


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
