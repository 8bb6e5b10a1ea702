"""A node that joins a fleet as any other does, and then serves in one of the ways nodes break.

It speaks to the real router on a stream of its own and answers other nodes over HTTP. It has the
true content, so that what it announces can be believed; how it answers is a function of its own.
"""

import gzip
import hashlib
import http.server
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import grpc
from blake3 import blake3

from protos import pieces
from protos.llmrouter.v1 import agent_pb2, agent_pb2_grpc
from tests.fakes.sharing_agent import SharingAgent

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


class Request(http.server.BaseHTTPRequestHandler):
    """One answer to another node: a piece of the content."""

    protocol_version = "HTTP/1.1"
    node: "EvilNode"
    start: int
    end: int

    def do_GET(self) -> None:
        """Answers as the node's manner has it."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        assert match is not None
        self.start, self.end = int(match[1]), int(match[2]) + 1
        self.node.count(requests=1)
        self.node.manner(self)

    @property
    def content(self) -> bytes:
        """The true bytes that were asked for."""
        return self.node.content[self.start : self.end]

    def head(self, status: int = 206, length: int | None = None, **fields: str) -> None:
        """Sends a head, by default that of a right answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.content) if length is None else length))
        if status == 206:
            whole = len(self.node.content)
            self.send_header("Content-Range", f"bytes {self.start}-{self.end - 1}/{whole}")
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        """Sends bytes; ends quietly when the other side has had enough."""
        try:
            self.wfile.write(data)
            self.node.count(sent=len(data))
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is logged."""


Manner = Callable[[Request], None]


def honestly(request: Request) -> None:
    """The right bytes."""
    request.head()
    request.body(request.content)


def with_a_flipped_bit(request: Request) -> None:
    """One bit in the middle is another."""
    data = bytearray(request.content)
    data[len(data) // 2] ^= 1
    request.head()
    request.body(bytes(data))


def cut_short(request: Request) -> None:
    """The connection breaks off at a half."""
    request.head()
    request.body(request.content[: len(request.content) // 2])
    request.close_connection = True


def stalling(request: Request) -> None:
    """A few bytes, then silence until the node ends."""
    request.head()
    request.body(request.content[:1000])
    request.node.over.wait()
    request.close_connection = True


def silent(request: Request) -> None:
    """No answer at all until the node ends."""
    request.node.over.wait()
    request.close_connection = True


def with_an_error(request: Request) -> None:
    """A server error."""
    request.head(500, 0)


def another_file(request: Request) -> None:
    """Bytes of something else."""
    request.head()
    request.body(bytes(len(request.content)))


def trickling(request: Request) -> None:
    """A kilobyte each second: never silent for long, never done."""
    request.head()
    for at in range(0, len(request.content), 1000):
        request.body(request.content[at : at + 1000])
        if request.close_connection or request.node.over.wait(1):
            return


def redirecting(request: Request) -> None:
    """To elsewhere, where the same bytes would be."""
    request.head(307, 0, Location=f"http://{request.node.address}/elsewhere")


def compressed(request: Request) -> None:
    """The right bytes in an encoding that nobody asked for."""
    data = gzip.compress(request.content, 1)
    request.head(length=len(data), Content_Encoding="gzip")
    request.body(data)


def endlessly(request: Request) -> None:
    """More than was announced."""
    request.head()
    request.body(request.content)
    request.body(bytes(1 << 20))


class EvilNode(SharingAgent):
    """`lies` are digests that it tells instead of the true ones, by piece.

    with EvilNode(grpc_address, "evil", content, cut_short) as evil:
        evil.claim()
    """

    def __init__(
        self,
        router: str,
        node_id: str,
        content: bytes,
        manner: Manner,
        *,
        site: str = "",
        lies: Mapping[int, bytes] | None = None,
    ) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.manner = manner
        self.over = threading.Event()
        self.requests = 0
        self.sent = 0
        self._lies = lies or {}
        self._count_lock = threading.Lock()
        handler = type("Handler", (Request,), {"node": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._serving.start()
        self._channel = grpc.insecure_channel(router)
        stub = agent_pb2_grpc.AgentServiceStub(self._channel)
        super().__init__(stub, node_id, site=site, addresses=(self.address,))
        self._answering = threading.Thread(target=self._answer_all, daemon=True)
        self._answering.start()

    def __enter__(self) -> Self:
        """Returns once the router has greeted it."""
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the stream and the server, and with it every answer."""
        self.over.set()
        super().__exit__(kind, error, trace)
        self._channel.close()
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()

    def claim(self) -> None:
        """Says that it holds the whole file."""
        self.hold(self.sha256, len(self.content))

    def digest(self, piece: int) -> bytes:
        """What it tells of a piece: the truth unless it lies."""
        start, end = pieces.piece_span(piece, len(self.content))
        return self._lies.get(piece) or blake3(self.content[start:end]).digest()

    def count(self, *, requests: int = 0, sent: int = 0) -> None:
        """Keeps count of what it was asked and what it sent."""
        with self._count_lock:
            self.requests += requests
            self.sent += sent

    def _answer_all(self) -> None:
        """Joins for the file when it is ordered, tells digests when asked, and says that it has
        got whatever it is granted.
        """
        joined = False
        for command in self._commands_as_they_come():
            if command.HasField("digest_request"):
                asked = command.digest_request
                self.tell_digests(asked, [(piece, self.digest(piece)) for piece in asked.pieces])
            elif command.HasField("assignment"):
                if command.assignment.tasks and not joined:
                    joined = True
                    self.join(self.sha256, len(self.content), capacity=4)
            elif command.HasField("piece_grants"):
                for grant in command.piece_grants.grants:
                    digest = b"" if grant.holder_node_id else self.digest(grant.piece)
                    self.got(
                        self.sha256, grant.piece, holder=grant.holder_node_id,
                        digest=digest, capacity=4,
                    )  # fmt: skip

    def _commands_as_they_come(self) -> Iterator[agent_pb2.ConnectResponse]:
        for number in itertools.count():
            with self._arrived:
                self._arrived.wait_for(partial(self._has, number))
                if number >= len(self._heard):
                    return
                command = self._heard[number]
            yield command

    def _has(self, number: int) -> bool:
        return number < len(self._heard) or self._ended
