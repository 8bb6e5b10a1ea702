"""Machines that hold models, and what they say of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from router.domain.models import Holding, Manifest

SITE_LABEL = "site"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One graphics processor."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What an agent's flags say: bytes per second (0: no limit), downloads at a time, bytes."""

    max_rate: int = 0
    max_upload_rate: int = 0
    max_concurrent: int = 2
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a node is; sent once for each stream."""

    node_id: str
    name: str
    version: str
    labels: Mapping[str, str]
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    disk_free_bytes: int
    disk_total_bytes: int
    settings: Settings
    instance: str
    peer_addresses: tuple[str, ...] = ()  # as it lists them
    seen_host: str = ""  # where its stream comes from


@dataclass(frozen=True, slots=True)
class Node:
    """A machine as it is kept: what it said last, and what an operator set on it."""

    node_id: str
    name: str
    version: str
    labels: Mapping[str, str]
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    disk_free_bytes: int
    disk_total_bytes: int
    settings: Settings
    created_at: datetime
    last_seen_at: datetime
    set_labels: Mapping[str, str] = field(default_factory=dict)
    set_max_rate: int | None = None
    set_max_upload_rate: int | None = None
    set_max_hub_rate: int | None = None

    @property
    def effective_labels(self) -> dict[str, str]:
        """The agent's own labels under the operator's."""
        return {**self.labels, **self.set_labels}

    @property
    def site(self) -> str:
        """The nodes of one site exchange pieces, and share a line; empty: those without a label."""
        return self.effective_labels.get(SITE_LABEL, "")

    @property
    def max_rate(self) -> int:
        """The limit that counts, in bytes per second; 0: none."""
        return self.settings.max_rate if self.set_max_rate is None else self.set_max_rate

    @property
    def max_upload_rate(self) -> int:
        """The limit to other nodes that counts, in bytes per second; 0: none."""
        own, given = self.settings.max_upload_rate, self.set_max_upload_rate
        return own if given is None else given

    @property
    def max_hub_rate(self) -> int:
        """The limit from the Hub, apart from the site's, in bytes per second; 0: none."""
        return self.set_max_hub_rate or 0


@dataclass(frozen=True, slots=True)
class RatesSet:
    """What an operator has set of the limits that a node itself obeys; None: nothing."""

    max_rate: int | None = None
    max_upload_rate: int | None = None


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it is shown."""

    node: Node
    online: bool
    holdings: tuple[Holding, ...]
    peer_addresses: tuple[str, ...] = ()  # where others reach it now


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file that a node holds, its digest checked by the node."""

    repo: str
    commit: str
    path: str
    size_bytes: int
    sha256: str
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that a node holds; `partial` while it is still verifying."""

    files: tuple[HeldFile, ...]
    partial: bool

    def verified_at(self, manifest: Manifest) -> datetime | None:
        """When the last file of the manifest was verified; None unless all are there."""
        held = {
            (file.path, file.size_bytes): file
            for file in self.files
            if file.repo == manifest.repo and file.commit == manifest.commit
        }
        found = []
        for wanted in manifest.files:
            file = held.get((wanted.path, wanted.size_bytes))
            if file is None or wanted.sha256 not in (None, file.sha256):
                return None
            found.append(file.verified_at)
        return max(found)

    def held_bytes(self, manifest: Manifest) -> int:
        """Bytes of the manifest that are there under any name: equal digests are equal bytes."""
        digests = {file.sha256 for file in self.files}
        return sum(file.size_bytes for file in manifest.files if file.sha256 in digests)


@dataclass(frozen=True, slots=True)
class Eviction:
    """An order to remove a model's files from a node; kept until the node says it is done."""

    eviction_id: str
    node_id: str
    manifest: Manifest
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TaskAssignment:
    """One unfinished task as its node is told; `hold` is what it waits for, "" when it may run."""

    task_id: str
    attempt: int
    manifest: Manifest
    paused: bool
    priority: int
    hold: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything that a node should be doing and holding."""

    revision: int
    tasks: tuple[TaskAssignment, ...]
    evictions: tuple[Eviction, ...]
    keep_partials: tuple[Manifest, ...]
    max_rate: int | None
    max_upload_rate: int | None = None
