"""Shows the node's models to Ollama: its blobs are hard links to ours, its manifests its own.

Read from Ollama's source (`server/create.go`, `server/routes.go`, `types/model/name.go`): a blob is
`blobs/sha256-<hex>`; `POST /api/create` with `files` (name → `sha256:<hex>`) makes a model of blobs
that are there; `POST /api/show` knows a model or answers 404; `DELETE /api/delete` removes one and
the blobs that no other needs.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from agent.durable import write_durably
from agent.links import LinkFolder
from agent.store.loadable import Loadable, file_name
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_PATIENCE = httpx.Timeout(30.0, connect=3.0)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 80  # characters of a part of a model's name

Files = Mapping[str, str]  # a file's name → its SHA-256


class OllamaUnreachable(Exception):
    """Ollama did not answer, or not as it should; the message says why. Later it may."""


class OllamaView:
    """Keeps Ollama's list true to the models that are whole on this disk.

    `models_dir` is Ollama's (`OLLAMA_MODELS`), `blobs` the links in its folder `blobs`; `record`
    remembers which models were made here: only these are ever removed. Models of several shards are
    left out: Ollama would copy them into one file.
    """

    def __init__(self, models_dir: Path, blobs: LinkFolder, url: str, record: Path) -> None:
        self._models_dir = models_dir
        self._blobs = blobs
        self._url = url.rstrip("/")
        self._record = record
        self._made = _read(record)
        self._left_out: set[str] = set()

    async def follow(self, models: Sequence[Loadable]) -> None:
        """Makes Ollama know these models and no others of this agent.

        Raises `OSError` when the folder cannot be written, `OllamaUnreachable`.
        """
        wanted = self._wanted(models)
        targets = {
            f"sha256-{file.sha256}": file.location
            for model in wanted.values()
            for file in model.files
        }
        async with httpx.AsyncClient(
            base_url=self._url, timeout=_PATIENCE, trust_env=False
        ) as client:
            # Before the blobs go: what is still named by a manifest then is somebody else's.
            for name in sorted(self._made.keys() - wanted.keys()):
                await self._delete(client, name)
            there = await asyncio.to_thread(self._link, targets)
            for name, model in wanted.items():
                if there.issuperset(f"sha256-{file.sha256}" for file in model.files):
                    await self._create(client, name, model)

    def _link(self, targets: Mapping[str, Path]) -> frozenset[str]:
        self._blobs.disown(self._needed_by_others(self._blobs.made.keys() - targets.keys()))
        return self._blobs.follow(targets)

    def _wanted(self, models: Sequence[Loadable]) -> dict[str, Loadable]:
        wanted: dict[str, Loadable] = {}
        for model in models:
            if len(model.parts) > 1:
                if model.stem not in self._left_out:
                    self._left_out.add(model.stem)
                    log.warning(
                        "Ollama is not shown a model of several shards: it would copy them",
                        repo=model.repo,
                        model=model.stem,
                    )
                continue
            name = ollama_name(model)
            if name in wanted:
                name = f"{name.rpartition(':')[0]}:{_tag(model.stem)}"
            wanted.setdefault(name, model)
        return wanted

    async def _create(self, client: httpx.AsyncClient, name: str, model: Loadable) -> None:
        files = {file_name(file): str(file.sha256) for file in model.files}
        if name not in self._made:
            known = await _ask(client, "POST", "/api/show", {"model": name})
            if known.status_code != 404:
                if name not in self._left_out:
                    self._left_out.add(name)
                    log.error("Ollama has a model of this name that is not ours", model=name)
                return
        elif self._made[name] == files:
            return
        # An empty entry says that the name is ours, and that the model is still to be made.
        self._save({**self._made, name: {}})
        body = {
            "model": name,
            "files": {file: f"sha256:{digest}" for file, digest in files.items()},
            "stream": False,
        }
        answer = await _ask(client, "POST", "/api/create", body)
        if answer.status_code != 200 or _error(answer):
            raise OllamaUnreachable(
                f"it did not make {name}: {_error(answer) or answer.status_code}"
            )
        self._save({**self._made, name: files})
        log.info("Ollama has a model", model=name)

    async def _delete(self, client: httpx.AsyncClient, name: str) -> None:
        answer = await _ask(client, "DELETE", "/api/delete", {"model": name})
        if answer.status_code not in (200, 404):
            raise OllamaUnreachable(
                f"it did not remove {name}: {_error(answer) or answer.status_code}"
            )
        self._save({made: files for made, files in self._made.items() if made != name})
        log.info("Ollama has no longer a model", model=name)

    def _needed_by_others(self, blobs: Iterable[str]) -> set[str]:
        """Blobs that a manifest of Ollama names although none of our models has them."""
        digests = {blob: blob.removeprefix("sha256-") for blob in blobs}
        needed = set()
        if digests:
            for manifest in (self._models_dir / "manifests").rglob("*"):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    text = manifest.read_text() if manifest.is_file() else ""
                    needed |= {blob for blob, digest in digests.items() if digest in text}
        return needed

    def _save(self, made: Mapping[str, Files]) -> None:
        write_durably(self._record, json.dumps(made).encode())
        self._made = dict(made)


def ollama_name(model: Loadable) -> str:
    """`<owner>/<repo>:<quantization>`, within the characters that Ollama allows."""
    owner, repo = model.repo.split("/")
    quantization = re.split(r"[-.]", model.stem)[-1]
    return f"{_NOT_IN_NAMES.sub('_', owner)[:_LONGEST]}/{repo[:_LONGEST]}:{_tag(quantization)}"


def _tag(text: str) -> str:
    return _NOT_IN_TAGS.sub("_", text)[:_LONGEST].lstrip(".-") or "model"


async def _ask(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> httpx.Response:
    try:
        return await client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise OllamaUnreachable(f"{type(error).__name__}: {error}") from error


def _error(answer: httpx.Response) -> str:
    try:
        content = answer.json()
    except ValueError:
        return answer.text[:200]
    return str(content.get("error", "")) if isinstance(content, dict) else str(content)[:200]


def _read(record: Path) -> dict[str, Files]:
    try:
        content = json.loads(record.read_bytes())
        return {
            str(name): {str(file): str(digest) for file, digest in files.items()}
            for name, files in content.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        log.error("the record of Ollama's models is damaged", file=str(record), cause=str(error))
        return {}
