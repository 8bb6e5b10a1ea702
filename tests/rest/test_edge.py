"""What holds for every request: who may ask, how much, and in which form errors leave."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import problem

REGISTER = "/api/models/register"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_a_foreign_host_name_is_refused(http: httpx.Client, host: str) -> None:
    for path in ("/v1/models", "/dashboard", "/healthz"):
        assert problem(http.get(path, headers={"Host": host})) == (403, "forbidden_host")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[::1", ""]
)
def test_a_page_of_another_site_is_refused(http: httpx.Client, origin: str) -> None:
    answer = http.post(REGISTER, json={"repo": "o/r"}, headers={"Origin": origin})

    assert problem(answer) == (403, "forbidden_origin")


def test_our_own_page_is_let_in(router: RunningRouter, http: httpx.Client) -> None:
    answer = http.get("/v1/models", headers={"Origin": router.http_url})

    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_however_it_comes(
    http: httpx.Client, chunked: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    content: Any = pieces() if chunked else b" " * 1_100_000
    answer = http.post(REGISTER, content=content, headers={"content-type": "application/json"})

    assert problem(answer) == (413, "request_too_large")
    assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"repo": "\\ud800/x"}', b"[" * 100_000, b'"x"', b"null"]
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post(REGISTER, content=body, headers={"content-type": "application/json"})

    status, code = problem(answer)
    assert (status, code) == (400, "invalid_argument")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_of_another_kind_is_told_what_to_send(http: httpx.Client, kind: str) -> None:
    answer = http.post(REGISTER, content=b'{"repo": "o/r"}', headers={"content-type": kind})

    assert problem(answer) == (400, "invalid_argument")
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_path_that_is_none_leads_to_those_that_are(http: httpx.Client) -> None:
    answer = http.get("/v2/models")

    assert problem(answer) == (404, "not_found")
    assert "/docs" in answer.json()["error"]["message"]


def test_an_unexpected_error_leaks_nothing(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("router.services.nodes.Nodes.all", explode)
    answer = http.get("/api/nodes")

    assert problem(answer) == (500, "internal")
    assert "swordfish" not in answer.text


def test_a_wrong_method_names_the_right_ones(http: httpx.Client) -> None:
    answer = http.put("/v1/models")

    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


def test_the_router_tells_how_it_is(http: httpx.Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert http.get(path).json()["status"] == "ok"
    metrics = http.get("/metrics").text
    for name in ("llm_router_build_info", "llm_router_nodes", "llm_router_tasks"):
        assert name in metrics


def test_the_pages_for_people_are_served(http: httpx.Client) -> None:
    assert http.get("/").headers["location"] == "/dashboard"
    for path in ("/dashboard", "/docs"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")


def test_an_old_page_never_stays_beside_new_files(http: httpx.Client) -> None:
    for path in ("/dashboard", "/dashboard/app.js", "/dashboard/style/page.css", "/docs"):
        first = http.get(path)
        again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert first.headers["cache-control"] == again.headers["cache-control"] == "no-cache"
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/dashboard", "/dashboard/app.js", "/docs", "/v1/models", "/api/nodes", "/healthz"],
)
def test_head_answers_as_get_does_without_a_body(http: httpx.Client, path: str) -> None:
    whole, head = http.get(path), http.head(path)

    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert http.head("/v1/models/hf/o/r/none.gguf").status_code == 404


def test_head_of_a_stream_ends_and_takes_no_place(http: httpx.Client) -> None:
    answers = [http.head("/api/events") for _ in range(5)]  # two streams may be open

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["content-type"].partition(";")[0] for answer in answers} == {
        "text/event-stream"
    }


def test_the_description_names_every_documented_request(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    paths = document["paths"]
    for path, method in (
        ("/v1/models", "get"),
        ("/v1/models/{model_id}", "get"),
        ("/api/models/available", "get"),
        ("/api/models", "get"),
        ("/api/models/register", "post"),
        ("/api/models/{model_id}", "delete"),
        ("/api/models/download", "post"),
        ("/api/models/plan", "post"),
        ("/api/tasks", "get"),
        ("/api/tasks/{task_id}", "get"),
        ("/api/tasks/{task_id}/cancel", "post"),
        ("/api/tasks/{task_id}/pause", "post"),
        ("/api/tasks/{task_id}/resume", "post"),
        ("/api/tasks/{task_id}/retry", "post"),
        ("/api/nodes", "get"),
        ("/api/nodes/{node_id}", "get"),
        ("/api/events", "get"),
        ("/api/models/registry/{model_id}/manifest.json", "get"),
    ):
        assert method in paths[path], path


def test_the_description_is_whole(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    operations = [
        operation for methods in document["paths"].values() for operation in methods.values()
    ]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["description"]
        assert {"4XX", "5XX"} <= operation["responses"].keys()
        assert "422" not in operation["responses"]  # never sent
    assert json.dumps(document)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
