"""A small HTTP/1.1 client (RFC 9112) for one purpose: bodies of known length into given buffers.

Blocking sockets, no chunked bodies, no pipelining; every answer is parsed strictly and distrusted.
`docs/adr/0002-blocking-sockets-in-threads.md` says why it exists.
"""

import base64
import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from agent.transfer.interrupt import Interrupt

_MAX_HEAD_BYTES = 64 << 10
_MAX_DRAINED_BYTES = 64 << 10
# Larger plain reads were slower: they fall out of the processor's cache (ADR 2).
_PLAIN_BYTES = 128 << 10
_PIPE_HOLDS_BYTES = 64 << 10  # any pipe, without blocking
_FOLLOWS_MS = 2  # a write for each record would cost more than the record
_IDLE_SECONDS = 20.0
_FIELDS = {"User-Agent": "llm-router-agent", "Accept": "*/*", "Accept-Encoding": "identity"}


class HttpError(OSError):
    """An answer that is not HTTP as we accept it."""


class BadUrl(ValueError):
    """Not an address that bytes can be fetched from."""


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https address, taken apart."""

    text: str
    scheme: str
    host: str
    port: int
    target: str  # path and query, as sent

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must not change for credentials to be sent along (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """The address as a message may show it: signatures are in the query, so it is left out."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"

    @property
    def authority(self) -> str:
        """Host and port as in a `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def join(self, location: str) -> "Url":
        """The address that a `Location` header means here."""
        return parse_url(urljoin(self.text, location))


def parse_url(text: str) -> Url:
    """Reads an address. Raises `BadUrl`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadUrl("not an http or https address")
    if not text.isascii() or any(c <= " " or c == "\x7f" for c in text):
        raise BadUrl("an address has plain printable characters only")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(
        text, parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), target
    )


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy to use for which scheme, and for which hosts none (`no_proxy` patterns)."""

    by_scheme: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> "Proxies":
        """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl and Python read them."""
        return cls(urllib.request.getproxies_environment())

    def for_url(self, url: Url) -> SplitResult | None:
        """The proxy for an address. Raises `BadUrl` for one that we cannot speak to."""
        proxy = self.by_scheme.get(url.scheme) or self.by_scheme.get("all")
        if not proxy or urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
            f"{url.host}:{url.port}", dict(self.by_scheme)
        ):
            return None
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme != "http" or not parts.hostname:
            raise BadUrl(f"the proxy for {url.scheme} is not an http:// address")
        return parts


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of an answer; names are lower-case."""

    status: int
    fields: Mapping[str, str]
    keeps_alive: bool

    @property
    def length(self) -> int | None:
        """Content-Length, if there is one."""
        text = self.fields.get("content-length")
        return None if text is None else int(text)


class ByteStream(Protocol):
    """What a connection needs of a socket."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receives at least one byte; 0 at the end of the stream."""
        ...

    def recv(self, size: int, /) -> bytes:
        """Receives at most so many bytes; empty at the end of the stream."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Sends everything."""
        ...

    def close(self) -> None:
        """Closes at once, sending nothing."""
        ...


class TlsStream:
    """TLS over a connected socket, for one thread.

    `SSLSocket` gives one record (16 KiB at most) a call. Here everything that has come is given in
    one call, up to the size of the buffer (ADR 2). `shutdown` on the socket wakes whoever waits.
    """

    def __init__(
        self,
        raw: socket.socket,
        context: ssl.SSLContext,
        host: str,
        one_decrypts: threading.Lock,
    ) -> None:
        """Shakes hands, within the socket's timeout. Raises `OSError`, also for certificates.

        `one_decrypts` is shared by streams that are used at the same time: each record gives up the
        interpreter's lock and takes it again, and threads that fight for it need a quarter more
        processor time. While one decrypts, the others write what they have.
        """
        self._one_decrypts = one_decrypts
        # `SSLSocket.shutdown` would let a reader see what is not decrypted: `raw` stays for that.
        self._tls = context.wrap_socket(
            raw.dup(), server_hostname=host, do_handshake_on_connect=False
        )
        try:
            self._tls.do_handshake()
            self._tls.setblocking(False)
        except BaseException:
            self._tls.close()
            raise
        self._readable = select.poll()
        self._readable.register(self._tls, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._tls, select.POLLOUT)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Decrypts everything that has come and what follows at once, or waits for a record."""
        return self._receive(buffer, _FOLLOWS_MS)

    def _receive(self, buffer: memoryview, patience_ms: int) -> int:
        filled = 0
        while True:
            with self._one_decrypts:
                count, ended = self._decrypt(buffer[filled:])
            filled += count
            if ended or filled == len(buffer):
                return filled
            if not self._readable.poll(patience_ms if filled else None):
                return filled

    def _decrypt(self, buffer: memoryview) -> tuple[int, bool]:
        """Decrypts what has come: how many bytes, and whether the stream is at its end."""
        filled = 0
        while filled < len(buffer):
            try:
                count = self._tls.recv_into(buffer[filled:])
            except ssl.SSLWantReadError:
                return filled, False
            except OSError:
                if filled:
                    break  # it will be met again
                raise
            if count == 0:
                return filled, True
            filled += count
        return filled, False

    def recv(self, size: int, /) -> bytes:
        """See `ByteStream`."""
        buffer = bytearray(size)
        return bytes(buffer[: self._receive(memoryview(buffer), 0)])

    def sendall(self, data: bytes, /) -> None:
        """See `ByteStream`."""
        while data:
            try:
                data = data[self._tls.send(data) :]
            except ssl.SSLWantWriteError:
                self._writable.poll()
            except ssl.SSLWantReadError:
                self._readable.poll()

    def close(self) -> None:
        """See `ByteStream`."""
        self._tls.close()


class Connection:
    """One connection to an origin, perhaps through a proxy; used by one thread at a time."""

    def __init__(
        self,
        raw: socket.socket,
        stream: ByteStream,
        *,
        absolute: bool,
        proxy_field: str | None,
    ) -> None:
        self.socket = raw
        self._stream = stream
        self.idle_since = 0.0
        self.used = False
        self._absolute = absolute
        self._proxy_field = proxy_field
        self._ahead = memoryview(b"")  # bytes of the body that came with the head

    def request(self, method: str, url: Url, fields: Mapping[str, str]) -> Head:
        """Sends a request without a body and reads the head of the answer. Raises `OSError`."""
        target = url.text.partition("#")[0] if self._absolute else url.target
        lines = [f"{method} {target} HTTP/1.1", f"Host: {url.authority}"]
        if self._proxy_field is not None and self._absolute:
            lines.append(f"Proxy-Authorization: {self._proxy_field}")
        lines += [f"{name}: {value}" for name, value in {**_FIELDS, **fields}.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise HttpError("a header field with a line break")
        self._stream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        while True:
            head = self._read_head()
            if head.status >= 200:
                return head

    def read_into(self, buffer: memoryview) -> int:
        """Receives bytes of the body; 0 when the other side has closed. Raises `OSError`."""
        if self._ahead:
            count = min(len(buffer), len(self._ahead))
            buffer[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            return count
        if self.is_plain:
            buffer = buffer[:_PLAIN_BYTES]
        return self._stream.recv_into(buffer)

    @property
    def is_plain(self) -> bool:
        """Whether what the socket receives is what the other side said."""
        return self._stream is self.socket

    def read_into_pipe(self, pipe: int, count: int) -> int:
        """Like `read_into`, of at most `count` bytes into an empty pipe; only without TLS."""
        if self._ahead:
            written = os.write(pipe, self._ahead[:count])
            self._ahead = self._ahead[written:]
            return written
        try:
            return os.splice(self.socket.fileno(), pipe, count)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
        return os.write(pipe, self.socket.recv(min(count, _PIPE_HOLDS_BYTES)))

    def drain(self, head: Head) -> bool:
        """Reads a short body to its end, so that the connection can be used again."""
        length = head.length
        if length is None or length > _MAX_DRAINED_BYTES or not head.keeps_alive:
            return False
        buffer = memoryview(bytearray(max(1, length)))
        while length:
            count = self.read_into(buffer[:length])
            if count == 0:
                return False
            length -= count
        return not self._ahead

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left over that would be read as the head of the next answer."""
        return not self._ahead

    def close(self) -> None:
        """Closes at once."""
        for end in (self._stream, self.socket):
            with contextlib.suppress(OSError):
                end.close()

    def _read_head(self) -> Head:
        raw = bytearray(self._ahead)
        self._ahead = memoryview(b"")
        while (end := raw.find(b"\r\n\r\n")) < 0:
            if len(raw) > _MAX_HEAD_BYTES:
                raise HttpError("the head of the answer is too long")
            received = self._stream.recv(16 << 10)
            if not received:
                raise ConnectionResetError("the connection was closed before an answer")
            raw += received
        self._ahead = memoryview(bytes(raw[end + 4 :]))
        return parse_head(bytes(raw[:end]))


def parse_head(raw: bytes) -> Head:
    """Reads status line and fields. Raises `HttpError`."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isdecimal() and len(status) == 3):
        raise HttpError("the answer is not HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError("a malformed header field")
        name, value = name.lower(), value.strip()
        if name == "content-length" and not (value.isascii() and value.isdecimal()):
            raise HttpError("a malformed Content-Length")
        if fields.get(name, value) != value and name in ("content-length", "content-range"):
            raise HttpError(f"two different values of {name}")
        fields[name] = value
    connection = fields.get("connection", "").lower()
    keeps_alive = connection == "keep-alive" if version == "HTTP/1.0" else "close" not in connection
    return Head(int(status), fields, keeps_alive)


class HttpClient:
    """Opens connections and keeps idle ones for the next request; safe for several threads."""

    def __init__(
        self, proxies: Proxies, tls: ssl.SSLContext | None, connect_seconds: float
    ) -> None:
        self._proxies = proxies
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._lock = threading.Lock()
        self._one_decrypts = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}

    def connect(self, url: Url, interrupt: Interrupt, *, fresh: bool = False) -> Connection:
        """A connection for one request; an idle one if there is, unless `fresh`.

        Raises `OSError`, `Interrupted`, `BadUrl`.
        """
        while not fresh:
            with self._lock:
                waiting = self._idle.get(url.origin)
                connection = waiting.pop() if waiting else None
            if connection is None:
                break
            if time.monotonic() - connection.idle_since < _IDLE_SECONDS:
                interrupt.attach(connection.socket)
                return connection
            connection.close()
        return self._open(url, interrupt)

    def give_back(self, url: Url, connection: Connection) -> None:
        """Keeps a connection whose last answer was read to its end."""
        connection.used = True
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.setdefault(url.origin, []).append(connection)

    def close(self) -> None:
        """Closes all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _open(self, url: Url, interrupt: Interrupt) -> Connection:
        proxy = self._proxies.for_url(url)
        if proxy is None:
            raw = self._dial(url.host, url.port, interrupt)
        else:
            assert proxy.hostname is not None
            raw = self._dial(proxy.hostname, proxy.port or 80, interrupt)
        try:
            credentials = None if proxy is None else _proxy_credentials(proxy)
            if proxy is not None and url.scheme == "https":
                _tunnel(raw, url, credentials)
            stream: ByteStream = raw
            if url.scheme == "https":
                stream = TlsStream(raw, self._tls_context(), url.host, self._one_decrypts)
            else:
                raw.settimeout(None)
            absolute = proxy is not None and url.scheme == "http"
            return Connection(raw, stream, absolute=absolute, proxy_field=credentials)
        except BaseException:
            raw.close()
            raise

    def _dial(self, host: str, port: int, interrupt: Interrupt) -> socket.socket:
        last: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            raw = socket.socket(family, kind, protocol)
            try:
                raw.settimeout(self._connect_seconds)
                interrupt.attach(raw)
                raw.connect(address)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                return raw
            except OSError as error:
                last = error
                raw.close()
                interrupt.check()
            except BaseException:
                raw.close()
                raise
        raise last

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls


def _proxy_credentials(proxy: SplitResult) -> str | None:
    if proxy.username is None:
        return None
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _tunnel(raw: socket.socket, url: Url, credentials: str | None) -> None:
    """Asks a proxy for a connection to an https origin (RFC 9110, CONNECT)."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
    if credentials is not None:
        lines.append(f"Proxy-Authorization: {credentials}")
    raw.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        byte = raw.recv(1)  # byte by byte: what follows belongs to TLS
        if not byte or len(answer) > _MAX_HEAD_BYTES:
            raise HttpError("the proxy closed the connection")
        answer += byte
    status = parse_head(bytes(answer[:-4])).status
    if status != 200:
        raise HttpError(f"the proxy refused to connect ({status})")


def describe(error: OSError) -> str:
    """What went wrong on the network, in words."""
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if error.errno is not None and error.errno > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
