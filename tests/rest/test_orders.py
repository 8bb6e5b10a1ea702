"""Orders, tasks and nodes over HTTP."""

import json

import httpx
import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import NAME, problem, register
from tests.support import eventually

ALL = {"model_name": NAME, "target": "all"}
TASK_KEYS = {
    "id",
    "task_id",
    "model_name",
    "node_id",
    "node_name",
    "status",
    "progress",
    "bytes_done",
    "bytes_total",
    "speed_bps",
    "speed",
    "eta_seconds",
    "bytes_from",
    "attempt",
    "error",
    "created_at",
    "started_at",
    "updated_at",
    "completed_at",
}
NODE_KEYS = {
    "id",
    "name",
    "status",
    "version",
    "labels",
    "disk_free_bytes",
    "disk_total_bytes",
    "memory_bytes",
    "gpus",
    "models",
    "last_seen_at",
}


def test_an_order_is_carried_out_and_shown(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent) as agent:
        answer = http.post("/api/models/download", json=ALL)
        [task_id] = answer.json()["task_ids"]
        waiting = http.get(f"/api/tasks/{task_id}").json()
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        eventually(lambda: http.get(f"/api/tasks/{task_id}").json()["status"] == "completed")

    assert answer.status_code == 202
    assert waiting.keys() >= TASK_KEYS
    assert (waiting["status"], waiting["progress"], waiting["completed_at"]) == ("pending", 0, None)
    ended = http.get(f"/api/tasks/{task_id}").json()
    assert (ended["progress"], ended["bytes_done"], ended["error"]) == (1, 1000, None)
    assert ended["bytes_from"] == {"hub": 1000, "peers": 0, "router": 0, "disk": 0}
    assert ended["completed_at"].endswith("Z")
    node = http.get("/api/nodes/node-1").json()
    assert node.keys() >= NODE_KEYS
    assert [(model["name"], model["status"]) for model in node["models"]] == [(NAME, "ready")]
    assert http.get("/api/nodes").json()["nodes"][0]["id"] == "node-1"
    assert http.get("/v1/models").json()["data"][0]["ready_nodes"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model_name": NAME}, 400, "invalid_target"),
        ({"model_name": NAME, "target": "some"}, 400, "invalid_target"),
        ({"model_name": NAME, "target": "specific"}, 400, "invalid_target"),
        ({"model_name": NAME, "target": "specific", "node_ids": []}, 400, "invalid_target"),
        ({"model_name": NAME, "target": "all", "node_ids": ["node-1"]}, 400, "invalid_target"),
        ({"model_name": "o/none", "target": "all"}, 404, "model_not_found"),
        ({"model_name": "nonsense", "target": "all"}, 404, "model_not_found"),
        (
            {"model_name": NAME, "target": "specific", "node_ids": ["nobody"]},
            404,
            "node_not_found",
        ),
        ({"model_name": "owner/raw", "target": "all"}, 409, "pending_conversion"),
        ({"target": "all"}, 400, "invalid_argument"),
        ({"model_name": None, "target": "all"}, 400, "invalid_argument"),
        (b'{"model_name": "\\ud800", "target": "all"}', 400, "invalid_argument"),
        (
            b'{"model_name": "m", "target": "specific", "node_ids": ["\\ud800"]}',
            400,
            "invalid_argument",
        ),
    ],
)
def test_every_documented_refusal_of_an_order(
    router: RunningRouter, http: httpx.Client, body: object, status: int, code: str
) -> None:
    register(http)
    register(http, "", "owner/raw")
    with FakeAgent(router.call.agent):
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = {"content-type": "application/json"}
        ordered, planned = (
            http.post(f"/api/models/{verb}", content=content, headers=headers)
            for verb in ("download", "plan")
        )

    assert problem(ordered) == problem(planned) == (status, code)
    assert http.get("/api/tasks").json()["tasks"] == []


def test_an_order_without_nodes_and_one_without_space_are_told_apart(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    nobody = http.post("/api/models/download", json=ALL)
    with FakeAgent(router.call.agent, free=10):
        full = http.post("/api/models/download", json=ALL)
        plan = http.post("/api/models/plan", json=ALL).json()

    assert problem(nobody) == (503, "no_nodes")
    assert problem(full) == (507, "insufficient_disk")
    [node] = plan["nodes"]
    assert (node["verdict"], node["needed_bytes"], node["free_bytes"]) == ("refused", 1000, 10)
    assert node["reason"].startswith("insufficient_disk")
    assert node.keys() >= {"node_id", "from", "warnings"}
    assert plan["line_bytes"] == 0


def test_an_idempotency_key_makes_a_retry_safe(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        key = {"Idempotency-Key": "k-1"}
        first = http.post("/api/models/download", json=ALL, headers=key)
        task_id = first.json()["task_ids"][0]
        http.post(f"/api/tasks/{task_id}/cancel")
        again = http.post("/api/models/download", json=ALL, headers=key)
        other = {"model_name": NAME, "target": "specific", "node_ids": ["node-1"]}
        reused = http.post("/api/models/download", json=other, headers=key)

    assert (again.status_code, again.json()) == (202, first.json())
    assert problem(reused) == (400, "request_reused")


def test_a_task_is_paused_resumed_cancelled_and_retried(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        [task_id] = http.post("/api/models/download", json=ALL).json()["task_ids"]
        told = [
            http.post(f"/api/tasks/{task_id}/{verb}").json()
            for verb in ("pause", "resume", "cancel", "retry")
        ]
        refusals = [http.post(f"/api/tasks/{task_id}/{verb}") for verb in ("resume", "retry")]

    assert [(task["status"], task["attempt"]) for task in told] == [
        ("paused", 1),
        ("pending", 1),
        ("cancelled", 1),
        ("pending", 2),
    ]
    assert [problem(refusal) for refusal in refusals] == [(409, "wrong_state")] * 2


def test_what_does_not_exist_is_not_found(http: httpx.Client) -> None:
    for verb in ("cancel", "pause", "resume", "retry"):
        assert problem(http.post(f"/api/tasks/no/{verb}")) == (404, "task_not_found")
    assert problem(http.get("/api/tasks/no")) == (404, "task_not_found")
    assert problem(http.get("/api/nodes/no")) == (404, "node_not_found")
    assert problem(http.get("/api/nothing")) == (404, "not_found")


def test_tasks_come_in_pages(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent), FakeAgent(router.call.agent, "node-2"):
        http.post("/api/models/download", json=ALL)
    first = http.get("/api/tasks", params={"limit": 1}).json()
    second = http.get(
        "/api/tasks", params={"limit": 1, "page_token": first["next_page_token"]}
    ).json()
    of_node = http.get("/api/tasks", params={"node_id": "node-2", "model_name": NAME}).json()

    assert {first["tasks"][0]["node_id"], second["tasks"][0]["node_id"]} == {"node-1", "node-2"}
    assert second["next_page_token"] is None
    assert [task["node_id"] for task in of_node["tasks"]] == ["node-2"]
    for query in ({"limit": "0"}, {"limit": "x"}, {"page_token": "!"}):
        assert http.get("/api/tasks", params=query).status_code == 400
