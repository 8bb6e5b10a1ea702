"""Keeps web pages of other sites away from a router that trusts whoever reaches it."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.daemon.listen import is_own_host
from router.rest.errors import error_response

MAX_BODY_BYTES = 1024 * 1024


class Guard:
    """Checks `Host` (DNS rebinding), `Origin` (a foreign page), and the size of a body.

    Also sets the headers that keep our own pages to their own files.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        """`host` is the address that the router listens on."""
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses with 403 or 413, or passes on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        own = headers.get("host")
        origin = headers.get("origin")
        refusal = None
        if not is_own_host(own, self._host):
            refusal = error_response(
                403, "this host name is not one of this router: use 127.0.0.1", "forbidden_host"
            )
        elif origin is not None and _netloc(origin) != own:
            refusal = error_response(
                403, "pages of other sites may not call this router", "forbidden_origin"
            )
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), _with_headers(send))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _bounded(receive: Receive) -> Receive:
    """Counts what comes, because a chunked body does not say how long it is."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body has at most {MAX_BODY_BYTES} bytes")
        return message

    return receiving


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS]
        await send(message)

    return sending


_SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
