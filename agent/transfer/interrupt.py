"""How a thread that is blocked on the network is woken from another one."""

import contextlib
import socket
import threading
from typing import Protocol


class Interrupted(Exception):
    """The read was ended from another thread; `reason` is what `fire` was given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Wakeable(Protocol):
    """What a thread waits on: a socket, or something that ends as one does."""

    def shutdown(self, how: int, /) -> None:
        """Lets the waiting thread return, from another one."""
        ...


class Interrupt:
    """Ends whatever its thread waits for on a socket, within moments, without polling.

    The kernel returns from a blocked `connect` or `recv` as soon as the socket is shut down.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: Wakeable | None = None
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the thread was interrupted, if it was."""
        return self._reason

    def attach(self, connection: Wakeable) -> None:
        """The thread will now wait on this socket. Raises `Interrupted` when it should not."""
        with self._lock:
            if self._reason is not None:
                raise Interrupted(self._reason)
            self._socket = connection

    def detach(self) -> None:
        """The thread no longer waits on a socket."""
        with self._lock:
            self._socket = None

    def fire(self, reason: str) -> None:
        """Wakes the thread; the first reason stays. Safe from any thread."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises `Interrupted` when the thread should stop."""
        if self._reason is not None:
            raise Interrupted(self._reason)
