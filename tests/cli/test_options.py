"""The options that are the same everywhere."""

import json
import shlex
import shutil
import subprocess

import pytest
from google.protobuf.json_format import ParseDict

from protos.llmrouter.v1 import download_pb2, node_pb2, registration_pb2
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter
from tests.cli.samples import MODEL, node, order, task


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "json", "node", "list"),
        ("node", "--format", "json", "list"),
        ("node", "list", "--format", "json"),
        ("--format", "table", "node", "list", "--format", "json"),
    ],
)
def test_a_global_option_is_accepted_before_and_after_the_subcommand(
    router: FakeRouter, cli: Cli, arguments: tuple[str, ...]
) -> None:
    router.answers["ListNodes"] = node_pb2.ListNodesResponse(nodes=[node()])

    result = cli(*arguments)

    assert json.loads(result.stdout)["nodes"][0]["name"] == "node-1"


def test_a_flag_before_the_subcommand_beats_the_environment(router: FakeRouter) -> None:
    router.answers["ListNodes"] = node_pb2.ListNodesResponse()

    result = Cli("nowhere.invalid:1")("--router", router.address, "node", "list")

    assert result.exit_code == 0


def test_the_token_goes_to_the_router_and_never_to_the_screen(router: FakeRouter, cli: Cli) -> None:
    router.answers["ListNodes"] = node_pb2.ListNodesResponse()

    ran = cli("node", "list", LLM_ROUTER_TOKEN="s3cret")
    printed = cli("node", "list", "--token", "s3cret", "--grpcurl")

    assert router.metadata[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in ran.output + printed.output
    assert '"authorization: Bearer $LLM_ROUTER_TOKEN"' in printed.stdout


def test_without_a_token_none_is_sent(router: FakeRouter, cli: Cli) -> None:
    router.answers["ListNodes"] = node_pb2.ListNodesResponse()

    cli("node", "list")

    assert "authorization" not in router.metadata[0]


def test_ids_only_are_printed_one_a_line(router: FakeRouter, cli: Cli) -> None:
    router.answers["ListNodes"] = node_pb2.ListNodesResponse(nodes=[node(1), node(2)])

    result = cli("-q", "node", "list")

    assert result.output == "id-1\nid-2\n"


def test_grpcurl_prints_the_request_and_does_not_run_it(router: FakeRouter, cli: Cli) -> None:
    result = cli(
        *("model", "add", "acme/tiny", "--display-name", 'it\'s $HOME "tiny" ü'), "--grpcurl"
    )

    words = shlex.split(result.stdout)
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    assert words[4:] == [router.address, "llmrouter.v1.RegistrationService/RegisterModel"]
    assert ParseDict(
        json.loads(words[3]), registration_pb2.RegisterModelRequest()
    ) == registration_pb2.RegisterModelRequest(
        repo="acme/tiny", display_name='it\'s $HOME "tiny" ü'
    )
    assert router.requests == []


def test_grpcurl_of_a_download_names_target_and_nodes(router: FakeRouter, cli: Cli) -> None:
    result = cli(
        *("model", "download", MODEL, "--node", "a", "--node", "b"),
        *("--request-id", "r-1", "--grpcurl"),
    )

    request = ParseDict(
        json.loads(shlex.split(result.stdout)[3]), download_pb2.StartDownloadRequest()
    )
    assert request == download_pb2.StartDownloadRequest(
        model_name=MODEL,
        target=download_pb2.ORDER_TARGET_SPECIFIC,
        node_ids=["a", "b"],
        request_id="r-1",
    )


@pytest.mark.skipif(
    not shutil.which("grpcurl"),
    reason="needs grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest",
)
def test_the_printed_grpcurl_command_does_what_the_command_does(
    router: FakeRouter, cli: Cli
) -> None:
    router.answers["PauseTask"] = download_pb2.PauseTaskResponse(task=task())
    protos = ["-import-path", "protos"]
    for name in ("catalog", "download", "node", "registration"):
        protos += ["-proto", f"llmrouter/v1/{name}.proto"]

    words = shlex.split(cli("task", "pause", "t-1", "--grpcurl").stdout)
    ran = subprocess.run([words[0], *protos, *words[1:]], capture_output=True, check=True)
    cli("task", "pause", "t-1")

    assert json.loads(ran.stdout)["task"]["taskId"] == "t-1"
    assert router.requests[0] == router.requests[1]


def test_status_explains_all_its_calls(router: FakeRouter, cli: Cli) -> None:
    lines = cli("status", "--grpcurl").stdout.splitlines()

    assert [line.rsplit("/", 1)[-1] for line in lines] == ["ListNodes", "ListModels", "ListTasks"]


def test_each_download_has_a_request_id_of_its_own(router: FakeRouter, cli: Cli) -> None:
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=order(task()))

    for _ in range(2):
        cli("model", "download", MODEL, "--all", "--detach")

    first, second = router.requests
    assert isinstance(first, download_pb2.StartDownloadRequest)
    assert isinstance(second, download_pb2.StartDownloadRequest)
    assert first.request_id and second.request_id and first.request_id != second.request_id


def test_the_version_is_told() -> None:
    result = Cli("127.0.0.1:1")("--version")

    assert result.stdout.startswith("llm-router, version ")


def test_help_tells_exit_codes_and_completion() -> None:
    result = Cli("127.0.0.1:1")("--help")

    assert "Exit codes:" in result.stdout
    assert "_LLM_ROUTER_COMPLETE" in result.stdout
