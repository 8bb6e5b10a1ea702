"""A node as the router sees it: a stream that says what the test wants, and keeps what it hears.

with FakeAgent(router.call.agent, "node-1") as agent:
    assignment = agent.assignment(lambda a: a.tasks)
    agent.report(assignment.tasks[0], common_pb2.TASK_STATE_COMPLETED)
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import grpc

from protos.llmrouter.v1 import agent_pb2, agent_pb2_grpc, common_pb2

PATIENCE_SECONDS = 20.0
GB = 10**9


def hello(node_id: str, *, name: str = "", free: int = 100 * GB) -> agent_pb2.ConnectRequest:
    """A node's first word."""
    return agent_pb2.ConnectRequest(
        hello=agent_pb2.Hello(
            node_id=node_id,
            name=name or node_id,
            version="1.2.3",
            labels={"site": "a"},
            memory_bytes=64 * GB,
            disk_free_bytes=free,
            disk_total_bytes=200 * GB,
            max_concurrent=2,
            instance="i",
        )
    )


class FakeAgent:
    """One stream of one node; without a first word it says hello. Closes when it is left."""

    def __init__(
        self,
        stub: agent_pb2_grpc.AgentServiceStub,
        node_id: str = "node-1",
        *,
        first: agent_pb2.ConnectRequest | None = None,
        name: str = "",
        free: int = 100 * GB,
    ) -> None:
        self._events: queue.Queue[agent_pb2.ConnectRequest | None] = queue.Queue()
        self._arrived = threading.Condition()
        self._heard: list[agent_pb2.ConnectResponse] = []
        self._ended = False
        self.error: grpc.RpcError | None = None
        self.say(first or hello(node_id, name=name, free=free))
        self._stream = stub.Connect(self._said())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Returns once the router has greeted it."""
        self.welcome()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the stream."""
        self.close()

    def close(self) -> None:
        """Breaks the stream off, as a node that dies does."""
        self._events.put(None)
        self._stream.cancel()
        self._thread.join(PATIENCE_SECONDS)

    def say(self, event: agent_pb2.ConnectRequest) -> None:
        """Sends an event."""
        self._events.put(event)

    def report(
        self,
        task: agent_pb2.TaskAssignment,
        state: "common_pb2.TaskState.ValueType",
        *,
        done: int = 0,
        error: common_pb2.TaskError | None = None,
    ) -> None:
        """Reports one task, so many bytes of it from the Hub."""
        told = agent_pb2.TaskReport(
            task_id=task.task_id,
            attempt=task.attempt,
            state=state,
            bytes_done=done,
            bytes_from=common_pb2.BytesBySource(hub=done),
            speed_bytes_per_second=10,
            error=error,
        )
        self.say_report([told])

    def say_report(
        self, tasks: Iterable[agent_pb2.TaskReport] = (), evicted: Iterable[str] = ()
    ) -> None:
        """Sends a report."""
        report = agent_pb2.Report(
            tasks=tasks,
            done_eviction_ids=evicted,
            disk_free_bytes=90 * GB,
            disk_total_bytes=200 * GB,
        )
        self.say(agent_pb2.ConnectRequest(report=report))

    def complete(self, task: agent_pb2.TaskAssignment) -> None:
        """Brings a task to its end."""
        total = task.manifest.total_bytes
        self.report(task, common_pb2.TASK_STATE_DOWNLOADING, done=total // 2)
        self.report(task, common_pb2.TASK_STATE_VERIFYING, done=total)
        self.report(task, common_pb2.TASK_STATE_COMPLETED, done=total)

    def welcome(self) -> agent_pb2.Welcome:
        """The router's first word."""
        return self.heard(lambda command: command.HasField("welcome")).welcome

    def assignment(
        self, wanted: Callable[[agent_pb2.Assignment], object] = lambda assignment: True
    ) -> agent_pb2.Assignment:
        """The first assignment that is as wanted."""
        return self.heard(
            lambda command: command.HasField("assignment") and bool(wanted(command.assignment))
        ).assignment

    def url_result(self, request_id: str) -> agent_pb2.FileUrlResult:
        """The answer to a question for a URL."""
        return self.heard(
            lambda command: command.file_url_result.request_id == request_id
        ).file_url_result

    def heard(
        self, wanted: Callable[[agent_pb2.ConnectResponse], bool]
    ) -> agent_pb2.ConnectResponse:
        """The first command that is as wanted; waits for it."""

        def found() -> agent_pb2.ConnectResponse | None:
            return next((command for command in self._heard if wanted(command)), None)

        with self._arrived:
            self._arrived.wait_for(lambda: found() or self._ended, PATIENCE_SECONDS)
            command = found()
        assert command is not None, f"not heard; the stream: {self.error or 'goes on'}"
        return command

    @property
    def commands(self) -> list[agent_pb2.ConnectResponse]:
        """Everything that was heard so far."""
        with self._arrived:
            return list(self._heard)

    def ended(self) -> grpc.RpcError | None:
        """Waits until the router ends the stream; the error, None for a quiet end."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self._ended, PATIENCE_SECONDS), "it goes on"
        return self.error

    def _said(self) -> Iterator[agent_pb2.ConnectRequest]:
        while (event := self._events.get()) is not None:
            yield event

    def _listen(self) -> None:
        try:
            for command in self._stream:
                with self._arrived:
                    self._heard.append(command)
                    self._arrived.notify_all()
        except grpc.RpcError as error:
            self.error = error
        self._events.put(None)
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
