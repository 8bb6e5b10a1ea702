"""Reading a file while it is being fetched, and while it becomes another on disk."""

import http.client
import threading

import pytest

from agent.peers import Patience, ServingLimits
from agent.store import Origin, Partial
from tests.agent.peers.conftest import Serve, Served, digest
from tests.agent.transfer.conftest import random_bytes
from tests.support import eventually

MIB = 1 << 20
CONTENT = random_bytes(6 * MIB + 77)
SIZE = len(CONTENT)


def fetch(partial: Partial, start: int, end: int) -> None:
    """Bytes of the content arrive."""
    partial.write(memoryview(CONTENT)[start:end], start, Origin.HUB)
    partial.flush()


class Follower(threading.Thread):
    """Reads an answer to its end beside the test."""

    def __init__(
        self, served: Served, span: str | None = None, sha256: str = digest(CONTENT)
    ) -> None:
        super().__init__(daemon=True)
        self._served = served
        self._ask = sha256, span
        self.status = 0
        self.received = bytearray()
        self.was_cut = False
        self.start()

    def run(self) -> None:
        """See `Thread`."""
        with self._served.connect() as peer:
            sha256, span = self._ask
            response = peer.begin(sha256, span, query="?wait=1")
            self.status = response.status
            try:
                while data := response.read1(1 << 16):
                    self.received += data
            except (http.client.IncompleteRead, ConnectionError):
                self.was_cut = True
            self.was_cut = self.was_cut or bool(response.length)

    def end(self) -> bytes:
        """What it had received at its end."""
        self.join(20)
        assert not self.is_alive()
        return bytes(self.received)


def test_a_follower_gets_bytes_in_order_as_they_come_in_any_order(served: Served) -> None:
    manifest, partial = served.begin(CONTENT)
    fetch(partial, MIB, 2 * MIB)
    follower = Follower(served)
    fetch(partial, 0, MIB)
    eventually(lambda: len(follower.received) == 2 * MIB)

    fetch(partial, 3 * MIB, SIZE)
    fetch(partial, 2 * MIB, 2 * MIB + 5)
    eventually(lambda: len(follower.received) == 2 * MIB + 5)
    fetch(partial, 2 * MIB + 5, 3 * MIB)
    served.finish(manifest, partial)

    assert follower.end() == CONTENT
    assert (follower.status, follower.was_cut) == (200, False)


def test_a_part_may_be_followed_and_accepted_bytes_count(served: Served) -> None:
    _, partial = served.begin(CONTENT)
    follower = Follower(served, f"{MIB - 10}-{2 * MIB - 1}")
    eventually(lambda: follower.status)
    partial.place(memoryview(CONTENT)[: 2 * MIB], 0)

    partial.accept(0, 2 * MIB, Origin.PEER)

    assert follower.end() == CONTENT[MIB - 10 : 2 * MIB]
    assert follower.status == 206


def test_several_follow_the_same_file_from_places_of_their_own(served: Served) -> None:
    _, partial = served.begin(CONTENT)
    all_of_them = [Follower(served, f"{start}-") for start in (0, 5, 3 * MIB, SIZE - 1)]

    for start in reversed(range(0, SIZE, MIB)):
        fetch(partial, start, min(SIZE, start + MIB))

    assert [one.end() for one in all_of_them] == [
        CONTENT,
        CONTENT[5:],
        CONTENT[3 * MIB :],
        CONTENT[SIZE - 1 :],
    ]


@pytest.mark.parametrize("ending", ["close", "discard", "release_waiters"])
def test_a_follower_is_cut_when_the_transfer_ends_early(served: Served, ending: str) -> None:
    _, partial = served.begin(CONTENT)
    fetch(partial, 0, MIB)
    follower = Follower(served)
    eventually(lambda: len(follower.received) == MIB)

    getattr(partial, ending)()

    assert follower.end() == CONTENT[:MIB]
    assert follower.was_cut
    eventually(lambda: served.server.connections == 0)


def test_a_follower_is_cut_when_no_byte_comes_for_too_long(serve: Serve) -> None:
    served = serve(ServingLimits(patience=Patience(follow=0.1)))
    served.begin(CONTENT)

    follower = Follower(served)

    assert follower.end() == b""
    assert follower.was_cut


def test_a_follower_that_goes_frees_its_place(served: Served) -> None:
    served.begin(CONTENT)
    with served.connect() as peer:
        peer.begin(digest(CONTENT), query="?wait=1")
        assert served.server.connections == 1

    eventually(lambda: served.server.connections == 0)


def test_a_request_outlives_the_commit_and_the_next_one_finds_the_file(served: Served) -> None:
    manifest, partial = served.begin(CONTENT)
    fetch(partial, 0, 2 * MIB)
    follower = Follower(served)
    eventually(lambda: len(follower.received) == 2 * MIB)
    fetch(partial, 2 * MIB, SIZE)

    served.finish(manifest, partial)
    after = served.ask(digest(CONTENT), "5-9")

    assert (after.status, after.body) == (206, CONTENT[5:10])
    assert follower.end() == CONTENT


def test_a_file_that_is_removed_while_it_is_sent_is_sent_to_its_end(served: Served) -> None:
    content = random_bytes(40 * MIB)  # more than the sockets hold
    sha256 = served.put(content)
    with served.connect() as peer:
        response = peer.begin(sha256)
        first = response.read(MIB)

        path = served.store.locate(sha256)
        assert path is not None
        path.unlink()

        assert first + response.read() == content
    assert served.ask(sha256, "0-9").status == 404


def test_stopping_cuts_followers_and_idle_connections(served: Served) -> None:
    sha256 = served.put(b"finished")
    served.begin(CONTENT)
    follower = Follower(served)
    eventually(lambda: follower.status)
    with served.connect() as idle:
        idle.ask(sha256)

        served.server.close(drain_seconds=20)

        assert idle.socket is not None
        assert idle.socket.recv(1) == b""
    follower.end()
    assert follower.was_cut
    assert served.server.connections == 0
