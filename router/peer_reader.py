"""Reads files from nodes over HTTP, as nodes do from one another."""

import http.client
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS = 3.0
_SILENCE_SECONDS = 30.0


class PeerReader:
    """Implements `BlobReader`: a connection for each read."""

    def read(self, urls: Sequence[str], offset: int, size: int) -> Iterator[bytes]:
        """See `BlobReader`."""
        last: Exception = OSError("no address is known")
        for url in urls:
            try:
                connection, response = _ask(url, offset, size)
            except (OSError, http.client.HTTPException) as error:
                last = error
                continue
            try:
                yield from _body(response, size - offset)
            except http.client.HTTPException as error:
                raise OSError(f"it broke off: {error!r}") from error
            finally:
                connection.close()
            return
        raise OSError(str(last) or type(last).__name__) from last

    def answers(self, urls: Sequence[str]) -> bool:
        """See `BlobReader`."""
        for url in urls:
            try:
                connection = _connect(url)
            except OSError:
                continue
            try:
                connection.request("HEAD", _target(url))
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
        return False


def _ask(
    url: str, offset: int, size: int
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """An answer whose body is exactly the bytes from `offset` to `size`. Raises `OSError`."""
    connection = _connect(url)
    try:
        connection.request("GET", _target(url), headers={"Range": f"bytes={offset}-{size - 1}"})
        response = connection.getresponse()
        wanted = f"bytes {offset}-{size - 1}/{size}"
        if response.status != 206 or response.getheader("Content-Range") != wanted:
            raise OSError(f"it answers {response.status} instead of the bytes")
    except BaseException:
        connection.close()
        raise
    return connection, response


def _connect(url: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_CONNECT_SECONDS)
    connection.connect()
    connection.sock.settimeout(_SILENCE_SECONDS)
    return connection


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
