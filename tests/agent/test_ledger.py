"""What an agent remembers over its own death."""

from pathlib import Path

import pytest

from agent import ledger
from agent.ledger import Remembered
from protos.llmrouter.v1 import agent_pb2
from tests.agent.support import manifest, task


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    remembered = Remembered(
        epoch=4,
        assignment_epoch=3,
        assignment=agent_pb2.Assignment(revision=9, tasks=[task(manifest(), paused=True)]),
        leftovers=(manifest("acme/left"),),
        models=(manifest("acme/here"), manifest("acme/too", known_digests=False)),
        max_hub_rate=5,
    )

    ledger.write(tmp_path / "ledger.json", remembered)

    assert ledger.read(tmp_path / "ledger.json") == remembered
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]


def test_a_first_start_remembers_nothing(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "ledger.json") == Remembered()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b'{"epoch": 1}',
        b'{"epoch": 1, "assignment_epoch": 1, "assignment": {"x": 1}}',
        b'{"epoch": 1, "assignment_epoch": 1, "assignment": {}, "leftovers": [{}], "models": []}',
    ],
)  # fmt: skip
def test_a_damaged_ledger_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.json").write_bytes(content)

    assert ledger.read(tmp_path / "ledger.json") == Remembered()
