"""The house keeps its own rules: who imports whom, who does what, what starting up costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flux
from tests.test_imports import COMMAND_LINE

PACKAGE = Path(flux.__file__).parent

#: The rooms in order. Each imports only from rows above its own; rooms in one row do not import
#: each other. A new room takes its place here, and in docs/architecture.md, on purpose.
ORDER = (
    "record digest toml",
    "exceptions",
    "findings",
    "address fingerprint late migration statements syntax_hash interruption journal",
    "scratch files transactions config python_file progress contents row_tables",
    "directory units row_work",
    "hooks",
    "plan",
    "backends/signals backends/watch backends/patience",
    "backends/dbapi backends/journaled",
    "backends/base",
    # The parts of one backend, and the backend that is made of them.
    "backends/postgres_driver",
    "backends/sqlite_foreign_keys backends/sqlite_lock "
    "backends/postgres_psycopg2 backends/postgres_psycopg "
    "backends/postgres_lock backends/postgres_in_doubt "
    "backends/postgres_flags backends/postgres_leftovers backends/postgres_message "
    "backends/postgres_settings backends/postgres_watch",
    "backends/postgres_errors",
    "backends/postgres_check backends/postgres_reach backends/postgres_beyond "
    "backends/sqlite_reach",
    "backends/postgres_history backends/postgres_outcome backends/postgres_session",
    "backends/sqlite_spelling backends/postgres_catalog_parts",
    "backends/postgres_catalog_tables backends/postgres_catalog_objects "
    "backends/postgres_catalog_schemaless backends/postgres_catalog_grants",
    "backends/sqlite_catalog backends/postgres_catalog",
    "backends/sqlite_contents backends/postgres_contents",
    "backends/sqlite_examination backends/postgres_examination backends/postgres_run "
    "backends/sqlite_scratch backends/postgres_scratch",
    "backends/postgres_parts backends/postgres_journaled",
    "backends/postgres_bundle backends/sqlite_bundle",
    "backends/postgres_holder",
    "backends/sqlite backends/postgres",
    "backends/__init__",
    "outcome",
    "checking failure results",
    "log",
    "steps",
    "rehearsal shadow",
    "late_proof",
    "runner render scaffold",
    "proof schema",
    "render_proof",
    "junit",
    "render_late",
    "doctor exit_codes host versions completion",
    "arguments terminal",
    "console",
    "cli_proof",
    "cli contract",
    "testing",
    "pytest_plugin",
    "flask",
    "django/__init__ django/management/__init__ django/management/commands/__init__",
    "django/databases",
    "django/settings",
    "django/host django/checks django/testing",
    "django/apps django/management/commands/flux django/management/commands/flush",
)
#: These name the others and load them lazily.
ENTRIES = {"__init__", "__main__"}

ROOMS = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(path.read_bytes())
    for path in sorted(PACKAGE.rglob("*.py"))
}
PLACES = {room: place for place, row in enumerate(ORDER) for room in row.split()}


def _nodes(tree: ast.AST, *, within_functions: bool = True) -> Iterator[ast.AST]:
    """Every node, without what is under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and not within_functions:
            continue
        yield node
        yield from _nodes(node, within_functions=within_functions)


def _imports(tree: ast.AST, *, within_functions: bool = True) -> Iterator[str]:
    """The dotted names that are imported; `from a import b` gives `a.b`."""
    for node in _nodes(tree, within_functions=within_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _rooms(names: Iterator[str]) -> set[str]:
    """The rooms of flux among dotted names."""
    found = set()
    for name in names:
        first, *parts = name.split(".")
        if first == "flux":
            paths = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
            candidates = [room for path in paths for room in (path, f"{path}/__init__")]
            found.add(next((room for room in candidates if room in ROOMS), "__init__"))
    return found


def test_every_room_has_its_place() -> None:
    assert sorted(PLACES) == sorted(ROOMS.keys() - ENTRIES)


@pytest.mark.parametrize("room", sorted(ROOMS.keys() - ENTRIES))
def test_imports_point_up(room: str) -> None:
    """Also those within functions; only for types may a room look down."""
    imported = _rooms(_imports(ROOMS[room])) - ENTRIES
    assert [other for other in sorted(imported) if PLACES[other] >= PLACES[room]] == []


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        pytest.param(
            {"print", "input", "sys.stdout", "sys.stderr"},
            {"cli", "cli_proof", "console", "terminal"},
            id="prints",
        ),
        pytest.param(
            {"os.environ", "os.getenv"},
            {"config", "terminal", "django/management/commands/flux"},
            id="reads the environment",
        ),
        pytest.param({"tomllib", "tomli"}, {"toml"}, id="reads TOML"),
        pytest.param({"exec", "eval"}, {"python_file"}, id="runs Python"),
        pytest.param(
            {"os.scandir", "os.listdir"},
            {"directory", "backends/sqlite_scratch"},
            id="lists directories",
        ),
        pytest.param(
            {"os.mkdir", "os.makedirs"},
            {"scaffold", "backends/sqlite_scratch"},
            id="makes directories",
        ),
        pytest.param({"logging"}, {"log"}, id="logs"),
        pytest.param(
            {"logging.basicConfig", "addHandler", "setLevel"}, set(), id="configures logging"
        ),
        pytest.param({"sys.exit"}, {"__main__"}, id="ends Python"),
        pytest.param({"os._exit"}, {"cli"}, id="ends Python over its threads"),
        pytest.param({"signal.signal", "_signal"}, {"cli"}, id="handles signals"),
        pytest.param(
            {"threading.Thread", "_thread"},
            {"interruption", "backends/watch", "backends/postgres_parts"},
            id="starts threads",
        ),
        pytest.param({"asyncio"}, set(), id="is anything but synchronous"),
        pytest.param(
            {"django"}, {room for room in ROOMS if room.startswith("django/")}, id="knows Django"
        ),
        pytest.param({"pytest"}, {"pytest_plugin"}, id="knows pytest"),
        pytest.param({"flask", "click", "werkzeug"}, {"flask"}, id="knows Flask"),
    ],
)
def test_only_its_own_room(names: set[str], allowed: set[str]) -> None:
    doers = {
        room
        for room, tree in ROOMS.items()
        for node in _nodes(tree)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Import, ast.ImportFrom))
        and names & set(_names(node))
    }
    assert doers <= allowed


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for name in _imports(ast.Module([node], [])):
            yield from (name, name.partition(".")[0])
    else:
        yield ast.unparse(node)
        if isinstance(node, ast.Attribute):
            yield node.attr


# What starting up costs ---------------------------------------------------------------------

#: Modules that take longer to import than flux takes to run.
HEAVY = {
    "asyncio",
    "dataclasses",
    "importlib.metadata",
    "inspect",
    "logging",
    "psycopg",
    "psycopg2",
    "sqlite3",
    "tomli",
    "tomllib",
    "unittest",
    "urllib.request",
}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_heavy_modules_are_imported_when_they_are_needed(room: str) -> None:
    """A driver has its rooms that import it, which is imported when it is needed itself."""
    imported = set(_imports(ROOMS[room], within_functions=False))
    heavy = {name for name in HEAVY for one in imported if f"{one}.".startswith(f"{name}.")}
    drivers = {
        "backends/postgres_psycopg": {"psycopg"},
        "backends/postgres_psycopg2": {"psycopg2"},
    }
    standard = {"sqlite3"} if room.startswith("backends/sqlite") else set()
    assert heavy - standard - drivers.get(room, set()) == set()


_LOADED = """
import sys
known = set(sys.modules)
import flux
loaded = [set(sys.modules) - known]
if len(sys.argv) > 1:
    from flux.cli import main
    try:
        code = main(sys.argv[1:])
    except SystemExit as exit:
        code = exit.code
    assert not code, code
print("loaded", *sorted(set(sys.modules) - known))
"""


def _loaded(directory: Path, *arguments: str) -> set[str]:
    """The modules that a run of flux imports, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    environment.pop("FLUX_DATABASE_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *names = done.stdout.splitlines()[-1].split()
    assert first == "loaded"
    return set(names)


def test_import_flux_imports_nothing_of_it(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path)
    assert {name for name in loaded if name.startswith("flux")} == {"flux"}
    assert loaded & HEAVY == set()


def test_help_imports_the_command_line_alone(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, "--help")
    ours = {name for name in loaded if name.startswith("flux")}
    assert ours == COMMAND_LINE
    assert loaded & HEAVY == set()


def test_status_imports_what_it_needs(tmp_path: Path) -> None:
    """The driver and the reader of TOML it needs; and nothing of the other backend."""
    (tmp_path / "flux.toml").write_text(
        '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///app.db"\n'
    )
    (tmp_path / "migrations").mkdir()
    for number in range(10):
        (tmp_path / "migrations" / f"{number}_x.sql").write_text("SELECT 1;\n")
    loaded = _loaded(tmp_path, "status")
    assert loaded & HEAVY <= {"sqlite3", "tomllib", "tomli"}
    assert {name for name in loaded if name.startswith("flux.backends.postgres")} == set()
    assert not (tmp_path / "app.db").exists()


# The public names ---------------------------------------------------------------------------


def test_the_public_names() -> None:
    assert flux.__all__ == [
        "AppliedMigration",
        "FluxConfig",
        "FluxRunner",
        "Migration",
        "MigrationBackend",
        "apply",
    ]
    assert set(flux.__all__) <= set(dir(flux))


@pytest.mark.parametrize("name", flux.__all__)
def test_each_public_name_is_had_from_the_root(name: str) -> None:
    """By a program that imports nothing else; and it is what its own room calls so."""
    program = f"from flux import {name}\nprint({name}.__name__, {name}.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == name
    assert done.stdout.split()[1].startswith("flux.")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'flux' has no attribute 'nothing'$"):
        flux.nothing  # noqa: B018 - it raises
