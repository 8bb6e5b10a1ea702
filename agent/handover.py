"""Hands what the store holds to the inference engines: views first, then commands and reloads."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from agent.after_commit import Announcing, Arrival, Arrivals, LlamaServer
from agent.ollama import OllamaUnreachable
from agent.store import StoredFile, StoreError
from agent.store.loadable import Loadable, loadable_models
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS = 30.0


class View(Protocol):
    """A place where an engine looks for models."""

    async def follow(self, models: Sequence[Loadable]) -> None:
        """Shows exactly these models. Raises `OSError`, `OllamaUnreachable`."""


class Shown(Protocol):
    """The part of the store that is needed."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file; `sha256` is None until it has been verified."""


class Handover:
    """Keeps views true and announces arrivals, in one loop, from the present state of the store.

    What failed is tried again after `retry_seconds`. Belongs to the event loop, save `arrived`.
    """

    def __init__(
        self,
        store: Shown,
        arrivals: Arrivals,
        *,
        views: Sequence[View] = (),
        announcing: Sequence[Announcing] = (),
        llama_server: LlamaServer | None = None,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._store = store
        self._arrivals = arrivals
        self._views = views
        self._announcing = announcing
        self._llama_server = llama_server
        self._retry_seconds = retry_seconds
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._due.set()
        self._shown: list[Loadable] | None = None
        self._to_reload = asyncio.Event()

    def arrived(self, arrival: Arrival) -> None:
        """Notes an arrival, durably, and sees to it soon; from any thread.

        To be called before anybody hears that the task is completed. Never raises: a task is not to
        fail by it.
        """
        if self._announcing:
            try:
                self._arrivals.add(arrival)
            except OSError as error:
                log.error(
                    "an arrival cannot be noted; nobody is told of it",
                    model=arrival.manifest.model_name,
                    cause=str(error),
                )
        with contextlib.suppress(RuntimeError):  # the loop is gone: the process is ending
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Says that something has arrived, changed or gone; returns at once."""
        self._due.set()

    async def run(self) -> None:
        """Does what is due until cancelled; at once when it begins."""
        async with asyncio.TaskGroup() as group:
            if self._views or self._announcing or self._llama_server:
                group.create_task(self._hand_over_whenever_due())
            if self._llama_server is not None:
                group.create_task(self._reload_whenever_due(self._llama_server))

    async def _hand_over_whenever_due(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._hand_over():
                self._loop.call_later(self._retry_seconds, self._due.set)

    async def _reload_whenever_due(self, llama_server: LlamaServer) -> None:
        """Beside the rest: a server that is not there takes long to be given up."""
        while True:
            await self._to_reload.wait()
            self._to_reload.clear()
            await llama_server.reload()

    async def _hand_over(self) -> bool:
        """One round; false when something is to be tried again."""
        waiting = self._arrivals.waiting
        try:
            files = await asyncio.to_thread(self._store.inventory)
        except (StoreError, OSError) as error:
            log.error("the store cannot be listed", cause=str(error))
            return False
        models = loadable_models(files)
        followed = [await _follow(view, models) for view in self._views]
        if models != self._shown:
            self._shown = models
            self._to_reload.set()
        for arrival in waiting:
            for one in self._announcing:
                await one.announce(arrival)
        try:
            for arrival in waiting:
                await asyncio.to_thread(self._arrivals.done, arrival)
        except OSError as error:
            log.error("the list of arrivals cannot be written", cause=str(error))
        return all(followed)


async def _follow(view: View, models: Sequence[Loadable]) -> bool:
    try:
        await view.follow(models)
    except OllamaUnreachable as error:
        log.warning("Ollama is not told of the models yet", cause=str(error))
        return False
    except OSError as error:
        log.error("a view of the models cannot be kept", cause=str(error))
        return False
    return True
