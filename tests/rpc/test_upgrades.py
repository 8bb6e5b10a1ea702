"""Newer commits and one memory figure, over gRPC."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.models import make_model
from protos.llmrouter.v1 import catalog_pb2 as catalog
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import registration_pb2 as registration
from tests.fakes.agent import FakeAgent
from tests.fakes.hub import FaultyHub
from tests.fakes.running_router import RunningRouter
from tests.rpc.errors import refused

REPO = "owner/new-GGUF"
NAME = f"hf/{REPO}/new-Q8_0.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository that a test may change."""
    for quantization in ("Q8_0", "Q4_0"):
        make_model(tmp_path / "models" / REPO / f"new-{quantization}.gguf", quantization)
    return tmp_path / "models"


@pytest.fixture
def router(folder: Path, tmp_path: Path) -> Iterator[RunningRouter]:
    """A router over a hub of its own."""
    with FaultyHub(folder) as hub, RunningRouter(tmp_path, hub.url) as running:
        yield running


def test_a_newer_commit_is_told_and_taken_in(router: RunningRouter, folder: Path) -> None:
    call = router.call.registration
    call.RegisterModel(registration.RegisterModelRequest(repo=REPO, quantization="Q8_0"))
    upgrade = registration.UpgradeModelRequest(model_name=f"{REPO}:Q8_0")
    none = call.ListOutdatedModels(registration.ListOutdatedModelsRequest())
    error = refused(call.UpgradeModel, upgrade)
    make_model(folder / REPO / "new-Q8_0.gguf", "Q8_0", seed=7)

    [found] = call.ListOutdatedModels(registration.ListOutdatedModelsRequest()).models
    answer = call.UpgradeModel(upgrade)

    assert (len(none.models), len(none.unchecked), none.next_page_token) == (0, 0, "")
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "UP_TO_DATE")
    assert (found.model_name, found.commit) == (NAME, answer.previous_commit)
    assert found.newest_commit == answer.model.manifest.commit != found.commit
    assert list(found.changes) == list(answer.changes)
    assert found.download_bytes == answer.model.manifest.total_bytes
    unknown = registration.UpgradeModelRequest(model_name="o/none")
    assert refused(call.UpgradeModel, unknown).reason == "MODEL_NOT_FOUND"
    strange = registration.ListOutdatedModelsRequest(page_token="x")
    assert refused(call.ListOutdatedModels, strange).reason == "INVALID_PAGE_TOKEN"


def test_a_watcher_is_told_of_an_upgrade(router: RunningRouter, folder: Path) -> None:
    call = router.call.registration
    call.RegisterModel(registration.RegisterModelRequest(repo=REPO, quantization="Q8_0"))
    make_model(folder / REPO / "new-Q8_0.gguf", "Q8_0", seed=7)
    watch = call.WatchModels(registration.WatchModelsRequest(), timeout=30)
    before = next(watch).model
    assert next(watch).HasField("snapshot_sent")

    answer = call.UpgradeModel(registration.UpgradeModelRequest(model_name=NAME))

    told = next(watch).model
    watch.cancel()
    assert told.manifest == answer.model.manifest
    assert told.manifest.manifest_id != before.manifest.manifest_id


def test_the_memory_of_a_variant_is_one_figure_everywhere(router: RunningRouter) -> None:
    call = router.call

    shown = call.catalog.GetRepo(catalog.GetRepoRequest(repo=REPO)).repo
    [listed] = call.catalog.SearchCatalog(catalog.SearchCatalogRequest(search="new")).repos
    window = call.catalog.SearchCatalog(
        catalog.SearchCatalogRequest(search="new", window=catalog.VariantWindow(limit=5))
    )

    for number, variant in enumerate(shown.variants):
        model = call.registration.RegisterModel(
            registration.RegisterModelRequest(repo=REPO, file=variant.filename)
        ).model
        assert {
            variant.required_memory_bytes,
            listed.variants[number].required_memory_bytes,
            window.repos[0].variants[number].required_memory_bytes,
            model.required_memory_bytes,
        } == {model.required_memory_bytes}
    assert window.listing


def test_an_upgrade_is_refused_while_a_task_runs(router: RunningRouter, folder: Path) -> None:
    call = router.call
    call.registration.RegisterModel(
        registration.RegisterModelRequest(repo=REPO, quantization="Q8_0")
    )
    make_model(folder / REPO / "new-Q8_0.gguf", "Q8_0", seed=7)
    with FakeAgent(call.agent):
        call.download.StartDownload(
            download.StartDownloadRequest(model_name=NAME, target=download.ORDER_TARGET_ALL)
        )
        request = registration.UpgradeModelRequest(model_name=NAME)
        error = refused(call.registration.UpgradeModel, request)

    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "MODEL_BUSY")
