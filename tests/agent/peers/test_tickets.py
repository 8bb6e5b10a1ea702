"""Who may read: whoever has a ticket of this fleet for this very file."""

import json

import pytest

from protos.tickets import ticket_field, ticket_query
from tests.agent.peers.conftest import HOUR, KEY, NOW, Served, digest

CONTENT = b"a file of this fleet" * 100
OTHER = b"another file" * 100
NAME = digest(CONTENT)


def code(body: bytes) -> str:
    """The stable word of a refusal."""
    return str(json.loads(body)["error"]["code"])


def test_a_ticket_counts_as_a_field_or_in_the_query(served: Served) -> None:
    served.put(CONTENT)
    query = ticket_query(KEY, NAME, NOW + HOUR)

    by_field = served.ask(NAME, Authorization=ticket_field(KEY, NAME, NOW + HOUR))
    by_query = served.ask(NAME, query=f"?{query}", ticket=False)
    while_waiting = served.ask(NAME, query=f"?{query}&wait=1", ticket=False)

    assert [by_field.body, by_query.body, while_waiting.body] == [CONTENT] * 3


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Bearer abc",
        ticket_field(b"another fleet's secret..........", NAME, NOW + HOUR),
        ticket_field(KEY, digest(OTHER), NOW + HOUR),
        ticket_field(KEY, NAME, NOW - HOUR),
        ticket_field(KEY, NAME, NOW + 100 * 24 * HOUR),
        ticket_field(KEY, NAME, NOW + HOUR)[:-1],
    ],
    ids=["empty", "scheme", "key", "file", "expired", "endless", "short"],
)
@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
def test_without_a_ticket_that_counts_nothing_is_told(
    served: Served, field: str, held: bool
) -> None:
    if held:
        served.put(CONTENT)

    answer = served.ask(NAME, Authorization=field)

    assert answer.status == 401
    assert code(answer.body) == "invalid_ticket"
    assert answer.fields["www-authenticate"] == "Ticket"


def test_a_missing_ticket_is_refused(served: Served) -> None:
    served.put(CONTENT)

    assert served.ask(NAME, ticket=False).status == 401


def test_a_ticket_stops_counting_while_the_connection_stays(served: Served) -> None:
    served.put(CONTENT)

    with served.connect() as peer:
        before = peer.ask(NAME)
        served.now += 3 * HOUR
        after = peer.ask(NAME)

    assert (before.status, after.status) == (200, 401)


def test_until_the_key_is_known_everybody_is_asked_to_come_again(served: Served) -> None:
    served.put(CONTENT)
    served.key = b""

    with served.connect() as peer:
        before = peer.ask(NAME)
        forged = peer.ask(NAME, Authorization=ticket_field(b"", NAME, NOW + HOUR))
        served.key = KEY
        after = peer.ask(NAME)

    assert (before.status, forged.status, after.status) == (503, 503, 200)
    assert code(before.body) == "key_unknown"
    assert before.fields["retry-after"] == "1"


def test_a_file_that_is_not_here_is_not_found(served: Served) -> None:
    answer = served.ask(digest(OTHER))

    assert (answer.status, code(answer.body)) == (404, "blob_not_found")
