"""What a command says, and with which exit code it ends, when it could not do its work."""

import re
from enum import IntEnum

import click
import grpc
from google.rpc.error_details_pb2 import (
    ErrorInfo,
    RetryInfo,
)
from grpc_status import rpc_status

from cli.render import units


class ExitCode(IntEnum):
    """Exit codes; public, so they do not change."""

    DONE = 0
    FAILED = 1  # also: a followed task failed or was cancelled
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    NOT_PERMITTED = 6
    DETACHED = 130  # Ctrl-C, as shells have it: 128 + SIGINT


_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.CONFLICT,
    grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.UNREACHABLE,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.NOT_PERMITTED,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_PERMITTED,
}

# The router is reached, and waiting for it alone would not help.
_CODES_BY_REASON = {
    "NO_NODES": ExitCode.CONFLICT,
    "NOT_HELD": ExitCode.CONFLICT,
    "BAD_BUNDLE": ExitCode.FAILED,
}

# Reason → what to do next.
_HINTS = {
    "INVALID_NAME": 'write a model as "owner/repo:QUANT", "owner/repo/file.gguf" or its full id',
    "INVALID_TARGET": "say where: --all, or --node NODE for each node",
    "INVALID_PAGE_TOKEN": "list again from the start",
    "REQUEST_REUSED": "take another --request-id, or none: each run makes its own",
    "AMBIGUOUS_MODEL": 'take the full id from "llm-router model list --registered"',
    "MODEL_NOT_FOUND": 'see what is registered: "llm-router model list --registered"; '
    'register it: "llm-router model add REPO[:QUANT]"',
    "REPO_NOT_FOUND": 'look for it: "llm-router model list --search WORD"; '
    "a private repository needs a token on the router (HF_TOKEN)",
    "REVISION_NOT_FOUND": "leave --revision out for the main branch",
    "FILE_NOT_FOUND": 'see the files of the repository: "llm-router model show OWNER/REPO"',
    "NODE_NOT_FOUND": 'see the nodes: "llm-router node list"',
    "TASK_NOT_FOUND": 'see the tasks: "llm-router task list"',
    "ORDER_NOT_FOUND": 'see the orders: "llm-router order list"',
    "MODEL_EXISTS": 'it can be ordered as it is: "llm-router model download MODEL --all"',
    "MODEL_BUSY": 'wait for its tasks ("llm-router task list"), or cancel them '
    '("llm-router task cancel TASK")',
    "UP_TO_DATE": 'see what has changed on the Hub: "llm-router model outdated"',
    "NODE_BUSY": "stop llm-router-agent on that node, then run this again",
    "WRONG_STATE": 'see where it stands: "llm-router task list"',
    "PENDING_CONVERSION": "it can be ordered once it is converted to GGUF",
    "INCOMPLETE_SHARDS": "the repository lacks shards of it: choose another quantization",
    "INSUFFICIENT_DISK": 'see what each node lacks: "llm-router model plan MODEL --all"; '
    'make room: "llm-router node evict NODE MODEL"',
    "NO_NODES": "start an agent on each node: llm-router-agent --router HOST:PORT",
    "HUB_GATED": "ask for access on the model's page of the Hub, and give the router a token of "
    "that account (HF_TOKEN)",
    "HUB_UNAVAILABLE": "check the router's way to the Hub (HF_ENDPOINT), then try again",
    "BAD_BUNDLE": "nothing of it was kept; compare the copy with the original (sha256sum), or "
    'export it again: "llm-router model export FILE MODEL"',
    "DIGESTS_UNKNOWN": 'order it onto a node: "llm-router model download MODEL --node NODE"',
    "NOT_HELD": 'see which nodes hold it: "llm-router model show MODEL"',
    "HUB_RATE_LIMITED": "a token on the router (HF_TOKEN) raises the limit",
    "TOO_MANY_STREAMS": "close other watches, or raise the router's limit of streams",
}

_HINTS_BY_CODE = {
    grpc.StatusCode.UNIMPLEMENTED: "the router is of another version than this command: "
    "bring both to the same",
    grpc.StatusCode.UNAUTHENTICATED: "give a token: --token or LLM_ROUTER_TOKEN",
    grpc.StatusCode.PERMISSION_DENIED: "use a token that may do this: --token or LLM_ROUTER_TOKEN",
    grpc.StatusCode.INTERNAL: "the router's log says more",
    grpc.StatusCode.UNKNOWN: "the router's log says more",
}

_WORDS = re.compile(r"[A-Za-z].*")


class Failure(Exception):
    """Ends the command: `message` says what happened and why, `hint` what to do next."""

    def __init__(self, message: str, exit_code: ExitCode, hint: str = "") -> None:
        super().__init__(message)
        self.message = units.plain(message)
        self.exit_code = exit_code
        self.hint = units.plain(hint)

    def show(self) -> None:
        """Writes to stderr."""
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", err=True)
        if self.hint:
            click.echo(f"{click.style('Next: ', bold=True)} {self.hint}", err=True)


def from_rpc(error: grpc.RpcError, router: str) -> Failure:
    """The failure that an RPC error means to an operator; `router` is the address that was asked.

    Reads `google.rpc.ErrorInfo` and `RetryInfo`; an UNAVAILABLE without them comes from gRPC
    itself: the router was not reached.
    """
    code = error.code()
    text = error.details() or code.name.lower().replace("_", " ")
    reason, wait = _details(error)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        return unreachable(router, text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return unreachable(router, "it did not answer in time")
    hint = _HINTS.get(reason) or _HINTS_BY_CODE.get(code, "")
    if wait:
        hint = f"try again in {units.span(wait)}" + (f"; {hint}" if hint else "")
    return Failure(text, _CODES_BY_REASON.get(reason) or _CODES.get(code, ExitCode.FAILED), hint)


def unreachable(router: str, cause: str, hint: str = "") -> Failure:
    """The router does not answer at `router`; `cause` is gRPC's text or ours."""
    if "http1" in cause.lower() or "http/1" in cause.lower():
        return Failure(
            f"{router} speaks HTTP/1, not gRPC",
            ExitCode.UNREACHABLE,
            "name the router's gRPC port with --router HOST:PORT (50051 unless told otherwise)",
        )
    return Failure(
        f"cannot reach the router at {router}: {_cause(cause)}",
        ExitCode.UNREACHABLE,
        hint
        or "start it with llm-router-server, or name it with --router HOST:PORT "
        "(LLM_ROUTER_ADDRESS)",
    )


def _details(error: grpc.RpcError) -> tuple[str, float]:
    """The stable reason ("" when there is none) and the seconds to wait (0 when not told)."""
    reason, wait = "", 0.0
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the trailer contradicts the call: believe the call
        return reason, wait
    for detail in status.details if status else ():
        if detail.Is(ErrorInfo.DESCRIPTOR):
            info = ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            detail.Unpack(retry)
            wait = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, wait


def _cause(text: str) -> str:
    """The part of gRPC's text that means something to a person."""
    tail = text.rsplit(": ", 1)[-1].strip()
    found = _WORDS.search(tail)
    said = found.group() if found else text
    return said[0].lower() + said[1:].rstrip(".") if said[1:2].islower() else said
