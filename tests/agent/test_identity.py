"""Who a node is, over its starts."""

from pathlib import Path

import pytest

from agent.identity import DamagedIdentity, DataFolderInUse, data_folder, node_id
from protos import names


def test_an_id_is_made_once_and_follows_the_grammar(tmp_path: Path) -> None:
    with data_folder(tmp_path / "data") as folder:
        made = node_id(folder)
    with data_folder(tmp_path / "data") as folder:
        again = node_id(folder)

    assert names.node_id(made) == again


def test_two_folders_are_two_nodes(tmp_path: Path) -> None:
    with data_folder(tmp_path / "a") as one, data_folder(tmp_path / "b") as two:
        assert node_id(one) != node_id(two)


@pytest.mark.parametrize("content", [b"", b"Not An Id", b"\xff\xfe", b"../x"])
def test_a_damaged_id_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node-id").write_bytes(content)

    with pytest.raises(DamagedIdentity):
        node_id(tmp_path)

    assert (tmp_path / "node-id").read_bytes() == content


def test_one_agent_at_a_time_may_use_a_folder(tmp_path: Path) -> None:
    with data_folder(tmp_path), pytest.raises(DataFolderInUse), data_folder(tmp_path):
        pass

    with data_folder(tmp_path):
        pass


def test_nobody_else_can_read_the_folder(tmp_path: Path) -> None:
    with data_folder(tmp_path / "data") as folder:
        node_id(folder)

        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / "node-id").stat().st_mode & 0o077 == 0
