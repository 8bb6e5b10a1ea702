"""A file behind an http(s) address: the Hub, its storage behind redirects, another node.

The Hub's own conventions (`X-Linked-Size`, `X-Linked-Etag`, `X-Error-Code`) are those that
huggingface_hub 2.x reads.
"""

import email.utils
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.store import Origin
from agent.transfer.errors import TransferError
from agent.transfer.http import (
    BadUrl,
    Connection,
    Head,
    HttpClient,
    HttpError,
    Url,
    describe,
    parse_url,
)
from agent.transfer.interrupt import Interrupt
from agent.transfer.source import Cause, RangesIgnored, Source, SourceFailure, SourceUrl

_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_EXPIRED = (401, 403, 404, 410)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GIT_OBJECT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
_EXPIRY_MARGIN_SECONDS = 5.0
_MAX_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Place:
    """An address that is good for many pieces; `settled` when redirects led to it."""

    url: Url
    fields: Mapping[str, str] = field(repr=False)
    settled: bool
    expires_at: float | None


class HttpSource:
    """Ranges of one file by HTTP; safe for several threads.

    The address behind redirects is kept for all pieces until it is refused or expires; then the
    first address is asked again, then `resolve`. When a server answers a ranged request with the
    whole file, `supports_ranges` turns false, and ranges are cut out of whole answers.
    """

    def __init__(
        self,
        client: HttpClient,
        resolve: Callable[[], SourceUrl],
        *,
        size: int,
        sha256: str | None,
        origin: Origin = Origin.HUB,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._resolve = resolve
        self._size = size
        self._sha256 = sha256
        self._origin = origin
        self._now = now
        self._lock = threading.Lock()
        self._resolving = threading.Lock()
        self._first: _Place | None = None
        self._settled: _Place | None = None
        self._etags: dict[tuple[str, str], str] = {}
        self._git_object_id: str | None = None
        self._seen_ranges = False
        self._ranges = True

    @property
    def origin(self) -> Origin:
        """The kind of source."""
        return self._origin

    @property
    def name(self) -> str:
        """Who is asked, as a message names it."""
        if self._origin is Origin.HUB:
            return "the Hub"
        place = self._first
        return "the source" if place is None else place.url.authority

    @property
    def supports_ranges(self) -> bool:
        """False once the server has answered a ranged request with the whole file."""
        return self._ranges

    @property
    def git_object_id(self) -> str | None:
        """The id of a file that the Hub keeps in git, when its `ETag` told it."""
        return self._git_object_id

    def open(self, offset: int, length: int, interrupt: Interrupt) -> "HttpRead":
        """Asks for a range; see `Source.open`."""
        for may_renew in (True, True, False):
            place = self._where()
            ranged = self._ranges
            wanted = range_fields(offset, length) if ranged else {}
            url, connection, head = self._request(place, wanted, interrupt)
            if may_renew and head.status in _EXPIRED:
                self._dispose(url, connection, head)
                self._renew(place)
                continue
            try:
                skip = self._check(url, head, offset, length, ranged=ranged)
            except BaseException:
                self._dispose(url, connection, head)
                raise
            kind = PipedHttpRead if connection.is_plain and not skip else HttpRead
            return kind(self, self._client, url, connection, head, skip, length, interrupt)
        raise AssertionError("the last round answers")

    def _where(self) -> _Place:
        """The address to ask now; one thread at a time resolves it, the others wait."""
        with self._resolving:
            place = self._settled or self._first
            if place is not None and not self._has_expired(place):
                return place
            if place is not None and place.settled and self._first is not None:
                self._settled = None
                if not self._has_expired(self._first):
                    return self._first
            try:
                found = self._resolve()
                url = parse_url(found.url)
            except TransferError as error:
                if not error.retryable:
                    raise
                raise SourceFailure(Cause.RESOLVING, error.message) from error
            except BadUrl as error:
                raise SourceFailure(Cause.REJECTED, f"{self.name}: {error}") from error
            self._settled = None
            self._first = _Place(url, found.headers, False, found.expires_at)
            return self._first

    def _has_expired(self, place: _Place) -> bool:
        margin = self._now() + _EXPIRY_MARGIN_SECONDS
        return place.expires_at is not None and place.expires_at <= margin

    def _renew(self, refused: _Place) -> None:
        """Forgets an address that was refused, unless somebody has done so already."""
        with self._resolving:
            if refused is self._settled:
                self._settled = None
            elif refused is self._first:
                self._settled = None
                self._first = None

    def _request(
        self, place: _Place, wanted: Mapping[str, str], interrupt: Interrupt
    ) -> tuple[Url, Connection, Head]:
        """Sends the request and follows redirects; credentials stay with their origin."""
        url, fields = place.url, place.fields
        for _ in range(_MAX_REDIRECTS + 1):
            connection, head = self._exchange(url, {**wanted, **fields}, interrupt)
            if head.status not in _REDIRECTS:
                if url is not place.url and head.status in (200, 206):
                    with self._resolving:
                        if place is self._first:
                            self._settled = _Place(url, fields, True, None)
                return url, connection, head
            self._dispose(url, connection, head)
            self._check_linked(head)
            try:
                target = url.join(head.fields.get("location", ""))
            except BadUrl as error:
                raise SourceFailure(
                    Cause.MISBEHAVED, f"{self.name} redirects to something that is {error}"
                ) from error
            fields = fields if target.origin == url.origin else {}
            url = target
        raise SourceFailure(Cause.MISBEHAVED, f"{self.name} redirects in a circle")

    def _exchange(
        self, url: Url, fields: Mapping[str, str], interrupt: Interrupt
    ) -> tuple[Connection, Head]:
        fresh = False
        while True:
            try:
                connection = self._client.connect(url, interrupt, fresh=fresh)
            except (OSError, BadUrl) as error:
                interrupt.check()
                what = describe(error) if isinstance(error, OSError) else str(error)
                untrusted = isinstance(error, ssl.SSLCertVerificationError)
                raise SourceFailure(
                    Cause.UNTRUSTED if untrusted else Cause.UNAVAILABLE,
                    f"{self.name} cannot be reached at {url.authority}: {what}",
                ) from error
            try:
                return connection, connection.request("GET", url, fields)
            except OSError as error:
                connection.close()
                interrupt.check()
                if connection.used and not fresh:
                    fresh = True  # it was closed while idle, which is nobody's fault
                    continue
                cause = Cause.MISBEHAVED if isinstance(error, HttpError) else Cause.UNAVAILABLE
                raise SourceFailure(
                    cause, f"{self.name} did not answer ({url.authority}): {describe(error)}"
                ) from error

    def _check(self, url: Url, head: Head, offset: int, length: int, *, ranged: bool) -> int:
        """Judges an answer before a byte of it is believed.

        Returns how many bytes at the start of the body come before the range.
        """
        if head.status not in (200, 206):
            raise self._refusal(head)
        encoding = head.fields.get("content-encoding", "identity")
        if encoding.lower() not in ("", "identity"):
            raise SourceFailure(
                Cause.MISBEHAVED, f"{self.name} sent the file with the encoding {encoding[:40]}"
            )
        if "transfer-encoding" in head.fields and head.status == 206:
            raise SourceFailure(
                Cause.MISBEHAVED, f"{self.name} sent a range without telling its length"
            )
        self._check_linked(head)
        if head.status == 206:
            self._check_range(head, offset, length)
            self._check_etag(url, head)
            self._seen_ranges = True
            return 0
        self._check_whole(head)
        self._check_etag(url, head)
        if ranged and length < self._size:
            if self._seen_ranges:
                raise SourceFailure(
                    Cause.NO_RANGES, f"{self.name} answered a ranged request with the whole file"
                )
            self._ranges = False
            raise RangesIgnored(f"{self.name} does not serve ranges")
        return offset

    def _check_range(self, head: Head, offset: int, length: int) -> None:
        text = head.fields.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            raise SourceFailure(Cause.MISBEHAVED, f"{self.name} sent a range without its place")
        first, last, total = match.groups()
        if total != "*" and int(total) != self._size:
            raise SourceFailure(
                Cause.WRONG_SIZE, f"{self.name} has a file of {total} bytes, not of {self._size}"
            )
        if (int(first), int(last)) != (offset, offset + length - 1):
            raise SourceFailure(
                Cause.MISBEHAVED,
                f"{self.name} sent bytes {first}-{last} instead of {offset}-{offset + length - 1}",
            )
        if head.length not in (None, length):
            raise SourceFailure(
                Cause.MISBEHAVED,
                f"{self.name} announced {head.length} bytes for a range of {length}",
            )

    def _check_whole(self, head: Head) -> None:
        if head.length is None or "transfer-encoding" in head.fields:
            raise SourceFailure(
                Cause.NO_RANGES,
                f"{self.name} serves no ranges and does not tell the length of the file",
            )
        if head.length != self._size:
            if head.fields.get("content-type", "").lower().startswith("text/html"):
                raise SourceFailure(
                    Cause.REJECTED, f"{self.name} sent a web page instead of the file"
                )
            raise SourceFailure(
                Cause.WRONG_SIZE,
                f"{self.name} has a file of {head.length} bytes, not of {self._size}",
            )

    def _check_etag(self, url: Url, head: Head) -> None:
        etag = head.fields.get("etag", "")
        if not etag or etag.startswith("W/"):
            return
        tag = etag.strip('"')
        with self._lock:
            before = self._etags.setdefault((url.authority, url.target.partition("?")[0]), tag)
            if "x-repo-commit" in head.fields and _GIT_OBJECT.fullmatch(tag):
                self._git_object_id = tag
        if before != tag:
            raise SourceFailure(
                Cause.CHANGED, f"{self.name} has another version of the file than before"
            )

    def _check_linked(self, head: Head) -> None:
        """Compares what the Hub says about a large file with what is registered."""
        size = head.fields.get("x-linked-size", "")
        if size.isascii() and size.isdecimal() and int(size) != self._size:
            raise SourceFailure(
                Cause.WRONG_SIZE, f"{self.name} has a file of {size} bytes, not of {self._size}"
            )
        tag = head.fields.get("x-linked-etag", "").strip('"')
        if self._sha256 is not None and _SHA256.fullmatch(tag) and tag != self._sha256:
            raise SourceFailure(
                Cause.CHANGED, f"{self.name} has another file than the registered one"
            )

    def _refusal(self, head: Head) -> SourceFailure:
        status = head.status
        if status == 429 or (status == 503 and "retry-after" in head.fields):
            return SourceFailure(
                Cause.LIMITED, f"{self.name} limits requests", self._wished_wait(head)
            )
        if status in (401, 403):
            if head.fields.get("x-error-code") == "GatedRepo":
                return SourceFailure(
                    Cause.GATED,
                    f"{self.name} gives this file only to accounts that were granted access"
                    + self._remedy(),
                )
            return SourceFailure(
                Cause.REJECTED, f"{self.name} refuses access ({status}){self._remedy()}"
            )
        if status in (408, 425) or status >= 500:
            return SourceFailure(
                Cause.UNAVAILABLE, f"{self.name} has an error ({status})", self._wished_wait(head)
            )
        if status == 416:
            total = head.fields.get("content-range", "").rpartition("/")[2]
            cause = Cause.MISBEHAVED if total == str(self._size) else Cause.WRONG_SIZE
            return SourceFailure(
                cause, f"{self.name} has no such range: its file is not of {self._size} bytes"
            )
        if status in (404, 410):
            return SourceFailure(
                Cause.REJECTED,
                f"{self.name} does not have the file ({status})"
                + (", or hides it from this agent" if self._origin is Origin.HUB else ""),
            )
        return SourceFailure(Cause.REJECTED, f"{self.name} refuses the request ({status})")

    def _remedy(self) -> str:
        """What to do where even the address that the router found out is refused."""
        if self._origin is not Origin.HUB:
            return ""
        return (
            ", also at the address that the router gave: set HF_TOKEN on this agent to a token "
            "with access (and HF_ENDPOINT where the Hub is not huggingface.co), "
            "or check the one that is set"
        )

    def _wished_wait(self, head: Head) -> float | None:
        """Seconds from `Retry-After` (RFC 9110, 10.2.3) or the Hub's `RateLimit` (its `t=`)."""
        text = head.fields.get("retry-after", "")
        wait: float | None = None
        if text.isascii() and text.isdecimal():
            wait = float(text)
        elif text:
            when = email.utils.parsedate_tz(text)
            wait = None if when is None else email.utils.mktime_tz(when) - self._now()
        else:
            match = re.search(r"\bt=(\d{1,6})\b", head.fields.get("ratelimit", ""))
            wait = None if match is None else float(match[1])
        return None if wait is None else min(max(wait, 0.0), _MAX_WAIT_SECONDS)

    def _dispose(self, url: Url, connection: Connection, head: Head) -> None:
        """Keeps a connection whose answer is short; closes it otherwise."""
        try:
            drained = head.status not in (200, 206) and connection.drain(head)
        except OSError:
            drained = False
        if drained:
            self._client.give_back(url, connection)
        else:
            connection.close()


class HttpRead:
    """The body of one answer, from `skip` bytes after its start."""

    def __init__(
        self,
        source: Source,
        client: HttpClient,
        url: Url,
        connection: Connection,
        head: Head,
        skip: int,
        length: int,
        interrupt: Interrupt,
    ) -> None:
        self._source = source
        self._client = client
        self._url = url
        self._connection = connection
        self._reusable = head.keeps_alive and head.status == 206 and head.length is not None
        self._skip = skip
        self._left = length
        self._interrupt = interrupt

    def read_into(self, buffer: memoryview) -> int:
        """See `RangedRead`."""
        read = self._connection.read_into
        while self._skip:
            self._skip -= self._receive(read, buffer[: min(len(buffer), self._skip)])
        count = self._receive(read, buffer[: self._left] if self._left < len(buffer) else buffer)
        self._left -= count
        return count

    def close(self) -> None:
        """Keeps the connection for the next range if this one was read to its end."""
        self._interrupt.detach()
        whole = self._left == 0 and self._reusable and self._connection.is_clean
        if whole and self._interrupt.reason is None:
            self._client.give_back(self._url, self._connection)
        else:
            self._connection.close()

    def _receive(self, read: Callable[..., int], *into: object) -> int:
        try:
            count = read(*into)
        except OSError as error:
            self._interrupt.check()
            raise SourceFailure(
                Cause.UNAVAILABLE, f"{self._source.name} broke off: {describe(error)}"
            ) from error
        if count == 0:
            self._interrupt.check()
            raise SourceFailure(
                Cause.UNAVAILABLE, f"{self._source.name} closed the connection too early"
            )
        return count


class PipedHttpRead(HttpRead):
    """The body of an answer without TLS, which begins with the range."""

    def read_into_pipe(self, pipe: int, count: int) -> int:
        """See `PipedRead`."""
        count = self._receive(self._connection.read_into_pipe, pipe, min(count, self._left))
        self._left -= count
        return count


def range_fields(offset: int, length: int) -> dict[str, str]:
    """The request field for [offset, offset + length) (RFC 9110, 14.2)."""
    return {"Range": f"bytes={offset}-{offset + length - 1}"}
