"""Sizes in settings."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.daemon.sizes import ByteSize


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("500000", 500_000), ("20MB", 20_000_000), ("20mb", 20_000_000),
        ("1k", 1_000), ("1KiB", 1_024), ("1.5 GiB", 3 << 29), ("2TB/s", 2 * 10**12),
    ],
)  # fmt: skip
def test_a_size_as_people_write_it(text: str, count: int) -> None:
    assert ByteSize().convert(text, None, None) == count


@given(st.text(max_size=12))
def test_any_other_text_is_no_size(text: str) -> None:
    try:
        assert ByteSize().convert(text, None, None) >= 0
    except click.UsageError as error:
        assert "size" in str(error) or "large" in str(error)
