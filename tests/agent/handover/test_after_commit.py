"""What happens once a model has arrived: real commands, a real server, a real store."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.after_commit import Arrival, Arrivals, Command, LlamaServer
from agent.handover import Handover
from agent.store.loadable import Loadable
from tests.agent.handover.shelf import Shelf
from tests.agent.support import manifest, until

pytestmark = pytest.mark.anyio

MODEL = manifest(files={"a-Q4_0.gguf": b"model"})


def arrival(folder: Path, task_id: str = "t1") -> Arrival:
    return Arrival(task_id, MODEL, folder / "snapshot")


def writes(folder: Path, code: str) -> str:
    """A command line that runs a little Python."""
    script = folder / "hook.py"
    script.write_text(f"import os, sys, time\nout = open({str(folder / 'out')!r}, 'a')\n{code}\n")
    return f"{sys.executable} '{script}'"


def said(folder: Path) -> list[str]:
    out = folder / "out"
    return out.read_text().splitlines() if out.exists() else []


async def test_the_command_learns_the_model_from_its_environment_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    names = ("MODEL", "MODEL_PATH", "MODEL_DIR", "REPO", "COMMIT", "TASK")
    code = f"for n in {names}: print(os.environ['LLM_ROUTER_' + n], file=out)"
    command = Command(writes(tmp_path, f"{code}\nprint(os.environ.get('HF_TOKEN'), file=out)"), 30)

    await command.announce(arrival(tmp_path))

    folder = tmp_path / "snapshot"
    assert said(tmp_path) == [
        "hf/acme/tiny/a-Q4_0.gguf",
        str(folder / "a-Q4_0.gguf"),
        str(folder),
        "acme/tiny",
        MODEL.commit,
        "t1",
        "None",
    ]


async def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    code = "print(sys.argv[1:], file=out)"

    await Command(writes(tmp_path, code) + " '$HOME; ls' > x", 30).announce(arrival(tmp_path))

    assert said(tmp_path) == ["['$HOME; ls', '>', 'x']"]


async def test_failure_and_output_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    command = Command(writes(tmp_path, "print('hello', flush=True)\nsys.exit(3)"), 30)

    await command.announce(arrival(tmp_path))
    await Command("/nowhere/at-all", 30).announce(arrival(tmp_path))

    messages = [record.message for record in caplog.records]
    assert messages == [
        "after-commit",
        "the after-commit command failed",
        "the after-commit command cannot be run",
    ]


async def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print(child.pid, file=out, flush=True)\ntime.sleep(1000)"
    )

    await Command(writes(tmp_path, code), 1.0).announce(arrival(tmp_path))

    (child,) = said(tmp_path)
    await until(lambda: not _is_alive(int(child)))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@asynccontextmanager
async def running(handover: Handover) -> AsyncIterator[None]:
    task = asyncio.create_task(handover.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_arrival_is_announced_once_and_then_forgotten(
    tmp_path: Path, shelf: Shelf
) -> None:
    arrivals = Arrivals(tmp_path / "arrivals.json")
    command = Command(writes(tmp_path, "print(os.environ['LLM_ROUTER_TASK'], file=out)"), 30)
    handover = Handover(shelf.store, arrivals, announcing=[command])
    async with running(handover):
        arrivals.add(arrival(tmp_path))
        handover.wake()
        await until(lambda: said(tmp_path) and not arrivals.waiting)

    assert said(tmp_path) == ["t1"]
    assert Arrivals(tmp_path / "arrivals.json").waiting == []


async def test_an_arrival_before_a_crash_is_announced_after_it(
    tmp_path: Path, shelf: Shelf
) -> None:
    Arrivals(tmp_path / "arrivals.json").add(arrival(tmp_path))  # and then the agent dies
    arrivals = Arrivals(tmp_path / "arrivals.json")
    command = Command(writes(tmp_path, "print(os.environ['LLM_ROUTER_TASK'], file=out)"), 30)

    async with running(Handover(shelf.store, arrivals, announcing=[command])):
        await until(lambda: not arrivals.waiting)

    assert said(tmp_path) == ["t1"]


class Engine:
    """llama-server as far as `GET /models?reload=1` goes."""

    def __init__(self, failures: int = 0) -> None:
        self.paths: list[str] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.paths.append(self.path)
                self.send_response(503 if len(engine.paths) <= failures else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def engine(failures: int = 0) -> Iterator[Engine]:
    made = Engine(failures)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


async def test_llama_server_is_asked_until_it_answers() -> None:
    with engine(failures=2) as server:
        understood = await LlamaServer(server.url, no_pause).reload()

    assert understood
    assert server.paths == ["/models?reload=1"] * 3


async def test_a_llama_server_that_is_not_there_is_given_up() -> None:
    with engine() as server:
        pass

    assert not await LlamaServer(server.url, no_pause).reload()


class Watched:
    """A view that notes what it was to show."""

    def __init__(self, troubles: int = 0) -> None:
        self.shown: list[list[str]] = []
        self.troubles = troubles

    async def follow(self, models: Sequence[Loadable]) -> None:
        if self.troubles:
            self.troubles -= 1
            raise OSError("no folder")
        self.shown.append([model.stem for model in models])


async def test_views_follow_at_the_start_and_after_each_change_and_then_the_engine_reloads(
    tmp_path: Path, shelf: Shelf
) -> None:
    view = Watched()
    shelf.put("a.gguf", b"a")
    with engine() as server:
        handover = Handover(
            shelf.store,
            Arrivals(tmp_path / "arrivals.json"),
            views=[view],
            llama_server=LlamaServer(server.url),
        )
        async with running(handover):
            await until(lambda: len(server.paths) == 1)
            shelf.put("b.gguf", b"b")
            handover.wake()
            await until(lambda: len(server.paths) == 2)
            handover.wake()  # nothing has changed
            await until(lambda: len(view.shown) == 3)
            shelf.remove("a.gguf")
            handover.wake()
            await until(lambda: len(server.paths) == 3)

    assert view.shown == [["a"], ["a", "b"], ["a", "b"], ["b"]]


async def test_a_view_that_failed_is_tried_again(tmp_path: Path, shelf: Shelf) -> None:
    view = Watched(troubles=2)
    arrivals = Arrivals(tmp_path / "arrivals.json")

    async with running(Handover(shelf.store, arrivals, views=[view], retry_seconds=0.01)):
        await until(lambda: view.shown)

    assert view.shown == [[]]
