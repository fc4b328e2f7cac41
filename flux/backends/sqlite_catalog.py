"""Reading the fingerprint of a SQLite database from the texts of its schema table. Read-only.

SQLite keeps each object as the statement that made it, and edits that text when the object is
altered. The texts are put in one spelling, and that of a table is taken apart into its columns and
constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flux.backends.dbapi import quote_identifier
from flux.backends.sqlite_spelling import name_of, plain_name, spelled, split_at, with_depth, words
from flux.fingerprint import Fingerprint, Item

#: What has no text was made for a constraint, which says so itself.
_OBJECTS = """\
SELECT type, name, tbl_name, sql FROM main.sqlite_master
WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'sqlite!_%' ESCAPE '!'"""
_PRAGMAS = ("application_id", "user_version")
_FTS = ("content", "docsize", "segdir", "segments", "stat")
_RTREE = ("node", "parent", "rowid")
#: What the tables that keep what is in a virtual one are called after its own name, by the module.
#: From SQLite 3.37 on, `PRAGMA table_list` tells, and of all modules.
_SHADOWS = {
    "fts3": _FTS,
    "fts4": _FTS,
    "fts5": ("config", "content", "data", "docsize", "idx"),
    "rtree": _RTREE,
    "rtree_i32": _RTREE,
    "geopoly": _RTREE,
}
_BEGINS_CONSTRAINT = ("constraint", "primary", "unique", "check", "foreign")
#: What the clauses of a column begin with, in the order in which they are told.
_CLAUSES = (
    *("primary", "not", "null", "unique", "check", "default", "collate"),
    *("references", "generated", "as"),
)
_ENDS_TYPE = ("constraint", *_CLAUSES)
#: Two words of which the second begins no clause, though it could.
_WITHIN_CLAUSE = {
    *(("not", "null"), ("default", "null"), ("set", "null"), ("set", "default")),
    ("always", "as"),
}


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
    own_tables, shadows = _own_tables(tables, own), _shadows(fetch, tables)
    items = [Item("pragma", name, definition=str(_pragma(fetch, name))) for name in _PRAGMAS]
    items = [item for item in items if item.definition != "0"]
    for one in objects:
        table = one.table.lower()
        is_shadow = one.type == "table" and table in shadows
        if table not in own_tables and not is_shadow:
            items += _items(one, tables[table].label)
    return Fingerprint.of(items)


def plain_tables(fetch: Callable[[str], list[Any]], own: Collection[str]) -> list[str]:
    """The names of the tables whose rows are the user's own; `own` are flux's tables, quoted."""
    tables = _tables([_Object(*row) for row in fetch(_OBJECTS)])
    left_out = _own_tables(tables, own) | _shadows(fetch, tables)
    return sorted(
        one.name for name, one in tables.items() if one.kind != "view" and name not in left_out
    )


def _tables(objects: Sequence[_Object]) -> dict[str, _Object]:
    """The tables and views by their names in lower case, as SQLite finds them."""
    return {one.name.lower(): one for one in objects if one.type in ("table", "view")}


def _own_tables(tables: Mapping[str, _Object], own: Collection[str]) -> set[str]:
    """The names of flux's tables, in lower case."""
    quoted = {name.lower() for name in own}
    return {name for name in tables if quote_identifier(name).lower() in quoted}


def _shadows(fetch: Callable[[str], list[Any]], tables: Mapping[str, _Object]) -> set[str]:
    """The names of the tables that keep what is in virtual ones, in lower case."""
    if listed := fetch("PRAGMA main.table_list"):
        return {name.lower() for _, name, kind, *_ in listed if kind == "shadow"}
    return {
        f"{name}_{ending}"
        for name, one in tables.items()
        if one.kind == "virtual table"
        for ending in _SHADOWS.get(_module(one), ())
    }


def _module(one: _Object) -> str:
    """The name of the module that a virtual table is made by, in lower case."""
    found = words(one.sql)
    return found[found.index("using") + 1].lower()


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
    """What a column is, from what follows its name.

    The case of its type does not matter, and neither does the order of its clauses.
    """
    type_, *clauses = _clauses(rest)
    clauses.sort(key=_place)  # of two of one kind, the last may be the one that counts
    return spelled([*(word.lower() for word in type_), *(word for one in clauses for word in one)])


def _clauses(rest: Sequence[str]) -> Iterator[list[str]]:
    """The type of a column, which may be empty, and its clauses as they stand there."""
    clause: list[str] = []
    before = ""
    for (word, depth), following in zip(with_depth(rest), [*rest, ""][1:], strict=True):
        begins = word in _ENDS_TYPE and not depth and (before, word) not in _WITHIN_CLAUSE
        begins = begins and (word, following) != ("not", "deferrable")
        if begins and not _is_name_alone(clause):
            yield clause
            clause = []
        clause.append(word)
        before = word
    yield clause


def _is_name_alone(words: Sequence[str]) -> bool:
    """Whether these words name a constraint, and it follows."""
    return len(words) == 2 and words[0] == "constraint"


def _place(clause: Sequence[str]) -> int:
    return next((_CLAUSES.index(word) for word in clause if word in _CLAUSES), -1)


def _constraints(piece: Sequence[str]) -> Iterator[list[str]]:
    """The constraints of a table in a row, for they need no comma between them."""
    constraint: list[str] = []
    for word, depth in with_depth(piece):
        begins = word in _BEGINS_CONSTRAINT and not depth
        if constraint and begins and not _is_name_alone(constraint):
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
