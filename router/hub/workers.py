"""Threads that call the Hub, and one call at a time for each question."""

import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from router.domain.errors import HubUnavailable

T = TypeVar("T")
Job = tuple[Future[Any], Callable[[], Any]]


class Workers:
    """A bounded pool. Its threads are daemons: a Hub that hangs does not hold up the exit."""

    def __init__(self, name: str, threads: int, backlog: int) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(backlog)
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True)
            for n in range(threads)
        ]
        self._closed = threading.Event()
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Runs the job soon; raises `HubUnavailable` when too many wait already."""
        future: Future[T] = Future()
        if self._closed.is_set():
            raise HubUnavailable("the router stops")
        try:
            self._jobs.put_nowait((future, job))
        except queue.Full:
            raise HubUnavailable("too many questions to the Hub wait already") from None
        return future

    def close(self) -> None:
        """Takes no more jobs and gives up those that wait; does not wait for running ones."""
        self._closed.set()
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[0].set_exception(HubUnavailable("the router stops"))
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, call


class Flights:
    """Joins those who ask the same thing at the same time."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}

    def start(self, key: Hashable, job: Callable[[], T]) -> Future[T]:
        """The future of the running call with this key, else of a new one."""
        with self._lock:
            running = self._running.get(key)
            if running is not None and not running.done():
                return running
            future = self._workers.submit(job)
            self._running[key] = future
        future.add_done_callback(lambda done: self._landed(key, done))
        return future

    def _landed(self, key: Hashable, done: Future[Any]) -> None:
        with self._lock:
            if self._running.get(key) is done:
                del self._running[key]


def outcome(future: Future[T], seconds: float) -> T:
    """The result; raises what the job raised, or `HubUnavailable` after so many seconds.

    The job goes on, so that a later question finds its result.
    """
    try:
        return future.result(max(0.0, seconds))
    except TimeoutError:
        if future.done():
            raise
        raise HubUnavailable("the Hub is slow to answer; try again soon") from None
