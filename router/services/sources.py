"""Where the bytes of registered models can be read now, and bringing them near when they cannot."""

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from protos import tickets
from router.domain.blobs import BlobReader, KeptBlobs, KeptFile
from router.domain.errors import InsufficientDisk, NoNodes, Unavailable
from router.domain.models import Model
from router.domain.orders import OrderTarget
from router.domain.plans import Verdict
from router.domain.ports import Clock, Store
from router.domain.reach import Reach
from router.domain.tasks import ENDED, Task, TaskState
from router.services.board import Board
from router.services.orders import Orders
from router.services.plans import Plans
from router.services.presence import Presence

_PRIORITY = 100
_LOOKED_AT = 100  # newest tasks of a model
_AFTER_FAILURE_SECONDS = 60.0
_UNDER_WAY = frozenset({TaskState.DOWNLOADING, TaskState.VERIFYING, TaskState.COMPLETED})


class NotBrought(Unavailable):
    """The node that was to bring a file failed to."""

    reason = "NOT_BROUGHT"


@dataclass(frozen=True, slots=True)
class Place:
    """A node that has a content, or is fetching it: URLs with a ticket, the likeliest first."""

    node_id: str
    urls: tuple[str, ...]


class Sources:
    """Finds contents by their digest. Blocking; safe from any thread."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        orders: Orders,
        presence: Presence,
        board: Board,
        kept: KeptBlobs,
        reader: BlobReader,
        key: bytes,
        clock: Clock,
    ) -> None:
        """`key` is what nodes' tickets are signed with."""
        self._store = store
        self._plans = plans
        self._orders = orders
        self._presence = presence
        self._board = board
        self._kept = kept
        self._reader = reader
        self._key = key
        self._clock = clock
        self._turn = itertools.count()

    def kept(self, sha256: str) -> KeptFile | None:
        """The router's own copy."""
        return self._kept.find(sha256)

    def holders(self, sha256: str, client: str) -> list[Place]:
        """The online nodes that hold a content, verified: for whoever calls from the host `client`.

        Those closest to it come first; equally close ones take turns.
        """
        holding = [
            node_id
            for node_id, inventory in self._presence.inventories().items()
            if any(file.sha256 == sha256 for file in inventory.files)
        ]
        turn = next(self._turn)
        if holding:
            turn %= len(holding)
            holding = holding[turn:] + holding[:turn]
        places = [self._place(node_id, sha256, client) for node_id in holding]
        found = [(distance, place) for distance, place in places if place.urls]
        return [place for _, place in sorted(found, key=lambda item: item[0])]

    def bring(self, model: Model) -> str:
        """Sees to it that one node fetches a model; the id of its task.

        One that is under way is taken; who asks at the same moment gets the same. Raises
        `NoNodes`, `InsufficientDisk`, `NotBrought` for a while after a failure.
        """
        with self._store.transaction():
            tasks = self._store.tasks(model_name=model.name, limit=_LOOKED_AT)
            running = [task for task in tasks if self._may_bring(task)]
            if running:
                return max(running, key=lambda task: task.state in _UNDER_WAY).task_id
            newest = tasks[0] if tasks else None
            if newest is not None and newest.state is TaskState.FAILED and newest.ended_at:
                ago = (self._clock() - newest.ended_at).total_seconds()
                if ago < _AFTER_FAILURE_SECONDS and newest.failure is not None:
                    raise NotBrought(
                        f'a node tried to fetch "{model.name}" and failed: '
                        f"{newest.failure.message}",
                        retry_after=_AFTER_FAILURE_SECONDS - ago,
                    )
            node_id = self._roomiest(model)
            order = self._orders.start(
                model.name, OrderTarget.SPECIFIC, [node_id], priority=_PRIORITY
            )
        return order.tasks[0].task.task_id

    def arriving(self, task_id: str, sha256: str, client: str) -> Place | None:
        """Where a content can be read while its node fetches it; None: it has not begun.

        Asks the node. Raises `NotBrought` when the task has ended without it.
        """
        task = self._board.task(task_id) or self._store.task(task_id)
        if task is None or (task.ended and task.state is not TaskState.COMPLETED):
            failure = task.failure if task is not None else None
            why = failure.message if failure is not None else "the task was cancelled"
            raise NotBrought(f"a node tried to fetch it and failed: {why}", retry_after=30)
        if task.state not in _UNDER_WAY:
            return None
        _, place = self._place(task.node_id, sha256, client)
        waiting = Place(place.node_id, tuple(f"{url}&wait=1" for url in place.urls))
        _, own = self._place(task.node_id, sha256, "127.0.0.1")
        there = self._reader.answers([f"{url}&wait=1" for url in own.urls])
        return waiting if there and waiting.urls else None

    def _may_bring(self, task: Task) -> bool:
        return (
            task.state not in ENDED
            and task.state is not TaskState.PAUSED
            and bool(self._presence.addresses(task.node_id))
        )

    def _roomiest(self, model: Model) -> str:
        """The online node with the most room to spare among those where the model fits."""
        reachable = [node for node in self._store.nodes() if self._presence.addresses(node.node_id)]
        if not reachable:
            raise NoNodes(
                "no node that could fetch and serve it is online: start llm-router-agent on one",
                retry_after=30,
            )
        plan = self._plans.of(model, reachable)
        fitting = [node for node in plan.nodes if node.verdict is not Verdict.REFUSED]
        if not fitting:
            raise InsufficientDisk(
                f'no node that is online has room for "{model.name}" '
                f"({model.manifest.total_bytes} bytes)"
            )
        return max(fitting, key=lambda node: node.free_bytes - node.needed_bytes).node_id

    def _place(self, node_id: str, sha256: str, client: str) -> tuple[int, Place]:
        """How far a node is from a client, and where the client finds it."""
        reach = self._presence.reach(node_id)
        found = addresses_for(reach, client)
        expires = int(self._clock().timestamp()) + tickets.TICKET_SECONDS
        query = tickets.ticket_query(self._key, sha256, expires)
        urls = tuple(f"http://{address}/blobs/{sha256}?{query}" for _, address in found)
        return found[0][0] if found else _FAR, Place(node_id, urls)


_SAME_HOST, _SAME_NET, _SAME_FAMILY, _FAR = range(4)


def addresses_for(reach: Reach, client: str) -> Sequence[tuple[int, str]]:
    """The addresses of a node that a client may reach, each with its distance, nearest first.

    `client` is the host that its request comes from, as the router sees it.
    """
    own = _ip(client)
    here = own is not None and own.is_loopback
    seen = Reach(seen="loopback" if here else str(own or ""))
    found = [
        (_distance(address, own), address)
        for address in reach.addresses_for(seen)
        if here or not _is_loopback(address)
    ]
    return sorted(found, key=lambda item: item[0])


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _is_loopback(address: str) -> bool:
    there = _ip(_host(address))
    return _host(address) == "localhost" if there is None else there.is_loopback


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _distance(address: str, client: _Ip | None) -> int:
    there = _ip(_host(address))
    if there is None or client is None or there.version != client.version:
        return _FAR
    if there == client or (there.is_loopback and client.is_loopback):
        return _SAME_HOST
    prefix = 24 if there.version == 4 else 64
    net = ipaddress.ip_network((there, prefix), strict=False)
    return _SAME_NET if client in net else _SAME_FAMILY


def _ip(text: str) -> _Ip | None:
    try:
        host = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host
