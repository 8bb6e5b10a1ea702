"""The JSON of supported models, as OpenAI lists them and as we do. Sizes in bytes."""

from typing import Literal

from pydantic import ConfigDict

from router.domain.models import Holding, Manifest, Model, ModelView
from router.rest.shapes.base import Moment, Shape, Text
from router.rest.shapes.files import FactsShape, FileShape, file_shapes


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
            files=file_shapes(manifest.files, hub_url, manifest.repo, manifest.commit),
            facts=FactsShape.of(model.facts) if model.facts else None,
            created_at=model.created_at,
            ready=view.ready_nodes > 0,
            ready_nodes=view.ready_nodes,
            nodes=[ModelOnNode.of(holding) for holding in view.holdings],
        )


class RegisteredModels(Shape):
    """Every supported model, by name."""

    models: list[RegisteredModel]


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
            files=file_shapes(manifest.files, hub_url, manifest.repo, manifest.commit),
        )
