"""The answers that tell of a commit: info, tree, paths, references."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.protocol.commits import MAIN, Commit
from router.protocol.errors import entry_not_found
from router.protocol.requests import asked_paths, is_true, page, page_size
from router.protocol.tree import path_info, sibling, tree, with_last_commit

_TREE_PAGE = 1000


def info(request: Request, description: dict[str, Any], commit: Commit) -> Response:
    """A repository's info at a commit; `description` is what is known beside its files."""
    known = description | {
        "sha": commit.id,
        "siblings": [
            sibling(entry, with_blob=is_true(request.query_params.get("blobs")))
            for entry in commit.entries
        ],
        "usedStorage": sum(entry.size for entry in commit.entries),
    }
    expand = [f for value in request.query_params.getlist("expand") for f in value.split(",")]
    if expand:
        known = {key: known[key] for key in ["_id", "id", *expand] if key in known}
    return JSONResponse(known)


def tree_page(request: Request, repo: str, commit: Commit, folder: str, date: str) -> Response:
    """One page of a folder's content ("" is the root); raises `HubError` 404, 400.

    `date` is when the commit was made, as the Hub writes it.
    """
    params = request.query_params
    found = tree(commit, folder, recursive=is_true(params.get("recursive")))
    if found is None:
        raise entry_not_found(repo, folder)
    after = params.get("cursor", "")
    rest = [item for item in found if item["path"] > after]
    size = page_size(params, _TREE_PAGE)
    shown = rest[:size]
    if is_true(params.get("expand")):
        shown = [with_last_commit(item, commit, date) for item in shown]
    cursor = shown[-1]["path"] if len(rest) > size else None
    return page(request, shown, cursor, {"X-Repo-Commit": commit.id})


async def paths_info(request: Request, commit: Commit, date: str) -> Response:
    """What is known of the paths that the request's body names; unknown ones are left out."""
    paths, expand = await asked_paths(request)
    infos = [item for path in paths if (item := path_info(commit, path.strip("/")))]
    if expand:
        infos = [with_last_commit(item, commit, date) for item in infos]
    return JSONResponse(infos)


def refs(commit: Commit) -> Response:
    """The branches: one, `main`."""
    main = {"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": commit.id}
    return JSONResponse({"branches": [main], "tags": [], "converts": [], "pullRequests": []})


def agent_harnesses() -> Response:
    """huggingface_hub asks for it in the background and keeps it for a day; empty is valid."""
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})
