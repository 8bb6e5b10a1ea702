"""A real agent process, a real hub, and a router that a test speaks through."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from agent.store import Store
from protos.llmrouter.v1 import agent_pb2, common_pb2
from tests.agent.support import (
    AgentProcess,
    agent_process,
    is_whole,
    published,
    task,
    until,
    visible,
    without,
)
from tests.fakes.hub import FaultyHub, StallAfter
from tests.fakes.router import FakeRouter, fenced

pytestmark = pytest.mark.anyio

COMPLETED = common_pb2.TASK_STATE_COMPLETED
DOWNLOADING = common_pb2.TASK_STATE_DOWNLOADING
FAILED = common_pb2.TASK_STATE_FAILED
PAUSED = common_pb2.TASK_STATE_PAUSED


async def test_an_agent_says_who_it_is_and_is_ready_before_any_router_answers(
    tmp_path: Path,
) -> None:
    router = FakeRouter()
    await router.start()
    await router.stop()  # an address where nobody listens yet
    with agent_process(
        tmp_path / "node",
        router.address,
        "--name",
        "n1",
        "--label",
        "site=north",
        "--reserve",
        "5MB",
    ) as agent:
        ready = await agent.start()
        await router.start()

        session = await router.session()

        assert agent.process is not None
        assert ready["pid"] == agent.process.pid
        assert session.hello.name == "n1"
        assert session.hello.labels == {"site": "north"}
        assert session.hello.reserve_bytes == 5_000_000
        assert session.hello.max_concurrent == 2
        assert session.hello.disk_total_bytes > 0
        assert session.hello.memory_bytes > 0
        assert session.hello.node_id == (agent.data_dir / "node-id").read_text().strip()
        await router.stop()


async def test_an_order_is_fetched_verified_and_reported_until_it_is_no_longer_listed(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 300_000, "mmproj-a.gguf": 1_000})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))

            done = await session.task("t1", COMPLETED)
            again = await session.task("t1", COMPLETED)
            held = await session.inventory(lambda inventory: len(inventory.files) == 2)
            session.assign()
            settled = await session.report(lambda report: report.assignment_revision == 2)

    assert done.bytes_done == done.bytes_total == model.total_bytes
    assert done.bytes_from == common_pb2.BytesBySource(hub=model.total_bytes)
    assert again == done
    assert {file.sha256 for file in held.files} == {file.sha256 for file in model.files}
    assert not settled.tasks
    assert is_whole(agent.models_dir, model)


async def test_what_is_on_disk_is_found_verified_and_not_fetched_again(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 100_000})
    content = (tmp_path / "hub" / model.repo / "a-Q4_0.gguf").read_bytes()
    with agent_process(tmp_path / "node", "127.0.0.1:1") as agent:
        (path,) = visible(agent.models_dir, model)
        blob = path.parents[2] / "blobs" / hashlib.sha256(content).hexdigest()
        for folder in (path.parent, blob.parent):
            folder.mkdir(parents=True)
        blob.write_bytes(content)
        path.symlink_to(blob)
        async with FakeRouter() as router:
            agent.router = router.address
            await agent.start()
            session = await router.session()

            held = await session.inventory(lambda inventory: not inventory.partial)
            session.assign(task(model))
            done = await session.task("t1", COMPLETED)

    assert [(f.repo, f.commit, f.path, f.sha256) for f in held.files] == [
        (model.repo, model.commit, "a-Q4_0.gguf", model.files[0].sha256)
    ]
    assert done.bytes_from == common_pb2.BytesBySource(disk=model.total_bytes)
    assert hub.bytes_served("a-Q4_0.gguf") == 0


async def test_a_killed_agent_goes_on_where_it_was_although_the_router_is_away(
    tmp_path: Path, hub: FaultyHub
) -> None:
    size = 24 << 20
    hub.connection_rate = 1 << 20
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    router = FakeRouter()
    await router.start()
    with agent_process(tmp_path / "node", router.address) as agent:
        await agent.start()
        session = await router.session()
        node_id = session.hello.node_id
        session.assign(task(model))
        await session.report(lambda report: any(t.bytes_done for t in report.tasks))
        await until(lambda: journal_bytes(agent) > 0)
        first = journal_bytes(agent)
        await until(lambda: journal_bytes(agent) > first)
        await router.stop()

        await agent.kill()
        hub.connection_rate = 0
        served = hub.bytes_served("a-Q4_0.gguf")
        durable = Store(agent.models_dir, tmp_path / "look").find(model)[0].partial_bytes
        await agent.start()
        await until(lambda: is_whole(agent.models_dir, model))
        await router.start()
        session = await router.session()
        done = await session.task("t1", COMPLETED)
        await router.stop()

    assert session.hello.node_id == node_id
    assert done.bytes_done == size
    assert durable > 0
    assert hub.bytes_served("a-Q4_0.gguf") - served <= size - durable


async def test_a_download_goes_on_while_the_router_is_away_and_is_settled_afterwards(
    tmp_path: Path, hub: FaultyHub
) -> None:
    size = 2 << 20
    hub.connection_rate = 512 << 10
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.task("t1", DOWNLOADING)
            await router.stop()
            hub.connection_rate = 0
            await until(lambda: is_whole(agent.models_dir, model))

            router.epoch += 1
            await router.start()
            session = await router.session()
            done = await session.task("t1", COMPLETED)

    assert done.bytes_from.hub == size
    assert hub.bytes_served("a-Q4_0.gguf") <= size + 200_000
    assert all(json.loads(line)["event"] for line in agent.log.splitlines())


async def test_a_paused_task_keeps_its_bytes_and_goes_on_from_them(
    tmp_path: Path, hub: FaultyHub
) -> None:
    size = 24 << 20
    hub.connection_rate = 4 << 20
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.report(lambda report: any(t.bytes_done > size // 3 for t in report.tasks))
            session.assign(task(model, paused=True))
            paused = await session.task("t1", PAUSED)
            hub.connection_rate = 0
            session.assign(task(model))
            done = await session.task("t1", COMPLETED)

    assert paused.bytes_done > size // 3
    assert done.bytes_done == size
    assert hub.bytes_served("a-Q4_0.gguf") < size * 1.5


async def test_a_task_that_is_no_longer_listed_stops_and_frees_the_disk(
    tmp_path: Path, hub: FaultyHub
) -> None:
    size = 4 << 20
    hub.connection_rate = 256 << 10
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.report(lambda report: any(t.bytes_done for t in report.tasks))

            session.assign()
            await until(lambda: not partials(agent))
            report = await session.report(lambda report: not report.tasks)

    assert not report.tasks
    assert not any(path.exists() for path in visible(agent.models_dir, model))


async def test_a_cancelled_task_whose_bytes_are_to_stay_keeps_them(
    tmp_path: Path, hub: FaultyHub
) -> None:
    hub.connection_rate = 256 << 10
    kept = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 4 << 20})
    gone = published(hub, tmp_path / "hub", {"b-Q4_0.gguf": 4 << 20}, repo="acme/other")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(kept, "t1"), task(gone, "t2"))
            await session.report(lambda report: sum(t.bytes_done > 0 for t in report.tasks) == 2)

            session.assign(keep_partials=[task(kept).manifest])
            await until(lambda: len(partials(agent)) == 1)

    (left,) = partials(agent)
    assert left.name.startswith(kept.files[0].sha256 or "?")


async def test_a_gated_file_is_fetched_by_the_url_that_the_router_finds_and_no_log_tells_it(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 50_000})
    content = (tmp_path / "hub" / model.repo / "a-Q4_0.gguf").read_bytes()
    copy = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": content}, repo="acme/open")
    hub.gate(model.repo, "owner-token")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address, "--log-level", "debug") as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            question = await session.file_url_request()
            session.send(
                agent_pb2.ConnectResponse(
                    file_url_result=agent_pb2.FileUrlResult(
                        request_id=question.request_id,
                        url=f"{copy.files[0].url}?X-Sig=marker-secret",
                    )
                )
            )
            done = await session.task("t1", COMPLETED)

    assert (question.task_id, question.path) == ("t1", "a-Q4_0.gguf")
    assert done.bytes_from.hub == model.total_bytes
    assert "marker-secret" not in agent.log


async def test_a_router_that_refuses_a_gated_file_ends_the_task_with_its_reason(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 50_000})
    hub.gate(model.repo, "owner-token")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            question = await session.file_url_request()
            session.send(
                agent_pb2.ConnectResponse(
                    file_url_result=agent_pb2.FileUrlResult(
                        request_id=question.request_id,
                        error=common_pb2.TaskError(code="hub_gated", message="ask for access"),
                    )
                )
            )
            failed = await session.task("t1", FAILED)

    assert (failed.error.code, failed.error.message) == ("hub_gated", "ask for access")


async def test_the_own_token_goes_to_the_hub_and_nowhere_else(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 50_000})
    hub.gate(model.repo, "own-token")
    with FaultyHub(tmp_path / "hub") as stranger:
        other = published(stranger, tmp_path / "hub", {"b-Q4_0.gguf": 50_000}, repo="acme/other")
        async with FakeRouter() as router:
            with agent_process(
                tmp_path / "node", router.address, HF_TOKEN="own-token", HF_ENDPOINT=hub.url
            ) as agent:
                await agent.start()
                session = await router.session()
                session.assign(task(model, "t1"), task(other, "t2"))
                await session.task("t1", COMPLETED)
                await session.task("t2", COMPLETED)

        assert not any(request.authorization for request in stranger.requests)
    assert "own-token" not in agent.log


async def test_an_eviction_removes_the_files_of_that_model_only(
    tmp_path: Path, hub: FaultyHub
) -> None:
    files = {"a-Q4_0.gguf": 10_000, "a-Q8_0.gguf": 20_000, "mmproj-a.gguf": 1_000}
    whole = published(hub, tmp_path / "hub", files)
    small, large = without(whole, "a-Q8_0.gguf"), without(whole, "a-Q4_0.gguf")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(small, "t1"), task(large, "t2"))
            await session.task("t1", COMPLETED)
            await session.task("t2", COMPLETED)

            session.assign(
                evictions=[agent_pb2.Eviction(eviction_id="e1", manifest=task(small).manifest)]
            )
            done = await session.report(lambda report: "e1" in report.done_eviction_ids)
            session.assign()
            settled = await session.report(lambda report: report.assignment_revision == 3)

    assert not visible(agent.models_dir, small)[0].exists()
    assert is_whole(agent.models_dir, large)
    assert list(done.done_eviction_ids) == ["e1"]
    assert not settled.done_eviction_ids


async def test_a_new_attempt_starts_over_from_what_is_there(tmp_path: Path, hub: FaultyHub) -> None:
    size = 24 << 20
    hub.connection_rate = 4 << 20
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.report(lambda report: any(t.bytes_done > size // 3 for t in report.tasks))
            hub.connection_rate = 0
            session.assign(task(model, attempt=2))
            done = await session.task("t1", COMPLETED, attempt=2)

    assert done.bytes_done == size
    assert hub.bytes_served("a-Q4_0.gguf") < size * 1.5


async def test_sigterm_ends_an_agent_in_mid_download_with_exit_code_0(
    tmp_path: Path, hub: FaultyHub
) -> None:
    hub.connection_rate = 128 << 10
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 4 << 20})
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.report(lambda report: any(t.bytes_done for t in report.tasks))

            code = await agent.terminate()

    assert code == 0
    assert not (agent.folder / "ready.json").exists()
    assert partials(agent)


async def test_sigterm_does_not_wait_for_a_silent_source_or_an_unanswered_question(
    tmp_path: Path, hub: FaultyHub
) -> None:
    silent = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 1 << 20})
    gated = published(hub, tmp_path / "hub", {"b-Q4_0.gguf": 50_000}, repo="acme/gated")
    hub.gate(gated.repo, "owner-token")
    hub.always("*a-Q4_0.gguf", StallAfter(1_000))
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(silent, "t1"), task(gated, "t2"))
            await session.file_url_request()
            await until(lambda: hub.bytes_served("a-Q4_0.gguf") > 0)

            async with asyncio.timeout(10):
                code = await agent.terminate()

    assert code == 0


async def test_a_fenced_agent_says_so_loudly_and_stays_away(tmp_path: Path) -> None:
    async with FakeRouter() as router:
        router.refusals = [fenced()]
        with agent_process(tmp_path / "node", router.address) as agent:
            await agent.start()
            await until(lambda: "another agent is connected" in agent.log)

    line = next(json.loads(line) for line in agent.log.splitlines() if "another agent is" in line)
    assert line["level"] == "error"
    assert line["retry_in_seconds"] > 60
    assert router.streams == 1


async def test_a_second_agent_with_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    with agent_process(tmp_path / "node", "127.0.0.1:1") as agent:
        await agent.start()
        second = AgentProcess(tmp_path / "node", "127.0.0.1:1")

        code = await asyncio.to_thread(second.spawn().wait, 30)

        assert code == 1
        assert "another agent is using" in agent.log


def partials(agent: AgentProcess) -> list[Path]:
    """The unfinished files in the agent's store."""
    return list(agent.models_dir.glob(".locks/llm-router/*.part"))


def journal_bytes(agent: AgentProcess) -> int:
    """How much the journals of unfinished files say."""
    return sum(path.stat().st_size for path in agent.models_dir.glob(".locks/llm-router/*.journal"))
