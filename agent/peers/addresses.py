"""Where other nodes may reach this one: what is told to the router."""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterable

import psutil

from protos.daemon.listen import address, is_loopback

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Bridges to containers and virtual machines of this host: hardly ever the way to another.
_VIRTUAL = ("docker", "br-", "veth", "virbr", "podman", "lxc", "lxd", "cni", "flannel", "cali")
_LOOK_UP_SECONDS = 0.3
# Documentation networks (RFC 5737, RFC 3849): nothing is ever sent, the kernel only says which of
# the host's addresses it would come from.
_FAR_AWAY = ("192.0.2.1", "2001:db8::1")


def announced_addresses(
    host: str, port: int, router: str, instead: Iterable[str] = ()
) -> list[str]:
    """`host:port` of each usable address of this host, the likeliest first.

    `host` is where it listens, `router` the `host:port` of the router, to which the likeliest
    address leads. `instead` (`host` or `host:port`) are announced alone when there are any. Nothing
    is announced by a node that listens on loopback while its router is on another machine.
    """
    given = [_with_port(text, port) for text in instead]
    if given:
        return list(dict.fromkeys(given))
    bare = host.removeprefix("[").removesuffix("]")
    router_host = router.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if is_loopback(bare):
        return [address(bare, port)] if is_loopback(router_host) else []
    if bare not in ("", "0.0.0.0", "::"):
        return [address(bare, port)]
    found = _of_interfaces(with_v6=bare == "::")
    routed = _routed(router_host)
    found.sort(key=lambda one: routed.index(one) if one in routed else len(routed))
    return [address(str(one), port) for one in found]


def _of_interfaces(*, with_v6: bool) -> list[_Address]:
    """The addresses of all interfaces that are up; those of bridges to guests last."""
    families = [socket.AF_INET, socket.AF_INET6] if with_v6 else [socket.AF_INET]
    states = psutil.net_if_stats()
    found: dict[_Address, bool] = {}
    for name, addresses in psutil.net_if_addrs().items():
        if name in states and not states[name].isup:
            continue
        for entry in addresses:
            if entry.family in families and (one := _usable(entry.address)) is not None:
                found.setdefault(one, name.startswith(_VIRTUAL))
    return sorted(found, key=lambda one: (found[one], one.version))


def _usable(text: str) -> _Address | None:
    """An address that another machine might reach, without the help of a scope."""
    with contextlib.suppress(ValueError):
        one = ipaddress.ip_address(text.partition("%")[0])
        if not (one.is_loopback or one.is_link_local or one.is_multicast or one.is_unspecified):
            return one
    return None


def _routed(router_host: str) -> list[_Address]:
    """The addresses of this host that the kernel would use towards the router, then outwards."""
    found = []
    for far in (*_resolved(router_host), *_FAR_AWAY):
        family = socket.AF_INET6 if ":" in far else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            if (one := _usable(probe.getsockname()[0])) is not None:
                found.append(one)
    return list(dict.fromkeys(found))


def _resolved(host: str) -> list[str]:
    """The addresses of a host; none when the name service takes longer than a moment."""
    found: list[str] = []

    def look_up() -> None:
        with contextlib.suppress(OSError):
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(host, 9))

    thread = threading.Thread(target=look_up, name="peers-look-up", daemon=True)
    thread.start()
    thread.join(_LOOK_UP_SECONDS)
    return list(found)


def _with_port(text: str, port: int) -> str:
    """`host:port` of a `host` that may or may not have its port, `[v6]:port` or bare IPv6."""
    with contextlib.suppress(ValueError):
        return address(str(ipaddress.ip_address(text.strip("[]"))), port)
    host, colon, own = text.rpartition(":")
    return address(host, int(own)) if colon else address(text, port)
