"""The migration directory: the only room that reads migration files.

Every defect of the directory is found before any is reported, so that one error names all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType

from flux import python_file
from flux.config import FluxConfig
from flux.exceptions import (
    FluxMigrationException,
    InvalidMigrationModuleError,
    Location,
    MigrationLoadingError,
    Problem,
)
from flux.migration import (
    BOM,
    AppliedMigration,
    Migration,
    OnDisk,
    Order,
    Placement,
    Repeatable,
    Script,
    fold,
    is_set_aside,
    misordered,
    sort_key,
)
from flux.python_file import Importable, PythonFile, refuse_nul
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Read = TypeVar("_Read")

PLACEMENTS: tuple[Placement, Placement] = ("pre-apply", "post-apply")
#: Where test hooks lie beside the migrations.
TESTS: Placement = "tests"

# Patterns that few directories need are compiled when they are used.
#: goose, dbmate and sql-migrate keep both directions in one file.
_DOWN_MARKER = r"(?m)^[ \t]*--[ \t]*(?:\+goose Down|migrate:down|\+migrate Down)\b"

_ENDINGS = (".undo.sql", ".undo.py", ".sql", ".py")
#: Ends of ids that may be meant as part of an ending.
_TELLING = (".undo", ".up", ".down")
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # as it is, on Windows too
#: Bytes that nearly every file has less of.
_SMALL = 1 << 16
#: What is kept beside migrations, and is not taken for one.
_KEPT_BESIDE = (".md", ".rst", ".txt", ".csv", ".json", ".pyc", "readme", "makefile")
#: Control characters, and the bytes of a name that is not UTF-8.
_UNPRINTABLE = "[\x00-\x1f\x7f-\x9f\ud800-\udfff]"


class MigrationDirectory(Record):
    """What a migration directory holds, read and in order.

    `id_problems` are breaches of the rules for ids; the plan decides whether they matter,
    because what flux-migrations 0.0.3 has recorded stays valid. `set_aside` maps the ids that
    today's rules pass over (`_x`, `.x`) to a reader of the migration, for the same reason.
    `unread` are ids of which only the name was looked at, because nobody asked for more.
    """

    path: str
    migrations: tuple[Migration, ...] = ()
    pre_apply: tuple[Repeatable, ...] = ()
    post_apply: tuple[Repeatable, ...] = ()
    id_problems: tuple[Problem, ...] = ()
    set_aside: Mapping[str, Callable[[], Migration]] = MappingProxyType({})
    order: Order = "text"
    unread: frozenset[str] = frozenset()

    def with_recorded(self, ids: Iterable[str]) -> MigrationDirectory:
        """The same directory with those of `set_aside` that a history has recorded."""
        found = [self.set_aside[id]() for id in ids if id in self.set_aside]
        if not found:
            return self
        key = sort_key(self.order)
        migrations = sorted((*self.migrations, *found), key=lambda m: key(m.id))
        return self._replace(migrations=tuple(migrations), set_aside={})


class Listing(Record):
    """The names in a directory, and what is wrong with them; nothing was read but these.

    `aside` are those that today's rules pass over. `stamp` is another one when names have changed.
    """

    stamp: tuple[int, ...] | None
    files: _Files
    aside: _Files
    problems: tuple[Problem, ...]


class _Files(Record):
    """The names in one directory, sorted into what they are; ids map to file names.

    `refused` are names that are meant as migrations and must not be passed over in silence.
    """

    sql: dict[str, str]
    python: dict[str, str]
    undo: dict[str, str]
    refused: list[Problem]


def read(
    path: str,
    *,
    order: Order = "text",
    project_directory: str = "",
    recorded: Mapping[str, AppliedMigration] = MappingProxyType({}),
    only: Collection[str] | None = None,
    listing: Listing | None = None,
) -> MigrationDirectory:
    """Read all migrations of a directory (or `only` some) and its repeatables. Writes nothing.

    Python migrations are run to resolve their text, with `project_directory` and the
    migration directory itself importable. Undo scripts are read when they are asked for; so is,
    once more, the SQL of a migration that is `recorded` with the hash that it has: it is not kept.
    A `listing` from before serves where no name has changed since.

    Raises `MigrationLoadingError`, with every defect found in its `problems`.
    """
    if listing is None or listing.stamp != _stamp(path):
        listing = list_files(path)
    files, aside, problems = listing.files, listing.aside, list(listing.problems)
    importable = partial(
        python_file.importable,
        os.path.abspath(project_directory or os.curdir),
        os.path.abspath(path),
    )
    # What is read later is found also where the program has changed its working directory.
    root = "" if os.path.isabs(path) else os.path.join(os.getcwd(), "")
    read_migration = partial(_read_migration, os.path.join(path, ""), root, importable, recorded)
    with importable():
        ids = {**files.sql, **files.python}
        wanted = [id for id in ids if only is None or id in only]
        migrations = _collect(partial(read_migration, files), wanted, problems)
        repeatables = {
            placement: _read_placement(path, placement, order, importable, problems)
            for placement in PLACEMENTS
        }
    if problems:
        raise _loading_error(problems)
    key = sort_key(order)
    migrations.sort(key=lambda migration: key(migration.id))

    def reader(id: str) -> Callable[[], Migration]:
        def read_one() -> Migration:
            with importable():
                return read_migration(aside, id)

        return read_one

    return MigrationDirectory(
        path=path,
        migrations=tuple(migrations),
        pre_apply=repeatables["pre-apply"],
        post_apply=repeatables["post-apply"],
        id_problems=_id_problems([migration.id for migration in migrations], order),
        set_aside={id: reader(id) for id in {**aside.sql, **aside.python}},
        order=order,
        unread=frozenset(ids).difference(wanted),
    )


def read_configured(
    config: FluxConfig,
    recorded: Mapping[str, AppliedMigration] = MappingProxyType({}),
    *,
    only: Collection[str] | None = None,
    listing: Listing | None = None,
) -> MigrationDirectory:
    """`read` the directory that a configuration names."""
    return read(
        config.migration_directory,
        order=config.order,
        project_directory=config.project_directory,
        recorded=recorded,
        only=only,
        listing=listing,
    )


def list_files(path: str) -> Listing:
    """List a migration directory. Raises `MigrationLoadingError` where that cannot be."""
    stamp = _stamp(path)
    names, folders = _list(path)
    _refuse_alembic(path, names)
    names_aside = set(filter(is_set_aside, names))
    files = _sort_out(path, [name for name in names if name not in names_aside])
    problems = (*_misnamed_placements(path, folders), *_file_problems(path, files))
    return Listing(stamp, files, _sort_out(path, names_aside), problems)


def _stamp(path: str) -> tuple[int, ...] | None:
    """Which directory it is, and when a name in it was last added or removed."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def list_ids(path: str) -> list[str]:
    """The ids of a directory by its file names alone, unsorted. Runs and reads no file."""
    names, _ = _list(path)
    files = _sort_out(path, [name for name in names if not is_set_aside(name)])
    return list({**files.sql, **files.python, **files.undo})


def read_helpers(path: str) -> list[tuple[str, str]]:
    """The names and texts of Python files beside the migrations that are set aside, sorted."""
    names = [name for name in _names_set_aside(path) if name.endswith(".py")]
    return [(name, _read_text(os.path.join(path, name))) for name in sorted(names)]


def list_passed_over(path: str) -> list[str]:
    """Names beside the migrations that may be meant as some, and are none, sorted.

    Files whose ending is not one of a migration, and folders with such files in them. Reads names
    only; what is set aside, and what people keep in every directory, is not listed.
    """
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            if is_set_aside(entry.name) or entry.name in (*PLACEMENTS, TESTS):
                continue
            if entry.is_dir():
                if any(name.lower().endswith((".sql", ".py")) for name in _names_in(entry.path)):
                    found.append(entry.name + "/")
            elif not entry.name.lower().endswith((".sql", ".py", *_KEPT_BESIDE)):
                found.append(entry.name)
    return sorted(found)


def _names_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if not is_set_aside(entry.name)]
    except OSError:
        return []


def _names_set_aside(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if is_set_aside(entry.name) and entry.is_file()]


# Names --------------------------------------------------------------------------------------


def _list(path: str) -> tuple[list[str], list[str]]:
    """The names of files and those of folders in a directory, each sorted.

    A folder named like a migration is among the files: reading it says what it is.
    """
    try:
        names = sorted(os.listdir(path))
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
    # There may be thousands of files: only the few others are looked at.
    others = [name for name in names if not name.endswith((".sql", ".py"))]
    folders = [name for name in others if os.path.isdir(os.path.join(path, name))]
    return [name for name in names if name not in folders], folders


def _refuse_alembic(path: str, names: list[str]) -> None:
    """Say what a directory is whose files would be told one by one as no migrations."""
    if "env.py" in names and "script.py.mako" in names:
        raise MigrationLoadingError(
            "this is a directory of Alembic's (it has env.py and script.py.mako)",
            location=Location(path),
            hint="give flux a directory of its own: migration_directory in the configuration",
        )


def _misnamed_placements(path: str, folders: Iterable[str]) -> list[Problem]:
    return [
        Problem(
            "file-name",
            (),
            f"looks like {placement}/, and is not: nothing in it would run",
            f"rename it to {placement}",
            Location(os.path.join(path, folder)),
        )
        for folder in folders
        for placement in PLACEMENTS
        if folder != placement and folder.lower().replace("_", "-") == placement
    ]


def _sort_out(path: str, names: Iterable[str]) -> _Files:
    files = _Files({}, {}, {}, [])
    kinds = {".sql": files.sql, ".py": files.python, ".undo.sql": files.undo}
    for name in names:
        # Nearly all are of these two kinds, and there may be thousands of them.
        if name.endswith(".undo.sql") and name.isprintable():
            files.undo[name[:-9]] = name
            continue
        id = name[:-4]
        if name.endswith(".sql") and name.isprintable() and not id.lower().endswith(_TELLING):
            files.sql[id] = name
            continue
        lower = name.lower()
        if not lower.endswith(_ENDINGS):
            continue
        ending = next(filter(lower.endswith, _ENDINGS))
        id = name[: -len(ending)]
        if not name.isprintable() and re.search(_UNPRINTABLE, name):
            id, name = (re.sub(_UNPRINTABLE, _escaped, text) for text in (id, name))
            message, hint = "the name holds a control character, or is not UTF-8", "rename it"
        elif ending == ".undo.py":
            message, hint = "an undo in Python is no file of its own", f"move it into {id}.py"
        elif id.endswith((".up", ".down")) and ending == ".sql":
            message = "named as other tools name their up and down files: both would be applied"
            hint = "rename ID.up.sql to ID.sql, and ID.down.sql to ID.undo.sql"
        elif not name.endswith(ending):
            message, hint = "the ending is not in small letters", f"rename it to {id}{ending}"
        else:
            kinds[ending][id] = name
            continue
        location = Location(os.path.join(path, name))
        files.refused.append(Problem("file-name", (id,), message, hint, location))
    return files


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def _file_problems(path: str, files: _Files) -> list[Problem]:
    problems = files.refused + [
        Problem(
            "duplicate",
            (id,),
            f"{files.sql[id]} and {files.python[id]} have one id",
            "remove one of the two",
            Location(path),
        )
        for id in sorted(files.sql.keys() & files.python.keys())
    ]
    for id in sorted(files.undo.keys() - files.sql.keys()):
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
                else f"put {id}.sql back; if nothing of it was ever applied, remove the undo",
                Location(os.path.join(path, files.undo[id])),
            )
        )
    return problems


def _id_problems(ids: list[str], order: Order) -> tuple[Problem, ...]:
    problems = []
    folded = list(map(fold, ids))
    if len(set(folded)) < len(ids):
        alike: dict[str, list[str]] = {}
        for id, as_folded in zip(ids, folded, strict=True):
            alike.setdefault(as_folded, []).append(id)
        for same in (same for same in alike.values() if len(same) > 1):
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
            problems.append(_as_problem(error, id))
    return results


def _as_problem(error: MigrationLoadingError, *ids: str) -> Problem:
    kind = "invalid-module" if isinstance(error, InvalidMigrationModuleError) else "unreadable"
    return Problem(kind, ids, error.message, error.hint, error.location)


def _loading_error(problems: list[Problem]) -> MigrationLoadingError:
    type_ = MigrationLoadingError
    if all(problem.kind == "invalid-module" for problem in problems):
        type_ = InvalidMigrationModuleError
    return type_.of(tuple(problems), f"{len(problems)} problems in the migration directory")


def _read_migration(
    beside: str,
    root: str,
    importable: Importable,
    recorded: Mapping[str, AppliedMigration],
    files: _Files,
    id: str,
) -> Migration:
    """Read one migration; `beside` is the directory's path with a slash at its end.

    Paths of what is read later count from `root`. A file of Python is run once: it may put
    something into a module of the project, which cannot be done twice.
    """
    if (name := files.sql.get(id)) is not None:
        # By their places, and by one partial for each: there may be thousands of them.
        script = read_sql(beside + name)
        kept = _without_text(script, recorded.get(id), root)
        undo = files.undo.get(id)
        read_later = None if undo is None else partial(read_sql, beside + undo, root)
        return Migration._make((id, kept, read_later))
    module = run_python(beside + files.python[id], importable)
    script = module.script("apply")
    if not module.has("undo"):
        return Migration(id, script)

    def read_undo() -> Script:
        with importable():
            return module.script("undo")

    return Migration(id, script, read_undo)


def _without_text(script: Script, row: AppliedMigration | None, root: str) -> Script | OnDisk:
    """What is kept of a script: all, or without its text where it was applied as it is.

    Its path counts from `root` when it is read again.
    """
    if row is None or row.hash != script.hash:
        return script
    return OnDisk._make((script.path, row.hash, read_sql, root))


def _read_placement(
    directory: str,
    placement: Placement,
    order: Order,
    importable: Importable,
    problems: list[Problem],
) -> tuple[Repeatable, ...]:
    path = os.path.join(directory, placement)
    if not os.path.isdir(path):
        return ()
    names, _ = _list(path)
    files = _sort_out(path, [name for name in names if not is_set_aside(name)])
    own = [
        Problem(
            "repeatable-undo",
            (id,),
            "a repeatable has no undo",
            "remove it",
            Location(os.path.join(path, name)),
        )
        for id, name in files.undo.items()
    ]
    own += _file_problems(path, files._replace(undo={}))

    def read_one(id: str) -> Repeatable:
        if id in files.sql:
            return Repeatable(id, placement, read_sql(os.path.join(path, files.sql[id])))
        module = run_python(os.path.join(path, files.python[id]), importable)
        if module.has("undo"):
            raise MigrationLoadingError(
                "a repeatable has no undo",
                location=Location(module.path),
                hint="remove undo()",
            )
        return Repeatable(id, placement, module.script("apply"))

    found = _collect(read_one, {**files.sql, **files.python}, own)
    own += [
        problem._replace(location=Location(path))
        for problem in _id_problems([repeatable.id for repeatable in found], order)
    ]
    problems += [
        problem._replace(ids=tuple(f"{placement}/{id}" for id in problem.ids)) for problem in own
    ]
    key = sort_key(order)
    return tuple(sorted(found, key=lambda repeatable: key(repeatable.id)))


def read_sql(path: str, root: str = "") -> Script:
    """Read a file of SQL, whose path counts from `root`. Raises `MigrationLoadingError`."""
    raw = _read_text(path, root)
    # What a search for letters says in no time, the pattern takes as long for as reading the file.
    marker = re.search(_DOWN_MARKER, raw) if "Down" in raw or ":down" in raw else None
    if marker:
        raise MigrationLoadingError(
            "is written for another tool: what is below this line would be applied, too",
            location=Location.of_offset(path, raw, marker.start()),
            hint="move it into ID.undo.sql, and remove the other tool's comments",
        )
    return Script.from_text(raw, path)


def _read_text(path: str, root: str = "") -> str:
    """What a file holds, with `\\n` line endings and its byte order mark."""
    try:
        content = _read_bytes(root + path)
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
    refuse_nul(raw, path)
    return raw


def _read_bytes(path: str) -> bytes:
    """What a file holds. `open` takes twice as long, and there may be thousands of small ones."""
    file = os.open(path, _READING)
    try:
        content = os.read(file, _SMALL)
        more = os.read(file, 1)
        if not more:
            return content
        with open(file, "rb", closefd=False) as rest:
            return b"".join((content, more, rest.read()))
    finally:
        os.close(file)


def run_python(path: str, importable: Importable) -> PythonFile:
    """Read a Python file and run it. Raises `MigrationLoadingError`."""
    return PythonFile.run(path, _read_text(path).removeprefix(BOM), importable)


def loading_problems(error: FluxMigrationException) -> tuple[Problem, ...]:
    """The problems that an error of `read` holds, also when it is about one alone."""
    if error.problems or not isinstance(error, MigrationLoadingError):
        return error.problems
    return (_as_problem(error),)
