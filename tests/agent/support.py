"""Orders as a router writes them, and an agent as an operator starts it."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from agent.manifest import Manifest, ManifestFile
from agent.wire import manifest_to_pb
from protos import names
from protos.llmrouter.v1 import agent_pb2
from tests.fakes.hub import FaultyHub, make_repo
from tests.support import eventually

REPO = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def manifest(
    repo: str = REPO,
    files: Mapping[str, bytes] | None = None,
    *,
    commit: str = COMMIT,
    base_url: str = "http://127.0.0.1:9",
    known_digests: bool = True,
) -> Manifest:
    """The manifest of files with these contents."""
    contents = files if files is not None else {"tiny-Q4_0.gguf": b"tiny"}
    listed = tuple(
        ManifestFile(
            path,
            len(content),
            hashlib.sha256(content).hexdigest() if known_digests else None,
            f"{base_url}/{repo}/resolve/{commit}/{path}",
        )
        for path, content in contents.items()
    )
    first = next(iter(contents))
    return Manifest(
        model_name=names.model_name(repo, first),
        repo=repo,
        revision="main",
        commit=commit,
        manifest_id=names.manifest_id(
            repo, commit, [(f.path, f.size_bytes, f.sha256 or "") for f in listed]
        ),
        files=listed,
    )


def published(
    hub: FaultyHub, folder: Path, files: Mapping[str, bytes | int], repo: str = REPO
) -> Manifest:
    """Puts a repository on the hub; the manifest that a router would make of all its files."""
    contents = make_repo(folder, repo, files)
    commit = httpx.get(f"{hub.url}/api/models/{repo}").raise_for_status().json()["sha"]
    return manifest(repo, contents, commit=commit, base_url=hub.url)


async def until(condition: Callable[[], object]) -> None:
    """Waits for a state that announces itself by no event, while the test's fakes go on."""
    await asyncio.to_thread(eventually, condition, within_seconds=30)


def without(model: Manifest, path: str) -> Manifest:
    """The manifest without one of its files."""
    files = tuple(file for file in model.files if file.path != path)
    name = names.model_name(model.repo, files[0].path)
    return dataclasses.replace(model, model_name=name, files=files)


def task(
    model: Manifest, task_id: str = "t1", *, attempt: int = 1, **fields: Any
) -> agent_pb2.TaskAssignment:
    """One task of an assignment."""
    return agent_pb2.TaskAssignment(
        task_id=task_id, attempt=attempt, manifest=manifest_to_pb(model), **fields
    )


def visible(models_dir: Path, model: Manifest) -> list[Path]:
    """Where programs find the model's files."""
    folder = models_dir / f"models--{model.repo.replace('/', '--')}" / "snapshots" / model.commit
    return [folder / file.path for file in model.files]


def is_whole(models_dir: Path, model: Manifest) -> bool:
    """Whether every file is there with the right content."""
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        for path, file in zip(visible(models_dir, model), model.files, strict=True)
    )


@dataclasses.dataclass
class AgentProcess:
    """`llm-router-agent` in a process of its own, with its folders below one folder."""

    folder: Path
    router: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        """Where it keeps its id and ledger."""
        return self.folder / "data"

    @property
    def models_dir(self) -> Path:
        """Its Hugging Face cache."""
        return self.folder / "models"

    @property
    def log(self) -> str:
        """Everything it has logged over all its starts."""
        return (self.folder / "agent.log").read_text()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Starts it and returns at once."""
        self.folder.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-m", "agent", "--router", self.router, "--log-format", "json"),
            *("--data-dir", str(self.data_dir), "--models-dir", str(self.models_dir)),
            *("--ready-file", str(self.folder / "ready.json")),
            *("--backoff-first", "0.05", "--backoff-max", "0.2", *self.arguments),
        ]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "LLM_ROUTER_"))}
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, stdout=log, env={**clean, **self.environment}
            )
        return self.process

    async def start(self) -> dict[str, Any]:
        """Starts it; returns what its ready file says."""
        process = self.spawn()
        ready = self.folder / "ready.json"
        await until(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, self.log
        content: dict[str, Any] = json.loads(ready.read_text())
        return content

    async def kill(self) -> None:
        """Ends it as a power cut would, as far as a process can tell."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 30)
        (self.folder / "ready.json").unlink(missing_ok=True)

    async def terminate(self) -> int:
        """Asks it to end; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 30)


@contextlib.contextmanager
def agent_process(
    folder: Path, router: str, *arguments: str, **environment: str
) -> Iterator[AgentProcess]:
    """An agent that is gone when the test ends; start it inside."""
    agent = AgentProcess(folder, router, arguments, environment)
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait(30)
