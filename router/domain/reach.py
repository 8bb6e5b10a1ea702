"""Where nodes reach one another: what a node says of itself, and where the router sees it."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

_MAX_ADDRESSES = 16
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_WRITTEN = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[^:\[\]]{1,253})):(?P<port>\d{1,5})"
)
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Reach:
    """Addresses as `host:port` or `[v6]:port`, the likeliest first; none: it serves no pieces.

    `seen` is the host that its stream comes from, `loopback` for any of the router's own machine.
    `near` is for nodes that are seen there too, `far` for the others: a loopback address leads a
    node on another machine to itself, so `far` has one only where there is nothing else.
    """

    seen: str = ""
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()

    def addresses_for(self, other: "Reach") -> tuple[str, ...]:
        """Where another node finds this one."""
        return self.near if self.seen and self.seen == other.seen else self.far


def reach(listed: Iterable[str], seen: str) -> Reach:
    """How to reach a node that lists these addresses and whose stream comes from the host `seen`.

    What is not an address is left out. An address that is both listed and seen comes first: no
    translator of addresses lies between. One that is only seen comes last, with the first listed
    port: it may be the way through one.
    """
    own = dict.fromkeys(filter(None, map(_address, list(listed)[:_MAX_ADDRESSES])))
    host = _ip(seen)
    here = host is not None and host.is_loopback
    name = "loopback" if here else str(host or "")
    if not own:
        return Reach(name)
    port = next(iter(own)).rpartition(":")[2]
    loops = [address for address in own if _is_loopback(address)]
    others = [address for address in own if not _is_loopback(address)]
    if here:
        loops = loops or [_written(host, port)]
    elif host is not None and others and not host.is_link_local:
        there = [address for address in others if _ip(_host(address)) == host]
        rest = [address for address in others if address not in there]
        others = there + rest if there else [*rest, _written(host, port)]
    return Reach(
        seen=name,
        near=tuple([*loops, *others] if here else [*others, *loops]),
        far=tuple(others or loops),
    )


def _address(text: str) -> str:
    """The address in one way of writing; empty when nobody can be reached there."""
    match = _WRITTEN.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65_536:
        return ""
    host = _ip(match["v6"] or match["host"])
    if host is None:
        return text if match["host"] and _NAME.fullmatch(match["host"]) else ""
    return "" if host.is_unspecified or host.is_multicast else _written(host, match["port"])


def _written(host: _Ip | None, port: str) -> str:
    return f"[{host}]:{port}" if isinstance(host, ipaddress.IPv6Address) else f"{host}:{port}"


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(address: str) -> bool:
    host = _ip(_host(address))
    return _host(address) == "localhost" if host is None else host.is_loopback


def _ip(text: str) -> _Ip | None:
    try:
        host = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host
