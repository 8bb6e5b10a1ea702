"""Tokens of pages."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import InvalidArgument, InvalidPageToken
from router.services.paging import page


def of(items: list[str], size: int, token: str) -> tuple[list[str], str]:
    """A page of sorted texts."""
    found = page(
        size, token, lambda after, limit: [i for i in items if i > after][:limit], lambda i: i
    )
    return found.items, found.next_token


@settings(deadline=None, max_examples=50, database=None)
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), st.integers(1, 5))
def test_pages_together_are_the_list_once(items: set[str], size: int) -> None:
    wanted, found, token = sorted(items), [], ""
    while True:
        some, token = of(wanted, size, token)
        found += some
        if not token:
            break

    assert found == wanted


@pytest.mark.parametrize("token", ["!", "!!!!", "a", "Zm9v\n", "Zm9v=", "é", "_w", "=", "Zg=="])
def test_a_token_that_was_not_made_here_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        of(["a"], 1, token)


@settings(deadline=None, max_examples=50, database=None)
@given(st.text(max_size=30))
def test_any_text_is_a_token_or_is_refused(token: str) -> None:
    with contextlib.suppress(InvalidPageToken):
        of(["a"], 1, token)


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_size_beyond_the_bounds_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument, match="1 to 1000"):
        of([], size, "")
