"""What starting flux costs, as ratios to `python -c pass` in one run.

flux is installed from the checkout, as its users have it, into a fresh virtual environment. Each
round runs every command once, so that what else the machine does falls on all of them; a ratio is
the median, over all rounds, of a command's time to that of the empty Python in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASE = "python -c pass"
#: What each command may cost, as a multiple of BASE (issue 2).
LIMITS = {
    "python -m flux --help": 3.0,
    "flux --help": 3.0,
    "python -m flux status": 5.0,
    "flux status": 5.0,
}
MIGRATIONS = 10


class Measured(NamedTuple):
    """A command, its times in milliseconds, and its ratio to the empty Python."""

    command: str
    fastest: float
    median: float
    ratio: float
    limit: float | None


def main() -> None:
    """Measure, print a table, and write the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="default: 60")
    parser.add_argument("--json", type=Path, metavar="PATH", help="default: build/bench.json")
    arguments = parser.parse_args()
    path = arguments.json or ROOT / "build" / "bench.json"
    with tempfile.TemporaryDirectory(prefix="flux-bench-") as work:
        bin_directory = install(Path(work))
        project = make_project(Path(work, "project"), bin_directory)
        results = measure(bin_directory, project, arguments.rounds)
    print(table(results))
    document = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "rounds": arguments.rounds,
        "results": [result._asdict() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def install(work: Path) -> Path:
    """Install the checkout into an environment in `work`; the directory of its programs."""
    source = work / "source"  # built in a copy: setuptools leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "flux", source / "flux", ignore=shutil.ignore_patterns("__pycache__"))
    run([sys.executable, "-m", "venv", work / "venv"])
    bin_directory = work / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run([bin_directory / "python", "-m", "pip", "install", "--quiet", source])
    return bin_directory


def make_project(project: Path, bin_directory: Path) -> Path:
    """A project on SQLite in which all migrations are applied."""
    migrations = project / "migrations"
    migrations.mkdir(parents=True)
    (project / "flux.toml").write_text(
        '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///app.db"\n'
    )
    for number in range(MIGRATIONS):
        (migrations / f"20240422_{number:03}_add-table-{number}.sql").write_text(
            f"CREATE TABLE t{number} (id integer PRIMARY KEY, name text NOT NULL);\n"
            f"CREATE INDEX t{number}_name ON t{number} (name);\n"
            f"INSERT INTO t{number} (name) VALUES ('one');\n"
        )
    run([bin_directory / "flux", "apply", "--auto-approve"], cwd=project)
    return project


def measure(bin_directory: Path, project: Path, rounds: int) -> list[Measured]:
    """Run all commands in turn, `rounds` times."""
    times: dict[str, list[float]] = {command: [] for command in (BASE, *LIMITS)}
    for _ in range(rounds):
        for command, taken in times.items():
            program, *rest = command.split()
            started = time.perf_counter()
            run([bin_directory / program, *rest], cwd=project)
            taken.append((time.perf_counter() - started) * 1000)
    return [
        Measured(
            command,
            round(min(taken), 2),
            round(median(taken), 2),
            round(median(map(float.__truediv__, taken, times[BASE])), 2),
            LIMITS.get(command),
        )
        for command, taken in times.items()
    ]


def table(results: list[Measured]) -> str:
    """The results as aligned text."""
    lines = [f"{'command':<24}{'fastest':>10}{'median':>10}{'ratio':>8}{'limit':>8}"]
    for command, fastest, middle, ratio, limit in results:
        over = "" if limit is None or ratio <= limit else "  OVER"
        shown = f"{limit:g}" if limit else ""
        lines.append(
            f"{command:<24}{fastest:>7.1f} ms{middle:>7.1f} ms{ratio:>8.2f}{shown:>8}{over}"
        )
    return "\n".join(lines)


def run(command: list[str | Path], cwd: Path | None = None) -> None:
    """Run a command that must succeed, without what would steer Python or flux."""
    subprocess.run(command, cwd=cwd, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)


_ENVIRONMENT: Mapping[str, str] = {
    name: value
    for name, value in os.environ.items()
    if not name.upper().startswith(("FLUX_", "PYTHON", "COVERAGE"))
} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


if __name__ == "__main__":
    main()
