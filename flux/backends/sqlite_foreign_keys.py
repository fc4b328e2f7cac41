"""Foreign keys on SQLite: which rows refer to nothing, before a batch and after each migration.

To check them takes longer the more tables there are, and is left out where no table can have a
foreign key. SQLite keeps the text of each table, in which every foreign key has the word
REFERENCES; a script that makes one has the word, too, or a PRAGMA that lets it write the text in
pieces. What another connection commits changes `data_version`.
"""

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

    Those that were there before the batch are not held against a migration. On a connection that
    is `flux_s_own`, nothing runs between the scripts that flux does not know of.
    """

    def __init__(self, fetch: Callable[[str], list[Any]], *, flux_s_own: bool) -> None:
        self._fetch = fetch
        self._is_own = flux_s_own
        self._known: Counter[Any] | None = None
        #: Whether a script of the batch may have made a foreign key.
        self._may_be_made = not flux_s_own
        #: The `data_version` at which no table had a foreign key; None where one may have one.
        self._free: int | None = None

    def forget(self) -> None:
        """Forget what was there before: another batch begins."""
        self._known = self._free = None
        self._may_be_made = not self._is_own

    def expect_new(self) -> None:
        """Note that the script that runs next may make a foreign key, in a transaction or not."""
        self._may_be_made, self._free = True, None

    def note_again(self) -> None:
        """Forget what was noted in a transaction that was rolled back with all its migrations."""
        self._known = self._free = None

    def note(self) -> None:
        """Note what is there before the first migration of a batch, within its transaction."""
        if self._known is None:
            self._known = self._violations()
            if not self._may_be_made and not self._has_any():
                self._free = self._data_version()

    def check(self) -> None:
        """Raise `ForeignKeyError` for violations that were not there before."""
        if self._free is not None and self._free == self._data_version():
            return
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

    def _has_any(self) -> bool:
        """Whether a table may have a foreign key."""
        texts = "FROM main.sqlite_master WHERE instr(lower(sql), 'references')"
        return bool(self._fetch(f"SELECT 1 {texts} LIMIT 1"))

    def _data_version(self) -> int:
        """A number that changes with what other connections commit."""
        [(version,)] = self._fetch("PRAGMA main.data_version")
        return int(version)

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
