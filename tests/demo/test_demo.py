"""The story of the demo, with programs that pretend: what it checks, and what it leaves behind."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from deploy.demo.demo import CHECKOUT, Demo, DemoFailed
from tests.demo import fake_programs
from tests.support import eventually

SMALL = 1 << 18
SHARD = "wide-llama-Q8_0-00003-of-00003.gguf"


def running(pids: list[int]) -> list[int]:
    """Those that still run; one that ended and waits for its parent does not count."""
    found = [process for process in psutil.process_iter() if process.pid in pids]
    return [process.pid for process in found if process.status() != psutil.STATUS_ZOMBIE]


def pids_below(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder of executables as an installation makes them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    source = Path(fake_programs.__file__).read_text(encoding="utf-8")
    for program in fake_programs.PROGRAMS:
        (folder / program).write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        (folder / program).chmod(0o755)
    return folder


def tell(scripts: Path, folder: Path) -> str:
    """Runs the demo; returns what it printed, also what it printed before it failed."""
    folder.mkdir()
    output = io.StringIO()
    try:
        Demo(scripts, folder, Console(file=output, width=200), big_bytes=SMALL).run(keep=False)
    except DemoFailed as failure:
        output.write(f"FAILED: {failure}")
    return output.getvalue()


def test_the_demo_holds_when_everything_does_what_it_shall(scripts: Path, tmp_path: Path) -> None:
    output = tell(scripts, tmp_path / "run")

    assert "Everything held: 2 models on 3 nodes, 12 files" in output
    assert "stopped with exit code 0" in output
    assert len(pids_below(tmp_path / "run")) == 5
    assert not running(pids_below(tmp_path / "run"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("status fails", "FAILED: llm-router status ended with code 5"),
        (f"one bit of {SHARD} flips on node-2", f"FAILED: Q8_0/{SHARD} on node-2: wrong bytes"),
        (f"{SHARD} is missing on node-3", f"FAILED: Q8_0/{SHARD} on node-3: missing"),
        ("not listed", "FAILED: /v1/models does not list hf/tiny-org/wide-llama-GGUF/Q8_0/"),
        ("not ready", "FAILED: /v1/models says that no node holds hf/tiny-org/big-llama"),
    ],
)
def test_the_demo_fails_and_says_why(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setenv("DEMO_FAULT", fault)

    output = tell(scripts, tmp_path / "run")

    assert words in output
    assert not running(pids_below(tmp_path / "run"))


def test_the_log_of_a_daemon_that_died_is_shown(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_FAULT", "llm-router-server dies")

    output = tell(scripts, tmp_path / "run")

    assert "FAILED: router ended with code 1 before it served" in output
    assert "router ended with 1; its last lines:" in output
    assert "the disk is on fire" in output
    assert "hub ended" not in output


def test_only_the_log_of_a_daemon_that_ended_badly_is_shown(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_FAULT", "llm-router-agent ends badly")

    output = tell(scripts, tmp_path / "run")

    assert "node-1 ended with code 3" in output.rpartition("FAILED")[2]
    assert "llm-router-agent begins" in output
    assert "llm-router-hub begins" not in output


def test_a_missing_program_is_named(scripts: Path, tmp_path: Path) -> None:
    (scripts / "llm-router-agent").unlink()

    output = tell(scripts, tmp_path / "run")

    assert "llm-router-agent is missing: install the project first" in output
    assert not running(pids_below(tmp_path / "run"))


def test_settings_of_the_user_do_not_reach_the_demo(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "LLM_ROUTER_DATA_DIR"):
        monkeypatch.setenv(name, "somewhere else")
    (scripts / "llm-router-hub").write_text("#!/bin/sh\nenv | grep -E '^(HF|LLM)'\nexit 9\n")

    output = tell(scripts, tmp_path / "run")

    assert f"HF_HOME={tmp_path}" in output
    assert "somewhere else" not in output


@pytest.fixture
def whole(
    scripts: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator["subprocess.Popen[str]"]:
    """The demo as a process of its own, below `tmp_path/demo`, with the arguments of the test."""
    places = f"parent=Path({str(tmp_path / 'demo')!r}), scripts=Path({str(scripts)!r})"
    call = f"main({places}, big_bytes={SMALL}, {request.param})"
    code = (
        f"import sys; from pathlib import Path; from deploy.demo.demo import main; sys.exit({call})"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def hanging_run(folder: Path) -> Path:
    """Waits until a download of the demo hangs; the folder of that run."""
    (mark,) = eventually(lambda: list(folder.glob("run-*/hangs")))
    return mark.parent


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_FAULT", "download hangs")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole", ["keep=False"], indirect=True)
def test_an_interrupted_demo_leaves_nothing_behind(
    hangs: None, whole: "subprocess.Popen[str]", tmp_path: Path, signal_number: signal.Signals
) -> None:
    run = hanging_run(tmp_path / "demo")
    pids = pids_below(run)
    assert len(running(pids)) == 6

    whole.send_signal(signal_number)

    output, _ = whole.communicate()
    assert whole.returncode == 130, output
    assert not running(pids)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("whole", ["keep=False"], indirect=True)
def test_no_process_outlives_a_killed_demo(
    hangs: None, whole: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    pids = pids_below(hanging_run(tmp_path / "demo"))

    whole.kill()

    eventually(lambda: not running(pids))


@pytest.mark.parametrize("whole", ["keep=True"], indirect=True)
def test_a_kept_demo_serves_until_it_is_interrupted(
    whole: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    assert whole.stdout is not None
    told = list(takewhile(lambda line: "HF_ENDPOINT" not in line, whole.stdout))
    (run,) = (tmp_path / "demo").iterdir()
    pids = pids_below(run)
    assert len(running(pids)) == 5
    assert any("/dashboard" in line for line in told)

    whole.send_signal(signal.SIGINT)

    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    assert not running(pids)
    assert not (tmp_path / "demo").exists()
