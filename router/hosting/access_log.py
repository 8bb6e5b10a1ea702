"""One log line for each request, with the bytes that really went out."""

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.daemon.logs import get_logger

log = get_logger("router.hosting.access")


class AccessLog:
    """Logs `request` with method, path, range, status, bytes sent, whether complete, and time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on; counts what the application sends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, sent, complete = 0, 0, False
        began = time.monotonic()

        async def count(message: Message) -> None:
            nonlocal status, sent, complete
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)

        try:
            await self._app(scope, receive, count)
        finally:
            path = scope["raw_path"].decode("latin-1")
            query = scope["query_string"].decode("latin-1")
            log.info(
                "request",
                method=scope["method"],
                path=f"{path}?{query}" if query else path,
                range=Headers(scope=scope).get("range"),
                status=status,
                bytes_sent=sent,
                complete=complete,
                milliseconds=round((time.monotonic() - began) * 1000),
                client=":".join(str(part) for part in scope.get("client") or ()),
            )
