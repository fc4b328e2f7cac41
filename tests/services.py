"""A program that runs until the test ends it: a web server, a worker."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HANGS_AFTER = 180.0  # seconds; machines may be busy


class Service(NamedTuple):
    """A program that was started, and the file with all that it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """All that it has said so far, on both streams."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said this so often. Fails when it ends before."""

        def has_come() -> bool:
            ended = self.process.poll() is not None
            found = self.said().count(text) >= times
            assert found or not ended, f"it has ended without {text!r}:\n{self.said()}"
            return found

        wait_until(has_come, lambda: f"no {text!r} in:\n{self.said()}")

    def exit_code(self) -> int:
        """Wait until it ends by itself; how it did."""
        return self.process.wait(HANGS_AFTER)


@contextmanager
def running(command: Sequence[str], directory: Path, env: dict[str, str]) -> Iterator[Service]:
    """Run a program in `directory` until the block ends; then it gets a SIGTERM."""
    number = len(list(directory.glob("*.service-log")))
    log = directory / f"{number}.service-log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    with process:
        try:
            yield Service(process, log)
        finally:
            process.terminate()
            try:
                process.wait(HANGS_AFTER)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_until(condition: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Wait until something holds; fails with `problem` when it does not in time."""
    deadline = time.monotonic() + HANGS_AFTER
    while not condition():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.05)
