"""A node that fetches, a Hub, other nodes that serve right or wrong, and a router with a plan."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.connection import Outbox
from agent.peers import PeerServer
from agent.store import Digests, Origin, Store
from agent.swarm import Patience, SwarmDesk
from agent.transfer import RateLimit, SourceUrl, Transfer
from protos import pieces
from protos.llmrouter.v1 import agent_pb2
from tests.agent.transfer.conftest import MIB, QUICK, Scene, SilentLog, manifest_of
from tests.fakes.http_source import Answer, Asked, Ending, FaultySource, Rule

KEY = b"the fleet's secret of 32 bytes.."
PIECE = pieces.SMALLEST_PIECE_BYTES
PIECES = 5
SIZE = 4 * PIECE + MIB  # the last piece is shorter
HUB = ""
GOT = agent_pb2.PIECE_RESULT_GOT
UNREACHABLE = agent_pb2.PIECE_RESULT_UNREACHABLE
FAILED = agent_pb2.PIECE_RESULT_FAILED
WRONG = agent_pb2.PIECE_RESULT_WRONG
RETURNED = agent_pb2.PIECE_RESULT_RETURNED
SOON = Patience(answer=20.0, away=0.05, silence=20.0, stall=0.3, connect=2.0)


def digest_of(content: bytes, piece: int) -> bytes:
    """What a piece must be."""
    start, end = pieces.piece_span(piece, len(content))
    return blake3(content[start:end]).digest()


def silent_after(source: FaultySource, count: int) -> Rule:
    """The rule of a source that sends so many bytes of each range, and then nothing."""

    def rule(asked: Asked) -> Answer:
        right = source.right(asked)
        fields = {**right.fields, "Content-Length": str(len(right.body))}
        return Answer(206, fields, right.body[:count], Ending.SILENCE)

    return rule


class Plan:
    """Answers every news with the grants that are due, as a router would that knows all.

    `ways` are the holders of each piece, to be named one after another; the last one again and
    again. With `alone` nobody shares the file; with `silent` nothing is said at all.
    """

    def __init__(self, content: bytes, addresses: dict[str, list[str]]) -> None:
        self.content = content
        self.addresses = addresses
        self.ways: dict[int, list[str]] = {piece: [HUB] for piece in range(PIECES)}
        self.digests = {piece: digest_of(content, piece) for piece in range(PIECES)}
        self.withheld: set[int] = set()  # granted to nobody
        self.alone = False
        self.silent = False
        self._had: set[int] = set()
        self._granted: set[int] = set()
        self._joined = ""  # the file that the node has joined for

    def by(self, *holders: str) -> None:
        """Every piece comes from the first of these that gives it."""
        self.ways = {piece: list(holders) for piece in range(PIECES)}

    def grant(self, piece: int, holder: str) -> agent_pb2.PieceGrant:
        """One grant."""
        return agent_pb2.PieceGrant(
            piece=piece,
            holder_node_id=holder,
            addresses=self.addresses.get(holder, []),
            digest=b"" if holder == HUB else self.digests[piece],
        )

    def answer(self, news: agent_pb2.PieceNews) -> agent_pb2.PieceGrants | None:
        """What the router says to these news."""
        if news.HasField("join"):
            self._joined = news.sha256
            self._granted.clear()
            self._had = {n for n in range(PIECES) if news.join.have[n // 8] >> n % 8 & 1}
        for outcome in news.outcomes:
            self._granted.discard(outcome.piece)
            if outcome.result == GOT:
                self._had.add(outcome.piece)
            elif outcome.result != RETURNED and len(self.ways[outcome.piece]) > 1:
                self.ways[outcome.piece].pop(0)
        if self.silent or news.leave or news.sha256 != self._joined:
            return None
        if self.alone:
            return agent_pb2.PieceGrants(sha256=news.sha256, alone=True)
        due = [n for n in range(PIECES) if n not in self._had | self._granted | self.withheld]
        due = due[: max(0, news.capacity - len(self._granted))]
        self._granted.update(due)
        if not due and not news.HasField("join"):
            return None
        grants = [self.grant(piece, self.ways[piece][0]) for piece in due]
        return agent_pb2.PieceGrants(sha256=news.sha256, grants=grants)


class ScriptedRouter:
    """The other end of a node's stream, in a thread of its own; what it hears is in `news`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.news: list[agent_pb2.PieceNews] = []
        self.digests: list[agent_pb2.PieceDigests] = []
        self.desk: SwarmDesk | None = None
        self._changed = threading.Condition()
        self._writing: asyncio.Task[None] | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def outcomes(self) -> list[tuple[int, int, str]]:
        """Piece, result and holder of all that was told."""
        with self._changed:
            return [
                (outcome.piece, outcome.result, outcome.holder_node_id)
                for news in self.news
                for outcome in news.outcomes
            ]

    def told(self) -> list[tuple[int, int, str]]:
        """The outcomes, with those that are on their way at this moment."""

        async def settle() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(settle(), self.loop).result(20)
        return self.outcomes

    @property
    def joins(self) -> list[agent_pb2.SwarmJoin]:
        """What the node had when it joined, each time."""
        with self._changed:
            return [news.join for news in self.news if news.HasField("join")]

    def wait(self, condition: Callable[[], object]) -> None:
        """Waits until what was heard is as wished."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(condition()), 20), self.news

    def connect(self) -> None:
        """A session begins."""
        self.call(self._begin)

    def vanish(self) -> None:
        """The session ends."""
        self.call(self._end)

    def say(self, grants: agent_pb2.PieceGrants) -> None:
        """Sends grants."""
        assert self.desk is not None
        self.call(lambda: self.desk.obey_grants(grants))  # type: ignore[union-attr]

    def call(self, what: Callable[[], object]) -> None:
        """Does something in the node's event loop, and waits for it."""

        async def run() -> None:
            what()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def close(self) -> None:
        """Ends the loop."""
        self.vanish()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)

    def _begin(self) -> None:
        assert self.desk is not None
        outbox = Outbox()
        if self._writing is not None:
            self._writing.cancel()
        self.desk.begin(outbox)
        self._writing = self.loop.create_task(self._read(outbox))

    def _end(self) -> None:
        assert self.desk is not None
        if self._writing is not None:
            self._writing.cancel()
        self.desk.end()

    async def _read(self, outbox: Outbox) -> None:
        assert self.desk is not None
        while True:
            event = await outbox.take()
            with self._changed:
                if event.HasField("piece_news"):
                    self.news.append(event.piece_news)
                else:
                    self.digests.append(event.piece_digests)
                self._changed.notify_all()
            answer = self.plan.answer(event.piece_news) if event.HasField("piece_news") else None
            if answer is not None:
                self.desk.obey_grants(answer)
            # The node's answer may be there at once; what others ask of this loop has its turn.
            await asyncio.sleep(0)


@dataclass
class Fleet:
    """A node, its Hub and its router; `peer` and `faulty` add other nodes."""

    folder: Path
    content: bytes
    hub: FaultySource
    router: ScriptedRouter
    log: SilentLog = field(default_factory=SilentLog)
    servers: list[PeerServer] = field(default_factory=list)
    sources: list[FaultySource] = field(default_factory=list)
    patience: Patience = SOON

    def __post_init__(self) -> None:
        self.manifest = manifest_of(("model.gguf", self.content))
        self.store = Store(self.folder / "hub", self.folder / "state")
        self.node = Scene(self.folder, self.hub, self.manifest)
        self.open_desk()

    @property
    def plan(self) -> Plan:
        """What the router grants."""
        return self.router.plan

    @property
    def sha256(self) -> str:
        """Of the file."""
        sha256 = self.manifest.files[0].sha256
        assert sha256 is not None
        return sha256

    def open_desk(self, **patience: float) -> SwarmDesk:
        """A desk with another patience."""
        self.patience = replace(self.patience, **patience)
        desk = SwarmDesk(self.store.shelf.find, lambda: KEY, self.router.loop, self.patience)
        self.router.desk = desk
        return desk

    def transfer(self, **options: object) -> Transfer:
        """A transfer of the file; `options` are the transfer's own."""
        return Transfer(
            self.manifest,
            self.store,
            replace(QUICK, window_bytes=64 * MIB, **options),  # type: ignore[arg-type]
            RateLimit(),
            lambda file: SourceUrl(self.hub.url),
            self.log,
            swarm=self.router.desk,
        )

    def peer(self, name: str, content: bytes | None = None) -> Store:
        """A node that holds the whole file, and really serves it."""
        content = self.content if content is None else content
        store = Store(self.folder / name / "hub", self.folder / name / "state")
        manifest = manifest_of(("model.gguf", content))
        file = manifest.files[0]
        partial = store.open_partial(manifest, file)
        partial.write(memoryview(content), 0, Origin.HUB)
        partial.release_waiters()
        assert file.sha256 is not None
        store.commit(manifest, file, partial, Digests(file.sha256, None))
        server = PeerServer(store.shelf, lambda: KEY, RateLimit(), None, clock=time.time)
        server.start("127.0.0.1", 0)
        self.servers.append(server)
        self.plan.addresses[name] = [server.address]
        return store

    def faulty(self, name: str, content: bytes | None = None) -> FaultySource:
        """A node that serves as its rule says."""
        source = FaultySource(self.content if content is None else content)
        self.sources.append(source)
        self.plan.addresses[name] = [f"127.0.0.1:{source.port}"]
        return source

    def assert_whole(self) -> None:
        """The file is there, right, and nothing unfinished is left."""
        assert self.node.final.read_bytes() == self.content
        assert self.store.holds(self.manifest)
        assert self.node.leftovers() == []


@pytest.fixture(scope="session")
def content() -> bytes:
    """A file of five pieces."""
    return random.Random(7).randbytes(SIZE)


@pytest.fixture
def fleet(tmp_path: Path, content: bytes) -> Iterator[Fleet]:
    """A node that is connected to a router which grants everything from the Hub."""
    router = ScriptedRouter(Plan(content, {}))
    with FaultySource(content) as hub:
        fleet = Fleet(tmp_path, content, hub, router)
        router.connect()
        yield fleet
        for server in fleet.servers:
            server.close(0.0)
        for source in fleet.sources:
            source.close()
        assert router.desk is not None
        router.call(router.desk.close)
        router.close()
