"""Keeps web pages in a local browser away from a server on loopback."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from protos.daemon.listen import is_own_host
from router.protocol.errors import HubError


class OwnHost:
    """Answers 421 to a request whose `Host` is not a name of this machine, when on loopback."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes requests on that are meant for this server."""
        if scope["type"] != "http" or is_own_host(Headers(scope=scope).get("host"), self._host):
            await self._app(scope, receive, send)
            return
        refused = HubError(421, None, "this Hub serves its own machine only: use 127.0.0.1")
        await refused.response()(scope, receive, send)
