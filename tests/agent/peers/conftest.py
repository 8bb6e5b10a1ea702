"""A node with a store, serving on loopback, and what another node sends to it."""

import hashlib
import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent.manifest import Manifest
from agent.peers import Patience, PeerServer, ServingLimits
from agent.store import Digests, Origin, Partial, Store
from agent.transfer import RateLimit
from protos.tickets import ticket_field
from tests.agent.transfer.conftest import manifest_of

KEY = b"the fleet's secret of 32 bytes.."
NOW = 1_800_000_000
HOUR = 3600


class Answer:
    """What came back over one connection that was then closed, or one answer of several."""

    def __init__(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.fields = {name.lower(): value for name, value in fields.items()}
        self.body = body


class Served:
    """A store and the server before it; `key` and `now` may be changed by a test."""

    def __init__(
        self,
        folder: Path,
        limits: ServingLimits | None = None,
        rate: RateLimit | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.store = Store(folder / "models", folder / "state")
        self.key = KEY
        self.now = NOW
        self.server = PeerServer(
            self.store.shelf,
            lambda: self.key,
            rate or RateLimit(),
            limits,
            clock=lambda: self.now,
        )
        self.server.start(host, 0)

    def begin(self, content: bytes) -> tuple[Manifest, Partial]:
        """An unfinished file of which nothing is there yet."""
        manifest = manifest_of(("model.gguf", content))
        return manifest, self.store.open_partial(manifest, manifest.files[0])

    def finish(self, manifest: Manifest, partial: Partial) -> None:
        """Gives a complete file its final name."""
        sha256 = manifest.files[0].sha256
        assert sha256 is not None
        partial.release_waiters()  # as a transfer does when it has ended
        self.store.commit(manifest, manifest.files[0], partial, Digests(sha256, None))

    def put(self, content: bytes) -> str:
        """A finished file; its digest."""
        manifest, partial = self.begin(content)
        partial.write(memoryview(content), 0, Origin.HUB)
        self.finish(manifest, partial)
        return digest(content)

    def ask(
        self,
        sha256: str,
        span: str | None = None,
        *,
        query: str = "",
        method: str = "GET",
        ticket: bool = True,
        **fields: str,
    ) -> Answer:
        """One request over a connection of its own."""
        with self.connect() as peer:
            return peer.ask(sha256, span, query=query, method=method, ticket=ticket, **fields)

    def connect(self) -> "Peer":
        """A connection to be used for several requests."""
        return Peer(self.server.port)

    def dial(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=20)


class Peer:
    """Another node's connection, kept alive."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=20)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    @property
    def socket(self) -> socket.socket | None:
        """The connection below; the same one as long as it is kept alive."""
        return self._connection.sock

    def begin(
        self,
        sha256: str,
        span: str | None = None,
        *,
        query: str = "",
        method: str = "GET",
        ticket: bool = True,
        **fields: str,
    ) -> http.client.HTTPResponse:
        """Asks, and reads the head of the answer."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if span is not None:
            headers["Range"] = f"bytes={span}"
        if ticket:
            headers.setdefault("Authorization", ticket_field(KEY, sha256, NOW + HOUR))
        self._connection.request(method, f"/blobs/{sha256}{query}", headers=headers)
        return self._connection.getresponse()

    def ask(self, sha256: str, span: str | None = None, **options: object) -> Answer:
        """Asks, and reads the whole answer."""
        response = self.begin(sha256, span, **options)  # type: ignore[arg-type]
        return Answer(response.status, dict(response.getheaders()), response.read())


def digest(content: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(content).hexdigest()


def read_to_end(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    parts = []
    while data := connection.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


IMPATIENT = Patience(idle=20, head=0.2, send=20, follow=20)

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts nodes that serve, and stops them after the test."""
    running: list[Served] = []

    def start(
        limits: ServingLimits | None = None,
        rate: RateLimit | None = None,
        host: str = "127.0.0.1",
    ) -> Served:
        served = Served(tmp_path / f"node-{len(running)}", limits, rate, host)
        running.append(served)
        return served

    yield start
    for served in running:
        served.server.close(drain_seconds=0)


@pytest.fixture
def served(serve: Serve) -> Served:
    """One such node with the usual limits."""
    return serve()
