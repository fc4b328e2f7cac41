"""New project files: the only room that writes them. Never overwrites one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from flux import directory
from flux.exceptions import InvalidConfigurationError, Location, MigrationLoadingError
from flux.migration import Order, Placement, misordered, sort_key
from flux.plan import newest_of

if TYPE_CHECKING:
    import datetime

    from flux.backends.base import MigrationBackend

_NUMBERED = re.compile(r"(\D*(?:\d+\D+?)*?)(\d+)(?=$|[^0-9.])")
_DATED = re.compile(r"(\d{8})_(\d{3,})(?!\d)")

_CONFIG = """\
# flux: database migrations. Every setting: docs/configuration.md

[flux]
backend = "{backend}"
migration_directory = "migrations"   # relative to this file

# The database's address; FLUX_DATABASE_URL and the command line come before it.
# ${{NAME}} takes an environment variable.
{url}

# log_level = "INFO"                 # DEBUG, INFO, WARNING or ERROR
# lock_wait = 300                    # seconds to wait while another flux runs
# connect_wait = 0                   # seconds to wait for a database that is still starting
# order = "text"                     # or "natural": 10_x after 9_x
# missing = "refuse"                 # or "allow-newer": start beside a newer database
# late = "refuse"                    # or "allow", or "prove" that their order does not matter
# apply_repeatable_on_undo = true    # run pre-apply and post-apply around a rollback, too
# post_apply_on_failure = false      # run post-apply also when a batch failed
# shadow_url = "..."                 # where `flux test` makes its databases; default: beside yours
# require_undo = false               # have `flux test` fail where there is no undo
# ignore = []                        # what `flux schema` and `flux drift` leave out

[backend]
{example}
"""

_SQL = "-- {title}\n"
_SQL_UNDO = "-- Undo: {title}\n"
_PYTHON = '''\
"""{title}"""


def apply():
    return """
    """
'''
_PYTHON_UNDO = '''

def undo():
    return """
    """
'''


def write_config(path: str, backend: type[MigrationBackend], name: str) -> list[str]:
    """Write a commented configuration file and make the migration directory.

    Returns the paths that are new. Raises `InvalidConfigurationError` when the file is there.
    """
    url = f'database_url = "{backend.url_example}"'
    text = _CONFIG.format(
        backend=name,
        url=url if name == "sqlite" else f"# {url}",
        example=backend.config_example,
    )
    _write_new(path, text, hint="remove it first, or name another file with --config")
    migrations = os.path.join(os.path.dirname(path), "migrations")
    if os.path.isdir(migrations):
        return [path]
    _make_directory(migrations)
    return [path, migrations + os.sep]


def new_migration(
    path: str,
    title: str,
    *,
    ending: str,
    today: datetime.date,
    known_ids: Collection[str] = (),
    order: Order = "text",
) -> list[str]:
    """Write an empty migration with its undo, named so that it sorts after all known ids.

    `path` is the migration directory, which is made if it is not there; `ending` is `.sql` or
    `.py`. Returns the paths of the new files.
    """
    _make_directory(path)
    ids = {*directory.list_ids(path), *known_ids}
    stem = os.path.join(path, next_id(title, ids, today, order))
    if ending == ".sql":
        texts = {stem + ".sql": _SQL, stem + ".undo.sql": _SQL_UNDO}
    else:
        texts = {stem + ".py": _PYTHON + _PYTHON_UNDO}
    return [_write_new(file, _fill(text, title)) for file, text in texts.items()]


def new_repeatable(
    path: str,
    placement: Placement,
    title: str,
    *,
    ending: str,
    today: datetime.date,
    order: Order = "text",
) -> list[str]:
    """Write an empty repeatable, named so that it sorts after the others of its placement."""
    folder = os.path.join(path, placement)
    _make_directory(folder)
    id = next_id(title, directory.list_ids(folder), today, order)
    text = _SQL if ending == ".sql" else _PYTHON
    return [_write_new(os.path.join(folder, id + ending), _fill(text, title))]


def next_id(title: str, ids: Collection[str], today: datetime.date, order: Order) -> str:
    """An id that sorts after all others: `YYYYMMDD_NNN_short-name`.

    Where the newest id is of another form and would sort after that, its last number is
    counted up instead. Raises `MigrationLoadingError` where no such id can be made.
    """
    slug = _slug(title)
    newest = newest_of(ids, order)
    date, number = f"{today:%Y%m%d}", 1
    if newest is not None and (match := _DATED.match(newest)) and match[1] >= date:
        date, number = match[1], int(match[2]) + 1
    candidates = [f"{date}_{number:03}_{slug}"]
    if newest is not None and (match := _NUMBERED.match(newest)):
        candidates.append(f"{match[1]}{int(match[2]) + 1:0{len(match[2])}}_{slug}")
    for candidate in candidates:
        if newest is None or _sorts_after(newest, candidate, order):
            return candidate
    raise MigrationLoadingError(
        f"no id of flux's form sorts after {newest!r}",
        hint="name the file by hand so that it sorts last"
        + ("" if order == "natural" else ', or set order = "natural" in the configuration'),
    )


def _sorts_after(newest: str, candidate: str, order: Order) -> bool:
    key = sort_key(order)
    # After 20240601120000_x, 20240602_001_y sorts last as text, but not by its number.
    return key(candidate) > key(newest) and (
        order == "natural" or not misordered([newest, candidate])
    )


def _slug(title: str) -> str:
    from unicodedata import normalize

    plain = normalize("NFKD", title.casefold()).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))
    if not slug:
        raise InvalidConfigurationError(
            f"{title!r} has no letter or digit that could name a file",
            hint='for instance: flux new "Add users"',
        )
    return slug[:80].rstrip("-")


def _fill(template: str, title: str) -> str:
    # A title is one line, and ends neither the comment nor the docstring that it stands in.
    line = " ".join(title.encode("utf-8", "replace").decode().split())
    if template.startswith('"'):
        line = line.replace("\\", r"\\").replace('"', r"\"")
    return template.format(title=line)


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write_new(path: str, text: str, *, hint: str | None = None) -> str:
    try:
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidConfigurationError(
            f"{path} is there already, and is left as it is", hint=hint
        ) from None
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def _cannot_write(path: str, error: OSError) -> InvalidConfigurationError:
    return InvalidConfigurationError(
        f"cannot be written: {error.strerror}", location=Location(path)
    )
