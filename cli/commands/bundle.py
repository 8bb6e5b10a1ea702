"""`llm-router model export` and `import`: models as one file, for sites without a line."""

import contextlib
import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import grpc
from blake3 import blake3
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cli import failures
from cli.commands.upgrade import model
from cli.failures import ExitCode, Failure
from cli.options import with_session
from cli.render import units
from cli.session import Session
from protos.llmrouter.v1 import registration_pb2

__all__ = ["model"]

_CHUNK_BYTES = 1 << 20
_READ_AHEAD = 16  # messages of about 1 MiB
_LINE = 1_398_100  # characters of base64: whole groups of four, so that each line stands alone


@model.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("names", metavar="MODEL...", nargs=-1, required=True)
@click.option("--overwrite", is_flag=True, help="Replace FILE when it is there.")
@with_session
def export_models(session: Session, file: Path, names: tuple[str, ...], overwrite: bool) -> None:
    """Writes models with all their bytes into FILE, to be imported at another site.

    The bytes come from nodes that hold the models, and are verified. FILE appears when it is whole.
    """
    request = registration_pb2.ExportModelsRequest(model_names=names)
    session.explain(request)
    if file.exists() and not overwrite:
        raise Failure(
            f"{file} is there already", ExitCode.CONFLICT, "add --overwrite to replace it"
        )
    part = file.with_name(f"{file.name}.part")
    try:
        try:
            head, digest = _receive(session, request, part)
            part.replace(file)
            _flush_folder(file.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror or error}", ExitCode.FAILED) from error
    session.out.answer(
        [str(file)],
        {
            "file": str(file),
            "size_bytes": head.size_bytes,
            "sha256": digest,
            "models": [_model(one) for one in head.models],
        },
    )
    count = _count(len(head.models))
    session.out.done(f"{file}: {count}, {units.size(head.size_bytes)}, SHA-256 {digest}")
    session.out.note(f"At the other site: llm-router model import {file.name}")


@model.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_session
def import_models(session: Session, file: Path) -> None:
    """Registers the models of a bundle; the router gives their bytes to its nodes.

    Every byte is verified before anything is visible. May be repeated.
    """
    session.explain(
        registration_pb2.ImportModelsRequest(),
        fed_by=f'base64 -w {_LINE} {shlex.quote(str(file))} | sed \'s/.*/{{"data": "&"}}/\'',
    )
    try:
        with file.open("rb") as content:
            reply = _send(session, content, file.stat().st_size)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror or error}", ExitCode.FAILED) from error
    session.out.answer(
        [one.model_name for one in reply.models],
        {
            "models": [
                {**_model(one), "already_registered": one.already_registered}
                for one in reply.models
            ],
            "new_bytes": reply.new_bytes,
        },
    )
    for one in reply.models:
        state = "was registered already" if one.already_registered else "registered"
        session.out.done(f"{one.model_name}: {state}, {units.size(one.total_bytes)}")
    session.out.note("Order them: llm-router model download MODEL --all")


def _receive(
    session: Session, request: registration_pb2.ExportModelsRequest, part: Path
) -> tuple[registration_pb2.BundleHead, str]:
    """Writes a bundle, durably; its head and its SHA-256. Raises `Failure`, `OSError`."""
    digest, received = hashlib.sha256(), blake3()
    head = end = None
    written = 0
    answers = session.router.stream(request, registration_pb2.ExportModelsResponse, _READ_AHEAD)
    try:
        with contextlib.ExitStack() as stack:
            for answer in answers:
                kind = None if answer is None else answer.WhichOneof("part")
                if answer is None or kind is None:
                    continue
                if kind == "head":
                    head = answer.head
                    _require_room(part, head.size_bytes)
                    content = stack.enter_context(part.open("wb"))
                    shown = stack.enter_context(_Shown(session, "exporting", head.size_bytes))
                elif kind == "end":
                    end = answer.end
                elif head is not None:
                    content.write(answer.data)
                    digest.update(answer.data)
                    received.update(answer.data)
                    written += len(answer.data)
                    shown.show(written)
            if head is not None:
                content.flush()
                os.fsync(content.fileno())
    except grpc.RpcError as error:
        raise failures.from_rpc(error, session.router.address) from error
    if head is None or end is None or written != head.size_bytes:
        raise Failure("the router sent less than a whole bundle", ExitCode.FAILED, "run it again")
    if received.digest() != end.digest:
        raise Failure("the bundle was damaged on its way here", ExitCode.FAILED, "run it again")
    return head, digest.hexdigest()


def _send(session: Session, content: Any, size: int) -> registration_pb2.ImportModelsResponse:
    """Sends a bundle; what came of it."""
    sent = 0

    def requests() -> Iterator[registration_pb2.ImportModelsRequest]:
        nonlocal sent
        while data := content.read(_CHUNK_BYTES):
            sent += len(data)
            yield registration_pb2.ImportModelsRequest(data=data)

    with _Shown(session, "importing", size) as shown:
        for reply in session.router.send(
            requests(),
            registration_pb2.ImportModelsRequest,
            registration_pb2.ImportModelsResponse,
        ):
            shown.show(sent)
            if reply is not None:
                return reply
    raise Failure("the router gave no answer", ExitCode.FAILED, "run it again")


class _Shown:
    """Progress on stderr: a bar on a terminal, else a line for each tenth; nothing when quiet."""

    def __init__(self, session: Session, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._quiet = session.out.quiet
        self._tenth = 0
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not self._quiet:
            self._bar = Progress(
                TextColumn(what),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> "_Shown":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int) -> None:
        """So many bytes are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            return
        tenth = units.share(done, self._total) // 10
        if tenth > self._tenth and not self._quiet:
            self._tenth = tenth
            click.echo(f"{self._what}: {units.size_of(done, self._total)}", err=True)


def _require_room(part: Path, size: int) -> None:
    folder = os.statvfs(part.parent)
    free = folder.f_bavail * folder.f_frsize
    there = part.stat().st_size if part.exists() else 0
    if size > free + there:
        raise Failure(
            f"the bundle takes {units.size(size)} and {part.parent} has {units.size(free)} free",
            ExitCode.FAILED,
            "choose another disk",
        )


def _model(one: registration_pb2.BundledModel) -> dict[str, Any]:
    return {"name": one.model_name, "size_bytes": one.total_bytes}


def _count(models: int) -> str:
    return f"{models} model" if models == 1 else f"{models} models"


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
