"""Reading the contents of a PostgreSQL database, of which the server makes checksums. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux.backends.postgres_catalog import SETTINGS
from flux.contents import Column, TableRows, contents, counter, rows_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from flux.backends.postgres import PostgresBackend
    from flux.fingerprint import Fingerprint

#: How many tables are read in one round trip.
_TOGETHER = 100
#: Where policies would hide rows, the server says so.
_SETTINGS = f"{SETTINGS}SET LOCAL row_security = off;\n"
_TABLES = """\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), ARRAY(
    SELECT quote_ident(a.attname)::text FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attname COLLATE "C")
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated)
AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND c.oid NOT IN (SELECT o FROM unnest(ARRAY[{own}]) AS o WHERE o IS NOT NULL)
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
    AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1"""
_COUNTERS = """\
SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename),
    coalesce(last_value::text, 'not used yet')
FROM pg_sequences ORDER BY 1"""


def read(backend: PostgresBackend, without: Collection[Column]) -> Fingerprint:
    """The contents of an open database but flux's own tables, and but some columns. Read-only."""
    own = ", ".join(
        f"to_regclass({backend.literal(table)})" for table in (backend.table, backend.state_table)
    )
    tables = backend.fetch(_SETTINGS + _TABLES.format(own=own))
    rows: list[TableRows] = []
    for start in range(0, len(tables), _TOGETHER):
        rows += _read_rows(backend, tables[start : start + _TOGETHER], without)
    counters = [counter(*row) for row in backend.fetch(_SETTINGS + _COUNTERS)]
    return contents(rows, counters)


def _read_rows(
    backend: PostgresBackend,
    tables: Sequence[tuple[str, list[str]]],
    without: Collection[Column],
) -> Iterator[TableRows]:
    """The rows of some tables, each with its columns."""
    kept = {
        table: [name for name in columns if Column(rows_of(table), name) not in without]
        for table, columns in tables
    }
    query = "\nUNION ALL\n".join(
        _checksums(backend.literal(table), table, columns) for table, columns in kept.items()
    )
    for table, count, (whole, *checksums) in backend.fetch(_SETTINGS + query):
        yield TableRows(table, count, dict(zip(kept[table], checksums, strict=True)), whole)


def _checksums(label: str, table: str, columns: Sequence[str]) -> str:
    """The query for the rows of one table. A sum is the same in whatever order they come."""
    values = [f"t.{column}" for column in columns]
    sums = ", ".join(
        f"coalesce(sum(hashtextextended(ROW({row})::text, 0)), 0)::text"
        for row in (", ".join(values), *values)
    )
    return f"SELECT {label}, count(*), ARRAY[{sums}] FROM ONLY {table} t"
