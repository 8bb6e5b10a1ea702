"""A terminal for tests: runs the command in it and lets a test read the screen."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from types import TracebackType

import pyte

_PROJECT = Path(__file__).parents[2]


class Terminal:
    """`llm-router ARGUMENTS…` on a terminal of this size."""

    def __init__(self, arguments: list[str], router: str, *, columns: int, lines: int) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.raw = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "CI")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            env=environment | {"LLM_ROUTER_ADDRESS": router, "TERM": "xterm-256color"},
            cwd=_PROJECT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Terminal":
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._ours)

    def text(self) -> str:
        """The screen as it is now, without the blanks at the ends."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def scrolled(self) -> int:
        """How many lines have left the screen at its top."""
        with self._lock:
            return len(self._screen.history.top)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        """Waits for the end of the command, and for the last of what it wrote."""
        code = self._process.wait(timeout=60)
        self._reader.join(timeout=60)
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:  # Linux says EIO when the other side is closed
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)
