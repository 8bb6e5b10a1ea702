"""The secret of a fleet, in the router's data folder."""

from pathlib import Path

from router.storage.peer_key import peer_key


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    first = peer_key(tmp_path)

    assert len(first) == 32
    assert peer_key(tmp_path) == first
    (other := tmp_path / "other").mkdir()
    assert peer_key(other) != first


def test_only_the_routers_user_may_read_it(tmp_path: Path) -> None:
    peer_key(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600

    file.chmod(0o644)
    peer_key(tmp_path)

    assert file.stat().st_mode & 0o777 == 0o600


def test_a_broken_one_is_replaced_also_after_a_kill_between(tmp_path: Path) -> None:
    first = peer_key(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"short")
    file.with_name(f"{file.name}.part").write_bytes(b"half")

    second = peer_key(tmp_path)

    assert len(second) == 32
    assert second != first
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.stat().st_mode & 0o777 == 0o600
