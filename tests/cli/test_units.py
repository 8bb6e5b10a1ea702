"""Sizes, rates, spans."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli.render import units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (4_920_739_232, "4.9 GB"),
        (10**16, "10.0 PB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_a_size_is_decimal_with_one_digit(count: int, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.2, "1s"), (59, "59s"), (61, "1m01s"), (3_661, "1h01m"), (90_000, "1d01h")],
)
def test_a_span_has_its_two_largest_parts(seconds: float, text: str) -> None:
    assert units.span(seconds) == text


@pytest.mark.parametrize(
    ("passed", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (86_400, "1d")]
)
def test_an_age_has_its_largest_part(passed: int, text: str) -> None:
    now = datetime.fromtimestamp(2_000_000 + passed, UTC)

    assert units.age(Timestamp(seconds=2_000_000), now) == text


def test_a_share_is_whole_only_when_nothing_is_missing() -> None:
    assert units.share(999_999, 1_000_000) == 99
    assert units.share(0, 0) == 0


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (1_200_000_000, 4_900_000_000, "1.2 / 4.9 GB"),
        (1_200_000, 4_900_000_000, "0.0 / 4.9 GB"),
        (17, 913, "17 / 913 B"),
        (0, 0, "0 / 0 B"),
    ],
)
def test_a_part_has_the_unit_of_the_whole(done: int, total: int, text: str) -> None:
    assert units.size_of(done, total) == text
