"""How values are written as JSON documents, and read back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import time
from typing import Any

from router.domain.catalog import FileRole, GgufFacts, ModelFile
from router.domain.line import TimedRate
from router.domain.models import Manifest
from router.domain.nodes import Gpu, Settings
from router.domain.orders import OrderOptions
from router.domain.rollouts import Rollout
from router.domain.tasks import Bytes, Progress, TaskFailure
from router.domain.windows import Window

Document = Mapping[str, Any]


def manifest_to(manifest: Manifest) -> Document:
    """A manifest as a document."""
    return asdict(manifest)


def manifest_from(document: Document) -> Manifest:
    """The manifest of a document."""
    files = tuple(
        ModelFile(**{**file, "role": FileRole(file["role"])}) for file in document["files"]
    )
    return Manifest(**{**document, "files": files})


def facts_to(facts: GgufFacts | None) -> Document | None:
    """Header facts as a document."""
    return None if facts is None else asdict(facts)


def facts_from(document: Document | None) -> GgufFacts | None:
    """The header facts of a document."""
    return None if document is None else GgufFacts(**document)


def failure_to(failure: TaskFailure | None) -> Document | None:
    """A failure as a document."""
    return None if failure is None else asdict(failure)


def failure_from(document: Document | None) -> TaskFailure | None:
    """The failure of a document."""
    return None if document is None else TaskFailure(**document)


def progress_to(progress: Progress) -> Document:
    """What of a progress outlives the moment: the bytes."""
    return {"bytes_done": progress.bytes_done, "bytes_from": asdict(progress.bytes_from)}


def progress_from(document: Document) -> Progress:
    """The progress of a document."""
    return Progress(bytes_done=document["bytes_done"], bytes_from=Bytes(**document["bytes_from"]))


def options_to(options: OrderOptions) -> Document:
    """The options of an order as a document."""
    return asdict(options)


def options_from(document: Document) -> OrderOptions:
    """The options of an order of a document."""
    rollout, window = document.get("rollout"), document.get("window")
    return OrderOptions(
        follow=document.get("follow", False),
        rollout=None if rollout is None else Rollout(**rollout),
        window=None if window is None else Window(**window),
        replaces=document.get("replaces", ""),
    )


def gpus_to(gpus: tuple[Gpu, ...]) -> list[Document]:
    """Graphics processors as a document."""
    return [asdict(gpu) for gpu in gpus]


def gpus_from(document: list[Document]) -> tuple[Gpu, ...]:
    """The graphics processors of a document."""
    return tuple(Gpu(**gpu) for gpu in document)


def settings_to(settings: Settings) -> Document:
    """An agent's settings as a document."""
    return asdict(settings)


def settings_from(document: Document) -> Settings:
    """The agent's settings of a document."""
    return Settings(**document)


def timetable_to(timetable: tuple[TimedRate, ...]) -> list[Document]:
    """A timetable as a document; times of the day as HH:MM."""
    return [
        {
            "start": entry.start.isoformat("minutes"),
            "end": entry.end.isoformat("minutes"),
            "max_hub_rate": entry.max_hub_rate,
        }
        for entry in timetable
    ]


def timetable_from(document: list[Document]) -> tuple[TimedRate, ...]:
    """The timetable of a document."""
    return tuple(
        TimedRate(
            time.fromisoformat(entry["start"]),
            time.fromisoformat(entry["end"]),
            entry["max_hub_rate"],
        )
        for entry in document
    )
