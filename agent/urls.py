"""Where a task's files are fetched from: the manifest's URL, or one that the router found out."""

import asyncio
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from urllib.parse import urlsplit

from agent.manifest import ManifestFile
from agent.transfer import SourceUrl, TransferError
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2

log = get_logger(__name__)

ANSWER_SECONDS = 60.0


class UrlDesk:
    """Asks the router for URLs and hands out its answers. Belongs to the event loop.

    A question outlives a broken stream: `open_questions` are put again at the next one.
    """

    def __init__(self, on_router: Callable[[str], str] = str) -> None:
        """`on_router` makes the address of a `router:/path`; from any thread."""
        self.on_router = on_router
        self._open: dict[str, agent_pb2.FileUrlRequest] = {}
        self._answers: dict[str, asyncio.Future[agent_pb2.FileUrlResult]] = {}
        self.asked: Callable[[], None] = lambda: None  # called after each new question

    @property
    def open_questions(self) -> list[agent_pb2.FileUrlRequest]:
        """What the router has not answered yet."""
        return list(self._open.values())

    async def ask(self, task_id: str, path: str) -> agent_pb2.FileUrlResult:
        """Waits for the router's answer, as long as it takes; cancel to give up."""
        request_id = secrets.token_hex(8)
        answer: asyncio.Future[agent_pb2.FileUrlResult] = asyncio.Future()
        self._answers[request_id] = answer
        self._open[request_id] = agent_pb2.FileUrlRequest(
            request_id=request_id, task_id=task_id, path=path
        )
        self.asked()
        try:
            return await answer
        finally:
            del self._answers[request_id], self._open[request_id]

    def answered(self, result: agent_pb2.FileUrlResult) -> None:
        """Passes an answer on; one that nobody waits for is dropped."""
        answer = self._answers.get(result.request_id)
        if answer is not None and not answer.done():
            answer.set_result(result)


class FileUrls:
    """The URLs of one run of a task. `resolve` is for the transfer's threads.

    What the router itself has is fetched from there. Any other file is first fetched by its
    manifest's URL, with the node's own token where that URL is on the Hub. When that was refused,
    the router is asked, now and at every later refusal.
    """

    def __init__(
        self,
        task_id: str,
        desk: UrlDesk,
        loop: asyncio.AbstractEventLoop,
        *,
        hub_url: str,
        token: str | None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._task_id = task_id
        self._desk = desk
        self._loop = loop
        self._hub_origin = _origin(hub_url)
        self._token = token
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._tried: set[str] = set()
        self._waiting: set[asyncio.Future[agent_pb2.FileUrlResult]] = set()
        self._stopped = False

    def resolve(self, file: ManifestFile) -> SourceUrl:
        """The address to fetch from now; may block for as long as the router takes to answer.

        Raises `TransferError`.
        """
        if file.is_from_router:
            return SourceUrl(self._desk.on_router(file.url))
        with self._lock:
            first = file.path not in self._tried
            self._tried.add(file.path)
        if first:
            return SourceUrl(file.url, self._own_credentials(file.url))
        result = self._ask(file.path)
        if result.HasField("error"):
            error = result.error
            raise TransferError(
                error.code or "source_unresolved",
                error.message or "the router knows no address of this file",
                retryable=error.retryable,
            )
        if not result.url.startswith(("http://", "https://")):
            raise TransferError(
                "source_unresolved", "the router's answer holds no address", retryable=True
            )
        expires = result.expire_time
        return SourceUrl(
            result.url,
            expires_at=expires.ToNanoseconds() / 1e9 if result.HasField("expire_time") else None,
        )

    def stop(self) -> None:
        """Lets everybody who waits for an answer return now; from any thread."""
        with self._lock:
            self._stopped = True
        self._loop.call_soon_threadsafe(self._give_up)

    def _ask(self, path: str) -> agent_pb2.FileUrlResult:
        log.info(
            "the source refuses this node; asking the router", task_id=self._task_id, file=path
        )
        asked = asyncio.run_coroutine_threadsafe(self._answer(path), self._loop)
        try:
            return asked.result()
        except (TimeoutError, FutureTimeout, CancelledError) as error:
            raise TransferError(
                "source_unresolved",
                "the source refuses this node, and the router did not say where else to fetch",
                retryable=True,
            ) from error

    async def _answer(self, path: str) -> agent_pb2.FileUrlResult:
        question = asyncio.ensure_future(self._desk.ask(self._task_id, path))
        self._waiting.add(question)
        try:
            if self._stopped:
                question.cancel()
            async with asyncio.timeout(self._answer_seconds):
                return await question
        finally:
            self._waiting.discard(question)

    def _give_up(self) -> None:
        for question in self._waiting:
            question.cancel()

    def _own_credentials(self, url: str) -> dict[str, str]:
        if self._token is None or _origin(url) != self._hub_origin:
            return {}
        return {"Authorization": f"Bearer {self._token}"}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
