"""A file on another node of the fleet, by HTTP ranges and with a ticket."""

import ipaddress
import threading
import time
from collections.abc import Callable, Iterable

from agent.store import Origin
from agent.swarm.values import Grant
from agent.transfer.http import (
    BadUrl,
    Connection,
    Head,
    HttpClient,
    Proxies,
    Url,
    describe,
    parse_url,
)
from agent.transfer.http_source import HttpRead, range_fields
from agent.transfer.interrupt import Interrupt
from agent.transfer.source import Cause, SourceFailure
from protos import tickets

_NETWORK_BITS = {4: 24, 6: 64}


class Unreachable(SourceFailure):
    """A node could not be reached at any of its addresses."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(Cause.UNAVAILABLE, f"{name} cannot be reached: {reason}")


class Peers:
    """How this node reaches the others; safe for several threads, and shared by all files.

    The environment's proxies are not used. Which address of a node works is remembered, and which
    networks do, so that the next node is found at once.
    """

    def __init__(
        self,
        key: Callable[[], bytes],
        connect_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` signs tickets; `clock` is in seconds since the epoch."""
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._address_of: dict[str, str] = {}
        self._good_networks: set[str] = set()
        self._bad_networks: set[str] = set()
        self.client = HttpClient(Proxies(), None, connect_seconds)

    def source(self, grant: Grant, sha256: str, size: int) -> "PeerSource":
        """The file at the holder that a grant names."""
        return PeerSource(self, grant, sha256, size)

    def ticket(self, sha256: str) -> str:
        """Leave to read a file, as the `Authorization` field has it."""
        expires = int(self._clock()) + tickets.TICKET_SECONDS
        return tickets.ticket_field(self._key(), sha256, expires)

    def in_order(self, holder: str, addresses: Iterable[str]) -> list[str]:
        """The addresses of a node, those that will likely work first."""
        with self._lock:
            known = self._address_of.get(holder)

            def doubt(address: str) -> int:
                network = _network(address)
                if address == known:
                    return 0
                return 1 if network in self._good_networks else 2 + (network in self._bad_networks)

            return sorted(dict.fromkeys(addresses), key=doubt)

    def works(self, holder: str, address: str) -> None:
        """A node has answered at an address."""
        with self._lock:
            self._address_of[holder] = address
            self._good_networks.add(_network(address))
            self._bad_networks.discard(_network(address))

    def fails(self, holder: str, address: str) -> None:
        """Nobody answers at an address."""
        with self._lock:
            if self._address_of.get(holder) == address:
                del self._address_of[holder]
            if _network(address) not in self._good_networks:
                self._bad_networks.add(_network(address))

    def close(self) -> None:
        """Closes idle connections."""
        self.client.close()


class PeerSource:
    """Ranges of one file at one other node; redirects are not followed."""

    supports_ranges = True
    origin = Origin.PEER

    def __init__(self, peers: Peers, grant: Grant, sha256: str, size: int) -> None:
        self._peers = peers
        self._holder = grant.holder
        self._addresses = grant.addresses
        self._sha256 = sha256
        self._size = size

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"the node {self._holder}"

    def open(self, offset: int, length: int, interrupt: Interrupt) -> HttpRead:
        """See `Source.open`. Raises `Unreachable` when no address leads to anybody."""
        reasons = []
        failure: SourceFailure | None = None
        for address in self._peers.in_order(self._holder, self._addresses):
            try:
                url = parse_url(f"http://{address}/blobs/{self._sha256}")
                connection, head = self._ask(url, offset, length, interrupt)
            except (OSError, BadUrl) as error:
                interrupt.check()
                self._peers.fails(self._holder, address)
                what = describe(error) if isinstance(error, OSError) else str(error)
                reasons.append(f"{address}: {what}")
                continue
            except SourceFailure as error:
                failure = error  # somebody is there, perhaps not the one that is meant
                continue
            try:
                self._check(head, offset, length)
            except SourceFailure as error:
                failure = error
                self._dispose(url, connection, head)
                continue
            self._peers.works(self._holder, address)
            client = self._peers.client
            return HttpRead(self, client, url, connection, head, 0, length, interrupt)
        raise failure or Unreachable(self.name, "; ".join(reasons) or "it has no address")

    def _ask(
        self, url: Url, offset: int, length: int, interrupt: Interrupt
    ) -> tuple[Connection, Head]:
        """Raises `OSError` when nobody is there, `SourceFailure` when the answer breaks off."""
        fields = {
            **range_fields(offset, length),
            "Authorization": self._peers.ticket(self._sha256),
        }
        fresh = False
        while True:
            connection = self._peers.client.connect(url, interrupt, fresh=fresh)
            try:
                return connection, connection.request("GET", url, fields)
            except OSError as error:
                connection.close()
                interrupt.check()
                if connection.used and not fresh:
                    fresh = True  # it was closed while idle, which is nobody's fault
                    continue
                raise SourceFailure(
                    Cause.UNAVAILABLE, f"{self.name} did not answer: {describe(error)}"
                ) from error

    def _check(self, head: Head, offset: int, length: int) -> None:
        expected = f"bytes {offset}-{offset + length - 1}/{self._size}"
        if head.status not in (200, 206):
            raise SourceFailure(
                Cause.REJECTED, f"{self.name} refuses to give a piece ({head.status})"
            )
        whole = head.status == 200 and length == self._size
        if not whole and head.fields.get("content-range", "") != expected:
            raise SourceFailure(Cause.MISBEHAVED, f"{self.name} sent another range than asked for")
        if head.length != length or "transfer-encoding" in head.fields:
            raise SourceFailure(Cause.MISBEHAVED, f"{self.name} announced another length")
        if head.fields.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise SourceFailure(Cause.MISBEHAVED, f"{self.name} sent the piece in an encoding")

    def _dispose(self, url: Url, connection: Connection, head: Head) -> None:
        try:
            drained = head.status not in (200, 206) and connection.drain(head)
        except OSError:
            drained = False
        if drained:
            self._peers.client.give_back(url, connection)
        else:
            connection.close()


def _network(address: str) -> str:
    """The network that an address ("host:port") is likely in; a name is its own."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        one = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((one, _NETWORK_BITS[one.version]), strict=False))
