"""How a domain error leaves over gRPC: a status code and `google.rpc` details."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from router.domain.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SessionFenced,
    TooManyStreams,
    Unavailable,
)

DOMAIN = "llm-router"
DETAILS_KEY = "grpc-status-details-bin"

# The first that fits; a reason of its own comes before its kind.
_CODES: tuple[tuple[type[DomainError], StatusCode], ...] = (
    (TooManyStreams, StatusCode.RESOURCE_EXHAUSTED),
    (SessionFenced, StatusCode.ABORTED),
    (InvalidArgument, StatusCode.INVALID_ARGUMENT),
    (NotFound, StatusCode.NOT_FOUND),
    (AlreadyExists, StatusCode.ALREADY_EXISTS),
    (FailedPrecondition, StatusCode.FAILED_PRECONDITION),
    (PermissionDenied, StatusCode.PERMISSION_DENIED),
    (Unavailable, StatusCode.UNAVAILABLE),
)


def code_of(error: DomainError) -> StatusCode:
    """The status code of an error's kind."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return StatusCode.INTERNAL


def details_of(error: DomainError) -> bytes:
    """The serialised `google.rpc.Status` with `ErrorInfo`, and `RetryInfo` where a wait helps."""
    metadata = {"param": error.param} if error.param else {}
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    details = [_packed(info)]
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(_packed(RetryInfo(retry_delay=delay)))
    number: int = code_of(error).value[0]
    status = Status(code=number, message=error.message, details=details)
    return bytes(status.SerializeToString())


def _packed(message: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
