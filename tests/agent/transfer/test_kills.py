"""A download whose process is killed again and again."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

from agent.store import Store
from tests.agent.transfer.conftest import KIB, MIB, random_bytes
from tests.fakes.http_source import FaultySource
from tests.sweeps.download_once import WINDOW_BYTES, manifest

KILLS = 4
SOCKET_BYTES = 4 * 512 * KIB  # what four connections may hold that nobody has read yet


def test_killing_the_process_loses_at_most_the_window(tmp_path: Path) -> None:
    content = random_bytes(12 * MIB)
    sha256 = hashlib.sha256(content).hexdigest()
    moments = random.Random(7)
    with FaultySource(content) as source:
        command = [
            sys.executable, "-m", "tests.sweeps.download_once",
            str(tmp_path), source.url, str(len(content)), sha256,
        ]  # fmt: skip
        for _ in range(KILLS):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            source.wait_for_bytes(source.bytes_served + moments.randrange(MIB, 3 * MIB))
            process.kill()
            process.wait()
            assert not list(tmp_path.glob("hub/models--*/snapshots/*/*"))
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)

        assert ended.returncode == 0, ended.stderr
        assert source.bytes_served <= len(content) + KILLS * (WINDOW_BYTES + SOCKET_BYTES)
    visible = tmp_path / "hub/models--o--r/snapshots" / ("c" * 40) / "model.gguf"
    assert visible.read_bytes() == content
    assert Store(tmp_path / "hub", tmp_path / "state").holds(manifest(len(content), sha256))


def test_an_orphaned_journal_is_not_believed(tmp_path: Path) -> None:
    content = random_bytes(2 * MIB)
    sha256 = hashlib.sha256(content).hexdigest()
    wanted = manifest(len(content), sha256)
    store = Store(tmp_path / "hub", tmp_path / "state")
    partial = store.open_partial(wanted, wanted.files[0])
    partial.close()
    journal = partial.path.with_name(f"{partial.path.name}.journal")
    kept = journal.read_bytes()
    os.truncate(partial.path, 100)
    journal.write_bytes(kept)

    with FaultySource(content) as source:
        command = [
            sys.executable, "-m", "tests.sweeps.download_once",
            str(tmp_path), source.url, str(len(content)), sha256,
        ]  # fmt: skip
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)

        assert ended.returncode == 0, ended.stderr
        assert source.bytes_served == len(content)
    assert Store(tmp_path / "hub", tmp_path / "state").holds(wanted)
