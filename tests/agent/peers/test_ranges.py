"""Parts of finished and unfinished files, byte by byte."""

import json

import pytest

from agent.store import Origin
from protos.tickets import ticket_query
from tests.agent.peers.conftest import HOUR, KEY, NOW, Served, digest, read_to_end
from tests.agent.transfer.conftest import random_bytes

MIB = 1 << 20
CONTENT = random_bytes(3 * MIB + 12345)
SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-4095", 0, 4096),
        ("100-3000000", 100, 3_000_001),
        (f"{SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE),
        (f"{SIZE - 10}-{SIZE + 10}", SIZE - 10, SIZE),
        ("1000-", 1000, SIZE),
        ("-7", SIZE - 7, SIZE),
        (f"-{SIZE + 1}", 0, SIZE),
    ],
)
def test_a_range_of_a_finished_file_is_exact(
    served: Served, span: str, start: int, end: int
) -> None:
    sha256 = served.put(CONTENT)

    answer = served.ask(sha256, span)

    assert answer.status == 206
    assert answer.body == CONTENT[start:end]
    assert answer.fields["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.fields["etag"] == f'"{sha256}"'
    assert answer.fields["accept-ranges"] == "bytes"
    assert answer.fields["content-type"] == "application/octet-stream"


def test_without_a_range_the_whole_file_comes(served: Served) -> None:
    answer = served.ask(served.put(CONTENT))

    assert (answer.status, answer.body) == (200, CONTENT)
    assert "content-range" not in answer.fields


def test_an_empty_file_is_served(served: Served) -> None:
    sha256 = served.put(b"")

    assert (served.ask(sha256).status, served.ask(sha256).body) == (200, b"")
    assert served.ask(sha256, "0-0").status == 416


@pytest.mark.parametrize("span", [None, "5-9"])
def test_head_tells_the_same_without_a_body(served: Served, span: str | None) -> None:
    sha256 = served.put(CONTENT)

    with served.connect() as peer:
        head = peer.ask(sha256, span, method="HEAD")
        get = peer.ask(sha256, span)

    assert head.body == b""
    assert head.status == get.status
    assert head.fields["content-length"] == str(len(get.body))
    assert {**head.fields, "date": ""} == {**get.fields, "date": ""}


def test_one_connection_serves_many_requests(served: Served) -> None:
    sha256 = served.put(CONTENT)

    with served.connect() as peer:
        first = peer.ask(sha256, "0-99")
        before = peer.socket
        refused = peer.ask(sha256, f"{SIZE}-")
        second = peer.ask(sha256, "100-199")

        assert peer.socket is before is not None
        assert (first.body, second.body) == (CONTENT[:100], CONTENT[100:200])
        assert refused.status == 416


def test_requests_that_come_together_are_answered_in_order(served: Served) -> None:
    sha256 = served.put(CONTENT)
    target = f"/blobs/{sha256}?{ticket_query(KEY, sha256, NOW + HOUR)}"
    one = f"GET {target} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3\r\n\r\n"
    last = f"GET {target} HTTP/1.1\r\nHost: a\r\nRange: bytes=4-7\r\nConnection: close\r\n\r\n"
    with served.dial() as connection:
        connection.sendall((one + last).encode())
        answers = read_to_end(connection)

    assert answers.count(b"HTTP/1.1 206") == 2
    assert answers.index(CONTENT[:4]) < answers.index(CONTENT[4:8])


@pytest.mark.parametrize(
    ("span", "status", "code"),
    [
        (f"{SIZE}-", 416, "range_not_satisfiable"),
        (f"{SIZE + 5}-{SIZE + 9}", 416, "range_not_satisfiable"),
        ("-0", 416, "range_not_satisfiable"),
        ("9-5", 400, "invalid_range"),
        ("-", 400, "invalid_range"),
        ("0-1,3-4", 400, "invalid_range"),
        ("a-b", 400, "invalid_range"),
        ("9" * 30 + "-", 400, "invalid_range"),
    ],
)
def test_a_range_that_cannot_be_served_is_refused(
    served: Served, span: str, status: int, code: str
) -> None:
    answer = served.ask(served.put(CONTENT), span)

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if status == 416:
        assert answer.fields["content-range"] == f"bytes */{SIZE}"


def test_units_that_nobody_knows_are_ignored(served: Served) -> None:
    answer = served.ask(served.put(CONTENT), Range="pieces=1-2")

    assert (answer.status, len(answer.body)) == (200, SIZE)


def test_a_range_of_another_content_becomes_the_whole_file(served: Served) -> None:
    sha256 = served.put(CONTENT)

    same = served.ask(sha256, "0-4", If_Range=f'"{sha256}"')
    other = served.ask(sha256, "0-4", If_Range='"something else"')

    assert (same.status, other.status) == (206, 200)


# Unfinished files


def test_what_is_there_of_an_unfinished_file_is_served(served: Served) -> None:
    _, partial = served.begin(CONTENT)
    partial.write(memoryview(CONTENT)[MIB : 2 * MIB], MIB, Origin.HUB)

    answer = served.ask(digest(CONTENT), f"{MIB}-{2 * MIB - 1}")

    assert answer.status == 206
    assert answer.body == CONTENT[MIB : 2 * MIB]
    assert answer.fields["content-range"] == f"bytes {MIB}-{2 * MIB - 1}/{SIZE}"


@pytest.mark.parametrize("span", [None, "0-0", f"{MIB - 1}-{MIB}", f"{MIB}-{2 * MIB}"])
def test_a_span_that_is_not_there_yet_is_refused_whole(served: Served, span: str | None) -> None:
    _, partial = served.begin(CONTENT)
    partial.write(memoryview(CONTENT)[MIB : 2 * MIB], MIB, Origin.HUB)

    answer = served.ask(digest(CONTENT), span)

    assert answer.status == 409
    assert json.loads(answer.body)["error"]["code"] == "span_missing"
    assert answer.fields["retry-after"] == "1"


def test_bytes_that_nobody_has_verified_are_not_served(served: Served) -> None:
    _, partial = served.begin(CONTENT)
    partial.place(memoryview(CONTENT)[:MIB], 0)
    before = served.ask(digest(CONTENT), "0-99")

    partial.accept(0, MIB, Origin.PEER)

    assert before.status == 409
    assert served.ask(digest(CONTENT), "0-99").body == CONTENT[:100]


def test_a_file_that_is_not_fetched_any_more_is_not_served(served: Served) -> None:
    _, partial = served.begin(CONTENT)
    partial.write(memoryview(CONTENT)[:MIB], 0, Origin.HUB)
    before = served.ask(digest(CONTENT), "0-9")

    partial.discard()

    assert before.status == 206
    assert served.ask(digest(CONTENT), "0-9").status == 404


def test_a_file_that_somebody_changed_after_it_was_verified_is_not_served(served: Served) -> None:
    sha256 = served.put(CONTENT)
    path = served.store.locate(sha256)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"x" + CONTENT[1:])

    assert served.ask(sha256, "0-9").status == 404
