"""What many streams want of the store at one moment is done together."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 256


class Batches(Generic[Item, Result]):
    """Runs a synchronous function in a thread over what came while it ran before.

    One at a time, in the order of arrival, at most 256 items together. Belongs to the event loop.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        """`run` returns one result for each item, or raises and has done nothing."""
        self._run = run
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def do(self, item: Item) -> Result:
        """The result of an item, as of a moment after this call; raises what `run` raises for it.

        It is done also when nobody waits for it any more.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run_all())
        return await done

    async def _run_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                try:
                    await self._run_batch(batch)
                except Exception as error:
                    if len(batch) == 1:
                        _fail(batch[0][1], error)
                        continue
                    for one in batch:  # so that an item fails for itself alone
                        try:
                            await self._run_batch([one])
                        except Exception as its_own:
                            _fail(one[1], its_own)
        finally:
            self._running = None

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results = await asyncio.to_thread(self._run, [item for item, _ in batch])
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)


def _fail(done: asyncio.Future[Result], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
