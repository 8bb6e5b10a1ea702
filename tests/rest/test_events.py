"""Server-sent events."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import NAME, problem, register
from tests.support import eventually


@dataclass(frozen=True)
class Event:
    """One event; a comment has the kind ""."""

    kind: str
    id: str
    data: Any


@contextmanager
def events(http: httpx.Client, last_id: str = "") -> Iterator[Iterator[Event]]:
    """The stream, read as a browser reads it."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with http.stream("GET", "/api/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        yield _parsed(answer.iter_lines())


def _parsed(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield Event("", "", line)
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


def until(stream: Iterator[Event], wanted: Callable[[Event], object]) -> list[Event]:
    """The events up to one that is wanted, without comments."""
    seen = []
    for event in stream:
        if event.kind:
            seen.append(event)
            if wanted(event):
                return seen
    raise AssertionError("the stream has ended")


def synced(event: Event) -> bool:
    """Whether everything was sent once."""
    return event.kind == "synced"


def test_a_stream_begins_with_everything_and_goes_on_with_changes(
    router: RunningRouter, http: httpx.Client
) -> None:
    register(http)
    with FakeAgent(router.call.agent) as agent, events(http) as stream:
        snapshot = until(stream, synced)
        http.post("/api/models/download", json={"model_name": NAME, "target": "all"})
        agent.complete(agent.assignment(lambda a: a.tasks).tasks[0])
        changes = until(stream, lambda e: e.kind == "model" and e.data["ready"])

    assert [event.kind for event in snapshot] == ["node", "model", "synced"]
    assert snapshot[0].data["id"] == "node-1"
    assert snapshot[1].data == http.get("/api/models").json()["models"][0] | {
        "nodes": [],
        "ready": False,
        "ready_nodes": 0,
    }
    assert "task" in {event.kind for event in changes}
    numbers = [int(event.id.partition("-")[2]) for event in changes]
    assert numbers == sorted(numbers)


def test_what_is_gone_is_told_as_deleted(router: RunningRouter, http: httpx.Client) -> None:
    register(http)
    with FakeAgent(router.call.agent):
        pass
    with events(http) as stream:
        until(stream, synced)
        http.delete(f"/api/models/{NAME}")
        model = until(stream, lambda e: e.kind == "model")[-1]

    assert model.data == {"name": NAME, "deleted": True}


def test_whoever_missed_nothing_gets_no_snapshot_and_everybody_else_does(
    http: httpx.Client,
) -> None:
    register(http)
    with events(http) as stream:
        last = until(stream, synced)[-1].id

    with events(http, last) as stream:
        missed_nothing = until(stream, synced)
    register(http, "tiny-Q8_0.gguf")
    with events(http, last) as stream:
        missed_something = until(stream, synced)
    with events(http, "0-0") as stream:
        of_another_run = until(stream, synced)
    with events(http, "garbage") as stream:
        of_nothing = until(stream, synced)

    assert [event.kind for event in missed_nothing] == ["synced"]
    for healed in (missed_something, of_another_run, of_nothing):
        assert [event.kind for event in healed] == ["model", "model", "synced"]


def test_an_id_as_long_as_a_header_is_no_id(http: httpx.Client) -> None:
    register(http)
    with events(http) as stream:
        epoch = next(event.id for event in stream).partition("-")[0]

    with events(http, f"{epoch}-{'9' * 5000}") as stream:
        assert next(stream).kind == "model"


def test_a_quiet_stream_says_that_it_is_still_there(http: httpx.Client) -> None:
    with events(http) as stream:
        comment = next(event for event in stream if not event.kind)

    assert comment.data == ": still here"


def test_streams_are_bounded_and_one_that_is_left_makes_room(http: httpx.Client) -> None:
    with events(http) as one, events(http) as two:
        until(one, synced)
        until(two, synced)
        refused = http.get("/api/events")

    assert problem(refused) == (503, "too_many_streams")
    assert refused.headers["retry-after"] == "10"

    def admitted() -> bool:
        with http.stream("GET", "/api/events") as answer:
            return answer.status_code == 200

    eventually(admitted)
