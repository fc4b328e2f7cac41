"""Whether a statement took effect that runs in no transaction: what to ask the catalog. Pure.

flux asks before the statement runs and keeps the answer in the journal. A later run that does not
know how it ended asks again, and compares. `CREATE INDEX CONCURRENTLY` and its like leave an
INVALID index behind when they fail or are killed; what was not there before is theirs, and is
dropped before they run again (https://www.postgresql.org/docs/current/sql-createindex.html).
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from flux.backends.journaled import NOT_RUN, Verdict
from flux.statements import UnterminatedError, words

#: What may be run once more at any time, with the same effect.
_REPEATABLE = (
    ("ANALYZE",),
    ("CHECKPOINT",),
    ("CLUSTER",),
    ("REINDEX",),
    ("VACUUM",),
    ("ALTER", "SYSTEM"),
)
_TOOK_EFFECT = Verdict(took_effect=True)

_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_GAP = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)+"
_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_PATH = rf"{_NAME}(?:(?:{_GAP})?\.(?:{_GAP})?{_NAME})*"


class Look(ABC):
    """A statement to look after, by what the catalog says of it."""

    @property
    def is_certain(self) -> bool:
        """Whether the answers always tell."""
        return True

    @abstractmethod
    def query(self, literal: Callable[[str], str]) -> str:
        """A query for one text, the answer. Read-only. `literal` quotes a text."""

    @abstractmethod
    def verdict(self, before: str, now: str) -> Verdict:
        """Whether the statement took effect, by the answers from before it ran and from now."""

    def invalid(self, before: str, now: str) -> str | None:
        """The INVALID index, qualified and quoted, that a statement without an error left."""
        return None


class Index(NamedTuple):
    """An index as an answer has it. `path` is its qualified and quoted name."""

    oid: int
    name: str
    is_valid: bool
    path: str


_INDEXES = """\
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
    i.indexrelid::pg_catalog.int8, c.relname, i.indisvalid,
    pg_catalog.format('%I.%I', n.nspname, c.relname)) ORDER BY c.relname), '[]')::pg_catalog.text
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE """


def _indexes(answer: str) -> dict[int, Index]:
    return {row[0]: Index(*row) for row in json.loads(answer)}


def _drop(indexes: list[Index]) -> tuple[str, ...]:
    return tuple(f"DROP INDEX CONCURRENTLY IF EXISTS {index.path}" for index in indexes)


class CreateIndex(Look):
    """`CREATE INDEX CONCURRENTLY`, by the indexes of its table."""

    def __init__(self, table: str, name: str | None) -> None:
        self.table = _plain(table)
        self.name = _folded(name) if name else None

    @property
    def is_certain(self) -> bool:
        """Without a name, an index of somebody else's cannot be told from this one."""
        return self.name is not None

    def query(self, literal: Callable[[str], str]) -> str:
        """The indexes of the table, and the one of that name, whichever table it is on."""
        table = f"pg_catalog.to_regclass({literal(self.table)})"
        of_table = f"{_INDEXES}i.indrelid = {table}"
        if self.name is None:
            return of_table
        schema = f"SELECT r.relnamespace FROM pg_catalog.pg_class r WHERE r.oid = {table}"
        return f"{of_table} OR c.relname = {literal(self.name)} AND c.relnamespace = ({schema})"

    def verdict(self, before: str, now: str) -> Verdict:
        """A new and valid index: it took effect. A new and INVALID one is dropped."""
        new = self._new(before, now)
        if new and not self.is_certain:
            return Verdict(took_effect=None)
        if any(index.is_valid for index in new):
            return _TOOK_EFFECT
        return Verdict(took_effect=False, repair=_drop(new))

    def invalid(self, before: str, now: str) -> str | None:
        """One of that name, which `IF NOT EXISTS` passes over in silence."""
        found = self._new(before, now)
        if self.name is not None:
            found = [index for index in _indexes(now).values() if index.name == self.name]
        return next((index.path for index in found if not index.is_valid), None)

    def _new(self, before: str, now: str) -> list[Index]:
        known = _indexes(before)
        return [
            index
            for oid, index in _indexes(now).items()
            if oid not in known and self.name in (None, index.name)
        ]


class Reindex(Look):
    """`REINDEX … CONCURRENTLY`, by the indexes in its reach: new ones take the old ones' names."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.path = _plain(path)

    def query(self, literal: Callable[[str], str]) -> str:
        """The indexes that are in its reach."""
        relation = f"pg_catalog.to_regclass({literal(self.path)})"
        if self.kind == "INDEX":
            table = "SELECT x.indrelid FROM pg_catalog.pg_index x WHERE x.indexrelid = "
            return f"{_INDEXES}i.indrelid = ({table}{relation})"
        if self.kind == "TABLE":
            return f"{_INDEXES}i.indrelid = {relation}"
        if self.kind == "SCHEMA":
            return f"{_INDEXES}n.oid = pg_catalog.to_regnamespace({literal(self.path)})"
        return f"{_INDEXES}n.nspname <> 'pg_catalog'"

    def verdict(self, before: str, now: str) -> Verdict:
        """To run again does no harm, without what was left: `name_ccnew`, `name_ccold`."""
        known = _indexes(before)
        left = [
            index
            for oid, index in _indexes(now).items()
            if oid not in known
            and not index.is_valid
            and re.search(r"_cc(?:new|old)\d*$", index.name)
        ]
        return Verdict(took_effect=False, repair=_drop(left))


class DropIndex(Look):
    """`DROP INDEX CONCURRENTLY`, by whether the index is there."""

    def __init__(self, path: str) -> None:
        self.path = _plain(path)

    def query(self, literal: Callable[[str], str]) -> str:
        """The index, if it is there."""
        return f"{_INDEXES}i.indexrelid = pg_catalog.to_regclass({literal(self.path)})"

    def verdict(self, before: str, now: str) -> Verdict:
        """The index was there, and is not: it took effect."""
        return _TOOK_EFFECT if _indexes(before) and not _indexes(now) else NOT_RUN


class DetachPartition(Look):
    """`ALTER TABLE … DETACH PARTITION … CONCURRENTLY`, by whether it is a partition still."""

    def __init__(self, table: str, partition: str) -> None:
        self.table = _plain(table)
        self.partition = _plain(partition)

    def query(self, literal: Callable[[str], str]) -> str:
        """`attached`, `pending`, or nothing."""
        return (
            "SELECT coalesce(pg_catalog.max(CASE pg_catalog.to_json(h)->>'inhdetachpending' "
            "WHEN 'true' THEN 'pending' ELSE 'attached' END), '') "
            "FROM pg_catalog.pg_inherits h "
            f"WHERE h.inhparent = pg_catalog.to_regclass({literal(self.table)}) "
            f"AND h.inhrelid = pg_catalog.to_regclass({literal(self.partition)})"
        )

    def verdict(self, before: str, now: str) -> Verdict:
        """What is pending is finalized, as the server asks for it."""
        if now == "pending" and before == "attached":
            finalize = f"ALTER TABLE {self.table} DETACH PARTITION {self.partition} FINALIZE"
            return Verdict(took_effect=False, instead=finalize)
        return _TOOK_EFFECT if before and not now else NOT_RUN


def find_look(text: str) -> Look | None:
    """How to look after a statement; None for those of which the catalog does not tell."""
    if found := _CREATE_INDEX.match(text):
        return CreateIndex(found["table"], found["name"])
    if found := _DROP_INDEX.match(text):
        return DropIndex(found["path"])
    if found := _DETACH.match(text):
        return DetachPartition(found["table"], found["partition"])
    if found := _REINDEX.match(text):
        return Reindex(found["kind"].upper(), found["path"])
    return None


def is_repeatable(text: str) -> bool:
    """Whether a statement may run once more, whether or not it took effect."""
    try:
        found = tuple(islice(words(text, "postgres"), 2))
    except UnterminatedError:  # the journal keeps the beginning of a long one
        return False
    return any(found[: len(start)] == start for start in _REPEATABLE)


def _plain(path: str) -> str:
    """A path without comments and white space between its parts."""
    parts = re.findall(rf"{_GAP}|({_NAME})|\.", path)
    return ".".join(filter(None, parts))


def _folded(name: str) -> str:
    """A name as the catalog has it: unquoted ones in lower case (of ASCII alone), long ones cut."""
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name.translate(_LOWER)
    return plain.encode()[:63].decode(errors="ignore")


_CREATE_INDEX = re.compile(
    rf"CREATE{_GAP}(?:UNIQUE{_GAP})?INDEX{_GAP}CONCURRENTLY{_GAP}"
    rf"(?:IF{_GAP}NOT{_GAP}EXISTS{_GAP})?(?:(?P<name>{_NAME})(?:{_GAP}|(?<=\")))?"
    rf"ON{_GAP}(?:ONLY{_GAP})?(?P<table>{_PATH})",
    re.IGNORECASE,
)
_DROP_INDEX = re.compile(
    rf"DROP{_GAP}INDEX{_GAP}CONCURRENTLY{_GAP}(?:IF{_GAP}EXISTS{_GAP})?(?P<path>{_PATH})",
    re.IGNORECASE,
)
_DETACH = re.compile(
    rf"ALTER{_GAP}TABLE{_GAP}(?:IF{_GAP}EXISTS{_GAP})?(?P<table>{_PATH}){_GAP}"
    rf"DETACH{_GAP}PARTITION{_GAP}(?P<partition>{_PATH}){_GAP}CONCURRENTLY",
    re.IGNORECASE,
)
_REINDEX = re.compile(
    rf"REINDEX(?:\s*\([^)]*\)\s*|{_GAP})(?P<kind>INDEX|TABLE|SCHEMA|DATABASE|SYSTEM){_GAP}"
    rf"(?:CONCURRENTLY{_GAP})?(?P<path>{_PATH})",
    re.IGNORECASE,
)
