"""What an order would do on each node, and what of it would cross the line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from protos import names
from protos.units import size
from router.domain.catalog import ModelFile
from router.domain.errors import InvalidTarget, NoNodes, PendingConversion
from router.domain.models import Model, ModelStatus
from router.domain.nodes import Node
from router.domain.orders import OrderTarget, fits
from router.domain.plans import NodePlan, Plan, Verdict, plan_id
from router.domain.ports import Store
from router.services.board import Board
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.presence import Presence
from router.services.rates import Rates

_NO_LABELS: Mapping[str, str] = {}


class Plans:
    """Looks ahead; changes nothing."""

    def __init__(
        self,
        store: Store,
        models: Models,
        nodes: Nodes,
        presence: Presence,
        board: Board,
        rates: Rates,
    ) -> None:
        """Knows what is where from `presence` and `board`."""
        self._store = store
        self._models = models
        self._nodes = nodes
        self._presence = presence
        self._board = board
        self._rates = rates

    def plan(
        self,
        reference: str,
        target: OrderTarget,
        node_ids: Sequence[str] = (),
        labels: Mapping[str, str] = _NO_LABELS,
    ) -> Plan:
        """What an order would mean on each node.

        Raises `ModelNotFound`, `PendingConversion`, `InvalidTarget`, `NodeNotFound`, `NoNodes`.
        """
        model = self.orderable(reference)
        return self.of(model, self.targets(target, node_ids, labels))

    def of(self, model: Model, nodes: Sequence[Node]) -> Plan:
        """What an order of this model for these nodes would mean."""
        ready = self._ready_nodes(model)
        sites = self._sites(model, {node.node_id for node in nodes})
        plans = []
        for node in nodes:
            plan = self._of_node(model, node, ready)
            if plan.verdict is not Verdict.READY:
                plan = self._sourced(model, node, plan, sites.setdefault(node.site, set()))
            plans.append(plan)
        spans = [plan.expected_seconds for plan in plans if plan.verdict is Verdict.FITS]
        known = [span for span in spans if span is not None]
        return Plan(
            model.name,
            sum(plan.hub_bytes for plan in plans if plan.verdict is Verdict.FITS),
            tuple(plans),
            plan_id(model.name, model.manifest.manifest_id, plans),
            max(known) if known and len(known) == len(spans) else None,
        )

    def refusals(self, model: Model, nodes: Iterable[Node]) -> list[NodePlan]:
        """Why no node can take the model, of each node; [] as soon as one can."""
        ready = self._ready_nodes(model)
        refused = []
        for node in nodes:
            plan = self._of_node(model, node, ready)
            if plan.verdict is not Verdict.REFUSED:
                return []
            refused.append(plan)
        return refused

    def orderable(self, reference: str) -> Model:
        """The model that is named, if nodes can hold it. Raises as `plan` does."""
        model = self._models.resolve(reference)
        if model.status is not ModelStatus.REGISTERED:
            raise PendingConversion(
                f'model "{model.name}" is not GGUF ({model.status}): '
                "it can be ordered once it is converted",
                param="model_name",
            )
        return model

    def targets(
        self,
        target: OrderTarget,
        node_ids: Sequence[str] = (),
        labels: Mapping[str, str] = _NO_LABELS,
        *,
        follow: bool = False,
    ) -> list[Node]:
        """The nodes that are meant; with `follow` there need not be one yet. Raises as `plan`."""
        if node_ids and target is not OrderTarget.SPECIFIC:
            raise InvalidTarget(f'target "{target}" takes no node ids', param="node_ids")
        if labels and target is not OrderTarget.LABELS:
            raise InvalidTarget(f'target "{target}" takes no labels', param="labels")
        if target is OrderTarget.SPECIFIC:
            if not node_ids:
                raise InvalidTarget(
                    'target "specific" needs node_ids: name at least one node', param="node_ids"
                )
            found = {node.node_id: node for node in map(self._nodes.resolve, node_ids)}
            return list(found.values())
        nodes = self._store.nodes()
        if target is OrderTarget.LABELS:
            _check_selector(labels)
            nodes = [node for node in nodes if fits(node.effective_labels, labels)]
        if not nodes and not follow:
            raise NoNodes(_nobody(labels))
        return nodes

    def _ready_nodes(self, model: Model) -> set[str]:
        held = self._store.holdings(model_name=model.name)
        return {node_id for _, node_id, verified_at in held if verified_at is not None}

    def _of_node(self, model: Model, node: Node, ready_nodes: set[str]) -> NodePlan:
        ready = node.node_id in ready_nodes
        files = [] if ready else self._missing(model, node)
        missing = sum(file.size_bytes for file in files)
        brought = self._brought(model, node)
        needed = max(0, min(missing, model.manifest.total_bytes - brought))
        free = node.disk_free_bytes
        room = free - node.settings.reserve - self._promised(node.node_id, model.name)
        verdict, reason = Verdict.FITS, ""
        if ready:
            verdict, reason = Verdict.READY, "it holds the model, verified"
        elif needed > room:
            verdict = Verdict.REFUSED
            reason = f"insufficient_disk: it needs {needed} bytes and has {max(room, 0)} to spare"
        memory = max(node.memory_bytes, sum(gpu.memory_bytes for gpu in node.gpus))
        required = model.required_memory_bytes or 0
        warnings = []
        if not self._presence.online(node.node_id):
            warnings.append("it is offline: the task waits until it is back")
        if memory < required:
            warnings.append(
                f"it has {size(memory)} of memory; the model is estimated to need {size(required)}"
            )
        return NodePlan(
            node_id=node.node_id,
            node_name=node.name,
            verdict=verdict,
            reason=reason,
            needed_bytes=needed,
            free_bytes=free,
            source="",
            warnings=tuple(warnings),
            missing_bytes=missing,
            required_memory_bytes=required,
            fits_memory=memory >= required,
        )

    def _sourced(self, model: Model, node: Node, plan: NodePlan, site: set[str]) -> NodePlan:
        """The plan with where the needed bytes come from.

        `site` are the digests that some node there has, or will have: also of what this one brings.
        """
        brought = plan.missing_bytes - plan.needed_bytes
        hub = peers = 0
        for file in self._missing(model, node):
            there = min(brought, file.size_bytes)
            brought -= there
            if file.sha256 in site:
                peers += file.size_bytes - there
            else:
                hub += file.size_bytes - there
            # Without a digest nobody can check what a peer sends.
            if file.sha256 is not None and plan.verdict is Verdict.FITS:
                site.add(file.sha256)
        rate = self._rates.expected(node)
        return replace(
            plan,
            hub_bytes=hub,
            peer_bytes=peers,
            source="hub" if hub else "peers" if peers else "disk",
            expected_seconds=(
                0.0 if not hub + peers else (hub + peers) / rate if rate is not None else None
            ),
        )

    def _missing(self, model: Model, node: Node) -> list[ModelFile]:
        """The files of the model that the node holds under no name."""
        inventory = self._presence.inventory(node.node_id)
        held = {file.sha256 for file in inventory.files} if inventory else set()
        return [file for file in model.manifest.files if file.sha256 not in held]

    def _brought(self, model: Model, node: Node) -> int:
        """What an unfinished task has brought so far, of all files."""
        done = [
            task.progress.bytes_done
            for task in self._board.of_node(node.node_id)
            if task.model_name == model.name
        ]
        return max(done, default=0)

    def _promised(self, node_id: str, model_name: str) -> int:
        """Bytes that the node's unfinished tasks for other models will still take."""
        return sum(
            task.bytes_total - task.progress.bytes_done
            for task in self._board.of_node(node_id)
            if task.model_name != model_name
        )

    def _sites(self, model: Model, targets: set[str]) -> dict[str, set[str]]:
        """What each site has, or is fetching already on a node that the plan is not about."""
        nodes = {node.node_id: node for node in self._store.nodes()}
        digests = {file.sha256 for file in model.manifest.files if file.sha256 is not None}
        sites: dict[str, set[str]] = {}
        for node_id, inventory in self._presence.inventories().items():
            if node_id in nodes:
                held = digests & {file.sha256 for file in inventory.files}
                sites.setdefault(nodes[node_id].site, set()).update(held)
        for task in self._board.tasks():
            fetched = task.model_name == model.name and self._presence.online(task.node_id)
            if fetched and task.node_id in nodes and task.node_id not in targets:
                sites.setdefault(nodes[task.node_id].site, set()).update(digests)
        return sites


def _check_selector(labels: Mapping[str, str]) -> None:
    if not labels:
        raise InvalidTarget('target "labels" needs labels: name at least one', param="labels")
    try:
        for key, value in labels.items():
            names.label(key, value)
    except names.InvalidName as error:
        raise InvalidTarget(str(error), param="labels") from None


def _nobody(labels: Mapping[str, str]) -> str:
    if labels:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        return f"no node has {wanted}: set labels on a node, or follow, so that later ones get it"
    return "no node is known yet: start llm-router-agent on a machine"
