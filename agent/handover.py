"""Hands what the store holds to the inference engines: views first, then commands, then reloads."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent.after_commit import Announcing, Arrivals, LlamaServer
from agent.ollama import OllamaUnreachable
from agent.store import StoredFile, StoreError
from agent.store.loadable import Loadable, loadable_models
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS = 30.0


class View(Protocol):
    """A place where an engine looks for models."""

    def follow(self, models: Sequence[Loadable]) -> None:
        """Shows exactly these models. Blocks. Raises `OSError`, `OllamaUnreachable`."""


class Shown(Protocol):
    """The part of the store that is needed."""

    def inventory(self) -> list[StoredFile]:
        """Every visible file; `sha256` is None until it has been verified."""


class Handover:
    """Keeps views true and announces arrivals, in one loop, from the present state of the store.

    What failed is tried again after `retry_seconds`. Belongs to the event loop.
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
        self._due = asyncio.Event()
        self._due.set()
        self._told: list[Loadable] | None = None

    @property
    def is_used(self) -> bool:
        """Whether anybody is to be told of anything."""
        return bool(self._views or self._announcing or self._llama_server)

    def wake(self) -> None:
        """Says that something has arrived, changed or gone; returns at once."""
        self._due.set()

    async def run(self) -> None:
        """Does what is due until cancelled; at once when it begins."""
        while self.is_used:
            await self._due.wait()
            self._due.clear()
            if not await self._hand_over():
                asyncio.get_running_loop().call_later(self._retry_seconds, self._due.set)

    async def _hand_over(self) -> bool:
        """One round; false when something is to be tried again."""
        waiting = self._arrivals.waiting
        try:
            files = await asyncio.to_thread(self._store.inventory)
        except (StoreError, OSError) as error:
            log.error("the store cannot be listed", cause=str(error))
            return False
        models = loadable_models(files)
        followed = [await asyncio.to_thread(_follow, view, models) for view in self._views]
        for arrival in waiting:
            for one in self._announcing:
                await one.announce(arrival)
        if self._llama_server is not None and (waiting or models != self._told):
            self._told = models
            await self._llama_server.reload()
        try:
            for arrival in waiting:
                await asyncio.to_thread(self._arrivals.done, arrival)
        except OSError as error:
            log.error("the list of arrivals cannot be written", cause=str(error))
        return all(followed)


def _follow(view: View, models: Sequence[Loadable]) -> bool:
    try:
        view.follow(models)
    except OllamaUnreachable as error:
        log.warning("Ollama is not told of the models yet", cause=str(error))
        return False
    except OSError as error:
        log.error("a view of the models cannot be kept", cause=str(error))
        return False
    return True
