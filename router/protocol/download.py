"""One file, or a part of it, as an HTTP answer (RFC 9110: ranges and conditions)."""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from email.utils import formatdate

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.protocol.files import FileChanged, ServedFile

CHUNK_BYTES = 256 * 1024
_SAVED_SECONDS = 0.05
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Unsatisfiable(Exception):
    """The range begins behind the end of the file."""


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last of a single range; None: send the whole file.

    Several ranges and malformed ones are ignored, which RFC 9110 §14.2 allows. Raises
    `Unsatisfiable`.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        if int(last) == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return int(first), min(size, int(last) + 1) if last else size


class RateLimit:
    """At most so many bytes a second for all downloads together, first come, first served."""

    def __init__(self, bytes_per_second: int, clock: Callable[[], float]) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._paid_until = clock()

    @property
    def chunk_bytes(self) -> int:
        """How much to ask for at a time, so that many downloads flow evenly."""
        return max(4096, min(CHUNK_BYTES, self._rate // 50))

    def delay(self, count: int) -> float:
        """Seconds to wait before `count` more bytes may be sent; they are accounted for at once.

        Unused time is saved up for 1/20 s at most.
        """
        now = self._clock()
        self._paid_until = max(self._paid_until, now - _SAVED_SECONDS) + count / self._rate
        return max(0.0, self._paid_until - now)


@dataclass(frozen=True)
class Served:
    """What is sent: the file, its ETag without quotes, and headers that every answer carries."""

    file: ServedFile
    etag: str
    headers: dict[str, str]


class Download(Response):
    """Streams the file with bounded memory: one chunk a connection, read outside the event loop."""

    def __init__(
        self, served: Served, request: Request, reader: Executor, limit: RateLimit | None
    ) -> None:
        self.background = None
        self.body = b""
        self._file = served.file
        self._reader = reader
        self._limit = limit
        self._start, self._end = 0, served.file.size
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{served.etag}"',
            "Last-Modified": formatdate(served.file.mtime_ns / 1e9, usegmt=True),
            **served.headers,
        }
        if _matches(request.headers.get("if-none-match"), served.etag):
            self.status_code = 304
            self._end = 0
        else:
            self.status_code = self._apply_range(request, headers)
            headers["Content-Length"] = str(self._end - self._start)
            headers["Content-Type"] = "application/octet-stream"
        self.init_headers(headers)

    def _apply_range(self, request: Request, headers: dict[str, str]) -> int:
        condition = request.headers.get("if-range")
        if request.method == "HEAD":  # RFC 9110 §14.2 defines ranges for GET alone
            return 200
        if condition is not None and condition not in (headers["ETag"], headers["Last-Modified"]):
            return 200
        try:
            wanted = byte_range(request.headers.get("range"), self._file.size)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{self._file.size}"
            self._start = self._end = 0
            return 416
        if wanted is None:
            return 200
        self._start, self._end = wanted
        headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{self._file.size}"
        return 206

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer; ends early when the client leaves. Raises `FileChanged`, `OSError`."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        if scope["method"] == "HEAD" or self._start >= self._end:
            await send(start)
            await send({"type": "http.response.body"})
            return
        loop = asyncio.get_running_loop()
        descriptor = await loop.run_in_executor(self._reader, self._open)
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send(start)
            await self._send_content(descriptor, send, gone)
        except asyncio.CancelledError:
            pass  # the server stops and has waited long enough; it closes the connection
        finally:
            gone.cancel()
            os.close(descriptor)

    def _open(self) -> int:
        try:
            descriptor = os.open(self._file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise FileChanged(self._file.name) from error
        now = os.fstat(descriptor)
        if not self._file.is_still(now.st_size, now.st_mtime_ns, now.st_ino):
            os.close(descriptor)
            raise FileChanged(self._file.name)
        return descriptor

    async def _send_content(self, descriptor: int, send: Send, gone: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        step = CHUNK_BYTES if self._limit is None else self._limit.chunk_bytes
        position = self._start
        while position < self._end and not gone.done():
            wanted = min(step, self._end - position)
            if self._limit is not None:
                await asyncio.sleep(self._limit.delay(wanted))
            chunk = await loop.run_in_executor(self._reader, os.pread, descriptor, wanted, position)
            if not chunk:
                raise FileChanged(self._file.name)  # cut short meanwhile: the connection breaks
            position += len(chunk)
            more = position < self._end
            await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{etag}"' in tags
