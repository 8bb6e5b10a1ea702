"""`/hub`: the router as the site's Hub. `HF_ENDPOINT=http://router:8080/hub` is all a client needs.

It tells of registered models only, in the Hub's own protocol. Bytes come from the nodes: a client
is redirected to one that holds the file; a file that no node holds is fetched by one first.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.domain.blobs import KeptFile
from router.domain.errors import DomainError, NoNodes
from router.domain.models import Model, file_url
from router.protocol import answers
from router.protocol.commits import MAIN, Entry
from router.protocol.download import Download, Served
from router.protocol.errors import HubError, entry_not_found, refused, revision_not_found
from router.protocol.files import FileChanged
from router.protocol.requests import path_parts, target
from router.rest.errors import status_of
from router.rest.hub_view import View, description, manifest_of, view
from router.services.models import Models
from router.services.sources import Place, Sources
from router.services.watch import Topic, Watchers

PREFIX = "/hub"
BLOBS = "/blobs"  # below it, what the router itself keeps
# huggingface_hub gives up after 10 s without an answer.
_HOLD_SECONDS = 8.0
_AGAIN_SECONDS = 5
_MAX_HELD = 256
_READERS = 8

Handler = Callable[[Request], Awaitable[Response]]


class _Elsewhere(HubError):
    """What is asked for is not registered: another Hub may have it."""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """`pass_through` sends who asks for what is not registered on to the Hub at `hub_url`.

    `hold_seconds` is how long a request for a file waits until a node has begun to fetch it.
    """

    hub_url: str
    pass_through: bool = False
    hold_seconds: float = 8.0


class SiteHub:
    """The endpoint's handlers. Belongs to the event loop."""

    def __init__(
        self,
        models: Models,
        sources: Sources,
        watchers: Watchers,
        settings: HubSettings,
        told_by_hub: Callable[[str], dict[str, str]],
    ) -> None:
        """Shows `models`; their bytes come from `sources`.

        `told_by_hub` is what the Hub tells of the file at a path; it blocks for seconds at most.
        """
        self._told_by_hub = told_by_hub
        self._models = models
        self._sources = sources
        self._watchers = watchers
        self._settings = settings
        self._held = 0
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="blobs")

    def app(self) -> Starlette:
        """The application below `/hub`."""
        repo = "/{owner}/{repo}"
        api = f"/api/models{repo}"
        routes = [
            _route(api, self._info),
            _route(f"{api}/revision/{{rest:path}}", self._info),
            _route(f"{api}/tree/{{rest:path}}", self._tree),
            _route(f"{api}/paths-info/{{rest:path}}", self._paths_info, "POST"),
            _route(f"{api}/refs", self._refs),
            _route(f"{api}/auth-check", self._auth_check),
            _route(f"{repo}/resolve/{{rest:path}}", self._resolve),
            _route(f"/v2{repo}/manifests/{{tag}}", self._manifest),
            _route("/api/agent-harnesses", self._agent_harnesses),
            _route("/{rest:path}", self._nothing, "GET", "POST"),
        ]
        app = Starlette(routes=routes)
        app.add_exception_handler(HubError, self._refused)
        app.add_exception_handler(DomainError, self._failed)
        return app

    async def blob(self, request: Request) -> Response:
        """What the router itself keeps of contents, by digest: for agents."""
        sha256 = request.path_params["sha256"]
        file = await asyncio.to_thread(self._sources.kept, sha256)
        if file is None:
            return HubError(404, None, f"this router does not keep {sha256}").response()
        return self._download(request, file, {})

    # What there is

    async def _info(self, request: Request) -> Response:
        repo, parts = _target(request, "revision")
        shown = await self._view(repo, "/".join(parts) or MAIN)
        return answers.info(request, description(repo, shown), shown.commit)

    async def _tree(self, request: Request) -> Response:
        repo, parts = _target(request, "tree")
        revision, *path = parts or [MAIN]
        shown = await self._view(repo, revision)
        folder = "/".join(path).strip("/")
        return answers.tree_page(request, repo, shown.commit, folder, shown.date)

    async def _paths_info(self, request: Request) -> Response:
        repo, parts = _target(request, "paths-info")
        shown = await self._view(repo, "/".join(parts) or MAIN)
        return await answers.paths_info(request, shown.commit, shown.date)

    async def _refs(self, request: Request) -> Response:
        repo, _ = _target(request, "refs")
        return answers.refs((await self._view(repo, MAIN)).commit)

    async def _auth_check(self, request: Request) -> Response:
        repo, _ = _target(request, "auth-check")
        await self._view(repo, MAIN)
        return JSONResponse({})

    async def _manifest(self, request: Request) -> Response:
        """What llama.cpp before March 2026 asked: which file a tag means."""
        parts = path_parts(request)[2:]  # without "hub" and "v2"
        repo, tag = "/".join(parts[:2]), parts[-1]
        models = await self._registered(repo)
        found = manifest_of(models, tag)
        if found is None:
            raise _Elsewhere(404, "EntryNotFound", f'no file of "{repo}" is registered as "{tag}"')
        return JSONResponse(found)

    async def _agent_harnesses(self, request: Request) -> Response:
        return answers.agent_harnesses()

    async def _nothing(self, request: Request) -> Response:
        kind, *rest = [*path_parts(request)[1:], ""]
        if kind == "api" and rest[:1] in (["models"], ["datasets"], ["spaces"]):
            raise _not_registered("/".join(rest[1:3]).strip("/"))
        raise _Elsewhere(404, None, "this Hub serves registered models only")

    async def _registered(self, repo: str) -> list[Model]:
        models = await asyncio.to_thread(self._models.of_repo, repo)
        if not models:
            raise _not_registered(repo)
        return models

    async def _view(self, repo: str, revision: str) -> View:
        shown = view(await self._registered(repo), revision)
        if shown is None:
            missing = revision_not_found(repo, revision)
            raise HubError(404, missing.code, f"{missing}: registered are others of it")
        return shown

    # Files

    async def _resolve(self, request: Request) -> Response:
        repo, parts = _target(request, "resolve")
        revision, *path = parts or [MAIN]
        name = "/".join(path)
        shown = await self._view(repo, revision)
        entry, model = shown.commit.by_name.get(name), shown.model_of.get(name)
        if entry is None or model is None:
            missing = entry_not_found(repo, name)
            headers = {"X-Repo-Commit": shown.commit.id}
            raise _Elsewhere(404, missing.code, f"{missing}: it is not registered", headers)
        headers = {"X-Repo-Commit": shown.commit.id, "ETag": f'"{entry.etag}"', **entry.linked}
        if request.method == "HEAD":
            told = {"Accept-Ranges": "bytes", "Content-Length": str(entry.size)}
            return Response(headers=headers | told, media_type="application/octet-stream")
        return await self._content(request, model, entry, headers)

    async def _content(
        self, request: Request, model: Model, entry: Entry, headers: dict[str, str]
    ) -> Response:
        """The way to the bytes: a node, else the router's own copy, else a node that fetches."""
        client = request.client.host if request.client is not None else ""
        sha256 = entry.etag
        holders = await asyncio.to_thread(self._sources.holders, sha256, client)
        if holders:
            return _see(holders[0], headers)
        file = await asyncio.to_thread(self._sources.kept, sha256)
        if file is not None:
            return self._download(request, file, headers)
        try:
            place = await self._fetched(model, sha256, client)
        except NoNodes:
            if not self._settings.pass_through:
                raise
            pinned = model.manifest
            url = file_url(self._settings.hub_url, pinned.repo, pinned.commit, entry.name)
            return Response(status_code=302, headers=headers | {"Location": url})
        return _see(place, headers)

    async def _fetched(self, model: Model, sha256: str, client: str) -> Place:
        """A node that is fetching a file, once it has begun.

        Raises `NoNodes`, `InsufficientDisk`, `NotBrought`, and `HubError` 503 after a while.
        """
        if self._held >= _MAX_HELD:
            raise _starting(model)
        self._held += 1
        try:
            async with asyncio.timeout(self._settings.hold_seconds):
                task_id = await asyncio.to_thread(self._sources.bring, model)
                with self._watchers.watch(Topic.TASK, keys=[task_id]) as watch:
                    while True:
                        place = await asyncio.to_thread(
                            self._sources.arriving, task_id, sha256, client
                        )
                        if place is not None:
                            return place
                        await watch.changes()
        except TimeoutError:
            raise _starting(model) from None
        finally:
            self._held -= 1

    def _download(self, request: Request, file: KeptFile, headers: dict[str, str]) -> Response:
        return _Kept(Served(file, file.name, headers), request, self._readers, None)

    # Refusals

    async def _to_the_hub(self, request: Request) -> Response:
        raw: bytes = request.scope["raw_path"]
        path = raw.decode("latin-1").removeprefix(PREFIX)
        query = f"?{request.url.query}" if request.url.query else ""
        status = 302 if request.method in ("GET", "HEAD") else 307
        headers = {"Location": f"{self._settings.hub_url}{path}{query}"}
        if request.method == "HEAD" and "/resolve/" in path:
            # huggingface_hub follows a redirect to huggingface.co alone, and reads any other.
            headers |= await asyncio.to_thread(self._told_by_hub, path)
        return Response(status_code=status, headers=headers)

    async def _refused(self, request: Request, error: Exception) -> Response:
        if isinstance(error, _Elsewhere) and self._settings.pass_through:
            return await self._to_the_hub(request)
        return await refused(request, error)

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, DomainError)
        wait = error.retry_after
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
        return HubError(status_of(error), None, error.message, headers).response()


class _Kept(Download):
    """A content of the router's own; a client of one that is removed meanwhile is cut off."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Download`."""
        try:
            await super().__call__(scope, receive, send)
        except FileChanged:
            gone = HubError(404, None, "this content has just been removed")
            await gone.response()(scope, receive, send)


def _see(place: Place, headers: dict[str, str]) -> Response:
    # A ticket expires, and the next client may be closer to another node.
    own = {"Location": place.urls[0], "Cache-Control": "no-store"}
    return Response(status_code=302, headers=headers | own)


def _target(request: Request, verb: str) -> tuple[str, list[str]]:
    return target(path_parts(request)[1:], verb)


def _not_registered(repo: str) -> HubError:
    return _Elsewhere(
        404,
        "RepoNotFound",
        f'no model of "{repo}" is registered with this router: '
        f"an operator can register one with: llm-router model add {repo}",
    )


def _starting(model: Model) -> HubError:
    return HubError(
        503,
        None,
        f'a node of this site is about to fetch "{model.name}": try again in {_AGAIN_SECONDS} s',
        {"Retry-After": str(_AGAIN_SECONDS)},
    )


def _route(path: str, handler: Handler, *methods: str) -> Route:
    return Route(path, handler, methods=list(methods) or ["GET"])
