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
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from flux.backends.journaled import NOT_RUN, Verdict
from flux.record import Record
from flux.statements import Token, UnterminatedError, tokens, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class Answer(Record):
    """What the catalog says: the oid of what a statement is about, and what was found there."""

    at: int | None
    found: list[list[Any]]

    @classmethod
    def of(cls, text: str) -> Answer:
        """An answer as the journal keeps it."""
        return cls(**json.loads(text))

    @property
    def indexes(self) -> dict[int, Index]:
        """The indexes that were found, by their oid."""
        return {row[0]: Index(*row) for row in self.found}


class Index(Record):
    """An index as an answer has it. `path` is its qualified and quoted name."""

    oid: int
    name: str
    is_valid: bool
    path: str


_INDEXES = """\
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    i.indexrelid::pg_catalog.int8, c.relname, i.indisvalid,
    pg_catalog.format('%I.%I', n.nspname, c.relname)) ORDER BY c.relname)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE """
_AT = "(SELECT at.oid::pg_catalog.oid FROM at)"


class Look(ABC):
    """A statement to look after, by what the catalog says of it.

    Its names are resolved once, before it runs; later questions go by the oid, since other
    settings may be in force by then, and others may have renamed things.
    """

    def query(self, literal: Callable[[str], str]) -> str:
        """A query for one text, the answer. Read-only. `literal` quotes a text."""
        return self._query(self.resolve(literal), literal)

    def query_again(self, before: str, literal: Callable[[str], str]) -> str:
        """The same for what an earlier answer was about. Read-only."""
        at = Answer.of(before).at
        return self._query("NULL" if at is None else str(at), literal)

    def _query(self, at: str, literal: Callable[[str], str]) -> str:
        return (
            f"WITH at AS (SELECT ({at})::pg_catalog.int8 AS oid) "
            "SELECT pg_catalog.json_build_object('at', (SELECT at.oid FROM at), 'found', "
            f"coalesce(({self.found(literal)}), '[]'))::pg_catalog.text"
        )

    @abstractmethod
    def resolve(self, literal: Callable[[str], str]) -> str:
        """An expression: the oid, as int8, of what the statement is about."""

    @abstractmethod
    def found(self, literal: Callable[[str], str]) -> str:
        """A query for a JSON array of what is there, at the oid that `at` holds."""

    @abstractmethod
    def verdict(self, before: str, now: str) -> Verdict:
        """Whether the statement took effect, by the answers from before it ran and from now."""

    def invalid(self, now: str) -> str | None:
        """The INVALID index, qualified and quoted, that a statement without an error left."""
        return None


def _class(path: str, literal: Callable[[str], str]) -> str:
    return f"pg_catalog.to_regclass({literal(path)})::pg_catalog.oid::pg_catalog.int8"


def _drop(indexes: list[Index]) -> tuple[str, ...]:
    return tuple(f"DROP INDEX CONCURRENTLY IF EXISTS {index.path}" for index in indexes)


class CreateIndex(Look):
    """`CREATE INDEX CONCURRENTLY`, by the indexes of its table."""

    def __init__(self, table: str, name: str) -> None:
        self.table = table
        self.name = _folded(name)

    def resolve(self, literal: Callable[[str], str]) -> str:
        """The table."""
        return _class(self.table, literal)

    def found(self, literal: Callable[[str], str]) -> str:
        """The indexes of the table, and the one of that name, whichever table it is on."""
        schema = f"SELECT r.relnamespace FROM pg_catalog.pg_class r WHERE r.oid = {_AT}"
        return (
            f"{_INDEXES}i.indrelid = {_AT} "
            f"OR c.relname = {literal(self.name)} AND c.relnamespace = ({schema})"
        )

    def verdict(self, before: str, now: str) -> Verdict:
        """A new and valid index of that name: it took effect. An INVALID one is dropped."""
        known = Answer.of(before).indexes
        new = [
            index
            for oid, index in Answer.of(now).indexes.items()
            if oid not in known and index.name == self.name
        ]
        if any(index.is_valid for index in new):
            return _TOOK_EFFECT
        return Verdict(took_effect=False, repair=_drop(new))

    def invalid(self, now: str) -> str | None:
        """One of that name, which `IF NOT EXISTS` passes over in silence."""
        named = (i for i in Answer.of(now).indexes.values() if i.name == self.name)
        return next((index.path for index in named if not index.is_valid), None)


class Reindex(Look):
    """`REINDEX … CONCURRENTLY`, by the indexes in its reach: new ones take the old ones' names."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.path = path

    def resolve(self, literal: Callable[[str], str]) -> str:
        """The table, that of the index, the schema, or 0 for the database."""
        if self.kind == "INDEX":
            return (
                "SELECT x.indrelid::pg_catalog.int8 FROM pg_catalog.pg_index x "
                f"WHERE x.indexrelid = {_class(self.path, literal)}"
            )
        if self.kind == "TABLE":
            return _class(self.path, literal)
        if self.kind == "SCHEMA":
            schema = f"pg_catalog.to_regnamespace({literal(self.path)})"
            return f"{schema}::pg_catalog.oid::pg_catalog.int8"
        return "0"

    def found(self, literal: Callable[[str], str]) -> str:
        """The indexes that are in its reach."""
        if self.kind in ("INDEX", "TABLE"):
            return f"{_INDEXES}i.indrelid = {_AT}"
        if self.kind == "SCHEMA":
            return f"{_INDEXES}n.oid = {_AT}"
        return f"{_INDEXES}n.nspname <> 'pg_catalog'"

    def verdict(self, before: str, now: str) -> Verdict:
        """To run again does no harm, without what was left: `name_ccnew`, `name_ccold`."""
        known = Answer.of(before).indexes
        left = [
            index
            for oid, index in Answer.of(now).indexes.items()
            if oid not in known
            and not index.is_valid
            and re.search(r"_cc(?:new|old)\d*$", index.name)
        ]
        return Verdict(took_effect=False, repair=_drop(left))


class DropIndex(Look):
    """`DROP INDEX CONCURRENTLY`, by whether the index is there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def resolve(self, literal: Callable[[str], str]) -> str:
        """The index."""
        return _class(self.path, literal)

    def found(self, literal: Callable[[str], str]) -> str:
        """The index, if it is there."""
        return f"{_INDEXES}i.indexrelid = {_AT}"

    def verdict(self, before: str, now: str) -> Verdict:
        """The index was there, and is not: it took effect."""
        return _TOOK_EFFECT if Answer.of(before).found and not Answer.of(now).found else NOT_RUN


class DetachPartition(Look):
    """`ALTER TABLE … DETACH PARTITION … CONCURRENTLY`, by what the partition belongs to."""

    def __init__(self, partition: str) -> None:
        self.partition = partition

    def resolve(self, literal: Callable[[str], str]) -> str:
        """The partition."""
        return _class(self.partition, literal)

    def found(self, literal: Callable[[str], str]) -> str:
        """The table that it belongs to, its own name, and whether its end is pending."""
        path = "pg_catalog.format('%I.%I', {0}n.nspname, {0}.relname)"
        return (
            f"SELECT pg_catalog.json_agg(pg_catalog.json_build_array({path.format('p')}, "
            f"{path.format('c')}, pg_catalog.to_json(h)->>'inhdetachpending' = 'true')) "
            "FROM pg_catalog.pg_inherits h "
            "JOIN pg_catalog.pg_class p ON p.oid = h.inhparent "
            "JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace "
            "JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid "
            "JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace "
            f"WHERE h.inhrelid = {_AT}"
        )

    def verdict(self, before: str, now: str) -> Verdict:
        """What is pending is finalized, as the server asks for it."""
        was, found = Answer.of(before).found, Answer.of(now).found
        if was and not found:
            return _TOOK_EFFECT
        if was and not was[0][2] and found[0][2]:
            parent, child, _ = found[0]
            finalize = f"ALTER TABLE {parent} DETACH PARTITION {child} FINALIZE"
            return Verdict(took_effect=False, instead=finalize)
        return NOT_RUN


def find_look(text: str) -> Look | None:
    """How to look after a statement; None for those of which the catalog does not tell."""
    reader = _Reader(text)
    for read in (_create_index, _drop_index, _reindex, _detach):
        with suppress(_NotReadError, UnterminatedError):  # a row keeps the beginning of a text
            return read(reader.again())
    return None


class _NotReadError(Exception):
    """It is another statement, or written in a way that is not read."""


class _Reader:
    """Reads a statement from its beginning, piece by piece, as far as it is needed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ahead: list[Token] = []
        self._tokens: Iterator[Token] = iter(())

    def again(self) -> _Reader:
        """The same, from the beginning."""
        reader = _Reader(self._text)
        reader._tokens = tokens(self._text, "postgres")
        return reader

    def _peek(self, count: int) -> list[Token]:
        while len(self._ahead) < count:
            self._ahead.append(next(self._tokens, Token("", "")))
        return self._ahead[:count]

    def has(self, *expected: str) -> bool:
        """Whether these words or characters are the next ones; if so, they are passed over."""
        found = [
            token.text.upper() if token.kind == "word" else token.kind
            for token in self._peek(len(expected))
        ]
        if found != list(expected):
            return False
        del self._ahead[: len(expected)]
        return True

    def needs(self, *expected: str) -> None:
        """Pass over these words. Raises `_NotReadError` where others stand there."""
        if not self.has(*expected):
            raise _NotReadError

    def name(self) -> str:
        """A name as it is written. Raises `_NotReadError` where none stands there."""
        [token] = self._peek(1)
        if token.kind not in ("word", "quoted identifier"):
            raise _NotReadError
        del self._ahead[:1]
        return token.text

    def path(self) -> str:
        """A name with what stands before it, and dots between."""
        names = [self.name()]
        while self.has("."):
            names.append(self.name())
        return ".".join(names)

    def skip_parentheses(self) -> list[str]:
        """Pass over a group in parentheses, if one is next; the words in it."""
        inside = []
        if self.has("("):
            while not self.has(")"):
                [token] = self._peek(1)
                if not token.kind:
                    raise _NotReadError
                inside.append(token.text.upper())
                del self._ahead[:1]
        return inside


def _create_index(reader: _Reader) -> Look:
    reader.needs("CREATE")
    reader.has("UNIQUE")
    reader.needs("INDEX", "CONCURRENTLY")
    reader.has("IF", "NOT", "EXISTS")
    if reader.has("ON"):
        raise _NotReadError  # without a name, it cannot be told from somebody else's
    name = reader.name()
    reader.needs("ON")
    reader.has("ONLY")
    return CreateIndex(reader.path(), name)


def _drop_index(reader: _Reader) -> Look:
    reader.needs("DROP", "INDEX", "CONCURRENTLY")
    reader.has("IF", "EXISTS")
    return DropIndex(reader.path())


def _reindex(reader: _Reader) -> Look:
    reader.needs("REINDEX")
    options = reader.skip_parentheses()
    kind = reader.name().upper()
    if not reader.has("CONCURRENTLY") and "CONCURRENTLY" not in options:
        raise _NotReadError
    if kind in ("DATABASE", "SYSTEM"):
        return Reindex(kind, "")
    if kind not in ("INDEX", "TABLE", "SCHEMA"):
        raise _NotReadError
    return Reindex(kind, reader.path())


def _detach(reader: _Reader) -> Look:
    reader.needs("ALTER", "TABLE")
    reader.has("IF", "EXISTS")
    reader.has("ONLY")
    reader.path()
    reader.has("*")
    reader.needs("DETACH", "PARTITION")
    partition = reader.path()
    reader.needs("CONCURRENTLY")
    return DetachPartition(partition)


def is_repeatable(text: str) -> bool:
    """Whether a statement may run once more, whether or not it took effect."""
    try:
        found = tuple(islice(words(text, "postgres"), 2))
    except UnterminatedError:  # the journal keeps the beginning of a long one
        return False
    return any(found[: len(start)] == start for start in _REPEATABLE)


def _folded(name: str) -> str:
    """A name as the catalog has it: unquoted ones in lower case (of ASCII alone), long ones cut."""
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name.translate(_LOWER)
    return plain.encode()[:63].decode(errors="ignore")
