"""Messages of the contract as the REST API writes them: the same names, the same words.

Times are RFC 3339 in UTC, sizes in bytes; what is not known is null, a text that is not there "".
"""

from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from protos import units
from protos.llmrouter.v1 import (
    catalog_pb2,
    common_pb2,
    download_pb2,
    node_pb2,
    registration_pb2,
)

Json = dict[str, Any]


def task_status(task: download_pb2.Task) -> str:
    """The state's word, for example "downloading"."""
    return word(common_pb2.TaskState.Name(task.state), "TASK_STATE_")


def node_status(node: node_pb2.Node) -> str:
    """The status' word: "online" or "offline"."""
    return word(node_pb2.NodeStatus.Name(node.status), "NODE_STATUS_")


def model_status(model: registration_pb2.Model) -> str:
    """The status' word, for example "registered"."""
    return word(registration_pb2.ModelStatus.Name(model.status), "MODEL_STATUS_")


def variant_status(variant: catalog_pb2.Variant) -> str:
    """The status' word: "available", "registered" or "downloaded"."""
    return word(catalog_pb2.VariantStatus.Name(variant.status), "VARIANT_STATUS_")


def holding_status(holding: common_pb2.Holding) -> str:
    """The state's word, for example "ready"."""
    return word(common_pb2.HoldingState.Name(holding.state), "HOLDING_STATE_")


def task(message: download_pb2.Task) -> Json:
    """A task as in `GET /api/tasks/{id}`."""
    total, done = message.bytes_total, message.bytes_done
    completed = message.state == common_pb2.TASK_STATE_COMPLETED
    return {
        "id": message.task_id,
        "task_id": message.task_id,
        "order_id": message.order_id,
        "model_name": message.model_name,
        "node_id": message.node_id,
        "node_name": message.node_name,
        "node_online": message.node_online,
        "status": task_status(message),
        "progress": units.fraction(done, total) if total else float(completed),
        "bytes_done": done,
        "bytes_total": total,
        "speed_bps": message.speed_bytes_per_second,
        "speed": units.rate(message.speed_bytes_per_second)
        if message.speed_bytes_per_second
        else "",
        "eta_seconds": message.eta.ToTimedelta().total_seconds()
        if message.HasField("eta")
        else None,
        "bytes_from": {
            "hub": message.bytes_from.hub,
            "peers": message.bytes_from.peers,
            "router": message.bytes_from.router,
            "disk": message.bytes_from.disk,
        },
        "attempt": message.attempt,
        "priority": message.priority,
        "note": message.note,
        "error": {
            "code": message.error.code,
            "message": message.error.message,
            "retryable": message.error.retryable,
        }
        if message.HasField("error")
        else None,
        "created_at": moment(message.create_time),
        "started_at": moment(message.start_time),
        "updated_at": moment(message.update_time),
        "completed_at": moment(message.end_time),
    }


def node(message: node_pb2.Node) -> Json:
    """A node as in `GET /api/nodes/{id}`."""
    return {
        "id": message.node_id,
        "name": message.name,
        "status": node_status(message),
        "version": message.version,
        "labels": dict(sorted(message.labels.items())),
        "disk_free_bytes": message.disk_free_bytes,
        "disk_total_bytes": message.disk_total_bytes,
        "memory_bytes": message.memory_bytes,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in message.gpus],
        "models": [
            {
                "name": one.model_name,
                "status": holding_status(one),
                "verified_at": moment(one.verify_time),
            }
            for one in message.holdings
        ],
        "max_rate_bps": message.max_rate_bytes_per_second,
        "max_upload_rate_bps": message.max_upload_rate_bytes_per_second,
        "max_hub_rate_bps": message.max_hub_rate_bytes_per_second,
        "max_concurrent": message.max_concurrent,
        "reserve_bytes": message.reserve_bytes,
        "site": message.site,
        "peer_addresses": list(message.peer_addresses),
        "last_seen_at": moment(message.last_seen_time),
        "created_at": moment(message.create_time),
    }


def model(message: registration_pb2.Model) -> Json:
    """A registered model as in `GET /api/models`."""
    manifest = message.manifest
    return {
        "name": message.model_name,
        "display_name": message.display_name,
        "status": model_status(message),
        "repo": manifest.repo,
        "revision": manifest.revision,
        "commit": manifest.commit,
        "format": manifest.format,
        "quantization": manifest.quantization,
        "size_bytes": manifest.total_bytes,
        "required_memory_bytes": message.required_memory_bytes or None,
        "chat_template": message.chat_template or None,
        "manifest_id": manifest.manifest_id,
        "files": [_file(file) for file in manifest.files],
        "facts": facts(message.facts) if message.HasField("facts") else None,
        "ready": message.ready_node_count > 0,
        "ready_nodes": message.ready_node_count,
        "nodes": [
            {
                "node_id": one.node_id,
                "node_name": one.node_name,
                "status": holding_status(one),
                "verified_at": moment(one.verify_time),
                "task_id": one.task_id or None,
            }
            for one in message.holdings
        ],
        "created_at": moment(message.create_time),
    }


def registration(message: registration_pb2.RegisterModelResponse) -> Json:
    """What `POST /api/models/register` answers."""
    return {
        "name": message.model.model_name,
        "status": model_status(message.model),
        "size_bytes": message.model.manifest.total_bytes,
        "required_memory_bytes": message.model.required_memory_bytes or None,
        "revision": message.model.manifest.commit,
        "warnings": list(message.warnings),
    }


def outdated(message: registration_pb2.OutdatedModel) -> Json:
    """An entry of `models` in `GET /api/models/outdated`."""
    return {
        "name": message.model_name,
        "commit": message.commit,
        "newest_commit": message.newest_commit,
        "last_modified": moment(message.last_modified),
        "download_bytes": message.download_bytes,
        "changes": [_change(change) for change in message.changes],
    }


def unchecked(message: registration_pb2.UncheckedModel) -> Json:
    """An entry of `unchecked` in `GET /api/models/outdated`."""
    return {"name": message.model_name, "code": message.code, "message": message.message}


def upgrade(message: registration_pb2.UpgradeModelResponse) -> Json:
    """What `POST /api/models/{id}/upgrade` answers."""
    return {
        "model": model(message.model),
        "previous_commit": message.previous_commit,
        "download_bytes": message.download_bytes,
        "changes": [_change(change) for change in message.changes],
        "warnings": list(message.warnings),
    }


def _change(message: registration_pb2.FileChange) -> Json:
    old, new = message.HasField("old_size_bytes"), message.HasField("new_size_bytes")
    return {
        "path": message.path,
        "old_size_bytes": message.old_size_bytes if old else None,
        "old_sha256": message.old_sha256 or None,
        "new_size_bytes": message.new_size_bytes if new else None,
        "new_sha256": message.new_sha256 or None,
    }


def facts(message: common_pb2.ModelFacts) -> Json:
    """What a GGUF header tells; null where it is silent."""
    return {
        "architecture": message.architecture or None,
        "parameters": message.parameters or None,
        "context_length": message.context_length or None,
        "layers": message.layers or None,
        "heads": message.heads or None,
        "kv_heads": message.kv_heads or None,
        "embedding_length": message.embedding_length or None,
        "experts": message.experts or None,
        "experts_used": message.experts_used or None,
        "vocabulary": message.vocabulary or None,
        "tokenizer": message.tokenizer or None,
        "license": message.license or None,
        "has_chat_template": message.has_chat_template,
    }


def variant(repo: catalog_pb2.Repo, message: catalog_pb2.Variant) -> Json:
    """An entry of the catalog as in `GET /api/models/available`."""
    return {
        "name": message.model_name,
        "display_name": message.display_name,
        "source": "hf_pending_conversion" if repo.convertible else "hf_gguf",
        "size_bytes": message.size_bytes,
        "download_url": message.files[0].url if message.files else "",
        "repo": repo.repo,
        "filename": message.filename,
        "files": [_file(file) for file in message.files],
        "quantization": message.quantization,
        "last_modified": moment(repo.last_modified),
        "tags": list(repo.tags),
        "downloads": repo.downloads,
        "likes": repo.likes,
        "gated": repo.gating in (catalog_pb2.GATING_AUTO, catalog_pb2.GATING_MANUAL),
        "private": repo.private,
        "required_memory_bytes": message.required_memory_bytes or None,
        "status": variant_status(message),
    }


def catalog(message: catalog_pb2.SearchCatalogResponse, limit: int, offset: int) -> Json:
    """A window of the catalog as in `GET /api/models/available`."""
    return {
        "models": [variant(repo, one) for repo in message.repos for one in repo.variants],
        "source": "hf",
        "cached": message.cached,
        "stale": message.stale,
        "fetched_at": moment(message.fetch_time),
        "problem": message.problem,
        "pagination": {
            "limit": limit,
            "offset": offset,
            "total": message.total_variants if message.HasField("total_variants") else None,
            "has_more": message.has_more,
            "listing": message.listing,
        },
    }


def _file(message: common_pb2.ModelFile) -> Json:
    return {
        "name": message.path,
        "size_bytes": message.size_bytes,
        "sha256": message.sha256 or None,
        "url": message.url,
        "role": word(common_pb2.FileRole.Name(message.role), "FILE_ROLE_"),
    }


def word(name: str, prefix: str) -> str:
    """An enum's name as REST has it: `TASK_STATE_PENDING` is "pending"."""
    return name.removeprefix(prefix).lower()


def moment(at: Timestamp) -> str | None:
    """RFC 3339 in UTC; None when unset."""
    if not at.seconds:
        return None
    text = at.ToDatetime(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
