"""Orders that are carried out over time."""

from collections.abc import Sequence

import pytest

from router.domain.errors import (
    InvalidOptions,
    ModelNotFound,
    NoNodes,
    RequestReused,
    WrongState,
)
from router.domain.models import HoldingState
from router.domain.orders import OrderOptions, OrderState, OrderTarget, OrderView
from router.domain.rollouts import Rollout
from router.domain.tasks import TaskFailure, TaskState
from router.domain.windows import Window
from router.services.rollouts import AWAY
from router.services.sessions import Session
from tests.services.world import World

A = "hf/o/r/m-Q4_K_M.gguf"
B = "hf/o/other/m-Q4_K_M.gguf"
ALL, LABELS = OrderTarget.ALL, OrderTarget.LABELS
FOLLOW = OrderOptions(follow=True)
CANARY = OrderOptions(rollout=Rollout(canary_nodes=1, wave_nodes=2))
BROKEN = TaskFailure("disk_error", "it is broken", False)


@pytest.fixture
def world(world: World) -> World:
    """Two models are registered."""
    world.register("o/r")
    world.register("o/other")
    return world


def fleet(world: World, *names: str) -> dict[str, Session]:
    """These nodes are connected."""
    return {name: world.connect(name) for name in names}


def now(world: World, view: OrderView) -> OrderView:
    return world.orders.order(view.order.order_id)


def states(view: OrderView) -> dict[str, str]:
    """Of each node that has a task, how it stands."""
    return {task.task.node_id: task.task.state.value for task in view.tasks}


def waiting(view: OrderView) -> list[str]:
    return [node.node_id for node in view.waiting]


def end(
    world: World,
    view: OrderView,
    session: Session,
    state: TaskState = TaskState.COMPLETED,
    *,
    attempt: int = 1,
) -> OrderView:
    """The task of a node comes to an end."""
    task_id = next(
        task.task.task_id for task in now(world, view).tasks if task.task.node_id == session.node_id
    )
    failure = BROKEN if state is TaskState.FAILED else None
    world.report(session, task_id, state, done=1000, attempt=attempt, failure=failure)
    return now(world, view)


# Waves


def test_each_wave_begins_when_the_one_before_has_ended(world: World) -> None:
    nodes = fleet(world, "n1", "n2", "n3", "n4")

    first = world.orders.start(A, ALL, options=CANARY)
    second = end(world, first, nodes["n1"])
    between = end(world, first, nodes["n2"])
    third = end(world, first, nodes["n3"])
    last = end(world, first, nodes["n4"])

    assert (states(first), waiting(first)) == ({"n1": "pending"}, ["n2", "n3", "n4"])
    assert first.waiting[0].reason == "its wave begins when 1 task has ended"
    assert list(states(second)) == ["n1", "n2", "n3"]
    assert waiting(between) == ["n4"]
    assert list(states(third)) == ["n1", "n2", "n3", "n4"]
    assert [view.state for view in (first, third, last)] == [
        OrderState.ACTIVE,
        OrderState.ACTIVE,
        OrderState.COMPLETED,
    ]
    assert (third.ended, last.ended, last.completed) == (False, True, 4)


def test_too_many_failures_stop_it_and_a_retry_that_completes_lets_it_go_on(world: World) -> None:
    nodes = fleet(world, "n1", "n2", "n3")
    view = world.orders.start(A, ALL, options=CANARY)

    stopped = end(world, view, nodes["n1"], TaskState.FAILED)
    world.downloads.retry(stopped.tasks[0].task.task_id)
    retrying = now(world, view)
    going_on = end(world, view, nodes["n1"], attempt=2)

    assert (stopped.state, stopped.ended, waiting(stopped)) == (
        OrderState.STOPPED,
        True,
        ["n2", "n3"],
    )
    assert stopped.note.startswith("stopped: n1 failed, more than the 0 allowed; retry")
    assert (retrying.state, waiting(retrying)) == (OrderState.ACTIVE, ["n2", "n3"])
    assert states(going_on) == {"n1": "completed", "n2": "pending", "n3": "pending"}


def test_as_many_may_fail_as_are_allowed(world: World) -> None:
    nodes = fleet(world, "n1", "n2")
    careful = OrderOptions(rollout=Rollout(canary_nodes=1, max_failures=1))
    view = world.orders.start(A, ALL, options=careful)

    second = end(world, view, nodes["n1"], TaskState.FAILED)
    last = end(world, view, nodes["n2"])

    assert states(second) == {"n1": "failed", "n2": "pending"}
    assert (last.state, last.failed, last.ended) == (OrderState.FAILED, 1, True)


def test_a_task_that_is_cancelled_has_ended_and_has_not_failed(world: World) -> None:
    fleet(world, "n1", "n2")
    view = world.orders.start(A, ALL, options=CANARY)

    world.downloads.cancel(view.tasks[0].task.task_id)

    assert states(now(world, view)) == {"n1": "cancelled", "n2": "pending"}


def test_waves_go_on_after_a_crash(world: World) -> None:
    fleet(world, "n1", "n2", "n3", "n4")
    view = world.orders.start(A, ALL, options=CANARY)

    world.restart()
    nodes = fleet(world, "n1", "n2", "n3", "n4")
    second = end(world, view, nodes["n1"])
    world.restart()

    assert list(states(now(world, view))) == list(states(second)) == ["n1", "n2", "n3"]


def test_a_wave_stops_waiting_for_a_node_that_stays_away(world: World) -> None:
    nodes = fleet(world, "n1", "n2", "n3", "n4", "n5", "n6")
    view = world.orders.start(A, ALL, options=CANARY)
    end(world, view, nodes["n1"])
    end(world, view, nodes["n2"])
    world.sessions.close(nodes["n3"])

    world.clock.pass_by(AWAY.total_seconds() - 1)
    world.rollouts.look_at_the_time()
    patient = now(world, view)
    world.clock.pass_by(1)
    world.rollouts.look_at_the_time()
    further = now(world, view)

    assert waiting(patient) == ["n4", "n5", "n6"]
    assert waiting(further) == ["n6"]
    assert "no wave waits for n3: offline" in further.note


def test_after_a_start_of_the_router_nodes_have_time_to_come_back(world: World) -> None:
    nodes = fleet(world, "n1", "n2", "n3", "n4")
    view = world.orders.start(A, ALL, options=CANARY)
    end(world, view, nodes["n1"])
    end(world, view, nodes["n2"])
    world.clock.pass_by(3600)
    world.restart()

    world.rollouts.look_at_the_time()

    assert waiting(now(world, view)) == ["n4"]


def test_another_canary_takes_the_place_of_one_that_went_away(world: World) -> None:
    nodes = fleet(world, "n1", "n2", "n3")
    view = world.orders.start(A, ALL, options=CANARY)
    for name in ("n2", "n3"):
        world.sessions.close(nodes[name])
    world.sessions.close(nodes["n1"])
    world.clock.pass_by(AWAY.total_seconds())
    world.rollouts.look_at_the_time()
    alone = now(world, view)

    world.connect("n3")

    assert states(alone) == {"n1": "pending"}
    assert alone.note == "waits for a node of its present wave: n1 offline"
    assert states(now(world, view)) == {"n1": "pending", "n3": "pending"}


def test_nodes_that_are_there_go_first(world: World) -> None:
    world.sessions.close(world.connect("n1"))
    world.connect("n2")

    view = world.orders.start(A, ALL, options=CANARY)

    assert (list(states(view)), waiting(view)) == (["n2"], ["n1"])


# Following


def test_a_node_that_joins_gets_a_task_once(world: World) -> None:
    fleet(world, "n1")
    view = world.orders.start(A, ALL, options=FOLLOW)
    plain = world.orders.start(B, ALL)

    session = world.connect("n2")
    world.sessions.close(session)
    world.connect("n2")

    assert list(states(now(world, view))) == ["n1", "n2"]
    assert list(states(now(world, plain))) == ["n1"]
    assert len(world.assignment("n2").tasks) == 1
    assert now(world, view).order.node_ids == ("n1",)


def test_a_node_that_gets_the_labels_gets_a_task(world: World) -> None:
    fleet(world, "n1", "n2")
    with pytest.raises(NoNodes):
        world.orders.start(A, LABELS, labels={"gpu": "a100"})

    view = world.orders.start(A, LABELS, labels={"gpu": "a100"}, options=FOLLOW)
    world.nodes.update("n2", labels={"gpu": "a100"})
    world.nodes.update("n2", labels={"more": "x"})
    world.connect("n3")

    assert (view.state, view.note) == (OrderState.ACTIVE, "waits for a node with gpu=a100 to join")
    assert states(now(world, view)) == {"n2": "pending"}


def test_an_order_by_labels_that_does_not_follow_stays_with_its_nodes(world: World) -> None:
    fleet(world, "n1", "n2")
    world.nodes.update("n1", labels={"gpu": "a100"})

    view = world.orders.start(A, LABELS, labels={"gpu": "a100"})
    world.nodes.update("n2", labels={"gpu": "a100"})

    assert list(states(now(world, view))) == ["n1"]


def test_a_completed_order_that_follows_goes_on_until_it_is_cancelled(world: World) -> None:
    nodes = fleet(world, "n1")
    view = world.orders.start(A, ALL, options=FOLLOW)
    done = end(world, view, nodes["n1"])
    world.connect("n2")
    active = now(world, view)
    cancelled = world.orders.cancel(view.order.order_id)

    world.connect("n3")

    assert [one.state for one in (done, active, cancelled)] == [
        OrderState.COMPLETED,
        OrderState.ACTIVE,
        OrderState.CANCELLED,
    ]
    assert states(now(world, view)) == {"n1": "completed", "n2": "cancelled"}
    with pytest.raises(WrongState):
        world.orders.cancel(view.order.order_id)


def test_two_orders_that_follow_share_the_task_of_a_node(world: World) -> None:
    first = world.orders.start(A, ALL, options=FOLLOW)
    second = world.orders.start(A, ALL, options=FOLLOW)

    world.connect("n1")

    assert len(world.downloads.tasks().items) == 1
    assert now(world, first).tasks == now(world, second).tasks


def test_what_the_operator_cancelled_is_not_begun_again(world: World) -> None:
    view = world.orders.start(A, ALL, options=FOLLOW)
    session = world.connect("n1")
    world.downloads.cancel(now(world, view).tasks[0].task.task_id)

    world.sessions.close(session)
    world.connect("n1")
    world.nodes.update("n1", labels={"x": "y"})

    assert states(now(world, view)) == {"n1": "cancelled"}


def test_a_model_that_was_evicted_by_hand_stays_away_and_the_order_says_so(world: World) -> None:
    nodes = fleet(world, "n1")
    view = world.orders.start(A, ALL, options=FOLLOW)
    end(world, view, nodes["n1"])

    world.nodes.evict("n1", A)
    world.sessions.close(nodes["n1"])
    world.connect("n1")

    assert len(world.downloads.tasks().items) == 1
    assert now(world, view).note == "left alone, since the model was evicted there: n1"


def test_a_node_that_joins_a_rollout_waits_for_its_wave(world: World) -> None:
    nodes = fleet(world, "n1", "n2")
    careful = OrderOptions(follow=True, rollout=Rollout(canary_nodes=1, wave_nodes=1))
    view = world.orders.start(A, ALL, options=careful)

    nodes["n3"] = world.connect("n3")
    joined = now(world, view)
    end(world, view, nodes["n1"])
    end(world, view, nodes["n2"])

    assert waiting(joined) == ["n2", "n3"]
    assert states(now(world, view)) == {"n1": "completed", "n2": "completed", "n3": "pending"}


def test_a_node_that_was_removed_and_comes_back_is_new(world: World) -> None:
    nodes = fleet(world, "n1")
    view = world.orders.start(A, ALL, options=FOLLOW)
    end(world, view, nodes["n1"])
    world.sessions.close(nodes["n1"])
    world.nodes.remove("n1")

    world.connect("n1")

    assert states(now(world, view)) == {"n1": "pending"}


def test_what_is_no_longer_registered_is_no_longer_followed(world: World) -> None:
    view = world.orders.start(A, ALL, options=FOLLOW)
    world.models.unregister(A)
    world.register("o/r")

    world.connect("n1")

    assert (states(now(world, view)), now(world, view).state) == ({}, OrderState.CANCELLED)


# Windows


def holds(world: World, node_id: str = "n1") -> list[str]:
    return [task.hold for task in world.assignment(node_id).tasks]


NIGHT = OrderOptions(window=Window("22:00", "06:00", "UTC"))


def test_outside_its_window_a_task_waits_and_its_node_is_told_what_for(world: World) -> None:
    fleet(world, "n1")
    world.clock.pass_by(12 * 3600)  # noon
    view = world.orders.start(A, ALL, options=NIGHT)
    noon = holds(world)
    note = view.note
    world.clock.pass_by(10 * 3600)
    at_ten = holds(world)
    world.clock.pass_by(8 * 3600)

    assert (noon, at_ten, holds(world)) == (["waits for 22:00 UTC"], [""], ["waits for 22:00 UTC"])
    assert note == "waits for its window, 22:00-06:00 UTC"


def test_nodes_are_told_when_a_window_opens_and_closes_and_only_then(world: World) -> None:
    fleet(world, "n1")
    world.clock.pass_by(12 * 3600)
    world.rollouts.look_at_the_time()
    world.orders.start(A, ALL, options=NIGHT)
    news = []

    for hours in (10, 1, 7, 1):
        world.clock.pass_by(hours * 3600)
        before = world.watchers.sequence
        world.rollouts.look_at_the_time()
        news.append(world.watchers.sequence - before)

    assert news == [1, 0, 1, 0]


def test_an_order_without_a_window_frees_the_tasks_that_it_shares(world: World) -> None:
    fleet(world, "n1")
    world.clock.pass_by(12 * 3600)
    world.orders.start(A, ALL, options=NIGHT)

    world.orders.start(A, ALL)

    assert holds(world) == [""]


def test_a_window_holds_a_retried_task_too(world: World) -> None:
    nodes = fleet(world, "n1")
    view = world.orders.start(A, ALL, options=NIGHT)
    failed = end(world, view, nodes["n1"], TaskState.FAILED)
    world.clock.pass_by(12 * 3600)

    world.downloads.retry(failed.tasks[0].task.task_id)

    assert holds(world) == ["waits for 22:00 UTC"]


# Replacement

INSTEAD = OrderOptions(replaces="o/r:Q4_K_M")


def ready(world: World, node_id: str) -> set[str]:
    return {
        holding.model_name
        for holding in world.holdings.of_node(node_id)
        if holding.state is HoldingState.READY
    }


def evicted(world: World, node_id: str) -> list[str]:
    return [one.manifest.model_name for one in world.assignment(node_id).evictions]


def held(world: World, *names: str) -> dict[str, Session]:
    """These nodes hold model A."""
    nodes = fleet(world, *names)
    for session in nodes.values():
        world.take_inventory(session, [world.models.resolve(A).manifest])
    return nodes


def test_the_old_model_goes_from_each_node_once_the_new_one_is_there(world: World) -> None:
    nodes = held(world, "n1", "n2")
    view = world.orders.start(B, ALL, options=INSTEAD)

    before = [ready(world, name) for name in nodes]
    end(world, view, nodes["n1"])
    end(world, view, nodes["n2"], TaskState.FAILED)

    assert before == [{A}, {A}]
    assert [ready(world, name) for name in nodes] == [{B}, {A}]
    assert (evicted(world, "n1"), evicted(world, "n2")) == ([A], [])
    assert world.models.resolve(A).name == A


def test_what_was_replaced_is_not_repaired(world: World) -> None:
    nodes = fleet(world, "n1")
    brought = world.orders.start(A, ALL)
    end(world, brought, nodes["n1"])
    world.clock.pass_by(1)
    view = world.orders.start(B, ALL, options=INSTEAD)
    end(world, view, nodes["n1"])

    world.take_inventory(nodes["n1"], [world.models.resolve(B).manifest])

    assert len(world.downloads.tasks().items) == 2


def test_a_task_that_brings_the_old_model_is_cancelled_first(world: World) -> None:
    nodes = fleet(world, "n1")
    old = world.orders.start(A, ALL)
    world.clock.pass_by(1)
    view = world.orders.start(B, ALL, options=INSTEAD)

    end(world, view, nodes["n1"])

    assert states(now(world, old)) == {"n1": "cancelled"}
    assert evicted(world, "n1") == [A]


def test_the_old_model_stays_where_an_order_still_wants_it_and_it_is_said(world: World) -> None:
    nodes = held(world, "n1")
    world.orders.start(A, ALL, options=FOLLOW)
    view = world.orders.start(B, ALL, options=INSTEAD)

    done = end(world, view, nodes["n1"])

    assert ready(world, "n1") == {A, B}
    assert f'"{A}" stays on n1: order order-' in done.note


def test_an_order_that_came_later_keeps_the_old_model(world: World) -> None:
    nodes = held(world, "n1")
    view = world.orders.start(B, ALL, options=INSTEAD)
    world.clock.pass_by(1)
    later = world.orders.start(A, ALL)

    end(world, view, nodes["n1"])

    assert states(now(world, later)) == {"n1": "pending"}
    assert evicted(world, "n1") == []


def test_a_node_that_failed_replaces_after_its_retry(world: World) -> None:
    nodes = held(world, "n1")
    view = world.orders.start(B, ALL, options=INSTEAD)
    failed = end(world, view, nodes["n1"], TaskState.FAILED)

    world.downloads.retry(failed.tasks[0].task.task_id)
    end(world, view, nodes["n1"], attempt=2)

    assert ready(world, "n1") == {B}


# The wish itself


@pytest.mark.parametrize(
    ("target", "node_ids", "options", "error"),
    [
        (OrderTarget.SPECIFIC, ["n1"], FOLLOW, InvalidOptions),
        (ALL, [], OrderOptions(rollout=Rollout(max_failures=1)), InvalidOptions),
        (ALL, [], OrderOptions(rollout=Rollout(canary_nodes=1 << 31)), InvalidOptions),
        (ALL, [], OrderOptions(window=Window("22:00", "22:00")), InvalidOptions),
        (ALL, [], OrderOptions(replaces="o/other:Q4_K_M"), InvalidOptions),
        (ALL, [], OrderOptions(replaces="o/none:Q4_K_M"), ModelNotFound),
    ],
    ids=["follow", "rollout", "canary", "window", "itself", "unknown"],
)
def test_options_that_make_no_sense_order_nothing(
    world: World,
    target: OrderTarget,
    node_ids: Sequence[str],
    options: OrderOptions,
    error: type[Exception],
) -> None:
    fleet(world, "n1")

    with pytest.raises(error):
        world.orders.start(B, target, node_ids, options=options)

    assert world.orders.orders(0, "").items == []


def test_the_same_request_with_the_same_wish_is_carried_out_once(world: World) -> None:
    fleet(world, "n1")
    wish = OrderOptions(True, Rollout(1, 25), Window("22:00", "06:00", "UTC"), "o/r:Q4_K_M")
    first = world.orders.start(B, ALL, options=wish, request_id="r", priority=3)

    again = world.orders.start(B, ALL, options=wish, request_id="r", priority=3)

    assert again == first
    for options, priority in (
        (OrderOptions(False, wish.rollout, wish.window, wish.replaces), 3),
        (OrderOptions(True, Rollout(2, 25), wish.window, wish.replaces), 3),
        (OrderOptions(True, wish.rollout, None, wish.replaces), 3),
        (OrderOptions(True, wish.rollout, wish.window), 3),
        (wish, 4),
    ):
        with pytest.raises(RequestReused):
            world.orders.start(B, ALL, options=options, request_id="r", priority=priority)


def test_labels_are_part_of_the_wish(world: World) -> None:
    fleet(world, "n1")
    world.nodes.update("n1", labels={"gpu": "a100", "row": "1"})
    world.orders.start(A, LABELS, labels={"gpu": "a100"}, request_id="r")

    with pytest.raises(RequestReused):
        world.orders.start(A, LABELS, labels={"row": "1"}, request_id="r")


def test_an_order_shows_the_repair_of_what_it_brought(world: World) -> None:
    nodes = fleet(world, "n1")
    view = world.orders.start(A, ALL)
    end(world, view, nodes["n1"])
    manifest = world.models.resolve(A).manifest
    world.take_inventory(nodes["n1"], [manifest])
    world.clock.pass_by(1)

    world.take_inventory(nodes["n1"], [])

    repairing = now(world, view)
    assert (states(repairing), repairing.ended) == ({"n1": "pending"}, False)
    assert end(world, view, nodes["n1"]).state is OrderState.COMPLETED
