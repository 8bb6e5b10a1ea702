"""Decides what a request gets: a part of a file by its digest, or a refusal."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.peers.request import Refusal, Request, read_range
from agent.store import Readable
from protos import tickets

_PATH = re.compile(r"/blobs/([0-9a-f]{64})")
_WAIT = "wait=1"


class Contents(Protocol):
    """Where contents are found by digest."""

    def find(self, sha256: str) -> Readable | None:
        """A content that is here or coming; whoever asked closes it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes [start, end) of a file, which whoever sends them closes.

    Bytes that are not there yet are waited for if `follows`; otherwise all of them are there.
    """

    sha256: str
    readable: Readable
    start: int
    end: int
    is_part: bool
    follows: bool


class Desk:
    """Answers requests. Safe for several threads."""

    def __init__(
        self,
        contents: Contents,
        key: Callable[[], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` is what tickets are signed with, empty until it is known; `clock` is in seconds
        since the epoch.
        """
        self._contents = contents
        self._key = key
        self._clock = clock

    def answer(self, request: Request) -> Answer:
        """What a request gets. Raises `Refusal`.

        Nothing is said about contents to whoever has no ticket, and the path that was asked for
        never becomes one on this machine.
        """
        match = _PATH.fullmatch(request.path)
        if match is None:
            raise Refusal(404, "not_found", "this node serves /blobs/<sha256> only")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(
                405, "method_not_allowed", "contents are only read", {"Allow": "GET, HEAD"}
            )
        if request.has_body:
            raise Refusal(400, "bad_request", "a request without a body is expected")
        sha256 = match[1]
        waits, ticket = _split(request.query)
        self._check(sha256, request.fields.get("authorization", ""), ticket)
        readable = self._contents.find(sha256)
        if readable is None:
            raise Refusal(404, "blob_not_found", f"this node does not hold {sha256}")
        try:
            return _part(sha256, readable, request, waits=waits)
        except Refusal:
            readable.close()
            raise

    def _check(self, sha256: str, field: str, query: str) -> None:
        key = self._key()
        if not key:
            raise Refusal(
                503,
                "key_unknown",
                "this node has not heard from its router since it started; try again soon",
                {"Retry-After": "1"},
            )
        if not tickets.is_valid(key, sha256, field=field, query=query, now=self._clock()):
            raise Refusal(
                401,
                "invalid_ticket",
                "no ticket of this fleet for this file that counts now; check that the clocks of "
                "both machines agree",
                {"WWW-Authenticate": "Ticket"},
            )


def _part(sha256: str, readable: Readable, request: Request, *, waits: bool) -> Answer:
    size = readable.size
    asked = request.fields.get("range")
    if request.fields.get("if-range", etag(sha256)) != etag(sha256):
        asked = None
    span = read_range(asked, size)
    start, end = span or (0, size)
    is_there = readable.covers(start, end)
    if not is_there and not waits:
        raise Refusal(
            409,
            "span_missing",
            f"the bytes {start}-{end - 1} of {sha256} are not here yet; ask for others, or add "
            f"{_WAIT} to the query to be sent them as they come",
            {"Retry-After": "1"},
        )
    return Answer(sha256, readable, start, end, span is not None, not is_there)


def _split(query: str) -> tuple[bool, str]:
    """Whether the query asks to wait, and the rest of it."""
    parts = query.split("&")
    return _WAIT in parts, "&".join(part for part in parts if part != _WAIT)


def etag(sha256: str) -> str:
    """The name of a content for HTTP caches."""
    return f'"{sha256}"'
