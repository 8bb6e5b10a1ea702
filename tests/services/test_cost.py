"""What calls cost when the fleet is large: the number of queries does not grow with it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router.domain.orders import OrderTarget
from tests.fakes.catalog import gguf_repo
from tests.services.world import World

NAME = "hf/o/r/m-Q4_K_M.gguf"


@pytest.fixture
def queries(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Counts the queries since it was asked last."""
    connection = world.database.connection
    execute: Any = connection.execute_sql
    seen: list[str] = []

    def counting(sql: str, *arguments: object, **options: object) -> object:
        seen.append(sql)
        return execute(sql, *arguments, **options)

    monkeypatch.setattr(connection, "execute_sql", counting)

    def since() -> int:
        count = len(seen)
        seen.clear()
        return count

    yield since


@pytest.mark.parametrize(
    "call",
    [
        lambda world: world.models.all(),
        lambda world: world.models.supported(),
        lambda world: world.models.page(1000, ""),
        lambda world: world.models.view(NAME),
        lambda world: world.nodes.all(),
        lambda world: world.nodes.page(1000, ""),
        lambda world: world.nodes.get("node-0"),
        lambda world: world.plans.plan(NAME, OrderTarget.ALL, []),
        lambda world: world.order(NAME),
    ],
    ids=["models", "v1", "model page", "model", "nodes", "node page", "node", "plan", "order"],
)
def test_a_call_asks_as_often_for_many_as_for_few(
    world: World, queries: Callable[[], int], call: Callable[[World], object]
) -> None:
    world.register()
    _grow(world, 0, 3)
    queries()
    call(world)
    few = queries()
    _grow(world, 3, 12)
    queries()

    call(world)

    assert queries() <= few + 1


def _grow(world: World, first: int, last: int) -> None:
    for number in range(first, last):
        repo = f"o/more-{number}"
        world.catalog.repos[repo] = gguf_repo(repo)
        manifest = world.register(repo).model.manifest
        session = world.connect(f"node-{number}")
        world.take_inventory(session, [manifest])
