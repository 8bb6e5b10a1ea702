"""What an operator should know about a model; none of it forbids anything."""

from collections.abc import Callable

from protos.units import size
from router.domain.catalog import CatalogRepo, FileRole, Gating
from router.domain.models import Model
from router.domain.nodes import Node
from router.domain.ports import Store
from router.services.presence import Presence

_LARGE_BYTES = 50_000_000_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# The Hub's names (https://huggingface.co/docs/hub/repositories-licenses) of licences that ask for
# nothing beyond naming the author.
_FREE_LICENSES = frozenset(
    {
        "0bsd",
        "afl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "bsl-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc0-1.0",
        "ecl-2.0",
        "isc",
        "mit",
        "mpl-2.0",
        "ms-pl",
        "ncsa",
        "pddl",
        "postgresql",
        "unlicense",
        "wtfpl",
        "zlib",
    }
)
_GATES = {
    Gating.AUTO: "is gated: access is granted when it is asked for",
    Gating.MANUAL: "is gated: its owner grants access",
}


class Warnings:
    """Looks at a model and at the fleet."""

    def __init__(self, store: Store, presence: Presence) -> None:
        """The nodes are those of `store`."""
        self._store = store
        self._presence = presence

    def about(self, repo: CatalogRepo, model: Model) -> list[str]:
        """Sentences about a model that was just pinned from `repo`."""
        nodes = self._store.nodes()
        texts = [self._disk(nodes, model), _memory(nodes, model)]
        texts += [rule(repo, model) for rule in _RULES]
        return [text for text in texts if text]

    def _disk(self, nodes: list[Node], model: Model) -> str:
        if not nodes:
            return ""
        online = [node for node in nodes if self._presence.online(node.node_id)]
        if not online:
            return "no node is online: whether one has the disk for it is not known"
        best = max(online, key=_room)
        needed = model.manifest.total_bytes
        if _room(best) >= needed:
            return ""
        return (
            f"no online node has {size(needed)} of free disk for it: "
            f'the most is {size(max(_room(best), 0))}, on "{best.name}"'
        )


def _room(node: Node) -> int:
    return node.disk_free_bytes - node.settings.reserve


def _memory(nodes: list[Node], model: Model) -> str:
    needed = model.required_memory_bytes or 0
    if not nodes or max(map(_most_memory, nodes)) >= needed:
        return ""
    best = max(nodes, key=_most_memory)
    return (
        f"no node has the {size(needed)} of memory or GPU memory that it is estimated to "
        f'need: the most is {size(_most_memory(best))}, on "{best.name}"'
    )


def _most_memory(node: Node) -> int:
    """The larger of the machine's memory and that of its graphics processors together."""
    return max(node.memory_bytes, sum(gpu.memory_bytes for gpu in node.gpus))


def _large(_: CatalogRepo, model: Model) -> str:
    total = model.manifest.total_bytes
    return f"it is large: {size(total)}" if total > _LARGE_BYTES else ""


def _license(repo: CatalogRepo, model: Model) -> str:
    named = repo.license or (model.facts.license if model.facts else None) or ""
    if not named or named.lower() in _FREE_LICENSES:
        return ""
    return f'its licence, "{named[:100]}", has terms of its own: read them before you use it'


def _gate(repo: CatalogRepo, _: Model) -> str:
    if repo.gating is Gating.OPEN and not repo.private:
        return ""
    gate = _GATES.get(repo.gating, "is private")
    return f'repository "{repo.repo}" {gate}; the nodes fetch it by way of the router\'s token'


def _header(_: CatalogRepo, model: Model) -> str:
    if not _is_gguf(model) or model.facts is not None:
        return ""
    return "its GGUF header could not be read: the memory it needs is estimated from its size"


def _digests(_: CatalogRepo, model: Model) -> str:
    files = model.manifest.files if _is_gguf(model) else ()
    unknown = [file.path for file in files if file.sha256 is None]
    if not unknown:
        return ""
    return (
        f'the Hub tells no SHA-256 of "{unknown[0]}"'
        + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        + ": the first verified download fixes it"
    )


def _pickles(_: CatalogRepo, model: Model) -> str:
    found = [file.path for file in model.manifest.files if file.path.endswith(_PICKLES)]
    if not found:
        return ""
    return f'"{found[0]}" is a Python pickle, which can run code when it is converted'


def _is_gguf(model: Model) -> bool:
    return model.manifest.files[0].role is FileRole.MODEL


_RULES: tuple[Callable[[CatalogRepo, Model], str], ...] = (
    _large,
    _license,
    _gate,
    _header,
    _digests,
    _pickles,
)
