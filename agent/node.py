"""The node's side of the conversation with the router, and what it remembers of it."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from agent import ledger
from agent.assignment import is_outdated
from agent.connection import Outbox
from agent.host import Disk
from agent.inventory import Inventory
from agent.ledger import Remembered
from agent.manifest import Manifest
from agent.runner import Runner
from agent.swarm import SwarmDesk
from agent.transfer import RateLimit
from agent.urls import UrlDesk
from agent.wire import assignment_from_pb, inventory_to_pb, task_to_pb
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2

log = get_logger(__name__)

LEDGER_FILE = "ledger.json"
_SHORTEST_INTERVAL = 0.05
_USUAL_HEARTBEAT = 10.0
_USUAL_REPORT = 1.0


class Node:
    """Obeys assignments, reports, and keeps the ledger. All in the event loop."""

    def __init__(
        self,
        data_dir: Path,
        hello: Callable[[], agent_pb2.Hello],
        disk: Callable[[], Disk],
        desk: UrlDesk,
        hub_rate: RateLimit | None = None,
        swarm: SwarmDesk | None = None,
    ) -> None:
        """`hub_rate` is what downloads from the Hub obey; it follows the router's LineShare.

        `swarm` hears what the router says of pieces; None: this node shares nothing.
        """
        self._ledger = data_dir / LEDGER_FILE
        self._hello = hello
        self._disk = disk
        self._desk = desk
        desk.asked = self._put_questions
        self._swarm = swarm
        self._remembered = ledger.read(self._ledger)
        self._hub_rate = hub_rate or RateLimit()
        self._hub_rate.change(self._remembered.max_hub_rate)
        self._unsaved = asyncio.Event()
        self._changed = asyncio.Event()
        self._outbox: Outbox | None = None
        self._welcome = agent_pb2.Welcome()
        self._runner: Runner | None = None
        self._inventory: Inventory | None = None

    # What runner and inventory tell

    def changed(self) -> None:
        """See `Listener`: the router is told at once."""
        self._changed.set()

    def inventory_changed(self) -> None:
        """The node holds something else than before."""
        if self._outbox is not None:
            self._outbox.put("inventory", self._make_inventory)

    def stored(self, manifest: Manifest) -> None:
        """See `Listener`."""
        others = tuple(m for m in self._remembered.models if not _same(m, manifest))
        self._remember(dataclasses.replace(self._remembered, models=(*others, manifest)))
        self._look_again()

    def removed(self, manifest: Manifest) -> None:
        """See `Listener`."""
        others = tuple(m for m in self._remembered.models if not _same(m, manifest))
        self._remember(dataclasses.replace(self._remembered, models=others))
        self._look_again()

    def discarded(self, manifests: Iterable[Manifest]) -> None:
        """See `Listener`."""
        gone = set(manifests)
        left = tuple(m for m in self._remembered.leftovers if m not in gone)
        self._remember(dataclasses.replace(self._remembered, leftovers=left))

    @property
    def models(self) -> tuple[Manifest, ...]:
        """The models that were brought here and not evicted; from any thread."""
        return self._remembered.models

    @property
    def peer_key(self) -> bytes:
        """What nodes of this fleet sign requests with, empty until it is told; any thread."""
        return self._welcome.peer_key

    @property
    def router_http_port(self) -> int:
        """Where the router serves files, 0 until it is told; from any thread."""
        return self._welcome.http_port

    def wanted(self) -> tuple[Manifest, ...]:
        """The models that were brought here, or are to be; from any thread."""
        now = self._remembered
        assignment = assignment_from_pb(now.assignment, now.assignment_epoch)
        return (*now.models, *assignment.wanted_partials)

    # Life

    def follow(self, runner: Runner, inventory: Inventory) -> None:
        """Goes on with the last assignment; the router need not be there."""
        self._runner = runner
        self._inventory = inventory
        before = self._remembered
        if before.assignment.revision:
            log.info("going on with the last assignment", revision=before.assignment.revision)
        runner.assign(
            assignment_from_pb(before.assignment, before.assignment_epoch), may_remove=False
        )

    async def keep_ledger(self) -> None:
        """Writes the ledger after each change, until cancelled."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await asyncio.to_thread(self.save)

    def save(self) -> None:
        """Writes the ledger now; from any thread, but one at a time."""
        try:
            ledger.write(self._ledger, self._remembered)
        except OSError as error:
            log.error("the ledger cannot be written", cause=str(error))

    # The dialogue

    def hello(self) -> agent_pb2.Hello:
        """See `Dialogue`."""
        return self._hello()

    def begin(self, welcome: agent_pb2.Welcome, outbox: Outbox) -> None:
        """See `Dialogue`."""
        self._welcome = welcome
        self._outbox = outbox
        # A router from before the swarm has no key, and ends a stream with words that it lacks.
        if self._swarm is not None and welcome.peer_key:
            self._swarm.begin(outbox)
        if welcome.epoch < self._remembered.epoch:
            log.error(
                "this router is older than one that this node has followed; nothing is removed "
                "for it. If it is the right one, stop this agent and remove its ledger",
                epoch=welcome.epoch,
                newest_epoch=self._remembered.epoch,
                ledger=str(self._ledger),
            )

    async def converse(self) -> None:
        """See `Dialogue`: says what this node holds and does, then goes on telling."""
        outbox = self._outbox
        if outbox is None:
            return
        try:
            self._put_questions()
            self.inventory_changed()
            await self._report_regularly(
                outbox,
                heartbeat=_seconds(self._welcome.heartbeat_interval, _USUAL_HEARTBEAT),
                while_busy=_seconds(self._welcome.report_interval, _USUAL_REPORT),
            )
        finally:
            self._outbox = None
            if self._swarm is not None:
                self._swarm.end()

    async def obey(self, command: agent_pb2.ConnectResponse) -> None:
        """See `Dialogue`."""
        match command.WhichOneof("command"):
            case "assignment":
                self._take_in(command.assignment)
            case "line_share":
                self._follow_share(command.line_share)
            case "file_url_result":
                self._desk.answered(command.file_url_result)
            case "piece_grants" if self._swarm is not None:
                self._swarm.obey_grants(command.piece_grants)
            case "digest_request" if self._swarm is not None:
                self._swarm.obey_digest_request(command.digest_request)
            case other:
                log.warning("a command that this agent does not know", command=other)

    def _take_in(self, message: agent_pb2.Assignment) -> None:
        before = self._remembered
        epoch = self._welcome.epoch
        current = assignment_from_pb(before.assignment, before.assignment_epoch)
        incoming = assignment_from_pb(message, epoch)
        if is_outdated(incoming, current):
            log.info("an outdated assignment is ignored", revision=message.revision)
            return
        wanted = set(incoming.wanted_partials)
        known = dict.fromkeys((*before.leftovers, *current.wanted_partials))
        leftovers = tuple(manifest for manifest in known if manifest not in wanted)
        may_remove = epoch >= before.epoch
        self._remember(
            dataclasses.replace(
                before,
                epoch=max(epoch, before.epoch),
                assignment_epoch=epoch,
                assignment=message,
                leftovers=leftovers,
            )
        )
        for task in incoming.refused:
            log.warning("a malformed task is refused", task_id=task.task_id, cause=task.reason)
        if self._runner is not None:
            self._runner.assign(
                incoming,
                may_remove=may_remove,
                leftovers=leftovers if incoming.keep_partials_known else (),
                in_use=self._models_beside,
            )

    def _follow_share(self, message: agent_pb2.LineShare) -> None:
        """Holds until another comes, over a restart too; the router hears at once that it does."""
        share = None
        if message.HasField("max_hub_rate_bytes_per_second"):
            share = max(1, message.max_hub_rate_bytes_per_second)
        self._hub_rate.change(share)
        self._remember(dataclasses.replace(self._remembered, max_hub_rate=share))
        self._changed.set()

    def _models_beside(self, evicted: Manifest) -> list[Manifest]:
        return [model for model in self._remembered.models if not _same(model, evicted)]

    # Telling

    async def _report_regularly(
        self, outbox: Outbox, *, heartbeat: float, while_busy: float
    ) -> None:
        while True:
            self._changed.clear()
            outbox.put("report", self._make_report)
            busy = self._runner is not None and self._runner.is_busy
            try:
                async with asyncio.timeout(min(heartbeat, while_busy) if busy else heartbeat):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _make_report(self) -> agent_pb2.ConnectRequest | None:
        if self._runner is None:
            return None
        disk = self._disk()
        return agent_pb2.ConnectRequest(
            report=agent_pb2.Report(
                tasks=[task_to_pb(status) for status in self._runner.statuses()],
                disk_free_bytes=disk.free_bytes,
                disk_total_bytes=disk.total_bytes,
                assignment_revision=self._remembered.assignment.revision,
                done_eviction_ids=self._runner.done_evictions,
                max_hub_rate_bytes_per_second=self._hub_rate.bytes_per_second,
                held_back=self._hub_rate.held_back(),
            )
        )

    def _make_inventory(self) -> agent_pb2.ConnectRequest | None:
        if self._inventory is None or self._inventory.holdings is None:
            return None
        holdings = self._inventory.holdings
        if self._swarm is not None:
            self._swarm.told_inventory(held.sha256 for held in holdings.held)
        return agent_pb2.ConnectRequest(inventory=inventory_to_pb(holdings))

    def _put_questions(self) -> None:
        if self._outbox is None:
            return
        for question in self._desk.open_questions:
            request = agent_pb2.ConnectRequest(file_url_request=question)
            self._outbox.put(f"url {question.request_id}", partial(_unchanged, request))

    # Remembering

    def _remember(self, remembered: Remembered) -> None:
        if remembered != self._remembered:
            self._remembered = remembered
            self._unsaved.set()

    def _look_again(self) -> None:
        if self._inventory is not None:
            self._inventory.forget()


def _unchanged(request: agent_pb2.ConnectRequest) -> agent_pb2.ConnectRequest:
    return request


def _same(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests show the same files in the cache."""
    return (one.repo, one.commit) == (other.repo, other.commit) and {
        file.path for file in one.files
    } == {file.path for file in other.files}


def _seconds(span: Duration, usual: float) -> float:
    """An interval that the router chose, within reason."""
    seconds = span.ToNanoseconds() / 1e9
    return max(seconds, _SHORTEST_INTERVAL) if seconds > 0 else usual
