"""Foreign keys on SQLite: which rows refer to nothing, before a batch and after each migration."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable

from flux.backends.dbapi import quote_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ForeignKeyError(sqlite3.IntegrityError):
    """A migration leaves rows that refer to rows which are not there."""


class ForeignKeys:
    """The violations in a database, by way of `fetch`, which gives the rows of a query.

    Those that were there before the batch are not held against a migration.
    """

    def __init__(self, fetch: Callable[[str], list[Any]]) -> None:
        self._fetch = fetch
        self._known: Counter[Any] | None = None

    def forget(self) -> None:
        """Forget what was there before: another batch begins."""
        self._known = None

    def note(self) -> None:
        """Note what is there before the first migration of a batch."""
        if self._known is None:
            self._known = self._violations()

    def check(self) -> None:
        """Raise `ForeignKeyError` for violations that were not there before."""
        violations = self._violations()
        if new := violations - (self._known or Counter()):
            (table, parent, values), count = next(iter(new.items()))
            if values is None:
                raise ForeignKeyError(parent)
            more = sum(new.values()) - count
            raise ForeignKeyError(
                f"FOREIGN KEY constraint failed: {table} refers to rows that are not in "
                f"{parent}: {', '.join(map(repr, values)) or '?'}"
                + (f", and {more} more" if more else "")
            )
        self._known = violations

    def _violations(self) -> Counter[Any]:
        """Each violation by table, parent and the values of the key: rebuilds change rowids."""
        try:
            return self._in(self._fetch("PRAGMA main.foreign_key_check"))
        except sqlite3.OperationalError:  # the columns of some parent are not unique
            return self._table_by_table()

    def _table_by_table(self) -> Counter[Any]:
        found: Counter[Any] = Counter()
        for (name,) in self._fetch("SELECT name FROM sqlite_master WHERE type = 'table'"):
            try:
                found += self._in(
                    self._fetch(f"PRAGMA main.foreign_key_check({quote_identifier(name)})")
                )
            except sqlite3.OperationalError as error:
                found[name, str(error), None] += 1
        return found

    def _in(self, rows: list[Any]) -> Counter[Any]:
        """The violations in rows of the pragma."""
        return Counter(
            (table, parent, self._values(table, rowid, key)) for table, rowid, parent, key in rows
        )

    def _values(self, table: str, rowid: int | None, key: int) -> tuple[Any, ...]:
        if rowid is None:  # a WITHOUT ROWID table
            return ()
        columns = [
            row[3]
            for row in self._fetch(f"PRAGMA foreign_key_list({quote_identifier(table)})")
            if row[0] == key
        ]
        names = ", ".join(map(quote_identifier, columns))
        rows = self._fetch(f"SELECT {names} FROM {quote_identifier(table)} WHERE rowid = {rowid}")
        return tuple(rows[0]) if rows else ()
