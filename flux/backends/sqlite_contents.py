"""Reading the contents of a SQLite database, which has no checksums of its own. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from typing import Any

from flux.backends.dbapi import quote_identifier
from flux.backends.sqlite_catalog import plain_tables
from flux.backends.sqlite_spelling import plain_name
from flux.contents import Column, TableRows, contents, counter, rows_of
from flux.fingerprint import Fingerprint, Item

_MODULUS = 2**64
#: Of a column that is hidden, which only virtual tables have.
_HIDDEN = 1


def read(
    fetch: Callable[[str], list[Any]], own: Collection[str], without: Collection[Column]
) -> Fingerprint:
    """The contents of a database whose rows `fetch` gives; `own` are flux's tables, quoted."""
    tables = [_read_rows(fetch, name, without) for name in plain_tables(fetch, own)]
    return contents(tables, _counters(fetch))


def _read_rows(
    fetch: Callable[[str], list[Any]], name: str, without: Collection[Column]
) -> TableRows:
    table = plain_name(name)
    columns = sorted(
        column
        for _, column, *_, hidden in fetch(f"PRAGMA main.table_xinfo({quote_identifier(name)})")
        if hidden != _HIDDEN and Column(rows_of(table), plain_name(column)) not in without
    )
    # As SQL has the values, which tells '1' from 1, and 1 from 1.0.
    values = ", ".join(f"quote({quote_identifier(column)})" for column in columns) or "NULL"
    count, whole, sums = 0, 0, [0] * len(columns)
    for row in fetch(f"SELECT {values} FROM main.{quote_identifier(name)}"):
        count += 1
        whole += _hash(repr(row))
        if columns:
            sums = [one + _hash(value) for one, value in zip(sums, row, strict=True)]
    checksums = map(_spelled, sums)
    names = map(plain_name, columns)
    return TableRows(table, count, dict(zip(names, checksums, strict=True)), _spelled(whole))


def _counters(fetch: Callable[[str], list[Any]]) -> Iterator[Item]:
    """How far the tables with AUTOINCREMENT have counted."""
    if fetch("SELECT 1 FROM main.sqlite_master WHERE name = 'sqlite_sequence'"):
        for name, value in fetch("SELECT name, seq FROM main.sqlite_sequence ORDER BY name"):
            yield counter(plain_name(name), str(value))


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _spelled(total: int) -> str:
    """A sum of hashes, which is the same in whatever order they come."""
    return f"{total % _MODULUS:016x}"
