"""flux grows with what it works on, and no faster: counted, because a time is no test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

import flux
from benchmark.changes import changes, data, text
from flux.cli import main
from tests.counting import count_calls, peak_memory
from tests.flux_process import FluxProcess
from tests.postgres_project import PostgresProject
from tests.project import Project

#: Ten times as much is to be done; what is done once makes it less.
SMALL, LARGE = 50, 500
TEN_TIMES = 10.1

Files = Callable[[int], dict[str, str]]


def _tables(count: int) -> dict[str, str]:
    """Migrations that make a table each, and their undo."""
    return {
        f"{change.id}{ending}": text(statements)
        for change in changes(count)
        for ending, statements in ((".sql", change.apply), (".undo.sql", change.undo))
    }


def _python(count: int) -> dict[str, str]:
    """Python files that return text."""
    return {
        f"{number:05}_step.py": f'def apply():\n    return "SELECT {number}"\n'
        for number in range(count)
    }


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Files, int], Path]:
    """Gives a project on SQLite in which so many migrations are applied."""
    places: dict[tuple[Files, int], Path] = {}

    def give(files: Files, count: int) -> Path:
        if (files, count) not in places:
            root = tmp_path_factory.mktemp("applied")
            _apply(root, files(count))()
            places[files, count] = root
        return places[files, count]

    return give


def _grows_linearly(small: int, large: int) -> bool:
    return large <= small * TEN_TIMES


# With the number of migrations --------------------------------------------------------------


@pytest.mark.xdist_group("growth")
@pytest.mark.parametrize("files", [_tables, _python], ids=["sql", "python"])
@pytest.mark.parametrize("command", ["apply --auto-approve", "status", "plan", "validate"])
def test_with_what_is_applied(
    applied: Callable[[Files, int], Path],
    files: Files,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The calls of a command that finds everything applied, and every hash as it was."""

    def run() -> None:
        assert main(command.split()) == 0

    calls = []
    for count in (SMALL, LARGE):
        monkeypatch.chdir(applied(files, count))
        run()  # so that what is imported once is there
        calls.append(count_calls(run))
    assert _grows_linearly(*calls), calls


def _apply(root: Path, files: Mapping[str, str]) -> Callable[[], None]:
    """Apply these to a new database, which does not wait for the disk."""
    project = Project(root, FluxProcess(root))
    project.configure()
    project.add(files)

    def run() -> None:
        with closing(sqlite3.connect(project.database)) as database:
            database.execute("PRAGMA synchronous = OFF")
            assert flux.apply(database, config=root / "flux.toml").applied

    return run


def test_with_what_is_to_be_applied(tmp_path: Path) -> None:
    """The calls of an apply in which each migration makes a table."""
    _apply(tmp_path / "first", _tables(2))()  # so that what is imported once is there
    calls = [count_calls(_apply(tmp_path / str(n), _tables(n))) for n in (SMALL, LARGE)]
    assert _grows_linearly(*calls), calls


def test_postgres_with_what_is_to_be_applied_and_undone(pg: PostgresProject) -> None:
    """The calls of an apply, of one that finds nothing to do, and of a rollback."""
    small, large = 20, 200
    pg.add(_tables(1))
    pg.apply()
    pg.rollback(None)
    calls = {}
    for count in (small, large):
        pg.add(_tables(count))
        calls[count] = [
            count_calls(work) for work in (pg.apply, pg.apply, lambda: pg.rollback(None))
        ]
    ratios = [many / few for few, many in zip(calls[small], calls[large], strict=True)]
    assert max(ratios) <= TEN_TIMES, calls


# With the size of what they hold ------------------------------------------------------------


_BIG = 10_000_000


def _big() -> dict[str, str]:
    return {f"{change.id}.sql": text(change.apply) for change in data(_BIG)}


def test_a_big_migration_is_not_held_often(tmp_path: Path) -> None:
    """Its text, what is sent of it, and one more at most."""
    _apply(tmp_path / "first", _tables(2))()
    assert peak_memory(_apply(tmp_path / "big", _big())) <= 3 * _BIG


def test_postgres_does_not_hold_a_big_migration_often(pg: PostgresProject) -> None:
    """The same, without what libpq holds of it."""
    pg.add({"0_first.sql": "SELECT 1;\n"})
    pg.apply()
    pg.add(_big())
    assert peak_memory(pg.apply) <= 3 * _BIG


def test_what_is_applied_is_not_held(tmp_path: Path) -> None:
    """With nothing to do, one text is in memory, and then the next."""
    each = 1_000_000
    files = {f"{number}.sql": f"-- {'x' * each}\nSELECT {number};\n" for number in range(10, 40)}
    _apply(tmp_path, files)()
    with flux.FluxRunner.from_file(tmp_path / "flux.toml") as runner:
        assert len(runner.history()) == len(files)
    assert peak_memory(lambda: flux.apply(config=tmp_path / "flux.toml")) <= 6 * each
