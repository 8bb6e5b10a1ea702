"""What a node has lost comes back when an order had brought it, and only then."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.domain.models import HoldingState, Manifest
from router.domain.tasks import Task, TaskState
from router.services.sessions import Report, Session, Settling
from tests.services.world import GB, World

NAME = "hf/o/r/r-Q4_K_M.gguf"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A router with a registered model and one connected node, `n1`."""
    world = World(tmp_path)
    world.register()
    yield world
    world.database.close()


def manifest(world: World) -> Manifest:
    return world.models.resolve("o/r:Q4_K_M").manifest


def tasks(world: World) -> list[Task]:
    """The newest first."""
    return [view.task for view in world.downloads.tasks().items]


def brought(world: World, session: Session) -> Task:
    """An order has brought the model, and the node says that it holds it."""
    task = world.order("o/r:Q4_K_M").tasks[0].task
    world.complete(session, task.task_id)
    world.take_inventory(session, [manifest(world)])
    return task


def lose(world: World, session: Session) -> None:
    """A while later the node holds nothing."""
    world.clock.pass_by(1)
    world.take_inventory(session, [])


def test_a_lost_model_becomes_one_more_task_of_its_order(world: World) -> None:
    session = world.connect("n1")
    first = brought(world, session)

    lose(world, session)

    repair, before = tasks(world)
    assert (repair.state, repair.order_id, repair.node_id) == (
        TaskState.PENDING,
        first.order_id,
        "n1",
    )
    assert before.task_id == first.task_id
    assert [task.task_id for task in world.sessions.assignments(["n1"])[0].tasks] == [
        repair.task_id
    ]


def test_a_repair_is_placed_once_and_makes_the_model_ready_again(world: World) -> None:
    session = world.connect("n1")
    brought(world, session)
    lose(world, session)
    lose(world, session)
    repair = tasks(world)[0]

    world.complete(session, repair.task_id)

    (holding,) = world.holdings.of_node("n1")
    assert len(tasks(world)) == 2
    assert holding.state is HoldingState.READY


def test_while_a_node_still_verifies_nothing_is_lost(world: World) -> None:
    session = world.connect("n1")
    brought(world, session)

    world.take_inventory(session, [], partial=True)

    assert len(tasks(world)) == 1


def test_what_was_evicted_does_not_come_back(world: World) -> None:
    session = world.connect("n1")
    brought(world, session)
    model = manifest(world)

    world.nodes.evict("n1", "o/r:Q4_K_M")
    world.take_inventory(session, [model])  # not done yet
    lose(world, session)
    (eviction,) = world.store.evictions("n1")
    done = Report((), 100 * GB, 200 * GB, (eviction.eviction_id,))
    world.sessions.settle([Settling(session, done, ())])
    lose(world, session)

    assert len(tasks(world)) == 1


@pytest.mark.parametrize("evict", [False, True])
def test_a_removed_model_does_not_come_back(world: World, evict: bool) -> None:
    session = world.connect("n1")
    brought(world, session)

    world.models.unregister("o/r:Q4_K_M", evict=evict)
    lose(world, session)

    assert len(tasks(world)) == 1


def test_what_was_found_and_never_ordered_does_not_come_back(world: World) -> None:
    session = world.connect("n1")
    world.take_inventory(session, [manifest(world)])

    lose(world, session)

    assert tasks(world) == []


def test_a_cancelled_repair_is_not_begun_again(world: World) -> None:
    session = world.connect("n1")
    brought(world, session)
    lose(world, session)
    world.downloads.cancel(tasks(world)[0].task_id)

    lose(world, session)
    world.take_inventory(session, [manifest(world)])
    lose(world, session)

    assert [task.state for task in tasks(world)] == [TaskState.CANCELLED, TaskState.COMPLETED]


def test_a_node_that_loses_a_model_again_and_again_is_left_alone_for_an_hour(
    world: World,
) -> None:
    session = world.connect("n1")
    brought(world, session)
    for _ in range(5):
        lose(world, session)
        newest = tasks(world)[0]
        if newest.state is TaskState.PENDING:
            world.complete(session, newest.task_id)
        world.take_inventory(session, [manifest(world)])
    soon = len(tasks(world))
    world.clock.pass_by(3700)

    lose(world, session)

    assert soon == 3
    assert len(tasks(world)) == 4


def test_a_loss_is_kept_with_its_repair_or_not_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = world.connect("n1")
    brought(world, session)

    def fail(tasks: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as failing:
        failing.setattr(world.store, "add_tasks", fail)
        with pytest.raises(OSError, match="disk is full"):
            lose(world, session)
    lose(world, session)

    assert len(tasks(world)) == 2
