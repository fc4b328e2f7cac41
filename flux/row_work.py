"""Which statements work on rows that are there already, which a scratch database lacks. Pure.

There are only the rows that migrations insert. Whether it matters in which order two statements
change rows of one table is to be seen only where there are such rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from flux.fingerprint import Fingerprint
from flux.statements import Dialect, SplitError, Statement, words

#: With these begins what takes rows that are there, or calls what may.
_TAKES_ROWS = (
    *("UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "WITH", "SELECT", "TABLE"),
    *("REFRESH", "DO", "CALL", "EXECUTE"),
)
_WORD = re.compile(r"\w+")


class RowWork(NamedTuple):
    """What of a migration's statements work on rows: every word in them, in lower case.

    `is_known` is False of a Python function, which may do anything. `only_updates` says that no
    row comes or goes.
    """

    words: frozenset[str] = frozenset()
    is_known: bool = True
    only_updates: bool = True


#: Of a Python function.
ANYTHING = RowWork(is_known=False, only_updates=False)


def row_work(statements: Iterable[Statement], dialect: Dialect) -> RowWork:
    """What statements do to rows that are there already."""
    found: set[str] = set()
    only_updates = True
    for statement in statements:
        try:
            bare = list(words(statement.text, dialect))
        except SplitError:
            bare = ["DO"]
        if _takes_rows(bare):
            # The names in quotation marks, and in the body of a DO, too.
            found |= set(_WORD.findall(statement.text.lower()))
            only_updates = only_updates and bare[0] == "UPDATE"
    return RowWork(frozenset(found), only_updates=only_updates)


def _takes_rows(bare: Sequence[str]) -> bool:
    """Whether a statement of these bare words works on rows that are there."""
    first, rest = bare[0] if bare else "", set(bare[1:])
    if first == "INSERT":
        return bool({"FROM", "TABLE"} & rest or {"CONFLICT", "REPLACE"} & rest)
    if first == "CREATE":  # TABLE … AS, MATERIALIZED VIEW
        return bool({"TABLE", "MATERIALIZED"} & set(bare[1:4])) and {"AS", "FROM"} <= rest
    if first == "ALTER":  # … TYPE … USING
        return "USING" in rest
    return first in _TAKES_ROWS


def tables_at_stake(
    one: RowWork, other: RowWork, columns: Mapping[str, Collection[str]]
) -> set[str]:
    """The tables of which both work on rows, so that the order may matter.

    `columns` are the names of each table's columns. Two that only update, and have no column of a
    table in common, cannot be in each other's way there.
    """
    return {
        table
        for table, names in columns.items()
        if _concerns(one, table) and _concerns(other, table) and _meet(one, other, names)
    }


def _concerns(work: RowWork, table: str) -> bool:
    return not work.is_known or table in work.words


def _meet(one: RowWork, other: RowWork, columns: Collection[str]) -> bool:
    if not (one.only_updates and other.only_updates):
        return True
    return not one.words.isdisjoint(other.words & set(columns))


def columns_of(catalog: Fingerprint) -> dict[str, set[str]]:
    """The names of each table's columns, in lower case, and without schemas and quotes."""
    tables: dict[str, set[str]] = {}
    for item in catalog.items:
        if item.kind == "table":
            tables.setdefault(_plain(item.name), set())
        elif item.kind == "column" and item.of.startswith("table "):
            tables.setdefault(_plain(item.of), set()).add(_plain(item.name))
    return tables


def _plain(name: str) -> str:
    """The last part of a name: `table public."Users"` gives `users`."""
    found = re.search(r'"((?:[^"]|"")*)"$|(\w*)$', name)
    return "".join(found.groups(default="")).lower() if found else name.lower()
