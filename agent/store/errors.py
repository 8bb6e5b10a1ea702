"""What can go wrong on a node's disk, in stable codes."""

import errno


class StoreError(Exception):
    """The store could not do what was asked.

    `code` is stable: `insufficient_disk`, `disk_full`, `store_read_only`, `store_failed`,
    `digest_mismatch`. `retryable` says whether the same call may succeed later by itself.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


def store_error(error: OSError, doing: str) -> StoreError:
    """Names the cause of a failed file operation; `doing` reads like "writing x.part"."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("disk_full", f"the disk is full while {doing}: {reason}", retryable=True)
    if error.errno == errno.EROFS:
        return StoreError(
            "store_read_only", f"the models folder is read-only: {doing}: {reason}", retryable=False
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(
            "store_read_only",
            f"this agent may not write in the models folder: {doing}: {reason}",
            retryable=False,
        )
    return StoreError("store_failed", f"{doing} failed: {reason}", retryable=True)
