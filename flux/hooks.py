"""Test hooks: what `flux test` runs around a migration, to put rows in and to look at them.

A file of `tests/` in the migration directory is named after the migration that it is about.
"""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

from flux import python_file
from flux.config import nearest
from flux.directory import (
    TESTS,
    MigrationDirectory,
    list_ids,
    loading_problems,
    read_sql,
    run_python,
)
from flux.exceptions import Location, MigrationLoadingError, Problem
from flux.migration import Repeatable
from flux.python_file import PythonFile

_SETUP = "_setup"


class Hooks(NamedTuple):
    """What the file of one migration holds, each a script of its own; None for what it lacks.

    `before` runs before the migration is applied, `after` each time that it was applied, and
    `undone` when it was undone. Each runs in a transaction of its own.
    """

    before: Repeatable | None = None
    after: Repeatable | None = None
    undone: Repeatable | None = None


def read(directory: MigrationDirectory, project_directory: str) -> dict[str, Hooks]:
    """The hooks of a directory's migrations, by id. Runs the files; writes nothing.

    Raises `MigrationLoadingError` for every file that is of no migration, or holds no hook.
    """
    folder = os.path.join(directory.path, TESTS)
    if not os.path.isdir(folder):
        return {}
    known = {migration.id for migration in directory.migrations}
    importable = partial(python_file.importable, project_directory, directory.path)
    found: dict[str, Hooks] = {}
    problems: list[Problem] = []
    with importable():
        for id in sorted(list_ids(folder)):
            path = os.path.join(folder, f"{id}.py")
            try:
                _refuse(id, path, known)
                found[id] = _hooks(id, run_python(path, importable))
            except MigrationLoadingError as error:
                problems += loading_problems(error)
    if problems:
        raise MigrationLoadingError.of(tuple(problems), f"{len(problems)} problems in {folder}")
    return found


def read_setup(directory: MigrationDirectory, project_directory: str) -> Repeatable | None:
    """What scratch databases begin with: `tests/_setup.sql`, or a `_setup.py` with `apply()`.

    It makes what is there before the first migration, by others. None where there is no such
    file. Raises `MigrationLoadingError`.
    """
    importable = partial(python_file.importable, project_directory, directory.path)
    path = os.path.join(directory.path, TESTS, _SETUP)
    if os.path.isfile(f"{path}.sql") and os.path.isfile(f"{path}.py"):
        raise MigrationLoadingError(
            "there are both _setup.sql and _setup.py",
            location=Location(os.path.dirname(path)),
            hint="keep one of the two",
        )
    if os.path.isfile(f"{path}.sql"):
        return Repeatable(_SETUP, TESTS, read_sql(f"{path}.sql"))
    if os.path.isfile(f"{path}.py"):
        with importable():
            return Repeatable(_SETUP, TESTS, run_python(f"{path}.py", importable).script("apply"))
    return None


def _refuse(id: str, path: str, known: set[str]) -> None:
    if not os.path.isfile(path):
        raise MigrationLoadingError(
            f"{id} is no Python file, and hooks are written in Python",
            location=Location(os.path.dirname(path)),
            hint=f"write {os.path.basename(path)}, whose functions may return SQL text",
        )
    if id not in known:
        raise MigrationLoadingError(
            "is named after no migration",
            location=Location(path),
            hint="a file of hooks has the name of its migration; a helper's begins with _",
        )


def _hooks(id: str, file: PythonFile) -> Hooks:
    def hook(name: python_file.Function) -> Repeatable | None:
        if not file.has(name):
            return None
        return Repeatable(f"{id} {name}()", TESTS, file.script(name))

    _refuse_mistyped(file)
    hooks = Hooks(hook("before"), hook("after"), hook("undone"))
    if hooks == Hooks():
        raise MigrationLoadingError(
            "has no hook",
            location=Location(file.path),
            hint="define before(connection), after(connection) or undone(connection)",
        )
    return hooks


def _refuse_mistyped(file: PythonFile) -> None:
    for name, value in file.names.items():
        if name in Hooks._fields or name.startswith("_") or not callable(value):
            continue
        if near := nearest(name, Hooks._fields):
            raise MigrationLoadingError(
                f"{name}() is no hook",
                location=Location(file.path),
                hint=f"did you mean {near}()? The name of a helper begins with _",
            )
