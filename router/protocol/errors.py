"""Refusals as the Hub words them: a status, a code for programs, a message for people."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """A refusal; `code` is what clients read from the `X-Error-Code` header."""

    def __init__(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """The answer as huggingface_hub reads it."""
        message = str(self)
        shown = "".join(c if " " <= c <= "~" else "?" for c in message)  # headers are ASCII
        headers = {"X-Error-Message": shown, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": message}, self.status, headers)


def revision_not_found(repo: str, revision: str) -> HubError:
    """Neither a branch nor a commit whose content can be had."""
    return HubError(404, "RevisionNotFound", f'"{repo}" has no revision "{revision}"')


def entry_not_found(repo: str, path: str) -> HubError:
    """The revision has no such file, or its content cannot be had."""
    return HubError(404, "EntryNotFound", f'"{repo}" has no file "{path}" at this revision')


async def refused(request: Request, error: Exception) -> Response:
    """The handler of `HubError` for a Starlette application."""
    assert isinstance(error, HubError)
    return error.response()
