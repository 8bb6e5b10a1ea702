"""What clients send: paths, flags, lists of paths."""

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.protocol.errors import HubError

_MAX_BODY = 1 << 20


def path_parts(request: Request) -> list[str]:
    """The decoded names of the path; split before decoding: a revision's `%2F` is no separator."""
    raw: bytes = request.scope["raw_path"]
    return [unquote(part) for part in raw.decode("latin-1").strip("/").split("/")]


def target(parts: list[str], verb: str) -> tuple[str, list[str]]:
    """The repository of a path (as `path_parts` tells it), and the names behind its verb."""
    if parts[:2] == ["api", "models"]:
        parts = parts[2:]
    if "/" in parts[0]:  # some clients write owner%2Frepo
        parts = [*parts[0].split("/", 1), *parts[1:]]
    owner, name, *rest = parts
    return f"{owner}/{name}", rest[1:] if rest[:1] == [verb] else []


def is_true(text: str | None) -> bool:
    """Whether a flag is set."""
    return text is not None and text.lower() in ("true", "1", "on")


def page_size(params: QueryParams, most: int) -> int:
    """The `limit` of a page, at most `most`; raises `HubError` 400."""
    text = params.get("limit", "")
    if text and (not text.isdecimal() or int(text) == 0):
        raise HubError(400, None, f'limit "{text}" is not a positive number')
    return min(int(text), most) if text else most


def page(
    request: Request, content: Any, cursor: str | None, headers: dict[str, str] | None = None
) -> Response:
    """A page of a list, with the address of the next one as the Hub gives it (RFC 8288)."""
    response = JSONResponse(content, headers=headers)
    if cursor is not None:
        params = [(k, v) for k, v in request.query_params.multi_items() if k != "cursor"]
        following = f"{request.url.replace(query='')}?{urlencode([*params, ('cursor', cursor)])}"
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


async def asked_paths(request: Request) -> tuple[list[str], bool]:
    """The paths that a paths-info request names, and whether to expand; a form or JSON.

    Raises `HubError` 400, 413.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HubError(413, None, "too many paths at once: ask for fewer")
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            asked = json.loads(body)
            paths = asked.get("paths", [])
            listed = [paths] if isinstance(paths, str) else [str(path) for path in paths]
            return listed, is_true(str(asked.get("expand", "")))
        form = parse_qs(body.decode())
    except (ValueError, AttributeError, TypeError):
        raise HubError(400, None, 'the body is neither a form nor JSON with "paths"') from None
    return form.get("paths", []), is_true("".join(form.get("expand", [])))
