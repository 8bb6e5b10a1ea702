"""Between domain values and generated messages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import unquote

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from protos.llmrouter.v1 import (
    agent_pb2,
    catalog_pb2,
    common_pb2,
    download_pb2,
    node_pb2,
    registration_pb2,
)
from router.domain.catalog import (
    CatalogQuery,
    CatalogRepo,
    FileRole,
    FileUrl,
    Gating,
    GgufFacts,
    ModelFile,
    Sort,
)
from router.domain.errors import InvalidArgument
from router.domain.models import (
    Holding,
    HoldingState,
    Manifest,
    ModelStatus,
    ModelView,
    file_url,
)
from router.domain.nodes import Assignment, Gpu, HeldFile, Hello, Inventory, NodeView, Settings
from router.domain.tasks import (
    Bytes,
    Progress,
    TaskFailure,
    TaskReport,
    TaskState,
    TaskView,
)
from router.services.catalog import (
    RepoPageView,
    RepoView,
    VariantPageView,
    VariantStatus,
    VariantView,
)
from router.services.sessions import Report
from router.services.upgrades import FileChange, OutdatedPage, Upgraded

_FAILED = common_pb2.TASK_STATE_FAILED
# What a node says is kept and shown to everybody: characters, and seconds (ten years).
_MAX_NOTE = 300
_MAX_CODE = 64
_MAX_TEXT = 2000
_MAX_GPUS = 64
_LONGEST_ETA = 10 * 365 * 86_400.0


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def numbers(enum: Any, prefix: str, values: type[Enum]) -> dict[Any, Any]:
    """Domain values to the numbers of the enum whose names are `<prefix>_<NAME>`."""
    return {value: enum.Value(f"{prefix}_{value.name}") for value in values}


_FILE_ROLES = numbers(common_pb2.FileRole, "FILE_ROLE", FileRole)
_GATINGS = numbers(catalog_pb2.Gating, "GATING", Gating)
_VARIANT_STATUSES = numbers(catalog_pb2.VariantStatus, "VARIANT_STATUS", VariantStatus)
_MODEL_STATUSES = numbers(registration_pb2.ModelStatus, "MODEL_STATUS", ModelStatus)
_HOLDING_STATES = numbers(common_pb2.HoldingState, "HOLDING_STATE", HoldingState)
_TASK_STATES = numbers(common_pb2.TaskState, "TASK_STATE", TaskState)
_SORTS = numbers(catalog_pb2.CatalogSort, "CATALOG_SORT", Sort)

_SORT_OF = {number: sort for sort, number in _SORTS.items()}
_STATE_OF = {number: state for state, number in _TASK_STATES.items()}


def moment(value: datetime | None) -> Timestamp | None:
    """A moment; None stays unset."""
    if value is None:
        return None
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def span(seconds: float | None) -> Duration | None:
    """A span of seconds; None stays unset."""
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMilliseconds(int(seconds * 1000))
    return duration


# Towards clients


class Messages:
    """Makes messages; knows where the Hub serves files."""

    def __init__(self, hub_url: str, kept: Callable[[str], bool] = lambda _: False) -> None:
        """`hub_url` without a path, as nodes reach it; `kept` tells whether the router itself has
        the content with a digest.
        """
        self._hub_url = hub_url
        self._kept = kept

    def manifest(self, manifest: Manifest) -> common_pb2.Manifest:
        """A model's exact files."""
        return common_pb2.Manifest(
            model_name=manifest.model_name,
            repo=manifest.repo,
            revision=manifest.revision,
            commit=manifest.commit,
            format=manifest.format,
            quantization=manifest.quantization,
            total_bytes=manifest.total_bytes,
            manifest_id=manifest.manifest_id,
            files=self._files(manifest.repo, manifest.commit, manifest.files),
        )

    def model(self, view: ModelView) -> registration_pb2.Model:
        """A supported model."""
        model = view.model
        return registration_pb2.Model(
            model_name=model.name,
            display_name=model.display_name,
            status=_MODEL_STATUSES[model.status],
            manifest=self.manifest(model.manifest),
            required_memory_bytes=model.required_memory_bytes or 0,
            chat_template=model.chat_template or "",
            facts=facts(model.facts),
            create_time=moment(model.created_at),
            ready_node_count=view.ready_nodes,
            holdings=map(holding, view.holdings),
        )

    def upgraded(self, upgraded: Upgraded) -> registration_pb2.UpgradeModelResponse:
        """A model after its upgrade."""
        return registration_pb2.UpgradeModelResponse(
            model=self.model(upgraded.view),
            previous_commit=upgraded.previous_commit,
            changes=map(_change, upgraded.changes),
            download_bytes=upgraded.download_bytes,
            warnings=upgraded.warnings,
        )

    def repo(self, view: RepoView) -> catalog_pb2.Repo:
        """A repository of the catalog."""
        return self._repo(view.repo, view.variants, view.facts)

    def repo_page(self, page: RepoPageView) -> catalog_pb2.SearchCatalogResponse:
        """A page of repositories."""
        return catalog_pb2.SearchCatalogResponse(
            repos=map(self.repo, page.repos),
            next_page_token=page.next_token,
            cached=page.freshness.cached,
            stale=page.freshness.stale,
            fetch_time=moment(page.freshness.fetched_at),
            problem=page.freshness.problem,
        )

    def variant_page(self, page: VariantPageView) -> catalog_pb2.SearchCatalogResponse:
        """A window over variants: neighbours of one repository come as one repository."""
        repos: list[catalog_pb2.Repo] = []
        for repo, variant in page.entries:
            if repos and repos[-1].repo == repo.repo:
                repos[-1].variants.append(self._variant(repo, variant))
            else:
                repos.append(self._repo(repo, (variant,), None))
        return catalog_pb2.SearchCatalogResponse(
            repos=repos,
            cached=page.freshness.cached,
            stale=page.freshness.stale,
            fetch_time=moment(page.freshness.fetched_at),
            problem=page.freshness.problem,
            total_variants=page.total,
            has_more=page.has_more,
            listing=page.listing,
        )

    def assignments(self, assignments: Sequence[Assignment]) -> list[agent_pb2.Assignment]:
        """What each node should be doing and holding; a model of many nodes is written once."""
        manifests = {
            id(task.manifest): task.manifest
            for assignment in assignments
            for task in assignment.tasks
        }
        written = {key: self._for_nodes(manifest) for key, manifest in manifests.items()}
        return [self._assignment(assignment, written) for assignment in assignments]

    def _for_nodes(self, manifest: Manifest) -> common_pb2.Manifest:
        """A manifest to fetch by: what the router itself has is not asked of the Hub."""
        written = self.manifest(manifest)
        for file in written.files:
            if file.sha256 and self._kept(file.sha256):
                file.url = f"router:/blobs/{file.sha256}"
        return written

    def _assignment(
        self, assignment: Assignment, manifests: Mapping[int, common_pb2.Manifest]
    ) -> agent_pb2.Assignment:
        return agent_pb2.Assignment(
            revision=assignment.revision,
            tasks=[
                agent_pb2.TaskAssignment(
                    task_id=task.task_id,
                    attempt=task.attempt,
                    manifest=manifests[id(task.manifest)],
                    paused=task.paused,
                    priority=task.priority,
                    hold=task.hold,
                )
                for task in assignment.tasks
            ],
            evictions=[
                agent_pb2.Eviction(
                    eviction_id=eviction.eviction_id, manifest=self.manifest(eviction.manifest)
                )
                for eviction in assignment.evictions
            ],
            keep_partials=map(self.manifest, assignment.keep_partials),
            max_rate_bytes_per_second=assignment.max_rate,
            max_upload_rate_bytes_per_second=assignment.max_upload_rate,
        )

    def _repo(
        self,
        repo: CatalogRepo,
        variants: Iterable[VariantView],
        header: GgufFacts | None,
    ) -> catalog_pb2.Repo:
        return catalog_pb2.Repo(
            repo=repo.repo,
            commit=repo.commit,
            last_modified=moment(repo.last_modified),
            downloads=repo.downloads,
            likes=repo.likes,
            tags=repo.tags,
            gating=_GATINGS[repo.gating],
            private=repo.private,
            pipeline_tag=repo.pipeline_tag or "",
            license=repo.license or "",
            variants=[self._variant(repo, variant) for variant in variants],
            convertible=repo.convertible,
            facts=facts(header),
        )

    def _variant(self, repo: CatalogRepo, view: VariantView) -> catalog_pb2.Variant:
        variant = view.variant
        return catalog_pb2.Variant(
            model_name=variant.name,
            display_name=view.display_name,
            quantization=variant.quantization,
            filename=variant.filename,
            files=self._files(repo.repo, repo.commit, variant.files),
            size_bytes=variant.size_bytes,
            required_memory_bytes=view.required_memory_bytes,
            status=_VARIANT_STATUSES[view.status],
        )

    def _files(
        self, repo: str, commit: str, files: Iterable[ModelFile]
    ) -> list[common_pb2.ModelFile]:
        return [
            common_pb2.ModelFile(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256 or "",
                url=file_url(self._hub_url, repo, commit, file.path),
                role=_FILE_ROLES[file.role],
            )
            for file in files
        ]


def outdated_page(page: OutdatedPage) -> registration_pb2.ListOutdatedModelsResponse:
    """What was found out about one page of models."""
    return registration_pb2.ListOutdatedModelsResponse(
        models=[
            registration_pb2.OutdatedModel(
                model_name=found.model.name,
                commit=found.model.manifest.commit,
                newest_commit=found.newest_commit,
                last_modified=moment(found.last_modified),
                changes=map(_change, found.changes),
                download_bytes=found.download_bytes,
            )
            for found in page.outdated
        ],
        unchecked=[
            registration_pb2.UncheckedModel(
                model_name=one.model.name, code=one.error.code, message=one.error.message
            )
            for one in page.unchecked
        ],
        next_page_token=page.next_token,
    )


def _change(change: FileChange) -> registration_pb2.FileChange:
    old, new = change.old, change.new
    return registration_pb2.FileChange(
        path=change.path,
        old_size_bytes=old.size_bytes if old else None,
        old_sha256=(old.sha256 if old else None) or "",
        new_size_bytes=new.size_bytes if new else None,
        new_sha256=(new.sha256 if new else None) or "",
    )


def facts(header: GgufFacts | None) -> common_pb2.ModelFacts | None:
    """What a header tells; None stays unset."""
    if header is None:
        return None
    return common_pb2.ModelFacts(
        architecture=header.architecture,
        parameters=header.parameters or 0,
        context_length=header.context_length or 0,
        layers=header.layers or 0,
        heads=header.heads or 0,
        kv_heads=header.kv_heads or 0,
        embedding_length=header.embedding_length or 0,
        experts=header.experts or 0,
        experts_used=header.experts_used or 0,
        vocabulary=header.vocabulary or 0,
        tokenizer=header.tokenizer or "",
        license=header.license or "",
        has_chat_template=bool(header.chat_template),
    )


def holding(value: Holding) -> common_pb2.Holding:
    """One model on one node."""
    return common_pb2.Holding(
        model_name=value.model_name,
        node_id=value.node_id,
        node_name=value.node_name,
        state=_HOLDING_STATES[value.state],
        verify_time=moment(value.verified_at),
        task_id=value.task_id,
    )


def task(view: TaskView) -> download_pb2.Task:
    """A task with its live progress."""
    task, progress = view.task, view.task.progress
    return download_pb2.Task(
        task_id=task.task_id,
        order_id=task.order_id,
        model_name=task.model_name,
        node_id=task.node_id,
        node_name=view.node_name,
        node_online=view.node_online,
        state=_TASK_STATES[task.state],
        attempt=task.attempt,
        bytes_done=progress.bytes_done,
        bytes_total=task.bytes_total,
        bytes_from=_bytes(progress.bytes_from),
        speed_bytes_per_second=progress.speed,
        eta=span(progress.eta),
        note=progress.note,
        error=failure(task.failure),
        create_time=moment(task.created_at),
        start_time=moment(task.started_at),
        update_time=moment(task.updated_at),
        end_time=moment(task.ended_at),
        priority=task.priority,
    )


def failure(value: TaskFailure | None) -> common_pb2.TaskError | None:
    """Why a task failed; None stays unset."""
    if value is None:
        return None
    return common_pb2.TaskError(code=value.code, message=value.message, retryable=value.retryable)


def node(view: NodeView) -> node_pb2.Node:
    """A node with what it holds."""
    node = view.node
    return node_pb2.Node(
        node_id=node.node_id,
        name=node.name,
        status=node_pb2.NODE_STATUS_ONLINE if view.online else node_pb2.NODE_STATUS_OFFLINE,
        version=node.version,
        labels=node.effective_labels,
        disk_free_bytes=node.disk_free_bytes,
        disk_total_bytes=node.disk_total_bytes,
        memory_bytes=node.memory_bytes,
        gpus=[node_pb2.Gpu(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in node.gpus],
        holdings=map(holding, view.holdings),
        last_seen_time=moment(node.last_seen_at),
        create_time=moment(node.created_at),
        max_rate_bytes_per_second=node.max_rate,
        max_upload_rate_bytes_per_second=node.max_upload_rate,
        max_hub_rate_bytes_per_second=node.max_hub_rate,
        max_concurrent=node.settings.max_concurrent,
        reserve_bytes=node.settings.reserve,
        site=node.site,
        peer_addresses=view.peer_addresses,
    )


def url_result(request_id: str, url: FileUrl) -> agent_pb2.FileUrlResult:
    """The answer to a node that asked for a URL."""
    return agent_pb2.FileUrlResult(
        request_id=request_id, url=url.url, expire_time=moment(url.expires_at)
    )


# From clients and nodes


def query_from(request: catalog_pb2.SearchCatalogRequest) -> CatalogQuery:
    """What to look for."""
    return CatalogQuery(
        search=request.search,
        author=request.author,
        sort=_SORT_OF.get(request.sort, Sort.TRENDING),
        min_bytes=request.min_bytes or None,
        max_bytes=request.max_bytes or None,
        quantization=request.quantization,
    )


def states_from(numbers: Iterable[int]) -> list[TaskState]:
    """The states that a filter names. Raises `InvalidArgument` for a number that is none."""
    named = list(numbers)
    for number in named:
        if number not in _STATE_OF:
            raise InvalidArgument(f"{number} is not a state of a task", param="states")
    return [_STATE_OF[number] for number in named]


def hello_from(message: agent_pb2.Hello, peer: str) -> Hello:
    """Who a node is; `peer` as gRPC names the other end of its stream: `ipv4:10.0.0.5:4711`."""
    return Hello(
        node_id=message.node_id,
        name=message.name,
        version=message.version[:_MAX_CODE],
        labels=dict(message.labels),
        memory_bytes=message.memory_bytes,
        gpus=tuple(Gpu(gpu.name[:_MAX_NOTE], gpu.memory_bytes) for gpu in message.gpus[:_MAX_GPUS]),
        disk_free_bytes=message.disk_free_bytes,
        disk_total_bytes=message.disk_total_bytes,
        settings=Settings(
            max_rate=message.max_rate_bytes_per_second,
            max_upload_rate=message.max_upload_rate_bytes_per_second,
            max_concurrent=message.max_concurrent,
            reserve=message.reserve_bytes,
        ),
        instance=message.instance,
        peer_addresses=tuple(message.peer_addresses),
        seen_host=_host_of(peer),
    )


def _host_of(peer: str) -> str:
    """The address without its port; empty for a socket that is not of the Internet."""
    kind, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def report_from(message: agent_pb2.Report) -> Report:
    """What a node says at a heartbeat; tasks in a state that we do not know are left out."""
    return Report(
        tasks=tuple(_task_report(report) for report in message.tasks if report.state in _STATE_OF),
        disk_free_bytes=message.disk_free_bytes,
        disk_total_bytes=message.disk_total_bytes,
        done_evictions=tuple(message.done_eviction_ids),
        found_digests=tuple(
            (report.task_id, dict(report.found_sha256))
            for report in message.tasks
            if report.found_sha256
        ),
        max_hub_rate=message.max_hub_rate_bytes_per_second
        if message.HasField("max_hub_rate_bytes_per_second")
        else None,
        held_back=message.held_back,
    )


def inventory_from(message: agent_pb2.Inventory) -> Inventory:
    """What a node holds."""
    return Inventory(
        files=tuple(
            HeldFile(
                repo=file.repo,
                commit=file.commit,
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                verified_at=_moment_from(file.verify_time),
            )
            for file in message.files
        ),
        partial=message.partial,
    )


def _moment_from(timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("a moment lies outside of the calendar", param="inventory") from None


def _task_report(message: agent_pb2.TaskReport) -> TaskReport:
    source = message.bytes_from
    return TaskReport(
        task_id=message.task_id,
        attempt=message.attempt,
        state=_STATE_OF[message.state],
        progress=Progress(
            bytes_done=message.bytes_done,
            bytes_from=Bytes(source.hub, source.peers, source.router, source.disk),
            speed=message.speed_bytes_per_second,
            eta=_eta_from(message),
            note=message.note[:_MAX_NOTE],
        ),
        failure=_failure_from(message.error) if message.state == _FAILED else None,
    )


def _eta_from(message: agent_pb2.TaskReport) -> float | None:
    """Seconds; None also for a span that nobody can wait for, or that runs backwards."""
    seconds = message.eta.seconds + message.eta.nanos / 1e9
    return seconds if message.HasField("eta") and 0 <= seconds <= _LONGEST_ETA else None


def _failure_from(error: common_pb2.TaskError) -> TaskFailure:
    """A failed task always says why, if only that its node did not."""
    return TaskFailure(
        code=error.code[:_MAX_CODE] or "unknown",
        message=error.message[:_MAX_TEXT] or "the node did not say why",
        retryable=error.retryable,
    )


def _bytes(value: Bytes) -> common_pb2.BytesBySource:
    return common_pb2.BytesBySource(
        hub=value.hub, peers=value.peers, router=value.router, disk=value.disk
    )
