"""The grammar of ids and file names: one place that both sides of the wire use.

Every name that comes from outside (the Hub, an operator, a node, the router) passes one of these
functions before it decides anything. Each returns the name unchanged or raises `InvalidName`.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

MODEL_PREFIX = "hf"
_REPO_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NODE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?|")
_QUANTIZATION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_MAX_PATH_BYTES = 1024
_MAX_SEGMENT_BYTES = 255


class InvalidName(ValueError):
    """A name from outside does not follow the grammar; the message says which rule it breaks."""


def repo_id(text: str) -> str:
    """Checks `owner/repo` by the Hub's own rules (96 characters a part, no `--`, no `..`)."""
    owner, slash, repo = text.partition("/")
    for part in (owner, repo):
        if not slash or not _REPO_PART.fullmatch(part) or "--" in part or ".." in part:
            raise InvalidName(f'"{_shown(text)}" is not a repository: write it as "owner/repo"')
    return text


def file_path(text: str) -> str:
    """Checks a file's path inside a repository: relative, `/` between names, never climbing."""
    segments = text.split("/")
    if (
        not text.isprintable()
        or "\\" in text
        or len(text.encode()) > _MAX_PATH_BYTES
        or any(s in ("", ".", "..") or len(s.encode()) > _MAX_SEGMENT_BYTES for s in segments)
    ):
        raise InvalidName(
            f'"{_shown(text)}" is not a file of a repository: write a relative path without ".."'
        )
    return text


def revision(text: str) -> str:
    """Checks a branch, tag or commit."""
    if not _REVISION.fullmatch(text) or ".." in text or "//" in text or text.endswith(("/", ".")):
        raise InvalidName(f'"{_shown(text)}" is not a revision: name a branch, a tag or a commit')
    return text


def commit(text: str) -> str:
    """Checks a full commit hash (40 hex digits)."""
    return _checked(_COMMIT, text, "a commit: 40 hex digits")


def sha256(text: str) -> str:
    """Checks a SHA-256 digest (64 lower-case hex digits)."""
    return _checked(_SHA256, text, "a SHA-256: 64 lower-case hex digits")


def node_id(text: str) -> str:
    """Checks a node's id (lower-case letters, digits, hyphens; at most 64)."""
    return _checked(_NODE_ID, text, "a node id: lower-case letters, digits and hyphens")


def node_name(text: str) -> str:
    """Checks a node's name (a host name: letters, digits, `.`, `_`, `-`; at most 63)."""
    return _checked(_NODE_NAME, text, "a node name: letters, digits, dots, hyphens; at most 63")


def label(key: str, value: str) -> tuple[str, str]:
    """Checks one label of a node."""
    _checked(_LABEL_KEY, key, "a label's key: letters, digits and ._/-; at most 63")
    _checked(_LABEL_VALUE, value, "a label's value: letters, digits and ._-; at most 63")
    return key, value


def quantization(text: str) -> str:
    """Checks a quantization tag as written after the colon of `owner/repo:QUANT`."""
    return _checked(_QUANTIZATION, text, "a quantization such as Q4_K_M")


def model_name(repo: str, path: str) -> str:
    """The id of a model: `hf/<owner>/<repo>/<path of its first file>`."""
    return f"{MODEL_PREFIX}/{repo_id(repo)}/{file_path(path)}"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """How a person named a model: a whole id or one of the two aliases.

    Exactly one of `path` and `quantization` is set, or neither: the repository alone.
    """

    repo: str
    path: str | None = None
    quantization: str | None = None

    @property
    def model_name(self) -> str | None:
        """The id, when the reference names a file."""
        return None if self.path is None else model_name(self.repo, self.path)


def model_reference(text: str) -> ModelReference:
    """Reads `hf/owner/repo/file`, `owner/repo/file`, `owner/repo:QUANT` or `owner/repo`.

    An owner called `hf` is read as the prefix when at least two more parts and a file follow.
    A colon after the repository begins a quantization; behind that it is part of a file's name.
    """
    head, colon, tag = text.rpartition(":")
    repo = head.removeprefix(f"{MODEL_PREFIX}/") if head.count("/") == 2 else head
    if colon and "/" not in tag and repo.count("/") < 2:
        return ModelReference(repo_id(repo), quantization=quantization(tag))
    parts = text.split("/")
    if len(parts) >= 4 and parts[0] == MODEL_PREFIX:
        parts = parts[1:]
    if len(parts) < 2:
        raise InvalidName(
            f'"{_shown(text)}" is not a model: write "hf/owner/repo/file.gguf", '
            '"owner/repo/file.gguf" or "owner/repo:QUANT"'
        )
    repo = repo_id("/".join(parts[:2]))
    return ModelReference(repo, path=file_path("/".join(parts[2:])) if parts[2:] else None)


def manifest_id(repo: str, commit_hash: str, files: Iterable[tuple[str, int, str]]) -> str:
    """The id of a manifest: the SHA-256 of its canonical JSON.

    `files` are (path, size in bytes, SHA-256 or ""), in any order.
    """
    content = {"repo": repo, "commit": commit_hash, "files": sorted(files)}
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _checked(pattern: re.Pattern[str], text: str, wanted: str) -> str:
    if not pattern.fullmatch(text):
        raise InvalidName(f'"{_shown(text)}" is not {wanted}')
    return text


def _shown(text: str) -> str:
    """The text as an error may quote it: short, and without control characters."""
    visible = "".join(c if c.isprintable() else "?" for c in text)
    return visible if len(visible) <= 120 else f"{visible[:120]}…"
