"""Models over HTTP: OpenAI's list, the catalog, registering, removing."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.hub import FaultyHub, rate_limited
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import FILE, NAME, REPO, problem, register
from tests.support import eventually

GOLDEN = Path(__file__).parent / "v1_models.json"


def test_the_list_of_openai_is_as_it_was_written_down(http: httpx.Client) -> None:
    register(http)
    register(http, "", "owner/raw")  # not GGUF: not listed

    answer = http.get("/v1/models").json()

    for model in answer["data"]:
        assert isinstance(model.pop("created"), int)
    assert answer == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("slash", ["/", "%2F", "%2f"])
def test_a_model_is_found_with_plain_and_with_quoted_slashes(
    http: httpx.Client, slash: str
) -> None:
    register(http)

    for prefix in ("/v1/models/", "/api/models/"):
        answer = http.get(prefix + NAME.replace("/", slash))
        assert answer.status_code == 200
        assert (answer.json().get("id") or answer.json()["name"]) == NAME
    manifest = http.get(f"/api/models/registry/{NAME.replace('/', slash)}/manifest.json").json()
    assert manifest["model"] == NAME
    assert [file["role"] for file in manifest["files"]] == ["model"]
    assert manifest["files"][0]["url"].endswith(f"/resolve/{manifest['revision']}/{FILE}")
    assert len(manifest["files"][0]["sha256"]) == len(manifest["manifest_id"]) == 64


@pytest.mark.parametrize("name", ["gpt-4", "hf/o/r/none.gguf", "..%2F..%2Fetc%2Fpasswd", "%00"])
def test_an_unknown_model_is_not_found_as_openai_says_it(http: httpx.Client, name: str) -> None:
    for path in (f"/v1/models/{name}", f"/api/models/registry/{name}/manifest.json"):
        answer = http.get(path)
        assert problem(answer) == (404, "model_not_found")
        assert answer.json()["error"]["param"] == "model"


def test_the_catalog_shows_what_has_become_of_each_variant(
    router: RunningRouter, http: httpx.Client, hub: FaultyHub
) -> None:
    register(http)

    page = http.get("/api/models/available", params={"search": "tiny"}).json()

    assert (page["source"], page["stale"], page["pagination"]["has_more"]) == ("hf", False, False)
    assert {model["name"]: model["status"] for model in page["models"]} == {
        NAME: "registered",
        f"hf/{REPO}/tiny-Q8_0.gguf": "available",
    }
    first = page["models"][0]
    assert first["source"] == "hf_gguf"
    assert first["download_url"].startswith(f"{hub.url}/{REPO}/resolve/")
    with FakeAgent(router.call.agent) as agent:
        http.post("/api/models/download", json={"model_name": NAME, "target": "all"})
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        eventually(lambda: http.get(f"/v1/models/{NAME}").json()["ready"])
    again = http.get("/api/models/available", params={"search": "tiny"}).json()
    assert "downloaded" in {model["status"] for model in again["models"]}


def test_pages_of_the_catalog_never_repeat_or_skip_a_variant(http: httpx.Client) -> None:
    whole = http.get("/api/models/available", params={"limit": 100}).json()["models"]

    found: list[Any] = []
    more = True
    while more:
        page = http.get("/api/models/available", params={"limit": 2, "offset": len(found)}).json()
        found += page["models"]
        more = page["pagination"]["has_more"]

    assert [model["name"] for model in found] == [model["name"] for model in whole]
    assert len(whole) == 6


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "-1"},
        {"limit": "abc"},
        {"limit": "9" * 30},
        {"offset": "-1"},
        {"source": "ollama"},
        {"sort": "size"},
        {"min_bytes": "-1"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_its_parameter(
    http: httpx.Client, query: dict[str, str]
) -> None:
    answer = http.get("/api/models/available", params=query)

    assert problem(answer) == (400, "invalid_argument")
    assert answer.json()["error"]["param"] == next(iter(query))


def test_an_offset_far_beyond_the_end_is_an_empty_page(http: httpx.Client) -> None:
    answer = http.get("/api/models/available", params={"offset": 10**12}).json()

    assert (answer["models"], answer["pagination"]["has_more"]) == ([], False)


def test_a_registration_says_what_was_registered(http: httpx.Client) -> None:
    body = {"repo": f"{REPO}:Q8_0", "display_name": "Tiny", "chat_template": "{{ x }}"}

    answer = http.post("/api/models/register", json=body)

    assert answer.status_code == 201
    told = answer.json()
    assert (told["name"], told["status"]) == (f"hf/{REPO}/tiny-Q8_0.gguf", "registered")
    assert told["size_bytes"] == 2000
    assert len(told["revision"]) == 40
    shown = http.get("/api/models").json()["models"][0]
    assert (shown["display_name"], shown["chat_template"]) == ("Tiny", "{{ x }}")
    assert (shown["commit"], shown["nodes"], shown["ready"]) == (told["revision"], [], False)


@pytest.mark.parametrize(
    ("param", "value"),
    [("repo", "../x"), ("filename", "../x"), ("revision", "../x"), ("display_name", "\x1b[31m")],
)
def test_a_name_that_is_refused_is_named(http: httpx.Client, param: str, value: str) -> None:
    answer = http.post("/api/models/register", json={"repo": REPO, param: value})

    assert problem(answer) == (400, "invalid_name")
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"repo": "nonsense"}, 400, "invalid_name"),
        ({"repo": "../.."}, 400, "invalid_name"),
        ({"repo": REPO, "filename": "../../etc/passwd"}, 400, "invalid_name"),
        ({"repo": REPO, "filename": "a\x00b.gguf"}, 400, "invalid_name"),
        ({"repo": "owner/none"}, 404, "repo_not_found"),
        ({"repo": REPO, "filename": "none.gguf"}, 404, "file_not_found"),
        ({"repo": REPO, "revision": "no-such"}, 404, "revision_not_found"),
        ({"repo": REPO, "filename": FILE}, 409, "model_exists"),
        ({"repo": f"{REPO}:q4_k_m"}, 409, "model_exists"),
        ({}, 400, "invalid_argument"),
        ({"repo": 5}, 400, "invalid_argument"),
        ({"repo": REPO, "surprise": 1}, 400, "invalid_argument"),
        ([], 400, "invalid_argument"),
    ],
)
def test_every_documented_refusal_of_a_registration(
    http: httpx.Client, body: object, status: int, code: str
) -> None:
    register(http)
    before = http.get("/api/models").json()

    answer = http.post("/api/models/register", json=body)

    assert problem(answer) == (status, code)
    assert http.get("/api/models").json() == before


def test_a_hub_that_limits_us_is_told_with_the_time_to_wait(
    troubled: RunningRouter, hub: FaultyHub
) -> None:
    hub.always("/api/models/owner/spare-0-GGUF*", rate_limited(7))

    answer = httpx.post(
        f"{troubled.http_url}/api/models/register", json={"repo": "owner/spare-0-GGUF"}
    )

    assert problem(answer) == (424, "hub_rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 8


def test_a_hub_that_is_away_is_told_and_what_it_said_last_is_shown_as_cached(
    troubled: RunningRouter, hub: FaultyHub
) -> None:
    api = f"{troubled.http_url}/api/models"
    first = httpx.get(f"{api}/available", params={"search": "spare"}).json()
    hub.stop()
    try:
        answer = httpx.post(f"{api}/register", json={"repo": "owner/spare-1-GGUF"}, timeout=20)
        again = httpx.get(f"{api}/available", params={"search": "spare"}).json()
    finally:
        hub.start()

    assert (first["cached"], again["cached"]) == (False, True)
    assert first["models"] == again["models"]

    assert problem(answer) == (424, "hub_unavailable")


def test_a_model_is_removed_once(http: httpx.Client) -> None:
    register(http)

    removed = http.delete(f"/api/models/{NAME}")

    assert (removed.status_code, removed.content) == (204, b"")
    assert problem(http.delete(f"/api/models/{NAME}")) == (404, "model_not_found")


def test_a_model_with_running_tasks_is_removed_by_force_only(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        http.post("/api/models/download", json={"model_name": NAME, "target": "all"})

        assert problem(http.delete(f"/api/models/{NAME}")) == (409, "model_busy")
        forced = http.delete(f"/api/models/{NAME}", params={"force": "true", "evict": "true"})

    assert forced.status_code == 204
    assert http.get("/api/tasks").json()["tasks"][0]["status"] == "cancelled"
