"""The history and the table beside it on PostgreSQL, as SQL text. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

from flux.backends.postgres_lock import HISTORY_CHANGED, fail_unless
from flux.migration import AppliedMigration, Migration
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: As JSON has it, whatever DateStyle is, and whichever types the application has registered.
_APPLIED_AT = "pg_catalog.to_json(h.applied_at)::text"


class HistorySQL(Record):
    """Statements about both tables, whose names come quoted; each ends with `;` and a newline.

    `literal` quotes a text.
    """

    table: str
    state_table: str
    literal: Callable[[str], str]

    @property
    def create(self) -> str:
        """Create the history, where it is not there."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.table} (id text PRIMARY KEY, "
            "hash text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());\n"
        )

    @property
    def read(self) -> str:
        """A query for all rows, and whether the table beside is there. See `applied`.

        An outer join: an empty history gives one row of nulls. The server looks for the table
        beside once, and not for each row.
        """
        return (
            f"SELECT h.id, h.hash, {_APPLIED_AT}, "
            f"(SELECT pg_catalog.to_regclass({self.literal(self.state_table)}) IS NOT NULL) "
            f"FROM (SELECT 1) one LEFT JOIN {self.table} h ON true"
        )

    def insert(self, migration: Migration, returning: str = "") -> str:
        """Write a migration's row, and then evaluate an expression, if one is given."""
        values = f"{self.literal(migration.id)}, {self.literal(migration.hash)}"
        return (
            f"INSERT INTO {self.table} (id, hash, applied_at) "
            f"VALUES ({values}, pg_catalog.clock_timestamp())"
            + (f" RETURNING {returning};\n" if returning else ";\n")
        )

    def delete(self, migration: Migration) -> str:
        """Delete a migration's row."""
        return f"DELETE FROM {self.table} WHERE id = {self.literal(migration.id)};\n"

    def delete_one(self, migration: Migration, returning: str = "0") -> str:
        """Delete a migration's row, and then evaluate an expression; fail where there is no row."""
        delete = f"DELETE FROM {self.table} WHERE id = {self.literal(migration.id)} RETURNING 1"
        is_there = fail_unless(("EXISTS (SELECT FROM gone)", HISTORY_CHANGED))
        return f"WITH gone AS ({delete}) SELECT {is_there}, {returning};\n"

    def apply(self, migration: Migration) -> tuple[str, str]:
        """The guard, which fails where a migration has a row, and the record of applying it."""
        return self.guard([migration], []), self.insert(migration)

    def undo(self, migration: Migration) -> tuple[str, str]:
        """The guard, which fails where a migration has no row, and the record of undoing it."""
        return self.guard([], [migration]), self.delete(migration)

    def guard(self, pending: Sequence[Migration], applied: Sequence[Migration]) -> str:
        """Fail where one of the first has a row, or one of the others has none."""
        conditions = []
        if pending:
            conditions.append(f"NOT EXISTS (SELECT {self._rows_of(pending)})")
        if applied:
            conditions.append(
                f"(SELECT pg_catalog.count(*) {self._rows_of(applied)}) = {len(applied)}"
            )
        return f"SELECT {fail_unless((' AND '.join(conditions), HISTORY_CHANGED))};\n"

    def _rows_of(self, migrations: Sequence[Migration]) -> str:
        ids = ", ".join(self.literal(migration.id) for migration in migrations)
        return f"FROM {self.table} WHERE id IN ({ids})"

    def remember(self, name: str, value: str) -> str:
        """Write a row of the table beside."""
        return (
            f"INSERT INTO {self.state_table} (name, value) "
            f"VALUES ({self.literal(name)}, {self.literal(value)}) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value;\n"
        )

    def replace(self, name: str, value: str, new: str) -> str:
        """Write another value in a row of the table beside, if it has this one."""
        return (
            f"UPDATE {self.state_table} SET value = {self.literal(new)} "
            f"WHERE name = {self.literal(name)} AND value = {self.literal(value)};\n"
        )

    def forget(self, names: Sequence[str]) -> str:
        """Delete rows of the table beside; nothing where no name is given."""
        listed = ", ".join(map(self.literal, names))
        return f"DELETE FROM {self.state_table} WHERE name IN ({listed});\n" if names else ""


def applied(rows: Sequence[Sequence[Any]]) -> list[AppliedMigration]:
    """What `HistorySQL.read` gives, as the rows of the history.

    Step by step for all: there may be thousands of them.
    """
    if not rows or rows[0][0] is None:  # what stands for an empty history
        return []
    ids, hashes, moments, *_ = zip(*rows, strict=True)
    at = map(datetime.fromisoformat, map(_as_python_has_it, moments))
    return list(map(AppliedMigration._make, zip(ids, hashes, at, strict=True)))


def _as_python_has_it(moment: str) -> str:
    """A time without the quotes that JSON has around it."""
    if sys.version_info >= (3, 11):
        return moment[1:-1]
    # JSON leaves out zeros at the end of the fraction.
    return re.sub(r"\.\d+", lambda found: found[0].ljust(7, "0"), moment[1:-1])
