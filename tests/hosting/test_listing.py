"""`GET /api/models`: what is found, in which order, page by page."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub import FaultyHub, make_repo
from tests.hosting.conftest import http

DAY = 86_400


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultyHub]:
    """Four repositories; later ones are newer and more liked, and less often downloaded."""
    files: dict[str, dict[str, bytes | int]] = {
        "alpha/Llama-3-8B-GGUF": {"a.gguf": 10},
        "alpha/Llama-3-8B": {"a.safetensors": 10, "config.json": b"{}"},
        "beta/qwen-7b-gguf": {"b.gguf": 10, "b-Q8_0.gguf": 10},
        "gamma/phi": {"model.onnx": 10},
    }
    with FaultyHub(tmp_path) as running:
        for age, (repo, content) in enumerate(files.items()):
            make_repo(tmp_path, repo, content)
            for path in (tmp_path / repo).iterdir():
                os.utime(path, (age * DAY, age * DAY))
            running.set_standing(repo, downloads=100 - age, likes=age)
        yield running


def listed(hub: FaultyHub, query: str = "") -> list[dict[str, Any]]:
    response = http.get(f"{hub.url}/api/models?{query}")
    response.raise_for_status()
    found: list[dict[str, Any]] = response.json()
    return found


def ids(hub: FaultyHub, query: str) -> list[str]:
    return [model["id"] for model in listed(hub, query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("search=LLAMA", {"alpha/Llama-3-8B-GGUF", "alpha/Llama-3-8B"}),
        ("search=gguf+llama", {"alpha/Llama-3-8B-GGUF"}),
        ("search=nothing", set()),
        ("author=beta", {"beta/qwen-7b-gguf"}),
        ("author=bet", set()),
        ("filter=gguf", {"alpha/Llama-3-8B-GGUF", "beta/qwen-7b-gguf"}),
        ("filter=safetensors", {"alpha/Llama-3-8B"}),
        ("filter=gguf,onnx", set()),
        ("filter=gguf&filter=safetensors", set()),
        ("apps=llama.cpp", {"alpha/Llama-3-8B-GGUF", "beta/qwen-7b-gguf"}),
        ("pipeline_tag=text-to-image", set()),
        ("gated=true", set()),
        ("gated=false&author=gamma", {"gamma/phi"}),
    ],
)
def test_a_query_finds_what_matches_all_of_it(
    hub: FaultyHub, query: str, expected: set[str]
) -> None:
    assert set(ids(hub, query)) == expected


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("downloads", "alpha/Llama-3-8B-GGUF"),
        ("trendingScore", "alpha/Llama-3-8B-GGUF"),
        ("trending_score", "alpha/Llama-3-8B-GGUF"),
        ("likes", "gamma/phi"),
        ("lastModified", "gamma/phi"),
        ("last_modified", "gamma/phi"),
        ("createdAt", "gamma/phi"),
        ("created_at", "gamma/phi"),
    ],
)
def test_the_greatest_comes_first(hub: FaultyHub, sort: str, first: str) -> None:
    assert ids(hub, f"sort={sort}")[0] == first


@pytest.mark.parametrize("sort", ["downloads", "likes", "lastModified"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_hold_every_repository_once_in_order(hub: FaultyHub, sort: str, size: int) -> None:
    whole = ids(hub, f"sort={sort}")

    paged, url = [], f"{hub.url}/api/models?sort={sort}&limit={size}"
    while url:
        response = http.get(url)
        assert len(response.json()) <= size
        paged += [model["id"] for model in response.json()]
        url = response.links.get("next", {}).get("url", "")

    assert paged == whole


def test_equal_values_do_not_confuse_the_pages(hub: FaultyHub) -> None:
    for repo in ids(hub, ""):
        hub.set_standing(repo, downloads=5)

    first = http.get(f"{hub.url}/api/models?sort=downloads&limit=2")
    second = http.get(first.links["next"]["url"])

    assert len({model["id"] for model in first.json() + second.json()}) == 4
    assert "next" not in second.links


def test_a_repository_that_appears_between_pages_repeats_nothing(
    hub: FaultyHub, tmp_path: Path
) -> None:
    first = http.get(f"{hub.url}/api/models?sort=downloads&limit=2")
    make_repo(tmp_path, "new/popular", {"m.gguf": 1})
    hub.set_standing("new/popular", downloads=1000)

    second = http.get(first.links["next"]["url"])

    assert not {model["id"] for model in first.json()} & {model["id"] for model in second.json()}


def test_expand_gives_what_was_asked_for_alone(hub: FaultyHub) -> None:
    query = "author=beta&expand=siblings&expand=likes&expand=gguf"

    (model,) = listed(hub, query)

    assert model.keys() == {"_id", "id", "modelId", "siblings", "likes"}
    assert [file["rfilename"] for file in model["siblings"]] == ["b-Q8_0.gguf", "b.gguf"]


def test_full_gives_files_and_commit(hub: FaultyHub) -> None:
    (model,) = listed(hub, "author=gamma&full=true")

    assert len(model["sha"]) == 40
    assert model["siblings"] == [{"rfilename": "model.onnx"}]
    assert model["lastModified"] == "1970-01-04T00:00:00.000Z"


@pytest.mark.parametrize("query", ["sort=colour", "limit=0", "limit=x", "cursor=%25", "cursor=W10"])
def test_a_query_that_makes_no_sense_is_refused_with_a_reason(hub: FaultyHub, query: str) -> None:
    response = http.get(f"{hub.url}/api/models?{query}")

    assert response.status_code == 400
    assert response.json()["error"]


def test_a_cursor_of_another_sorting_is_refused(hub: FaultyHub) -> None:
    page = http.get(f"{hub.url}/api/models?sort=downloads&limit=1")
    url = page.links["next"]["url"].replace("sort=downloads", "sort=lastModified")

    assert http.get(url).status_code == 400


def test_a_long_tree_comes_in_pages(hub: FaultyHub, tmp_path: Path) -> None:
    make_repo(tmp_path, "long/tree", {f"folder {n % 3}/{n}.txt": b"x" for n in range(20)})
    api = f"{hub.url}/api/models/long/tree/tree/main?recursive=true"
    whole = [entry["path"] for entry in http.get(api).json()]

    paged, url = [], f"{api}&limit=6"
    while url:
        response = http.get(url)
        paged += [entry["path"] for entry in response.json()]
        url = response.links.get("next", {}).get("url", "")

    assert len(whole) == 23
    assert paged == whole


def test_paths_info_reads_json_too(hub: FaultyHub) -> None:
    url = f"{hub.url}/api/models/gamma/phi/paths-info/main"

    answer = http.post(url, json={"paths": ["model.onnx"]})
    nonsense = http.post(url, content=b"[1", headers={"Content-Type": "application/json"})

    assert [info["path"] for info in answer.json()] == ["model.onnx"]
    assert nonsense.status_code == 400


def test_too_large_a_body_is_refused(hub: FaultyHub) -> None:
    url = f"{hub.url}/api/models/gamma/phi/paths-info/main"

    assert http.post(url, content=b"x" * 2_000_000).status_code == 413
