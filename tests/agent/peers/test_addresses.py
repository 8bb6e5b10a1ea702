"""Where a node says that it can be reached."""

import socket
from collections import namedtuple

import pytest

from agent.peers import PeerServer
from agent.peers.addresses import announced_addresses
from agent.transfer import RateLimit
from tests.agent.peers.conftest import Peer, Serve, digest

REMOTE = "10.1.2.3:50051"
Entry = namedtuple("Entry", "family address")
State = namedtuple("State", "isup")


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with two networks, a bridge to its guests, and one cable that is not plugged in."""
    v4, v6 = socket.AF_INET, socket.AF_INET6
    found = {
        "lo": [Entry(v4, "127.0.0.1"), Entry(v6, "::1")],
        "docker0": [Entry(v4, "172.17.0.1")],
        "eth0": [
            Entry(v4, "10.0.0.5"),
            Entry(v6, "fd00::5"),
            Entry(v6, "fe80::1%eth0"),
            Entry(socket.AF_UNIX, "00:00:00:00:00:01"),
        ],
        "eth1": [Entry(v4, "192.168.7.9"), Entry(v4, "169.254.3.4")],
        "eth2": [Entry(v4, "10.9.9.9")],
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    monkeypatch.setattr("psutil.net_if_stats", lambda: {n: State(n != "eth2") for n in found})


class Routes:
    """A kernel that reaches these hosts from these addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **routes: str) -> None:
        self._routes = {far.replace("_", "."): near for far, near in routes.items()}
        monkeypatch.setattr("agent.peers.addresses.socket.socket", self.open)

    def open(self, family: int, kind: int) -> "Routes.Probe":
        """See `socket.socket`."""
        return Routes.Probe(self._routes)

    class Probe:
        """A datagram socket that never sends."""

        def __init__(self, routes: dict[str, str]) -> None:
            self._routes = routes
            self._near = ""

        def __enter__(self) -> "Routes.Probe":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def connect(self, place: tuple[str, int]) -> None:
            """Finds the route, if there is one."""
            if place[0] not in self._routes:
                raise OSError("no route")
            self._near = self._routes[place[0]]

        def getsockname(self) -> tuple[str, int]:
            """The near end."""
            return self._near, 1


@pytest.mark.usefixtures("interfaces")
def test_all_interfaces_are_announced_the_one_towards_the_router_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Routes(monkeypatch, **{"10_1_2_3": "192.168.7.9", "192_0_2_1": "10.0.0.5"})

    v4 = announced_addresses("0.0.0.0", 7000, REMOTE)
    both = announced_addresses("::", 7000, REMOTE)

    assert v4 == ["192.168.7.9:7000", "10.0.0.5:7000", "172.17.0.1:7000"]
    assert both == [
        "192.168.7.9:7000",
        "10.0.0.5:7000",
        "[fd00::5]:7000",
        "172.17.0.1:7000",
    ]


@pytest.mark.usefixtures("interfaces")
def test_without_a_route_all_are_announced_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    Routes(monkeypatch)

    assert announced_addresses("0.0.0.0", 1, REMOTE) == [
        "10.0.0.5:1",
        "192.168.7.9:1",
        "172.17.0.1:1",
    ]


@pytest.mark.parametrize(
    ("host", "router", "announced"),
    [
        ("127.0.0.1", "127.0.0.1:50051", ["127.0.0.1:7000"]),
        ("localhost", "localhost:50051", ["localhost:7000"]),
        ("::1", "[::1]:50051", ["[::1]:7000"]),
        ("127.0.0.1", REMOTE, []),
        ("10.0.0.5", REMOTE, ["10.0.0.5:7000"]),
        ("[fd00::5]", REMOTE, ["[fd00::5]:7000"]),
    ],
)
def test_one_address_is_announced_as_it_is(host: str, router: str, announced: list[str]) -> None:
    assert announced_addresses(host, 7000, router) == announced


def test_what_was_given_is_announced_instead() -> None:
    given = ["node.example:80", "203.0.113.7", "2001:db8::7", "[2001:db8::8]:81", "203.0.113.7"]

    assert announced_addresses("127.0.0.1", 7000, REMOTE, given) == [
        "node.example:80",
        "203.0.113.7:7000",
        "[2001:db8::7]:7000",
        "[2001:db8::8]:81",
    ]


@pytest.mark.parametrize(
    ("host", "ways"), [("::", ["127.0.0.1", "::1"]), ("0.0.0.0", ["127.0.0.1"])]
)
def test_all_interfaces_are_served(serve: Serve, host: str, ways: list[str]) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    served = serve(host=host)
    served.put(b"content")

    for way in ways:
        with Peer(served.server.port, way) as peer:
            assert peer.ask(digest(b"content")).body == b"content"
    assert served.server.address == f"{'[::]' if host == '::' else host}:{served.server.port}"


def test_a_port_that_is_taken_is_said_with_what_to_do(serve: Serve) -> None:
    first = serve()
    second = PeerServer(first.store.shelf, lambda: b"", RateLimit())

    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{first.server.port}.*--peer-port"):
        second.start("127.0.0.1", first.server.port)
