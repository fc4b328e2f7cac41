"""Reading the fingerprint of a SQLite database from the texts of its schema table. Read-only.

SQLite keeps each object as the statement that made it, and edits that text when the object is
altered. The texts are put in one spelling, and that of a table is taken apart into its columns and
constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flux.backends.sqlite_foreign_keys import quote
from flux.backends.sqlite_spelling import name_of, plain_name, spelled, split_at, with_depth, words
from flux.fingerprint import Fingerprint, Item

#: What has no text was made for a constraint, which says so itself.
_OBJECTS = """\
SELECT type, name, tbl_name, sql FROM main.sqlite_master
WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'sqlite!_%' ESCAPE '!'"""
_PRAGMAS = ("application_id", "user_version")
#: How the tables are called that keep what is in a virtual one, after its own name. From SQLite
#: 3.37 on, `PRAGMA table_list` tells of others, too.
_SHADOWS = (
    *("content", "data", "idx", "docsize", "config"),  # FTS5
    *("segments", "segdir", "stat"),  # FTS3, FTS4
    *("node", "parent", "rowid"),  # R-tree
)
_BEGINS_CONSTRAINT = ("constraint", "primary", "unique", "check", "foreign")
_ENDS_TYPE = (
    *("constraint", "primary", "not", "null", "unique", "check", "default", "collate"),
    *("references", "generated", "as"),
)


class _Object(NamedTuple):
    """A row of the schema table."""

    type: str
    name: str
    table: str  # the one it belongs to as its statement has it, or itself
    sql: str

    @property
    def kind(self) -> str:
        return "virtual table" if self.sql.startswith("CREATE VIRTUAL") else self.type

    @property
    def label(self) -> str:
        return f"{self.kind} {plain_name(self.name)}"


def read(fetch: Callable[[str], list[Any]], own: Collection[str]) -> Fingerprint:
    """The fingerprint of a database whose rows `fetch` gives; `own` are flux's tables, quoted."""
    objects = [_Object(*row) for row in fetch(_OBJECTS)]
    tables = _tables(objects)
    left_out = _left_out(fetch, tables, own)
    items = [Item("pragma", name, definition=str(_pragma(fetch, name))) for name in _PRAGMAS]
    items = [item for item in items if item.definition != "0"]
    for one in objects:
        if one.table.lower() not in left_out:
            items += _items(one, tables[one.table.lower()].label)
    return Fingerprint.of(items)


def plain_tables(fetch: Callable[[str], list[Any]], own: Collection[str]) -> list[str]:
    """The names of the tables whose rows are the user's own; `own` are flux's tables, quoted."""
    tables = _tables([_Object(*row) for row in fetch(_OBJECTS)])
    left_out = _left_out(fetch, tables, own)
    return sorted(
        one.name for name, one in tables.items() if one.kind != "view" and name not in left_out
    )


def _tables(objects: Sequence[_Object]) -> dict[str, _Object]:
    """The tables and views by their names in lower case, as SQLite finds them."""
    return {one.name.lower(): one for one in objects if one.type in ("table", "view")}


def _left_out(
    fetch: Callable[[str], list[Any]], tables: Mapping[str, _Object], own: Collection[str]
) -> set[str]:
    """The names, in lower case, of flux's tables, and of those that keep what is in others."""
    hidden = {name for _, name, kind, *_ in fetch("PRAGMA table_list") if kind == "shadow"}
    hidden |= {
        f"{one.name}_{ending}"
        for one in tables.values()
        if one.kind == "virtual table"
        for ending in _SHADOWS
    }
    quoted = {name.lower() for name in own}
    hidden |= {name for name in tables if quote(name).lower() in quoted}
    return {name.lower() for name in hidden}


def _pragma(fetch: Callable[[str], list[Any]], name: str) -> int:
    [(value,)] = fetch(f"PRAGMA main.{name}")
    return int(value)


def _items(one: _Object, label: str) -> list[Item]:
    """What an object is, which is the table of that label, or belongs to it."""
    name = plain_name(one.name)
    _create, *rest = words(one.sql)
    is_unique = rest[0] == "unique"
    rest = rest[3:] if rest[0] in ("unique", "virtual") else rest[2:]
    if one.kind == "table":
        return [*_table_items(name, rest)]
    if one.kind == "index":
        _on, _table, *rest = rest
        return [Item("index", name, label, spelled(["unique"] * is_unique + rest))]
    if one.kind == "trigger":
        return [Item("trigger", name, label, "\n".join(_trigger_lines(rest)))]
    return [Item(one.kind, name, definition=spelled(rest))]


def _trigger_lines(rest: Sequence[str]) -> Iterator[str]:
    begin = rest.index("begin") + 1
    yield spelled(rest[:begin])
    *statements, end = split_at(rest[begin:], ";")
    for statement in statements:
        yield f"    {spelled(statement)};"
    yield spelled(end)


# Tables ------------------------------------------------------------------------------------------


def _table_items(name: str, rest: Sequence[str]) -> Iterator[Item]:
    """A table, its columns and its constraints, from what follows its name."""
    inside, after = _parenthesised(rest)
    options = sorted(spelled(words).lower() for words in split_at(after, ","))
    yield Item("table", name, definition=", ".join(options))
    label = f"table {name}"
    for piece in split_at(inside, ","):
        if piece[0] in _BEGINS_CONSTRAINT:
            for constraint in _constraints(piece):
                yield _constraint_item(constraint, label)
        else:
            yield Item("column", name_of(piece[0]), label, _column(piece[1:]))


def _column(rest: Sequence[str]) -> str:
    """What a column is, from what follows its name; the case of its type does not matter."""
    end = next(
        (
            at
            for at, (word, depth) in enumerate(with_depth(rest))
            if word in _ENDS_TYPE and not depth
        ),
        len(rest),
    )
    return spelled([*(word.lower() for word in rest[:end]), *rest[end:]])


def _constraints(piece: Sequence[str]) -> Iterator[list[str]]:
    """The constraints of a table in a row, for they need no comma between them."""
    constraint: list[str] = []
    for word, depth in with_depth(piece):
        is_named = len(constraint) == 2 and constraint[0] == "constraint"
        if constraint and not depth and word in _BEGINS_CONSTRAINT and not is_named:
            yield constraint
            constraint = []
        constraint.append(word)
    yield constraint


def _constraint_item(constraint: Sequence[str], label: str) -> Item:
    """A constraint by its name, or by what it is and of what."""
    if constraint[0] == "constraint":
        return Item("constraint", name_of(constraint[1]), label, spelled(constraint[2:]))
    begin = constraint.index("(")
    inside, after = _parenthesised(constraint[begin:])
    return Item(spelled(constraint[:begin]), f"({spelled(inside)})", label, spelled(after))


def _parenthesised(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is in the parentheses that come first, and what follows them."""
    end = next(
        at for at, (word, depth) in enumerate(with_depth(words)) if word == ")" and not depth
    )
    return words[1:end], words[end + 1 :]
