"""Values of the domain as rows of the tables, and read back."""

from typing import Any

from router.domain.models import Model, ModelStatus
from router.domain.nodes import Node
from router.domain.orders import Order, OrderTarget
from router.domain.tasks import Task, TaskState
from router.storage import documents
from router.storage.tables import ModelRow, NodeRow, OrderRow, TaskRow


def model(row: ModelRow) -> Model:
    """A model of its row."""
    return Model(
        name=row.name,
        display_name=row.display_name,
        status=ModelStatus(row.status),
        manifest=documents.manifest_from(row.manifest),
        required_memory_bytes=row.required_memory_bytes,
        chat_template=row.chat_template,
        facts=documents.facts_from(row.facts),
        created_at=row.created_at,
    )


def order(row: OrderRow) -> Order:
    """An order of its row."""
    return Order(
        order_id=row.order_id,
        model_name=row.model_name,
        target=OrderTarget(row.target),
        node_ids=tuple(row.node_ids),
        task_ids=tuple(row.task_ids),
        request_id=row.request_id or "",
        created_at=row.created_at,
        labels=row.labels,
        options=documents.options_from(row.options),
        priority=row.priority,
        waves=tuple(map(tuple, row.waves)),
        excluded=tuple(row.excluded),
        cancelled=row.cancelled,
        watched=row.watched,
    )


def changing(order: Order) -> dict[str, Any]:
    """What may change of an order, save its tasks."""
    return {
        "waves": [list(wave) for wave in order.waves],
        "excluded": list(order.excluded),
        "cancelled": order.cancelled,
        "watched": order.watched,
    }


def task(row: TaskRow) -> Task:
    """A task of its row."""
    return Task(
        task_id=row.task_id,
        order_id=row.order_id,
        model_name=row.model_name,
        node_id=row.node_id,
        state=TaskState(row.state),
        attempt=row.attempt,
        bytes_total=row.bytes_total,
        priority=row.priority,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        failure=documents.failure_from(row.failure),
        keep_partial=row.keep_partial,
        progress=documents.progress_from(row.progress),
    )


def task_row(task: Task) -> dict[str, Any]:
    """A task as a row."""
    return {
        "task_id": task.task_id,
        "order_id": task.order_id,
        "model_name": task.model_name,
        "node_id": task.node_id,
        "state": task.state.value,
        "attempt": task.attempt,
        "bytes_total": task.bytes_total,
        "priority": task.priority,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
        "failure": documents.failure_to(task.failure),
        "keep_partial": task.keep_partial,
        "progress": documents.progress_to(task.progress),
    }


def node(row: NodeRow) -> Node:
    """A node of its row."""
    return Node(
        node_id=row.node_id,
        name=row.name,
        version=row.version,
        labels=row.labels,
        memory_bytes=row.memory_bytes,
        gpus=documents.gpus_from(row.gpus),
        disk_free_bytes=row.disk_free_bytes,
        disk_total_bytes=row.disk_total_bytes,
        settings=documents.settings_from(row.settings),
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        set_labels=row.set_labels,
        set_max_rate=row.set_max_rate,
        set_max_upload_rate=row.set_max_upload_rate,
        set_max_hub_rate=row.set_max_hub_rate,
    )
