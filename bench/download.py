"""One file, one source, one run: our engine beside the tools that people use.

    python -m bench.download [--size-mib 512] [--rounds 3] [--dir FOLDER] [--minutes 7]
                             [--place NAME] [--json] [--plot FILE.svg]

nginx serves random files on this machine: plain, over TLS, throttled to 20 MB/s for each
connection, as many small files, and, with the right to make network namespaces, behind 80 ms and
0.1 % loss (the last two kinds and the throttled one with an eighth of the size). Every client
downloads into the same folder as a process of its own, in interleaved rounds. People run the others
as commands, so their start counts; `llm-router, running` is the same run of ours without the start
of Python, because an agent is a service that is running when an order comes. All ratios are to that
row; the row `llm-router` says what the start of a process would add. `hf_xet` reads the same file
from a Xet store in a folder, which nobody has to serve.
Per client: the median GB/s with its spread, its speed as a ratio of ours (of rounds side by side,
with spread), processor seconds per GiB (of the client alone), peak memory (never below this
program's own, which the system counts for its children). Clients that are not installed are left
out. Put `--dir` on a memory file system to measure the clients rather than the disk; ours flushes
what it journals, the others do not. After `--minutes` no further round begins.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import xet
from bench.plot import Bar, write_bars
from bench.sources import Place, places

_OURS = "llm-router"
_RUNNING = f"{_OURS}, running"


@dataclass(frozen=True)
class Client:
    """A program that downloads a place's files into a folder."""

    name: str
    verifies: bool
    command: Callable[[Place, Path], list[str]]


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """One client at one place; medians, and the slowest and fastest round."""

    place: str
    verified: bool
    client: str
    gb_per_second: float
    slowest: float
    fastest: float
    ratio_to_ours: float
    smallest_ratio: float
    largest_ratio: float
    cpu_seconds_per_gib: float
    peak_mib: float
    rounds: int


def ours(verified: bool) -> Client:
    """The engine; only whole models are fetched in several files, and those are verified."""

    def command(place: Place, folder: Path) -> list[str]:
        job = {
            "verify": verified,
            "cafile": str(place.certificate or ""),
            "files": [
                {
                    "path": file.path.name,
                    "url": place.url(file),
                    "size": file.size,
                    "sha256": file.sha256,
                }
                for file in place.files
            ],
        }
        written = folder.parent / "job.json"
        written.write_text(json.dumps(job))
        return [sys.executable, "-m", "bench.fetch_once", str(written), str(folder)]

    return Client(_OURS, verified, command)


def curl(place: Place, folder: Path) -> list[str]:
    """One connection; for several files as many at once as it usually takes."""
    trust = ["--cacert", str(place.certificate)] if place.certificate else []
    several = ["--parallel"] if len(place.files) > 1 else []
    wanted = [
        word
        for file in place.files
        for word in ("-o", str(folder / file.path.name), place.url(file))
    ]
    return ["curl", "-sS", "--fail", *trust, *several, *wanted]


def aria2(*extra: str) -> Callable[[Place, Path], list[str]]:
    """Eight connections for one file, eight files at once for several."""

    def command(place: Place, folder: Path) -> list[str]:
        listed = folder.parent / "aria2.txt"
        listed.write_text("\n".join(place.url(file) for file in place.files))
        checks = [f"--checksum=sha-256={place.files[0].sha256}"] if extra else []
        return [
            "aria2c", "-q", "-x8", "-s8", "-j8", "--file-allocation=falloc", *checks,
            *([f"--ca-certificate={place.certificate}"] if place.certificate else []),
            "-d", str(folder), "-i", str(listed),
        ]  # fmt: skip

    return command


def hf(place: Place, folder: Path) -> list[str]:
    """The Hub's own command, by plain HTTP: this source has no Xet."""
    return [
        "env", f"HF_ENDPOINT={place.base}", f"HF_HOME={folder}/home", "HF_HUB_DISABLE_XET=1",
        "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_DISABLE_PROGRESS_BARS=1",
        f"SSL_CERT_FILE={place.certificate or ''}",
        str(Path(sys.executable).with_name("hf")), "download", "o/r", place.files[0].path.name,
    ]  # fmt: skip


def hf_xet(place: Place, folder: Path) -> list[str]:
    """The Hub's other protocol, without the Hub."""
    assert place.xet is not None
    return xet.command(place.xet, folder / place.files[0].path.name)


def then_sum(first: Callable[[Place, Path], list[str]]) -> Callable[[Place, Path], list[str]]:
    """The same, and `sha256sum` of what came."""
    script = 'folder=$1 sums=$2; shift 2; "$@" >&2 && find -L "$folder" -name "*.gguf" -type f'
    script += ' -exec sha256sum {} + | cut -c 1-64 | sort -u | cmp -s - "$sums"'

    def command(place: Place, folder: Path) -> list[str]:
        sums = folder.parent / "sums.txt"
        sums.write_text("".join(f"{s}\n" for s in sorted({file.sha256 for file in place.files})))
        return ["sh", "-c", script, "-", str(folder), str(sums), *first(place, folder)]

    return command


def clients(place: Place, verified: bool) -> list[Client]:
    """Ours first, then what is installed."""
    one = len(place.files) == 1
    found = [ours(verified or not one)]
    peers: list[tuple[str, str, Callable[[Place, Path], list[str]]]] = [
        ("curl", "curl" if one else "curl --parallel", curl),
        ("aria2c", "aria2c -x8" if one else "aria2c -j8", aria2()),
    ]
    if one and Path(sys.executable).with_name("hf").exists():
        peers.append(("env", "hf download", hf))
    if place.xet is not None:
        peers.append(("env", "hf_xet, local store", hf_xet))
    for program, name, command in peers:
        if shutil.which(program) is not None and not verified:
            found.append(Client(name, False, command))
        elif shutil.which(program) is not None:
            found.append(Client(f"{name}, sha256sum", True, then_sum(command)))
    if verified and one and shutil.which("aria2c") is not None:
        found.append(Client("aria2c -x8 --checksum", True, aria2("checked")))
    return found


def measure(command: list[str]) -> tuple[Run, bytes]:
    """Runs one process to its end; also what it printed. Raises `SystemExit` when it fails."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=complained)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        complained.seek(0)
        if status != 0:
            raise SystemExit(f"{command[:9]} failed: {complained.read().decode()[-500:]}")
        said.seek(0)
        taken = Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        return taken, said.read()


def compare(
    place: Place, verified: bool, folder: Path, rounds: int, deadline: float
) -> list[Result]:
    """Interleaved rounds, in another order each time; at least one."""
    contestants = clients(place, verified)
    runs: dict[str, list[Run]] = {client.name: [] for client in contestants}
    running: list[Run] = []
    for number in range(rounds):
        if number and time.monotonic() > deadline:
            break
        for client in random.Random(number).sample(contestants, len(contestants)):
            target = folder / "target"
            target.mkdir()
            run, said = measure(client.command(place, target))
            runs[client.name].append(run)
            if client.name == _OURS:
                told = json.loads(said)
                running.append(Run(told["seconds"], told["cpu_seconds"], run.peak_bytes))
            shutil.rmtree(target)
    runs = {_RUNNING: running, _OURS: runs.pop(_OURS), **runs}
    return [_result(place, verified, name, taken, running) for name, taken in runs.items()]


def _result(place: Place, verified: bool, name: str, runs: list[Run], own: list[Run]) -> Result:
    speed = [place.size / run.seconds / 1e9 for run in runs]
    ratios = [mine.seconds / run.seconds for run, mine in zip(runs, own, strict=True)]
    return Result(
        place.name, verified, name,
        round(statistics.median(speed), 3), round(min(speed), 3), round(max(speed), 3),
        round(statistics.median(ratios), 2), round(min(ratios), 2), round(max(ratios), 2),
        round(statistics.median(run.cpu_seconds for run in runs) / (place.size / 2**30), 2),
        round(max(run.peak_bytes for run in runs) / 2**20, 1),
        len(runs),
    )  # fmt: skip


def show(results: list[Result]) -> None:
    """A table for a person."""
    for row in results:
        kind = "verified  " if row.verified else "unverified"
        print(
            f"{row.place:<22} {kind} {row.client:<26} {row.gb_per_second:6.3f} GB/s "
            f"({row.slowest:.3f}-{row.fastest:.3f})  {row.ratio_to_ours:5.2f} x ours "
            f"({row.smallest_ratio:.2f}-{row.largest_ratio:.2f})  "
            f"{row.cpu_seconds_per_gib:5.2f} CPU s/GiB  {row.peak_mib:6.1f} MiB",
            flush=True,
        )


def plot(path: Path, results: list[Result]) -> None:
    """Draws every comparison of a run."""
    groups: dict[str, list[Bar]] = {}
    for row in results:
        name = f"{row.place}, {'verified' if row.verified else 'not verified'}"
        note = f"{row.gb_per_second:.3f} GB/s, {row.cpu_seconds_per_gib:.1f} CPU s/GiB"
        bar = Bar(
            row.client, row.gb_per_second, row.slowest, row.fastest, note, _OURS in row.client
        )
        groups.setdefault(name, []).append(bar)
    write_bars(path, "One node downloads: median and spread", list(groups.items()))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dir", type=Path, help="where to download to; a temporary folder if unset"
    )
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--place", action="append", help="only places whose name begins so")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("this benchmark needs nginx as its source")
    deadline = time.monotonic() + arguments.minutes * 60
    size = arguments.size_mib << 20
    results: list[Result] = []
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with places(folder, size, max(1 << 20, size // 8)) as found:
            for place in found:
                if not any(place.name.startswith(p) for p in arguments.place or [""]):
                    continue
                for verified in (False, True):
                    rows = compare(place, verified, folder, arguments.rounds, deadline)
                    results += rows
                    if not arguments.json:
                        show(rows)
    if arguments.json:
        print(json.dumps([asdict(row) for row in results], indent=2))
    if arguments.plot:
        plot(arguments.plot, results)


if __name__ == "__main__":
    main()
