"""Desired minus actual: which transfers to start, to stop and to forget. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.assignment import TaskOrder
from agent.manifest import Manifest


class RunStatus(StrEnum):
    """What became of a transfer that was started."""

    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Run:
    """One transfer as it stands: at most one for each task."""

    attempt: int
    manifest: Manifest
    status: RunStatus


@dataclass(frozen=True, slots=True)
class Steps:
    """What leads from actual to desired, as far as it can be done now.

    The rest becomes possible when a transfer ends or has stopped: then reconcile again.
    """

    start: tuple[TaskOrder, ...] = ()
    stop: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()


def reconcile(desired: Iterable[TaskOrder], runs: Mapping[str, Run], max_concurrent: int) -> Steps:
    """Compares what is wanted with what runs.

    A transfer whose task is no longer listed, may not run, or is at another attempt stops. An ended
    one is kept as long as its task is listed at that attempt. Tasks start by priority, then in the
    order listed, while fewer than `max_concurrent` transfers are alive and nobody alive writes one
    of the same files. A running transfer is never put aside for one of higher priority.
    """
    wanted: dict[str, TaskOrder] = {}
    for order in desired:
        wanted.setdefault(order.task_id, order)
    forget = tuple(
        task_id
        for task_id, run in runs.items()
        if run.status is RunStatus.ENDED and not _is_for(wanted.get(task_id), run)
    )
    stop = tuple(
        task_id
        for task_id, run in runs.items()
        if run.status is RunStatus.RUNNING and not _goes_on(wanted.get(task_id), run)
    )
    alive = [run for run in runs.values() if run.status is not RunStatus.ENDED]
    free = max_concurrent - len(alive)
    busy = {content for run in alive for content in contents(run.manifest)}
    start: list[TaskOrder] = []
    for order in sorted(wanted.values(), key=lambda order: -order.priority):
        if not order.may_run or (order.task_id in runs and order.task_id not in forget):
            continue
        mine = contents(order.manifest)
        if len(start) < free and busy.isdisjoint(mine):
            start.append(order)
            busy |= mine
    return Steps(tuple(start), stop, forget)


def contents(manifest: Manifest) -> set[tuple[str, ...]]:
    """Names the bytes of each file: two manifests that share one must not be fetched at once."""
    return {
        (file.sha256,) if file.sha256 else (manifest.repo, manifest.commit, file.path)
        for file in manifest.files
    }


def _is_for(order: TaskOrder | None, run: Run) -> bool:
    return order is not None and order.attempt == run.attempt


def _goes_on(order: TaskOrder | None, run: Run) -> bool:
    return order is not None and order.attempt == run.attempt and order.may_run
