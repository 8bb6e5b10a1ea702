"""Serving other nodes, as the agent's settings say."""

from collections.abc import Callable

from agent.config import Serving
from agent.peers.addresses import announced_addresses
from agent.peers.answer import Contents
from agent.peers.server import PeerServer, ServingLimits
from agent.transfer import RateLimit
from protos.daemon.listen import is_loopback
from protos.daemon.logs import get_logger

log = get_logger(__name__)


class Sharing:
    """Serves other nodes between `start` and `close`, unless the settings switch it off."""

    def __init__(
        self, serving: Serving | None, contents: Contents, key: Callable[[], bytes], router: str
    ) -> None:
        """`key` signs tickets, empty until it is known; `router` is its `host:port`."""
        self._serving = serving
        self._router = router
        self._server: PeerServer | None = None
        if serving is not None:
            self._server = PeerServer(
                contents, key, RateLimit(serving.max_rate), ServingLimits(serving.max_connections)
            )

    @property
    def max_rate(self) -> int | None:
        """What the flag says, in bytes per second; None: no limit."""
        return None if self._serving is None else self._serving.max_rate

    def start(self) -> dict[str, str]:
        """Begins; returns what the ready file says of it. Raises `OSError`."""
        if self._server is None or self._serving is None:
            return {}
        self._server.start(self._serving.host, self._serving.port)
        announced = self.addresses()
        log.info("serving other nodes", address=self._server.address, announced=announced)
        if is_loopback(self._serving.host) and not announced:
            log.warning(
                "other nodes cannot reach this one: it listens on loopback; add --peer-host "
                "0.0.0.0 on a network that you trust, or --no-peers",
                peer_host=self._serving.host,
            )
        return {"peer": self._server.address}

    def addresses(self) -> list[str]:
        """Where other nodes may reach this one now, the likeliest first; may block for a moment."""
        if self._server is None or self._serving is None:
            return []
        return announced_addresses(
            self._serving.host, self._server.port, self._router, self._serving.addresses
        )

    def limit(self, assigned: int | None) -> None:
        """Follows what an operator set, in bytes per second: 0: no limit, None: the flag."""
        if self._server is not None:
            self._server.set_rate(self.max_rate if assigned is None else assigned or None)

    def close(self) -> None:
        """Ends; blocks until answers have ended or are cut."""
        if self._server is not None:
            self._server.close()
