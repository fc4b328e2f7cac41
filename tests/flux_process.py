"""`python -m flux` as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FluxResult:
    """How a run of flux ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class FluxProcess:
    """Runs flux in a directory of the test's own."""

    directory: Path

    def __call__(
        self,
        *arguments: str | os.PathLike[str],
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        stdin: str = "",
        timeout: float = 180,
    ) -> FluxResult:
        """Run `python -m flux ARGUMENTS` to its end.

        Args:
            arguments: the command line after `flux`.
            cwd: where it runs; the test's `tmp_path` when left out.
            env: environment variables to set, or to remove (None).
            stdin: what it reads; it is never a terminal.
            timeout: seconds, after which it is killed and the test fails.
        """
        command = [sys.executable, "-m", "flux", *(os.fspath(argument) for argument in arguments)]
        return run_to_end(
            command,
            cwd=cwd or self.directory,
            env=flux_environment(env),
            stdin=stdin,
            timeout=timeout,
        )


def run_to_end(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str = "",
    timeout: float = 120,
) -> FluxResult:
    """Run a program to its end, away from a terminal; the test fails after `timeout` seconds."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"{command} still ran after {timeout} s; so far:\n{late.stdout!r}\n{late.stderr!r}"
        ) from None
    return FluxResult(done.returncode, done.stdout, done.stderr)


#: For a pytest that a test runs. With this plugin mirakuru (3.1) is imported, which at the end of
#: the process kills every server whose mark has the digits of that process's number in it.
_PYTEST = {"PYTEST_ADDOPTS": "-p no:pytest_postgresql"}


def flux_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment that flux gets: the tests' own, without what would steer flux or libpq."""
    steering = ("FLUX_", "PG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR")
    environment: dict[str, str | None] = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(steering)
    }
    environment |= {"PYTHONUTF8": "1", "COLUMNS": "100", **_PYTEST, **(changes or {})}
    return {name: value for name, value in environment.items() if value is not None}
