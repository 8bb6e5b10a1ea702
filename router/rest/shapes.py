"""The JSON of the HTTP API: one class for each object, made from the services' views.

Times are RFC 3339 in UTC, sizes in bytes, speeds in bytes per second.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from protos import units
from router.domain.catalog import CatalogRepo, GgufFacts, ModelFile
from router.domain.models import Holding, Manifest, Model, ModelView, file_url
from router.domain.nodes import NodeView
from router.domain.tasks import NodePlan, Plan, Task, TaskState, TaskView
from router.services.catalog import VariantPageView, VariantView
from router.services.upgrades import FileChange, Outdated, OutdatedPage, Upgraded


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T14:05:06.123Z`."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]


def _unicode(text: str) -> str:
    """Refuses half of a surrogate pair, which JSON can write and nobody can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class Shape(BaseModel):
    """The base of all objects."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), populate_by_name=True)


class ErrorBody(Shape):
    """What went wrong; `code` is stable."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(Shape):
    """The body of every answer that is not a success."""

    error: ErrorBody


class OpenAiModel(Shape):
    """A model as OpenAI's clients read it, with extra keys."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    display_name: str
    size_bytes: int
    quantization: str
    ready: bool
    ready_nodes: int
    status: str

    @classmethod
    def of(cls, model: Model, ready_nodes: int) -> "OpenAiModel":
        """From a model that so many nodes hold, verified."""
        return cls(
            id=model.name,
            created=int(model.created_at.timestamp()),
            owned_by=model.manifest.repo.partition("/")[0],
            display_name=model.display_name,
            size_bytes=model.manifest.total_bytes,
            quantization=model.manifest.quantization,
            ready=ready_nodes > 0,
            ready_nodes=ready_nodes,
            status=model.status.value,
        )


class OpenAiList(Shape):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[OpenAiModel]


class FileShape(Shape):
    """One file of a model; `sha256` null: the first verified download fixes it."""

    name: str
    size_bytes: int
    sha256: str | None
    url: str
    role: str

    @classmethod
    def of(cls, file: ModelFile, hub_url: str, repo: str, commit: str) -> "FileShape":
        """From a file of `repo` at `commit`."""
        return cls(
            name=file.path,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            url=file_url(hub_url, repo, commit, file.path),
            role=file.role.value,
        )


def _files(files: tuple[ModelFile, ...], hub_url: str, repo: str, commit: str) -> list[FileShape]:
    return [FileShape.of(file, hub_url, repo, commit) for file in files]


class AvailableModel(Shape):
    """A variant of the Hub's catalog."""

    name: str
    display_name: str
    source: Literal["hf_gguf", "hf_pending_conversion"]
    size_bytes: int
    download_url: str
    repo: str
    filename: str
    files: list[FileShape]
    quantization: str
    last_modified: Moment | None
    tags: list[str]
    downloads: int
    likes: int
    gated: bool
    private: bool
    required_memory_bytes: int | None
    status: Literal["available", "registered", "downloaded"]

    @classmethod
    def of(cls, repo: CatalogRepo, view: VariantView, hub_url: str) -> "AvailableModel":
        """From a variant of `repo`."""
        variant = view.variant
        return cls(
            name=variant.name,
            display_name=view.display_name,
            source="hf_pending_conversion" if repo.convertible else "hf_gguf",
            size_bytes=variant.size_bytes,
            download_url=file_url(hub_url, repo.repo, repo.commit, variant.filename),
            repo=repo.repo,
            filename=variant.filename,
            files=_files(variant.files, hub_url, repo.repo, repo.commit),
            quantization=variant.quantization,
            last_modified=repo.last_modified,
            tags=list(repo.tags),
            downloads=repo.downloads,
            likes=repo.likes,
            gated=repo.gating.value != "open",
            private=repo.private,
            required_memory_bytes=view.required_memory_bytes,
            status=view.status.value,
        )


class Pagination(Shape):
    """Where a page lies; `total` null: the end is not known yet.

    `listing`, given back with the next request, keeps all pages on one list.
    """

    limit: int
    offset: int
    total: int | None
    has_more: bool
    listing: str


class AvailableModels(Shape):
    """A page of the catalog. `problem` says why it is stale."""

    models: list[AvailableModel]
    source: Literal["hf"] = "hf"
    cached: bool
    stale: bool
    fetched_at: Moment
    problem: str
    pagination: Pagination

    @classmethod
    def of(cls, page: VariantPageView, hub_url: str) -> "AvailableModels":
        """From a page."""
        return cls(
            models=[AvailableModel.of(repo, view, hub_url) for repo, view in page.entries],
            cached=page.freshness.cached,
            stale=page.freshness.stale,
            fetched_at=page.freshness.fetched_at,
            problem=page.freshness.problem,
            pagination=Pagination(
                limit=page.limit,
                offset=page.offset,
                total=page.total,
                has_more=page.has_more,
                listing=page.listing,
            ),
        )


class ModelOnNode(Shape):
    """One model on one node, seen from the model."""

    node_id: str
    node_name: str
    status: str
    verified_at: Moment | None
    task_id: str | None

    @classmethod
    def of(cls, holding: Holding) -> "ModelOnNode":
        """From a holding."""
        return cls(
            node_id=holding.node_id,
            node_name=holding.node_name,
            status=holding.state.value,
            verified_at=holding.verified_at,
            task_id=holding.task_id or None,
        )


class FactsShape(Shape):
    """What a GGUF header tells; null where it is silent."""

    architecture: str | None
    parameters: int | None
    context_length: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    embedding_length: int | None
    experts: int | None
    experts_used: int | None
    vocabulary: int | None
    tokenizer: str | None
    license: str | None
    has_chat_template: bool

    @classmethod
    def of(cls, facts: GgufFacts) -> "FactsShape":
        """From the facts."""
        return cls(
            architecture=facts.architecture or None,
            parameters=facts.parameters,
            context_length=facts.context_length,
            layers=facts.layers,
            heads=facts.heads,
            kv_heads=facts.kv_heads,
            embedding_length=facts.embedding_length,
            experts=facts.experts,
            experts_used=facts.experts_used,
            vocabulary=facts.vocabulary,
            tokenizer=facts.tokenizer,
            license=facts.license,
            has_chat_template=bool(facts.chat_template),
        )


class RegisteredModel(Shape):
    """A supported model; `facts` null: its header could not be read."""

    name: str
    display_name: str
    status: str
    repo: str
    revision: str
    commit: str
    format: str
    quantization: str
    size_bytes: int
    required_memory_bytes: int | None
    chat_template: str | None
    files: list[FileShape]
    facts: FactsShape | None
    created_at: Moment
    ready: bool
    ready_nodes: int
    nodes: list[ModelOnNode]

    @classmethod
    def of(cls, view: ModelView, hub_url: str) -> "RegisteredModel":
        """From a view."""
        model, manifest = view.model, view.model.manifest
        return cls(
            name=model.name,
            display_name=model.display_name,
            status=model.status.value,
            repo=manifest.repo,
            revision=manifest.revision,
            commit=manifest.commit,
            format=manifest.format,
            quantization=manifest.quantization,
            size_bytes=manifest.total_bytes,
            required_memory_bytes=model.required_memory_bytes,
            chat_template=model.chat_template,
            files=_files(manifest.files, hub_url, manifest.repo, manifest.commit),
            facts=FactsShape.of(model.facts) if model.facts else None,
            created_at=model.created_at,
            ready=view.ready_nodes > 0,
            ready_nodes=view.ready_nodes,
            nodes=[ModelOnNode.of(holding) for holding in view.holdings],
        )


class RegisteredModels(Shape):
    """Every supported model, by name."""

    models: list[RegisteredModel]


class FileChangeShape(Shape):
    """One file in two commits; nulls where a commit does not have it."""

    path: str
    old_size_bytes: int | None
    old_sha256: str | None
    new_size_bytes: int | None
    new_sha256: str | None

    @classmethod
    def of(cls, change: FileChange) -> "FileChangeShape":
        """From a change."""
        old, new = change.old, change.new
        return cls(
            path=change.path,
            old_size_bytes=old.size_bytes if old else None,
            old_sha256=old.sha256 if old else None,
            new_size_bytes=new.size_bytes if new else None,
            new_sha256=new.sha256 if new else None,
        )


class OutdatedModel(Shape):
    """A model with a newer commit. `download_bytes`: the changed and added files."""

    name: str
    commit: str
    newest_commit: str
    last_modified: Moment | None
    download_bytes: int
    changes: list[FileChangeShape]

    @classmethod
    def of(cls, found: Outdated) -> "OutdatedModel":
        """From what was found."""
        return cls(
            name=found.model.name,
            commit=found.model.manifest.commit,
            newest_commit=found.newest_commit,
            last_modified=found.last_modified,
            download_bytes=found.download_bytes,
            changes=[FileChangeShape.of(change) for change in found.changes],
        )


class UncheckedModel(Shape):
    """A model for which the question had no answer."""

    name: str
    code: str
    message: str


class OutdatedModels(Shape):
    """What was found out about a page of models; `next_page_token` null at the end."""

    models: list[OutdatedModel]
    unchecked: list[UncheckedModel]
    next_page_token: str | None

    @classmethod
    def of(cls, page: OutdatedPage) -> "OutdatedModels":
        """From a page."""
        return cls(
            models=[OutdatedModel.of(found) for found in page.outdated],
            unchecked=[
                UncheckedModel(name=one.model.name, code=one.error.code, message=one.error.message)
                for one in page.unchecked
            ],
            next_page_token=page.next_token or None,
        )


class UpgradedModel(Shape):
    """A model after its upgrade; `download_bytes`: the changed and added files."""

    model: RegisteredModel
    previous_commit: str
    download_bytes: int
    changes: list[FileChangeShape]
    warnings: list[str]

    @classmethod
    def of(cls, upgraded: Upgraded, hub_url: str) -> "UpgradedModel":
        """From what was done."""
        return cls(
            model=RegisteredModel.of(upgraded.view, hub_url),
            previous_commit=upgraded.previous_commit,
            download_bytes=upgraded.download_bytes,
            changes=[FileChangeShape.of(change) for change in upgraded.changes],
            warnings=list(upgraded.warnings),
        )


class RegisterRequest(Shape):
    """What to register; without a filename llama.cpp's choice: Q4_K_M, Q8_0, the first.

    `repo` may be `owner/repo:QUANT`.
    """

    model_config = ConfigDict(extra="forbid")

    repo: Text
    filename: Text | None = None
    revision: Text | None = None
    display_name: Text | None = None
    chat_template: Text | None = None


class Registered(Shape):
    """What was registered. `revision` is the commit that it is pinned to."""

    name: str
    status: str
    size_bytes: int
    required_memory_bytes: int | None
    revision: str
    warnings: list[str]

    @classmethod
    def of(cls, view: ModelView, warnings: list[str]) -> "Registered":
        """From a view."""
        model = view.model
        return cls(
            name=model.name,
            status=model.status.value,
            size_bytes=model.manifest.total_bytes,
            required_memory_bytes=model.required_memory_bytes,
            revision=model.manifest.commit,
            warnings=warnings,
        )


class ManifestShape(Shape):
    """The exact files of a model."""

    model: str
    repo: str
    revision: str
    format: str
    quantization: str
    total_bytes: int
    manifest_id: str
    files: list[FileShape]

    @classmethod
    def of(cls, manifest: Manifest, hub_url: str) -> "ManifestShape":
        """From a manifest; `revision` is its commit."""
        return cls(
            model=manifest.model_name,
            repo=manifest.repo,
            revision=manifest.commit,
            format=manifest.format,
            quantization=manifest.quantization,
            total_bytes=manifest.total_bytes,
            manifest_id=manifest.manifest_id,
            files=_files(manifest.files, hub_url, manifest.repo, manifest.commit),
        )


class DownloadRequest(Shape):
    """An order, or the question what it would do. `node_ids` are ids or names."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: Text
    target: Text | None = None
    node_ids: list[Text] = Field(default_factory=list)


class TaskIds(Shape):
    """The tasks of an order, one for each node."""

    task_ids: list[str]


class NodePlanShape(Shape):
    """What an order would mean for one node."""

    node_id: str
    node_name: str
    verdict: Literal["ready", "fits", "refused"]
    reason: str
    needed_bytes: int
    free_bytes: int
    source: str = Field(serialization_alias="from")
    warnings: list[str]

    @classmethod
    def of(cls, plan: NodePlan) -> "NodePlanShape":
        """From a plan."""
        return cls(
            node_id=plan.node_id,
            node_name=plan.node_name,
            verdict=plan.verdict.value,
            reason=plan.reason,
            needed_bytes=plan.needed_bytes,
            free_bytes=plan.free_bytes,
            source=plan.source,
            warnings=list(plan.warnings),
        )


class PlanShape(Shape):
    """What an order would mean; `line_bytes` is what the Hub would serve."""

    model_name: str
    line_bytes: int
    nodes: list[NodePlanShape]

    @classmethod
    def of(cls, plan: Plan) -> "PlanShape":
        """From a plan."""
        return cls(
            model_name=plan.model_name,
            line_bytes=plan.line_bytes,
            nodes=[NodePlanShape.of(node) for node in plan.nodes],
        )


class BytesFrom(Shape):
    """Bytes by where they came from."""

    hub: int
    peers: int
    router: int
    disk: int


class TaskErrorShape(Shape):
    """Why a task failed."""

    code: str
    message: str
    retryable: bool


class TaskShape(Shape):
    """One model on one node. `id` and `task_id` are the same."""

    id: str
    task_id: str
    order_id: str
    model_name: str
    node_id: str
    node_name: str
    node_online: bool
    status: str
    progress: float
    bytes_done: int
    bytes_total: int
    speed_bps: int
    speed: str
    eta_seconds: float | None
    note: str
    bytes_from: BytesFrom
    attempt: int
    priority: int
    error: TaskErrorShape | None
    created_at: Moment
    started_at: Moment | None
    updated_at: Moment
    completed_at: Moment | None

    @classmethod
    def of(cls, view: TaskView) -> "TaskShape":
        """From a view; `completed_at` is when it ended, however it ended."""
        task, progress = view.task, view.task.progress
        source = progress.bytes_from
        failure = task.failure
        total = task.bytes_total
        return cls(
            id=task.task_id,
            task_id=task.task_id,
            order_id=task.order_id,
            model_name=task.model_name,
            node_id=task.node_id,
            node_name=view.node_name,
            node_online=view.node_online,
            status=task.state.value,
            progress=_share(task),
            bytes_done=progress.bytes_done,
            bytes_total=total,
            speed_bps=progress.speed,
            speed=units.rate(progress.speed) if progress.speed else "",
            eta_seconds=progress.eta,
            note=progress.note,
            bytes_from=BytesFrom(
                hub=source.hub, peers=source.peers, router=source.router, disk=source.disk
            ),
            attempt=task.attempt,
            priority=task.priority,
            error=TaskErrorShape(
                code=failure.code, message=failure.message, retryable=failure.retryable
            )
            if failure
            else None,
            created_at=task.created_at,
            started_at=task.started_at,
            updated_at=task.updated_at,
            completed_at=task.ended_at,
        )


class TaskPage(Shape):
    """Tasks, the newest first; `next_page_token` null at the end."""

    tasks: list[TaskShape]
    next_page_token: str | None


class GpuShape(Shape):
    """One graphics processor."""

    name: str
    memory_bytes: int


class NodeModel(Shape):
    """One model on one node, seen from the node."""

    name: str
    status: str
    verified_at: Moment | None


class NodeShape(Shape):
    """A machine that holds models."""

    id: str
    name: str
    status: Literal["online", "offline"]
    version: str
    labels: dict[str, str]
    disk_free_bytes: int
    disk_total_bytes: int
    memory_bytes: int
    gpus: list[GpuShape]
    models: list[NodeModel]
    max_rate_bps: int
    max_concurrent: int
    reserve_bytes: int
    created_at: Moment
    last_seen_at: Moment

    @classmethod
    def of(cls, view: NodeView) -> "NodeShape":
        """From a view."""
        node = view.node
        return cls(
            id=node.node_id,
            name=node.name,
            status="online" if view.online else "offline",
            version=node.version,
            labels=node.effective_labels,
            disk_free_bytes=node.disk_free_bytes,
            disk_total_bytes=node.disk_total_bytes,
            memory_bytes=node.memory_bytes,
            gpus=[GpuShape(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in node.gpus],
            models=[
                NodeModel(
                    name=holding.model_name,
                    status=holding.state.value,
                    verified_at=holding.verified_at,
                )
                for holding in view.holdings
            ],
            max_rate_bps=node.max_rate,
            max_concurrent=node.settings.max_concurrent,
            reserve_bytes=node.settings.reserve,
            created_at=node.created_at,
            last_seen_at=node.last_seen_at,
        )


class NodeList(Shape):
    """Every node, by name."""

    nodes: list[NodeShape]


class Health(Shape):
    """That the router is there."""

    status: Literal["ok"] = "ok"
    version: str


def _share(task: Task) -> float:
    """0 to 1 in steps of 0.0001; 1 only when every byte is there."""
    if task.bytes_total == 0:
        return float(task.state is TaskState.COMPLETED)
    return units.fraction(task.progress.bytes_done, task.bytes_total)
