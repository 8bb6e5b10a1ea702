"""Registering, finding and removing models."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from router.domain.catalog import CatalogRepo, FileRole, Gating, ModelFile, Variant
from router.domain.errors import (
    AmbiguousModel,
    DomainError,
    FileNotInRepo,
    HubGated,
    HubRateLimited,
    HubUnavailable,
    InvalidModelName,
    ModelBusy,
    ModelExists,
    ModelNotFound,
    RepoNotFound,
)
from router.domain.models import HoldingState, Manifest, ModelStatus
from router.domain.tasks import TaskState
from router.services.models import Registration
from tests.fakes.catalog import convertible_repo, digest, gguf_repo, variant
from tests.services.world import World

NAME = "hf/o/r/m-Q4_K_M.gguf"


def test_a_registered_model_is_pinned_and_outlives_a_restart(world: World) -> None:
    made = world.register(display_name="Mine")
    world.restart()

    found = world.models.get(NAME)

    assert found == made
    assert (found.model.display_name, found.model.status) == ("Mine", ModelStatus.REGISTERED)
    assert found.model.manifest.commit == "c" * 40
    assert found.model.manifest.files[0].sha256 == digest(1)


@pytest.mark.parametrize(
    "wanted",
    [
        Registration("no-slash"),
        Registration("../.."),
        Registration("o/r", path="../m.gguf"),
        Registration("o/r", path="m\0.gguf"),
        Registration("o/r", revision="a..b"),
        Registration("o/r", quantization="Q 4"),
        Registration("o/r", path="m-Q4_K_M.gguf", quantization="Q4_K_M"),
        Registration("o/r", display_name="x" * 201),
        Registration("o/r", display_name="\x1b[2J"),
        Registration("o/r", chat_template="x" * 300_000),
        Registration("o/r", chat_template="\ud800"),
    ],
)
def test_a_bad_registration_is_refused_before_the_hub_is_asked(
    world: World, wanted: Registration
) -> None:
    with pytest.raises(InvalidModelName):
        world.models.register(wanted)

    assert world.catalog.asked == []
    assert world.models.all() == []


@pytest.mark.parametrize(
    "failure",
    [
        HubUnavailable("the Hub is down"),
        HubRateLimited("slow down", retry_after=7),
        HubGated("no access"),
        RepoNotFound("no such repository"),
    ],
)
def test_what_the_hub_says_is_passed_on_and_nothing_changes(
    world: World, failure: DomainError
) -> None:
    world.catalog.failures = [failure]

    with pytest.raises(type(failure)) as raised:
        world.register()

    assert raised.value is failure
    assert world.models.all() == []


@pytest.mark.parametrize("gate", [{"gating": Gating.MANUAL}, {"private": True}])
@pytest.mark.parametrize("repo", [gguf_repo("o/shut"), convertible_repo("o/shut")])
def test_a_gated_model_whose_files_the_router_may_not_read_is_refused(
    world: World, repo: CatalogRepo, gate: dict[str, Any]
) -> None:
    world.catalog.repos["o/shut"] = replace(repo, **gate)
    world.catalog.refused.add("o/shut")

    with pytest.raises(HubGated, match="ask for access at"):
        world.register("o/shut")

    assert world.models.all() == []
    world.catalog.refused.clear()
    assert world.register("o/shut").model.manifest.repo == "o/shut"


def test_a_file_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(FileNotInRepo, match=r'no GGUF model "other\.gguf"'):
        world.register(path="other.gguf")


def test_a_known_file_is_refused_without_asking_the_hub(world: World) -> None:
    world.register()
    asked = len(world.catalog.asked)

    with pytest.raises(ModelExists, match="registered already"):
        world.register(path="m-Q4_K_M.gguf")

    assert len(world.catalog.asked) == asked


def test_of_two_registrations_at_the_same_moment_exactly_one_is_made(world: World) -> None:
    both = threading.Barrier(2)
    world.catalog.before_answer = lambda: both.wait(10)

    def register(_: int) -> str:
        try:
            return world.register().model.name
        except ModelExists as error:
            return error.reason

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(register, range(2)))

    assert answers == ["MODEL_EXISTS", NAME]
    assert len(world.models.all()) == 1


def test_no_write_waits_for_a_hub_that_is_slow_to_answer(world: World) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def block() -> None:
        arrived.set()
        go_on.wait(10)

    world.catalog.before_answer = block
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(world.register)
        arrived.wait(10)
        world.connect()  # writes
        assert not slow.done()
        go_on.set()
        assert slow.result(10).model.name == NAME


def test_a_model_that_is_not_gguf_waits_for_its_conversion(world: World) -> None:
    world.catalog.repos["o/raw"] = convertible_repo("o/raw")

    view = world.register("o/raw")

    assert view.model.status is ModelStatus.PENDING_CONVERSION
    assert view.model.manifest.format == "safetensors"
    assert view.model.display_name == "raw"
    assert world.models.supported() == []


def test_a_header_that_cannot_be_read_warns_and_forbids_nothing(world: World) -> None:
    world.catalog.header = HubUnavailable("broken off")

    view, warnings = world.models.register(Registration("o/r"))

    assert [text for text in warnings if "header could not be read" in text] == warnings
    assert view.model.required_memory_bytes


@pytest.mark.parametrize("alias", [NAME, "o/r/m-Q4_K_M.gguf", "o/r:Q4_K_M", "o/r:q4_k_m", "o/r"])
def test_every_alias_of_a_lone_model_finds_it(world: World, alias: str) -> None:
    world.register()

    assert world.models.get(alias).model.name == NAME


def test_an_alias_that_fits_several_models_names_them(world: World) -> None:
    both = [variant("o/two", f"m-{q}.gguf", q) for q in ("Q4_K_M", "Q8_0")]
    world.catalog.repos["o/two"] = gguf_repo("o/two", *both)
    world.register("o/two", quantization="Q4_K_M")
    world.register("o/two", quantization="Q8_0")

    with pytest.raises(AmbiguousModel, match=r"hf/o/two/m-Q8_0\.gguf"):
        world.models.get("o/two")


@pytest.mark.parametrize("text", ["", "gpt-4", "../..", "o/r:Q9", "hf/o/r/none.gguf", "\0", "o/x"])
def test_what_names_no_model_is_not_found(world: World, text: str) -> None:
    world.register()

    with pytest.raises(ModelNotFound, match="not registered"):
        world.models.get(text)


def test_a_model_with_running_tasks_stays_unless_forced(world: World) -> None:
    world.register()
    session = world.connect()
    task_id = world.order().order.task_ids[0]
    world.report(session, task_id, TaskState.DOWNLOADING, done=400)

    with pytest.raises(ModelBusy, match="1 unfinished task"):
        world.models.unregister(NAME)
    world.models.unregister(NAME, force=True)

    task = world.downloads.task(task_id).task
    assert (task.state, task.progress.bytes_done) == (TaskState.CANCELLED, 400)
    assert world.assignment("node-1").tasks == ()
    with pytest.raises(ModelNotFound):
        world.models.unregister(NAME)


def test_of_two_removals_at_the_same_moment_one_finds_nothing(world: World) -> None:
    world.register()

    both = threading.Barrier(2)

    def remove(_: int) -> str:
        both.wait(10)
        try:
            world.models.unregister(NAME)
        except ModelNotFound as error:
            return error.reason
        return "removed"

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(remove, range(2)))

    assert answers == ["MODEL_NOT_FOUND", "removed"]


def test_removing_a_model_can_take_its_files_from_the_nodes(world: World) -> None:
    view = world.register()
    session = world.connect()
    world.complete(session, world.order().order.task_ids[0])

    world.models.unregister(NAME, evict=True)

    evictions = world.assignment("node-1").evictions
    assert [eviction.manifest for eviction in evictions] == [view.model.manifest]
    assert world.nodes.get("node-1").holdings == ()


def test_a_model_registered_after_a_node_listed_its_files_is_ready_at_once(world: World) -> None:
    manifest = world.register().model.manifest
    world.models.unregister(NAME)
    session = world.connect()
    world.take_inventory(session, [manifest])

    view = world.register()

    assert [holding.state for holding in view.holdings] == [HoldingState.READY]
    assert view.ready_nodes == 1
    assert [(model.name, ready) for model, ready in world.models.supported()] == [(NAME, 1)]


def test_an_inventory_that_comes_while_a_model_is_registered_is_not_lost(world: World) -> None:
    world.register()
    world.models.unregister(NAME)
    session = world.connect()
    taken: list[threading.Thread] = []
    find = world.holdings.find

    def find_then_inventory(manifest: Manifest) -> None:
        find(manifest)
        thread = threading.Thread(target=world.take_inventory, args=(session, [manifest]))
        thread.start()  # waits for the registration, or misses it
        taken.append(thread)
        thread.join(0.2)

    world.holdings.find = find_then_inventory  # type: ignore[method-assign]
    world.register()
    taken[0].join(10)

    assert world.models.get(NAME).ready_nodes == 1


def test_a_digest_found_by_a_download_is_kept_and_renames_the_manifest(world: World) -> None:
    files = (
        ModelFile("m.gguf", 900, digest(1), FileRole.MODEL),
        ModelFile("mmproj.gguf", 100, None, FileRole.MMPROJ),
    )
    world.catalog.repos["o/pair"] = gguf_repo("o/pair", Variant("o/pair", "Q8_0", files))
    before = world.register("o/pair").model.manifest

    world.models.fix_digests(before.model_name, {"mmproj.gguf": digest(2), "m.gguf": digest(3)})

    after = world.models.get(before.model_name).model.manifest
    assert [file.sha256 for file in after.files] == [digest(1), digest(2)]
    assert after.manifest_id != before.manifest_id
