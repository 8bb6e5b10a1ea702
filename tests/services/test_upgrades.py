"""Newer commits on the Hub: which models have one, and taking it in."""

import asyncio
import threading
from dataclasses import replace

import pytest

from router.domain.catalog import CatalogRepo, FileRole, ModelFile, Variant
from router.domain.errors import (
    FileNotInRepo,
    HubGated,
    HubUnavailable,
    ModelBusy,
    ModelNotFound,
    UpToDate,
)
from router.domain.models import HoldingState
from router.domain.tasks import TaskFailure, TaskState
from router.services.upgrades import Upgrades
from router.services.watch import Topic
from tests.fakes.catalog import convertible_repo, digest, gguf_repo, variant
from tests.services.world import World

NAME = "hf/o/r/m-Q4_K_M.gguf"
NEWER = "d" * 40


def newer(*variants: Variant, repo: str = "o/r") -> CatalogRepo:
    """The repository at its next commit; without variants only something beside them changed."""
    return replace(gguf_repo(repo, *variants), commit=NEWER)


def changed(size: int = 1200, repo: str = "o/r") -> Variant:
    """The same file with another content."""
    return variant(repo, "m-Q4_K_M.gguf", "Q4_K_M", size, digest(2))


def push(world: World, *variants: Variant) -> None:
    """The Hub has a newer commit of `o/r`."""
    world.catalog.repos["o/r"] = newer(*variants or (changed(),))


def pair(*shas: int) -> Variant:
    """Two files, each with the digest of that number."""
    return Variant(
        "o/r",
        "Q4_K_M",
        (
            ModelFile("m-Q4_K_M.gguf", 1000, digest(shas[0]), FileRole.MODEL),
            ModelFile("mmproj.gguf", 50, digest(shas[1]), FileRole.MMPROJ),
        ),
    )


def test_a_model_whose_file_changed_is_outdated_and_says_how(world: World) -> None:
    world.register()
    world.register("o/other")
    push(world)

    page = world.upgrades.outdated(0, "")

    [found] = page.outdated
    assert (found.model.name, found.newest_commit, found.download_bytes) == (NAME, NEWER, 1200)
    [change] = found.changes
    assert change.old is not None
    assert change.new is not None
    assert (change.old.size_bytes, change.old.sha256) == (1000, digest(1))
    assert (change.new.size_bytes, change.new.sha256) == (1200, digest(2))
    assert page.unchecked == ()
    assert world.models.get(NAME).model.manifest.commit == "c" * 40


def test_a_newer_commit_without_changed_files_is_not_told(world: World) -> None:
    world.register()
    world.catalog.repos["o/r"] = newer()

    assert world.upgrades.outdated(0, "").outdated == ()
    with pytest.raises(UpToDate, match="is up to date"):
        world.upgrades.upgrade(NAME)


def test_trouble_with_one_model_hides_no_other(world: World) -> None:
    world.register()
    for name, trouble in (("o/a", HubGated("no access")), ("o/z", HubUnavailable("it is down"))):
        world.catalog.repos[name] = gguf_repo(name)
        world.register(name)
        world.catalog.troubles[name] = trouble
    push(world)

    page = world.upgrades.outdated(0, "")

    assert [found.model.name for found in page.outdated] == [NAME]
    assert [(one.model.manifest.repo, one.error.code) for one in page.unchecked] == [
        ("o/a", "hub_gated"),
        ("o/z", "hub_unavailable"),
    ]


def test_a_hub_that_does_not_answer_in_time_is_told_for_its_models(world: World) -> None:
    world.register()
    push(world)
    answer = threading.Event()
    world.catalog.before_answer = lambda: answer.wait(20)
    upgrades = Upgrades(
        world.store,
        world.catalog,
        world.models,
        world.holdings,
        world.presence,
        world.watchers,
        patience=0.05,
    )

    page = upgrades.outdated(0, "")
    answer.set()

    assert page.outdated == ()
    assert [one.error.code for one in page.unchecked] == ["hub_unavailable"]


def test_the_hub_is_asked_once_for_all_models_of_a_repository(world: World) -> None:
    both = [variant("o/r", f"m-{q}.gguf", q) for q in ("Q4_K_M", "Q8_0")]
    world.catalog.repos["o/r"] = gguf_repo("o/r", *both)
    world.register(quantization="Q4_K_M")
    world.register(quantization="Q8_0")
    world.catalog.asked.clear()

    world.upgrades.outdated(0, "")

    assert world.catalog.asked == [("o/r", "main")]


def test_pages_look_at_every_model_once(world: World) -> None:
    world.register()
    world.register("o/other")
    push(world)

    first = world.upgrades.outdated(1, "")
    second = world.upgrades.outdated(1, first.next_token)

    assert [len(first.outdated), len(second.outdated)] == [0, 1]  # hf/o/other comes before hf/o/r
    assert second.next_token == ""


def test_a_model_registered_at_a_commit_is_never_outdated(world: World) -> None:
    world.register(revision="c" * 40)
    push(world)
    asked = len(world.catalog.asked)

    assert world.upgrades.outdated(0, "").outdated == ()
    with pytest.raises(UpToDate, match="itself"):
        world.upgrades.upgrade(NAME)
    assert len(world.catalog.asked) == asked


def test_an_upgrade_keeps_the_id_and_outlives_a_restart(world: World) -> None:
    before = world.register(display_name="Mine", chat_template="T").model
    push(world)

    upgraded = world.upgrades.upgrade("o/r:Q4_K_M")
    world.restart()

    after = world.models.get(NAME).model
    assert after == upgraded.view.model
    assert (after.manifest.commit, after.manifest.revision) == (NEWER, "main")
    assert after.manifest.files[0].sha256 == digest(2)
    assert after.manifest.manifest_id != before.manifest.manifest_id
    assert after.required_memory_bytes == (before.required_memory_bytes or 0) + 200
    kept = ("name", "display_name", "chat_template", "status", "created_at")
    assert [getattr(after, k) for k in kept] == [getattr(before, k) for k in kept]
    assert upgraded.previous_commit == "c" * 40
    assert world.upgrades.outdated(0, "").outdated == ()


def test_an_upgrade_is_refused_while_tasks_run_and_for_what_is_not_registered(
    world: World,
) -> None:
    world.register()
    world.connect()
    task_id = world.order().order.task_ids[0]
    push(world)

    with pytest.raises(ModelBusy, match="1 unfinished task"):
        world.upgrades.upgrade(NAME)
    assert world.models.get(NAME).model.manifest.commit == "c" * 40
    world.downloads.cancel(task_id)
    assert world.upgrades.upgrade(NAME).view.model.manifest.commit == NEWER
    with pytest.raises(ModelNotFound):
        world.upgrades.upgrade("o/none")


def test_an_order_that_comes_while_the_hub_is_asked_is_not_overtaken(world: World) -> None:
    world.register()
    world.connect()
    push(world)
    world.catalog.before_answer = lambda: world.order()

    with pytest.raises(ModelBusy):
        world.upgrades.upgrade(NAME)

    assert world.models.get(NAME).model.manifest.commit == "c" * 40


def test_of_two_upgrades_one_finds_it_done(world: World) -> None:
    world.register()
    push(world)

    def upgrade_first() -> None:
        world.catalog.before_answer = lambda: None
        world.upgrades.upgrade(NAME)

    world.catalog.before_answer = upgrade_first
    with pytest.raises(UpToDate, match="just upgraded"):
        world.upgrades.upgrade(NAME)


@pytest.mark.parametrize("now", [newer(variant("o/r", "n.gguf", "")), convertible_repo("o/r")])
def test_a_model_that_the_newest_commit_lacks_is_told_and_stays(
    world: World, now: CatalogRepo
) -> None:
    world.register()
    world.catalog.repos["o/r"] = replace(now, commit=NEWER)

    [one] = world.upgrades.outdated(0, "").unchecked
    with pytest.raises(FileNotInRepo):
        world.upgrades.upgrade(NAME)

    assert one.error.code == "file_not_found"
    assert world.models.get(NAME).model.manifest.commit == "c" * 40


def test_a_model_that_waits_for_its_conversion_is_upgraded_too(world: World) -> None:
    raw = convertible_repo("o/raw")
    world.catalog.repos["o/raw"] = raw
    name = world.register("o/raw").model.name
    weights, config = raw.conversion_files
    files = (replace(weights, sha256=digest(8)), config)
    world.catalog.repos["o/raw"] = replace(raw, commit=NEWER, conversion_files=files)

    upgraded = world.upgrades.upgrade(name)

    assert [change.path for change in upgraded.changes] == ["model.safetensors"]
    assert upgraded.view.model.status == "pending_conversion"


def test_nodes_that_held_the_earlier_files_miss_the_new_ones(world: World) -> None:
    world.catalog.repos["o/r"] = gguf_repo("o/r", pair(1, 2))
    old = world.register().model.manifest
    sessions = [world.connect(f"node-{n}") for n in (1, 2)]
    for session in sessions:
        world.take_inventory(session, [old])
    world.sessions.close(sessions[1])
    assert world.models.get(NAME).ready_nodes == 2
    push(world, pair(1, 3))

    upgraded = world.upgrades.upgrade(NAME)

    states = [holding.state for holding in upgraded.view.holdings]
    assert states == [HoldingState.MISSING, HoldingState.MISSING]
    assert world.models.supported()[0][1] == 0
    assert upgraded.download_bytes == 50
    new = upgraded.view.model.manifest
    plan = world.plans.plan(NAME, world.order(NAME, "node-1").order.target, ["node-1"])
    assert plan.nodes[0].needed_bytes == 50  # the other file is known by its digest
    world.take_inventory(sessions[0], [old, new])
    assert world.models.get(NAME).ready_nodes == 1


def test_a_node_that_has_the_new_files_already_is_ready_at_once(world: World) -> None:
    old = world.register().model.manifest
    session = world.connect()
    push(world)
    new = world.upgrades.upgrade(NAME).view.model.manifest
    world.models.unregister(NAME)
    world.catalog.repos["o/r"] = gguf_repo("o/r")
    world.register()
    world.take_inventory(session, [old, new])
    push(world)

    assert world.upgrades.upgrade(NAME).view.ready_nodes == 1


def test_a_failed_task_is_retried_with_the_new_files(world: World) -> None:
    world.register()
    session = world.connect()
    task_id = world.order().order.task_ids[0]
    failure = TaskFailure("disk_full", "it is full", False)
    world.report(session, task_id, TaskState.FAILED, failure=failure)
    push(world)
    world.upgrades.upgrade(NAME)

    world.downloads.retry(task_id)

    [task] = world.assignment("node-1").tasks
    assert (task.manifest.commit, task.attempt) == (NEWER, 2)
    assert world.downloads.task(task_id).task.bytes_total == 1200


async def _changed_keys(world: World) -> list[tuple[Topic, str]]:
    with world.watchers.watch(Topic.MODEL, Topic.NODE, Topic.ASSIGNMENT) as watch:
        world.upgrades.upgrade(NAME)
        return [(change.topic, change.key) for change in await watch.changes()]


def test_watchers_are_told_of_the_model_and_its_nodes(world: World) -> None:
    world.take_inventory(world.connect(), [world.register().model.manifest])
    push(world)

    told = asyncio.run(_changed_keys(world))

    assert {(Topic.MODEL, NAME), (Topic.NODE, "node-1"), (Topic.ASSIGNMENT, "node-1")} <= set(told)
