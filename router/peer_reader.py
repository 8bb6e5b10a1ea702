"""Reads files from nodes over HTTP, as nodes do from one another."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS = 3.0
_SILENCE_SECONDS = 30.0


class PeerReader:
    """Implements `BlobReader`: a connection for each read. Safe from any thread."""

    def __init__(self) -> None:
        """Reads until it is closed."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def close(self) -> None:
        """Breaks every read off at once, and begins no more."""
        with self._lock:
            self._closed = True
            for raw in self._open:
                with contextlib.suppress(OSError):
                    raw.shutdown(socket.SHUT_RDWR)

    def read(self, urls: Sequence[str], offset: int, size: int) -> Iterator[bytes]:
        """See `BlobReader`."""
        last: Exception = OSError("no address is known")
        for url in urls:
            with contextlib.ExitStack() as stack:
                try:
                    connection = stack.enter_context(self._connected(url))
                    response = _ask(connection, url, offset, size)
                except (OSError, http.client.HTTPException) as error:
                    last = error
                    continue
                try:
                    yield from _body(response, size - offset)
                except http.client.HTTPException as error:
                    raise OSError(f"it broke off: {error!r}") from error
                return
        raise OSError(str(last) or type(last).__name__) from last

    def answers(self, urls: Sequence[str]) -> bool:
        """See `BlobReader`."""
        for url in urls:
            with contextlib.ExitStack() as stack:
                try:
                    connection = stack.enter_context(self._connected(url))
                except OSError:
                    continue
                try:
                    connection.request("HEAD", _target(url))
                    return connection.getresponse().status == 200
                except (OSError, http.client.HTTPException):
                    return False
        return False

    @contextlib.contextmanager
    def _connected(self, url: str) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_CONNECT_SECONDS)
        connection.connect()
        raw = connection.sock
        raw.settimeout(_SILENCE_SECONDS)
        try:
            with self._lock:
                if self._closed:
                    raise OSError("the router is stopping")
                self._open.add(raw)
            yield connection
        finally:
            with self._lock:
                self._open.discard(raw)
            connection.close()


def _ask(
    connection: http.client.HTTPConnection, url: str, offset: int, size: int
) -> http.client.HTTPResponse:
    """An answer whose body is exactly the bytes from `offset` to `size`. Raises `OSError`."""
    wanted = f"{offset}-{size - 1}"
    connection.request("GET", _target(url), headers={"Range": f"bytes={wanted}"})
    response = connection.getresponse()
    told = response.getheader("Content-Range")
    if response.status != 206 or told != f"bytes {wanted}/{size}":
        raise OSError(f"it answers {response.status} instead of the bytes")
    return response


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def _body(response: http.client.HTTPResponse, length: int) -> Iterator[bytes]:
    while length:
        data = response.read(min(_CHUNK_BYTES, length))
        if not data:
            raise OSError("it closed the connection too early")
        length -= len(data)
        yield data
