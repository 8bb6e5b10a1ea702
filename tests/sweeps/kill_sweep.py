"""Kills a download at every kind of moment, and sees that it ends right all the same.

    python -m tests.sweeps.kill_sweep [--kills 200] [--moments 12] [--seed 1]

1. One download, killed again and again at random moments: the file is right in the end, and the
   source served at most the size plus, for each kill, the window of unflushed bytes (and what the
   sockets held).
2. With `strace` (and the right to trace): killed at the n-th call of everything that writes,
   flushes, renames, links or removes; then run once more.
3. With `strace`: the disk is full, fails, or is read-only at such a call: the error has its name,
   nothing wrong is visible, and the next run ends right.

Prints one line per row and exits 1 when one failed.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.store import Store
from tests.fakes.http_source import FaultySource
from tests.sweeps.download_once import WINDOW_BYTES, manifest

_SOCKET_BYTES = 4 * (512 << 10)  # four connections, each with what nobody had read yet
_CALLS = (
    "splice",
    "pwrite64",
    "write",
    "fdatasync",
    "fsync",
    "fallocate",
    "rename",
    "symlink",
    "unlink",
)
_ERRORS = (
    ("fallocate", "ENOSPC", "disk_full"),
    ("fdatasync", "EIO", "store_failed"),
    ("fsync", "EIO", "store_failed"),
    ("rename", "EROFS", "store_read_only"),
    ("symlink", "EDQUOT", "disk_full"),
)


@dataclass(frozen=True)
class Row:
    """One thing that was tried."""

    what: str
    problem: str  # empty when all was well


class Sweep:
    """One content behind a source, downloaded into fresh folders."""

    def __init__(self, source: FaultySource) -> None:
        self._source = source
        self._sha256 = hashlib.sha256(source.content).hexdigest()

    def command(self, folder: Path) -> list[str]:
        """The download as a process."""
        size = str(len(self._source.content))
        module = "tests.sweeps.download_once"
        return [sys.executable, "-m", module, str(folder), self._source.url, size, self._sha256]

    def check_unfinished(self, folder: Path) -> str:
        """After a kill: whatever is visible is whole."""
        for visible in folder.glob("hub/models--*/snapshots/*/*"):
            if visible.read_bytes() != self._source.content:
                return f"{visible.name} is visible and wrong"
        return ""

    def check_finished(self, folder: Path) -> str:
        """Runs it undisturbed; then the file must be there, verified, and nothing else."""
        ended = subprocess.run(self.command(folder), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            return f"the next run failed: {ended.stderr.strip()[-300:]}"
        store = Store(folder / "hub", folder / "state")
        if not store.holds(manifest(len(self._source.content), self._sha256)):
            return "the next run ended, but the file is not held"
        left = [p.name for p in folder.glob("hub/.locks/llm-router/*") if p.suffix != ".lock"]
        return f"left over: {left}" if left else self.check_unfinished(folder)

    def random_kills(self, kills: int, seed: int) -> Row:
        """Part 1: the moments are so chosen that the last kill comes before the last byte."""
        moments = random.Random(seed)
        self._source.bytes_served = 0
        done = 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for _ in range(kills):
                process = subprocess.Popen(self.command(folder), stderr=subprocess.DEVNULL)
                further = moments.randrange(
                    1 << 10, max(2 << 10, len(self._source.content) // kills)
                )
                self._source.wait_for_bytes(self._source.bytes_served + further)
                process.kill()
                process.wait()
                done += 1
                if problem := self.check_unfinished(folder):
                    return Row("random kills", problem)
            problem = self.check_finished(folder)
        served, size = self._source.bytes_served, len(self._source.content)
        allowed = size + done * (WINDOW_BYTES + _SOCKET_BYTES)
        what = (
            f"{done} random kills: served {served / size:.3f} x size, allowed {allowed / size:.3f}"
        )
        return Row(what, problem or ("" if served <= allowed else "too much was fetched again"))

    def kills_at_calls(self, moments: int) -> Iterator[Row]:
        """Part 2."""
        for call in _CALLS:
            for moment in range(1, moments + 1):
                yield self._injected(call, f"signal=KILL:when={moment}", None)

    def errors_at_calls(self) -> Iterator[Row]:
        """Part 3."""
        for call, error, code in _ERRORS:
            yield self._injected(call, f"error={error}:when=1", code)
        for first in ("1", "10"):  # a splice out of the socket that fails is tried again
            yield self._injected("splice", f"error=ENOSPC:when={first}+", "disk_full")
            yield self._injected("pwrite64", f"error=ENOSPC:when={first}+", "disk_full")

    def _injected(self, call: str, injection: str, code: str | None) -> Row:
        what = f"{call} {injection}"
        injected = ["-e", f"inject={call}:{injection}"]
        if call == "pwrite64":
            injected += ["-e", "inject=splice:error=EINVAL"]  # as where it is not known
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            traced = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call},splice",
                 *injected, *self.command(folder)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            problem = self.check_unfinished(folder)
            if code is not None and not problem and code not in traced.stderr:
                problem = f"expected {code}, got {traced.stderr.strip()[-300:]}"
            return Row(what, problem or self.check_finished(folder))


def main() -> int:
    """Runs the sweep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--moments", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size-mib", type=int, default=256, help="for the random kills")
    arguments = parser.parse_args()
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        print(f"{'WRONG' if row.problem else 'ok   '} {row.what} {row.problem}", flush=True)

    seeded = random.Random(2)
    content = b"".join(seeded.randbytes(1 << 20) for _ in range(arguments.size_mib))
    with FaultySource(content) as large:
        tell(Sweep(large).random_kills(arguments.kills, arguments.seed))
    if shutil.which("strace") is None:
        print("strace is not installed: parts 2 and 3 are left out")
    else:
        with FaultySource(random.Random(3).randbytes(4 << 20)) as small:
            sweep = Sweep(small)
            for row in sweep.kills_at_calls(arguments.moments):
                tell(row)
            for row in sweep.errors_at_calls():
                tell(row)
    wrong = sum(bool(row.problem) for row in rows)
    print(f"{len(rows)} rows, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
