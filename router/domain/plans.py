"""What an order would do, before it is made."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What an order would meet on a node."""

    READY = "ready"
    FITS = "fits"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What an order would mean for one node; bytes, and seconds.

    `hub_bytes` and `peer_bytes` are parts of `needed_bytes`. `missing_bytes` are those of the files
    that it lacks, whatever a task has brought of them. `source`: `hub`, `peers`, `disk` or "".
    `expected_seconds` None and `required_memory_bytes` 0: not known.
    """

    node_id: str
    node_name: str
    verdict: Verdict
    reason: str
    needed_bytes: int
    free_bytes: int
    source: str
    warnings: tuple[str, ...] = ()
    hub_bytes: int = 0
    peer_bytes: int = 0
    missing_bytes: int = 0
    expected_seconds: float | None = None
    required_memory_bytes: int = 0
    fits_memory: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What an order would mean; `line_bytes` is what the Hub would serve.

    `expected_seconds`, until the last node is done, is None when it is not known of one.
    """

    model_name: str
    line_bytes: int
    nodes: tuple[NodePlan, ...]
    plan_id: str = ""
    expected_seconds: float | None = None


def plan_id(model_name: str, manifest_id: str, nodes: Iterable[NodePlan]) -> str:
    """Names what a plan decides: the files, the nodes, their verdicts, the bytes of missing files.

    What moves by itself is not in it: how far running tasks are, free space, who is connected.
    """
    decided = [
        model_name,
        manifest_id,
        sorted([node.node_id, node.verdict.value, node.missing_bytes] for node in nodes),
    ]
    text = json.dumps(decided, separators=(",", ":"))
    return "plan-" + hashlib.sha256(text.encode()).hexdigest()[:24]
