"""How a transfer ends when it does not succeed."""


class TransferError(Exception):
    """A transfer failed for a named cause.

    `code` is stable and lower_snake; `message` tells an operator what happened; `retryable` says
    whether the same order may succeed later by itself.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class TransferStopped(Exception):
    """Somebody called `stop`: the transfer ended early, and nothing is wrong."""
