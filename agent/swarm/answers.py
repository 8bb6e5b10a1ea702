"""Tells the router the digests of pieces that are on this disk, when it asks."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.background import be_nice
from agent.store import Readable, StoreError
from agent.swarm.digests import digest_of
from agent.swarm.messages import digests_to_pb
from protos import pieces
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2

log = get_logger(__name__)

_BATCH_PIECES = 32
_BATCH_SECONDS = 0.1


class Answers:
    """One request after the other, in a thread of low priority; answers leave as they come."""

    def __init__(
        self,
        find: Callable[[str], Readable | None],
        send: Callable[[agent_pb2.ConnectRequest], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`find` gives what is on the disk of a file; `send` is called in the event loop."""
        self._find = find
        self._send = send
        self._loop = loop
        self._threads = ThreadPoolExecutor(1, "digests", initializer=be_nice)
        self._over = threading.Event()  # of this session

    def ask(self, request: agent_pb2.DigestRequest) -> None:
        """Takes in a request; returns at once."""
        self._threads.submit(self._answer, request, self._over)

    def forget(self) -> None:
        """Nobody waits for answers any more."""
        self._over.set()
        self._over = threading.Event()

    def close(self) -> None:
        """Ends; what is being read is not waited for."""
        self._over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: agent_pb2.DigestRequest, over: threading.Event) -> None:
        digests: dict[int, bytes] = {}
        missing: list[int] = []
        since = time.monotonic()
        try:
            readable = self._find(request.sha256)
        except (OSError, StoreError) as error:
            log.warning("a file that others want cannot be read", cause=str(error))
            readable = None
        try:
            for piece in request.pieces:
                if over.is_set():
                    return
                digest = _digest(readable, request, piece)
                if digest is None:
                    missing.append(piece)
                else:
                    digests[piece] = digest
                due = time.monotonic() - since >= _BATCH_SECONDS
                if due or len(digests) + len(missing) >= _BATCH_PIECES:
                    self._tell(request.sha256, digests, missing, over)
                    digests, missing, since = {}, [], time.monotonic()
            if digests or missing:
                self._tell(request.sha256, digests, missing, over)
        finally:
            if readable is not None:
                readable.close()

    def _tell(
        self, sha256: str, digests: dict[int, bytes], missing: list[int], over: threading.Event
    ) -> None:
        message = digests_to_pb(sha256, digests, missing)
        try:
            self._loop.call_soon_threadsafe(lambda: over.is_set() or self._send(message))
        except RuntimeError:  # the loop is gone: the process is ending
            over.set()


def _digest(
    readable: Readable | None, request: agent_pb2.DigestRequest, piece: int
) -> bytes | None:
    """The digest of a piece; None when it is not here, or cut otherwise."""
    if readable is None or readable.size != request.size_bytes:
        return None
    if request.piece_bytes != pieces.piece_bytes(readable.size):
        return None
    try:
        start, end = pieces.piece_span(piece, readable.size)
        return digest_of(readable, start, end) if readable.covers(start, end) else None
    except ValueError:
        return None
    except StoreError as error:
        log.warning("a piece that others want cannot be read", cause=str(error))
        return None
