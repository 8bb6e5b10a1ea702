"""Nodes with links of their own: a network namespace each, shaped, on one bridge (Linux, root)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_NET = "10.213.78"
_BURST_BYTES = 128 << 10
_LATENCY_MS = 50


@dataclass(frozen=True)
class Place:
    """Where a process runs: what its command begins with, and its address."""

    prefix: tuple[str, ...]
    address: str


HERE = Place((), "127.0.0.1")


@dataclass(frozen=True)
class Links:
    """The middle, where source and router are, and one place for each node."""

    middle: str
    nodes: tuple[Place, ...]


@contextmanager
def shaped_links(count: int, mbit: float) -> Iterator[Links | None]:
    """So many places whose links carry `mbit` Mbit/s each way; None, and why, without the right."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        print("shaped links are left out: they need ip and tc (iproute2)", file=sys.stderr)
        yield None
        return
    bridge = f"br{os.getpid()}"
    places = [
        Place(("ip", "netns", "exec", f"fleet-{os.getpid()}-{n}"), f"{_NET}.{n + 2}")
        for n in range(count)
    ]
    steps = [
        f"ip link add {bridge} type bridge",
        f"ip addr add {_NET}.1/24 dev {bridge}",
        f"ip link set {bridge} up",
        *(step for n, place in enumerate(places) for step in _link(bridge, n, place, mbit)),
    ]
    try:
        for step in steps:
            done = subprocess.run(step.split(), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"shaped links are left out: {step}: {done.stderr.strip()}", file=sys.stderr)
                yield None
                return
        yield Links(f"{_NET}.1", tuple(places))
    finally:
        for place in places:
            subprocess.run(["ip", "netns", "del", place.prefix[-1]], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def _link(bridge: str, number: int, place: Place, mbit: float) -> Iterator[str]:
    space, near, far = place.prefix[-1], f"bn{os.getpid()}-{number}", f"bf{number}"
    shape = f"root tbf rate {mbit}mbit burst {_BURST_BYTES} latency {_LATENCY_MS}ms"
    inside = " ".join(place.prefix)
    yield f"ip netns add {space}"
    yield f"ip link add {near} type veth peer name {far} netns {space}"
    yield f"ip link set {near} master {bridge}"
    yield f"ip link set {near} up"
    yield f"{inside} ip addr add {place.address}/24 dev {far}"
    yield f"{inside} ip link set lo up"
    yield f"{inside} ip link set {far} up"
    yield f"{inside} tc qdisc add dev {far} {shape}"
    yield f"tc qdisc add dev {near} {shape}"
