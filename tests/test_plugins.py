"""Plugins: real packages, installed into an environment of their own and used from there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from tests.flux_process import FluxResult, flux_environment, run_to_end

#: One process runs them all: to make their environment takes longer than they do.
pytestmark = pytest.mark.xdist_group("plugins")

ROOT = Path(__file__).parent.parent
PLUGINS = Path(__file__).parent / "plugins"
#: What builds the packages, and what flux itself needs. They come from the registry.
NEEDED = ["setuptools>=77", "tomli>=2,<3; python_version < '3.11'"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with flux and the plugins in it, and no driver."""

    path: Path

    @property
    def programs(self) -> Path:
        """Where its python and its flux are."""
        return self.path / ("Scripts" if os.name == "nt" else "bin")

    def run(self, cwd: Path, *command: str, **env: str | None) -> FluxResult:
        """Run one of its programs to its end."""
        program, *arguments = command
        return run_to_end(
            [self.programs / program, *arguments],
            cwd=cwd,
            env=flux_environment({"PYTHONPATH": None, **env}),
            timeout=60,
        )


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Built from copies: setuptools leaves files behind where it builds."""
    folder = tmp_path_factory.mktemp("plugins")
    environment = Environment(folder / "venv")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(environment.path)]
    subprocess.run(venv, check=True, timeout=60)

    flux = folder / "flux"
    flux.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, flux)
    shutil.copytree(ROOT / "flux", flux / "flux", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PLUGINS, folder / "plugins")

    if problem := _pip_install(environment, *NEEDED):
        unavailable(f"plugins: {' and '.join(NEEDED)} cannot be had: {problem}")
    packages = [str(path) for path in (flux, *sorted((folder / "plugins").iterdir()))]
    problem = _pip_install(environment, "--no-deps", "--no-build-isolation", *packages)
    assert problem == ""
    return environment


def _pip_install(environment: Environment, *what: str) -> str:
    """Install with the tests' own pip; returns what it says when it fails."""
    python = str(environment.programs / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", *what],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


@dataclass(frozen=True)
class CoolProject:
    """A project on a cooldb database, in the environment that has the plugin."""

    root: Path
    environment: Environment

    @property
    def database(self) -> Path:
        """The database, which is there and empty at first."""
        return self.root / "app.cool"

    @property
    def url(self) -> str:
        """Its address."""
        return f"cooldb://{self.database}"

    def flux(self, *arguments: str, **env: str | None) -> FluxResult:
        """Run the installed command `flux` in the project."""
        return self.environment.run(
            self.root, "flux", *arguments, **{"FLUX_DATABASE_URL": self.url, **env}
        )

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database directly."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def cool(tmp_path: Path, environment: Environment) -> CoolProject:
    """A folder with an empty cooldb database, and nothing else."""
    project = CoolProject(tmp_path, environment)
    project.database.touch()
    return project


def _configured(cool: CoolProject, backend: str = "") -> CoolProject:
    cool.write("flux.toml", f'[flux]\nbackend = "cooldb"\n\n[backend]\n{backend}\n')
    cool.write("migrations/001_books.sql", "CREATE TABLE book (title); -- one; two\n")
    cool.write("migrations/001_books.undo.sql", "DROP TABLE book")
    return cool


# A plugin that works ------------------------------------------------------------------------


def test_a_plugin_from_init_to_rollback(cool: CoolProject) -> None:
    """What a user does with flux is the same with a backend that flux does not come with."""
    assert cool.flux("init", "cooldb") == FluxResult(
        0, f"created  flux.toml\ncreated  migrations{os.sep}\n", ""
    )
    written = (cool.root / "flux.toml").read_text("utf-8")
    assert '\nbackend = "cooldb"\n' in written
    assert '\n# database_url = "cooldb:///srv/app.cool"\n' in written
    assert written.endswith(
        "\n[backend]\n# coolness_level = 5   # kept with each row of the history\n"
    )

    new = cool.flux("new", "--sql", "Add books")
    assert (new.code, new.err) == (0, "")
    first, second = (line.removeprefix("created  ") for line in new.out.splitlines())
    id = Path(first).stem
    cool.write(first, "CREATE TABLE book (title); INSERT INTO book VALUES ('a;b')")
    cool.write(second, "DROP TABLE book;\n")

    assert cool.flux("status", "--check").code == 3
    assert cool.query("SELECT name FROM sqlite_master") == [], "status leaves it untouched"
    applied = cool.flux("apply")
    assert (applied.code, applied.err) == (0, ""), applied
    assert id in applied.out
    assert cool.query("SELECT title FROM book") == [("a;b",)]
    assert cool.query("SELECT id, coolness FROM cool_history") == [(id, 5)]
    assert cool.flux("status", "--check").code == 0
    assert cool.flux("apply").code == 0

    rolled_back = cool.flux("rollback", "--auto-approve")
    assert (rolled_back.code, rolled_back.err) == (0, ""), rolled_back
    assert cool.query("SELECT id FROM cool_history") == []
    assert cool.flux("status", "--check").code == 3


def test_a_plugin_gets_its_own_settings(cool: CoolProject) -> None:
    _configured(cool, "coolness_level = 11")
    assert cool.flux("apply").code == 0
    assert cool.query("SELECT id, coolness FROM cool_history") == [("001_books", 11)]


def test_a_plugin_is_examined_without_a_line_of_its_own(cool: CoolProject) -> None:
    _configured(cool)
    before = cool.database.read_bytes()
    result = cool.flux("doctor")
    assert (result.code, result.err) == (0, ""), result
    about = [line.split()[1] for line in result.out.splitlines()[:-2]]
    assert about == ["config", "directory", "address", "connection", "history"]
    assert cool.database.read_bytes() == before


def test_a_plugin_is_found_by_the_scheme_of_an_address(cool: CoolProject) -> None:
    """`flux.apply` needs no configuration to know the backend."""
    _configured(cool)
    (cool.root / "flux.toml").unlink()
    program = f"import flux; print(flux.apply({cool.url!r}, 'migrations').applied)"
    result = cool.environment.run(cool.root, "python", "-c", program)
    assert result == FluxResult(0, "('001_books',)\n", "")
    assert cool.query("SELECT title FROM book") == []


def test_errors_of_a_plugins_statements_point_to_the_file(cool: CoolProject) -> None:
    """A plugin gets this without a line of its own, and so does the history."""
    _configured(cool)
    cool.write("migrations/002_wrong.sql", "CREATE TABLE a (b);\n  SELEC 1;\n")
    result = cool.flux("apply")
    assert (result.code, result.err) == (
        1,
        f'error: {Path("migrations", "002_wrong.sql")}:2: applying 002_wrong failed: near "SELEC": '
        "syntax error\n"
        "    2 |   SELEC 1;\n"
        "done before it: 001_books\n"
        "state: rolled back; the database is as it was before 002_wrong\n",
    )
    assert cool.query("SELECT name FROM sqlite_master WHERE name = 'a'") == []


# Plugins and settings that do not -----------------------------------------------------------


def test_a_database_that_a_plugin_cannot_open(cool: CoolProject) -> None:
    """The driver's error is told as flux's own, without a traceback."""
    _configured(cool)
    result = cool.flux("status", FLUX_DATABASE_URL="cooldb://nowhere.cool")
    assert result == FluxResult(
        1,
        "",
        "error: cannot open the database: unable to open database file\n"
        "hint: the address is from the environment variable FLUX_DATABASE_URL\n",
    )


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        pytest.param(
            "coolness_levle = 1",
            "error: flux.toml: unknown key 'coolness_levle' in [backend]\n"
            "hint: did you mean 'coolness_level'?\n",
            id="unknown",
        ),
        pytest.param(
            "busy_timeout = 1",
            "error: flux.toml: unknown key 'busy_timeout' in [backend]\n"
            "hint: there are: coolness_level\n",
            id="another backend's",
        ),
        pytest.param(
            'coolness_level = "very"',
            "error: flux.toml: coolness_level in [backend] must be a whole number\n",
            id="of a wrong type",
        ),
    ],
)
def test_a_wrong_setting(cool: CoolProject, backend: str, says: str) -> None:
    result = _configured(cool, backend).flux("apply")
    assert result == FluxResult(2, "", says)
    assert cool.query("SELECT name FROM sqlite_master") == []


BROKEN = [
    pytest.param(
        "warmdb",
        "error: no installed package provides the backend 'warmdb'\n"
        "hint: installed are: brokendb, cooldb, incompletedb, notabackend, postgres, sqlite\n",
        id="not installed",
    ),
    pytest.param(
        "notabackend",
        "error: the backend 'notabackend' (flux_notabackend:connect) is not a subclass of "
        "flux.MigrationBackend\n"
        "hint: it comes with flux-notabackend 1.0\n",
        id="not a backend",
    ),
    pytest.param(
        "brokendb",
        "error: the backend 'brokendb' (flux_brokendb:BrokenBackend) cannot be loaded: "
        "ModuleNotFoundError: No module named 'brokendb_driver'\n"
        "hint: it comes with flux-brokendb 1.0\n",
        id="fails to import",
    ),
    pytest.param(
        "incompletedb",
        "error: the backend 'incompletedb' (flux_incompletedb:IncompleteBackend) lacks "
        "migration_lock, transaction\n"
        "hint: it comes with flux-incompletedb 1.0\n",
        id="incomplete",
    ),
    pytest.param(
        "postgres",
        "error: the driver of the backend 'postgres' is not installed: "
        "No module named 'psycopg2' or 'psycopg'\n"
        'hint: pip install "flux-migrations[postgres]"\n',
        id="without its driver",
    ),
]


@pytest.mark.parametrize(("backend", "says"), BROKEN)
def test_init_with_a_backend_that_cannot_be_had(cool: CoolProject, backend: str, says: str) -> None:
    """Nothing is written for a backend that would not work."""
    assert cool.flux("init", backend) == FluxResult(2, "", says)
    assert not (cool.root / "flux.toml").exists()


@pytest.mark.parametrize(("backend", "says"), BROKEN)
def test_apply_with_a_backend_that_cannot_be_had(
    cool: CoolProject, backend: str, says: str
) -> None:
    cool.write("flux.toml", f'[flux]\nbackend = "{backend}"\n')
    cool.write("migrations/001_books.sql", "CREATE TABLE book (title)")
    address = "postgresql://h/db" if backend == "postgres" else "cooldb:///app.cool"
    assert cool.flux("apply", address) == FluxResult(2, "", says)


def test_two_plugins_of_one_name(cool: CoolProject, tmp_path: Path) -> None:
    """Which of two would be taken is not left to the order of installation."""
    second = tmp_path / "other" / "flux_other-2.0.dist-info"
    second.mkdir(parents=True)
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: flux-other\nVersion: 2.0\n")
    (second / "entry_points.txt").write_text("[flux.backend]\ncooldb = flux_other:CoolBackend\n")
    result = cool.flux("init", "cooldb", PYTHONPATH=str(second.parent))
    assert result == FluxResult(
        2,
        "",
        "error: several installed packages provide the backend 'cooldb': "
        "flux_cooldb:CoolBackend, flux_other:CoolBackend\n"
        "hint: uninstall all but one\n",
    )


# The guide ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "language"),
    [
        ("flux_cooldb/__init__.py", "python"),
        ("pyproject.toml", "toml"),
        ("test_cooldb.py", "python"),
    ],
)
def test_the_guide_shows_the_plugin_as_it_is(file: str, language: str) -> None:
    """What docs/backends.md has readers copy is what these tests install and run."""
    source = (PLUGINS / "cooldb" / file).read_text("utf-8")
    # To flux's own type check, the plugin is not installed.
    source = source.replace("  # type: ignore[import-not-found]", "")
    guide = (ROOT / "docs" / "backends.md").read_text("utf-8")
    assert f"```{language}\n{source}```\n" in guide


def test_the_guide_names_all_that_a_backend_writes() -> None:
    from flux import MigrationBackend

    guide = (ROOT / "docs" / "backends.md").read_text("utf-8")
    names = {name for name in vars(MigrationBackend) if not name.startswith("_")}
    assert {name for name in names if f"`{name}" not in guide} == set()
