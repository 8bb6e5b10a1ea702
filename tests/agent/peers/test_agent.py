"""A real agent process that serves, and a router that a test speaks through."""

import asyncio
import http.client
import socket
import time
from pathlib import Path

import pytest

from protos.llmrouter.v1 import agent_pb2, common_pb2
from protos.tickets import ticket_query
from tests.agent.support import agent_process, published, task, until
from tests.fakes.hub import FaultyHub
from tests.fakes.router import FakeRouter

pytestmark = pytest.mark.anyio

KEY = b"the fleet's secret of 32 bytes.."
SIZE = 4 << 20


def ask(address: str, sha256: str, span: str, more: str = "") -> tuple[int, bytes]:
    """A part of a file, as another node asks for it now."""
    query = ticket_query(KEY, sha256, int(time.time()) + 600)
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        target = f"/blobs/{sha256}?{query}{more}"
        connection.request("GET", target, headers={"Range": f"bytes={span}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def asked(address: str, sha256: str, span: str, more: str = "") -> tuple[int, bytes]:
    """The same, while the test's router goes on."""
    return await asyncio.to_thread(ask, address, sha256, span, more)


async def test_an_agent_serves_what_it_fetches_and_what_it_has_fetched(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": SIZE})
    content = (tmp_path / "hub" / model.repo / "a-Q4_0.gguf").read_bytes()
    sha256 = model.files[0].sha256
    assert sha256 is not None
    hub.connection_rate = 1 << 20
    router = FakeRouter(peer_key=KEY)
    await router.start()
    await router.stop()  # an address where nobody listens yet
    with agent_process(tmp_path / "node", router.address) as agent:
        ready = await agent.start()
        address = ready["peer"]
        early, _ = await asked(address, sha256, "0-9")
        await router.start()
        session = await router.session()
        session.assign(task(model))
        await session.report(lambda report: any(t.bytes_done for t in report.tasks))

        missing, _ = await asked(address, sha256, f"0-{SIZE - 1}")
        following, some = await asked(address, sha256, "5-99999", "&wait=1")
        hub.connection_rate = 0
        await session.task("t1", common_pb2.TASK_STATE_COMPLETED)
        finished, whole = await asked(address, sha256, f"0-{SIZE - 1}")

        assert list(session.hello.peer_addresses) == [address]
        assert (early, missing) == (503, 409)
        assert (following, some) == (206, content[5:100_000])
        assert (finished, whole) == (206, content)
        await router.stop()
        assert (await asked(address, sha256, "0-9")) == (206, content[:10])


async def test_the_operators_ceiling_beats_the_flag(tmp_path: Path) -> None:
    arguments = ("--max-upload-rate", "5MB")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address, *arguments) as agent:
            await agent.start()
            session = await router.session()
            session.send(
                agent_pb2.ConnectResponse(
                    assignment=agent_pb2.Assignment(
                        revision=1, max_upload_rate_bytes_per_second=7_000
                    )
                )
            )

            await until(lambda: '"bytes_per_second": 7000' in agent.log)

            assert session.hello.max_upload_rate_bytes_per_second == 5_000_000


async def test_without_peers_nothing_is_served_or_announced(tmp_path: Path) -> None:
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address, "--no-peers") as agent:
            ready = await agent.start()
            session = await router.session()

            assert "peer" not in ready
            assert list(session.hello.peer_addresses) == []


async def test_an_agent_ends_at_once_while_others_hold_connections(tmp_path: Path) -> None:
    with agent_process(tmp_path / "node", "127.0.0.1:1") as agent:
        ready = await agent.start()
        host, _, port = ready["peer"].rpartition(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(b"GET /blo")

            assert await agent.terminate() == 0

            assert idle.recv(1) == b""


async def test_a_port_that_is_taken_ends_the_agent_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with agent_process(tmp_path / "node", "127.0.0.1:1", "--peer-port", port) as agent:
            process = agent.spawn()

            await until(lambda: process.poll() is not None)

            assert process.returncode == 1
            assert f"127.0.0.1:{port}" in agent.log
            assert "--peer-port" in agent.log
