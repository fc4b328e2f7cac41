"""flux-migrations 0.0.3 as its users have it: the real package, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.flux_process import flux_environment
from tests.project import HANGS_AFTER

_BIN = "Scripts" if sys.platform == "win32" else "bin"
#: What `flux-migrations[postgres]` 0.0.3 asks for; not aiopg, which it never imports.
_REQUIREMENTS = (
    "databases>=0.9,<0.10",
    # 0.0.3 asks for 0.29, which was never built for Python 3.13 and does not compile there.
    "asyncpg>=0.29,<0.30" if sys.version_info < (3, 13) else "asyncpg>=0.30,<0.31",
    "sqlparse>=0.5.1,<0.6",
    "toml>=0.10.2,<0.11",
    "typer>=0.12.3,<0.13",
    "click<8.2",  # typer 0.12 takes any, and breaks with later ones
)


class LegacyUnavailableError(Exception):
    """flux-migrations 0.0.3 cannot be installed here; the message says why."""


@dataclass(frozen=True)
class LegacyFlux:
    """The `flux` of 0.0.3, run by the Python of its own environment."""

    python: Path

    def apply(self, project: Path, url: str) -> None:
        """Apply all migrations of a project; they must succeed."""
        with self.started(project, "apply", url, "--auto-approve") as process:
            out, err = process.communicate()
        assert process.returncode == 0, out + err

    @contextmanager
    def started(self, project: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """0.0.3 as a process beside the test; killed at the end, or when it hangs."""
        process = subprocess.Popen(
            [self.python, "-m", "flux", *arguments],
            cwd=project,
            env=flux_environment({"TERM": "dumb"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        watchdog = threading.Timer(HANGS_AFTER, process.kill)
        watchdog.start()
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            watchdog.cancel()


def install_legacy_flux(cache: Path) -> LegacyFlux:
    """Install flux-migrations 0.0.3 into an environment below `cache`, unless it is there.

    Raises: LegacyUnavailableError when the package registry does not give it.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    environment = cache / f"python-{version}-{sys.platform}"
    python = environment / _BIN / Path(sys.executable).name
    if not python.exists():
        # Made elsewhere and then moved as a whole: another session may be making it as well.
        made = Path(tempfile.mkdtemp(dir=cache))
        try:
            _make_environment(made, made / _BIN / python.name)
            made.rename(environment)
        except OSError:
            if not python.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return LegacyFlux(python)


def _make_environment(environment: Path, python: Path) -> None:
    _run(sys.executable, "-m", "venv", environment)
    install = (python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:")
    _run(*install, *_REQUIREMENTS)
    _run(*install, "--no-deps", "flux-migrations==0.0.3")


def _run(*command: str | Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LegacyUnavailableError(said[-1] if said else f"{command} failed")
