"""`model export` and `model import`: a file appears when it is whole, or not at all."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from blake3 import blake3

from protos.llmrouter.v1 import registration_pb2 as pb
from protos.llmrouter.v1 import registration_pb2_grpc
from tests.cli.conftest import Cli

NAME = "hf/o/r/m.gguf"
CONTENT = bytes(range(256)) * 5000

Parts = Callable[[], Iterator[pb.ExportModelsResponse]]


def head(size: int = len(CONTENT)) -> pb.ExportModelsResponse:
    model = pb.BundledModel(model_name=NAME, total_bytes=size)
    return pb.ExportModelsResponse(head=pb.BundleHead(size_bytes=size, models=[model]))


def data(content: bytes) -> pb.ExportModelsResponse:
    return pb.ExportModelsResponse(data=content)


def end(content: bytes = CONTENT) -> pb.ExportModelsResponse:
    return pb.ExportModelsResponse(end=pb.BundleEnd(digest=blake3(content).digest()))


class Bundles(registration_pb2_grpc.RegistrationServiceServicer):
    """A router that sends `parts`, and takes in what comes; `fail` ends a call early."""

    def __init__(self) -> None:
        self.parts = [head(), data(CONTENT[:700_000]), data(CONTENT[700_000:]), end()]
        self.fail: tuple[grpc.StatusCode, str] | None = None
        self.received = b""
        self.asked: list[str] = []

    def ExportModels(self, request: Any, context: Any) -> Iterator[pb.ExportModelsResponse]:
        self.asked = list(request.model_names)
        yield from self.parts
        if self.fail is not None:
            context.abort(*self.fail)

    def ImportModels(self, request_iterator: Any, context: Any) -> pb.ImportModelsResponse:
        for request in request_iterator:
            self.received += request.data
            if self.fail is not None:
                context.abort(*self.fail)
        model = pb.BundledModel(model_name=NAME, total_bytes=5, already_registered=True)
        return pb.ImportModelsResponse(models=[model], new_bytes=3)


@pytest.fixture
def bundles() -> Bundles:
    return Bundles()  # type: ignore[abstract]


@pytest.fixture
def cli(bundles: Bundles) -> Iterator[Cli]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        registration_pb2_grpc.add_RegistrationServiceServicer_to_server(bundles, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Cli(f"127.0.0.1:{port}")
        server.stop(None).wait()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_writes_what_the_router_sends(cli: Cli, bundles: Bundles, tmp_path: Path) -> None:
    told = cli.json("model", "export", str(tmp_path / "b.tar"), "o/r:Q4", NAME)

    assert bundles.asked == ["o/r:Q4", NAME]
    assert (tmp_path / "b.tar").read_bytes() == CONTENT
    assert left(tmp_path) == ["b.tar"]
    assert told == {
        "file": str(tmp_path / "b.tar"),
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "models": [{"name": NAME, "size_bytes": len(CONTENT)}],
    }


WRONG = {
    "cut short": [head(), data(CONTENT[:-1]), end()],
    "without an end": [head(), data(CONTENT)],
    "other bytes": [head(), data(CONTENT[::-1]), end()],
    "more bytes": [head(), data(CONTENT), data(b"x"), end()],
    "nothing": [],
}


@pytest.mark.parametrize("parts", WRONG.values(), ids=WRONG.keys())
def test_a_bundle_that_did_not_come_whole_is_not_there(
    cli: Cli, bundles: Bundles, tmp_path: Path, parts: list[pb.ExportModelsResponse]
) -> None:
    bundles.parts = parts

    assert cli("model", "export", str(tmp_path / "b.tar"), NAME).exit_code == 1
    assert left(tmp_path) == []


def test_a_router_that_breaks_off_leaves_an_older_file_as_it_was(
    cli: Cli, bundles: Bundles, tmp_path: Path
) -> None:
    (tmp_path / "b.tar").write_text("older")
    bundles.parts = bundles.parts[:2]
    bundles.fail = (grpc.StatusCode.UNAVAILABLE, "gone")

    done = cli("model", "export", "--overwrite", str(tmp_path / "b.tar"), NAME)

    assert done.exit_code == 5
    assert left(tmp_path) == ["b.tar"]
    assert (tmp_path / "b.tar").read_text() == "older"


def test_a_file_that_is_there_is_replaced_only_when_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("older")

    refused = cli("model", "export", str(tmp_path / "b.tar"), NAME)
    done = cli("model", "export", str(tmp_path / "b.tar"), NAME, "--overwrite")

    assert refused.exit_code == 4
    assert "--overwrite" in refused.stderr
    assert done.exit_code == 0
    assert (tmp_path / "b.tar").read_bytes() == CONTENT


def test_a_bundle_that_does_not_fit_is_not_begun(
    cli: Cli, bundles: Bundles, tmp_path: Path
) -> None:
    bundles.parts = [head(1 << 60)]

    done = cli("model", "export", str(tmp_path / "b.tar"), NAME)

    assert done.exit_code == 1
    assert "free" in done.stderr
    assert left(tmp_path) == []


def test_an_import_sends_the_whole_file(cli: Cli, bundles: Bundles, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(CONTENT * 3)

    told = cli.json("model", "import", str(tmp_path / "b.tar"))

    assert bundles.received == CONTENT * 3
    assert told == {
        "models": [{"name": NAME, "size_bytes": 5, "already_registered": True}],
        "new_bytes": 3,
    }
    assert cli("model", "import", str(tmp_path / "b.tar"), "-q").stdout == f"{NAME}\n"


def test_an_import_that_is_refused_early_says_why(
    cli: Cli, bundles: Bundles, tmp_path: Path
) -> None:
    (tmp_path / "b.tar").write_bytes(CONTENT * 10)
    bundles.fail = (grpc.StatusCode.ALREADY_EXISTS, "registered with other files")

    done = cli("model", "import", str(tmp_path / "b.tar"))

    assert done.exit_code == 4
    assert "registered with other files" in done.stderr


def test_a_file_that_is_not_there_is_a_wrong_use(cli: Cli, tmp_path: Path) -> None:
    assert cli("model", "import", str(tmp_path / "none.tar")).exit_code == 2
    assert cli("model", "export", str(tmp_path / "b.tar")).exit_code == 2
    assert cli("model", "export", str(tmp_path / "no" / "b.tar"), NAME).exit_code == 1


def test_the_printed_grpcurl_command_of_an_import_reads_the_whole_file(tmp_path: Path) -> None:
    bundle = tmp_path / "it's a bundle.tar"
    bundle.write_bytes(CONTENT)

    printed = Cli("127.0.0.1:1")("model", "import", str(bundle), "--grpcurl").stdout

    fed, _, command = printed.rpartition(" | ")
    written = subprocess.run(fed, shell=True, capture_output=True, check=True).stdout.splitlines()
    messages = [base64.b64decode(json.loads(line)["data"]) for line in written]
    assert (len(messages), b"".join(messages)) == (2, CONTENT)
    assert command.startswith("grpcurl -plaintext -d @ 127.0.0.1:1 ")
