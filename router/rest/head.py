"""`HEAD`: what `GET` answers, without the body (RFC 9110, section 9.3.2)."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Lets every `GET` route answer `HEAD`; one that streams is ended when it begins."""

    def __init__(self, app: ASGIApp, besides: tuple[str, ...] = ()) -> None:
        """Wraps `app`; what is below the paths `besides` answers `HEAD` itself."""
        self._app = app
        self._besides = besides

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on; of a `HEAD` as a `GET`."""
        if (
            scope["type"] != "http"
            or scope["method"] != "HEAD"
            or scope["path"].startswith(self._besides)
        ):
            await self._app(scope, receive, send)
            return
        begun = asyncio.Event()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                begun.set()

        answering = asyncio.ensure_future(self._app({**scope, "method": "GET"}, receive, sending))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not begun.is_set():
                answering.result()
        finally:
            for task in (answering, waiting):
                task.cancel()
            await asyncio.gather(answering, waiting, return_exceptions=True)
