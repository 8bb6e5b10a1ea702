"""Column types: moments and JSON, the same on every database."""

import json
from datetime import UTC, datetime
from typing import Any

from peewee import BigIntegerField, TextField

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MomentField(BigIntegerField):
    """A moment as whole microseconds since 1970 UTC: sorts and compares everywhere alike."""

    def db_value(self, value: datetime | None) -> int | None:
        """The number that is stored."""
        if value is None:
            return None
        since = value - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds

    def python_value(self, value: int | None) -> datetime | None:
        """The moment, aware, in UTC."""
        if value is None:
            return None
        seconds, micros = divmod(value, 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


class DocumentField(TextField):
    """A value made of dicts, lists, texts and numbers, as JSON text."""

    def db_value(self, value: Any) -> str | None:
        """The text that is stored."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def python_value(self, value: str | None) -> Any:
        """The value."""
        return None if value is None else json.loads(value)
