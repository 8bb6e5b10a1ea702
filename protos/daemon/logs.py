"""Logs for people and machines: constant text plus fields, on stderr, without secrets.

`get_logger(__name__).info("task finished", task_id=task.id)` becomes one line, as text or as JSON
`{"ts", "level", "logger", "event", …fields}`. What other libraries log takes the same way.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

MASK = "***"
_MAX_TEXT = 8192  # characters of one field; a log line has a limit like everything else
_MAX_DEPTH = 6

_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:authorization|token|password|passwd|secret|cookie|api[_-]?key|signature)$", re.I
)
_HARMLESS_KEYS = frozenset({"page_token", "next_page_token"})
_HUB_TOKEN = re.compile(
    r"\bhf_(?:oauth_|jwt_)?(?=[A-Za-z0-9]*[0-9]|[A-Za-z0-9]{16})[A-Za-z0-9._-]{4,}"
)
_CREDENTIALS = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.I)
_HEADER = re.compile(
    r"""((?:proxy-)?authorization|x-xet-access-token|(?:set-)?cookie)(["']?\s*[:=,]\s*b?["']?)"""
    r"""(?!\s)([^"'\r\n,}\]]+)""",
    re.I,
)
_USER_INFO = re.compile(r"(://)[^/\s@\"']+@")
_QUERY = re.compile(r"\?[^\s\"'<>\\]+")
_SIGNED = re.compile(
    r"[?&](?:[a-z0-9-]*signature|sig|policy|credential|[a-z-]*security-token|[a-z_]*token|"
    r"key-pair-id)=",
    re.I,
)


def redact(text: str) -> str:
    """The text without Hub tokens, credentials in headers or URLs, and signed query strings."""
    text = _QUERY.sub(_masked_query, text)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _CREDENTIALS.sub(rf"\1 {MASK}", text)
    text = _USER_INFO.sub(rf"\1{MASK}@", text)
    return _HUB_TOKEN.sub(f"hf_{MASK}", text)


class Logger:
    """A named logger whose messages are constant text and whose variable parts are fields."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: object) -> None:
        """What helps whoever looks for a fault."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator wants to read the next day."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What works but should not be like this."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What failed for good."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """What nobody expected: call it inside `except`, it adds the traceback."""
        self._log(logging.ERROR, event, fields, exc_info=True)

    def _log(
        self, level: int, event: str, fields: dict[str, object], *, exc_info: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"fields": fields}
            # `%` in the constant text stays what it is: no arguments, no formatting.
            self._logger.log(level, event, extra=extra, exc_info=exc_info, stacklevel=3)


def get_logger(name: str) -> Logger:
    """The structured logger of a module; works before `configure` like any standard logger."""
    return Logger(logging.getLogger(name))


def configure(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Sends all logs of the process to `stream` (stderr) as `json` or `text`, from `level` on.

    May be called again; the last call counts. Chatty HTTP libraries log from WARNING on, unless
    the level is `debug`.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock"):
        quiet = logging.NOTSET if threshold <= logging.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(quiet)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts` (RFC 3339 UTC), `level`, `logger`, `event`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _cut(redact(record.getMessage())),
        }
        for key, value in _fields(record).items():
            line[f"{key}_" if key in line else key] = value
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`<time> <LEVEL> <logger>: <event> key=value …`; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = _fields(record)
        trace = fields.pop("traceback", None)
        event = _one_line(_cut(redact(record.getMessage())))
        head = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {event}"
        line = " ".join([head, *(f"{key}={_shown(value)}" for key, value in fields.items())])
        return line if trace is None else f"{line}\n{trace.rstrip()}"


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given: Mapping[str, object] = getattr(record, "fields", {})
    fields = {key: _clean(key, value, depth=0) for key, value in given.items()}
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = redact("".join(traceback.format_exception(*record.exc_info)))
    elif record.exc_text:
        fields["traceback"] = redact(record.exc_text)
    return fields


def _clean(key: str, value: object, *, depth: int) -> Any:
    """The value as JSON can hold it, redacted by its key and by its text."""
    if value is not None and _SECRET_KEY.search(key) and key not in _HARMLESS_KEYS:
        return MASK
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {str(name): _clean(str(name), item, depth=depth + 1) for name, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(key, item, depth=depth + 1) for item in value]
    return _cut(redact(str(value)))


def _masked_query(match: re.Match[str]) -> str:
    return f"?{MASK}" if _SIGNED.search(match.group()) else match.group()


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        plain = value and value.isprintable() and not any(c in value for c in ' "=')
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)
