"""Plans, and orders that are carried out over time, over HTTP."""

import httpx
import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import NAME, problem, register
from tests.support import eventually

ALL = {"model_name": NAME, "target": "all"}


def order(http: httpx.Client, **wish: object) -> str:
    """Makes an order; its id."""
    answer = http.post("/api/models/download", json={**ALL, **wish})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["order_id"])


def test_a_plan_is_confirmed_or_outdated(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        plan = http.post("/api/models/plan", json=ALL).json()
        with FakeAgent(router.call.agent, "node-2"):
            outdated = http.post("/api/models/download", json={**ALL, "plan_id": plan["plan_id"]})
            newer = http.post("/api/models/plan", json=ALL).json()
            confirmed = http.post("/api/models/download", json={**ALL, "plan_id": newer["plan_id"]})

    assert problem(outdated) == (409, "plan_outdated")
    assert (confirmed.status_code, len(confirmed.json()["task_ids"])) == (202, 2)
    assert (newer["line_bytes"], newer["expected_seconds"]) == (1000, None)
    assert [(node["from"], node["hub_bytes"], node["peer_bytes"]) for node in newer["nodes"]] == [
        ("hub", 1000, 0),
        ("peers", 0, 1000),
    ]
    assert newer["nodes"][0]["fits_memory"] is True


def test_an_order_in_waves_is_shown_as_it_goes_on(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    agent = router.call.agent
    with FakeAgent(agent) as one, FakeAgent(agent, "node-2") as two:
        order_id = order(http, canary=1, then="50%", max_failures=1)
        first = http.get(f"/api/orders/{order_id}").json()
        one.complete(one.assignment(lambda a: a.tasks).tasks[0])
        two.complete(two.assignment(lambda a: a.tasks).tasks[0])
        eventually(lambda: http.get(f"/api/orders/{order_id}").json()["ended"])

    last = http.get("/api/orders").json()["orders"][0]
    assert first["status"] == "active"
    assert first["rollout"] == {
        "canary_nodes": 1,
        "wave_percent": 50,
        "wave_nodes": 0,
        "max_failures": 1,
    }
    assert [node["node_name"] for node in first["waiting"]] == ["node-2"]
    assert first["waiting"][0]["reason"] == "its wave begins when 1 task has ended"
    assert (last["id"], last["status"], last["completed_count"]) == (order_id, "completed", 2)
    assert (last["waiting"], len(last["task_ids"])) == ([], 2)


def test_an_order_by_labels_follows_until_it_is_cancelled(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    wish = {"target": "labels", "labels": {"site": "a"}}
    nobody = http.post("/api/models/download", json={"model_name": NAME, **wish})
    order_id = order(http, **wish, follow=True)
    waiting = http.get(f"/api/orders/{order_id}").json()
    with FakeAgent(router.call.agent) as one:
        one.assignment(lambda a: a.tasks)
        cancelled = http.post(f"/api/orders/{order_id}/cancel").json()
        with FakeAgent(router.call.agent, "node-2") as two:
            assert not two.assignment().tasks

    assert problem(nobody) == (503, "no_nodes")
    assert (waiting["labels"], waiting["follow"], waiting["ended"]) == ({"site": "a"}, True, False)
    assert waiting["note"] == "waits for a node with site=a to join"
    assert (cancelled["status"], cancelled["failed_count"]) == ("cancelled", 1)
    assert problem(http.post(f"/api/orders/{order_id}/cancel")) == (409, "wrong_state")
    assert problem(http.get("/api/orders/no")) == (404, "order_not_found")


def test_a_window_and_what_it_replaces_are_shown(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    old = register(http, "tiny-Q8_0.gguf")
    window = {"start": "22:00", "end": "06:00", "time_zone": "Europe/Berlin"}
    with FakeAgent(router.call.agent):
        order_id = order(http, window=window, replaces=old)

    shown = http.get(f"/api/orders/{order_id}").json()
    assert (shown["window"], shown["replaces"]) == (window, old)


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"target": "labels"}, "invalid_target"),
        ({"labels": {"a": "b"}}, "invalid_target"),
        ({"target": "specific", "node_ids": ["node-1"], "follow": True}, "invalid_options"),
        ({"canary": -1}, "invalid_options"),
        ({"canary": 1 << 31}, "invalid_options"),
        ({"canary": 1, "max_failures": 10**30}, "invalid_options"),
        ({"then": True}, "invalid_argument"),
        ({"then": "some"}, "invalid_options"),
        ({"then": "101%"}, "invalid_options"),
        ({"then": 0}, "invalid_options"),
        ({"max_failures": 1}, "invalid_options"),
        ({"window": {"start": "22:00", "end": "22:00"}}, "invalid_options"),
        ({"window": {"start": "22", "end": "23:00"}}, "invalid_options"),
        (
            {"window": {"start": "22:00", "end": "06:00", "time_zone": "No/Where"}},
            "invalid_options",
        ),
        ({"window": {"start": "22:00"}}, "invalid_argument"),
        ({"replaces": NAME}, "invalid_options"),
        ({"wish": "unknown"}, "invalid_argument"),
        ({"priority": 1001}, "invalid_argument"),
    ],
    ids=str,
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_sentence(
    router: RunningRouter, http: httpx.Client, wish: dict[str, object], code: str
) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        refused = http.post("/api/models/download", json={**ALL, **wish})

    assert problem(refused) == (400, code)
    assert http.get("/api/tasks").json()["tasks"] == []


def test_the_model_that_is_to_go_must_be_known(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        refused = http.post("/api/models/download", json={**ALL, "replaces": "o/none:Q8_0"})

    assert problem(refused) == (404, "model_not_found")
