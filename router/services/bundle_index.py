"""`bundle.json`: what an offline bundle holds. docs/bundles.md describes it for others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from protos import names
from router.domain.catalog import FileRole, GgufFacts, ModelFile
from router.domain.errors import InvalidArgument
from router.domain.models import Manifest, Model, ModelStatus

FORMAT = "llm-router-bundle"
VERSION = 1
INDEX = "bundle.json"
MAX_INDEX_BYTES = 16 << 20
_MAX_MODELS = 10_000
_MAX_FILE_BYTES = 1 << 50
_MAX_TEXT = 256 * 1024
_MAX_NAME = 200
_MAX_COUNT = 2**31 - 1
_TEXT_FACTS = frozenset(f.name for f in fields(GgufFacts) if f.type in (str, str | None))
_WIDE_FACTS = frozenset({"parameters", "context_length", "vocabulary", "kv_fixed_bytes"})


class BadBundle(InvalidArgument):
    """A file is not a bundle, is damaged, cut short, or of a newer version."""

    reason = "BAD_BUNDLE"


def write(models: Sequence[Model], now: datetime) -> bytes:
    """The index of a bundle with these models; the digest of every file is known."""
    listed = [
        {
            "name": model.name,
            "display_name": model.display_name,
            "required_memory_bytes": model.required_memory_bytes,
            "chat_template": model.chat_template,
            "facts": None if model.facts is None else asdict(model.facts),
            "manifest": asdict(model.manifest),
        }
        for model in models
    ]
    index = {
        "format": FORMAT,
        "version": VERSION,
        "created_at": now.isoformat(),
        "models": listed,
    }
    return json.dumps(index, indent=1, ensure_ascii=False).encode()


def read(content: bytes, now: datetime) -> tuple[Model, ...]:
    """The models of an index, registered `now`; every name and digest is checked.

    Raises `BadBundle`.
    """
    try:
        index = json.loads(content)
    except (ValueError, RecursionError):
        raise BadBundle(f"{INDEX} is not JSON") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise BadBundle(f'{INDEX} does not say "format": "{FORMAT}"')
    if index.get("version") != VERSION:
        raise BadBundle(
            f"the bundle is of version {index.get('version')!r} and this router reads version "
            f"{VERSION}: bring both sites to the same llm-router"
        )
    listed = index.get("models")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_MODELS:
        raise BadBundle(f"{INDEX} names no models, or more than {_MAX_MODELS}")
    try:
        models = tuple(_model(document, now) for document in listed)
    except names.InvalidName as error:
        raise BadBundle(f"{INDEX}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadBundle(f"{INDEX} lacks something or has it in another form: {error!r}") from None
    if len({model.name for model in models}) != len(models):
        raise BadBundle(f"{INDEX} names a model twice")
    contents(models)
    return models


def contents(models: Sequence[Model]) -> dict[str, int]:
    """Size by digest of every content, in the order in which a bundle holds them.

    Raises `BadBundle` when one digest has two sizes.
    """
    found: dict[str, int] = {}
    for model in models:
        for file in model.manifest.files:
            if file.sha256 is None:
                raise BadBundle(f'"{file.path}" of "{model.name}" has no digest')
            if found.setdefault(file.sha256, file.size_bytes) != file.size_bytes:
                raise BadBundle(f"{file.sha256} has two sizes")
    return found


def _model(document: Mapping[str, Any], now: datetime) -> Model:
    manifest = _manifest(document["manifest"])
    if document["name"] != manifest.model_name:
        raise names.InvalidName(f'"{manifest.model_name}" has another name than its manifest')
    memory = document["required_memory_bytes"]
    return Model(
        name=manifest.model_name,
        display_name=_display_name(document["display_name"]),
        status=ModelStatus.REGISTERED,
        manifest=manifest,
        required_memory_bytes=None if memory is None else _size(memory),
        chat_template=_optional_text(document["chat_template"]),
        facts=_facts(document["facts"]),
        created_at=now,
    )


def _manifest(document: Mapping[str, Any]) -> Manifest:
    files = tuple(
        ModelFile(
            names.file_path(_text(file["path"])),
            _size(file["size_bytes"]),
            names.sha256(_text(file["sha256"])),
            FileRole(file["role"]),
        )
        for file in document["files"]
    )
    if not files or len({file.path for file in files}) != len(files):
        raise names.InvalidName("a manifest names no file, or one twice")
    quantization = _text(document["quantization"])
    repo = names.repo_id(_text(document["repo"]))
    manifest = Manifest.pin(
        model_name=names.model_name(repo, files[0].path),
        repo=repo,
        revision=names.revision(_text(document["revision"])),
        commit=names.commit(_text(document["commit"])),
        quantization=quantization and names.quantization(quantization),
        files=files,
    )
    if manifest.format != "gguf":
        raise names.InvalidName(f'"{manifest.model_name}" is not GGUF')
    if document["manifest_id"] != manifest.manifest_id:
        raise names.InvalidName(f'the manifest of "{manifest.model_name}" was altered')
    if document["model_name"] != manifest.model_name:
        raise names.InvalidName(f'"{manifest.model_name}" is not what its manifest calls it')
    return manifest


def _facts(document: Mapping[str, Any] | None) -> GgufFacts | None:
    if document is None:
        return None
    for key, value in document.items():
        if isinstance(value, str) and key in _TEXT_FACTS:
            _text(value)
        elif value is not None and (key in _TEXT_FACTS or not 0 <= _size(value) <= _most(key)):
            raise ValueError(f"facts: {key}")
    return GgufFacts(**document)


def _most(fact: str) -> int:
    return _MAX_FILE_BYTES if fact in _WIDE_FACTS else _MAX_COUNT


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_FILE_BYTES:
        raise ValueError(f"{value!r} is not a size in bytes")
    return value


def _display_name(value: object) -> str:
    text = _text(value)
    if len(text) > _MAX_NAME or not text.isprintable():
        raise ValueError("a display name is short and printable")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError("a text is expected")
    value.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)
