"""How quick the catalog is, and what it costs the Hub; beside huggingface_hub called directly.

    python -m bench.catalog                     # Hub of 150 ms a call
    python -m bench.catalog --delay 2 --failing 0.33

A local Hub (its own process) holds 1,000 repositories with 20,000 variants in memory. Cold pages
are measured with a new catalog and an empty cache each time, warm ones with the same again.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
import random
import socket
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import uvicorn
from huggingface_hub import HfApi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.domain.catalog import CatalogQuery, Sort
from router.domain.errors import DomainError
from router.hub.catalog import CatalogSettings, HubCatalog
from router.storage.catalog_cache import StoredCatalogCache
from router.storage.database import Database

REPOS = 1000
PAGE = 20
BITS = tuple(f"{kind}{bits}_K_M" for kind in ("Q", "IQ", "UD-Q", "UD-IQ") for bits in "12345")


class MemoryHub:
    """The two calls of a catalog page, from memory: a listing with cursors, and trees."""

    def __init__(self, delay: float, failing: float) -> None:
        self._delay = delay
        self._failing = failing
        self._random = random.Random(1)
        self._calls = 0
        self._names = [f"team-{n % 40}/model-{n:04}-GGUF" for n in range(REPOS)]

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/api/models", self._list),
                Route("/api/models/{owner}/{name}/tree/{commit}", self._tree),
                Route("/calls", self._count),
            ]
        )

    async def _list(self, request: Request) -> Response:
        if failure := await self._trouble():
            return failure
        params = request.query_params
        word = params.get("search", "")
        found = [(n, name) for n, name in enumerate(self._names) if word in name]
        start, size = int(params.get("cursor", 0)), int(params.get("limit", 1000))
        page = [self._described(n, name) for n, name in found[start : start + size]]
        response = JSONResponse(page)
        if start + size < len(found):
            following = request.url.include_query_params(cursor=start + size)
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def _tree(self, request: Request) -> Response:
        if failure := await self._trouble():
            return failure
        name = request.path_params["name"]
        files = [_file(name, bits) for bits in BITS]
        return JSONResponse([{"type": "file", "path": "README.md", "size": 9, "oid": "0"}, *files])

    async def _count(self, request: Request) -> Response:
        return JSONResponse(self._calls)

    async def _trouble(self) -> Response | None:
        self._calls += 1
        await asyncio.sleep(self._delay)
        return Response(status_code=503) if self._random.random() < self._failing else None

    def _described(self, number: int, name: str) -> dict[str, Any]:
        commit = hashlib.sha1(name.encode()).hexdigest()
        return {
            "_id": name,
            "id": name,
            "modelId": name,
            "sha": commit,
            "downloads": REPOS - number,
            "likes": 1,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "tags": ["gguf", "license:mit"],
            "gated": False,
            "private": False,
            "siblings": [{"rfilename": _file(name, bits)["path"]} for bits in BITS],
        }


def _file(name: str, bits: str) -> dict[str, Any]:
    path = f"{name.rpartition('/')[2].removesuffix('-GGUF')}-{bits}.gguf"
    digest = hashlib.sha256(path.encode()).hexdigest()
    size = 1_000_000 + len(path)
    lfs = {"oid": digest, "size": size, "pointerSize": 134}
    return {"type": "file", "path": path, "size": size, "oid": digest[:40], "lfs": lfs}


def _serve(delay: float, failing: float, ready: Connection) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    ready.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(MemoryHub(delay, failing).app(), log_level="critical")
    uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def running_hub(delay: float, failing: float) -> Iterator[str]:
    """The address of a Hub in its own process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(delay, failing, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: seconds of each try, Hub calls altogether, tries that failed."""

    what: str
    seconds: tuple[float, ...]
    calls: int
    failed: int

    def text(self) -> str:
        """The line."""
        ordered = sorted(self.seconds)
        p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
        tries = len(ordered)
        return (
            f"{self.what:<44}{tries:>6}{statistics.median(ordered) * 1000:>11.1f}"
            f"{p95 * 1000:>11.1f}{self.calls / tries:>12.1f}{self.failed:>8}"
        )


class Bench:
    """Measures against one Hub."""

    def __init__(self, hub: str, folder: Path) -> None:
        self._hub = hub
        self._folder = folder
        self._made = 0
        self._open: list[Callable[[], None]] = []

    def catalog(self) -> HubCatalog:
        """A new catalog with an empty cache in a database of its own."""
        self._made += 1
        database = Database(f"sqlite:///{self._folder}/{self._made}.db")

        def now() -> datetime:
            return datetime.now(UTC)

        made = HubCatalog(
            self._hub,
            StoredCatalogCache(database, now),
            settings=CatalogSettings(patience=120.0),
        )
        self._open += [made.close, database.close]
        return made

    def close(self) -> None:
        """Ends what was opened."""
        for close in self._open:
            close()

    def measure(self, what: str, tries: list[Callable[[], object]]) -> Row:
        """Runs each once."""
        before = self._calls()
        seconds, failed = [], 0
        for attempt in tries:
            began = time.perf_counter()
            try:
                attempt()
            except (DomainError, OSError) as error:
                failed += 1
                click.echo(f"  {what}: {error}", err=True)
            seconds.append(time.perf_counter() - began)
        return Row(what, tuple(seconds), self._calls() - before, failed)

    def _calls(self) -> int:
        with urllib.request.urlopen(f"{self._hub}/calls") as answer:
            return int(answer.read())

    def rows(self, repeats: int) -> Iterator[Row]:
        """All measurements."""
        query = CatalogQuery(sort=Sort.DOWNLOADS)

        def variants(catalog: HubCatalog, number: int) -> Callable[[], object]:
            return lambda: catalog.search_variants(query, PAGE, number * PAGE)

        def search(catalog: HubCatalog, number: int) -> Callable[[], object]:
            asked = CatalogQuery(search=f"model-{number:03}")
            return lambda: catalog.search_variants(asked, PAGE, 0)

        def repos(catalog: HubCatalog) -> Callable[[], object]:
            return lambda: catalog.search_repos(query, PAGE, "")

        cold = [self.catalog() for _ in range(repeats)]
        yield self.measure("20 variants, first page, cold", [variants(c, 0) for c in cold])
        yield self.measure("20 variants, first page, warm", [variants(c, 0) for c in cold] * 20)
        one = cold[0]
        further = range(1, 1 + 5 * repeats)
        yield self.measure("20 variants, next pages, cold", [variants(one, n) for n in further])
        yield self.measure("20 variants, next pages, warm", [variants(one, n) for n in further])
        words = range(2 * repeats)
        yield self.measure("search, cold", [search(one, n) for n in words])
        yield self.measure("search, warm", [search(one, n) for n in words])
        cold = [self.catalog() for _ in range(repeats)]
        yield self.measure("20 repositories with variants, cold", [repos(c) for c in cold])
        yield self.measure("20 repositories with variants, warm", [repos(c) for c in cold] * 20)
        yield self.measure(
            "the same by huggingface_hub, one tree by one",
            [self._directly] * max(1, repeats // 5),
        )

    def _directly(self) -> int:
        """The page of 20 repositories with sizes, as a script without a router gets it."""
        api = HfApi(self._hub, token=False)
        found = 0
        listed = api.list_models(filter="gguf", sort="downloads", limit=PAGE, expand=["sha"])
        for model in listed:
            tree = api.list_repo_tree(model.id, recursive=True, revision=model.sha)
            found += sum(entry.path.endswith(".gguf") for entry in tree)
        return found


@click.command()
@click.option("--delay", default=0.15, show_default=True, help="Seconds that the Hub takes a call.")
@click.option("--failing", default=0.0, show_default=True, help="Share of calls answered by 503.")
@click.option("--repeats", default=20, show_default=True, help="Cold catalogs to measure.")
def main(delay: float, failing: float, repeats: int) -> None:
    """Measures catalog pages against a local Hub."""
    click.echo(f"Hub: {delay * 1000:.0f} ms a call, {failing:.0%} of calls fail; {REPOS} repos")
    click.echo(f"{'':<44}{'tries':>6}{'P50 ms':>11}{'P95 ms':>11}{'calls/try':>12}{'failed':>8}")
    with running_hub(delay, failing) as hub, tempfile.TemporaryDirectory() as folder:
        bench = Bench(hub, Path(folder))
        for row in bench.rows(repeats):
            click.echo(row.text())
        bench.close()


if __name__ == "__main__":
    main()
