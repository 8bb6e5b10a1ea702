"""Refusals as the Hub words them: a status, a code for programs, a message for people."""

from starlette.responses import JSONResponse


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


def repository_not_found(repo: str) -> HubError:
    """No folder of this name; the real Hub answers 401 to strangers, this one has no accounts."""
    return HubError(404, "RepoNotFound", f'repository "{repo}" is not in the served folder')


def revision_not_found(repo: str, revision: str) -> HubError:
    """Neither a branch nor a commit whose content is still there."""
    return HubError(404, "RevisionNotFound", f'"{repo}" has no revision "{revision}"')


def entry_not_found(repo: str, path: str) -> HubError:
    """The revision has no such file, or its content left the folder."""
    return HubError(404, "EntryNotFound", f'"{repo}" has no file "{path}" at this revision')


def still_reading(repo: str, seconds: int) -> HubError:
    """The digests of a new, large repository are not computed yet."""
    return HubError(
        503,
        None,
        f'"{repo}" is new and its files are still being read; try again in {seconds} s',
        {"Retry-After": str(seconds)},
    )
