"""`model outdated` and `model upgrade`."""

import grpc
import pytest

from protos.llmrouter.v1 import registration_pb2 as pb
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter, Refusal
from tests.cli.samples import MODEL, outdated, upgraded


def page(request: pb.ListOutdatedModelsRequest) -> pb.ListOutdatedModelsResponse:
    """Two pages: trouble, then an outdated model."""
    if request.page_token:
        return pb.ListOutdatedModelsResponse(models=[outdated()])
    trouble = pb.UncheckedModel(
        model_name="hf/a/b/c.gguf", code="hub_gated", message="the Hub gives it on request only"
    )
    return pb.ListOutdatedModelsResponse(unchecked=[trouble], next_page_token="2")


def test_what_is_outdated_is_listed_with_what_a_node_would_fetch(
    cli: Cli, router: FakeRouter
) -> None:
    router.answers["ListOutdatedModels"] = pb.ListOutdatedModelsResponse(models=[outdated()])

    result = cli("model", "outdated")

    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split()[:3] == ["NAME", "COMMIT", "NEWEST"]
    assert row.split()[:3] == [MODEL, "c" * 12, "d" * 12]
    assert row.endswith("3.0 GB")
    assert "model upgrade MODEL" in result.stderr
    assert cli("model", "outdated", "-q").stdout == f"{MODEL}\n"


def test_trouble_with_one_model_hides_no_other_and_ends_with_1(
    cli: Cli, router: FakeRouter
) -> None:
    router.answers["ListOutdatedModels"] = page

    result = cli("model", "outdated")

    assert result.exit_code == 1
    assert MODEL in result.stdout
    assert "hf/a/b/c.gguf could not be compared: the Hub gives it on request" in result.stderr
    said = cli.json("model", "outdated")
    assert [one["name"] for one in said["models"]] == [MODEL]
    assert [one["code"] for one in said["unchecked"]] == ["hub_gated"]


def test_nothing_outdated_is_said_so(cli: Cli, router: FakeRouter) -> None:
    router.answers["ListOutdatedModels"] = pb.ListOutdatedModelsResponse()

    result = cli("model", "outdated")

    assert (result.exit_code, "up to date" in result.stderr) == (0, True)


def test_an_upgrade_tells_what_changed_and_what_comes_next(cli: Cli, router: FakeRouter) -> None:
    router.answers["UpgradeModel"] = upgraded()

    result = cli("model", "upgrade", MODEL)

    assert result.exit_code == 0
    assert router.requests == [pb.UpgradeModelRequest(model_name=MODEL)]
    assert "4.0 GB on each node" in result.stdout
    assert "mmproj.gguf" in result.stdout
    assert "Warning: large" in result.stderr
    assert f"model download {MODEL} --all" in result.stderr


def test_a_model_that_waits_for_its_conversion_is_not_to_be_downloaded(
    cli: Cli, router: FakeRouter
) -> None:
    reply = upgraded()
    reply.model.status = pb.MODEL_STATUS_PENDING_CONVERSION
    router.answers["UpgradeModel"] = reply
    router.answers["RegisterModel"] = pb.RegisterModelResponse(model=reply.model)

    for command in (("model", "upgrade", MODEL), ("model", "add", "acme/tiny")):
        result = cli(*command)
        assert result.exit_code == 0
        assert "download" not in result.stderr


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "UP_TO_DATE", 4),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_BUSY", 4),
        (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", 3),
        (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND", 3),
        (grpc.StatusCode.PERMISSION_DENIED, "HUB_GATED", 6),
        (grpc.StatusCode.UNAVAILABLE, "HUB_RATE_LIMITED", 5),
    ],
)
def test_a_refusal_ends_with_its_exit_code_and_a_next_step(
    cli: Cli, router: FakeRouter, code: grpc.StatusCode, reason: str, exit_code: int
) -> None:
    router.answers["UpgradeModel"] = Refusal(code, "it cannot be", reason)

    result = cli("model", "upgrade", MODEL)

    assert result.exit_code == exit_code
    assert "it cannot be" in result.stderr
    assert "Next:" in result.stderr


def test_the_commands_as_grpcurl(cli: Cli) -> None:
    for command, method in (
        (("model", "outdated"), "ListOutdatedModels"),
        (("model", "upgrade", MODEL), "UpgradeModel"),
    ):
        said = cli(*command, "--grpcurl").stdout
        assert said.startswith("grpcurl -plaintext")
        assert said.rstrip().endswith(f"llmrouter.v1.RegistrationService/{method}")
