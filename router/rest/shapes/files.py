"""The JSON of files and of what headers tell."""

from router.domain.catalog import GgufFacts, ModelFile
from router.domain.models import file_url
from router.rest.shapes.base import Shape


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


def file_shapes(
    files: tuple[ModelFile, ...], hub_url: str, repo: str, commit: str
) -> list[FileShape]:
    """From files of `repo` at `commit`."""
    return [FileShape.of(file, hub_url, repo, commit) for file in files]


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
