"""The fleet, what it holds, and what is told to it."""

import pytest

from router.domain.errors import (
    FileNotInRepo,
    InvalidArgument,
    ModelBusy,
    ModelNotFound,
    NodeBusy,
    NodeNotFound,
    TaskNotFound,
    TooManyStreams,
)
from router.domain.models import HoldingState
from router.domain.nodes import Hello, Settings
from router.domain.tasks import TaskState
from router.services.sessions import Report, Settling
from tests.fakes.catalog import digest
from tests.services.world import GB, World

NAME = "hf/o/r/m-Q4_K_M.gguf"


def hello(**changes: object) -> Hello:
    """A node's first words."""
    told: dict[str, object] = {
        "node_id": "node-1",
        "name": "box",
        "version": "1",
        "labels": {},
        "memory_bytes": 0,
        "gpus": (),
        "disk_free_bytes": 0,
        "disk_total_bytes": 0,
        "settings": Settings(),
        "instance": "i",
        **changes,
    }
    return Hello(**told)  # type: ignore[arg-type]


def state_of(world: World, node_id: str = "node-1") -> list[HoldingState]:
    """What the node's list of models says."""
    return [holding.state for holding in world.nodes.get(node_id).holdings]


def test_a_node_is_online_while_its_session_lasts_and_known_for_good(world: World) -> None:
    session = world.connect()
    online = world.nodes.get("node-1").online
    world.sessions.close(session)

    assert online
    assert not world.nodes.get("node-1").online
    world.restart()
    assert world.nodes.get("node-1").node.name == "node-1"


@pytest.mark.parametrize(
    "changes",
    [{"node_id": "../x"}, {"node_id": ""}, {"name": "a b"}, {"labels": {"k": "v\n"}}],
)
def test_a_node_with_a_hostile_name_is_not_taken_in(
    world: World, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        world.sessions.open(hello(**changes))

    assert world.nodes.all() == []
    assert world.presence.count() == 0


def test_a_node_that_cannot_be_stored_is_not_left_online(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(world.store, "save_node", refuse)
    with pytest.raises(OSError, match="disk full"):
        world.sessions.open(hello())

    assert not world.presence.online("node-1")


def test_the_number_of_sessions_is_bounded_but_a_node_may_come_back(tmp_path: object) -> None:
    world = World(tmp_path, max_sessions=1)  # type: ignore[arg-type]
    world.connect("node-1")

    with pytest.raises(TooManyStreams):
        world.connect("node-2")

    assert world.connect("node-1").number > 1


def test_a_newer_session_fences_the_older_whose_words_count_no_more(world: World) -> None:
    world.register()
    old = world.connect()
    task_id = world.order().order.task_ids[0]
    new = world.connect()

    world.report(old, task_id, TaskState.COMPLETED, done=1000)
    world.take_inventory(old, [world.models.get(NAME).model.manifest])
    world.sessions.close(old)

    assert world.sessions.fenced(old)
    assert not world.sessions.fenced(new)
    assert world.nodes.get("node-1").online
    assert world.downloads.task(task_id).task.state is TaskState.PENDING
    assert world.models.get(NAME).ready_nodes == 0


def test_an_inventory_makes_models_ready_and_its_successor_missing(world: World) -> None:
    manifest = world.register().model.manifest
    session = world.connect()

    world.take_inventory(session, [manifest])
    ready = state_of(world)
    world.take_inventory(session, [], partial=True)
    still = state_of(world)
    world.take_inventory(session, [])

    assert (ready, still) == ([HoldingState.READY], [HoldingState.READY])
    assert state_of(world) == [HoldingState.MISSING]


def test_a_missing_model_that_is_ordered_again_is_shown_as_coming(world: World) -> None:
    manifest = world.register().model.manifest
    session = world.connect()
    world.take_inventory(session, [manifest])
    world.take_inventory(session, [])
    task_id = world.order().order.task_ids[0]

    coming = state_of(world)
    world.complete(session, task_id)

    assert coming == [HoldingState.PENDING]
    assert state_of(world) == [HoldingState.READY]


def test_an_evicted_model_leaves_the_node_and_its_list(world: World) -> None:
    manifest = world.register().model.manifest
    session = world.connect()
    world.take_inventory(session, [manifest])

    world.nodes.evict("node-1", NAME)
    world.nodes.evict("node-1", NAME)
    evictions = world.assignment("node-1").evictions
    world.take_inventory(session, [manifest])  # not done yet
    between = state_of(world)
    done = Report((), 0, 0, tuple(eviction.eviction_id for eviction in evictions))
    world.sessions.settle([Settling(session, done, [])])
    world.take_inventory(session, [])

    assert [eviction.manifest for eviction in evictions] == [manifest]
    assert between == state_of(world) == []
    assert world.assignment("node-1").evictions == ()


def test_an_order_withdraws_an_eviction_that_was_not_done_yet(world: World) -> None:
    manifest = world.register().model.manifest
    world.sessions.close(world.connect())
    world.nodes.evict("node-1", NAME)

    world.order()

    assignment = world.assignment("node-1")
    assert assignment.evictions == ()
    assert [task.manifest for task in assignment.tasks] == [manifest]


def test_a_model_on_its_way_to_a_node_is_not_evicted_from_there(world: World) -> None:
    world.register()
    world.connect()
    world.order()

    with pytest.raises(ModelBusy, match="cancel it first"):
        world.nodes.evict("node-1", NAME)
    with pytest.raises(ModelNotFound):
        world.nodes.evict("node-1", "o/none")
    with pytest.raises(NodeNotFound):
        world.nodes.evict("nobody", NAME)


def test_a_connected_node_is_not_removed_and_a_removed_one_is_forgotten(world: World) -> None:
    world.register()
    session = world.connect()
    task_id = world.order().order.task_ids[0]
    with pytest.raises(NodeBusy, match="stop its agent first"):
        world.nodes.remove("node-1")
    world.sessions.close(session)

    world.nodes.remove("node-1")

    assert world.nodes.all() == []
    assert world.nodes.count() == 0
    assert world.downloads.unfinished() == []
    with pytest.raises(TaskNotFound):
        world.downloads.task(task_id)
    with pytest.raises(NodeNotFound):
        world.nodes.remove("node-1")


def test_a_node_was_seen_when_it_last_said_something(world: World) -> None:
    session = world.connect()
    world.clock.pass_by(7)
    world.sessions.note_progress(session, ())
    heard_at = world.clock()
    world.clock.pass_by(5)

    online = world.nodes.get("node-1").node.last_seen_at
    world.sessions.close(session)
    offline = world.nodes.get("node-1").node.last_seen_at

    assert online == offline == heard_at
    assert world.nodes.all()[0].node.last_seen_at == heard_at
    assert world.nodes.page(1, "").items[0].node.last_seen_at == heard_at


def test_a_name_that_two_nodes_have_names_none(world: World) -> None:
    world.connect("node-1", name="box")
    world.connect("node-2", name="box")

    with pytest.raises(NodeNotFound, match="node-1, node-2"):
        world.nodes.get("box")


def test_what_an_operator_sets_beats_the_agent_s_own_and_stays(world: World) -> None:
    session = world.connect()

    world.nodes.update("node-1", max_rate=7, labels={"site": "b", "rack": "9"})
    world.nodes.update("node-1", remove_labels=("rack",))
    world.sessions.close(session)
    world.connect()

    node = world.nodes.get("node-1").node
    assert node.effective_labels == {"site": "b"}
    assert node.max_rate == world.assignment("node-1").max_rate == 7


@pytest.mark.parametrize(
    "change", [{"max_rate": -1}, {"labels": {"": "x"}}, {"labels": {"a": " "}}]
)
def test_a_setting_that_makes_no_sense_is_refused(world: World, change: dict[str, object]) -> None:
    world.connect()

    with pytest.raises(InvalidArgument):
        world.nodes.update("node-1", **change)  # type: ignore[arg-type]


def test_pages_of_nodes_hold_still_when_the_last_one_shown_is_removed(world: World) -> None:
    for number in range(4):
        world.sessions.close(world.connect(f"node-{number}", name="same"))

    first = world.nodes.page(2, "")
    world.nodes.remove("node-1")
    second = world.nodes.page(2, first.next_token)

    assert [view.node.node_id for view in first.items] == ["node-0", "node-1"]
    assert [view.node.node_id for view in second.items] == ["node-2", "node-3"]
    assert second.next_token == ""


def test_revisions_grow_over_restarts(world: World) -> None:
    world.connect()
    before = world.assignment("node-1").revision

    world.restart()

    assert world.assignment("node-1").revision > before


def test_a_node_gets_addresses_for_its_own_tasks_only(world: World) -> None:
    world.register()
    session, stranger = world.connect(), world.connect("node-2")
    task_id = world.order(NAME, "node-1").order.task_ids[0]

    url = world.sessions.file_url(session, task_id, "m-Q4_K_M.gguf")

    assert url.url == f"http://signed/o/r/{'c' * 40}/m-Q4_K_M.gguf"
    with pytest.raises(TaskNotFound):
        world.sessions.file_url(stranger, task_id, "m-Q4_K_M.gguf")
    with pytest.raises(FileNotInRepo):
        world.sessions.file_url(session, task_id, "../secret")


def test_digests_are_taken_from_a_node_for_its_own_tasks_and_only_when_well_formed(
    world: World,
) -> None:
    world.register()
    session, stranger = world.connect(), world.connect("node-2")
    task_id = world.order(NAME, "node-1").order.task_ids[0]
    before = world.models.get(NAME).model

    for who, found in ((stranger, digest(9)), (session, "nonsense")):
        report = Report((), GB, GB, (), ((task_id, {"m-Q4_K_M.gguf": found}),))
        world.sessions.settle([Settling(who, report, [])])

    assert world.models.get(NAME).model == before
