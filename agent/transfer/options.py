"""The settings of a transfer."""

import ssl
from dataclasses import dataclass, field

from agent.store.partial import WINDOW_BYTES
from agent.transfer.http import Proxies
from agent.transfer.pieces import PIECE_BYTES
from agent.transfer.xet import XetUse


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to fetch.

    `connections` is what a file begins with; while more of them make it faster it grows up to
    `max_connections`, and it shrinks when the source pushes back. `stall_seconds` without a byte
    make a failed try. `reserve_bytes` of disk stay free. `window_bytes` bounds what a kill or power
    loss can cost. When the disk fills on the way a transfer waits, looking for room every
    `room_seconds`; without `wait_for_room` it fails. `task_id` lets a restarted task account for
    its files where they came from. `xet` says when the Hub's Xet storage is used. `tls` None means
    the system's certificates.
    """

    connections: int = 4
    max_connections: int = 16
    stall_seconds: float = 30.0
    connect_seconds: float = 15.0
    backoff_seconds: float = 0.5
    reserve_bytes: int = 0
    piece_bytes: int = PIECE_BYTES
    window_bytes: int = WINDOW_BYTES
    wait_for_room: bool = True
    room_seconds: float = 2.0
    task_id: str = ""
    xet: XetUse = XetUse.AUTO
    proxies: Proxies = field(default_factory=Proxies.from_environment)
    tls: ssl.SSLContext | None = None
