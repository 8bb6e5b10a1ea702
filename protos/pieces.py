"""How a file is cut into pieces that nodes share: the same on both sides of the wire."""

SMALLEST_PIECE_BYTES = 4 << 20
_MAX_PIECES = 2048


def piece_bytes(size: int) -> int:
    """Length of the pieces of a file of `size` bytes: a power of two, at least 4 MiB.

    A file has at most 2,048 pieces, so that what a node has fits into 256 bytes.
    """
    length = SMALLEST_PIECE_BYTES
    while length * _MAX_PIECES < size:
        length *= 2
    return length


def piece_count(size: int) -> int:
    """Number of pieces of a file of `size` bytes; an empty one has none."""
    return -(-size // piece_bytes(size))


def piece_span(piece: int, size: int) -> tuple[int, int]:
    """Where a piece begins and ends in its file. Raises `ValueError` when the file has no such."""
    length = piece_bytes(size)
    start = piece * length
    if not 0 <= start < size:
        raise ValueError(f"a file of {size} bytes has no piece {piece}")
    return start, min(start + length, size)
