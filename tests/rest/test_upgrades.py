"""Newer commits, one memory figure, windows of one list, and bad JSON, over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.demo.models import make_model
from router.config import Timers
from tests.fakes.hub import Answer, FaultyHub, make_repo
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import problem, register

REPO = "owner/new-GGUF"
FILE = "new-Q8_0.gguf"
NAME = f"hf/{REPO}/{FILE}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two repositories that a test may change."""
    models = tmp_path / "models"
    for repo, file in ((REPO, FILE), ("owner/same-GGUF", "same-Q8_0.gguf")):
        make_model(models / repo / file)
    return models


@pytest.fixture
def hub(folder: Path) -> Iterator[FaultyHub]:
    """A hub over them."""
    with FaultyHub(folder) as running:
        yield running


@pytest.fixture
def router(hub: FaultyHub, tmp_path: Path) -> Iterator[RunningRouter]:
    """A fresh router."""
    with RunningRouter(tmp_path, hub.url, timers=Timers(lease=60.0)) as running:
        yield running


def push(folder: Path) -> None:
    """A newer commit with another file in it."""
    make_model(folder / REPO / FILE, seed=7)


def test_a_model_is_outdated_then_upgraded_then_up_to_date(
    http: httpx.Client, folder: Path
) -> None:
    register(http, FILE, REPO)
    register(http, "same-Q8_0.gguf", "owner/same-GGUF")
    before = http.get(f"/api/models/{NAME}").json()
    push(folder)

    page = http.get("/api/models/outdated").json()
    upgraded = http.post(f"/api/models/{NAME.replace('/', '%2F')}/upgrade").json()
    again = http.post(f"/api/models/{NAME}/upgrade")

    [found] = page["models"]
    assert (found["name"], found["commit"]) == (NAME, before["commit"])
    assert (page["unchecked"], page["next_page_token"]) == ([], None)
    [change] = found["changes"]
    assert change["path"] == FILE
    assert change["old_sha256"] == before["files"][0]["sha256"]
    after = http.get(f"/api/models/{NAME}").json()
    assert upgraded["model"] == after
    assert upgraded["changes"] == found["changes"]
    assert (after["commit"], upgraded["previous_commit"]) == (
        found["newest_commit"],
        before["commit"],
    )
    assert after["files"][0]["sha256"] == change["new_sha256"] != change["old_sha256"]
    assert problem(again) == (409, "up_to_date")
    assert problem(http.post("/api/models/owner/none/upgrade")) == (404, "model_not_found")


def test_trouble_with_one_repository_is_told_beside_the_others(
    http: httpx.Client, hub: FaultyHub, folder: Path
) -> None:
    register(http, FILE, REPO)
    register(http, "same-Q8_0.gguf", "owner/same-GGUF")
    push(folder)
    hub.always("*owner/same-GGUF*", Answer(500))

    page = http.get("/api/models/outdated").json()

    assert [one["name"] for one in page["models"]] == [NAME]
    [unchecked] = page["unchecked"]
    assert unchecked["name"] == "hf/owner/same-GGUF/same-Q8_0.gguf"
    assert unchecked["code"] == "hub_unavailable"


def test_the_memory_of_a_variant_is_one_figure_everywhere(
    http: httpx.Client, router: RunningRouter
) -> None:
    answer = http.post("/api/models/register", json={"repo": REPO}).json()

    [listed] = http.get("/api/models/available", params={"search": "new"}).json()["models"]
    shown = http.get(f"/api/models/{NAME}").json()
    figures = {one["required_memory_bytes"] for one in (answer, listed, shown)}

    assert len(figures) == 1


def test_the_next_window_comes_from_the_list_that_is_named(
    http: httpx.Client, folder: Path
) -> None:
    for number in range(4):
        make_repo(folder, f"zoo/z-{number}-GGUF", {"z-Q8_0.gguf": 100})
    first = http.get("/api/models/available", params={"author": "zoo", "limit": 2}).json()
    listing = first["pagination"]["listing"]

    rest = http.get(
        "/api/models/available",
        params={"author": "zoo", "limit": 2, "offset": 2, "listing": listing},
    ).json()
    strange = http.get("/api/models/available", params={"listing": "none"})

    names = [model["name"] for model in first["models"] + rest["models"]]
    assert len(names) == len(set(names)) == 4
    assert rest["pagination"]["listing"] == listing
    assert problem(strange) == (400, "invalid_page_token")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"repo": "a/b"', "the body is not valid JSON: Expecting ',' delimiter at character"),
        ("{repo: 1}", "the body is not valid JSON: Expecting property name"),
        ('{"repo": 5}', "repo: Input should be a valid string"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_with_the_place(
    http: httpx.Client, body: str, words: str
) -> None:
    answer = http.post(
        "/api/models/register", content=body, headers={"Content-Type": "application/json"}
    )

    assert problem(answer) == (400, "invalid_argument")
    assert words in answer.json()["error"]["message"]


def test_a_model_that_is_not_gguf_waits_and_is_refused_everywhere(
    http: httpx.Client, folder: Path
) -> None:
    make_repo(folder, "owner/raw", {"model.safetensors": 700, "config.json": b"{}"})

    added = http.post("/api/models/register", json={"repo": "owner/raw"}).json()
    order = {"model_name": added["name"], "target": "all"}

    assert added["status"] == "pending_conversion"
    shown = http.get(f"/api/models/{added['name']}").json()
    assert (shown["status"], shown["display_name"]) == ("pending_conversion", "raw")
    assert http.get("/v1/models").json()["data"] == []
    for path in ("/api/models/download", "/api/models/plan"):
        assert problem(http.post(path, json=order)) == (409, "pending_conversion")
