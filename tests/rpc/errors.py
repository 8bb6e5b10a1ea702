"""What an error says beside its status."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status


@dataclass(frozen=True)
class Told:
    """An error as a client reads it; `retry` in seconds."""

    code: str
    reason: str
    message: str
    retry: float | None


def told(error: Any) -> Told:
    """Reads the details of an error."""
    status = rpc_status.from_call(error)
    info, retry = ErrorInfo(), RetryInfo()
    found = None
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            assert info.domain == "llm-router"
        if detail.Unpack(retry):
            found = retry.retry_delay.ToMilliseconds() / 1000
    return Told(error.code().name, info.reason, error.details(), found)


def refused(call: Callable[[Any], Any], request: Any) -> Told:
    """What a call that must fail says; of a stream, the first answer."""
    with pytest.raises(grpc.RpcError) as raised:
        answer = call(request)
        if hasattr(answer, "__next__"):
            next(answer)
    return told(raised.value)
