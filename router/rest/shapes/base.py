"""The base of all JSON objects of the HTTP API: times, texts, errors.

Times are RFC 3339 in UTC.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T14:05:06.123Z`."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]


def _unicode(text: str) -> str:
    """Refuses half of a surrogate pair, which JSON can write and nobody can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class Shape(BaseModel):
    """The base of all objects."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), populate_by_name=True)


class ErrorBody(Shape):
    """What went wrong; `code` is stable."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(Shape):
    """The body of every answer that is not a success."""

    error: ErrorBody


class Health(Shape):
    """That the router is there."""

    status: Literal["ok"] = "ok"
    version: str
