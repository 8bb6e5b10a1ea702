"""The Hub's endpoints over a folder.

Source of the protocol: the Hub's API documentation (huggingface.co/docs/hub/api) and what the
`huggingface_hub` client sends and reads. Read only; no accounts, so nothing is gated or private.
"""

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from protos.daemon.logs import get_logger
from protos.daemon.ready import version
from router.hosting import listing
from router.hosting.access_log import AccessLog
from router.hosting.digests import Digests, FoundFile
from router.hosting.errors import repository_not_found, still_reading
from router.hosting.own_host import OwnHost
from router.hosting.repository import STATE_FOLDER, Folder, History, Scan, Snapshot, snapshot
from router.hosting.signing import PREFIX, UrlSigner
from router.protocol import answers
from router.protocol.commits import MAIN, MAIN_NAMES, Commit, Entry
from router.protocol.download import Download, RateLimit, Served
from router.protocol.errors import HubError, entry_not_found, refused, revision_not_found
from router.protocol.files import FileChanged
from router.protocol.requests import page, path_parts, target

log = get_logger(__name__)

Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]

_LOOKS = 3  # at a repository that changes while it is read


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How a folder is served.

    `url_lifetime` is in seconds, `max_rate` in bytes/s for all downloads together (0: no limit).
    `digest_wait` is how many seconds a request waits for the digests of a new repository before it
    is told to come back: below the 10 s after which huggingface_hub gives up.
    """

    host: str = "127.0.0.1"
    signed_urls: bool = False
    url_lifetime: float = 3600.0
    max_rate: int = 0
    digest_wait: float = 8.0
    clock: Callable[[], float] = field(default=time.time)


class Hub:
    """Answers for one folder.

    `access`, `standing` and `download_origin` are the seams at which a subclass behaves
    differently.
    """

    def __init__(self, folder: Path, options: HubOptions) -> None:
        self._options = options
        self._folder = Folder(folder)
        state = folder.resolve() / STATE_FOLDER
        self._digests = Digests(state / "digests.json")
        self._history = History(state / "commits.json")
        self._signer = UrlSigner(options.url_lifetime, options.clock)
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="hub")
        self._limit = RateLimit(options.max_rate, time.monotonic) if options.max_rate else None
        self._latest: dict[str, Snapshot] = {}
        self._downloads: Counter[str] = Counter()

    def access(self, request: Request, repo: str) -> None:
        """Raises `HubError` when the caller may not read the repository; everyone may."""

    def standing(self, repo: str) -> listing.Standing:
        """Downloads of large files begun since this process started; nobody can like anything."""
        return listing.Standing(downloads=self._downloads[repo])

    def download_origin(self, request: Request) -> str:
        """`scheme://host:port` of signed addresses: where the request came in."""
        return str(request.base_url).rstrip("/")

    def app(self) -> Starlette:
        """The ASGI application; its lifespan reads new files and saves at the end."""
        repo = "/{owner}/{repo}"
        api = f"/api/models{repo}"
        routes = [
            _route("/api/models", self._list),
            _route(api, self._info),
            _route(f"{api}/revision/{{rest:path}}", self._info),
            _route(f"{api}/tree/{{rest:path}}", self._tree),
            _route(f"{api}/paths-info/{{rest:path}}", self._paths_info, "POST"),
            _route(f"{api}/refs", self._refs),
            _route(f"{api}/auth-check", self._auth_check),
            _route(f"{repo}/resolve/{{rest:path}}", self._resolve),
            _route(f"{PREFIX}{repo}/{{sha256}}", self._signed),
            _route("/api/whoami-v2", self._whoami),
            _route("/api/agent-harnesses", self._agent_harnesses),
            _route("/healthz", self._health),
            _route("/api/{rest:path}", self._no_repository, "GET", "POST"),
            _route("/{rest:path}", self._nothing),
        ]
        middleware = [Middleware(AccessLog), Middleware(OwnHost, host=self._options.host)]
        app = Starlette(routes=routes, middleware=middleware, lifespan=self._lifespan)
        app.add_exception_handler(HubError, refused)
        app.add_exception_handler(FileChanged, _changed)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        reading = asyncio.create_task(self._read_all())
        try:
            yield
        finally:
            reading.cancel()
            self._digests.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read_all(self) -> None:
        """Computes every digest that is not known yet, so that the first request need not wait."""
        scans = await self._in_thread(self._folder.repositories)
        files = [file for scan in scans for file in scan.files]
        self._digests.forget_others(files)
        log.info(
            "serving repositories",
            repositories=len(scans),
            files=len(files),
            bytes=sum(file.size for file in files),
        )
        for scan in scans:
            try:
                await self._snapshot(scan.repo, wait=None)
            except HubError as error:
                log.warning("a repository cannot be read", repo=scan.repo, error=error)

    # --- repositories ---

    async def _list(self, request: Request) -> Response:
        asked = listing.query(request.query_params)
        scans = await self._in_thread(self._folder.repositories)
        readable = [scan for scan in scans if self._may_read(request, scan.repo)]
        shown, cursor = listing.select(asked, [(s, self.standing(s.repo)) for s in readable])
        if asked.wants_commit:
            await self._add_commits(shown)
        answer = [
            {name: fields[name] for name in asked.fields if name in fields} for _, fields in shown
        ]
        return page(request, answer, cursor)

    def _may_read(self, request: Request, repo: str) -> bool:
        try:
            self.access(request, repo)
        except HubError:
            return False
        return True

    async def _add_commits(self, page: Sequence[tuple[Scan, dict[str, Any]]]) -> None:
        """Adds `sha` where it is known in time; the listing does not fail for a new repository."""
        until = time.monotonic() + self._options.digest_wait
        for scan, fields in page:
            with contextlib.suppress(HubError):
                left = max(0.0, until - time.monotonic())
                fields["sha"] = (await self._snapshot(scan.repo, wait=left)).commit.id

    async def _info(self, request: Request) -> Response:
        repo, parts = self._target(request, "revision")
        revision = "/".join(parts) or MAIN
        present, commit = await self._commit(repo, revision)
        return answers.info(request, listing.description(present.scan, self.standing(repo)), commit)

    async def _refs(self, request: Request) -> Response:
        repo, _ = self._target(request, "refs")
        present = await self._snapshot(repo, wait=self._options.digest_wait)
        return answers.refs(present.commit)

    async def _auth_check(self, request: Request) -> Response:
        repo, _ = self._target(request, "auth-check")
        if await self._in_thread(self._folder.scan, repo) is None:
            raise repository_not_found(repo)
        return JSONResponse({})

    async def _tree(self, request: Request) -> Response:
        repo, parts = self._target(request, "tree")
        revision, *path = parts or [MAIN]
        folder = "/".join(path).strip("/")
        present, commit = await self._commit(repo, revision)
        return answers.tree_page(request, repo, commit, folder, _date(present))

    async def _paths_info(self, request: Request) -> Response:
        repo, parts = self._target(request, "paths-info")
        present, commit = await self._commit(repo, "/".join(parts) or MAIN)
        return await answers.paths_info(request, commit, _date(present))

    # --- files ---

    async def _resolve(self, request: Request) -> Response:
        repo, parts = self._target(request, "resolve")
        if len(parts) < 2:
            raise entry_not_found(repo, "")
        revision, *path = parts
        name = "/".join(path)
        present, commit = await self._commit(repo, revision)
        headers = {"X-Repo-Commit": commit.id}
        entry = commit.by_name.get(name)
        file = None if entry is None else present.content.get(entry.oid)
        if entry is None or file is None:
            refused = entry_not_found(repo, name)
            refused.headers.update(headers)
            raise refused
        if entry.sha256 is None or not self._options.signed_urls:
            return self._download(request, repo, commit.id, entry, file)
        signed = self._signer.path(repo, entry.sha256, commit.id)
        location = self.download_origin(request) + signed
        headers |= entry.linked | {"Location": location, "ETag": f'"{entry.etag}"'}
        return PlainTextResponse(f"Found. Redirecting to {location}", 302, headers)

    async def _signed(self, request: Request) -> Response:
        parts = path_parts(request)
        query = request.query_params
        refusal = self._signer.refusal("/" + "/".join(parts), query)
        if refusal is not None:
            return PlainTextResponse(f"{refusal}: ask the Hub for a new one\n", 403)
        _, owner, name, sha256 = parts
        repo = f"{owner}/{name}"
        present = await self._snapshot(repo, wait=self._options.digest_wait)
        for entry in present.commit.entries:
            if entry.sha256 == sha256:
                file = present.content[entry.oid]
                return self._download(request, repo, query["Commit"], entry, file)
        return PlainTextResponse("this content is no longer here\n", 404)

    def _download(
        self, request: Request, repo: str, commit_id: str, entry: Entry, file: FoundFile
    ) -> Download:
        begins = request.headers.get("range", "bytes=0-").replace(" ", "").startswith("bytes=0-")
        if entry.sha256 is not None and request.method == "GET" and begins:
            self._downloads[repo] += 1
        headers = {"X-Repo-Commit": commit_id, **entry.linked}
        return Download(Served(file, entry.etag, headers), request, self._threads, self._limit)

    # --- the rest of the protocol ---

    async def _whoami(self, request: Request) -> Response:
        raise HubError(
            401, None, "this Hub has no accounts; everything is readable without a token"
        )

    async def _agent_harnesses(self, request: Request) -> Response:
        return answers.agent_harnesses()

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": version()})

    async def _no_repository(self, request: Request) -> Response:
        kind, *rest = [*path_parts(request)[1:], ""]
        if kind in ("models", "datasets", "spaces"):
            raise repository_not_found("/".join(rest[:2]).strip("/"))
        return await self._nothing(request)

    async def _nothing(self, request: Request) -> Response:
        raise HubError(404, None, "this Hub serves models only: see /api/models")

    # --- parts of an answer ---

    def _target(self, request: Request, verb: str) -> tuple[str, list[str]]:
        """The repository of a request's path, and the decoded names behind its verb."""
        repo, rest = target(path_parts(request), verb)
        self.access(request, repo)
        return repo, rest

    async def _commit(self, repo: str, revision: str) -> tuple[Snapshot, Commit]:
        """The repository as it is, and the commit that was asked for, as far as it can be had."""
        present = await self._snapshot(repo, wait=self._options.digest_wait)
        if revision in MAIN_NAMES or revision == present.commit.id:
            return present, present.commit
        commit = self._history.find(repo, revision)
        if commit is None or not any(e.oid in present.content for e in commit.entries):
            raise revision_not_found(repo, revision)
        return present, commit

    async def _snapshot(self, repo: str, wait: float | None) -> Snapshot:
        """The repository as the folder holds it now; `wait` is in seconds, None for ever.

        Raises `HubError`: 404 without such a repository, 503 when it is still being read.
        """
        until = None if wait is None else time.monotonic() + wait
        for _ in range(_LOOKS):
            scan = await self._in_thread(self._folder.scan, repo)
            if scan is None:
                raise repository_not_found(repo)
            latest = self._latest.get(repo)
            if latest is not None and latest.scan == scan:
                return latest
            computing = [asyncio.wrap_future(self._digests.of(file)) for file in scan.files]
            left = None if until is None else max(0.0, until - time.monotonic())
            _, pending = await asyncio.wait(computing, timeout=left)
            if pending:
                raise still_reading(repo, 10)
            try:
                made = snapshot(scan, [future.result() for future in computing])
            except FileChanged as error:
                log.info("a repository changed while it was read", repo=repo, file=error)
                continue
            except OSError as error:
                raise HubError(500, None, f'a file of "{repo}" cannot be read: {error}') from error
            await self._in_thread(self._history.add, repo, made.commit)
            self._latest[repo] = made
            return made
        raise still_reading(repo, 10)

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(call, *arguments))


def create_app(folder: Path, options: HubOptions) -> Starlette:
    """The Hub over a folder `owner/repo/…files`; raises `OSError` when there is no such folder."""
    return Hub(folder, options).app()


def _route(path: str, handler: Handler, *methods: str) -> Route:
    return Route(path, handler, methods=list(methods) or ["GET"])


def _date(present: Snapshot) -> str:
    return listing.timestamp(present.scan.modified_ns)


async def _changed(request: Request, error: Exception) -> Response:
    return HubError(
        503, None, f"{error} is being changed in the served folder", {"Retry-After": "1"}
    ).response()
