"""Where tools are installed: virtual environments and npm directories in `.bench/`, kept for later.

What is installed is pinned. Packages come from the registries by their ordinary clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
PSYCOPG2 = "psycopg2-binary==2.9.13"
#: A registry that does not answer keeps a tool out of the table, and not the run from its end.
_INSTALLS_WITHIN = 600  # seconds

#: What steers neither Python nor a tool nor libpq.
PLAIN: Mapping[str, str] = {
    name: value
    for name, value in os.environ.items()
    if not name.upper().startswith(("FLUX_", "PYTHON", "COVERAGE", "PG", "DATABASE", "DBMATE"))
} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class NotInstalledError(Exception):
    """A tool cannot be installed here; the message says why."""


class Environment(NamedTuple):
    """Where programs are, and what their processes need in their environment besides."""

    programs: Path
    variables: Mapping[str, str] = {}

    @property
    def python(self) -> str:
        """The Python of this environment."""
        return str(self.programs / "python")

    def program(self, name: str) -> str:
        """A program of this environment."""
        return str(self.programs / name)


class InPlace(Environment):
    """The environment that the benchmark itself runs in, and flux as the checkout has it."""

    @classmethod
    def make(cls) -> InPlace:
        """Nothing is installed for it."""
        return cls(Path(sys.executable).parent, {"PYTHONPATH": str(ROOT)})


def python_environment(name: str, *requirements: str) -> Environment:
    """A virtual environment with these packages, made when it is first asked for.

    Raises `NotInstalledError`.
    """
    directory = CACHE / name
    programs = directory / "bin"
    wanted = f"{sys.version}\n" + "\n".join(requirements)
    if not _is_made(directory, wanted):
        _run(sys.executable, "-m", "venv", "--clear", directory)
        if requirements:
            _run(programs / "python", "-m", "pip", "install", "--quiet", *requirements)
        _note_made(directory, wanted)
    return Environment(programs)


def flux_environment() -> Environment:
    """flux as its users have it: a wheel of the checkout, and psycopg2.

    Raises `NotInstalledError`.
    """
    environment = python_environment("flux", PSYCOPG2)
    with tempfile.TemporaryDirectory(prefix="flux-bench-") as work:
        source = Path(work, "source")  # built in a copy: setuptools leaves files behind
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "flux", source / "flux", ignore=ignored)
        pip = (environment.python, "-m", "pip")
        _run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", work, source)
        [wheel] = Path(work).glob("*.whl")
        _run(*pip, "install", "--quiet", "--force-reinstall", wheel)
    return environment


def npm_directory(name: str, *requirements: str) -> Path:
    """The `node_modules` of a directory with these packages. Raises `NotInstalledError`."""
    directory = CACHE / name
    wanted = "\n".join(requirements)
    if not _is_made(directory, wanted):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / "package.json").write_text('{"private": true}\n')
        _run("npm", "install", "--silent", "--prefix", directory, *requirements)
        _note_made(directory, wanted)
    return directory / "node_modules"


def _is_made(directory: Path, wanted: str) -> bool:
    note = directory / "installed.txt"
    return note.exists() and note.read_text() == wanted


def _note_made(directory: Path, wanted: str) -> None:
    (directory / "installed.txt").write_text(wanted)


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(
            command,
            env=PLAIN,
            capture_output=True,
            text=True,
            timeout=_INSTALLS_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(str(error)) from error
    if done.returncode:
        raise NotInstalledError(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
