"""What the router wants from this node, as values that were checked once more."""

from dataclasses import dataclass

from agent.manifest import Manifest


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """One try of one task: bring these files here, or keep still while `paused` or on `hold`."""

    task_id: str
    attempt: int
    manifest: Manifest
    paused: bool = False
    priority: int = 0  # the larger goes first; of two equal ones, the one listed first
    hold: str = ""  # what it waits for, for a person; "": nothing

    @property
    def may_run(self) -> bool:
        """Whether bytes may flow for it now."""
        return not self.paused and not self.hold


@dataclass(frozen=True, slots=True)
class RefusedTask:
    """A task that this node will not touch, because what it was told about it is malformed."""

    task_id: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class EvictionOrder:
    """Files to remove."""

    eviction_id: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything that this node should be doing and holding; what is not in it, is not to be done.

    `epoch` is the router's, which grows with each of its starts. `keep_partials_known` is false
    when some entry of the message was malformed, so that nobody can say which partial files are
    still wanted.
    """

    epoch: int = 0
    revision: int = 0
    tasks: tuple[TaskOrder, ...] = ()
    refused: tuple[RefusedTask, ...] = ()
    evictions: tuple[EvictionOrder, ...] = ()
    keep_partials: tuple[Manifest, ...] = ()
    keep_partials_known: bool = True
    max_rate: int | None = None  # bytes per second; 0: no limit; None: the agent's own flag
    max_upload_rate: int | None = None  # the same, for bytes to other nodes

    @property
    def wanted_partials(self) -> tuple[Manifest, ...]:
        """The manifests whose partial files stay."""
        return (*(task.manifest for task in self.tasks), *self.keep_partials)


def is_outdated(incoming: Assignment, current: Assignment) -> bool:
    """Whether `incoming` was overtaken by what this node already follows.

    Revisions are compared within one start of the router only. An assignment of another start
    always counts: it came over a newer stream.
    """
    return incoming.epoch == current.epoch and incoming.revision < current.revision
