"""Contents: which rows a database has, in a form that can be compared as a catalog can. Pure.

Of each table that is how many rows it has, and checksums: of the values of each column, whatever
their order, and of the rows as a whole. A value itself is never told: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from flux.fingerprint import Difference, Fingerprint, Item

#: What the label of each table's rows begins with.
_ROWS, _VALUES, _WHOLE = "rows", "values", "as a whole"


class Column(NamedTuple):
    """One column of a table: the label of its table's rows, and its name."""

    rows: str
    name: str


class TableRows(NamedTuple):
    """The rows of one table: how many, a checksum for each column, and one for them as a whole."""

    table: str
    number: int
    columns: Mapping[str, str]
    whole: str

    def items(self) -> Iterator[Item]:
        """The same in the form of a fingerprint."""
        label = rows_of(self.table)
        number = f"{self.number} row{'' if self.number == 1 else 's'}"
        yield Item(_ROWS, f"of {self.table}", definition=number)
        yield Item(_ROWS, _WHOLE, label, f"checksum {self.whole}")
        for name, checksum in self.columns.items():
            yield Item(_VALUES, f"of {name}", label, f"checksum {checksum}")


def rows_of(table: str) -> str:
    """The label of a table's rows."""
    return f"{_ROWS} of {table}"


def counter(sequence: str, value: str) -> Item:
    """How far a sequence has counted."""
    return Item("last value", f"of {sequence}", definition=value)


def contents(tables: Iterable[TableRows], counters: Iterable[Item]) -> Fingerprint:
    """The contents of a database."""
    items = (item for table in tables for item in table.items())
    return Fingerprint.of((*items, *counters))


def columns_in(differences: Iterable[Difference]) -> set[Column]:
    """The columns whose values differ."""
    items = (difference.item for difference in differences)
    return {Column(item.of, item.name.removeprefix("of ")) for item in items if _is_values(item)}


def without_consequences(differences: Collection[Difference]) -> tuple[Difference, ...]:
    """Differences without those that follow from others.

    Where a table or a column is only on one side, so are its values. Where the number of rows
    differs, so do the values of each column; and where these do, so do the rows as a whole.
    """
    numbers = {d.item.label for d in differences if d.item.kind == _ROWS and not d.item.of}
    values = {d.item.of for d in differences if _is_values(d.item)}
    return tuple(d for d in differences if not _follows(d, numbers, values))


def in_words(item: Item) -> str:
    """How an item is called in a sentence, of a catalog or of contents."""
    if item.of and item.kind == _ROWS:
        return f"the {item.of}"
    return f"{item.label} of {item.of.removeprefix('rows of ')}" if item.of else item.label


def _follows(difference: Difference, numbers: set[str], values: set[str]) -> bool:
    item = difference.item
    if not (_is_values(item) or item.kind == _ROWS):
        return False
    if difference.kind != "changed" or item.of in numbers:
        return True
    return item.kind == _ROWS and item.of in values


def _is_values(item: Item) -> bool:
    return item.kind == _VALUES and bool(item.of)
