"""Between the contract's messages and this agent's values; whatever comes in is checked."""

import math
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent.assignment import Assignment, EvictionOrder, RefusedTask, TaskOrder
from agent.inventory import Holdings
from agent.manifest import Manifest, ManifestFile
from agent.runner import Phase, TaskStatus
from protos import names
from protos.llmrouter.v1 import agent_pb2, common_pb2

_MAX_TASK_ID = 128
_STATES = {
    Phase.PENDING: common_pb2.TASK_STATE_PENDING,
    Phase.DOWNLOADING: common_pb2.TASK_STATE_DOWNLOADING,
    Phase.VERIFYING: common_pb2.TASK_STATE_VERIFYING,
    Phase.COMPLETED: common_pb2.TASK_STATE_COMPLETED,
    Phase.FAILED: common_pb2.TASK_STATE_FAILED,
    Phase.PAUSED: common_pb2.TASK_STATE_PAUSED,
}


def assignment_from_pb(message: agent_pb2.Assignment, epoch: int) -> Assignment:
    """Reads an assignment; a task that breaks a rule becomes a `RefusedTask`.

    Malformed evictions are left out: nothing is removed by a name that cannot be trusted.
    """
    tasks: dict[str, TaskOrder] = {}
    refused: dict[str, RefusedTask] = {}
    for task in message.tasks:
        if task.task_id in tasks or task.task_id in refused or not _is_task_id(task.task_id):
            continue
        try:
            tasks[task.task_id] = _task_from_pb(task)
        except ValueError as error:
            refused[task.task_id] = RefusedTask(task.task_id, task.attempt, str(error))
    evictions, _ = _valid(
        (eviction.eviction_id, eviction.manifest) for eviction in message.evictions
    )
    kept, all_kept_valid = _valid(("", manifest) for manifest in message.keep_partials)
    rate = message.max_rate_bytes_per_second
    upload = message.max_upload_rate_bytes_per_second
    return Assignment(
        epoch=epoch,
        revision=message.revision,
        tasks=tuple(tasks.values()),
        refused=tuple(refused.values()),
        evictions=tuple(EvictionOrder(name, manifest) for name, manifest in evictions),
        keep_partials=tuple(manifest for _, manifest in kept),
        keep_partials_known=all_kept_valid and not refused,
        max_rate=max(0, rate) if message.HasField("max_rate_bytes_per_second") else None,
        max_upload_rate=(
            max(0, upload) if message.HasField("max_upload_rate_bytes_per_second") else None
        ),
    )


def manifest_from_pb(message: common_pb2.Manifest) -> Manifest:
    """Reads a manifest. Raises `names.InvalidName` for one that breaks a rule."""
    paths = [file.path for file in message.files]
    if len(set(paths)) != len(paths):
        raise names.InvalidName(f'the manifest of "{message.model_name}" names a file twice')
    schemes = ("http://", "https://", "router:/")
    if not all(file.url.startswith(schemes) for file in message.files):
        raise names.InvalidName(f'the manifest of "{message.model_name}" has a file without a URL')
    return Manifest(
        model_name=message.model_name,
        repo=message.repo,
        revision=message.revision,
        commit=message.commit,
        manifest_id=message.manifest_id,
        files=tuple(
            ManifestFile(file.path, file.size_bytes, file.sha256 or None, file.url)
            for file in message.files
        ),
    )


def manifest_to_pb(manifest: Manifest) -> common_pb2.Manifest:
    """The message for a manifest, without what means nothing to an agent."""
    return common_pb2.Manifest(
        model_name=manifest.model_name,
        repo=manifest.repo,
        revision=manifest.revision,
        commit=manifest.commit,
        manifest_id=manifest.manifest_id,
        total_bytes=manifest.total_bytes,
        files=[
            common_pb2.ModelFile(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256 or "",
                url=file.url,
            )
            for file in manifest.files
        ],
    )


def task_to_pb(status: TaskStatus) -> agent_pb2.TaskReport:
    """The report of one task."""
    failure = status.failure
    return agent_pb2.TaskReport(
        task_id=status.task_id,
        attempt=status.attempt,
        state=_STATES[status.phase],
        bytes_done=status.done,
        bytes_total=status.total,
        bytes_from=common_pb2.BytesBySource(
            hub=status.bytes_from.hub,
            peers=status.bytes_from.peers,
            router=status.bytes_from.router,
            disk=status.bytes_from.disk,
        ),
        speed_bytes_per_second=round(status.speed),
        eta=None if status.eta_seconds is None else duration(status.eta_seconds),
        note=status.note,
        error=None
        if failure is None
        else common_pb2.TaskError(
            code=failure.code, message=failure.message, retryable=failure.retryable
        ),
        found_sha256=status.found_sha256,
    )


def inventory_to_pb(holdings: Holdings) -> agent_pb2.Inventory:
    """The inventory, as the wire has it."""
    return agent_pb2.Inventory(
        files=[
            agent_pb2.HeldFile(
                repo=held.file.repo,
                commit=held.file.commit,
                path=held.file.path,
                size_bytes=held.file.size_bytes,
                sha256=held.sha256,
                verify_time=timestamp(held.verified_at),
            )
            for held in holdings.held
        ],
        partial=holdings.partial,
    )


def timestamp(seconds: float) -> Timestamp:
    """A moment given in seconds since 1970, as the wire has it."""
    whole = math.floor(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


def duration(seconds: float) -> Duration:
    """A span of time, as the wire has it."""
    whole = math.floor(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _task_from_pb(message: agent_pb2.TaskAssignment) -> TaskOrder:
    return TaskOrder(
        task_id=message.task_id,
        attempt=message.attempt,
        manifest=manifest_from_pb(message.manifest),
        paused=message.paused,
        priority=message.priority,
        hold=message.hold,
    )


def _valid(
    named: Iterable[tuple[str, common_pb2.Manifest]],
) -> tuple[list[tuple[str, Manifest]], bool]:
    """The well-formed ones, and whether all were."""
    found = []
    whole = True
    for name, message in named:
        try:
            found.append((name, manifest_from_pb(message)))
        except names.InvalidName:
            whole = False
    return found, whole


def _is_task_id(text: str) -> bool:
    return 0 < len(text) <= _MAX_TASK_ID and text.isprintable()
