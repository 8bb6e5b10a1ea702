"""Live progress on a terminal: a bar for each node, and a summary."""

import re
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.follow import ENDED
from cli.render import rest, units
from cli.render.table import STATUS_STYLES
from protos.llmrouter.v1 import common_pb2, download_pb2

_REFRESHES = 5  # a second
_MOST_ROWS = 12
_LINES_AROUND = 4  # header, "more", summary, and the line that the cursor stands on
_SHORTEST_BAR, _LONGEST_BAR = 8, 40
_PERCENT, _BYTES, _SPEED, _GAP = 4, 16, 10, 2
_STATE_WIDTHS = ((100, 46), (78, 24), (0, 19))  # on a terminal at least so wide: so much
_WIDE = 100

_NUMBERED = re.compile(r"(\D*)(\d*)")

_MOVING = frozenset({common_pb2.TASK_STATE_DOWNLOADING, common_pb2.TASK_STATE_VERIFYING})
_WAITING = frozenset({common_pb2.TASK_STATE_PENDING, common_pb2.TASK_STATE_PAUSED})
_BAR_STYLES = {
    common_pb2.TASK_STATE_COMPLETED: "green",
    common_pb2.TASK_STATE_FAILED: "red",
    common_pb2.TASK_STATE_CANCELLED: "bright_black",
    common_pb2.TASK_STATE_PAUSED: "yellow",
    common_pb2.TASK_STATE_PENDING: "yellow",
    common_pb2.TASK_STATE_VERIFYING: "cyan",
    common_pb2.TASK_STATE_DOWNLOADING: "cyan",
}


class Bars(AbstractContextManager["Bars"]):
    """Draws on a terminal and redraws in place until it is left; the last picture stays.

    Shows at most a dozen tasks, fewer when the terminal is low: the busiest, in a steady order.
    """

    def __init__(self, console: Console) -> None:
        self._lock = Lock()
        self._tasks: dict[str, download_pb2.Task] = {}
        self._rows: tuple[str, ...] = ()
        self._away_until: float | None = None
        self._live = Live(
            console=console,
            get_renderable=lambda: _Picture(self),
            refresh_per_second=_REFRESHES,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, task: download_pb2.Task) -> None:
        """Takes the task as it is now; it is drawn a moment later."""
        with self._lock:
            self._tasks[task.task_id] = task

    def router_away(self, until: float) -> None:
        """Says so under the bars, with the time that is left."""
        self._away_until = until

    def router_back(self) -> None:
        """Takes the sentence away."""
        self._away_until = None

    def draw(self, width: int, height: int) -> RenderableType:
        """The picture of this moment, for a terminal of this size."""
        with self._lock:
            tasks = dict(self._tasks)
        parts = self._parts(tasks, width, height)
        if self._away_until is not None:
            left = units.span(self._away_until - time.monotonic())
            parts[-1] = _one_line(
                f"the router is away; the nodes go on; looking for it, {left} left", "yellow"
            )
        return Group(*parts)

    def _parts(
        self, tasks: dict[str, download_pb2.Task], width: int, height: int
    ) -> list[RenderableType]:
        """The picture from top to bottom; last comes the line that sums up."""
        if not tasks:
            return [Text("waiting for tasks", style="dim")]
        room = max(1, min(_MOST_ROWS, height - _LINES_AROUND))
        self._rows = choose_rows(tasks, self._rows, room)
        shown = [tasks[task_id] for task_id in self._rows]
        hidden = [task for task_id, task in tasks.items() if task_id not in self._rows]
        parts: list[RenderableType] = [_header(tasks.values()), _grid(shown, tasks.values(), width)]
        if hidden:
            parts.append(_one_line(f"and {len(hidden)} more: {_counts(hidden)}", "dim"))
        parts.append(_summary(tasks.values()))
        return parts


@dataclass(frozen=True, slots=True)
class _Picture:
    """Asks for the picture at the moment it is drawn, when the terminal's size is known."""

    bars: Bars

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.bars.draw(options.max_width, console.size.height)


def choose_rows(
    tasks: dict[str, download_pb2.Task], before: Sequence[str], room: int
) -> tuple[str, ...]:
    """Which tasks get a row, in order of their nodes' names.

    What fails or moves comes first, the fastest before others; a row that is there stays while it
    moves, so that the picture is calm.
    """
    kept = set(before)

    def weight(task_id: str) -> tuple[int, bool, int]:
        task = tasks[task_id]
        if task.state == common_pb2.TASK_STATE_FAILED:
            rank = 0
        elif task.state in _MOVING:
            rank = 1
        else:
            rank = 2 if task.state in _WAITING else 3
        return rank, task_id not in kept, -task.speed_bytes_per_second

    chosen = sorted(tasks, key=weight)[:room]
    return tuple(
        sorted(chosen, key=lambda one: (_counting(_node(tasks[one])), tasks[one].model_name, one))
    )


def _counting(name: str) -> list[tuple[str, int]]:
    """Sorts names as people count: node-2 before node-10."""
    return [(text, int(number or 0)) for text, number in _NUMBERED.findall(name)]


def _grid(
    shown: list[download_pb2.Task], tasks: Collection[download_pb2.Task], width: int
) -> Table:
    several = len({task.model_name for task in tasks}) > 1
    labels = {task.task_id: _label(task, several=several) for task in tasks}
    label_width = min(max(len(label) for label in labels.values()), max(12, width // 4))
    wide = width >= _WIDE
    state_width = next(state for least, state in _STATE_WIDTHS if width >= least)
    with_bytes = width >= label_width + _PERCENT + _BYTES + state_width + _SHORTEST_BAR + 4 * _GAP
    fixed = label_width + _PERCENT + state_width + 3 * _GAP
    fixed += _BYTES + _GAP if with_bytes else 0
    bar_width = max(_SHORTEST_BAR, min(_LONGEST_BAR, width - fixed))
    state_width = max(state_width, width - (fixed - state_width) - bar_width - _GAP)
    grid = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    grid.add_column(width=label_width, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=bar_width)
    grid.add_column(width=_PERCENT, justify="right", no_wrap=True)
    if with_bytes:
        grid.add_column(width=_BYTES, justify="right", no_wrap=True)
    grid.add_column(width=state_width, no_wrap=True, overflow="ellipsis")
    for task in shown:
        row: list[RenderableType] = [
            Text(labels[task.task_id]),
            _bar(task, bar_width),
            f"{_share(task)}%",
        ]
        if with_bytes:
            row.append(units.size_of(task.bytes_done, task.bytes_total))
        grid.add_row(*row, _state(task, wide=wide))
    return grid


def _bar(task: download_pb2.Task, width: int) -> ProgressBar:
    style = _BAR_STYLES.get(task.state, "")
    return ProgressBar(
        total=100,
        completed=_share(task),
        width=width,
        style="bright_black",
        complete_style=style,
        finished_style=style,
    )


def _state(task: download_pb2.Task, *, wide: bool) -> Text:
    """What goes on; speed and time left while bytes flow."""
    status = rest.task_status(task)
    parts: list[str] = []
    style = STATUS_STYLES.get(status, "")
    if not task.node_online and task.state not in (*ENDED, common_pb2.TASK_STATE_PAUSED):
        parts, style = ["waits: offline"], "yellow"
    elif task.state == common_pb2.TASK_STATE_DOWNLOADING:
        speed = units.rate(task.speed_bytes_per_second) if task.speed_bytes_per_second else "-"
        left = units.span(task.eta.seconds) if task.HasField("eta") else ""
        parts, style = [f"{speed:>{_SPEED}}  {left:>7}"], ""
    elif task.state == common_pb2.TASK_STATE_FAILED:
        parts = [f"failed: {task.error.code}" if task.error.code else "failed"]
    else:
        parts = [status]
    if wide or not task.speed_bytes_per_second:
        parts += [task.note] if task.note else []
    if wide:
        parts += [_sources(task)] if _sources(task) else []
    if task.attempt > 1 and (wide or task.state != common_pb2.TASK_STATE_DOWNLOADING):
        parts.append(f"try {task.attempt}")
    return Text(units.plain("  ".join(parts)), style=style)


def _sources(task: download_pb2.Task) -> str:
    counts = rest.task(task)["bytes_from"]
    whole = sum(counts.values())
    return " ".join(f"{name} {count * 100 // whole}%" for name, count in counts.items() if count)


def _header(tasks: Collection[download_pb2.Task]) -> Text:
    models = {task.model_name for task in tasks}
    nodes = {task.node_id for task in tasks}
    what = next(iter(models)) if len(models) == 1 else f"{len(models)} models"
    where = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return _one_line(f"{what} → {where}", "bold")


def _summary(tasks: Collection[download_pb2.Task]) -> Text:
    done, total = sum(t.bytes_done for t in tasks), sum(t.bytes_total for t in tasks)
    speed = sum(t.speed_bytes_per_second for t in tasks if t.state in _MOVING)
    unfinished = [t for t in tasks if t.state not in ENDED]
    failed = sum(1 for t in tasks if t.state == common_pb2.TASK_STATE_FAILED)
    completed = sum(1 for t in tasks if t.state == common_pb2.TASK_STATE_COMPLETED)
    parts = [
        f"{completed} of {len(tasks)} done",
        f"{units.share(done, total)}% ({units.size_of(done, total)})",
    ]
    if failed:
        parts.insert(1, f"{failed} failed")
    if speed:
        parts.append(units.rate(speed))
    if unfinished and all(t.HasField("eta") for t in unfinished):
        parts.append(f"{units.span(max(t.eta.seconds for t in unfinished))} left")
    return _one_line(" · ".join(parts), "dim")


def _counts(tasks: Collection[download_pb2.Task]) -> str:
    statuses = [rest.task_status(task) for task in tasks]
    return ", ".join(
        f"{statuses.count(status)} {status}" for status in STATUS_STYLES if status in statuses
    )


def _one_line(text: str, style: str) -> Text:
    return Text(units.plain(text), style=style, no_wrap=True, overflow="ellipsis")


def _label(task: download_pb2.Task, *, several: bool) -> str:
    name = _node(task)
    return f"{name} {task.model_name.rsplit('/', 1)[-1]}" if several else name


def _node(task: download_pb2.Task) -> str:
    return units.plain(task.node_name or task.node_id)


def _share(task: download_pb2.Task) -> int:
    completed = task.state == common_pb2.TASK_STATE_COMPLETED
    return 100 if completed else units.share(task.bytes_done, task.bytes_total)
