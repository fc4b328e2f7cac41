"""What a script can leave in a PostgreSQL session besides settings, and what takes it back.

Prepared statements, channels, cursors, temporary tables, advisory locks; and *placeholders*,
settings with a dot in their name, which no list of the server shows. Whether a script makes any
is read in its text: a pooled session may hold what other clients rely on, and what no script
has named is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from flux.backends.dbapi import Mechanics
from flux.migration import Script
from flux.record import Record
from flux.statements import Statement, leading_words, tokens


class Kind(Record):
    """One kind of leftover.

    `named` is a pattern that finds it in a text, which then holds `word` in lower case; `listing`
    is a query for all there are, each with the statement that takes it back; `take_back_all` is a
    statement for all at once.
    """

    word: str
    named: str
    listing: str
    take_back_all: str

    def is_in(self, text: str) -> bool:
        """Whether a text names it."""
        return bool(re.search(self.named, text, re.IGNORECASE))


# Patterns are compiled when they are used: few scripts have such words in them.
_TEMPORARY = (
    "WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S')"
)
_KINDS = (
    Kind(
        "hold",
        r"\bHOLD\b",
        "SELECT 'CLOSE ' || pg_catalog.quote_ident(name) FROM pg_catalog.pg_cursors "
        "WHERE is_holdable",
        "CLOSE ALL",
    ),
    Kind(
        "prepare",
        r"\bPREPARE\s+(?!TRANSACTION\b)[\w\"]",
        "SELECT 'DEALLOCATE ' || pg_catalog.quote_ident(name) "
        "FROM pg_catalog.pg_prepared_statements",
        "DEALLOCATE ALL",
    ),
    Kind(
        "listen",
        r"\bLISTEN\b",
        "SELECT 'UNLISTEN ' || pg_catalog.quote_ident(name) "
        "FROM pg_catalog.pg_listening_channels() name",
        "UNLISTEN *",
    ),
    Kind(
        "temp",
        r"\bTEMP(ORARY)?\b|\bpg_temp\b",
        "SELECT 'DROP ' || CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' "
        "ELSE 'TABLE' END || ' IF EXISTS pg_temp.' || pg_catalog.quote_ident(relname) "
        f"|| ' CASCADE' FROM pg_catalog.pg_class {_TEMPORARY}",
        "DISCARD TEMP",
    ),
    Kind(
        "advisory_lock",
        r"advisory_lock",
        "SELECT 'SELECT pg_catalog.pg_advisory_unlock' || "
        "CASE mode WHEN 'ShareLock' THEN '_shared' ELSE '' END || CASE objsubid "
        "WHEN 1 THEN pg_catalog.format('(%s)', (classid::int8 << 32) | objid::int8) "
        "ELSE pg_catalog.format('(%s, %s)', classid::int8::bit(32)::int4, "
        "objid::int8::bit(32)::int4) END FROM pg_catalog.pg_locks "
        "WHERE locktype = 'advisory' AND granted AND pid = pg_catalog.pg_backend_pid()",
        "SELECT pg_catalog.pg_advisory_unlock_all()",
    ),
)

#: Its first letter is ASCII's, _, or any other character: a range of those compiles for long.
_NAME = r'"?[^\x00-@\[-^`{-\x7f][\w$]*"?'
_DOTTED = rf"({_NAME}(?:\s*\.\s*{_NAME})+)"
#: Where SQL, also within a string of Python or of a DO block, sets a placeholder …
_SETS = (
    rf"(?i)\b(?:SET|RESET)\s+(?:(?:SESSION|LOCAL)\s+)?{_DOTTED}"
    rf"|\bset_config\s*\(\s*E?'+{_DOTTED}'"
)
_SET_CONFIG = r"(?is)\bset_config\s*\(.*,\s*(false|'f\w*'|0)\s*\)"
_LITERAL = {"string literal": "?", "dollar-quoted string": "?"}
_CAST = r"(?: : : (?:PG_CATALOG \. )?[A-Z]\w*)?"
_SETS_BY_LITERALS = (
    rf"SELECT (?:PG_CATALOG \. )?SET_CONFIG \( \?{_CAST} , \?{_CAST} , (?:FALSE|\?){_CAST} \)"
)
#: … and where Python gives its name as a parameter.
_STRING = rf"""(["']){_DOTTED}\1"""


def leaves_setting(statement: Statement) -> bool:
    """Whether a statement sets something for the session, as its text says. Pure."""
    first, second = (*leading_words(statement.text, "postgres"), "", "")[:2]
    if first == "SET" and second not in ("LOCAL", "TRANSACTION", "CONSTRAINTS"):
        return True
    return bool(re.search(_SET_CONFIG, statement.text))


def leaves_something(statement: Statement) -> bool:
    """Whether a statement changes the session beyond its transaction, as its text says. Pure."""
    kinds = any(kind.is_in(statement.text) for kind in _KINDS)
    is_load = leading_words(statement.text, "postgres")[:1] == ("LOAD",)
    return kinds or is_load or leaves_setting(statement)


def sets_by_literals(statement: Statement) -> bool:
    """Whether a statement is one set_config for the session, of literals alone. Pure.

    Such a one may be run again for each statement below it.
    """
    pieces = [
        token.text.upper() if token.kind == "word" else _LITERAL.get(token.kind, token.text)
        for token in tokens(statement.text, "postgres")
    ]
    text = " ".join(piece for piece in pieces if piece.upper() != "E")
    return bool(re.fullmatch(_SETS_BY_LITERALS, text))


def sets_otherwise(statement: Statement) -> bool:
    """Whether a query sets something for the session that is worked out as it runs. Pure."""
    first, *_ = (*leading_words(statement.text, "postgres"), "")
    sets = first in ("SELECT", "WITH", "VALUES") and bool(re.search(_SET_CONFIG, statement.text))
    return sets and not sets_by_literals(statement)


class Leftovers(Record):
    """What a script may leave behind: kinds by their place in the table, names of placeholders."""

    kinds: tuple[Kind, ...] = ()
    placeholders: tuple[str, ...] = ()

    @classmethod
    def of(cls, script: Script) -> Leftovers:
        """What a script's text, or the Python file of its function, names. Pure."""
        text = script.text or script.source or ""
        lowered = text.lower()  # in which a word is looked for faster than by a pattern
        names = []
        if "set" in lowered:
            names += [found[1] or found[2] for found in re.finditer(_SETS, text)]
        if script.function is not None:
            names += [found[2] for found in re.finditer(_STRING, text)]
        bare = {re.sub(r'[\s"]', "", name).lower() for name in names}
        kinds = (kind for kind in _KINDS if kind.word in lowered and kind.is_in(text))
        return cls(tuple(kinds), tuple(sorted(bare)))

    @property
    def take_back_all(self) -> str:
        """Statements that take back all of the kinds, whoever made them."""
        return "".join(f"{kind.take_back_all};\n" for kind in self.kinds)


class Found(Record):
    """What a session had of such things before a script ran, for a session that was handed in.

    `things` are of one kind each: the statements that would take them back.
    """

    leftovers: Leftovers = Leftovers()
    things: tuple[frozenset[str], ...] = ()
    placeholders: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def before(cls, leftovers: Leftovers, backend: Mechanics) -> Found:
        """Look at a session. Read-only; asks only for what a script may leave behind."""
        things = tuple(_things(backend, kind) for kind in leftovers.kinds)
        return cls(leftovers, things, _values(backend, leftovers))

    def restore_placeholders(self, backend: Mechanics) -> None:
        """Give placeholders the values they had; one that had none ends empty.

        PostgreSQL cannot unset them.
        """
        now = dict(_values(backend, self.leftovers))
        for name, value in self.placeholders:
            if now.get(name) != value and (value is not None or now.get(name)):
                backend.run_sql(set_setting(name, value or "", backend.literal))

    def take_back(self, backend: Mechanics) -> None:
        """Take back what has come since. Called outside of a transaction."""
        for kind, before in zip(self.leftovers.kinds, self.things, strict=True):
            # A lock that was taken several times is freed as often.
            while new := _things(backend, kind) - before:
                for statement in sorted(new) if before else [kind.take_back_all]:
                    backend.run_sql(statement)


def set_setting(name: str, value: str, literal: Callable[[str], str]) -> str:
    """A query that sets something for the session. `literal` quotes a text."""
    return f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, false)"


def _things(backend: Mechanics, kind: Kind) -> frozenset[str]:
    return frozenset(statement for (statement,) in backend.fetch(kind.listing))


def _values(backend: Mechanics, leftovers: Leftovers) -> tuple[tuple[str, str | None], ...]:
    if not leftovers.placeholders:
        return ()
    names = ", ".join(map(backend.literal, leftovers.placeholders))
    rows = backend.fetch(
        "SELECT name, pg_catalog.current_setting(name, true) "
        f"FROM pg_catalog.unnest(ARRAY[{names}]::pg_catalog.text[]) name"
    )
    return tuple(rows)
