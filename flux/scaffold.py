"""New project files: the only room that writes them. Never overwrites one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from flux import directory
from flux.exceptions import InvalidConfigurationError, MigrationLoadingError
from flux.migration import Order, Placement, sort_key

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
# order = "text"                     # or "natural": 10_x after 9_x
# apply_repeatable_on_undo = true    # run pre-apply and post-apply around a rollback, too
# post_apply_on_failure = false      # run post-apply also when a batch failed

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
    try:
        _write_new(path, text)
    except FileExistsError:
        raise InvalidConfigurationError(
            f"{path} is there already, and is left as it is",
            hint="remove it first, or name another file with --config",
        ) from None
    migrations = os.path.join(os.path.dirname(path), "migrations")
    if os.path.isdir(migrations):
        return [path]
    os.mkdir(migrations)
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
    os.makedirs(path, exist_ok=True)
    ids = {*directory.list_ids(path), *known_ids}
    stem = os.path.join(path, next_id(title, ids, today, order))
    if ending == ".sql":
        texts = {stem + ".sql": _SQL, stem + ".undo.sql": _SQL_UNDO}
    else:
        texts = {stem + ".py": _PYTHON + _PYTHON_UNDO}
    return [_write_new(file, text.format(title=title)) for file, text in texts.items()]


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
    os.makedirs(folder, exist_ok=True)
    id = next_id(title, directory.list_ids(folder), today, order)
    text = _SQL if ending == ".sql" else _PYTHON
    return [_write_new(os.path.join(folder, id + ending), text.format(title=title))]


def next_id(title: str, ids: Collection[str], today: datetime.date, order: Order) -> str:
    """An id that sorts after all others: `YYYYMMDD_NNN_short-name`.

    Where the newest id is of another form and would sort after that, its last number is
    counted up instead. Raises `MigrationLoadingError` where no such id can be made.
    """
    slug = _slug(title)
    key = sort_key(order)
    newest = max(ids, key=key, default=None)
    date, number = f"{today:%Y%m%d}", 1
    if newest is not None and (match := _DATED.match(newest)) and match[1] >= date:
        date, number = match[1], int(match[2]) + 1
    candidates = [f"{date}_{number:03}_{slug}"]
    if newest is not None and (match := _NUMBERED.match(newest)):
        candidates.append(f"{match[1]}{int(match[2]) + 1:0{len(match[2])}}_{slug}")
    for candidate in candidates:
        if newest is None or key(candidate) > key(newest):
            return candidate
    raise MigrationLoadingError(
        f"no id of flux's form sorts after {newest!r}",
        hint="name the file by hand so that it sorts last"
        + ("" if order == "natural" else ', or set order = "natural" in the configuration'),
    )


def _slug(title: str) -> str:
    from unicodedata import normalize

    plain = normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))
    if not slug:
        raise InvalidConfigurationError(
            f"{title!r} has no letter or digit that could name a file",
            hint='for instance: flux new "Add users"',
        )
    return slug[:80].rstrip("-")


def _write_new(path: str, text: str) -> str:
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return path
