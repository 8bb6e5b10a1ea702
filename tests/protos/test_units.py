"""Numbers of bytes as the REST API, the CLI and messages write them."""

import pytest

from protos import units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B/s"),
        (999, "999 B/s"),
        (1_000, "1.0 kB/s"),
        (999_949, "999.9 kB/s"),
        (999_950, "1.0 MB/s"),
        (999_999_999, "1.0 GB/s"),
        (12_345_678_901_234, "12.3 TB/s"),
    ],
)
def test_a_rate_is_written_in_the_unit_that_it_rounds_to(count: int, text: str) -> None:
    assert units.rate(count) == text


@pytest.mark.parametrize(
    ("done", "total", "share"), [(0, 3, 0.0), (1, 3, 0.3333), (999_999, 10**6, 0.9999), (5, 5, 1.0)]
)
def test_a_share_is_whole_only_when_nothing_is_missing(done: int, total: int, share: float) -> None:
    assert units.fraction(done, total) == share
