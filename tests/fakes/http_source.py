"""A file behind a raw socket, served right unless a rule says otherwise.

    with FaultySource(content) as source:
        source.rule = once(lambda asked: Answer(429, {"Retry-After": "1"}))
        fetch(source.url)
        assert source.bytes_served == len(content)

It speaks just enough HTTP to be wrong in every way that a server, a proxy or a network can be.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

_SEND_BUFFER = 64 << 10  # small, so that served bytes are close to received ones


class Ending(Enum):
    """What happens after the body was sent."""

    KEEP = "the connection waits for the next request"
    CLOSE = "the connection is closed in order"
    RESET = "the connection is reset"
    SILENCE = "the connection stays open and nothing more comes"


@dataclass(frozen=True)
class Asked:
    """One request, as it came; `start` and `end` are the bytes wanted (the whole file if none)."""

    number: int
    method: str
    target: str
    fields: Mapping[str, str]
    start: int
    end: int

    @property
    def is_ranged(self) -> bool:
        """Whether a range was asked for."""
        return "range" in self.fields


@dataclass(frozen=True)
class Answer:
    """What to send. Content-Length is that of the body unless `fields` has one."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ending: Ending = Ending.KEEP


Rule = Callable[[Asked], Answer | None]  # None: serve it right


def times(count: int, rule: Rule) -> Rule:
    """The rule for the first requests it says anything about, then the truth."""
    left = [count]
    lock = threading.Lock()

    def limited(asked: Asked) -> Answer | None:
        with lock:
            answer = rule(asked) if left[0] > 0 else None
            left[0] -= answer is not None
        return answer

    return limited


def once(rule: Rule) -> Rule:
    """The rule for one request."""
    return times(1, rule)


class FaultySource:
    """Serves `content` at every path, on a free port of this machine."""

    def __init__(
        self,
        content: bytes,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        etag: str = "e1",
    ) -> None:
        self.content = content
        self.etag = etag
        self.rule: Rule = lambda asked: None
        self.asked: list[Asked] = []
        self.bytes_served = 0
        self.tunnel_tls: ssl.SSLContext | None = None  # what CONNECT leads to, when it is a proxy
        self._host = host
        self._tls = tls
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The address of the file."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self.port}/model.gguf"

    def right(self, asked: Asked) -> Answer:
        """The right answer, for rules that bend it."""
        body = self.content[asked.start : asked.end]
        fields = {"ETag": f'"{self.etag}"', "Content-Type": "application/octet-stream"}
        if not asked.is_ranged:
            return Answer(200, fields, body)
        place = f"bytes {asked.start}-{asked.end - 1}/{len(self.content)}"
        return Answer(206, {**fields, "Content-Range": place}, body)

    def wait_for_requests(self, count: int) -> None:
        """Blocks until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, 20)

    def wait_for_bytes(self, count: int) -> None:
        """Blocks until so many bytes of bodies were handed to the network."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.bytes_served >= count, 20)

    def close(self) -> None:
        """Stops; open connections break."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._changed:
                self._open.add(connection)
            while (asked := self._read(connection)) is not None:
                if asked.method == "CONNECT" and self.tunnel_tls is not None:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    connection = self.tunnel_tls.wrap_socket(connection, server_side=True)
                    continue
                answer = self.rule(asked) or self.right(asked)
                self._send(connection, answer)
                if answer.ending is Ending.RESET:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if answer.ending is Ending.SILENCE:
                    connection.recv(1)
                if answer.ending is not Ending.KEEP:
                    break
        connection.close()

    def _read(self, connection: socket.socket) -> Asked | None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            received = connection.recv(65536)
            if not received:
                return None
            raw += received
        first, *lines = raw.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        method, target, _ = first.split(" ")
        start, end = 0, len(self.content)
        if fields.get("range", "").startswith("bytes="):
            low, _, high = fields["range"].removeprefix("bytes=").partition("-")
            start, end = int(low), min(end, int(high) + 1)
        with self._changed:
            asked = Asked(len(self.asked), method, target, fields, start, end)
            self.asked.append(asked)
            self._changed.notify_all()
        return asked

    def _send(self, connection: socket.socket, answer: Answer) -> None:
        fields = {"Content-Length": str(len(answer.body)), **answer.fields}
        lines = [f"HTTP/1.1 {answer.status} Told", *(f"{k}: {v}" for k, v in fields.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        rest = memoryview(answer.body)
        while rest:
            sent = connection.send(rest[:_SEND_BUFFER])
            rest = rest[sent:]
            with self._changed:
                self.bytes_served += sent
                self._changed.notify_all()
