"""What the command says and answers when something is wrong."""

import socket

import grpc
import pytest

from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter, Refusal
from tests.cli.samples import MODEL

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (Code.INVALID_ARGUMENT, "AMBIGUOUS_MODEL", 2),
        (Code.NOT_FOUND, "MODEL_NOT_FOUND", 3),
        (Code.ALREADY_EXISTS, "MODEL_EXISTS", 4),
        (Code.FAILED_PRECONDITION, "WRONG_STATE", 4),
        (Code.UNAVAILABLE, "HUB_UNAVAILABLE", 5),
        (Code.PERMISSION_DENIED, "HUB_GATED", 6),
        (Code.UNAUTHENTICATED, "", 6),
        (Code.INTERNAL, "", 1),
    ],
)
def test_each_kind_of_refusal_has_its_exit_code_and_a_next_step(
    router: FakeRouter, cli: Cli, code: grpc.StatusCode, reason: str, exit_code: int
) -> None:
    router.answers["GetModel"] = Refusal(code, "the reason in words", reason)

    result = cli("model", "show", MODEL)

    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("Error: the reason in words\nNext:  ")


@pytest.mark.parametrize("verb", ["show", "remove", "plan"])
def test_what_no_model_can_be_called_is_not_found_whatever_asks(
    router: FakeRouter, cli: Cli, verb: str
) -> None:
    for call in ("GetModel", "UnregisterModel", "PlanDownload"):
        router.answers[call] = Refusal(Code.NOT_FOUND, "not registered", "MODEL_NOT_FOUND")

    result = cli("model", verb, "nonsense", *(["--all"] if verb == "plan" else []))

    assert result.exit_code == 3
    assert result.stderr.startswith("Error: not registered\nNext:  ")


def test_a_fleet_without_nodes_is_a_conflict_and_not_an_unreachable_router(
    router: FakeRouter, cli: Cli
) -> None:
    router.answers["StartDownload"] = Refusal(Code.UNAVAILABLE, "no node is known yet", "NO_NODES")

    result = cli("model", "download", MODEL, "--all")

    assert result.exit_code == 4
    assert "llm-router-agent" in result.stderr


def test_a_wait_that_the_router_proposes_is_told(router: FakeRouter, cli: Cli) -> None:
    router.answers["SearchCatalog"] = Refusal(
        Code.UNAVAILABLE, "the Hub limits our requests", "HUB_RATE_LIMITED", retry_after=95
    )

    result = cli("model", "list")

    assert result.exit_code == 5
    assert "try again in 1m35s" in result.stderr


def test_a_router_that_is_not_there_is_named_with_the_way_to_another() -> None:
    with socket.socket() as unused:  # bound and not listening: nobody answers on this port
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"

        result = Cli(address)("node", "list")

    assert result.exit_code == 5
    assert f"cannot reach the router at {address}: connection refused" in result.stderr
    assert "--router" in result.stderr


@pytest.mark.parametrize(
    "address",
    ["", "router", "router:", ":50051", "router:0", "router:70000", "a b:1", "http://r:1"],
)
def test_a_malformed_address_is_a_usage_error(address: str) -> None:
    result = Cli("127.0.0.1:1")("status", "--router", address)

    assert result.exit_code == 2
    assert "is not an address" in result.stderr


def test_an_ipv6_address_is_an_address() -> None:
    result = Cli("127.0.0.1:1")("status", "--router", "[::1]:50051", "--grpcurl")

    assert result.exit_code == 0
    assert "[::1]:50051" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "download", MODEL),
        ("model", "download", MODEL, "--all", "--node", "a"),
        ("model", "plan", MODEL),
        ("model", "add", "../etc/passwd"),
        ("model", "add", "acme/tiny", "--file", "../tiny.gguf"),
        ("model", "add", "acme/tiny", "--revision", "a..b"),
        ("model", "add", "acme/tiny:Q4_K_M", "--file", "tiny.gguf"),
        ("model", "list", "--registered", "--quant", "Q4_K_M"),
        ("model", "list", "--min-size", "big"),
        ("model", "list", "--limit", "101"),
        ("node", "set", "a"),
        ("node", "set", "a", "--label", "nothing"),
        ("node", "set", "a", "--max-rate", "fast"),
        ("task", "watch", "t-1", "--order", "o-1"),
        ("task", "list", "--state", "sleeping"),
        ("nonsense",),
    ],
)
def test_a_command_that_makes_no_sense_asks_the_router_nothing(
    router: FakeRouter, cli: Cli, arguments: tuple[str, ...]
) -> None:
    result = cli(*arguments)

    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""
    assert router.requests == []


def test_a_message_from_outside_cannot_steer_the_terminal(router: FakeRouter, cli: Cli) -> None:
    router.answers["GetTask"] = Refusal(Code.NOT_FOUND, "bad\x1b[2Jname\r\n", "TASK_NOT_FOUND")

    result = cli("task", "show", "t")

    assert "\x1b" not in result.stderr
    assert "bad [2Jname" in result.stderr
