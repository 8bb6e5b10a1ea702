"""Reading a file from a node: exactly the bytes that were asked for, or an error."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from router.peer_reader import PeerReader

CONTENT = bytes(range(256)) * 10_000
NOWHERE = "http://127.0.0.1:9/blobs/x?t"  # nothing listens there


class Node:
    """Serves the content; `status`, `range` and `cut` make it misbehave."""

    def __init__(self) -> None:
        self.status = 206
        self.range = ""
        self.cut: int | None = None
        self.hangs = threading.Event()  # after half of it, while set
        self.over = threading.Event()
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
                size = len(CONTENT)
                self.send_response(node.status)
                self.send_header("Content-Length", str(size - first))
                told = node.range or f"bytes {first}-{size - 1}/{size}"
                self.send_header("Content-Range", told)
                self.end_headers()
                if node.hangs.is_set():
                    self.wfile.write(CONTENT[first : len(CONTENT) // 2])
                    node.over.wait(20)
                    return
                self.wfile.write(CONTENT[first:][: node.cut])

            def do_HEAD(self) -> None:
                self.send_response(node.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/blobs/x?t"

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


def read(urls: list[str], offset: int = 0) -> bytes:
    return b"".join(PeerReader().read(urls, offset, len(CONTENT)))


@pytest.mark.parametrize("offset", [0, 1, 2_000_000])
def test_the_rest_of_a_file_comes_from_the_first_that_answers(node: Node, offset: int) -> None:
    assert read([NOWHERE, node.url], offset) == CONTENT[offset:]


def test_a_cut_is_an_error(node: Node) -> None:
    node.cut = 1000

    with pytest.raises(OSError, match=r"too early|broke off"):
        read([node.url])


def test_anything_but_the_range_is_an_error(node: Node) -> None:
    node.status = 200
    with pytest.raises(OSError, match="answers 200"):
        read([node.url])
    node.status, node.range = 206, "bytes 0-5/6"
    with pytest.raises(OSError, match="instead of the bytes"):
        read([node.url])
    with pytest.raises(OSError, match="refused"):
        read([NOWHERE])


def test_whether_a_node_has_it_is_asked_at_the_first_address_that_can_be_reached(
    node: Node,
) -> None:
    node.status = 200
    assert PeerReader().answers([NOWHERE, node.url])
    node.status = 404
    assert not PeerReader().answers([node.url])
    assert not PeerReader().answers([NOWHERE])


def test_closing_breaks_a_read_off(node: Node) -> None:
    node.hangs.set()
    reader = PeerReader()
    coming = reader.read([node.url], 0, len(CONTENT))
    next(coming)

    reader.close()

    with pytest.raises(OSError, match=r"early|broke|reset"):
        list(coming)
    with pytest.raises(OSError, match="stopping"):
        list(reader.read([node.url], 0, len(CONTENT)))
