"""Reads what another node asks for: the head of an HTTP/1.1 request (RFC 9112, RFC 9110)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_HEAD_BYTES = 16 << 10
_MAX_FIELDS = 64
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_ABSOLUTE = re.compile(r"https?://[^/?]+", re.IGNORECASE)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_ONCE = {"host", "authorization", "range", "if-range", "content-length", "transfer-encoding"}


class Refusal(Exception):
    """A request that is answered with an error; `code` is stable, the text is for a person."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: Mapping[str, str] | None = None,
        *,
        ends: bool = False,
    ) -> None:
        """`ends` when nobody can say where the next request would begin."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = dict(fields or {})
        self.ends = ends


@dataclass(frozen=True, slots=True)
class Request:
    """One request; field names in lower case."""

    method: str
    path: str
    query: str
    fields: Mapping[str, str] = field(default_factory=dict)
    is_old: bool = False  # HTTP/1.0

    @property
    def is_bodiless(self) -> bool:
        """Whether the answer has no body."""
        return self.method == "HEAD"

    @property
    def has_body(self) -> bool:
        """Whether more follows that belongs to this request."""
        return self.fields.get("content-length", "0") != "0" or "transfer-encoding" in self.fields

    @property
    def ends(self) -> bool:
        """Whether the connection ends after the answer."""
        tokens = self.fields.get("connection", "").lower().split(",")
        return self.is_old or self.has_body or "close" in (token.strip() for token in tokens)


def read_head(head: bytes) -> Request:
    """Reads a head without the empty line at its end. Raises `Refusal`."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise _malformed("the request line is malformed")
    method, target, major, minor = match.groups()
    if major != "1":
        raise Refusal(505, "version_not_supported", "this node speaks HTTP/1.1", ends=True)
    if len(lines) > _MAX_FIELDS:
        raise too_large()
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _malformed("a header field is malformed")
        name, value = name.lower(), value.strip(" \t")
        if name in fields and name in _ONCE:
            raise _malformed(f"the field {name} is there twice")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if minor != "0" and "host" not in fields:
        raise _malformed("the field host is missing")
    path, _, query = _ABSOLUTE.sub("", target, count=1).partition("?")
    return Request(method, path, query, fields, is_old=minor == "0")


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The span [start, end) that a `Range` field asks for; None: the whole file.

    Raises `Refusal`: 400 for more than one range, 416 for one outside the file.
    """
    if text is None or not text.lower().startswith("bytes"):
        return None  # other units are to be ignored (RFC 9110, 14.2)
    match = _RANGE.fullmatch(text)
    if match is None or match.group() == "bytes=-":
        raise Refusal(400, "invalid_range", "one range is served at a time, as in bytes=0-99")
    first, last = match.groups()
    if not first and not last:
        raise Refusal(400, "invalid_range", "the range names no byte")
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            raise Refusal(400, "invalid_range", "the range ends before it begins")
    if start >= end:
        raise Refusal(
            416,
            "range_not_satisfiable",
            f"the file has {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        )
    return start, end


def too_large() -> Refusal:
    """The head is longer than any that a node sends."""
    return Refusal(431, "head_too_large", "the request's head is too large", ends=True)


def _malformed(message: str) -> Refusal:
    return Refusal(400, "bad_request", message, ends=True)
