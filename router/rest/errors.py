"""How an error leaves over HTTP: a status and `{"error": {"message", "type", "param", "code"}}`."""

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protos.daemon.logs import get_logger
from router.domain.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    HubGated,
    HubRateLimited,
    HubUnavailable,
    InsufficientDisk,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

log = get_logger(__name__)

# The first that fits; what SPEC gives a status of its own comes before its kind.
_STATUSES: tuple[tuple[type[DomainError], int], ...] = (
    (HubGated, 424),
    (HubUnavailable, 424),
    (HubRateLimited, 424),
    (InsufficientDisk, 507),
    (InvalidArgument, 400),
    (NotFound, 404),
    (AlreadyExists, 409),
    (FailedPrecondition, 409),
    (PermissionDenied, 403),
    (Unavailable, 503),
)
# What a request carries under another name over HTTP.
_PARAMS = {"request_id": "Idempotency-Key"}
_CODES = {
    400: "invalid_argument",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
}


def status_of(error: DomainError) -> int:
    """The HTTP status of an error."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 500


def error_response(
    status: int,
    message: str,
    code: str,
    *,
    param: str | None = None,
    retry_after: float | None = None,
) -> JSONResponse:
    """The answer for an error; `retry_after` in seconds becomes `Retry-After`."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(content, status, headers)


def install(app: FastAPI) -> None:
    """Lets every error of `app` leave in the one form."""

    @app.exception_handler(DomainError)
    async def domain(_: Request, error: DomainError) -> JSONResponse:
        return error_response(
            status_of(error),
            error.message,
            error.code,
            param=_PARAMS.get(error.param or "", error.param),
            retry_after=error.retry_after,
        )

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            why, position = first["ctx"]["error"], first["loc"][-1]
            message = f"the body is not valid JSON: {why} at character {position}"
            return error_response(400, message, "invalid_argument")
        content_type = request.headers.get("content-type", "")
        if first["loc"] == ("body",) and "json" not in content_type:
            message = 'send the body as JSON, with the header "Content-Type: application/json"'
            return error_response(400, message, "invalid_argument")
        place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        param = ".".join(place) or None
        message = f"{param or 'the body'}: {first['msg']}"
        return error_response(400, message, "invalid_argument", param=param)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "error")
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"no {request.method} at this path: /docs lists what there is"
        answer = error_response(error.status_code, message, code)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("request failed", method=request.method, path=request.url.path)
        message = "internal error: the router's log says more"
        return error_response(500, message, "internal")
