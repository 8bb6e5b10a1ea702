"""Where a file is fetched from, and who is asked."""

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from agent.manifest import ManifestFile
from agent.transfer import TransferError
from agent.urls import FileUrls, UrlDesk
from protos.llmrouter.v1 import agent_pb2, common_pb2

pytestmark = pytest.mark.anyio

FILE = ManifestFile("a.gguf", 1, None, "https://hub.example/acme/tiny/resolve/main/a.gguf")


class Desk:
    """A desk whose questions a test answers."""

    def __init__(self) -> None:
        self.desk = UrlDesk()
        self._asked = asyncio.Event()
        self.desk.asked = self._asked.set

    async def question(self) -> agent_pb2.FileUrlRequest:
        async with asyncio.timeout(20):
            await self._asked.wait()
        self._asked.clear()
        return self.desk.open_questions[-1]

    def urls(self, token: str | None = None, answer_seconds: float = 20) -> FileUrls:
        return FileUrls(
            "t1",
            self.desk,
            asyncio.get_running_loop(),
            hub_url="https://hub.example",
            token=token,
            answer_seconds=answer_seconds,
        )


async def test_a_file_is_first_fetched_by_the_manifests_url() -> None:
    address = Desk().urls().resolve(FILE)

    assert (address.url, dict(address.headers)) == (FILE.url, {})


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        (FILE.url, True),
        ("https://hub.example:443/x", True),
        ("http://hub.example/x", False),
        ("https://hub.example.evil.example/x", False),
        ("https://hub.example:8443/x", False),
        ("https://hub.example@evil.example/x", False),
    ],
)
async def test_the_own_token_is_for_the_hubs_origin_only(url: str, sent: bool) -> None:
    address = Desk().urls(token="own").resolve(ManifestFile("a.gguf", 1, None, url))

    assert dict(address.headers) == ({"Authorization": "Bearer own"} if sent else {})
    assert "own" not in repr(address)


async def test_after_a_refusal_the_router_is_asked_and_its_answer_used() -> None:
    desk = Desk()
    urls = desk.urls(token="own")
    urls.resolve(FILE)
    resolving = asyncio.create_task(asyncio.to_thread(urls.resolve, FILE))
    question = await desk.question()
    desk.desk.answered(
        agent_pb2.FileUrlResult(
            request_id=question.request_id,
            url="https://cdn.example/a?sig=1",
            expire_time=Timestamp(seconds=100),
        )
    )

    address = await resolving

    assert (question.task_id, question.path) == ("t1", "a.gguf")
    assert (address.url, address.expires_at) == ("https://cdn.example/a?sig=1", 100.0)
    assert not address.headers
    assert desk.desk.open_questions == []


async def test_the_routers_refusal_is_the_tasks_error() -> None:
    desk = Desk()
    urls = desk.urls()
    urls.resolve(FILE)
    resolving = asyncio.create_task(asyncio.to_thread(urls.resolve, FILE))
    question = await desk.question()
    error = common_pb2.TaskError(code="hub_gated", message="ask for access")
    desk.desk.answered(agent_pb2.FileUrlResult(request_id=question.request_id, error=error))

    with pytest.raises(TransferError, match="ask for access") as caught:
        await resolving

    assert (caught.value.code, caught.value.retryable) == ("hub_gated", False)


async def test_no_answer_is_a_failure_that_may_pass() -> None:
    desk = Desk()
    urls = desk.urls(answer_seconds=0.01)
    urls.resolve(FILE)

    with pytest.raises(TransferError) as caught:
        await asyncio.to_thread(urls.resolve, FILE)

    assert (caught.value.code, caught.value.retryable) == ("source_unresolved", True)
    assert desk.desk.open_questions == []


async def test_stopping_ends_the_wait_for_an_answer() -> None:
    desk = Desk()
    urls = desk.urls(answer_seconds=3600)
    urls.resolve(FILE)
    resolving = asyncio.create_task(asyncio.to_thread(urls.resolve, FILE))
    await desk.question()

    urls.stop()

    with pytest.raises(TransferError):
        await asyncio.wait_for(resolving, 20)
