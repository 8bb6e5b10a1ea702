"""Follows tasks through `WatchTasks`, over restarts of the router."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Protocol

import grpc

from cli import failures
from cli.client import Router
from protos.llmrouter.v1 import common_pb2, download_pb2

ENDED = frozenset(
    {
        common_pb2.TASK_STATE_COMPLETED,
        common_pb2.TASK_STATE_FAILED,
        common_pb2.TASK_STATE_CANCELLED,
    }
)
_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
    }
)
_PAUSE_SECONDS = 0.5


class View(Protocol):
    """Shows what is followed."""

    def show(self, task: download_pb2.Task) -> None:
        """A task as it is now."""

    def router_away(self, until: float) -> None:
        """The router went away; it is looked for until then, by the monotonic clock."""

    def router_back(self) -> None:
        """It is there again."""


class RouterGone(Exception):
    """The router stayed away for longer than was asked to wait."""


def follow(
    router: Router,
    task_ids: Sequence[str],
    view: View,
    *,
    wait: float,
    patient: bool,
    enough: Callable[[], bool] = lambda: False,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Shows every change until all of `task_ids` have ended; without ids it goes on for ever.

    `enough` ends it, too: it is asked after each change, and every other second without one.

    When the router goes away it is looked for during `wait` seconds; then RouterGone. Unless
    `patient`, a router that is not there at the very start is a Failure at once; so is any other
    error of the call at any time.
    """
    request = download_pb2.WatchTasksRequest(task_ids=task_ids)
    missing = set(task_ids)
    away_until: float | None = None
    if not patient:
        router.reach()
    while True:
        alive = False
        try:
            for reply in router.stream(request, download_pb2.WatchTasksResponse):
                if away_until is not None:
                    view.router_back()
                    away_until = None
                alive = True
                if reply is not None:
                    view.show(reply.task)
                    if reply.task.state in ENDED:
                        missing.discard(reply.task.task_id)
                    else:
                        missing.add(reply.task.task_id)
                if enough():
                    return
            if task_ids and not missing.intersection(task_ids):
                return
        except grpc.RpcError as error:
            if error.code() not in _LOST:
                raise failures.from_rpc(error, router.address) from error
        if away_until is None:
            away_until = now() + wait
            view.router_away(away_until)
        if not alive:
            Event().wait(min(_PAUSE_SECONDS, max(0.0, away_until - now())))
        if now() >= away_until or not router.wait_until_serving(away_until - now()):
            raise RouterGone
