"""The HTTP application: routes that convert, call a service, convert."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response, status
from fastapi.responses import RedirectResponse, StreamingResponse

from protos.daemon.ready import version
from router.domain.catalog import CatalogQuery, Sort
from router.domain.errors import InvalidArgument, Unavailable
from router.rest import errors
from router.rest.events import Events
from router.rest.guard import Guard
from router.rest.head import Head
from router.rest.hub import BLOBS, PREFIX, SiteHub
from router.rest.orders import order_routes
from router.rest.pages import Pages
from router.rest.shapes.base import ErrorAnswer, Health
from router.rest.shapes.catalog import AvailableModels
from router.rest.shapes.downloads import TaskPage, TaskShape
from router.rest.shapes.models import (
    ManifestShape,
    OpenAiList,
    OpenAiModel,
    Registered,
    RegisteredModel,
    RegisteredModels,
    RegisterRequest,
)
from router.rest.shapes.nodes import NodeList, NodeShape
from router.rest.shapes.upgrades import OutdatedModels, UpgradedModel
from router.rest.sites import site_routes
from router.services.catalog import CatalogBrowser
from router.services.downloads import Downloads
from router.services.models import Models, Registration
from router.services.nodes import Nodes
from router.services.orders import Orders
from router.services.plans import Plans
from router.services.sites import Sites
from router.services.upgrades import Upgrades

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer},
    "5XX": {"model": ErrorAnswer},
}


@dataclass(frozen=True, slots=True)
class Edge:
    """What the HTTP edge needs: services, and how the router is."""

    browser: CatalogBrowser
    models: Models
    upgrades: Upgrades
    plans: Plans
    orders: Orders
    downloads: Downloads
    nodes: Nodes
    sites: Sites
    events: Events
    hub: SiteHub
    hub_url: str
    host: str
    ready: Callable[[], bool]
    metrics: Callable[[], bytes]


def create_app(edge: Edge) -> FastAPI:
    """The application; handlers are synchronous and run in a pool of threads."""
    app = FastAPI(
        title="llm-router",
        version=version(),
        summary="GGUF models from the Hugging Face Hub onto a fleet of machines.",
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    app.add_middleware(Head, besides=(f"{PREFIX}/", f"{BLOBS}/"))
    app.add_middleware(Guard, host=edge.host)
    app.include_router(_openai(edge), tags=["OpenAI"])
    # Before the routes of models whose last part is a whole id, slashes included.
    orders = order_routes(edge.plans, edge.orders)
    app.include_router(orders, prefix="/api", tags=["orders"], responses=_ERRORS)
    app.include_router(_models(edge), prefix="/api", tags=["models"])
    app.include_router(_tasks(edge), prefix="/api", tags=["tasks"])
    app.include_router(_nodes(edge), prefix="/api", tags=["nodes"])
    app.include_router(site_routes(edge.sites, _ERRORS), prefix="/api", tags=["nodes"])
    pages = Pages()
    app.include_router(_pages(edge, pages), include_in_schema=False)
    app.mount("/dashboard", pages, name="dashboard")
    app.mount(PREFIX, edge.hub.app(), name="hub")
    app.add_route(BLOBS + "/{sha256}", edge.hub.blob, include_in_schema=False)
    return app


def _openai(edge: Edge) -> APIRouter:
    routes = APIRouter(responses=_ERRORS)

    @routes.get("/v1/models")
    def list_models() -> OpenAiList:
        """Every registered GGUF model, as OpenAI lists them."""
        supported = edge.models.supported()
        return OpenAiList(data=[OpenAiModel.of(model, ready) for model, ready in supported])

    @routes.get("/v1/models/{model_id:path}")
    def get_model(model_id: str) -> OpenAiModel:
        """One model; the slashes of the id plain or `%2F`."""
        view = edge.models.get(model_id)
        return OpenAiModel.of(view.model, view.ready_nodes)

    return routes


def _models(edge: Edge) -> APIRouter:
    routes = APIRouter(responses=_ERRORS)

    @routes.get("/models/available")
    def available(
        search: str = "",
        limit: int = 20,
        offset: int = 0,
        source: str = "hf",
        author: str = "",
        sort: Sort = Sort.TRENDING,
        min_bytes: Annotated[int | None, Query(ge=0)] = None,
        max_bytes: Annotated[int | None, Query(ge=0)] = None,
        quantization: str = "",
        listing: str = "",
    ) -> AvailableModels:
        """The Hub's catalog; `limit` (1 to 100) counts variants.

        A page may hold fewer, even none, although more follow (`pagination.has_more`): go on at
        `offset` plus the number that came. With `pagination.listing` given back as `listing`, all
        pages are cut from one list, however the Hub's moves meanwhile.
        """
        if source != "hf":
            raise InvalidArgument(f'source "{source}" is unknown: there is "hf"', param="source")
        if limit == 0:  # "the default" to the service, which means an unset field
            raise InvalidArgument("limit is 1 to 100", param="limit")
        query = CatalogQuery(
            search=search,
            author=author,
            sort=sort,
            min_bytes=min_bytes,
            max_bytes=max_bytes,
            quantization=quantization,
        )
        page = edge.browser.variants(query, limit, offset, listing)
        return AvailableModels.of(page, edge.hub_url)

    @routes.get("/models/outdated")
    def outdated(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, page_token: str = ""
    ) -> OutdatedModels:
        """Models with a newer commit on the Hub and other files in it; asks the Hub for each.

        `limit` counts the models looked at. Those for which the Hub gave no answer are in
        `unchecked`.
        """
        return OutdatedModels.of(edge.upgrades.outdated(limit, page_token))

    @routes.get("/models")
    def registered() -> RegisteredModels:
        """Every supported model with its state on each node."""
        views = edge.models.all()
        return RegisteredModels(models=[RegisteredModel.of(view, edge.hub_url) for view in views])

    @routes.post("/models/register", status_code=status.HTTP_201_CREATED)
    def register(request: RegisterRequest) -> Registered:
        """Makes a file of the Hub a supported model, pinned to a commit."""
        repo, _, quantization = request.repo.partition(":")
        view, warnings = edge.models.register(
            Registration(
                repo=repo,
                path=request.filename or "",
                quantization=quantization,
                revision=request.revision or "main",
                display_name=request.display_name or "",
                chat_template=request.chat_template or "",
            )
        )
        return Registered.of(view, warnings)

    # Before the routes whose last part is a whole id, slashes included.
    @routes.post("/models/{model_id:path}/upgrade")
    def upgrade(model_id: str) -> UpgradedModel:
        """Registers the newest commit under the same id; an order then fetches what changed.

        409 `up_to_date` when no file changed, `model_busy` while tasks run. The earlier commit's
        files stay on the nodes, as an older revision of their Hugging Face cache.
        """
        upgraded = edge.upgrades.upgrade(model_id)
        return UpgradedModel.of(upgraded, edge.hub_url)

    @routes.get("/models/registry/{model_id:path}/manifest.json")
    def manifest(model_id: str) -> ManifestShape:
        """The exact files of a model."""
        return ManifestShape.of(edge.models.resolve(model_id).manifest, edge.hub_url)

    @routes.get("/models/{model_id:path}")
    def get_model(model_id: str) -> RegisteredModel:
        """One supported model with its state on each node."""
        return RegisteredModel.of(edge.models.get(model_id), edge.hub_url)

    @routes.delete("/models/{model_id:path}", status_code=status.HTTP_204_NO_CONTENT)
    def unregister(model_id: str, force: bool = False, evict: bool = False) -> None:
        """Takes a model off the list; 409 while tasks run, unless `force`."""
        edge.models.unregister(model_id, force=force, evict=evict)

    return routes


def _tasks(edge: Edge) -> APIRouter:
    routes = APIRouter(responses=_ERRORS)

    @routes.get("/tasks")
    def tasks(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        page_token: str = "",
        model_name: str = "",
        node_id: str = "",
    ) -> TaskPage:
        """Tasks, the newest first."""
        page = edge.downloads.tasks(limit, page_token, model=model_name, node=node_id)
        return TaskPage(
            tasks=[TaskShape.of(view) for view in page.items],
            next_page_token=page.next_token or None,
        )

    @routes.get("/tasks/{task_id}")
    def task(task_id: str) -> TaskShape:
        """One task."""
        return TaskShape.of(edge.downloads.task(task_id))

    @routes.post("/tasks/{task_id}/cancel")
    def cancel(task_id: str, keep_partial: bool = False) -> TaskShape:
        """Stops a task and frees its disk, unless `keep_partial`."""
        return TaskShape.of(edge.downloads.cancel(task_id, keep_partial=keep_partial))

    @routes.post("/tasks/{task_id}/pause")
    def pause(task_id: str) -> TaskShape:
        """Stops a task and keeps what it has."""
        return TaskShape.of(edge.downloads.pause(task_id))

    @routes.post("/tasks/{task_id}/resume")
    def resume(task_id: str) -> TaskShape:
        """Lets a paused task go on."""
        return TaskShape.of(edge.downloads.resume(task_id))

    @routes.post("/tasks/{task_id}/retry")
    def retry(task_id: str) -> TaskShape:
        """Begins the next attempt of a failed or cancelled task."""
        return TaskShape.of(edge.downloads.retry(task_id))

    return routes


def _nodes(edge: Edge) -> APIRouter:
    routes = APIRouter(responses=_ERRORS)

    @routes.get("/nodes")
    def nodes() -> NodeList:
        """Every node with what it holds."""
        return NodeList(nodes=[NodeShape.of(view) for view in edge.nodes.all()])

    @routes.get("/nodes/{node_id}")
    def node(node_id: str) -> NodeShape:
        """One node, by id or name."""
        return NodeShape.of(edge.nodes.get(node_id))

    @routes.get("/events")
    async def events(last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
        """Server-sent events `task`, `model`, `node`: everything, `synced`, then every change."""
        edge.events.require_room()
        return StreamingResponse(
            edge.events.stream(last_event_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    return routes


def _pages(edge: Edge, pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    def root() -> RedirectResponse:
        return RedirectResponse("/dashboard")

    @routes.get("/dashboard")
    async def dashboard(request: Request) -> Response:
        return await pages.get_response("index.html", request.scope)

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        return await pages.get_response("docs.html", request.scope)

    @routes.get("/metrics")
    def metrics() -> Response:
        return Response(edge.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/healthz")
    def healthz() -> Health:
        return Health(version=version())

    @routes.get("/readyz")
    def readyz() -> Health:
        if not edge.ready():
            raise Unavailable("the router is starting or stopping", retry_after=1)
        return Health(version=version())

    return routes
