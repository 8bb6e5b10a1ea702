"""The daemons of the demo: started from the installed scripts, heard when they serve, ended."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_READY_SECONDS = 90.0
_DRAIN_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """For `preexec_fn`: the kernel sends SIGTERM when the demo is killed (Linux: `man 2 prctl`)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class DaemonTrouble(Exception):
    """A daemon ended, never served, or did not stop; the message names it and says what it did."""


class Daemon:
    """One process with its own session, so that Ctrl-C reaches the demo alone."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Starts the process. `--ready-file` is added; log and ready file lie in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / "log.txt"
        self._ready_file = folder / "ready.json"
        self._command = [*command, "--ready-file", str(self._ready_file)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the process runs."""
        return self._process.poll()

    def addresses(self, *kinds: str) -> list[str]:
        """Waits until the daemon serves; where it does, as HOST:PORT, for each kind that is named.

        Raises `DaemonTrouble` when it ends before, does not serve within 90 s, or does not say
        one of the addresses (`http`, `grpc`, `peer`).
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready_file.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_LOOK_SECONDS)
                raise DaemonTrouble(f"{self.name} ended with code {code} before it served")
            if time.monotonic() > deadline:
                raise DaemonTrouble(f"{self.name} did not serve within {_READY_SECONDS:.0f} s")
        ready = json.loads(self._ready_file.read_bytes())
        if missing := [kind for kind in kinds if kind not in ready]:
            raise DaemonTrouble(f"{self.name} does not say where it serves {', '.join(missing)}")
        return [str(ready[kind]).removeprefix("http://") for kind in kinds]

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of what the daemon logged."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n") for line in deque(lines, maxlen=count)]

    def stop(self) -> None:
        """Asks the process to end (SIGTERM), and ends it with all its children if it does not.

        Afterwards it is gone. Raises `DaemonTrouble` when it had to be killed or its exit code was
        not 0.
        """
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            code = self._process.wait(_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            raise DaemonTrouble(
                f"{self.name} did not stop within {_DRAIN_SECONDS:.0f} s of SIGTERM"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        if code:
            raise DaemonTrouble(f"{self.name} ended with code {code}")


class Daemons:
    """All daemons of one run, ended in the opposite order at the end of the `with` block."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._started: list[Daemon] = []
        self._running: list[Daemon] = []

    def start(self, name: str, command: Sequence[str]) -> Daemon:
        """Starts one more; its files lie in a folder of its name."""
        daemon = Daemon(name, command, self._folder / name, self._environment)
        self._started.append(daemon)
        self._running.append(daemon)
        return daemon

    def dead(self) -> list[Daemon]:
        """Those that ended by themselves."""
        return [daemon for daemon in self._running if daemon.exit_code is not None]

    def __iter__(self) -> Iterator[Daemon]:
        """All that were started, first to last."""
        return iter(self._started)

    def stop(self) -> list[str]:
        """Ends all; returns what went wrong, a sentence each."""
        troubles = []
        while self._running:
            try:
                self._running.pop().stop()
            except DaemonTrouble as trouble:
                troubles.append(str(trouble))
        return troubles

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
