"""Whatever anybody sends, nothing but contents by digest ever leaves."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protos.tickets import ticket_query
from tests.agent.peers.conftest import HOUR, KEY, NOW, Served, digest, read_to_end

CONTENT = b"what may be read" * 50
SECRET = b"what may not be read"
NAME = digest(CONTENT)
QUERY = ticket_query(KEY, NAME, NOW + HOUR)
REQUEST = (
    f"GET /blobs/{NAME}?{QUERY} HTTP/1.1\r\nHost: node\r\nRange: bytes=0-15\r\nConnection: close"
).encode() + b"\r\n\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One node for all of this."""
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "secret").write_bytes(SECRET)
    served = Served(folder)
    served.put(CONTENT)
    yield served
    served.server.close(drain_seconds=0)


def send(served: Served, data: bytes) -> bytes:
    """Everything that comes back."""
    with served.dial() as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)
        except ConnectionError:
            return b""  # closed before all was sent


def judge(served: Served, answer: bytes) -> None:
    """A refusal in the right shape, the content that was asked for, or nothing."""
    assert SECRET not in answer
    assert str(served.store.models_dir).encode() not in answer
    if not answer:
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert head.startswith(b"HTTP/1.1 ")
    if status in (200, 206):
        assert body[:16] == CONTENT[:16] or body[:16] in CONTENT
    else:
        assert status in (400, 401, 404, 405, 408, 416, 431, 505)
        assert body == b"" or b'"error"' in body


relaxed = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(st.binary(max_size=200))
@example(b"\r\n" * 5000)
@example(b"\0" * 20_000)
@example(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n")
@example(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
@example(b"GET http://a/blobs HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
def test_any_bytes_are_survived(served: Served, data: bytes) -> None:
    judge(served, send(served, data + b"\r\n\r\n"))

    assert send(served, REQUEST).endswith(CONTENT[:16])


@relaxed
@given(st.integers(0, len(REQUEST) - 1), st.binary(max_size=8), st.integers(0, 20))
def test_a_request_with_anything_in_it_is_survived(
    served: Served, at: int, new: bytes, dropped: int
) -> None:
    judge(served, send(served, REQUEST[:at] + new + REQUEST[at + dropped :]))

    assert send(served, REQUEST).endswith(CONTENT[:16])


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/blobs",
        "/blobs/",
        "/blobs/../secret",
        "/blobs/../../secret",
        "/../secret",
        "//blobs/secret",
        "/blobs/%2e%2e/secret",
        "/blobs/..%2fsecret",
        "/blobs/" + NAME.upper(),
        "/blobs/" + NAME + "/",
        "/blobs/" + NAME + "%00",
        "/blobs/" + NAME[:-1],
        "/blobs/" + NAME + "/../secret",
        "/blobs/models--o--r/blobs/" + NAME,
        "secret",
        "*",
        "file:///etc/passwd",
        "{folder}/secret",
        "/blobs/{folder}/secret",
    ],
)
def test_no_path_from_outside_reaches_a_file(served: Served, path: str) -> None:
    folder = str(Path(served.store.models_dir).parent)
    target = f"{path.replace('{folder}', folder)}?{QUERY}"

    answer = send(served, f"GET {target} HTTP/1.1\r\nHost: node\r\n\r\n".encode())

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["error"]["code"] == "not_found"
    assert folder.encode() not in answer


def test_the_address_of_a_proxy_request_is_understood(served: Served) -> None:
    asked = REQUEST.replace(b"GET /", b"GET http://node:80/")

    assert send(served, asked).endswith(CONTENT[:16])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_contents_are_only_read(served: Served, method: str) -> None:
    answer = send(served, REQUEST.replace(b"GET", method.encode()))

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: GET, HEAD" in answer


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_body_ends_the_connection_so_that_it_is_never_read_as_a_request(
    served: Served, field: str
) -> None:
    asked = REQUEST.replace(b"Connection: close", field.encode())

    answer = send(served, asked + REQUEST)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "line", ["Range: bytes=0-1", "Host: other", "no colon", "bad name: x", "Name : x", " folded: x"]
)
def test_a_head_that_two_readers_may_read_differently_is_refused(served: Served, line: str) -> None:
    answer = send(served, REQUEST.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode()))

    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_huge_head_is_refused(served: Served) -> None:
    answer = send(served, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 431 ")


def test_http_1_0_is_answered_and_the_connection_ends(served: Served) -> None:
    asked = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: close", b"X: y")

    with served.dial() as connection:
        connection.sendall(asked)
        answer = read_to_end(connection)

    assert answer.endswith(CONTENT[:16])
    assert b"Connection: close" in answer
