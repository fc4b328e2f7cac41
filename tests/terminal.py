"""flux at a pseudo-terminal, as somebody at a keyboard has it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.flux_process import flux_environment
from tests.project import HANGS_AFTER, Project

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, nor pty")


class Terminal:
    """flux at a pseudo-terminal: what it shows is read, and answers are typed."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.shown = ""

    def read_until(self, end: str) -> str:
        """What is shown from here on up to and with `end`."""
        start = len(self.shown)
        while end not in self.shown[start:]:
            piece = self._read()
            assert piece, f"it ended, and had shown {self.shown!r}"
        return self.shown[start:]

    def type(self, text: str) -> None:
        """Press the keys of a text."""
        os.write(self._master, text.encode())

    def resize(self, *, columns: int) -> None:
        """Make the terminal that wide."""
        import fcntl
        import termios

        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def read_to_the_end(self) -> str:
        """All that is shown from here on."""
        start = len(self.shown)
        while self._read():
            pass
        return self.shown[start:]

    def _read(self) -> str:
        try:
            piece = os.read(self._master, 65536).decode().replace("\r\n", "\n")
        except OSError:  # Linux: the other end is closed
            piece = ""
        self.shown += piece
        return piece


@contextmanager
def at_terminal(
    project: Project,
    *arguments: str,
    env: Mapping[str, str | None] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Iterator[Terminal]:
    import pty

    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "flux", *arguments],
        cwd=project.root,
        env=flux_environment({"TERM": "xterm", **(env or {})}),
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave if stderr is None else stderr,
    ) as process:
        os.close(slave)
        watchdog = threading.Timer(HANGS_AFTER, process.kill)
        watchdog.start()
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)
            watchdog.cancel()
