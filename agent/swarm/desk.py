"""Carries the swarm's words between the transfers' threads and the stream to the router."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from functools import partial

from agent.connection import Outbox
from agent.store import Partial, Readable
from agent.swarm.answers import Answers
from agent.swarm.messages import grants_from_pb, news_to_pb
from agent.swarm.peer_source import Peers
from agent.swarm.schedule import SharedSchedule
from agent.swarm.values import News, Outcome, Patience, Result
from agent.transfer.sharing import HubWay
from protos.daemon.logs import get_logger
from protos.llmrouter.v1 import agent_pb2

log = get_logger(__name__)

_INVENTORY_SECONDS = 30.0


class SwarmDesk:
    """The swarm as transfers see it (`agent.transfer.sharing.Swarm`), and as the router does.

    `join` is for any thread, all else for the event loop.
    """

    def __init__(
        self,
        find: Callable[[str], Readable | None],
        key: Callable[[], bytes],
        loop: asyncio.AbstractEventLoop,
        patience: Patience | None = None,
        *,
        node_id: str = "",
    ) -> None:
        """`find` gives what is on the disk of a file, `key` is what the fleet's nodes sign with;
        `node_id` is what the others know this node by.
        """
        self._node_id = node_id
        self._loop = loop
        self._patience = patience or Patience()
        self._peers = Peers(key, self._patience.connect)
        self._answers = Answers(find, self._send, loop)
        self._lock = threading.Lock()  # of what threads see
        self._outbox: Outbox | None = None
        self._is_answering = True  # the router of this session, as far as one knows
        self._members: dict[str, _Member] = {}
        self._returned: dict[str, list[Outcome]] = {}
        self._sent = 0
        self.held: Callable[[], None] = lambda: None  # called when a file has come, in the loop

    # For transfers

    def join(self, sha256: str, partial: Partial, hub: HubWay) -> SharedSchedule:
        """See `Swarm`."""
        with self._lock:
            member = _Member(sha256, self._loop, self)
            member.schedule = SharedSchedule(
                partial,
                hub,
                lambda grant: self._peers.source(grant, sha256, partial.size),
                member,
                node_id=self._node_id,
                is_connected=self._outbox is not None,
                is_answering=self._is_answering,
                patience=self._patience,
            )
            self._members[sha256] = member
        member.tell()
        return member.schedule

    # For the dialogue with the router

    def begin(self, outbox: Outbox) -> None:
        """A session begins: whoever still fetches joins again."""
        with self._lock:
            self._outbox = outbox
            self._is_answering = True
            self._returned.clear()
            for member in list(self._members.values()):
                if member.is_held:  # the inventory tells of it
                    del self._members[member.sha256]
                else:
                    member.schedule.connected()
            members = list(self._members.values())
        for member in members:
            self.put_news(member)

    def end(self) -> None:
        """The session is over."""
        with self._lock:
            self._outbox = None
            for member in self._members.values():
                member.schedule.disconnected()
        self._answers.forget()

    def obey_grants(self, message: agent_pb2.PieceGrants) -> None:
        """Takes in what the router grants."""
        self._is_answering = True
        member = self._members.get(message.sha256)
        grants = grants_from_pb(message)
        if member is None:
            returned = self._returned.setdefault(message.sha256, [])
            returned += [Outcome(one.piece, Result.RETURNED, one.holder) for one in grants]
            self._put(f"returned {message.sha256}", partial(self._make_returned, message.sha256))
            return
        member.schedule.granted(grants, alone=message.alone)
        if member.schedule.is_behind:
            self.put_news(member)

    def obey_digest_request(self, message: agent_pb2.DigestRequest) -> None:
        """Takes in a question for digests."""
        self._answers.ask(message)

    def told_inventory(self, held: Iterable[str]) -> None:
        """The router is being told that this node holds these contents (SHA-256)."""
        known = set(held)
        for member in list(self._members.values()):
            if member.is_held and member.sha256 in known:
                self._leave(member)

    def close(self) -> None:
        """Ends all conversations with other nodes."""
        self._answers.close()
        self._peers.close()

    # For members; in the event loop

    def put_news(self, member: "_Member") -> None:
        """Lets a member speak."""
        self._put(f"pieces {member.sha256}", partial(self._make_news, member))

    def unanswered(self) -> None:
        """A member was not answered in time: the next ones do not wait."""
        self._is_answering = False
        log.info("the router does not speak of pieces; fetching from the Hub alone")

    def ended(self, member: "_Member", *, held: bool) -> None:
        """A member is one no more.

        One whose file is here leaves when the inventory has told so: in between it can still give.
        """
        if self._members.get(member.sha256) is not member:
            return
        if held:
            member.is_held = True
            self._loop.call_later(_INVENTORY_SECONDS, self._leave, member)
            self.held()
        else:
            self._leave(member)

    # Inside

    def _leave(self, member: "_Member") -> None:
        with self._lock:
            if self._members.get(member.sha256) is not member:
                return
            del self._members[member.sha256]
        if member.has_spoken:
            member.has_left = True
            self.put_news(member)

    def _put(self, key: str, make: Callable[[], agent_pb2.ConnectRequest | None]) -> None:
        if self._outbox is not None:
            self._outbox.put(key, make)

    def _send(self, message: agent_pb2.ConnectRequest) -> None:
        self._sent += 1
        self._put(f"digests {self._sent}", lambda: message)

    def _make_news(self, member: "_Member") -> agent_pb2.ConnectRequest | None:
        current = self._members.get(member.sha256)
        if current is not member and (current is not None or not member.has_left):
            return None  # another transfer of the file speaks now, or nobody
        member.has_spoken = True
        return news_to_pb(member.sha256, member.schedule.news(), leave=member.has_left)

    def _make_returned(self, sha256: str) -> agent_pb2.ConnectRequest | None:
        outcomes = self._returned.pop(sha256, None)
        return None if outcomes is None else news_to_pb(sha256, News(0, tuple(outcomes)))


class _Member:
    """One file that is being fetched; a `Desk` for its schedule."""

    schedule: SharedSchedule

    def __init__(self, sha256: str, loop: asyncio.AbstractEventLoop, desk: SwarmDesk) -> None:
        self.sha256 = sha256
        self.has_spoken = False
        self.is_held = False
        self.has_left = False
        self._loop = loop
        self._desk = desk
        self._lock = threading.Lock()
        self._is_telling = False

    def tell(self) -> None:
        """See `Desk`; what comes together is told together."""
        with self._lock:
            if self._is_telling:
                return
            self._is_telling = True
        self._call(self._tell)

    def unanswered(self) -> None:
        """See `Desk`."""
        self._call(self._desk.unanswered)

    def ended(self, *, held: bool) -> None:
        """See `Desk`."""
        self._call(lambda: self._desk.ended(self, held=held))

    def _tell(self) -> None:
        with self._lock:
            self._is_telling = False
        self._desk.put_news(self)

    def _call(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the process is ending
            self._loop.call_soon_threadsafe(what)
