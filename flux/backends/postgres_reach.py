"""What in a script reaches beyond the database that it runs in, to the whole server. Pure.

In a scratch database such a statement would do to the server what it was to do to another one.
What a function does that a script calls is not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from flux.exceptions import Problem
from flux.migration import Script
from flux.scratch import reaching
from flux.statements import SplitError, Statement, Token, split, tokens

HINT: Final = (
    "where nothing on the server matters, say so: --throw-away-server, or "
    "throw_away_server = true in the configuration"
)

#: What is the server's, as it stands behind CREATE, ALTER, DROP, and behind ON.
_OF_SERVER: Final = frozenset({"ROLE", "USER", "GROUP", "TABLESPACE", "DATABASE", "SUBSCRIPTION"})
_GRANTED_ON: Final = frozenset({"DATABASE", "TABLESPACE", "PARAMETER"})
_PAIRS: Final = (["ALTER", "SYSTEM"], ["REASSIGN", "OWNED"], ["DROP", "OWNED"])
#: Functions of the server, and of its extensions, that do something outside of the database.
_OUTSIDE: Final = re.compile(
    r"DBLINK\w*|LO_(EX|IM)PORT|PG_FILE_\w+|PG_RELOAD_CONF|PG_ROTATE_LOGFILE|PG_SWITCH_WAL|"
    r"PG_(TERMINATE|CANCEL)_BACKEND|PG_(CREATE|DROP|COPY)_\w*REPLICATION_SLOT|PG_PROMOTE"
)
_QUOTED: Final = ("string literal", "dollar-quoted string")
#: Behind these a statement of PL/pgSQL begins.
_BEFORE_STATEMENT: Final = frozenset({";", "BEGIN", "THEN", "ELSE", "LOOP"})


def find_reaching(script: Script) -> list[Problem]:
    """A problem for each statement that reaches beyond the database. Pure."""
    return reaching(script, "postgres", reach_of, to="the whole server", hint=HINT)


def reach_of(sql: str) -> str | None:
    """What in a statement reaches beyond its database (`CREATE ROLE`); None for nothing. Pure."""
    try:
        return _reach(list(tokens(sql, "postgres")))
    except SplitError:
        return None


def _reach(statement: list[Token]) -> str | None:
    heads = [_head(token) for token in statement]
    for name, after in pairwise([*heads, ""]):
        if after == "(" and _OUTSIDE.fullmatch(name):
            return f"{name.lower()}()"
    first, second, third = [*heads, "", "", ""][:3]
    if first == "DO":
        return next(filter(None, map(_reach_of_body, _texts(statement))), None)
    if first in ("CREATE", "ALTER", "DROP") and second in _OF_SERVER:
        return None if (second, third) == ("USER", "MAPPING") else f"{first} {second}"
    if [first, second] in _PAIRS:
        return f"{first} {second}"
    if first == "COPY":
        return _reach_of_copy(heads)
    on = heads[heads.index("ON") + 1 :][:1] if "ON" in heads else []
    if first in ("GRANT", "REVOKE"):
        if not on:
            return f"{first} of a role"
        return f"{first} ON {on[0]}" if on[0] in _GRANTED_ON else None
    if first in ("COMMENT", "SECURITY") and on and on[0] in _OF_SERVER:
        return f"{first} ON {on[0]}" if first == "COMMENT" else f"SECURITY LABEL ON {on[0]}"
    return None


def _reach_of_copy(heads: list[str]) -> str | None:
    """Of a COPY that runs a program on the server, or writes a file there."""
    depth, before = 0, ""
    for head in heads:
        depth += (head == "(") - (head == ")")
        if not depth and before in ("TO", "FROM"):
            if head == "PROGRAM":
                return f"COPY {before} PROGRAM"
            if before == "TO" and head in _QUOTED:
                return "COPY TO a file of the server"
        if (before, head) not in (("TO", "E"), ("TO", "U")):  # what may stand before a literal
            before = head
    return None


def _reach_of_body(body: str) -> str | None:
    """Of the statements of PL/pgSQL in a DO, and of those that it puts together.

    Where it executes what it has put together, each of its literals may be a part of that.
    """
    try:
        found = list(tokens(body, "postgres"))
    except SplitError:
        return None
    statements = list(_statements(found))
    parts = [_reach(statement) for statement in statements]
    if any(_head(token) == "EXECUTE" for token in found):
        parts += [reach_of(" x ".join(_texts(one))) for one in statements if _texts(one)]
        literals = _texts(found)
        single = [reach_of(one) for text in (*literals, "".join(literals)) for one in _each(text)]
        # Of a piece it cannot be seen whether an ON comes behind it.
        parts += [what for what in single if what and not what.endswith(" of a role")]
    return next(filter(None, parts), None)


def _each(text: str) -> list[str]:
    """The statements of a literal."""
    try:
        return [one.text for one in split(text, "postgres") if isinstance(one, Statement)]
    except SplitError:
        return []


def _statements(found: list[Token]) -> Iterator[list[Token]]:
    statement: list[Token] = []
    for token in found:
        if _head(token) in _BEFORE_STATEMENT:
            yield statement
            statement = []
        else:
            statement.append(token)
    yield statement


def _head(token: Token) -> str:
    return token.text.upper() if token.kind == "word" else token.kind


def _texts(statement: list[Token]) -> list[str]:
    """What stands in the quotations of a statement."""
    return [
        token.text[1:-1].replace("''", "'")
        if token.kind == "string literal"
        else re.sub(r"(?s)\A(\$[^$]*\$)(.*)\1\Z", r"\2", token.text)
        for token in statement
        if token.kind in _QUOTED
    ]
