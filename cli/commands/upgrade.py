"""`llm-router model outdated` and `upgrade`: newer commits on the Hub; completes `model`."""

import click

from cli.client import pages
from cli.commands.download import model
from cli.failures import ExitCode
from cli.options import with_session
from cli.render import rest, units
from cli.render.table import Column, Table, details
from cli.session import Session
from protos.llmrouter.v1 import registration_pb2

__all__ = ["model"]

# Few, so that a page that asks a slow Hub for each model is answered within a call's time.
_PAGE = 50
_SHORT = 12  # hex digits of a commit or digest that people compare


@model.command("outdated")
@with_session
def outdated_models(session: Session) -> None:
    """Supported models with a newer commit on the Hub and other files in it.

    Exit code 1: the Hub gave no answer for some models; the others are listed all the same.
    """
    request = registration_pb2.ListOutdatedModelsRequest(page_size=_PAGE)
    session.explain(request)
    found: list[registration_pb2.OutdatedModel] = []
    unchecked: list[registration_pb2.UncheckedModel] = []
    for page in pages(session.router, request, registration_pb2.ListOutdatedModelsResponse):
        found += page.models
        unchecked += page.unchecked
    session.out.answer(
        [one.model_name for one in found],
        {
            "models": [rest.outdated(one) for one in found],
            "unchecked": [rest.unchecked(one) for one in unchecked],
        },
        Table(
            [
                Column("NAME", flexible=True),
                Column("COMMIT", rank=1),
                Column("NEWEST"),
                Column("CHANGED", right=True, rank=3),
                Column("FILES", right=True),
                Column("TO FETCH", right=True),
            ],
            [
                [
                    one.model_name,
                    one.commit[:_SHORT],
                    one.newest_commit[:_SHORT],
                    units.age(one.last_modified),
                    str(len(one.changes)),
                    units.size(one.download_bytes),
                ]
                for one in found
            ],
        ),
    )
    for one in unchecked:
        session.out.problem(
            f"{one.model_name} could not be compared: {one.message} ({one.code})",
            "llm-router model outdated",
        )
    if found:
        session.out.note("Next: llm-router model upgrade MODEL")
    elif not unchecked:
        session.out.note("Every model is up to date.")
    if unchecked:
        raise click.exceptions.Exit(ExitCode.FAILED)


@model.command("upgrade")
@click.argument("name", metavar="MODEL")
@with_session
def upgrade_model(session: Session, name: str) -> None:
    """Register the newest commit of a model under the same id.

    Downloads nothing: order the model again, and each node fetches only what changed. The earlier
    files stay on the nodes, as an older revision of their Hugging Face cache; there,
    `hf cache prune` removes them.
    """
    reply = session.call(
        registration_pb2.UpgradeModelRequest(model_name=name),
        registration_pb2.UpgradeModelResponse,
    )
    one = reply.model
    session.out.answer(
        [one.model_name],
        rest.upgrade(reply),
        details(
            [
                ("Name", one.model_name),
                ("Commit", one.manifest.commit),
                ("Before", reply.previous_commit),
                ("To fetch", f"{units.size(reply.download_bytes)} on each node that was ready"),
            ]
        ),
        Table(
            [
                Column("FILE", flexible=True),
                Column("BEFORE", right=True),
                Column("NOW", right=True),
                Column("SHA256", rank=1),
            ],
            [
                [
                    change.path,
                    units.size(change.old_size_bytes) if change.HasField("old_size_bytes") else "",
                    units.size(change.new_size_bytes) if change.HasField("new_size_bytes") else "",
                    change.new_sha256[:_SHORT],
                ]
                for change in reply.changes
            ],
        ),
    )
    for warning in reply.warnings:
        session.out.note(f"Warning: {warning}")
    if one.status == registration_pb2.MODEL_STATUS_REGISTERED:
        session.out.note(f"Next: llm-router model download {one.model_name} --all")
