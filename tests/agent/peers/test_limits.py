"""What one node may take of another: connections, time, bytes per second."""

import functools
import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from agent.peers import Patience, ServingLimits
from agent.store import Readable
from agent.transfer import RateLimit
from protos.tickets import ticket_query
from tests.agent.peers.conftest import HOUR, IMPATIENT, KEY, NOW, Serve, Served, digest, read_to_end
from tests.agent.transfer.conftest import random_bytes
from tests.support import eventually

CONTENT = random_bytes(100_000)
TWO = ServingLimits(connections=2)


def test_when_all_are_being_answered_another_is_turned_away(serve: Serve) -> None:
    served = serve(TWO)
    served.begin(CONTENT)
    with ExitStack() as stack:
        for _ in range(2):
            follower = stack.enter_context(served.connect())
            assert follower.begin(digest(CONTENT), query="?wait=1").status == 200

        with served.dial() as third:
            answer = read_to_end(third)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert json.loads(body)["error"]["code"] == "too_many_connections"


def test_a_place_becomes_free_again(serve: Serve) -> None:
    served = serve(TWO)
    sha256 = served.put(b"finished")
    _, partial = served.begin(CONTENT)
    for _ in range(2):
        with served.connect() as one, served.connect() as two:
            for follower in (one, two):
                assert follower.begin(digest(CONTENT), query="?wait=1").status == 200
        eventually(lambda: served.server.connections == 0)

    assert served.ask(sha256).status == 200
    assert not served.store.shelf.is_read(partial.path)


def test_one_that_waits_for_its_next_request_makes_room(serve: Serve) -> None:
    served = serve(TWO)
    sha256 = served.put(CONTENT)
    with served.connect() as oldest, served.connect() as older, served.connect() as newest:
        assert oldest.ask(sha256).status == 200
        assert older.ask(sha256).status == 200

        assert newest.ask(sha256).body == CONTENT

        assert oldest.socket is not None
        assert oldest.socket.recv(1) == b""
        assert older.ask(sha256, "0-9").body == CONTENT[:10]


@pytest.mark.parametrize("head", [b"G", b"GET /blobs/", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_whoever_does_not_end_a_request_is_dropped(serve: Serve, head: bytes) -> None:
    served = serve(ServingLimits(patience=IMPATIENT))

    with served.dial() as slow:
        slow.sendall(head)
        answer = read_to_end(slow)

    assert answer.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: served.server.connections == 0)


def test_a_request_that_drips_in_is_dropped(serve: Serve) -> None:
    served = serve(ServingLimits(patience=IMPATIENT))
    answer = b""

    with served.dial() as slow:
        slow.settimeout(0.02)
        while not answer:
            slow.sendall(b"x")
            try:
                answer = slow.recv(4096)
            except TimeoutError:
                continue

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    served = serve(ServingLimits(patience=Patience(idle=0.05)))

    with served.dial() as idle:
        assert read_to_end(idle) == b""


def test_whoever_takes_nothing_is_dropped(serve: Serve) -> None:
    served = serve(ServingLimits(patience=Patience(send=0.1)))
    sha256 = served.put(random_bytes(40 << 20))

    with served.connect() as stuck:
        stuck.begin(sha256)

        eventually(lambda: served.server.connections == 0)


class Broken:
    """A shelf that breaks for one content."""

    def __init__(self, find: Callable[[str], Readable | None], breaks_for: str) -> None:
        self._find = find
        self._breaks_for = breaks_for

    def find(self, sha256: str) -> Readable | None:
        """See `Contents`."""
        if sha256 == self._breaks_for:
            raise RuntimeError("a fault of ours")
        return self._find(sha256)


def test_a_fault_in_one_connection_ends_that_one_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    sha256 = served.put(CONTENT)
    find = served.store.shelf.find
    monkeypatch.setattr(served.store.shelf, "find", Broken(find, digest(b"other")).find)
    with served.connect() as good, served.dial() as bad:
        good.ask(sha256)
        ask(bad, digest(b"other"))

        assert read_to_end(bad) == b""
        assert good.ask(sha256).body == CONTENT
        assert served.ask(sha256).body == CONTENT


def ask(connection: socket.socket, sha256: str) -> None:
    """A request for a whole file over a bare connection."""
    target = f"/blobs/{sha256}?{ticket_query(KEY, sha256, NOW + HOUR)}"
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Taker(threading.Thread):
    """Reads whatever comes."""

    def __init__(self, served: Served, sha256: str) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self._connection = served.dial()
        ask(self._connection, sha256)
        self.start()

    def run(self) -> None:
        """See `Thread`."""
        with self._connection:
            while data := self._connection.recv(1 << 16):
                self.received += len(data)


def test_all_connections_together_keep_the_rate_and_it_can_be_lifted(serve: Serve) -> None:
    clock = Clock()
    rate = RateLimit(2_000_000, clock=clock)
    served = serve(rate=rate)
    sha256 = served.put(random_bytes(4_000_000))
    takers = [Taker(served, sha256) for _ in range(4)]

    def received() -> int:
        return sum(taker.received for taker in takers)

    def reaches(count: int) -> bool:
        return received() >= count

    for tenth in range(1, 31):
        clock.now += 0.1
        rate.wake()
        allowed = 200_000 * tenth
        eventually(functools.partial(reaches, allowed - 150_000))
        assert received() <= allowed * 1.05 + 4_000  # heads of the answers

    assert received() == pytest.approx(6_000_000, rel=0.05)
    served.server.set_rate(None)
    for taker in takers:
        taker.join(20)
    assert received() > 16_000_000
