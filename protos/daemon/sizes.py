"""Numbers of bytes in settings."""

import re
from typing import Any

import click

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?(?:/s)?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_BYTES = (1 << 63) - 1


class ByteSize(click.ParamType[int]):
    """A number of bytes as people write it: `500000`, `20MB` (10**6), `1.5GiB` (2**30), `5MB/s`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        match = _SIZE.fullmatch(str(value))
        if match is None:
            self.fail(f"{value} is not a size: write bytes, or 20MB, 1.5GiB", param, ctx)
        number, unit, binary = match.groups()
        count = int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
        if count > _MAX_BYTES:
            self.fail(f"{value} is too large", param, ctx)
        return count
