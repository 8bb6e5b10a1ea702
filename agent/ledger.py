"""What an agent must remember over its own death, in one JSON file of its data folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from agent.durable import write_durably
from agent.manifest import Manifest
from agent.wire import manifest_from_pb, manifest_to_pb
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2, common_pb2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last assignment, and what follows from those before it.

    `leftovers` are manifests whose partial files may still be on disk though no assignment wants
    them; `models` are those that were completed here and not evicted. Only what this agent began
    is ever removed: other programs, and other agents, may share the models folder.
    """

    epoch: int = 0  # the largest of any router that this node has followed
    assignment_epoch: int = 0
    assignment: agent_pb2.Assignment = field(default_factory=agent_pb2.Assignment)
    leftovers: tuple[Manifest, ...] = ()
    models: tuple[Manifest, ...] = ()
    max_hub_rate: int | None = None  # the node's share of the line to the Hub; None: no limit


def read(path: Path) -> Remembered:
    """What was written last; nothing when there is no file or it is damaged. Raises `OSError`.

    Losing it loses no model: the router sends the assignment again.
    """
    try:
        content = json.loads(path.read_bytes())
        message = agent_pb2.Assignment()
        json_format.ParseDict(content["assignment"], message)
        return Remembered(
            epoch=int(content["epoch"]),
            assignment_epoch=int(content["assignment_epoch"]),
            assignment=message,
            leftovers=_manifests(content["leftovers"]),
            models=_manifests(content["models"]),
            max_hub_rate=_rate(content.get("max_hub_rate")),
        )
    except FileNotFoundError:
        return Remembered()
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        log.error(
            "the ledger is damaged; the router is asked again", file=str(path), cause=str(error)
        )
        return Remembered()


def write(path: Path, remembered: Remembered) -> None:
    """Replaces what was written before; durable when it returns. Raises `OSError`."""
    content = {
        "epoch": remembered.epoch,
        "assignment_epoch": remembered.assignment_epoch,
        "assignment": json_format.MessageToDict(remembered.assignment),
        "leftovers": [json_format.MessageToDict(manifest_to_pb(m)) for m in remembered.leftovers],
        "models": [json_format.MessageToDict(manifest_to_pb(m)) for m in remembered.models],
        "max_hub_rate": remembered.max_hub_rate,
    }
    write_durably(path, json.dumps(content).encode())


def _rate(value: Any) -> int | None:
    return None if value is None else max(1, int(value))


def _manifests(values: list[dict[str, Any]]) -> tuple[Manifest, ...]:
    return tuple(
        manifest_from_pb(json_format.ParseDict(value, common_pb2.Manifest())) for value in values
    )
