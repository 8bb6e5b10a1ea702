"""The part of the router's REST API that the dashboard consumes, with scripted answers.

It serves the dashboard's own files too, from `router/web`.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import router

WEB = Path(router.__file__).parent / "web"
KEYS = {"task": "id", "model": "name", "node": "id"}
Item = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer as the router gives it."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def response(self) -> Response:
        """The JSON body that every error of the API has."""
        error = {"message": self.message, "type": "error", "param": None, "code": self.code}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"error": error}, self.status, headers)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Item | None
    headers: dict[str, str]


@dataclass(slots=True)
class FakeApi:
    """State is changed from the test's thread and read on the server's: by `_on_loop` only."""

    catalog: list[Item] = field(default_factory=list)
    freshness: Item = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)  # "METHOD /path" → what to answer
    verdicts: dict[str, Item] = field(default_factory=dict)  # node id → part of the plan
    warnings: list[str] = field(default_factory=list)
    accepts_streams: bool = True
    held_search: str = ""  # its answer waits for `release`
    resumes: bool = False  # a stream that names the last event gets no new snapshot
    calls: list[Call] = field(default_factory=list)
    items: dict[str, dict[str, Item]] = field(
        default_factory=lambda: {"node": {}, "model": {}, "task": {}}
    )
    url: str = ""
    _streams: list[asyncio.Queue[str | None]] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop | None = None
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _serial: int = 0

    def put(self, kind: str, *items: Item) -> None:
        """Adds or replaces items and tells every stream."""

        def change() -> None:
            for item in items:
                self.items[kind][item[KEYS[kind]]] = item
                self._tell(kind, item)

        self._on_loop(change)

    def delete(self, kind: str, key: str) -> None:
        """Removes an item and tells every stream."""

        def change() -> None:
            del self.items[kind][key]
            self._tell(kind, {KEYS[kind]: key, "deleted": True})

        self._on_loop(change)

    def drop_streams(self) -> None:
        """Ends every open event stream."""

        def end() -> None:
            for queue in self._streams:
                queue.put_nowait(None)

        self._on_loop(end)

    def release(self) -> None:
        """Lets the answer of `held_search` go."""
        self._on_loop(self._released.set)

    def open_streams(self) -> int:
        """How many pages listen."""
        return self._on_loop(lambda: len(self._streams))

    def calls_of(self, method: str, path: str) -> list[Call]:
        """What came in for one request line, oldest first."""
        return [call for call in self.calls if (call.method, call.path) == (method, path)]

    def _on_loop(self, work: Callable[[], Result]) -> Result:
        if self._loop is None:
            return work()

        async def run() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=10)

    def _tell(self, kind: str, item: Item) -> None:
        event = self._event(kind, item)
        for queue in self._streams:
            queue.put_nowait(event)

    def _event(self, kind: str, item: Item) -> str:
        self._serial += 1
        return f"id: {self._serial}\nevent: {kind}\ndata: {json.dumps(item)}\n\n"

    # The endpoints.

    async def _events(self, request: Request) -> Response:
        await self._note(request)
        if not self.accepts_streams:
            return Refusal(503, "unavailable", "the router is starting").response()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        if not (self.resumes and "last-event-id" in request.headers):
            for kind, items in self.items.items():
                for item in items.values():
                    queue.put_nowait(self._event(kind, item))
            queue.put_nowait(self._event("synced", {}))
        self._streams.append(queue)

        async def body() -> AsyncIterator[str]:
            try:
                yield "retry: 50\n\n"
                while (event := await queue.get()) is not None:
                    yield event
            finally:
                self._streams.remove(queue)

        return StreamingResponse(body(), media_type="text/event-stream")

    async def _available(self, request: Request) -> Response:
        call = await self._note(request)
        if refusal := self._refusal(call):
            return refusal.response()
        search = call.query.get("search", "").lower()
        if self.held_search and search == self.held_search:
            await self._released.wait()
        limit, offset = int(call.query["limit"]), int(call.query["offset"])
        found = [item for item in self.catalog if search in item["name"].lower()]
        page = found[offset : offset + limit]
        pagination = {
            "limit": limit,
            "offset": offset,
            "total": len(found),
            "has_more": offset + len(page) < len(found),
        }
        fresh = {"cached": False, "stale": False, "fetched_at": "2026-11-01T12:00:00Z"}
        answer = {"models": page, "source": "hf", **fresh, **self.freshness}
        return JSONResponse({**answer, "pagination": pagination})

    async def _register(self, request: Request) -> Response:
        call = await self._note(request)
        if refusal := self._refusal(call):
            return refusal.response()
        assert call.body is not None
        wanted = (call.body["repo"], call.body.get("filename"))
        [item] = [i for i in self.catalog if (i["repo"], i["filename"]) == wanted]
        registered = model(item["name"], size_bytes=item["size_bytes"])
        self.items["model"][item["name"]] = registered
        self._tell("model", registered)
        answer = {"name": item["name"], "status": "registered", "warnings": self.warnings}
        return JSONResponse(answer, 201)

    async def _model(self, request: Request) -> Response:
        call = await self._note(request)
        if call.query.get("force") != "true" and (refusal := self._refusal(call)):
            return refusal.response()
        name = request.path_params["name"]
        del self.items["model"][name]
        self._tell("model", {"name": name, "deleted": True})
        return Response(status_code=204)

    async def _plan(self, request: Request) -> Response:
        call = await self._note(request)
        if refusal := self._refusal(call):
            return refusal.response()
        assert call.body is not None
        size = self.items["model"][call.body["model_name"]]["size_bytes"]
        nodes = [self._verdict(node_id, size) for node_id in self._targets(call.body)]
        line = sum(node["needed_bytes"] for node in nodes if node["verdict"] == "fits")
        plan = {"plan_id": f"plan-{len(nodes)}", "line_bytes": line, "nodes": nodes}
        return JSONResponse({**call.body, **plan})

    def _verdict(self, node_id: str, size: int) -> Item:
        fits = {"verdict": "fits", "reason": "", "from": "hub", "warnings": []}
        figures = {"needed_bytes": size, "free_bytes": 10**12}
        name = self.items["node"][node_id]["name"]
        return {
            "node_id": node_id,
            "node_name": name,
            **fits,
            **figures,
            **self.verdicts.get(node_id, {}),
        }

    async def _download(self, request: Request) -> Response:
        call = await self._note(request)
        if refusal := self._refusal(call):
            return refusal.response()
        assert call.body is not None
        made = [task(call.body["model_name"], node) for node in self._targets(call.body)]
        for one in made:
            self.items["task"][one["id"]] = one
            self._tell("task", one)
        return JSONResponse({"task_ids": [one["id"] for one in made]}, 202)

    def _targets(self, body: Item) -> list[str]:
        return list(self.items["node"]) if body["target"] == "all" else list(body["node_ids"])

    async def _act(self, request: Request) -> Response:
        call = await self._note(request)
        if refusal := self._refusal(call):
            return refusal.response()
        status = {
            "pause": "paused",
            "resume": "pending",
            "cancel": "cancelled",
            "retry": "pending",
        }[request.path_params["verb"]]
        one = self.items["task"][request.path_params["id"]]
        changed = {**one, "status": status, "error": None}
        self.items["task"][one["id"]] = changed
        self._tell("task", changed)
        return JSONResponse(changed)

    async def _note(self, request: Request) -> Call:
        body = await request.body()
        call = Call(
            request.method,
            request.url.path,
            dict(request.query_params),
            json.loads(body) if body else None,
            dict(request.headers),
        )
        self.calls.append(call)
        return call

    def _refusal(self, call: Call) -> Refusal | None:
        return self.refusals.get(f"{call.method} {call.path}")

    def app(self) -> Starlette:
        """The application, with the dashboard's own files."""

        async def index(request: Request) -> Response:
            return FileResponse(WEB / "index.html")

        return Starlette(
            routes=[
                Route("/api/events", self._events),
                Route("/api/models/available", self._available),
                Route("/api/models/register", self._register, methods=["POST"]),
                Route("/api/models/plan", self._plan, methods=["POST"]),
                Route("/api/models/download", self._download, methods=["POST"]),
                Route("/api/models/{name:path}", self._model, methods=["DELETE"]),
                Route("/api/tasks/{id}/{verb}", self._act, methods=["POST"]),
                Route("/dashboard", index),
                Mount("/dashboard", StaticFiles(directory=WEB)),
            ]
        )


@contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    """Serves on a free port of loopback; sets `api.url`."""
    # `log_config=None`: uvicorn's own would take its loggers from the tests that follow.
    config = uvicorn.Config(api.app(), port=0, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    started = threading.Event()

    async def serve() -> None:
        api._loop = asyncio.get_running_loop()
        started.set()
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    api.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield api
    finally:
        api.drop_streams()
        server.should_exit = True
        thread.join()
        listener.close()


def variant(name: str, **changes: Any) -> Item:
    """One entry of the Hub's catalog; `name` is `hf/owner/repo/file`."""
    _, owner, repo, filename = name.split("/", 3)
    return {
        "name": name,
        "display_name": f"{repo} {filename}",
        "source": "hf_gguf",
        "size_bytes": 4_370_000_000,
        "download_url": f"https://hub.example/{owner}/{repo}/resolve/main/{filename}",
        "repo": f"{owner}/{repo}",
        "filename": filename,
        "files": [{"name": filename, "size_bytes": 4_370_000_000, "sha256": "0" * 64}],
        "quantization": "Q4_K_M",
        "last_modified": "2026-10-03T09:00:00Z",
        "tags": ["gguf"],
        "downloads": 12_345,
        "likes": 67,
        "gated": False,
        "required_memory_bytes": 5_200_000_000,
        "status": "available",
        **changes,
    }


def model(name: str, **changes: Any) -> Item:
    """A registered model."""
    _, owner, repo, filename = name.split("/", 3)
    return {
        "name": name,
        "display_name": f"{repo} {filename}",
        "status": "registered",
        "repo": f"{owner}/{repo}",
        "revision": "main",
        "commit": "c" * 40,
        "format": "gguf",
        "quantization": "Q4_K_M",
        "size_bytes": 4_370_000_000,
        "required_memory_bytes": 5_200_000_000,
        "files": [],
        "created_at": "2026-11-01T10:00:00Z",
        "ready": False,
        "ready_nodes": 0,
        "nodes": [],
        **changes,
    }


def node(node_id: str, **changes: Any) -> Item:
    """A node that is online."""
    return {
        "id": node_id,
        "name": node_id,
        "status": "online",
        "version": "0.1.0",
        "labels": {},
        "disk_free_bytes": 600_000_000_000,
        "disk_total_bytes": 1_000_000_000_000,
        "memory_bytes": 64_000_000_000,
        "gpus": [],
        "models": [],
        "last_seen_at": "2026-11-01T12:00:00Z",
        **changes,
    }


def task(model_name: str, node_id: str, **changes: Any) -> Item:
    """A task that waits to begin."""
    number = f"task-{model_name}-{node_id}".replace("/", "-")
    return {
        "id": number,
        "task_id": number,
        "order_id": "order-1",
        "model_name": model_name,
        "node_id": node_id,
        "node_name": node_id,
        "node_online": True,
        "status": "pending",
        "progress": 0.0,
        "bytes_done": 0,
        "bytes_total": 4_370_000_000,
        "speed_bps": 0,
        "speed": "",
        "eta_seconds": None,
        "bytes_from": {"hub": 0, "peers": 0, "router": 0, "disk": 0},
        "attempt": 1,
        "note": "",
        "error": None,
        "created_at": "2026-11-01T11:00:00Z",
        "started_at": None,
        "updated_at": "2026-11-01T11:00:00Z",
        "completed_at": None,
        **changes,
    }
