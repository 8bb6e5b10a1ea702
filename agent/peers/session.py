"""One connection from another node: requests in, parts of files out."""

import contextlib
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass

from agent.peers.answer import Answer, Desk
from agent.peers.reply import head_of, refusal_of
from agent.peers.request import MAX_HEAD_BYTES, Refusal, Request, read_head, too_large
from agent.store import Readable
from agent.transfer import RateLimit

_STEP_BYTES = 8 << 20
_SMALLEST_STEP_BYTES = 16 << 10
_LOOK_SECONDS = 0.5
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 256 << 10
_MORE = getattr(socket, "MSG_MORE", 0)  # Linux: the head travels with the first bytes
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection waits, in seconds."""

    idle: float = 60.0  # for the next request
    head: float = 10.0  # from its first byte to the end of its head
    send: float = 30.0  # for the other side to take a byte
    follow: float = 60.0  # for any byte of a file that is followed


class _Over(Exception):
    """The connection cannot go on."""


class Session:
    """Serves one socket in the calling thread; `cut` and `finish` are for others."""

    def __init__(
        self, connection: socket.socket, desk: Desk, rate: RateLimit, patience: Patience
    ) -> None:
        self._socket = connection
        self._desk = desk
        self._rate = rate
        self._patience = patience
        self._received = bytearray()
        self._lock = threading.Lock()
        self._is_open = True
        self._is_cut = False
        self._is_last = False
        self._waiting_since: float | None = time.monotonic()

    @property
    def waiting_since(self) -> float | None:
        """Since when a whole request is missing (monotonic); None while one is answered."""
        return self._waiting_since

    @property
    def is_cut(self) -> bool:
        """Whether it was told to end."""
        return self._is_cut

    def cut(self) -> None:
        """Ends the connection now, whatever it is doing."""
        with self._lock:
            self._is_cut = True
            if self._is_open:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Ends the connection after the answer it is sending, at once when there is none."""
        self._is_last = True
        if self._waiting_since is not None:
            self.cut()

    def run(self) -> None:
        """Answers requests until either side has enough; closes the socket."""
        try:
            self._prepare()
            while self._serve_next():
                pass
        except (_Over, ConnectionError, TimeoutError, BlockingIOError):
            pass  # the other side went, or takes nothing
        finally:
            with self._lock:
                self._is_open = False
                self._socket.close()

    def _prepare(self) -> None:
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limit(socket.SO_SNDTIMEO, self._patience.send)

    def _serve_next(self) -> bool:
        """Answers one request; whether another may come."""
        self._waiting_since = time.monotonic()
        request: Request | None = None
        try:
            head = self._read_head()
            if head is None:
                return False
            self._waiting_since = None
            request = read_head(head)
            answer = self._desk.answer(request)
        except Refusal as refusal:
            self._waiting_since = None
            return self._refuse(refusal, request)
        with answer.readable:
            return self._send_answer(answer, request)

    # In

    def _read_head(self) -> bytes | None:
        """The next request's head; None when the other side has ended, or is idle for too long."""
        received = self._received
        deadline = time.monotonic() + self._patience.idle
        begun = False
        while True:
            while received.startswith(b"\r\n"):
                del received[:2]
            if (end := received.find(_END)) >= 0:
                head = bytes(received[:end])
                del received[: end + len(_END)]
                if end > MAX_HEAD_BYTES:
                    raise too_large()
                return head
            if len(received) > MAX_HEAD_BYTES:
                raise too_large()
            if received and not begun:
                begun = True
                deadline = time.monotonic() + self._patience.head
            left = deadline - time.monotonic()
            if left <= 0:
                if begun:
                    raise Refusal(408, "request_timeout", "the request took too long", ends=True)
                return None
            self._limit(socket.SO_RCVTIMEO, left)
            try:
                data = self._socket.recv(MAX_HEAD_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return None
            received += data

    # Out

    def _refuse(self, refusal: Refusal, request: Request | None) -> bool:
        """Whether the connection goes on after it."""
        ends = refusal.ends or self._is_last or request is None or request.ends
        bodiless = request is not None and request.is_bodiless
        self._socket.sendall(refusal_of(refusal, ends=ends, bodiless=bodiless))
        if ends:
            self._linger()
        return not ends

    def _send_answer(self, answer: Answer, request: Request) -> bool:
        """Whether the connection goes on after it."""
        ends = request.ends or self._is_last
        sends = not request.is_bodiless and answer.end > answer.start
        bytes_at_hand = sends and not answer.follows
        self._socket.sendall(head_of(answer, ends=ends), _MORE if bytes_at_hand else 0)
        if sends:
            self._send_body(answer)
        return not (ends or self._is_last)

    def _send_body(self, answer: Answer) -> None:
        """Sends what was promised, or raises `_Over`: a short body tells the other side."""
        readable, at = answer.readable, answer.start
        here = at if answer.follows else answer.end
        paid = 0
        while at < answer.end:
            if at >= here:
                here = min(self._wait_for(readable, at), answer.end)
            if paid <= 0:
                paid = min(self._step(), answer.end - at)
                self._rate.take(paid, lambda: self._is_cut)
            if self._is_cut:
                raise _Over
            count = min(paid, here - at)
            sent = os.sendfile(self._socket.fileno(), readable.descriptor, at, count)
            if sent == 0:
                raise _Over  # somebody has cut the file
            at += sent
            paid -= sent

    def _step(self) -> int:
        """How much to send at once: little enough for all connections to keep a low rate."""
        rate = self._rate.bytes_per_second
        if rate is None:
            return _STEP_BYTES
        return max(_SMALLEST_STEP_BYTES, min(_STEP_BYTES, rate // 200))

    def _wait_for(self, readable: Readable, at: int) -> int:
        """Waits for a byte of a file that is being fetched; returns where what follows it ends."""
        received, moved_at = readable.received_bytes, time.monotonic()
        while True:
            growing = readable.is_growing
            here = readable.wait_covered(at, _LOOK_SECONDS)
            if here > at:
                return here
            now = time.monotonic()
            if received != readable.received_bytes:
                received, moved_at = readable.received_bytes, now
            is_stalled = now - moved_at > self._patience.follow
            if not growing or is_stalled or self._is_last or self._has_gone():
                raise _Over

    def _has_gone(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def _linger(self) -> None:
        """Takes in what is still coming, or the answer might be lost to a reset."""
        deadline = time.monotonic() + _LINGER_SECONDS
        taken = 0
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._limit(socket.SO_RCVTIMEO, _LINGER_SECONDS)
            while taken < _LINGER_BYTES and time.monotonic() < deadline:
                data = self._socket.recv(MAX_HEAD_BYTES)
                if not data:
                    return
                taken += len(data)

    def _limit(self, option: int, seconds: float) -> None:
        """How long the kernel lets one call block: the socket stays blocking, for sendfile(2)."""
        whole, part = divmod(max(seconds, 0.001), 1)
        self._socket.setsockopt(
            socket.SOL_SOCKET, option, struct.pack("ll", int(whole), int(part * 1e6))
        )
