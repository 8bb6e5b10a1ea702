"""How files are cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.pieces import SMALLEST_PIECE_BYTES, piece_bytes, piece_count, piece_span


@given(st.integers(min_value=1, max_value=1 << 46))
def test_pieces_cover_the_file_without_gap_or_overlap(size: int) -> None:
    count = piece_count(size)
    sample = {0, count // 2, count - 1}

    assert count <= 2048
    assert piece_span(0, size)[0] == 0
    assert piece_span(count - 1, size)[1] == size
    for piece in sample - {count - 1}:
        assert piece_span(piece, size)[1] == piece_span(piece + 1, size)[0]


def test_a_small_file_is_one_piece() -> None:
    assert piece_count(1) == piece_count(SMALLEST_PIECE_BYTES) == 1
    assert piece_count(SMALLEST_PIECE_BYTES + 1) == 2
    assert piece_count(0) == 0


def test_a_forty_gigabyte_file_has_pieces_of_32_mib() -> None:
    assert piece_bytes(40 * 10**9) == 32 << 20


@pytest.mark.parametrize("piece", [-1, 2])
def test_a_piece_that_is_not_there_is_refused(piece: int) -> None:
    with pytest.raises(ValueError, match="no piece"):
        piece_span(piece, 2 * SMALLEST_PIECE_BYTES)
