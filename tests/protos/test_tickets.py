"""Leave to read a file from a node."""

import pytest

from protos.tickets import is_valid, ticket_field, ticket_query

KEY = b"k" * 32
FILE = "ab" * 32
NOW = 1_800_000_000.0
SOON = int(NOW) + 60


def test_both_forms_of_a_ticket_open_the_file_they_name() -> None:
    assert is_valid(KEY, FILE, field=ticket_field(KEY, FILE, SOON), now=NOW)
    assert is_valid(KEY, FILE, query=ticket_query(KEY, FILE, SOON), now=NOW)


def test_a_ticket_for_another_file_or_of_another_fleet_opens_nothing() -> None:
    assert not is_valid(KEY, "cd" * 32, field=ticket_field(KEY, FILE, SOON), now=NOW)
    assert not is_valid(b"x" * 32, FILE, field=ticket_field(KEY, FILE, SOON), now=NOW)


@pytest.mark.parametrize("expires", [int(NOW) - 3600, int(NOW) + 10 * 86_400])
def test_a_ticket_counts_only_for_a_while(expires: int) -> None:
    assert not is_valid(KEY, FILE, query=ticket_query(KEY, FILE, expires), now=NOW)


@pytest.mark.parametrize(
    "field", ["", "Ticket", "Ticket expires=,mac=", "Bearer x", "Ticket expires=1" * 1000]
)
def test_anything_else_opens_nothing(field: str) -> None:
    assert not is_valid(KEY, FILE, field=field, query=field, now=NOW)


def test_a_changed_moment_breaks_the_seal() -> None:
    query = ticket_query(KEY, FILE, SOON).replace(str(SOON), str(SOON + 1))

    assert not is_valid(KEY, FILE, query=query, now=NOW)
