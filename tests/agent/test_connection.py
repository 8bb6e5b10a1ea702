"""The stream to the router, over the real transport."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.connection import Backoff, Connection, Outbox
from protos.llmrouter.v1 import agent_pb2
from tests.fakes.router import FakeRouter, fenced

pytestmark = pytest.mark.anyio

QUICK = Backoff(first=0.01, ceiling=0.05, fenced=0.3)


class Talk:
    """A node that only keeps the outbox of each session, and what it was told."""

    def __init__(self) -> None:
        self.outboxes: asyncio.Queue[Outbox] = asyncio.Queue()
        self.commands: asyncio.Queue[agent_pb2.ConnectResponse] = asyncio.Queue()

    def hello(self) -> agent_pb2.Hello:
        return agent_pb2.Hello(node_id="node-1")

    def begin(self, welcome: agent_pb2.Welcome, outbox: Outbox) -> None:
        self.outboxes.put_nowait(outbox)

    async def converse(self) -> None:
        await asyncio.Event().wait()

    async def obey(self, command: agent_pb2.ConnectResponse) -> None:
        self.commands.put_nowait(command)


@asynccontextmanager
async def connected(router: FakeRouter, talk: Talk) -> AsyncIterator[None]:
    running = asyncio.create_task(Connection(router.address, talk, QUICK).run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def report(revision: int) -> agent_pb2.ConnectRequest:
    return agent_pb2.ConnectRequest(report=agent_pb2.Report(assignment_revision=revision))


async def test_commands_arrive_and_events_are_sent() -> None:
    talk = Talk()
    async with FakeRouter() as router, connected(router, talk), asyncio.timeout(20):
        session = await router.session()
        session.assign(revision=5)

        command = await talk.commands.get()
        (await talk.outboxes.get()).put("report", lambda: report(5))
        received = await session.report()

    assert session.hello.node_id == "node-1"
    assert command.assignment.revision == 5
    assert received.assignment_revision == 5


async def test_it_comes_back_after_every_end_of_the_stream() -> None:
    talk = Talk()
    async with FakeRouter() as router, connected(router, talk):
        (await router.session()).close()
        await router.session()
        await router.stop()
        await router.start()

        await router.session()

    assert router.streams >= 3


async def test_a_fault_in_one_session_does_not_end_the_agent() -> None:
    class Clumsy(Talk):
        async def obey(self, command: agent_pb2.ConnectResponse) -> None:
            raise ValueError("a bug")

    async with FakeRouter() as router, connected(router, Clumsy()):
        (await router.session()).assign()

        await router.session()


async def test_a_fenced_session_keeps_away_longer_than_a_lost_one() -> None:
    talk = Talk()
    loop = asyncio.get_running_loop()
    async with FakeRouter() as router:
        router.refusals = [fenced()]
        begun = loop.time()
        async with connected(router, talk):
            await router.session()

    assert loop.time() - begun >= QUICK.fenced / 2


async def test_of_two_messages_with_one_key_only_the_newest_is_sent() -> None:
    outbox = Outbox()
    outbox.put("report", lambda: report(1))
    outbox.put("inventory", lambda: agent_pb2.ConnectRequest(inventory=agent_pb2.Inventory()))
    outbox.put("report", lambda: report(2))

    first, second = await outbox.take(), await outbox.take()

    assert first.report.assignment_revision == 2
    assert second.HasField("inventory")


async def test_a_message_that_is_no_longer_needed_is_passed_over() -> None:
    outbox = Outbox()
    outbox.put("inventory", lambda: None)
    waiting = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put("report", lambda: report(1))

    assert (await asyncio.wait_for(waiting, 20)).report.assignment_revision == 1


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_waits_grow_to_a_ceiling_and_differ(failures: int, chance: float) -> None:
    backoff = Backoff(first=0.5, ceiling=10.0)

    wait = backoff.wait(failures, chance)

    assert 0.25 <= wait <= 10.0
    assert wait <= backoff.wait(failures + 1, chance)
    assert backoff.wait(failures, 0.0) < backoff.wait(failures, 1.0)
