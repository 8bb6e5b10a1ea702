"""Logs of a daemon: their shape, and that no secret gets into them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from protos.daemon import logs

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz01234567"


@pytest.fixture(autouse=True)
def unchanged_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Written:
    """What a configured logger wrote."""

    def __init__(self, log_format: str = "json", level: str = "info") -> None:
        self._stream = io.StringIO()
        logs.configure(log_format, level, self._stream)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.text.splitlines()
        read: dict[str, Any] = json.loads(line)
        return read


def test_a_json_line_holds_time_level_logger_event_and_fields() -> None:
    written = Written()

    logs.get_logger("router.tasks").info("task finished", task_id="t1", bytes_done=5, ok=True)

    line = written.line
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "router.tasks",
        "event": "task finished",
        "task_id": "t1",
        "bytes_done": 5,
        "ok": True,
    }


def test_a_text_line_shows_fields_as_key_and_value() -> None:
    written = Written("text")

    logs.get_logger("agent").warning("disk is full", path="/a b", free=0)

    assert written.text.rstrip().endswith('WARNING agent: disk is full path="/a b" free=0')


def test_lines_below_the_level_are_dropped() -> None:
    written = Written(level="warning")

    logs.get_logger("agent").info("hello")

    assert written.text == ""


def test_what_other_libraries_log_takes_the_same_shape() -> None:
    written = Written()

    logging.getLogger("uvicorn.error").error("failed with %s", TOKEN)

    assert written.line["event"] == "failed with hf_***"
    assert written.line["logger"] == "uvicorn.error"


def test_a_field_named_like_a_part_of_the_line_does_not_replace_it() -> None:
    written = Written()

    logs.get_logger("agent").info("started", level="high", ts=1)

    assert written.line["level"] == "info"
    assert written.line["level_"] == "high"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_line_break_from_outside_starts_no_new_line(log_format: str) -> None:
    written = Written(log_format)

    logs.get_logger("agent").info("bad name\nINFO forged", name="x\nERROR forged")

    assert len(written.text.splitlines()) == 1


def test_a_very_long_field_is_cut() -> None:
    written = Written()

    logs.get_logger("agent").info("answer", body="x" * 1_000_000)

    assert len(written.text) < 10_000


@pytest.mark.parametrize(
    "value",
    [
        TOKEN,
        f"Authorization: Bearer {TOKEN}",
        "authorization: Bearer s3cretValue",
        "{'Authorization': 'Bearer s3cretValue'}",
        "(b'authorization', b'Basic s3cretValue')",
        "https://cdn.example/f.gguf?Expires=1&Signature=s3cretValue&Key-Pair-Id=K",
        "https://s3.example/f?X-Amz-Credential=c&X-Amz-Signature=s3cretValue",
        "postgresql://router:s3cretValue@db/router",
        {"headers": [{"authorization": "s3cretValue"}]},
        {"X-Xet-Access-Token": "s3cretValue"},
        ValueError("GET https://cdn.example/f?sig=s3cretValue failed"),
    ],
)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_in_fields_are_hidden(value: object, log_format: str) -> None:
    written = Written(log_format)

    logs.get_logger("agent").info("got an answer", value=value)

    assert logs.MASK in written.text
    assert "s3cretValue" not in written.text
    assert TOKEN[4:] not in written.text


@pytest.mark.parametrize("key", ["token", "hf_token", "authorization", "password", "api_key"])
def test_a_field_named_like_a_secret_is_hidden(key: str) -> None:
    written = Written()

    logs.get_logger("agent").info("settings", **{key: "s3cretValue"})

    assert written.line[key] == logs.MASK


def test_harmless_text_stays_readable() -> None:
    written = Written()
    url = "http://hub/api/models?search=hf_hub_download&limit=5"

    logs.get_logger("agent").info("asked", url=url, page_token="p2", tokens=3, token=None)

    assert written.line["url"] == url
    assert written.line["page_token"] == "p2"
    assert written.line["tokens"] == 3
    assert written.line["token"] is None


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_is_logged_without_its_secrets(log_format: str) -> None:
    written = Written(log_format)

    try:
        raise RuntimeError(f"cannot use {TOKEN}")
    except RuntimeError:
        logs.get_logger("agent").exception("unexpected")

    assert "RuntimeError: cannot use hf_***" in written.text
    assert TOKEN not in written.text
