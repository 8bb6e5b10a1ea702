"""How numbers of bytes are written for people, alike in every answer."""

STEPS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: int) -> str:
    """Bytes in decimal units, 1 GB is 10⁹: "913 B" or "4.9 GB"; never "1000.0 kB"."""
    value, step = float(count), 0
    while step < len(STEPS) - 1 and (value >= 1000 or (step and round(value, 1) >= 1000)):
        value, step = value / 1000, step + 1
    return f"{count} B" if step == 0 else f"{value:.1f} {STEPS[step]}"


def rate(bytes_per_second: int) -> str:
    """Bytes per second as "12.3 MB/s"."""
    return f"{size(bytes_per_second)}/s"


def fraction(done: int, total: int) -> float:
    """0 to 1 in steps of 0.0001, rounded down: 1 only when nothing is missing. `total` > 0."""
    return done * 10_000 // total / 10_000
