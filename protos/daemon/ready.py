"""The ready file: how whoever started a daemon learns that it serves, and where."""

import contextlib
import json
import os
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "llm-router"


def version() -> str:
    """The installed version of the project."""
    return metadata.version(DISTRIBUTION)


def write_ready_file(path: Path | None, **addresses: str) -> None:
    """Writes `{"pid", "version", **addresses}` in one step; nothing when `path` is None.

    Call it once the process serves. `addresses` are those of SPEC that apply: `http`, `grpc`,
    `peer`. A reader sees no file or the whole file. Raises `OSError`.
    """
    if path is None:
        return
    content = {"pid": os.getpid(), "version": version(), **addresses}
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def remove_ready_file(path: Path | None) -> None:
    """Removes the file that this process wrote, when it stops; another process's file stays."""
    if path is None:
        return
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
            path.unlink()
