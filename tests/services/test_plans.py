"""What an order would do, before it is made."""

from dataclasses import replace

import pytest

from router.domain.errors import InvalidTarget, NoNodes, PlanOutdated
from router.domain.orders import OrderTarget
from router.domain.plans import NodePlan, Plan, Verdict
from router.domain.tasks import TaskState
from tests.fakes.catalog import digest, gguf_repo, variant
from tests.services.world import GB, World

ALL = OrderTarget.ALL
BIG = "o/big"


@pytest.fixture
def big(world: World) -> World:
    """A model of 50 GB is registered."""
    world.catalog.repos[BIG] = gguf_repo(BIG, variant(BIG, "big.gguf", "F16", size=50 * GB))
    world.register(BIG)
    return world


def plan(world: World) -> Plan:
    return world.plans.plan(BIG, ALL)


def of(whole: Plan, node_id: str) -> NodePlan:
    return next(node for node in whole.nodes if node.node_id == node_id)


def sources(whole: Plan) -> dict[str, tuple[str, int, int]]:
    """Of each node, where its bytes come from; in GB, from the Hub and from peers."""
    return {
        node.node_id: (node.source, node.hub_bytes // GB, node.peer_bytes // GB)
        for node in whole.nodes
    }


def test_what_several_nodes_of_a_site_need_crosses_the_line_once(big: World) -> None:
    for node_id in ("a-1", "a-2", "b-1"):
        big.connect(node_id)
    big.nodes.update("b-1", labels={"site": "b"})

    whole = plan(big)

    assert sources(whole) == {
        "a-1": ("hub", 50, 0),
        "a-2": ("peers", 0, 50),
        "b-1": ("hub", 50, 0),
    }
    assert whole.line_bytes == 100 * GB


def test_what_a_connected_node_of_the_site_holds_comes_from_there(big: World) -> None:
    manifest = big.models.resolve(BIG).manifest
    holder = big.connect("z-holder")
    big.take_inventory(holder, [manifest])
    big.connect("a-1")
    big.connect("b-1")
    big.nodes.update("b-1", labels={"site": "b"})
    here = sources(plan(big))
    big.sessions.close(holder)

    gone = sources(plan(big))

    assert here == {"z-holder": ("", 0, 0), "a-1": ("peers", 0, 50), "b-1": ("hub", 50, 0)}
    assert gone["a-1"] == ("hub", 50, 0)


def test_a_node_that_has_no_room_brings_nothing_for_the_others(big: World) -> None:
    big.connect("a-full", free=GB)
    big.connect("b-fits")

    whole = plan(big)

    assert [node.verdict for node in whole.nodes] == [Verdict.REFUSED, Verdict.FITS]
    assert sources(whole)["b-fits"] == ("hub", 50, 0)
    assert whole.line_bytes == 50 * GB


def test_what_a_task_has_fetched_is_not_needed_once_more(big: World) -> None:
    session = big.connect()
    order = big.order(BIG)
    big.report(session, order.order.task_ids[0], TaskState.DOWNLOADING, done=20 * GB)

    node = of(plan(big), "node-1")

    assert (node.needed_bytes, node.hub_bytes, node.source) == (30 * GB, 30 * GB, "hub")


def test_what_is_there_under_another_name_comes_from_the_disk(big: World) -> None:
    copy = variant("o/copy", "other.gguf", "F16", size=50 * GB)
    big.catalog.repos["o/copy"] = gguf_repo("o/copy", copy)
    big.take_inventory(big.connect(), [big.register("o/copy").model.manifest])

    node = of(plan(big), "node-1")

    assert (node.verdict, node.needed_bytes, node.source) == (Verdict.FITS, 0, "disk")


def test_the_time_is_told_at_the_rates_seen_last_below_the_limits(big: World) -> None:
    session = big.connect("a-1")
    unknown = plan(big).expected_seconds
    order = big.order(BIG)
    big.report(session, order.order.task_ids[0], TaskState.DOWNLOADING, done=0, speed=100_000_000)
    seen = plan(big).expected_seconds
    big.nodes.update("a-1", max_rate=10_000_000)

    limited = plan(big).expected_seconds

    assert (unknown, seen, limited) == (None, 500.0, 5000.0)


def test_memory_is_that_of_the_machine_or_of_its_graphics_processors(big: World) -> None:
    big.connect()

    node = of(plan(big), "node-1")

    assert node.required_memory_bytes == big.models.resolve(BIG).required_memory_bytes
    assert node.fits_memory is (node.required_memory_bytes <= 64 * GB)


def test_a_plan_that_still_holds_becomes_the_order(big: World) -> None:
    session = big.connect("a-1")
    big.connect("a-2", free=GB)
    confirmed = plan(big)
    big.nodes.seen("a-1", 90 * GB, 200 * GB)
    big.sessions.close(session)

    made = big.orders.start(BIG, ALL, plan_id=confirmed.plan_id)

    assert made.order.node_ids == ("a-1", "a-2")


def test_bytes_that_a_running_task_brings_do_not_outdate_a_plan(big: World) -> None:
    session = big.connect("a-1")
    running = big.order(BIG)
    before = plan(big)
    big.report(session, running.order.task_ids[0], TaskState.DOWNLOADING, done=GB, speed=5)

    assert plan(big).plan_id == before.plan_id


@pytest.mark.parametrize("change", ["a node joins", "it fills up", "the model arrives", "upgrade"])
def test_a_plan_that_no_longer_holds_is_refused_and_orders_nothing(big: World, change: str) -> None:
    session = big.connect("a-1")
    confirmed = plan(big)
    if change == "a node joins":
        big.connect("a-2")
    elif change == "it fills up":
        big.connect("a-2")
        confirmed = plan(big)
        big.nodes.seen("a-2", GB, 200 * GB)
    elif change == "upgrade":
        newer = gguf_repo(BIG, variant(BIG, "big.gguf", "F16", size=50 * GB, sha256=digest(2)))
        big.catalog.repos[BIG] = replace(newer, commit="e" * 40)
        big.upgrades.upgrade(BIG)
    else:
        big.take_inventory(session, [big.models.resolve(BIG).manifest])

    with pytest.raises(PlanOutdated, match="make a new plan"):
        big.orders.start(BIG, ALL, plan_id=confirmed.plan_id)

    assert big.orders.orders(0, "").items == []


def test_nodes_are_meant_by_their_labels_the_operator_s_before_the_agent_s(big: World) -> None:
    for node_id in ("a-1", "a-2", "a-3"):
        big.connect(node_id)
    big.nodes.update("a-2", labels={"gpu": "a100"})
    big.nodes.update("a-3", labels={"gpu": "a100", "site": "b"})

    whole = big.plans.plan(BIG, OrderTarget.LABELS, labels={"gpu": "a100", "site": "a"})

    assert [node.node_id for node in whole.nodes] == ["a-2"]


def test_a_target_by_labels_needs_labels_that_some_node_has(big: World) -> None:
    big.connect()

    with pytest.raises(InvalidTarget, match="at least one"):
        big.plans.plan(BIG, OrderTarget.LABELS)
    with pytest.raises(InvalidTarget):
        big.plans.plan(BIG, OrderTarget.LABELS, labels={"a b": "c"})
    with pytest.raises(InvalidTarget, match="takes no labels"):
        big.plans.plan(BIG, ALL, labels={"gpu": "a100"})
    with pytest.raises(InvalidTarget, match="takes no node ids"):
        big.plans.plan(BIG, OrderTarget.LABELS, ["node-1"], {"gpu": "a100"})
    with pytest.raises(NoNodes, match="no node has gpu=a100"):
        big.plans.plan(BIG, OrderTarget.LABELS, labels={"gpu": "a100"})
