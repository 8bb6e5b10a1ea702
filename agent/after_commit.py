"""What is done once a model has arrived: a command of the operator's, a word to llama-server."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from google.protobuf import json_format

from agent.durable import write_durably
from agent.manifest import Manifest
from agent.wire import manifest_from_pb, manifest_to_pb
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import common_pb2

log = get_logger(__name__)

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_MAX_OUTPUT_BYTES = 64 << 10
_MAX_LINE = 2000
_RELOAD_SECONDS = 10.0
_RELOAD_TRIES = 6


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task has brought a model; every file of it is verified and visible."""

    task_id: str
    manifest: Manifest
    folder: Path  # the snapshot

    @property
    def path(self) -> Path:
        """The first file, the one to load."""
        return self.folder / self.manifest.files[0].path


class Arrivals:
    """The arrivals that are still to be announced, in a file that survives a crash.

    `add` is called before anybody hears that the task is completed, so that none is ever lost; one
    may be announced twice. Safe for several threads.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._waiting = _read(record)

    @property
    def waiting(self) -> list[Arrival]:
        """Those that nobody has been told of yet, the oldest first."""
        with self._lock:
            return list(self._waiting)

    def add(self, arrival: Arrival) -> None:
        """Notes an arrival; it survives a power loss when this returns. Raises `OSError`."""
        with self._lock:
            if arrival not in self._waiting:
                self._save([*self._waiting, arrival])

    def done(self, arrival: Arrival) -> None:
        """Forgets one. Raises `OSError`."""
        with self._lock:
            self._save([other for other in self._waiting if other != arrival])

    def _save(self, waiting: list[Arrival]) -> None:
        content = [
            {
                "task_id": arrival.task_id,
                "folder": str(arrival.folder),
                "manifest": json_format.MessageToDict(manifest_to_pb(arrival.manifest)),
            }
            for arrival in waiting
        ]
        write_durably(self._record, json.dumps(content).encode())
        self._waiting = waiting


def _read(record: Path) -> list[Arrival]:
    try:
        return [_arrival(entry) for entry in json.loads(record.read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        log.error("the list of arrivals is damaged", file=str(record), cause=str(error))
        return []


def _arrival(entry: Mapping[str, Any]) -> Arrival:
    manifest = manifest_from_pb(json_format.ParseDict(entry["manifest"], common_pb2.Manifest()))
    return Arrival(str(entry["task_id"]), manifest, Path(entry["folder"]))


class Announcing(Protocol):
    """Something that is done for an arrival."""

    async def announce(self, arrival: Arrival) -> None:
        """Does it. Failure is logged, and stops nothing else."""


class Command:
    """Runs a command for each arrival, without a shell.

    It gets `LLM_ROUTER_MODEL` (the id), `LLM_ROUTER_MODEL_PATH` (the first file),
    `LLM_ROUTER_MODEL_DIR` (the snapshot), `LLM_ROUTER_REPO`, `LLM_ROUTER_COMMIT` and
    `LLM_ROUTER_TASK` in its environment, and no tokens. Its output goes to the log. After `seconds`
    it is killed, with its children.
    """

    def __init__(self, command: str, seconds: float) -> None:
        """Raises `ValueError` when quotes in `command` are not closed, or when it is empty."""
        self._words = shlex.split(command)
        if not self._words:
            raise ValueError("the command is empty")
        self._seconds = seconds

    async def announce(self, arrival: Arrival) -> None:
        """See `Announcing`."""
        model = arrival.manifest.model_name
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_environment(arrival),
                start_new_session=True,
            )
        except OSError as error:
            log.error("the after-commit command cannot be run", model=model, cause=str(error))
            return
        cause = ""
        try:
            async with asyncio.timeout(self._seconds):
                await _log_output(process, model)
                code = await process.wait()
            cause = f"exit code {code}" if code else ""
        except TimeoutError:
            cause = f"it was killed: not done after {self._seconds:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if cause:
            log.error("the after-commit command failed", model=model, cause=cause)
        else:
            log.info("the after-commit command is done", model=model)


async def _log_output(process: asyncio.subprocess.Process, model: str) -> None:
    assert process.stdout is not None
    rest = _MAX_OUTPUT_BYTES
    line = b""
    while chunk := await process.stdout.read(4096):
        if rest <= 0:
            continue  # read on, so that the command does not block
        rest -= len(chunk)
        *whole, line = (line + chunk).split(b"\n")
        for text in whole:
            _log_line(text, model)
        if len(line) > _MAX_LINE:
            _log_line(line, model)
            line = b""
        if rest <= 0:
            log.warning("the after-commit command says more than is logged", model=model)
    if line:
        _log_line(line, model)


def _log_line(raw: bytes, model: str) -> None:
    text = raw[:_MAX_LINE].decode(errors="replace").rstrip()
    log.info("after-commit", model=model, line="".join(c if c.isprintable() else " " for c in text))


def _environment(arrival: Arrival) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name not in _SECRETS},
        "LLM_ROUTER_MODEL": arrival.manifest.model_name,
        "LLM_ROUTER_MODEL_PATH": str(arrival.path),
        "LLM_ROUTER_MODEL_DIR": str(arrival.folder),
        "LLM_ROUTER_REPO": arrival.manifest.repo,
        "LLM_ROUTER_COMMIT": arrival.manifest.commit,
        "LLM_ROUTER_TASK": arrival.task_id,
    }


class LlamaServer:
    """Has `llama-server` in router mode look for its models again: `GET /models?reload=1`.

    Tried a few times with growing pauses; a server that is not there finds the models when it
    starts.
    """

    def __init__(self, url: str, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._url = url.rstrip("/")
        self._pause = pause

    async def reload(self) -> bool:
        """Tells it; whether it has understood."""
        cause = ""
        async with httpx.AsyncClient(timeout=_RELOAD_SECONDS, trust_env=False) as client:
            for number in range(_RELOAD_TRIES):
                if number:
                    await self._pause(0.5 * 2.0**number)
                try:
                    answer = await client.get(f"{self._url}/models", params={"reload": "1"})
                except httpx.HTTPError as error:
                    cause = f"{type(error).__name__}: {error}"
                    continue
                if answer.status_code == 200:
                    log.info("llama-server has reloaded its models", url=self._url)
                    return True
                cause = f"it answered {answer.status_code}"
        log.error("llama-server could not be told of new models", url=self._url, cause=cause)
        return False
