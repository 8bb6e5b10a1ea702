"""What many streams ask for at one moment is done together, and fails alone."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from router.rpc.batches import Batches


class Doubling:
    """Doubles numbers, holds the first batch until it is let go, and cannot double a 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        """The doubles."""
        self.batches.append(list(items))
        self.begun.set()
        assert self.let_go.wait(20)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def test_what_comes_while_a_batch_runs_is_the_next_batch() -> None:
    async def story() -> None:
        run = Doubling()
        batches = Batches(run)
        first = asyncio.create_task(batches.do(1))
        await asyncio.to_thread(run.begun.wait, 20)
        others = [asyncio.create_task(batches.do(item)) for item in (2, 3, 4)]
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(2)))

        run.let_go.set()

        assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
        assert run.batches == [[1], [2, 3, 4]]

    asyncio.run(story())


def test_an_item_that_fails_fails_for_itself_alone() -> None:
    async def story() -> None:
        run = Doubling()
        run.let_go.set()
        batches = Batches(run)

        results = await asyncio.gather(*map(batches.do, (1, 13, 3)), return_exceptions=True)

        assert (results[0], results[2]) == (2, 6)
        with pytest.raises(ValueError, match="13"):
            raise results[1]  # type: ignore[misc]

    asyncio.run(story())


def test_a_waiter_that_leaves_takes_nothing_from_the_others() -> None:
    async def story() -> None:
        run = Doubling()
        batches = Batches(run)
        leaving, staying = asyncio.create_task(batches.do(1)), asyncio.create_task(batches.do(2))
        await asyncio.to_thread(run.begun.wait, 20)

        leaving.cancel()
        run.let_go.set()

        assert await staying == 4

    asyncio.run(story())
