"""What starting flux imports, counted: the part of its start-up time that a test can judge.

Time itself is measured by `make bench`. Python runs without `site` here, because what that loads
(an editable install, coverage) would hide what flux loads.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import flux
from tests import driver
from tests.flux_process import flux_environment
from tests.postgres_project import PostgresProject

#: Modules that no command needs to start: each takes as long as a good part of flux.
NEVER = {
    "ast",
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "dataclasses",
    "decimal",
    "difflib",
    "email",
    "getpass",
    "hashlib",
    "importlib",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "ipaddress",
    "json",
    "linecache",
    "locale",
    "logging",
    "multiprocessing",
    "pathlib",
    "pickle",
    "platform",
    "pprint",
    "psycopg",
    "psycopg2",
    "random",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "statistics",
    "subprocess",
    "tempfile",
    "threading",
    "tokenize",
    "tomli",
    "tomllib",
    "traceback",
    "typing",
    "unicodedata",
    "unittest",
    "urllib.parse",
    "uuid",
    "zipfile",
}
#: What `status` on SQLite needs, and what prints some help does not.
NOT_FOR_HELP = {
    "abc",
    "contextlib",
    "datetime",
    "sqlite3",
}

COMMAND_LINE = {
    "flux",
    "flux.arguments",
    "flux.cli",
    "flux.console",
    "flux.exit_codes",
    "flux.host",
    "flux.terminal",
}

_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1].split("|")
for name in filter(None, sys.argv[2].split(",")):
    __import__(name)
before = set(sys.modules)
del sys.argv[1:3]
from flux.cli import run
try:
    code = run()
except SystemExit as exit:
    code = exit.code
print("imported", code, *(set(sys.modules) - before))
"""


def imported_by(directory: Path, *arguments: str, besides: str = "") -> set[str]:
    """The modules that a flux in a process of its own imports, which must succeed.

    Those of the module `besides` are there already.
    """
    homes = [str(Path(flux.__file__).parents[1])]
    for name in ("tomli", *filter(None, [besides])):  # tomli reads TOML on Python 3.10
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            homes.append(str(Path(spec.origin).parents[1]))
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PROGRAM, "|".join(homes), besides, *arguments],
        cwd=directory,
        env=flux_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, code, *names = done.stdout.splitlines()[-1].split()
    assert (first, code) == ("imported", "0")
    return set(names)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A project of ten migrations on SQLite."""
    (tmp_path / "flux.toml").write_text(
        '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///app.db"\n'
    )
    (tmp_path / "migrations").mkdir()
    for number in range(10):
        text = f"CREATE TABLE t{number} (id integer PRIMARY KEY);\n"
        (tmp_path / "migrations" / f"{number:02}_table.sql").write_text(text)
    return tmp_path


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"]], ids=str)
def test_help(directory: Path, arguments: list[str]) -> None:
    """The command line alone, and nothing of what it would call."""
    imported = imported_by(directory, *arguments)
    assert {name for name in imported if name.startswith("flux")} == COMMAND_LINE
    assert imported & (NEVER | NOT_FOR_HELP) == set()


def test_help_of_short_lines(directory: Path) -> None:
    """Nothing is wrapped where all fits."""
    assert "textwrap" not in imported_by(directory, "--help")


@pytest.mark.parametrize("applied", [False, True], ids=["pending", "applied"])
def test_status(directory: Path, applied: bool) -> None:
    """No module of another backend, of running migrations, or of anything heavy."""
    if applied:
        imported_by(directory, "apply", "--auto-approve")
    imported = imported_by(directory, "status")
    assert imported & NEVER == set()
    assert {name for name in imported if name.startswith("flux")} == {
        *COMMAND_LINE,
        "flux.address",
        "flux.backends",
        "flux.backends.base",
        "flux.backends.dbapi",
        "flux.backends.signals",
        "flux.backends.sqlite",
        "flux.config",
        "flux.digest",
        "flux.directory",
        "flux.exceptions",
        "flux.journal",
        "flux.late",
        "flux.migration",
        "flux.plan",
        "flux.python_file",
        "flux.record",
        "flux.render",
        "flux.results",
        "flux.runner",
        "flux.steps",
        "flux.toml",
    }


#: What runs scripts, and what looks after one that runs or is in doubt.
RUNS_SCRIPTS = {
    f"flux.{room}"
    for room in (
        "backends.postgres_bundle",
        "backends.postgres_check",
        "backends.postgres_holder",
        "backends.postgres_in_doubt",
        "backends.postgres_journaled",
        "backends.postgres_leftovers",
        "backends.postgres_message",
        "backends.postgres_outcome",
        "backends.postgres_parts",
        "backends.postgres_run",
        "backends.postgres_watch",
        "checking",
        "failure",
        "statements",
        "transactions",
        "units",
    )
}


@pytest.mark.parametrize("arguments", [["status"], ["apply", "--auto-approve"]], ids=str)
def test_on_postgres(pg: PostgresProject, arguments: list[str]) -> None:
    """With everything applied: nothing heavy beside the driver, and nothing of running scripts.

    The address here has percent signs, which urllib.parse reads; it brings ipaddress.
    """
    pg.add({"1_table.sql": "CREATE TABLE t (id int);\n"})
    pg.apply()
    imported = imported_by(pg.root, *arguments, besides=driver.NAME)
    assert imported & (NEVER | RUNS_SCRIPTS | {"sqlite3"}) <= {"ipaddress", "urllib.parse"}


_CHOOSES_PSYCOPG2 = """
import sys, threading
from flux.backends.postgres_driver import choose
over = threading.Event()
threading.Thread(target=over.wait, daemon=True).start() if sys.argv[1] == "threads" else None
choose("psycopg2")
over.set()
print("ssl" in sys.modules)
import ssl
"""


@pytest.mark.parametrize(("beside", "has_ssl"), [("nothing", False), ("threads", True)])
def test_psycopg2_without_ssl(beside: str, has_ssl: bool) -> None:
    """What it has no use for is not imported with it, where no thread can miss it meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", _CHOOSES_PSYCOPG2, beside],
        env=flux_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{has_ssl}\n", "")


#: What scripts need that run without a transaction, fail, or wait.
FOR_FEW_SCRIPTS = {
    "random",
    "flux.backends.journaled",
    "flux.backends.patience",
    "flux.backends.postgres_in_doubt",
    "flux.backends.postgres_journaled",
    "flux.failure",
    "flux.outcome",
    "flux.units",
}


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_a_batch_on_postgres(pg: PostgresProject, command: str) -> None:
    """To run plain scripts takes what watches them, and nothing heavy else."""
    pg.add({"1_table.sql": "CREATE TABLE t (id int);\n", "1_table.undo.sql": "DROP TABLE t;\n"})
    if command == "rollback":
        pg.apply()
    imported = imported_by(pg.root, command, "--auto-approve", besides=driver.NAME)
    assert imported & NEVER <= {"ipaddress", "threading", "urllib.parse"}
    assert imported & FOR_FEW_SCRIPTS == set()


def test_nothing_to_apply(directory: Path) -> None:
    """A deploy with nothing to do needs no more than `status` does, but for a way to interrupt."""
    imported_by(directory, "apply", "--auto-approve")
    of_status = imported_by(directory, "status")
    of_apply = imported_by(directory, "apply", "--auto-approve")
    assert of_apply & NEVER == set()
    assert {name for name in of_apply - of_status if name.startswith("flux")} <= {
        "flux.interruption"
    }
