"""`llm-router model`: the Hub's catalog, the supported models, and orders for them."""

from collections import Counter
from collections.abc import Callable, Iterable

import click

from cli.client import pages
from cli.options import Group, with_session
from cli.render import rest, units
from cli.render.table import Column, Name, Table, details
from cli.session import Session
from protos import names
from protos.daemon.sizes import ByteSize
from protos.llmrouter.v1 import catalog_pb2, registration_pb2

_LARGEST_PAGE = 1000
_SORTS = {
    "trending": catalog_pb2.CATALOG_SORT_TRENDING,
    "downloads": catalog_pb2.CATALOG_SORT_DOWNLOADS,
    "likes": catalog_pb2.CATALOG_SORT_LIKES,
    "last-modified": catalog_pb2.CATALOG_SORT_LAST_MODIFIED,
}
_CATALOG_ONLY = ("author", "sort", "min_bytes", "max_bytes", "quantization")


@click.group(cls=Group)
def model() -> None:
    """The Hub's catalog and your supported models.

    MODEL is an id (hf/OWNER/REPO/FILE.gguf), OWNER/REPO/FILE.gguf or OWNER/REPO:QUANT.
    """


@model.command("list")
@click.option("--registered", is_flag=True, help="Your supported models instead of the catalog.")
@click.option("--search", metavar="WORDS", default="", help="Words in the name.")
@click.option("--author", metavar="OWNER", default="", help="Only of this owner.")
@click.option("--sort", type=click.Choice(list(_SORTS)), help="Descending (trending).")
@click.option(
    "--min-size", "min_bytes", type=ByteSize(), metavar="SIZE", help="At least, e.g. 500MB."
)
@click.option("--max-size", "max_bytes", type=ByteSize(), metavar="SIZE", help="At most: 8GB.")
@click.option("--quant", "quantization", metavar="QUANT", default="", help="Only e.g. Q4_K_M.")
@click.option("--limit", type=click.IntRange(1, 100), help="So many (20; --registered: all).")
@click.option("--offset", type=click.IntRange(0, 999_999_999), default=0, help="After so many.")
@with_session
def list_models(
    session: Session,
    registered: bool,
    search: str,
    author: str,
    sort: str | None,
    min_bytes: int | None,
    max_bytes: int | None,
    quantization: str,
    limit: int | None,
    offset: int,
) -> None:
    """The Hub's GGUF catalog, and the state of each variant; or --registered models."""
    if registered:
        given = click.get_current_context().params
        for name in _CATALOG_ONLY:
            if given[name]:
                raise click.UsageError("--registered goes with --search, --limit and --offset only")
        _list_registered(session, search, limit, offset)
        return
    window = catalog_pb2.VariantWindow(limit=limit or 20, offset=offset)
    reply = session.call(
        catalog_pb2.SearchCatalogRequest(
            search=search,
            author=author,
            sort=_SORTS[sort] if sort else catalog_pb2.CATALOG_SORT_UNSPECIFIED,
            min_bytes=min_bytes or 0,
            max_bytes=max_bytes or 0,
            quantization=quantization,
            window=window,
        ),
        catalog_pb2.SearchCatalogResponse,
    )
    session.out.answer(
        [one.model_name for repo in reply.repos for one in repo.variants],
        rest.catalog(reply, window.limit, offset),
        _catalog_table(reply.repos),
    )
    if reply.stale:
        since = units.age(reply.fetch_time)
        why = f" ({reply.problem})" if reply.problem else ""
        session.out.note(f"The Hub does not answer{why}: this is what it said {since} ago.")
    count = sum(len(repo.variants) for repo in reply.repos)
    if reply.has_more:
        session.out.note(f"More follow: --offset {offset + count}")
    elif not count:
        session.out.note("Nothing fits; try fewer words or wider bounds.")


def _list_registered(session: Session, search: str, limit: int | None, offset: int) -> None:
    request = registration_pb2.ListModelsRequest(page_size=_LARGEST_PAGE)
    session.explain(request)
    words = search.lower().split()
    found = [
        one
        for page in pages(session.router, request, registration_pb2.ListModelsResponse)
        for one in page.models
        if all(word in f"{one.model_name} {one.display_name}".lower() for word in words)
    ]
    shown = found[offset : None if limit is None else offset + limit]
    session.out.answer(
        [one.model_name for one in shown],
        {"models": [rest.model(one) for one in shown]},
        _model_table(shown, found),
    )
    if offset + len(shown) < len(found):
        session.out.note(f"More follow: --offset {offset + len(shown)}")
    elif not found:
        session.out.note("No model is registered: llm-router model add REPO[:QUANT]")


@model.command("show")
@click.argument("name", metavar="MODEL")
@with_session
def show_model(session: Session, name: str) -> None:
    """One supported model; of a bare OWNER/REPO, what the Hub offers there."""
    try:
        reference = names.model_reference(name)
    except names.InvalidName:
        reference = None  # the router says so, as for every command that names a model
    if reference and reference.path is None and reference.quantization is None:
        _show_repo(session, reference.repo)
        return
    request = registration_pb2.GetModelRequest(model_name=name)
    one = session.call(request, registration_pb2.GetModelResponse).model
    session.out.answer(
        [one.model_name],
        rest.model(one),
        details(_model_details(one)),
        Table(
            [Column("FILE", flexible=True), Column("SIZE", right=True), Column("SHA256", rank=1)],
            [[file.path, units.size(file.size_bytes), file.sha256] for file in one.manifest.files],
        ),
        Table(
            [
                Column("NODE"),
                Column("STATUS"),
                Column("VERIFIED", right=True),
                Column("TASK", rank=1),
            ],
            [
                [
                    holding.node_name or holding.node_id,
                    rest.holding_status(holding),
                    units.age(holding.verify_time),
                    holding.task_id,
                ]
                for holding in one.holdings
            ],
        )
        if one.holdings
        else [],
    )


def _show_repo(session: Session, repo_name: str) -> None:
    reply = session.call(catalog_pb2.GetRepoRequest(repo=repo_name), catalog_pb2.GetRepoResponse)
    repo = reply.repo
    session.out.answer(
        [one.model_name for one in repo.variants],
        {"repo": repo.repo, "models": [rest.variant(repo, one) for one in repo.variants]},
        details(
            [
                ("Repository", repo.repo),
                ("Commit", repo.commit),
                ("License", repo.license),
                ("Gated", "yes" if repo.gating > catalog_pb2.GATING_OPEN else ""),
                ("Private", "yes" if repo.private else ""),
                ("Downloads", f"{repo.downloads:,}"),
                ("Likes", f"{repo.likes:,}"),
                ("Architecture", repo.facts.architecture),
                ("Convertible", "yes: it holds no GGUF yet" if repo.convertible else ""),
            ]
        ),
        _catalog_table([repo]),
    )


@model.command("add")
@click.argument("name", metavar="REPO[:QUANT]")
@click.option("--file", "file_name", metavar="F.gguf", default="", help="This file of it.")
@click.option("--revision", metavar="R", default="", help="Branch, tag or commit (main).")
@click.option("--display-name", metavar="TEXT", default="", help="For people.")
@with_session
def add_model(
    session: Session, name: str, file_name: str, revision: str, display_name: str
) -> None:
    """Register a file of the Hub as a supported model, pinned to its commit.

    Without QUANT and --file: Q4_K_M, else Q8_0, else the first. A whole id will do, too.
    """
    reference = _reference(name)
    if file_name and (reference.path or reference.quantization):
        raise click.UsageError("name the file once: with --file, or behind the repository")
    reply = session.call(
        registration_pb2.RegisterModelRequest(
            repo=reference.repo,
            file=_checked(names.file_path, file_name or reference.path or ""),
            quantization=reference.quantization or "",
            revision=_checked(names.revision, revision),
            display_name=display_name,
        ),
        registration_pb2.RegisterModelResponse,
    )
    one = reply.model
    session.out.answer([one.model_name], rest.registration(reply), details(_model_details(one)))
    for warning in reply.warnings:
        session.out.note(f"Warning: {warning}")
    if one.status == registration_pb2.MODEL_STATUS_REGISTERED:
        session.out.note(f"Next: llm-router model download {one.model_name} --all")


@model.command("remove")
@click.argument("name", metavar="MODEL")
@click.option("--evict", is_flag=True, help="Remove its files from every node, too.")
@click.option("--force", is_flag=True, help="Cancel its running tasks.")
@with_session
def remove_model(session: Session, name: str, evict: bool, force: bool) -> None:
    """Take a model off the list; its files stay on the nodes unless --evict."""
    session.call(
        registration_pb2.UnregisterModelRequest(model_name=name, evict=evict, force=force),
        registration_pb2.UnregisterModelResponse,
    )
    session.out.answer([name], {"name": name, "removed": True, "evicted": evict})
    session.out.done(
        f"{name} removed" + ("; its files leave the nodes" if evict else "; its files stay")
    )


def _reference(text: str) -> names.ModelReference:
    try:
        return names.model_reference(text)
    except names.InvalidName as error:
        raise click.UsageError(str(error)) from error


def _checked(check: Callable[[str], str], text: str) -> str:
    """The name, checked unless it is empty."""
    try:
        return check(text) if text else text
    except names.InvalidName as error:
        raise click.UsageError(str(error)) from error


def _catalog_table(repos: Iterable[catalog_pb2.Repo]) -> Table:
    repos = list(repos)
    tags = Counter((repo.repo, one.quantization) for repo in repos for one in repo.variants)
    return Table(
        [
            Column("NAME", flexible=True),
            Column("QUANT", rank=3),
            Column("SIZE", right=True),
            Column("MEMORY", right=True, rank=4),
            Column("DOWNLOADS", right=True, rank=2),
            Column("LIKES", right=True, rank=6),
            Column("MODIFIED", right=True, rank=5),
            Column("GATED", rank=7),
            Column("STATUS"),
        ],
        [
            [
                _name(one.model_name, repo.repo, one.quantization, tags),
                one.quantization,
                units.size(one.size_bytes),
                units.size(one.required_memory_bytes) if one.required_memory_bytes else "",
                f"{repo.downloads:,}",
                f"{repo.likes:,}",
                units.age(repo.last_modified),
                "yes" if repo.gating > catalog_pb2.GATING_OPEN else "",
                rest.variant_status(one),
            ]
            for repo in repos
            for one in repo.variants
        ],
    )


def _model_table(
    models: list[registration_pb2.Model], everything: list[registration_pb2.Model]
) -> Table:
    tags = Counter((one.manifest.repo, one.manifest.quantization) for one in everything)
    return Table(
        [
            Column("NAME", flexible=True),
            Column("QUANT", rank=2),
            Column("SIZE", right=True),
            Column("MEMORY", right=True, rank=3),
            Column("STATUS", rank=1),
            Column("READY", right=True),
            Column("AGE", right=True, rank=4),
        ],
        [
            [
                _name(one.model_name, one.manifest.repo, one.manifest.quantization, tags),
                one.manifest.quantization,
                units.size(one.manifest.total_bytes),
                units.size(one.required_memory_bytes) if one.required_memory_bytes else "",
                rest.model_status(one),
                _ready(one),
                units.age(one.create_time),
            ]
            for one in models
        ],
    )


def _name(full: str, repo: str, quantization: str, tags: Counter[tuple[str, str]]) -> Name:
    """The id; as short form the alias, when it names this one alone."""
    alone = bool(quantization) and tags[repo, quantization] == 1
    return Name(full, f"{repo}:{quantization}" if alone else full)


def _ready(one: registration_pb2.Model) -> str:
    return f"{one.ready_node_count}/{len(one.holdings)}" if one.holdings else "0"


def _model_details(one: registration_pb2.Model) -> list[tuple[str, str]]:
    manifest, facts = one.manifest, one.facts
    return [
        ("Name", one.model_name),
        ("Display name", one.display_name),
        ("Status", rest.model_status(one)),
        ("Repository", manifest.repo),
        ("Commit", f"{manifest.commit} ({manifest.revision})"),
        ("Quantization", manifest.quantization),
        ("Size", units.size(manifest.total_bytes)),
        (
            "Memory",
            f"about {units.size(one.required_memory_bytes)}" if one.required_memory_bytes else "",
        ),
        ("Architecture", facts.architecture),
        ("Parameters", f"{facts.parameters:,}" if facts.parameters else ""),
        ("Layers", f"{facts.layers:,}" if facts.layers else ""),
        ("Context", f"{facts.context_length:,} tokens" if facts.context_length else ""),
        ("Tokenizer", facts.tokenizer),
        ("Chat template", _template(one)),
        ("License", facts.license),
        ("Ready on", _nodes(one.ready_node_count)),
    ]


def _template(one: registration_pb2.Model) -> str:
    if one.chat_template:
        return "its own, set at registration"
    return "in the file" if one.facts.has_chat_template else ""


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
