"""An object in a process of its own, so that its processor time is not that of what is measured."""

import asyncio
import multiprocessing
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any


class Remote(AbstractContextManager["Remote"]):
    """Makes an object in a new process, inside an event loop, and calls its coroutine methods."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        """`make` and the arguments must be importable, or picklable, over there."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    async def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method, one at a time; raises `RuntimeError` with the other side's traceback."""

        def exchange() -> Any:
            self._pipe.send((method, arguments))
            return self._pipe.recv()

        result, trouble = await asyncio.to_thread(exchange)
        if trouble:
            raise RuntimeError(f"{method}: {trouble}")
        return result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def _serve(make: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    async def serve() -> None:
        thing = make(*arguments)
        while True:
            method, given = await asyncio.to_thread(pipe.recv)
            try:
                pipe.send((await getattr(thing, method)(*given), ""))
            except Exception:
                pipe.send((None, traceback.format_exc()))

    asyncio.run(serve())
