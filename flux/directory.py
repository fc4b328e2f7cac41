"""The migration directory: the only room that reads migration files or runs their Python.

Every defect of the directory is found before any is reported, so that one error names all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType, ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

from flux.exceptions import (
    FluxMigrationException,
    InvalidMigrationModuleError,
    Location,
    MigrationLoadingError,
    Problem,
)
from flux.migration import (
    BOM,
    Migration,
    Order,
    Placement,
    Repeatable,
    Script,
    fold,
    misordered,
    read_directives,
    sort_key,
)

PLACEMENTS: tuple[Placement, Placement] = ("pre-apply", "post-apply")

_Read = TypeVar("_Read")
_Direction = Literal["apply", "undo"]


class MigrationDirectory(NamedTuple):
    """What a migration directory holds, read and in order.

    `id_problems` are breaches of the rules for ids; the plan decides whether they matter,
    because what flux-migrations 0.0.3 has recorded stays valid. `set_aside` maps the ids that
    today's rules pass over (`_x`, `.x`) to a reader of the migration, for the same reason.
    """

    path: str
    migrations: tuple[Migration, ...] = ()
    pre_apply: tuple[Repeatable, ...] = ()
    post_apply: tuple[Repeatable, ...] = ()
    id_problems: tuple[Problem, ...] = ()
    set_aside: Mapping[str, Callable[[], Migration]] = MappingProxyType({})
    order: Order = "text"

    def with_recorded(self, ids: Iterable[str]) -> MigrationDirectory:
        """The same directory with those of `set_aside` that a history has recorded."""
        found = [self.set_aside[id]() for id in ids if id in self.set_aside]
        if not found:
            return self
        key = sort_key(self.order)
        migrations = sorted((*self.migrations, *found), key=lambda m: key(m.id))
        return self._replace(migrations=tuple(migrations), set_aside={})


class _Files(NamedTuple):
    """The names in one directory, sorted into what they are; ids map to file names."""

    sql: dict[str, str]
    python: dict[str, str]
    undo: dict[str, str]


def read(path: str, *, order: Order = "text", project_directory: str = "") -> MigrationDirectory:
    """Read all migrations and repeatables of a directory. Writes nothing.

    Python migrations are run to resolve their text, with `project_directory` and the
    migration directory itself importable. Undo scripts are read when they are asked for.

    Raises `MigrationLoadingError`, with every defect found in its `problems`.
    """
    problems: list[Problem] = []
    names = _list_names(path)
    files = _sort_out([name for name in names if not _is_set_aside(name)])
    aside = _sort_out([name for name in names if _is_set_aside(name)])
    problems += _file_problems(path, files)
    with _importable(project_directory or os.curdir, path):
        ids = {**files.sql, **files.python}
        migrations = _collect(lambda id: _read_migration(path, id, files), ids, problems)
        repeatables = {
            placement: _read_placement(os.path.join(path, placement), placement, order, problems)
            for placement in PLACEMENTS
        }
    if problems:
        raise _loading_error(problems)
    key = sort_key(order)
    migrations.sort(key=lambda migration: key(migration.id))

    def reader(id: str) -> Callable[[], Migration]:
        def read_one() -> Migration:
            with _importable(project_directory or os.curdir, path):
                return _read_migration(path, id, aside)

        return read_one

    return MigrationDirectory(
        path=path,
        migrations=tuple(migrations),
        pre_apply=repeatables["pre-apply"],
        post_apply=repeatables["post-apply"],
        id_problems=_id_problems([migration.id for migration in migrations], order),
        set_aside={id: reader(id) for id in {**aside.sql, **aside.python}},
        order=order,
    )


def list_ids(path: str) -> list[str]:
    """The ids of a directory by its file names alone, unsorted. Runs and reads no file."""
    files = _sort_out([name for name in _list_names(path) if not _is_set_aside(name)])
    return list({**files.sql, **files.python, **files.undo})


# Names --------------------------------------------------------------------------------------


def _list_names(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())
    except FileNotFoundError:
        raise MigrationLoadingError(
            "there is no such migration directory",
            location=Location(path),
            hint="`flux new NAME` makes it with its first migration; "
            "migration_directory in the configuration says where it is",
        ) from None
    except OSError as error:
        raise MigrationLoadingError(
            f"the migration directory cannot be read: {error.strerror}", location=Location(path)
        ) from error


def _is_set_aside(name: str) -> bool:
    return name.startswith(("_", "."))


def _sort_out(names: list[str]) -> _Files:
    files = _Files({}, {}, {})
    for name in names:
        if name.endswith(".undo.sql"):
            files.undo[name.removesuffix(".undo.sql")] = name
        elif name.endswith(".sql"):
            files.sql[name.removesuffix(".sql")] = name
        elif name.endswith(".py"):
            files.python[name.removesuffix(".py")] = name
    return files


def _file_problems(path: str, files: _Files) -> list[Problem]:
    problems = [
        Problem(
            "duplicate",
            (id,),
            f"{files.sql[id]} and {files.python[id]} have one id",
            "remove one of the two",
            Location(path),
        )
        for id in files.sql.keys() & files.python.keys()
    ]
    for id in files.undo.keys() - files.sql.keys():
        in_python = id in files.python
        problems.append(
            Problem(
                "orphan-undo",
                (id,),
                f"an undo beside a Python migration, {files.python[id]}"
                if in_python
                else "an undo without its migration",
                f"move it into an undo() of {files.python[id]}"
                if in_python
                else f"add {id}.sql, or remove it",
                Location(os.path.join(path, files.undo[id])),
            )
        )
    return problems


def _id_problems(ids: list[str], order: Order) -> tuple[Problem, ...]:
    problems = []
    folded: dict[str, list[str]] = {}
    for id in ids:
        folded.setdefault(fold(id), []).append(id)
    for same in folded.values():
        if len(same) > 1:
            problems.append(
                Problem(
                    "ambiguous",
                    tuple(same),
                    f"{' and '.join(same)} differ only by case or Unicode form, "
                    "which some file systems do not tell apart",
                    "rename all but one",
                )
            )
    if order == "text":
        problems += [
            Problem(
                "misordered",
                pair,
                f"{pair[0]} sorts before {pair[1]} as text, but not by its number",
                'pad the numbers with zeros, or set order = "natural" in the configuration',
            )
            for pair in misordered(ids)
        ]
    return tuple(problems)


# Files --------------------------------------------------------------------------------------


def _collect(
    read_one: Callable[[str], _Read], ids: Iterable[str], problems: list[Problem]
) -> list[_Read]:
    """What was read for each id; what fails is noted as a problem, and the others go on."""
    results = []
    for id in ids:
        try:
            results.append(read_one(id))
        except MigrationLoadingError as error:
            problems.append(_as_problem(error))
    return results


def _as_problem(error: MigrationLoadingError) -> Problem:
    kind = "invalid-module" if isinstance(error, InvalidMigrationModuleError) else "unreadable"
    ids = (os.path.basename(error.location.path),) if error.location else ()
    return Problem(kind, ids, error.message, error.hint, error.location)


def _loading_error(problems: list[Problem]) -> MigrationLoadingError:
    type_ = MigrationLoadingError
    if all(problem.kind == "invalid-module" for problem in problems):
        type_ = InvalidMigrationModuleError
    if len(problems) == 1:
        problem = problems[0]
        return type_(
            problem.message,
            location=problem.location,
            hint=problem.hint,
            problems=(),
        )
    return type_(f"{len(problems)} problems in the migration directory", problems=tuple(problems))


def _read_migration(path: str, id: str, files: _Files) -> Migration:
    if id in files.sql:
        script = _read_sql(os.path.join(path, files.sql[id]))
        if id not in files.undo:
            return Migration(id, script)
        undo_path = os.path.join(path, files.undo[id])
        return Migration(id, script, lambda: _read_sql(undo_path))
    python_path = os.path.join(path, files.python[id])
    module = _PythonFile.run(python_path)
    script = module.script("apply")
    if not module.has("undo"):
        return Migration(id, script)

    def read_undo() -> Script:
        with _importable(path):
            return module.script("undo")

    return Migration(id, script, read_undo)


def _read_placement(
    path: str, placement: Placement, order: Order, problems: list[Problem]
) -> tuple[Repeatable, ...]:
    if not os.path.isdir(path):
        return ()
    files = _sort_out([name for name in _list_names(path) if not _is_set_aside(name)])
    problems += [
        Problem(
            "repeatable-undo",
            (f"{placement}/{id}",),
            "a repeatable has no undo",
            "remove it",
            Location(os.path.join(path, name)),
        )
        for id, name in files.undo.items()
    ]
    problems += _file_problems(path, files._replace(undo={}))

    def read_one(id: str) -> Repeatable:
        if id in files.sql:
            return Repeatable(id, placement, _read_sql(os.path.join(path, files.sql[id])))
        module = _PythonFile.run(os.path.join(path, files.python[id]))
        if module.has("undo"):
            raise MigrationLoadingError(
                "a repeatable has no undo",
                location=Location(module.path),
                hint="remove undo()",
            )
        return Repeatable(id, placement, module.script("apply"))

    found = _collect(read_one, {**files.sql, **files.python}, problems)
    key = sort_key(order)
    return tuple(sorted(found, key=lambda repeatable: key(repeatable.id)))


def _read_sql(path: str) -> Script:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise MigrationLoadingError(
            f"cannot be read: {error.strerror}", location=Location(path)
        ) from error
    try:
        raw = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MigrationLoadingError(
            f"is not UTF-8 (byte 0x{content[error.start]:02X})",
            location=Location(path, line),
            hint="save it as UTF-8",
        ) from error
    # As Python's own text files do it, and flux-migrations 0.0.3 with them.
    raw = raw.replace("\r\n", "\n").replace("\r", "\n") if "\r" in raw else raw
    _refuse_nul(raw, path)
    return Script.from_text(raw, path)


def _refuse_nul(text: str, path: str, *, within: str | None = None) -> None:
    offset = text.find("\0")
    if offset >= 0:
        raise MigrationLoadingError(
            "holds a NUL byte, at which drivers would cut the text",
            location=Location.of_offset(path, text, offset, within=within)._replace(source=None),
        )


# Python -------------------------------------------------------------------------------------


@contextmanager
def _importable(*directories: str) -> Iterator[None]:
    """Let migrations import from the project, and from helpers beside them, while they run."""
    absolute = [os.path.abspath(directory) for directory in directories]
    added = [directory for directory in absolute if directory not in sys.path]
    sys.path[:0] = added
    try:
        yield
    finally:
        for directory in added:
            if directory in sys.path:
                sys.path.remove(directory)


class _PythonFile(NamedTuple):
    """A Python migration that was run: its path, its source and its names."""

    path: str
    source: str
    names: dict[str, Any]

    @classmethod
    def run(cls, path: str) -> _PythonFile:
        # Not through importlib, which would write a __pycache__ into the directory.
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise MigrationLoadingError(
                f"cannot be read: {error.strerror}", location=Location(path)
            ) from error
        name = f"flux_migration_{abs(hash(path)):x}"
        module = ModuleType(name)
        module.__file__ = os.path.abspath(path)
        sys.modules[name] = module
        try:
            exec(compile(content, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own migration
        except SyntaxError as error:
            raise _syntax_error(path, error) from error
        except Exception as error:
            raise python_error(path, error, "fails when it is read") from error
        finally:
            del sys.modules[name]
        return cls(path, content.decode("utf-8", "replace").removeprefix(BOM), module.__dict__)

    def has(self, name: str) -> bool:
        return name in self.names

    def script(self, direction: _Direction) -> Script:
        """Resolve `apply()` or `undo()`: to its text, or to itself when it takes a connection."""
        function = self.names.get(direction)
        if not callable(function):
            raise InvalidMigrationModuleError(
                f"has no {direction}()",
                location=Location(self.path),
                hint=f"define {direction}() that returns SQL text, "
                f"or {direction}(connection) that does the work itself",
            )
        directives = read_directives(self.source.replace("\r\n", "\n"), ".py", self.path)
        parameters = _count_parameters(function)
        if parameters == 0:
            within = f"{direction}()"
            raw = self._resolve(function, direction)
            _refuse_nul(raw, self.path, within=within)
            return Script.from_text(raw, self.path, within=within, directives=directives)
        if parameters == 1:
            from flux.syntax_hash import syntax_hash

            return Script(
                path=self.path,
                hash=syntax_hash(self.source),
                function=function,
                directives=directives,
            )
        raise InvalidMigrationModuleError(
            f"{direction}() takes {parameters} parameters",
            location=Location(self.path),
            hint="none, to return SQL text, or one, to be given the connection",
        )

    def _resolve(self, function: Callable[..., object], direction: _Direction) -> str:
        try:
            result = function()
            texts = [result] if isinstance(result, str) else _texts(result)
            for text in texts:
                text.encode()
        except _NotTextError as error:
            hint = f"{direction}() returns SQL text, or several texts"
            if error.args[0] == "None":
                hint += "; is a `return` missing?"
            raise InvalidMigrationModuleError(
                f"{direction}() gives {error.args[0]} instead of SQL text",
                location=Location(self.path),
                hint=hint,
            ) from None
        except Exception as error:
            raise python_error(self.path, error, f"{direction}() fails") from error
        # A text may end in a comment, or without its semicolon.
        return "\n;\n".join(texts)


class _NotTextError(Exception):
    """Something else than text came out of `apply()` or `undo()`; says what."""


def _texts(result: object) -> list[str]:
    if result is None:
        raise _NotTextError("None")
    if isinstance(result, bytes | dict) or not isinstance(result, Iterable):
        raise _NotTextError(f"a {type(result).__name__}")
    texts = list(result)
    for text in texts:
        if not isinstance(text, str):
            raise _NotTextError(f"an iterable that holds a {type(text).__name__}")
    return texts


def _count_parameters(function: Callable[..., object]) -> int:
    code = getattr(function, "__code__", None)
    has_varargs = 0x04 | 0x08  # inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    if code is not None and not code.co_flags & has_varargs:
        return int(code.co_argcount)
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(parameter.kind in kinds for parameter in parameters)


def _syntax_error(path: str, error: SyntaxError) -> InvalidMigrationModuleError:
    source = (error.text or "").rstrip("\n") or None
    return InvalidMigrationModuleError(
        f"SyntaxError: {error.msg}",
        location=Location(path, error.lineno, error.offset if source else None, source),
    )


def python_error(path: str, error: Exception, what: str) -> InvalidMigrationModuleError:
    """An error that points at the line of the migration's own file where it came from."""
    return InvalidMigrationModuleError(
        f"{what}: {type(error).__name__}: {error}", location=python_location(path, error)
    )


def python_location(path: str, error: BaseException) -> Location:
    """The innermost line of the file at `path` in an exception's traceback."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if line is None:
        return Location(path)
    import linecache

    return Location(path, line, None, linecache.getline(path, line).rstrip("\n") or None)


def loading_problems(error: FluxMigrationException) -> tuple[Problem, ...]:
    """The problems that an error of `read` holds, also when it is about one alone."""
    if error.problems or not isinstance(error, MigrationLoadingError):
        return error.problems
    return (_as_problem(error),)
