"""Listens for other nodes, and bounds what they may take of this one."""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.background import be_nice
from agent.peers.answer import Contents, Desk
from agent.peers.reply import refusal_of
from agent.peers.request import Refusal
from agent.peers.session import Patience, Session
from agent.transfer import RateLimit
from protos.daemon.listen import address
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_BACKLOG = 256
_LOWER_EFFORT = 0x04  # the DSCP LE, 000001 (RFC 8622), where it stands in the field
_CUT_SECONDS = 1.0  # for a thread to notice that its connection was cut
_FULL_SECONDS = 0.2  # the system has no more descriptors: try again after so long


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """How many connections are served at once, and how long each may keep us waiting."""

    connections: int = 64
    patience: Patience = field(default_factory=Patience)


class PeerServer:
    """Serves contents by digest over HTTP/1.1, each connection in a thread of low priority.

    A connection that is one too many takes the place of the one that has waited longest for its
    next request; when all are being answered it is refused.
    """

    def __init__(
        self,
        contents: Contents,
        key: Callable[[], bytes],
        rate: RateLimit,
        limits: ServingLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` signs tickets, empty until it is known; `rate` is for all connections together;
        `clock` is in seconds since the epoch.
        """
        self._desk = Desk(contents, key, clock)
        self._rate = rate
        self._limits = limits or ServingLimits()
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._host = ""
        self._accepting: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake, self._woken = socket.socketpair()

    @property
    def port(self) -> int:
        """Where it listens; 0 before `start`."""
        return 0 if self._listener is None else int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        """`host:port`, the host as it was given."""
        return address(self._host, self.port)

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._sessions)

    def start(self, host: str, port: int) -> None:
        """Listens; port 0: any free one; "::" listens on IPv4 too. Raises `OSError`."""
        bare = host.removeprefix("[").removesuffix("]")
        try:
            family, kind, number, _, place = socket.getaddrinfo(
                bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, number)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bare != "::")
                listener.bind(place)
                listener.listen(_BACKLOG)
                listener.setblocking(False)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot listen for other nodes on {address(bare, port)}: {error.strerror}; choose "
                "another --peer-port or --peer-host, or add --no-peers",
            ) from error
        self._host = bare
        self._listener = listener
        self._accepting = threading.Thread(target=self._accept, name="peers-accept", daemon=True)
        self._accepting.start()

    def set_rate(self, bytes_per_second: int | None) -> None:
        """Sets the ceiling for all connections together; None: no limit. From any thread."""
        if bytes_per_second != self._rate.bytes_per_second:
            self._rate.change(bytes_per_second)
            log.info("the upload rate limit changed", bytes_per_second=bytes_per_second)

    def close(self, drain_seconds: float = 2.0) -> None:
        """Accepts no more, lets answers end for so long, then cuts them. Blocks; ends once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake.send(b"\0")
        if self._accepting is not None:
            self._accepting.join()
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            sessions = dict(self._sessions)
        for session in sessions:
            session.finish()
        deadline = time.monotonic() + drain_seconds
        for thread in sessions.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        for session in sessions:
            session.cut()
        self._rate.wake()
        deadline = time.monotonic() + _CUT_SECONDS
        for thread in sessions.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._wake.close()
        self._woken.close()

    # The thread that accepts

    def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                selector.select()
                if self._stopping.is_set():
                    return
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue
                except OSError as error:
                    log.warning("another node cannot be served now", cause=str(error))
                    self._stopping.wait(_FULL_SECONDS)
                    continue
                try:
                    self._take(connection)
                except Exception:  # of one connection; the others go on
                    log.exception("a connection from another node could not be taken")
                    connection.close()

    def _take(self, connection: socket.socket) -> None:
        _mark_as_lower_effort(connection)
        with self._lock:
            live = [session for session in self._sessions if not session.is_cut]
            if len(live) >= self._limits.connections:
                waiting = [s for s in live if s.waiting_since is not None]
                if not waiting or len(self._sessions) >= 2 * self._limits.connections:
                    _turn_away(connection)
                    return
                min(waiting, key=lambda s: s.waiting_since or 0.0).cut()
            session = Session(connection, self._desk, self._rate, self._limits.patience)
            thread = threading.Thread(
                target=self._serve, args=(session,), name="peers-serve", daemon=True
            )
            self._sessions[session] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            with self._lock:
                del self._sessions[session]
            raise

    # The threads that serve

    def _serve(self, session: Session) -> None:
        be_nice()
        try:
            session.run()
        except OSError as error:
            log.warning("a connection from another node broke", cause=str(error))
        except Exception:  # of one connection; the others go on
            log.exception("a connection from another node broke")
        finally:
            with self._lock:
                self._sessions.pop(session, None)


def _turn_away(connection: socket.socket) -> None:
    """Answers without waiting for anything, then closes."""
    refusal = Refusal(
        503,
        "too_many_connections",
        "this node serves as many connections as it may; try another node, or again soon",
        {"Retry-After": "1"},
    )
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(refusal_of(refusal, ends=True))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


def _mark_as_lower_effort(connection: socket.socket) -> None:
    """Lets routers on the way put others first, where they look and the system allows it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _LOWER_EFFORT)
    if connection.family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _LOWER_EFFORT)
