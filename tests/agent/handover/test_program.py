"""A real agent process that hands models over, repairs them, and keeps a quota."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from protos.llmrouter.v1 import agent_pb2, common_pb2
from tests.agent.handover.test_scrub import flip
from tests.agent.support import agent_process, is_whole, published, task, until, visible
from tests.fakes.hub import FaultyHub
from tests.fakes.router import FakeRouter

pytestmark = pytest.mark.anyio

COMPLETED = common_pb2.TASK_STATE_COMPLETED
FAILED = common_pb2.TASK_STATE_FAILED
MB = 1 << 20


async def test_a_model_is_shown_and_announced_when_it_is_there_and_hidden_when_it_goes(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 300_000, "mmproj-a.gguf": 1_000})
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import json, os, sys\n"
        f"assert os.path.exists({str(tmp_path / 'view/a-Q4_0/a-Q4_0.gguf')!r})\n"
        f"json.dump(dict(os.environ), open({str(tmp_path / 'told')!r}, 'w'))\n"
        "print('from the hook')\n"
    )
    async with FakeRouter() as router:
        with agent_process(
            tmp_path / "node",
            router.address,
            *("--view-llama-server", str(tmp_path / "view")),
            *("--after-commit", f"{sys.executable} {hook}"),
        ) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model, "t7"))
            await session.task("t7", COMPLETED)
            await until(lambda: "the after-commit command is done" in agent.log)
            shown = {path.name for path in (tmp_path / "view" / "a-Q4_0").iterdir()}
            eviction = agent_pb2.Eviction(eviction_id="e1", manifest=task(model).manifest)
            session.assign(evictions=[eviction])
            await session.report(lambda report: "e1" in report.done_eviction_ids)
            await until(lambda: not list((tmp_path / "view").iterdir()))
            code = await agent.terminate()

    told = json.loads((tmp_path / "told").read_text())
    assert shown == {"a-Q4_0.gguf", "mmproj-a.gguf"}
    assert told["LLM_ROUTER_MODEL"] == model.model_name
    assert told["LLM_ROUTER_MODEL_PATH"] == str(visible(agent.models_dir, model)[0])
    assert told["LLM_ROUTER_TASK"] == "t7"
    assert "from the hook" in agent.log
    assert code == 0


async def test_an_agent_killed_before_its_hook_ran_runs_it_after_the_next_start(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 1_000})
    hook = tmp_path / "hook.py"
    hook.write_text(
        f"import os, time\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)\n"
    )
    runs = tmp_path / "runs"
    async with FakeRouter() as router:
        with agent_process(
            tmp_path / "node", router.address, "--after-commit", f"{sys.executable} {hook}"
        ) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.task("t1", COMPLETED)
            session.assign()  # the router has heard it, and asks for it no more
            await session.report(lambda report: report.assignment_revision == 2)
            await until(runs.exists)
            await agent.kill()
            (tmp_path / "go").touch()

            await agent.start()
            await until(lambda: "the after-commit command is done" in agent.log)

    assert runs.read_text() == "xx"


async def test_a_damaged_model_is_no_longer_held_and_a_repair_fetches_the_bad_pieces_only(
    tmp_path: Path, hub: FaultyHub
) -> None:
    size = 40 * MB
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": size})
    sums = tmp_path / "node" / "data" / "scrub"
    async with FakeRouter() as router:
        with agent_process(
            tmp_path / "node", router.address, "--scrub-interval", "0.2s", "--scrub-rate", "0"
        ) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.task("t1", COMPLETED)
            session.assign()
            await session.inventory(lambda inventory: len(inventory.files) == 1)
            await until(lambda: _sums(sums))
            flip(visible(agent.models_dir, model)[0].resolve(), 20 * MB)

            await session.inventory(lambda inventory: not inventory.files)
            before = hub.bytes_served("a-Q4_0.gguf")
            session.assign(task(model, "t2"))
            done = await session.task("t2", COMPLETED)
            await session.inventory(lambda inventory: len(inventory.files) == 1)
            served = hub.bytes_served("a-Q4_0.gguf") - before

            assert is_whole(agent.models_dir, model)
            assert "a file is damaged" in agent.log
    assert served == 16 * MB
    assert done.bytes_from == common_pb2.BytesBySource(disk=24 * MB, hub=16 * MB)


def _sums(folder: Path) -> list[Path]:
    """The contents whose pieces are known."""
    return [path for path in folder.glob("*.json") if '"crcs": []' not in path.read_text()]


async def test_a_task_that_cannot_fit_the_quota_is_refused_and_fits_once_room_can_be_made(
    tmp_path: Path, hub: FaultyHub
) -> None:
    first = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": MB}, "acme/one")
    second = published(hub, tmp_path / "hub", {"b-Q4_0.gguf": 2 * MB}, "acme/two")
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address, "--max-store", "2.5MiB") as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(first, "t1"))
            await session.task("t1", COMPLETED)
            session.assign(task(second, "t2"))
            refused = await session.task("t2", FAILED)
            assert is_whole(agent.models_dir, first)
            eviction = agent_pb2.Eviction(eviction_id="e1", manifest=task(first).manifest)
            session.assign(evictions=[eviction])
            await session.report(lambda report: "e1" in report.done_eviction_ids)
            session.assign(task(second, "t2", attempt=2))

            await session.task("t2", COMPLETED, attempt=2)

            assert is_whole(agent.models_dir, second)
    assert refused.error.code == "quota_exceeded"
    assert str(2 * MB) in refused.error.message


async def test_what_others_put_into_the_cache_makes_room_for_an_order(
    tmp_path: Path, hub: FaultyHub
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 2 * MB})
    with agent_process(tmp_path / "node", "127.0.0.1:1", "--max-store", "2.5MiB") as agent:
        root = agent.models_dir / "models--some--body"
        blob = root / "blobs" / ("0" * 40)
        link = root / "snapshots" / ("1" * 40) / "x.gguf"
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True)
        blob.write_bytes(b"x" * MB)
        link.symlink_to(blob)
        async with FakeRouter() as router:
            agent.router = router.address
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.task("t1", COMPLETED)

        assert not blob.exists()
        assert is_whole(agent.models_dir, model)


@pytest.mark.parametrize("hanging", ["command", "engines"])
async def test_sigterm_ends_the_agent_although_what_it_waits_for_hangs(
    tmp_path: Path, hub: FaultyHub, hanging: str
) -> None:
    model = published(hub, tmp_path / "hub", {"a-Q4_0.gguf": 1_000})
    calls = asyncio.Event()
    silent = await asyncio.start_server(lambda reader, writer: calls.set(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    begun = tmp_path / "begun"
    hook = f"import time; open({str(begun)!r}, 'w'); time.sleep(1000)"
    flags = {
        "command": ["--after-commit", f'{sys.executable} -c "{hook}"'],
        "engines": [
            *("--llama-server-url", url),
            *("--view-ollama", str(tmp_path / "ollama"), "--ollama-url", url),
        ],
    }
    async with FakeRouter() as router:
        with agent_process(tmp_path / "node", router.address, *flags[hanging]) as agent:
            await agent.start()
            session = await router.session()
            session.assign(task(model))
            await session.task("t1", COMPLETED)
            await until(lambda: begun.exists() or calls.is_set())
            async with asyncio.timeout(10):
                code = await agent.terminate()
    silent.close()

    assert code == 0
