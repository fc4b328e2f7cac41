"""Which tables of a catalog are simply tables, so that what is done to their rows is all. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from flux.fingerprint import Fingerprint, Item

_RELATIONS = {"table", "view", "materialized view", "foreign table", "virtual table"}
#: What runs where it is named, or with a type.
_CODE = {"function", "procedure", "aggregate", "domain"}
#: What belongs to a table and does something of its own.
_ACTS = {"trigger", "rule", "policy"}
#: What does something of its own wherever it is: with these nothing is simple.
_LOUD = {"event trigger", "operator", "operator class", "operator family", "cast"}
_WORD = re.compile(r"[\w$]+")
_IDENTITY = re.compile(r"generated (always|by default) as identity")


class RowTables(NamedTuple):
    """The tables and the like of a catalog by their bare names, in lower case.

    `columns` are those of all tables. `odd` are those of which a statement may do more than its
    text says (views, tables with triggers or foreign keys that cascade, partitions), or two that
    share a name. `code` are routines and domains. Where the catalog is not `is_quiet`, anything
    may run at any time.
    """

    columns: dict[str, frozenset[str]]
    odd: frozenset[str] = frozenset()
    code: frozenset[str] = frozenset()
    is_quiet: bool = True


def row_tables(catalog: Fingerprint) -> RowTables:
    """What a catalog says of its tables."""
    relations = Counter(
        bare_name(item.name) for item in catalog.items if not item.of and item.kind in _RELATIONS
    )
    code = {bare_name(item.name) for item in catalog.items if item.kind in _CODE}
    odd = {name for name, times in relations.items() if times > 1}
    columns: dict[str, set[str]] = {}
    for item in catalog.items:
        table = bare_name(item.object)
        if table not in relations:
            continue
        if item.label == item.object and item.kind == "table":
            columns.setdefault(table, set())
        elif item.kind == "column":
            columns.setdefault(table, set()).add(bare_name(item.name))
        odd |= _odd_by(item, table, code) & set(relations)
    return RowTables(
        {name: frozenset(names) for name, names in columns.items()},
        frozenset(odd),
        frozenset(code),
        not any(item.kind in _LOUD for item in catalog.items),
    )


def _odd_by(item: Item, table: str, code: set[str]) -> set[str]:
    """The names of tables that are odd by what an item is."""
    text = item.definition.lower()
    words = set(_WORD.findall(text))
    if (not item.of and item.kind != "table") or item.kind in _ACTS:
        return {table}
    if {"references", "on"} <= words or (not item.of and {"partition", "inherits"} & words):
        return {table, *words}
    # A generated column is `as (…)`.
    is_made = item.kind == "column" and re.search(r"\bas\b", _IDENTITY.sub("", text))
    return {table} if is_made or "conflict" in words or words & code else set()


def bare_name(name: str) -> str:
    """The last part of a name: `table public."Users"` and `public.users(text)` give `users`."""
    found = re.search(r'(?s)(?:"((?:[^"]|"")*)"|([\w$]+))(?:\(.*)?$', name)
    return "".join(found.groups(default="")).lower() if found else name.lower()
