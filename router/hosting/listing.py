"""The list of repositories as `GET /api/models` filters, sorts and cuts it into pages."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams

from router.hosting.repository import Scan
from router.protocol.errors import HubError
from router.protocol.requests import page_size

MAX_PAGE = 1000
_SORTS = {
    "downloads": "downloads",
    "likes": "likes",
    "trendingScore": "trendingScore",
    "trending_score": "trendingScore",
    "lastModified": "lastModified",
    "last_modified": "lastModified",
    "createdAt": "createdAt",
    "created_at": "createdAt",
}
_BRIEF = [
    "_id",
    "id",
    "modelId",
    "private",
    "gated",
    "downloads",
    "likes",
    "trendingScore",
    "tags",
    "createdAt",
    "library_name",
]
_FULL = [*_BRIEF, "author", "sha", "lastModified", "disabled", "siblings"]
_FORMATS = ("gguf", "safetensors", "onnx")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a repository beyond its files."""

    downloads: int = 0
    likes: int = 0
    gated: str | None = None  # "auto" or "manual": how access is granted


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asked the list for."""

    search: tuple[str, ...]
    author: str | None
    tags: tuple[str, ...]
    gated: bool | None  # None: both
    sort: str
    limit: int
    after: tuple[int, str] | None  # sort value and id of the last repository of the page before
    fields: tuple[str, ...]

    @property
    def wants_commit(self) -> bool:
        """Whether the digests of the listed files are needed."""
        return "sha" in self.fields


def query(params: QueryParams) -> Query:
    """Reads a client's parameters; raises `HubError` 400 for what cannot be understood."""
    sort = params.get("sort", "trendingScore")
    if sort not in _SORTS:
        raise HubError(400, None, f'cannot sort by "{sort}": use one of {", ".join(_SORTS)}')
    expand = [field for value in params.getlist("expand") for field in value.split(",") if field]
    tags = [tag for value in params.getlist("filter") for tag in value.split(",") if tag]
    if params.get("pipeline_tag"):
        tags.append(params["pipeline_tag"])
    if "llama.cpp" in params.getlist("apps"):
        tags.append("gguf")
    return Query(
        search=tuple(params.get("search", "").lower().split()),
        author=params.get("author"),
        tags=tuple(tags),
        gated={"true": True, "false": False}.get(params.get("gated", "").lower()),
        sort=_SORTS[sort],
        limit=page_size(params, MAX_PAGE),
        after=_read_cursor(params.get("cursor"), _SORTS[sort]),
        fields=tuple(["_id", "id", "modelId", *expand] if expand else _fields(params)),
    )


def select(
    asked: Query, repositories: Sequence[tuple[Scan, Standing]]
) -> tuple[list[tuple[Scan, dict[str, Any]]], str | None]:
    """The page of a query: repositories with their fields, and the cursor of the next page."""
    wanted = [
        (_position(asked, scan, standing), scan, standing)
        for scan, standing in repositories
        if _is_wanted(asked, scan, standing)
    ]
    if (after := asked.after) is not None:
        wanted = [item for item in wanted if item[0] < after]
    wanted.sort(key=lambda item: item[0], reverse=True)
    page = [(scan, description(scan, standing)) for _, scan, standing in wanted[: asked.limit]]
    more = len(wanted) > asked.limit
    return page, _write_cursor(asked.sort, wanted[asked.limit - 1][0]) if more else None


def description(scan: Scan, standing: Standing) -> dict[str, Any]:
    """All that is known of a repository without reading its files."""
    return {
        "_id": scan.repo,
        "id": scan.repo,
        "modelId": scan.repo,
        "author": scan.repo.partition("/")[0],
        "private": False,
        "gated": standing.gated or False,
        "disabled": False,
        "downloads": standing.downloads,
        "downloadsAllTime": standing.downloads,
        "likes": standing.likes,
        "trendingScore": standing.downloads,
        "tags": tags(scan),
        "library_name": next(iter(tags(scan)), None),
        "lastModified": timestamp(scan.modified_ns),
        "createdAt": timestamp(scan.created_ns),
        "siblings": [{"rfilename": file.name} for file in scan.files],
        "usedStorage": sum(file.size for file in scan.files),
    }


def tags(scan: Scan) -> list[str]:
    """The formats of a repository's files: what `filter` asks for."""
    suffixes = {file.suffix for file in scan.files}
    return [name for name in _FORMATS if f".{name}" in suffixes]


def timestamp(nanoseconds: int) -> str:
    """Unix time as the Hub writes it: `2026-01-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(params: QueryParams) -> Sequence[str]:
    return _FULL if params.get("full", "").lower() in ("true", "1", "full") else _BRIEF


def _is_wanted(asked: Query, scan: Scan, standing: Standing) -> bool:
    name = scan.repo.lower()
    return (
        asked.gated in (None, standing.gated is not None)
        and (asked.author is None or name.startswith(f"{asked.author.lower()}/"))
        and all(word in name for word in asked.search)
        and set(asked.tags) <= set(tags(scan))
    )


def _position(asked: Query, scan: Scan, standing: Standing) -> tuple[int, str]:
    values = {
        "downloads": standing.downloads,
        "trendingScore": standing.downloads,
        "likes": standing.likes,
        "lastModified": scan.modified_ns,
        "createdAt": scan.created_ns,
    }
    return values[asked.sort], scan.repo


def _write_cursor(sort: str, position: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([sort, *position]).encode()).decode().rstrip("=")


def _read_cursor(text: str | None, sort: str) -> tuple[int, str] | None:
    if not text:
        return None
    try:
        given, value, repo = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError):
        given, value, repo = None, None, None
    if given != sort or not isinstance(value, int) or not isinstance(repo, str):
        raise HubError(400, None, "the cursor is not one that this server gave for this sorting")
    return value, repo
