"""What can go wrong, in six kinds; each error carries a stable reason in UPPER_SNAKE.

The edges translate a kind to a status (one small table each) and pass the reason on: upper case
as `google.rpc.ErrorInfo.reason`, lower case as the `code` of an HTTP error. Messages start lower
case, name the thing, say what to do, and end without a full stop.
"""

# What gRPC sends beside the body is bounded to 8 KiB by default: the message travels there twice,
# once with up to three bytes for each of its own.
_MAX_MESSAGE_BYTES = 1200


class DomainError(Exception):
    """An error that is told to the caller as it is.

    `param` names the offending field of the request, when there is one; `retry_after` is the
    number of seconds after which the same call may succeed, when a wait helps. A message that
    quotes too much is cut.
    """

    reason = "INTERNAL"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = _cut(message)
        self.param = param
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The reason as HTTP clients read it."""
        return self.reason.lower()


class InvalidArgument(DomainError):
    """The request cannot be right, whatever the state of the system."""

    reason = "INVALID_ARGUMENT"


class NotFound(DomainError):
    """The thing that the request names does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(DomainError):
    """The thing that the request would make exists."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(DomainError):
    """The system is not in a state in which this can be done."""

    reason = "FAILED_PRECONDITION"


class PermissionDenied(DomainError):
    """The caller, or the router at the Hub, may not do this."""

    reason = "PERMISSION_DENIED"


class Unavailable(DomainError):
    """It may succeed later; nothing was changed."""

    reason = "UNAVAILABLE"


class InvalidModelName(InvalidArgument):
    """A model id, alias, repository, file or revision does not follow the grammar."""

    reason = "INVALID_NAME"


class InvalidPageToken(InvalidArgument):
    """A page token was not made by this router, or its listing is gone."""

    reason = "INVALID_PAGE_TOKEN"


class InvalidTarget(InvalidArgument):
    """An order names no nodes, or names them in a way that makes no sense."""

    reason = "INVALID_TARGET"


class InvalidOptions(InvalidArgument):
    """The way in which an order is to be carried out makes no sense."""

    reason = "INVALID_OPTIONS"


class AmbiguousModel(InvalidArgument):
    """An alias fits several models; the message lists them."""

    reason = "AMBIGUOUS_MODEL"


class RequestReused(InvalidArgument):
    """A request id came back with a different request."""

    reason = "REQUEST_REUSED"


class ModelNotFound(NotFound):
    """No registered model has this id."""

    reason = "MODEL_NOT_FOUND"


class NodeNotFound(NotFound):
    """No node has this id or name."""

    reason = "NODE_NOT_FOUND"


class TaskNotFound(NotFound):
    """No task has this id."""

    reason = "TASK_NOT_FOUND"


class OrderNotFound(NotFound):
    """No order has this id."""

    reason = "ORDER_NOT_FOUND"


class RepoNotFound(NotFound):
    """The Hub knows no such repository, or hides it from us."""

    reason = "REPO_NOT_FOUND"


class RevisionNotFound(NotFound):
    """The repository has no such branch, tag or commit."""

    reason = "REVISION_NOT_FOUND"


class FileNotInRepo(NotFound):
    """The repository has no such file, or no file that fits."""

    reason = "FILE_NOT_FOUND"


class ModelExists(AlreadyExists):
    """A model with this id is registered."""

    reason = "MODEL_EXISTS"


class ModelBusy(FailedPrecondition):
    """Tasks of this model are running."""

    reason = "MODEL_BUSY"


class UpToDate(FailedPrecondition):
    """The Hub has no newer commit of this model with other files."""

    reason = "UP_TO_DATE"


class IncompleteShards(FailedPrecondition):
    """Shards of a sharded variant are missing on the Hub."""

    reason = "INCOMPLETE_SHARDS"


class PendingConversion(FailedPrecondition):
    """The model is not GGUF yet."""

    reason = "PENDING_CONVERSION"


class WrongState(FailedPrecondition):
    """The task or order is not in a state from which this is possible."""

    reason = "WRONG_STATE"


class PlanOutdated(FailedPrecondition):
    """The order would do something else by now than the plan that was confirmed."""

    reason = "PLAN_OUTDATED"


class NodeBusy(FailedPrecondition):
    """The node has work that would be lost."""

    reason = "NODE_BUSY"


class InsufficientDisk(FailedPrecondition):
    """No named node has the space."""

    reason = "INSUFFICIENT_DISK"


class HubGated(PermissionDenied):
    """The Hub asks for a token, or for an access grant, that the router does not have."""

    reason = "HUB_GATED"


class NoNodes(Unavailable):
    """No node is known yet."""

    reason = "NO_NODES"


class HubUnavailable(Unavailable):
    """The Hub did not answer, or not with sense."""

    reason = "HUB_UNAVAILABLE"


class HubRateLimited(Unavailable):
    """The Hub limits our requests; `retry_after` says for how long."""

    reason = "HUB_RATE_LIMITED"


class TooManyStreams(Unavailable):
    """The ceiling of open streams is reached."""

    reason = "TOO_MANY_STREAMS"


class SessionFenced(DomainError):
    """Another stream with the same node id has come; this one must end."""

    reason = "SESSION_FENCED"


def _cut(message: str) -> str:
    encoded = message.encode(errors="replace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return message
    return encoded[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + "…"
