"""The real `llm-router-hub` in this process, made to misbehave on request.

    with FaultyHub(folder) as hub:
        hub.script("*.gguf", None, ResetAfter(1000))   # the second GET breaks after 1,000 bytes
        ...
        assert hub.bytes_served("model.gguf") == size

Everything that is not scripted is the product's own behaviour.
"""

import asyncio
import concurrent.futures
import gzip
import random
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import unquote

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from router.hosting.app import Hub, HubOptions
from router.hosting.errors import repository_not_found
from router.hosting.listing import Standing
from router.http_server import Server, listen
from router.protocol.errors import HubError

TRANSPORT = "tests.transport"  # where a request's scope holds its connection
SEND_BUFFER = 64 * 1024  # small, so that the bytes counted are close to those that arrived


def make_repo(
    folder: Path, repo: str, files: Mapping[str, bytes | int], seed: int = 0
) -> dict[str, bytes]:
    """Writes `folder/owner/repo/…files` and returns every file's content.

    A number asks for so many random bytes; the same seed, repository and name give the same ones.
    """
    contents = {}
    for name, wanted in files.items():
        noise = random.Random(f"{seed}/{repo}/{name}")
        contents[name] = noise.randbytes(wanted) if isinstance(wanted, int) else wanted
        path = folder / repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])
    return contents


@dataclass(slots=True)
class Recorded:
    """A request as it came in, and what was answered so far; in the list from its beginning."""

    method: str
    path: str  # decoded, without the query
    query: str
    range: str | None
    authorization: str | None
    origin: str  # "hub", or "cdn" for the second origin
    status: int = 0
    bytes_sent: int = 0  # of the body
    ended: bool = False


class Fault(Protocol):
    """Answers one request in place of the application, usually by way of it."""

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as an ASGI application does."""


@dataclass(frozen=True)
class Answer:
    """An answer in place of the real one: an error, an HTML page, garbage."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers without asking the application."""
        given = {"content-length": str(len(self.body)), **self.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in given.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body})


def rate_limited(seconds: int) -> Answer:
    """429 as the Hub words it: both its own `RateLimit` header and `Retry-After`."""
    headers = {"Retry-After": str(seconds), "RateLimit": f'"api";r=0;t={seconds}'}
    return Answer(429, b'{"error":"rate limit reached"}', headers)


def html_page() -> Answer:
    """What a captive portal or a broken proxy answers."""
    return Answer(200, b"<html><body>Log in</body></html>", {"content-type": "text/html"})


def garbage_json() -> Answer:
    """Claims to be JSON and is not."""
    return Answer(200, b'{"id": ', {"content-type": "application/json"})


@dataclass(frozen=True)
class ResetAfter:
    """The connection is reset (RST) after so many bytes of the body."""

    count: int

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the first bytes on, then resets."""

        async def cut() -> None:
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # drained
            transport: asyncio.Transport = scope[TRANSPORT]
            endpoint = transport.get_extra_info("socket")
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

        await app(scope, receive, _Limited(send, self.count, cut))


@dataclass(frozen=True)
class TruncateAfter:
    """The connection is closed in good order after so many bytes: too few for Content-Length."""

    count: int

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the first bytes on, then closes."""

        async def cut() -> None:
            transport: asyncio.Transport = scope[TRANSPORT]
            transport.close()

        await app(scope, receive, _Limited(send, self.count, cut))


class StallAfter:
    """After so many bytes nothing comes until `release()`, with the connection open.

    `reached` is set when the first request stalls.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.reached = threading.Event()
        self._released: concurrent.futures.Future[None] = concurrent.futures.Future()

    def release(self) -> None:
        """Lets the bytes flow; the hub does so when it stops."""
        if not self._released.done():
            self._released.set_result(None)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on, with a pause."""
        sent = 0

        async def pause(message: Message) -> None:
            nonlocal sent
            body = message.get("body", b"")
            left = self.count - sent
            sent += len(body)
            if message["type"] != "http.response.body" or left < 0 or len(body) < left:
                await send(message)
                return
            await send({**message, "body": body[:left], "more_body": True})
            self.reached.set()
            await asyncio.shield(asyncio.wrap_future(self._released))
            await send({**message, "body": body[left:]})

        await app(scope, receive, pause)


@dataclass(frozen=True)
class ExtraBytes:
    """The body is longer than it should be, and `Content-Length` says so."""

    count: int

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds zeros at the end."""

        async def lengthen(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                headers["content-length"] = str(int(headers["content-length"]) + self.count)
                message = {**message, "headers": headers.raw}
            elif not message.get("more_body", False):
                message = {**message, "body": message.get("body", b"") + bytes(self.count)}
            await send(message)

        await app(scope, receive, lengthen)


@dataclass(frozen=True)
class IgnoreRange:
    """Answers 200 and the whole file to a request for a part."""

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Hides the range from the application."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await app(dict(scope) | {"headers": headers}, receive, send)


@dataclass(frozen=True)
class ReplaceHeaders:
    """Other headers than the real ones, everything else unchanged; "" removes one."""

    headers: Mapping[str, str]

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Replaces them in the answer's start."""

        async def replace(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in self.headers.items():
                    headers[name] = value
                    if not value:
                        del headers[name]
                message = {**message, "headers": headers.raw}
            await send(message)

        await app(scope, receive, replace)


def wrong_content_range(value: str = "bytes 0-0/1") -> ReplaceHeaders:
    """A part that claims to be another one."""
    return ReplaceHeaders({"Content-Range": value})


def changed_etag(etag: str = "0" * 64) -> ReplaceHeaders:
    """The file seems to have been replaced meanwhile."""
    return ReplaceHeaders({"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'})


@dataclass(frozen=True)
class FlipBits:
    """One wrong byte, at this offset of the answer's body."""

    offset: int = 0

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Inverts the byte as it passes."""
        position = 0

        async def flip(message: Message) -> None:
            nonlocal position
            body = bytearray(message.get("body", b""))
            at = self.offset - position
            if message["type"] == "http.response.body" and 0 <= at < len(body):
                body[at] ^= 0xFF
                message = {**message, "body": bytes(body)}
            position += len(body)
            await send(message)

        await app(scope, receive, flip)


@dataclass(frozen=True)
class Gzipped:
    """The body is compressed although nobody asked for it."""

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Collects the answer, then sends it compressed."""
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            body.extend(message.get("body", b""))

        await app(scope, receive, collect)
        packed = gzip.compress(bytes(body))
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["content-encoding"] = "gzip"
        headers["content-length"] = str(len(packed))
        await send({**start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": packed})


@dataclass(frozen=True)
class Delay:
    """The answer begins so many seconds late."""

    seconds: float

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Waits, then answers."""
        await asyncio.sleep(self.seconds)
        await app(scope, receive, send)


class FaultyHub:
    """A running hub at `url`; enter it, script it, read `requests`. Its methods are thread-safe.

    `signed_urls` redirects downloads as the real Hub does, with `second_origin` to another port
    (`cdn_url`). `delay` seconds pass before every answer. `connection_rate` bounds the bytes/s of
    each connection, `max_rate` those of all downloads together. `digest_wait` is the product's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        signed_urls: bool = False,
        second_origin: bool = False,
        url_lifetime: float = 3600.0,
        max_rate: int = 0,
        digest_wait: float = 8.0,
        connection_rate: int = 0,
        delay: float = 0.0,
    ) -> None:
        self.url = ""
        self.cdn_url = ""
        self.connection_rate = connection_rate
        self.delay = delay
        self._folder = folder
        self._options = HubOptions(
            signed_urls=signed_urls or second_origin,
            url_lifetime=url_lifetime,
            max_rate=max_rate,
            digest_wait=digest_wait,
            clock=lambda: time.time() + self._clock_skew,
        )
        self._second_origin = second_origin
        self._clock_skew = 0.0
        self._records: list[Recorded] = []
        self._scripts: list[_Script] = []
        self._gated: dict[str, str] = {}
        self._private: dict[str, str] = {}
        self._standing: dict[str, Standing] = {}
        self._ports = {"hub": 0, "cdn": 0}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._transports: set[asyncio.Transport] = set()

    # --- running ---

    def __enter__(self) -> Self:
        """Starts serving."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops serving."""
        self.stop()

    def start(self) -> None:
        """Serves again after `stop`, at the same address."""
        listeners = {"hub": listen("127.0.0.1", self._ports["hub"])}
        if self._second_origin:
            listeners["cdn"] = listen("127.0.0.1", self._ports["cdn"])
        for origin, listener in listeners.items():
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self._ports[origin] = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._ports['hub']}"
        self.cdn_url = f"http://127.0.0.1:{self._ports['cdn']}" if self._second_origin else self.url
        serving: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(listeners, serving), daemon=True)
        self._thread.start()
        serving.result(timeout=30)

    def stop(self) -> None:
        """Closes every connection at once and frees the address; the hub is down."""
        for script in self._scripts:
            for fault in script.faults:
                if isinstance(fault, StallAfter):
                    fault.release()
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=30)
            self._thread = None

    def _run(
        self, listeners: dict[str, socket.socket], serving: concurrent.futures.Future[None]
    ) -> None:
        try:
            asyncio.run(self._serve(listeners, serving))
        except BaseException as error:
            if not serving.done():
                serving.set_exception(error)
            raise

    async def _serve(
        self, listeners: dict[str, socket.socket], serving: concurrent.futures.Future[None]
    ) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = _ScriptedHub(self._folder, self._options, self).app()
        servers = []
        for origin, listener in listeners.items():
            config = uvicorn.Config(
                _Misbehaving(app, self, origin),
                http=partial(_Connection, opened=self._transports),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                lifespan="on" if origin == "hub" else "off",
                timeout_graceful_shutdown=1,
            )
            servers.append((Server(config), listener))
        running = []
        for server, listener in servers:
            running.append(asyncio.create_task(server.serve(sockets=[listener])))
            await server.serving.wait()
        serving.set_result(None)
        await self._stop.wait()
        for transport in list(self._transports):
            transport.abort()
        # Not by uvicorn's own way, which lets a fifth of a second pass for each test.
        for (server, listener), task in zip(servers, running, strict=True):
            task.cancel()
            for accepting in server.servers:
                accepting.close()
            listener.close()
            await server.lifespan.shutdown()
        await asyncio.gather(*running, return_exceptions=True)

    # --- scripting ---

    def script(self, pattern: str, *faults: Fault | None, method: str = "GET") -> None:
        """The nth request of this method whose path matches gets the nth fault, None is none.

        After the last one everything is in order again. `pattern` is a shell pattern for the
        decoded path without its query. Scripts are asked in order; a request uses up one step of
        the first script that has any left for it.
        """
        self._scripts.append(_Script(pattern, method, list(faults), repeat=False))

    def always(self, pattern: str, fault: Fault, method: str = "GET") -> None:
        """Every request of this method whose path matches gets the fault, until `heal`."""
        self._scripts.append(_Script(pattern, method, [fault], repeat=True))

    def heal(self) -> None:
        """Forgets all scripts; stalled answers stay stalled until they are released."""
        self._scripts = []

    def gate(self, repo: str, token: str) -> None:
        """Only this token may read the repository's files; others get 403 `GatedRepo`."""
        self._gated[repo] = token

    def hide(self, repo: str, token: str) -> None:
        """The repository is private: without this token it does not exist."""
        self._private[repo] = token

    def set_standing(self, repo: str, downloads: int, likes: int = 0) -> None:
        """What the listing says about the repository."""
        self._standing[repo] = Standing(downloads, likes)

    def expire_signed_urls(self) -> None:
        """Every signed address given so far answers 403; new ones work."""
        self._clock_skew += self._options.url_lifetime + 1

    # --- observing ---

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, in the order they came in."""
        return list(self._records)

    def requests_for(self, path_suffix: str, method: str | None = None) -> list[Recorded]:
        """The requests whose path ends like this."""
        return [
            record
            for record in self.requests
            if record.path.endswith(path_suffix) and method in (None, record.method)
        ]

    def bytes_served(self, path_suffix: str = "") -> int:
        """Bytes of bodies sent for paths that end like this.

        A signed address ends with the file's SHA-256, every other one with its name. Of an answer
        that was broken off, up to some 100 KB may be counted that never arrived.
        """
        return sum(record.bytes_sent for record in self.requests_for(path_suffix))

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The scripted fault of a request that just came in."""
        for script in self._scripts:
            if script.faults and method == script.method and fnmatchcase(path, script.pattern):
                return script.faults[0] if script.repeat else script.faults.pop(0)
        return None

    def record(self, record: Recorded) -> None:
        """Notes a request that just came in."""
        self._records.append(record)

    def refuse_strangers(self, request: Request, repo: str) -> None:
        """Raises what the Hub answers to a caller without the repository's token."""
        bearer = request.headers.get("authorization", "")
        if repo in self._private and bearer != f"Bearer {self._private[repo]}":
            raise repository_not_found(repo)
        is_file = request.url.path.startswith(f"/{repo}/") or request.url.path.endswith(
            "auth-check"
        )
        if is_file and repo in self._gated and bearer != f"Bearer {self._gated[repo]}":
            raise HubError(403, "GatedRepo", f"access to model {repo} is restricted")

    def standing_of(self, repo: str) -> Standing | None:
        """What `set_standing` and `gate` said."""
        standing = self._standing.get(repo)
        if repo in self._gated:
            return replace(standing or Standing(), gated="manual")
        return standing


@dataclass
class _Script:
    pattern: str
    method: str
    faults: list[Fault | None]
    repeat: bool


class _ScriptedHub(Hub):
    """The product's hub with accounts, numbers and a second origin for signed addresses."""

    def __init__(self, folder: Path, options: HubOptions, faulty: FaultyHub) -> None:
        super().__init__(folder, options)
        self._faulty = faulty

    def access(self, request: Request, repo: str) -> None:
        self._faulty.refuse_strangers(request, repo)

    def standing(self, repo: str) -> Standing:
        return self._faulty.standing_of(repo) or super().standing(repo)

    def download_origin(self, request: Request) -> str:
        return self._faulty.cdn_url


class _Connection(H11Protocol):
    """Shows each request its connection, so that a fault can break it."""

    def __init__(self, *arguments: Any, opened: set[asyncio.Transport], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opened = opened
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, TRANSPORT: self.transport}, receive, send)

        self.app = with_transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)
        self._opened.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self.transport)
        super().connection_lost(exc)


class _Misbehaving:
    """The outermost application: records, slows down, applies the scripts."""

    def __init__(self, app: ASGIApp, hub: FaultyHub, origin: str) -> None:
        self._app = app
        self._hub = hub
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = unquote(scope["raw_path"].decode("latin-1"))
        record = Recorded(
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            range=headers.get("range"),
            authorization=headers.get("authorization"),
            origin=self._origin,
        )
        self._hub.record(record)
        fault = self._hub.fault_for(record.method, path)
        if self._hub.delay:
            await asyncio.sleep(self._hub.delay)
        counted = _Counted(send, record, scope[TRANSPORT])
        outer: Send = counted
        if self._hub.connection_rate:
            outer = _Slowed(counted, self._hub.connection_rate)
        try:
            if fault is None:
                await self._app(scope, receive, outer)
            else:
                await fault.answer(self._app, scope, receive, outer)
        finally:
            record.ended = True


class _Counted:
    def __init__(self, send: Send, record: Recorded, transport: asyncio.Transport) -> None:
        self._send = send
        self._record = record
        self._transport = transport

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
        elif not self._transport.is_closing() and self._record.method != "HEAD":
            self._record.bytes_sent += len(message.get("body", b""))
        await self._send(message)


class _Slowed:
    """Sends in small steps, each as late as the rate demands."""

    def __init__(self, send: Send, rate: int) -> None:
        self._send = send
        self._rate = rate
        self._due = time.monotonic()

    async def __call__(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body, step = message.get("body", b""), max(1, self._rate // 50)
        more = message.get("more_body", False)
        for start in range(0, max(1, len(body)), step):
            part = body[start : start + step]
            self._due = max(self._due, time.monotonic() - 0.05) + len(part) / self._rate
            await asyncio.sleep(max(0.0, self._due - time.monotonic()))
            last = start + step >= len(body)
            await self._send({**message, "body": part, "more_body": more or not last})


class _Limited:
    """Passes `count` bytes of the body on, then cuts; what follows is swallowed."""

    def __init__(self, send: Send, count: int, cut: Any) -> None:
        self._send = send
        self._left = count
        self._cut = cut
        self._is_cut = False

    async def __call__(self, message: Message) -> None:
        if self._is_cut:
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        await self._send({**message, "body": body, "more_body": True})
        if self._left == 0 or not message.get("more_body", False):
            self._is_cut = True
            await self._cut()
