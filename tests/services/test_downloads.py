"""Orders, tasks, and what nodes report."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.domain.errors import (
    InsufficientDisk,
    InvalidArgument,
    InvalidPageToken,
    InvalidTarget,
    ModelNotFound,
    NodeNotFound,
    NoNodes,
    OrderNotFound,
    PendingConversion,
    RequestReused,
    TaskNotFound,
    WrongState,
)
from router.domain.models import HoldingState
from router.domain.orders import OrderTarget
from router.domain.plans import Verdict
from router.domain.tasks import (
    Progress,
    TaskFailure,
    TaskReport,
    TaskState,
)
from router.services.sessions import Session
from tests.fakes.catalog import convertible_repo, digest, gguf_repo, variant
from tests.services.world import GB, World

NAME = "hf/o/r/m-Q4_K_M.gguf"
ALL = OrderTarget.ALL
SOME = OrderTarget.SPECIFIC


@pytest.fixture
def session(world: World) -> Session:
    """The model is registered, and one node is connected."""
    world.register()
    return world.connect()


def test_an_order_for_all_makes_one_task_for_each_known_node(world: World) -> None:
    world.register()
    for number in range(3):
        world.sessions.close(world.connect(f"node-{number}"))

    view = world.order()

    assert [task.task.node_id for task in view.tasks] == ["node-0", "node-1", "node-2"]
    assert {task.task.state for task in view.tasks} == {TaskState.PENDING}
    assert not view.ended


def test_an_order_survives_a_restart(world: World, session: Session) -> None:
    made = world.order()
    world.restart()

    assert world.orders.order(made.order.order_id).order == made.order
    assert [view.task for view in world.downloads.unfinished()] == [made.tasks[0].task]


@pytest.mark.parametrize(
    ("model", "target", "nodes", "error"),
    [
        ("o/none:Q8_0", ALL, [], ModelNotFound),
        ("nonsense", ALL, [], ModelNotFound),
        (NAME, ALL, ["node-1"], InvalidTarget),
        (NAME, SOME, [], InvalidTarget),
        (NAME, SOME, ["node-1", "nobody"], NodeNotFound),
        ("o/raw", ALL, [], PendingConversion),
    ],
)
def test_an_order_that_makes_no_sense_changes_nothing(
    world: World,
    session: Session,
    model: str,
    target: OrderTarget,
    nodes: list[str],
    error: type[Exception],
) -> None:
    world.catalog.repos["o/raw"] = convertible_repo("o/raw")
    world.register("o/raw")

    with pytest.raises(error):
        world.orders.start(model, target, nodes)
    with pytest.raises(error):
        world.plans.plan(model, target, nodes)

    assert world.orders.orders(0, "").items == []


def test_an_order_needs_a_node(world: World) -> None:
    world.register()

    with pytest.raises(NoNodes, match="start llm-router-agent"):
        world.order()


@pytest.mark.parametrize(
    "options", [{"request_id": "x" * 129}, {"priority": 1001}, {"priority": -1001}]
)
def test_the_options_of_an_order_are_bounded(
    world: World, session: Session, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        world.orders.start(NAME, ALL, [], **options)  # type: ignore[arg-type]


def test_a_node_is_named_by_id_or_name_and_counts_once(world: World, session: Session) -> None:
    world.connect("node-2", name="big-box")

    view = world.order(NAME, "big-box", "node-2")

    assert view.order.node_ids == ("node-2",)


def test_an_unfinished_task_is_kept_by_a_second_order(world: World, session: Session) -> None:
    first = world.order()
    world.connect("node-2")

    second = world.order()

    assert second.order.order_id != first.order.order_id
    assert first.order.task_ids[0] in second.order.task_ids
    assert len(world.downloads.unfinished()) == 2


def test_a_request_that_comes_twice_is_carried_out_once(world: World, session: Session) -> None:
    first = world.order(request_id="r1")
    world.connect("node-2")

    again = world.order(request_id="r1")

    assert again.order == first.order
    assert len(world.orders.orders(0, "").items) == 1


def test_a_request_that_comes_many_times_at_once_is_carried_out_once(
    world: World, session: Session
) -> None:
    together = threading.Barrier(8)

    def start(_: int) -> str:
        together.wait(10)
        return world.order(request_id="r1").order.order_id

    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(start, range(8)))

    assert len(made) == 1
    assert len(world.downloads.tasks().items) == 1


def test_a_request_id_is_not_for_another_wish(world: World, session: Session) -> None:
    world.register("o/other")
    world.connect("node-2")
    world.order(NAME, "node-1", request_id="r1")

    for model, nodes in (("o/other", ("node-1",)), (NAME, ("node-2",)), (NAME, ())):
        with pytest.raises(RequestReused, match="choose a new one"):
            world.order(model, *nodes, request_id="r1")


def test_an_order_is_refused_only_when_every_named_node_lacks_the_space(world: World) -> None:
    big = variant("o/big", "big.gguf", "F16", size=50 * GB)
    world.catalog.repos["o/big"] = gguf_repo("o/big", big)
    world.register("o/big")
    world.connect("small-1", free=GB)
    world.connect("small-2", free=GB)

    with pytest.raises(InsufficientDisk, match="small-1: insufficient_disk"):
        world.order("o/big")
    world.connect("roomy")

    assert len(world.order("o/big").tasks) == 3


def test_a_plan_tells_what_each_node_would_do_and_changes_nothing(world: World) -> None:
    big = variant("o/big", "big.gguf", "F16", size=50 * GB)
    world.catalog.repos["o/big"] = gguf_repo("o/big", big)
    manifest = world.register("o/big").model.manifest
    world.take_inventory(world.connect("a-ready"), [manifest])
    world.connect("b-fits")
    world.connect("c-full", free=GB)
    world.sessions.close(world.connect("d-offline"))

    plan = world.plans.plan("o/big", ALL, [])

    assert [node.verdict for node in plan.nodes] == [
        Verdict.READY,
        Verdict.FITS,
        Verdict.REFUSED,
        Verdict.FITS,
    ]
    assert plan.line_bytes == 0  # what one node of the site holds, the others take from it
    assert plan.nodes[2].reason.startswith("insufficient_disk: it needs 50000000000 bytes")
    assert any("it is offline" in warning for warning in plan.nodes[3].warnings)
    assert world.downloads.tasks().items == []


def test_space_that_other_tasks_will_take_is_not_free(world: World) -> None:
    for name in ("o/one", "o/two"):
        world.catalog.repos[name] = gguf_repo(name, variant(name, "m.gguf", "F16", size=60 * GB))
        world.register(name)
    world.connect()
    world.order("o/one")

    with pytest.raises(InsufficientDisk):
        world.order("o/two")


def test_what_a_running_task_has_brought_needs_no_space_once_more(world: World) -> None:
    big = variant("o/big", "big.gguf", "F16", size=50 * GB)
    world.catalog.repos["o/big"] = gguf_repo("o/big", big)
    world.register("o/big")
    session = world.connect(free=60 * GB)
    first = world.order("o/big")
    world.report(session, first.order.task_ids[0], TaskState.DOWNLOADING, done=40 * GB)
    world.nodes.seen("node-1", 20 * GB, 200 * GB)

    assert world.order("o/big").order.task_ids == first.order.task_ids


def test_a_task_moves_as_its_node_reports(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]

    states = []
    for state in (TaskState.PENDING, TaskState.DOWNLOADING, TaskState.VERIFYING):
        world.report(session, task_id, state, done=700, speed=5)
        states.append(world.downloads.task(task_id).task.state)
    world.report(session, task_id, TaskState.COMPLETED, done=1000, speed=5)

    ended = world.downloads.task(task_id).task
    assert states == [TaskState.PENDING, TaskState.DOWNLOADING, TaskState.VERIFYING]
    assert (ended.state, ended.progress.bytes_done, ended.progress.speed) == (
        TaskState.COMPLETED,
        1000,
        0,
    )
    assert ended.progress.bytes_from.hub == 1000


def test_a_completed_task_makes_the_model_ready_and_leaves_the_assignment(
    world: World, session: Session
) -> None:
    task_id = world.order().order.task_ids[0]
    before = world.assignment("node-1")

    world.complete(session, task_id)

    after = world.assignment("node-1")
    holding = world.models.get(NAME).holdings[0]
    assert [task.task_id for task in before.tasks] == [task_id]
    assert after.tasks == ()
    assert after.revision > before.revision
    assert (holding.state, holding.verified_at) == (HoldingState.READY, world.clock())


def test_bytes_never_run_backwards_and_never_beyond_the_total(
    world: World, session: Session
) -> None:
    task_id = world.order().order.task_ids[0]

    seen = []
    for done in (600, 200, -5, 10**15):
        world.report(session, task_id, TaskState.DOWNLOADING, done=done)
        seen.append(world.downloads.task(task_id).task.progress.bytes_done)

    assert seen == [600, 600, 600, 1000]


def test_bytes_stay_when_an_operator_moves_a_task(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=600, speed=9)

    paused = world.downloads.pause(task_id).task
    resumed = world.downloads.resume(task_id).task
    cancelled = world.orders.cancel(paused.order_id).tasks[0].task

    assert [task.progress.bytes_done for task in (paused, resumed, cancelled)] == [600, 600, 600]
    assert (paused.progress.speed, paused.progress.eta) == (0, None)


def test_a_task_that_does_not_move_shows_no_speed_whatever_comes_late(
    world: World, session: Session
) -> None:
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=600, speed=9)

    shown = []
    for verb in (world.downloads.pause, world.downloads.resume):
        shown.append(verb(task_id).task)
        world.report(session, task_id, TaskState.PENDING, done=600, speed=9)
        shown.append(world.downloads.task(task_id).task)

    assert [(task.progress.speed, task.progress.eta) for task in shown] == [(0, None)] * 4


def test_bytes_that_were_kept_are_shown_after_a_crash(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=100)
    world.report(session, task_id, TaskState.DOWNLOADING, done=600, speed=9)

    world.downloads.keep_progress()
    world.report(session, task_id, TaskState.DOWNLOADING, done=700)
    world.restart()

    view = world.downloads.task(task_id)
    assert (view.task.state, view.node_online) == (TaskState.DOWNLOADING, False)
    assert (view.task.progress.bytes_done, view.task.progress.speed) == (600, 0)
    assert world.downloads.unfinished() == [view]


def test_keeping_progress_undoes_no_move_and_writes_nothing_twice(
    world: World, session: Session
) -> None:
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=100)
    world.report(session, task_id, TaskState.DOWNLOADING, done=600)
    world.downloads.cancel(task_id)

    world.downloads.keep_progress()
    world.report(session, task_id, TaskState.DOWNLOADING, done=900)

    stored = world.store.task(task_id)
    assert stored is not None
    assert (stored.state, stored.progress.bytes_done) == (TaskState.CANCELLED, 600)
    assert world.board.take_unsaved(10) == []


def test_an_old_attempt_a_strangers_report_and_one_for_an_ended_task_are_ignored(
    world: World, session: Session
) -> None:
    stranger = world.connect("node-2")
    task_id = world.order(NAME, "node-1").order.task_ids[0]
    world.downloads.cancel(task_id)
    world.report(session, task_id, TaskState.COMPLETED, done=1000)
    world.downloads.retry(task_id)

    world.report(session, task_id, TaskState.COMPLETED, done=1000, attempt=1)
    world.report(stranger, task_id, TaskState.COMPLETED, done=1000, attempt=2)
    world.report(session, "task-nobody", TaskState.COMPLETED, done=1000)

    task = world.downloads.task(task_id).task
    assert (task.state, task.attempt, task.progress.bytes_done) == (TaskState.PENDING, 2, 0)
    assert world.models.get(NAME).ready_nodes == 0


def test_a_report_that_was_overtaken_by_a_retry_is_ignored(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]
    late = TaskReport(task_id, 1, TaskState.COMPLETED, Progress(bytes_done=1000))
    moving = world.sessions.note_progress(session, [late])
    world.downloads.cancel(task_id)
    world.downloads.retry(task_id)

    world.downloads.settle([("node-1", report) for report in moving])

    assert moving == [late]
    assert world.downloads.task(task_id).task.state is TaskState.PENDING


def test_a_failed_task_says_why_and_is_retried_from_what_it_has(
    world: World, session: Session
) -> None:
    task_id = world.order().order.task_ids[0]
    failure = TaskFailure("digest_mismatch", "wrong bytes", retryable=True)
    world.report(session, task_id, TaskState.FAILED, done=300, failure=failure)
    failed = world.downloads.task(task_id).task
    kept = world.assignment("node-1")

    retried = world.downloads.retry(task_id).task

    assert failed.failure == failure
    assert world.models.get(NAME).holdings[0].state is HoldingState.PENDING
    assert [manifest.model_name for manifest in kept.keep_partials] == [NAME]
    assert kept.tasks == ()
    assert (retried.state, retried.attempt, retried.failure) == (TaskState.PENDING, 2, None)


@pytest.mark.parametrize("keep", [True, False])
def test_a_cancelled_task_keeps_its_bytes_only_when_asked_to(
    world: World, session: Session, keep: bool
) -> None:
    task_id = world.order().order.task_ids[0]

    world.downloads.cancel(task_id, keep_partial=keep)

    assert bool(world.assignment("node-1").keep_partials) is keep


def test_a_paused_task_is_assigned_as_paused(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]

    world.downloads.pause(task_id)

    assert [task.paused for task in world.assignment("node-1").tasks] == [True]


def test_a_verb_in_the_wrong_state_is_refused(world: World, session: Session) -> None:
    view = world.order()
    task_id = view.order.task_ids[0]
    with pytest.raises(WrongState, match="cannot be resumed"):
        world.downloads.resume(task_id)
    with pytest.raises(WrongState, match="cannot be retried"):
        world.downloads.retry(task_id)
    world.complete(session, task_id)

    for verb in (world.downloads.cancel, world.downloads.pause, world.downloads.retry):
        with pytest.raises(WrongState, match="is completed"):
            verb(task_id)
    with pytest.raises(WrongState, match="nothing to cancel"):
        world.orders.cancel(view.order.order_id)


def test_a_task_that_was_replaced_is_not_retried_beside_its_successor(
    world: World, session: Session
) -> None:
    old = world.order().order.task_ids[0]
    world.downloads.cancel(old)
    world.clock.pass_by(1)
    new = world.order().order.task_ids[0]

    with pytest.raises(WrongState, match=new):
        world.downloads.retry(old)

    assert [task.task_id for task in world.assignment("node-1").tasks] == [new]


def test_a_retry_fetches_what_the_model_is_now(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]
    world.models.unregister(NAME, force=True)
    with pytest.raises(ModelNotFound):
        world.downloads.retry(task_id)
    larger = variant("o/r", "m-Q4_K_M.gguf", "Q4_K_M", size=2000, sha256=digest(2))
    world.catalog.repos["o/r"] = gguf_repo("o/r", larger)
    world.register()

    assert world.downloads.retry(task_id).task.bytes_total == 2000


def test_unknown_ids_are_not_found(world: World) -> None:
    for verb in (
        world.downloads.task,
        world.downloads.cancel,
        world.downloads.pause,
        world.downloads.resume,
        world.downloads.retry,
    ):
        with pytest.raises(TaskNotFound):
            verb("task-nobody")
    for order in (world.orders.order, world.orders.cancel):
        with pytest.raises(OrderNotFound):
            order("order-nobody")


def test_an_offline_node_s_task_waits_and_shows_no_speed(world: World, session: Session) -> None:
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=300, speed=50)

    world.sessions.close(session)

    view = world.downloads.task(task_id)
    assert (view.node_online, view.task.state) == (False, TaskState.DOWNLOADING)
    assert (view.task.progress.speed, view.task.progress.bytes_done) == (0, 300)


def test_tasks_are_filtered_and_paged_without_repeats_while_new_ones_come(world: World) -> None:
    world.register()
    world.register("o/other")
    for number in range(5):
        world.connect(f"node-{number}")
        world.clock.pass_by(1)
        world.order(NAME, f"node-{number}")
    world.order("o/other", "node-0")

    def ids(**filters: object) -> list[str]:
        found, token = [], ""
        while True:
            page = world.downloads.tasks(2, token, **filters)  # type: ignore[arg-type]
            found += [view.task.task_id for view in page.items]
            world.clock.pass_by(1)
            if not (token := page.next_token):
                return found

    of_model = ids(model=NAME)
    assert len(set(of_model)) == len(of_model) == 5
    assert of_model == sorted(of_model, reverse=True)
    assert len(ids(node="node-0")) == 2
    assert ids(states=[TaskState.FAILED]) == []
    with pytest.raises(InvalidPageToken):
        world.downloads.tasks(2, "!!!")
