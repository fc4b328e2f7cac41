"""What among a script's statements cannot run on PostgreSQL, found before anything runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from flux.backends.postgres_errors import NO_TRANSACTION_HINT
from flux.exceptions import Problem
from flux.migration import Script
from flux.statements import MetaCommand, Statement, leading_words, words
from flux.transactions import transaction_problems, unwrap

# Patterns that few scripts need are compiled when they are used.
#: psql's commands in pg_dump's output that mean nothing outside of psql.
_HARMLESS_COMMAND = r"\\(un)?restrict\s+\S+"

#: Settings that change how a file is read: the values that flux reads it by, and the way out.
_READING = {
    "standard_conforming_strings": (
        {"on", "true", "yes", "1", "default"},
        r"remove it, and write strings that hold a backslash as E'a\\b'",
    ),
    "client_encoding": (
        {"utf8", "utf-8", "unicode", "default"},
        "remove it: flux sends every file as UTF-8",
    ),
}
#: A script with a problem has one of these in it, in lower case: psql's commands, settings that
#: change how a file is read, what cannot run in a transaction, and what begins or ends one.
_TELLING = (
    "\\",
    "copy",
    *_READING,
    *("concurrently", "vacuum", "system", "database", "tablespace"),
    *("begin", "start", "commit", "end", "rollback", "abort", "prepare"),
)
_SET = r"(?i)SET\s+(?:(?:SESSION|LOCAL)\s+)?(\w+)\s*(?:=|TO\b)\s*'?([\w-]+)"


def find_problems(script: Script, pieces: Sequence[Statement | MetaCommand]) -> list[Problem]:
    """Everything among a script's statements that stands in the way. Pure."""
    if not script.directives.no_transaction and not _is_telling(script.text or ""):
        return []

    def problem(kind: str, piece: Statement | MetaCommand, message: str, hint: str) -> Problem:
        return Problem(kind, (), message, hint, script.location(piece.start))

    problems = [
        problem(
            "meta-command",
            piece,
            f"{piece.text.split()[0]} is a command of psql, which the server does not know",
            "write what it does as SQL, or remove it",
        )
        for piece in pieces
        if isinstance(piece, MetaCommand) and not re.fullmatch(_HARMLESS_COMMAND, piece.text)
    ]
    statements = _readable(pieces)
    for statement in statements:
        if _copies_to_client(statement):
            problems.append(
                problem(
                    "copy-out",
                    statement,
                    "COPY … TO STDOUT gives its rows to nobody in a migration",
                    "remove it",
                )
            )
        setting, value = _setting(statement)
        values, hint = _READING.get(setting, ({value}, ""))
        if value not in values:
            message = f"{setting} = {value} changes how the rest of the file is read"
            problems.append(problem("reading", statement, message, hint))
    if script.directives.no_transaction:
        for statement in _temporary_outside(statements):
            first = leading_words(statement.text, "postgres")[0]
            message = f"what this {first} makes for the session would be gone behind it"
            hint = "put BEGIN; and COMMIT; around it and what uses it"
            problems.append(problem("temporary", statement, message, hint))
        for statement in _settings_that_may_go(statements):
            message = "a setting in a block with ROLLBACK TO may be taken back with it"
            hint = "put it before the BEGIN"
            problems.append(problem("temporary", statement, message, hint))
        for statement in filter(_is_not_looked_after, statements):
            message = "flux could not tell what became of this statement, were it cut off"
            hint = "give the index a name, and write names plainly or in double quotes"
            problems.append(problem("concurrently", statement, message, hint))
        return problems + transaction_problems(script, statements, "postgres")
    statements = unwrap(statements, "postgres").statements
    problems += transaction_problems(script, statements, "postgres")
    for statement in statements:
        found = leading_words(statement.text, "postgres")
        if needs_no_transaction(found):
            message = f"{_named(found)} cannot run inside a transaction"
            problems.append(problem("concurrently", statement, message, NO_TRANSACTION_HINT))
    return problems


def _is_telling(text: str) -> bool:
    lowered = text.lower()  # to look for a word in it is faster than to read the statements
    return any(word in lowered for word in _TELLING)


def _readable(pieces: Sequence[Statement | MetaCommand]) -> list[Statement]:
    """The statements but those with a command of psql inside, which are no SQL to be read."""
    commands = [piece.start for piece in pieces if isinstance(piece, MetaCommand)]
    return [
        piece
        for piece in pieces
        if isinstance(piece, Statement)
        and not any(piece.start < at < piece.start + len(piece.text) for at in commands)
    ]


def _temporary_outside(statements: Sequence[Statement]) -> list[Statement]:
    """The statements outside of any BEGIN; … COMMIT; that make what lasts for a session."""
    from flux.backends.postgres_leftovers import sets_otherwise
    from flux.units import units_of_text

    units = units_of_text(statements, "postgres", lambda statement: "together")
    alone = [unit.first for unit in units if unit.first is not None and not unit.is_block]
    return [
        statement
        for statement in alone
        if _makes_for_session(leading_words(statement.text, "postgres")[:4])
        or sets_otherwise(statement)
    ]


def _settings_that_may_go(statements: Sequence[Statement]) -> list[Statement]:
    """The settings inside of a BEGIN; … COMMIT; that also has a ROLLBACK TO."""
    from flux.backends.postgres_leftovers import leaves_setting
    from flux.units import units_of_text

    units = units_of_text(statements, "postgres", lambda statement: "together")
    found = []
    for unit in units:
        firsts = {leading_words(one.statement.text, "postgres")[:1] for one in unit.statements}
        if unit.is_block and ("ROLLBACK",) in firsts:
            found += [one.statement for one in unit.statements if leaves_setting(one.statement)]
    return found


def _is_not_looked_after(statement: Statement) -> bool:
    """Whether a statement that leaves an INVALID index, or half a partition, cannot be read."""
    from flux.backends.postgres_in_doubt import find_look

    found = leading_words(statement.text, "postgres")
    return (
        "CONCURRENTLY" in found
        and needs_no_transaction(found)
        and find_look(statement.text) is None
    )


def _makes_for_session(found: tuple[str, ...]) -> bool:
    if found[:1] == ("CREATE",):
        return bool({"TEMP", "TEMPORARY"}.intersection(found))
    return found[:1] in (("PREPARE",), ("DECLARE",))


def find_wiping(script: Script, pieces: Sequence[Statement | MetaCommand]) -> list[Problem]:
    """What would take an application's own settings from a connection that it handed in. Pure.

    Those with a dot in their name are in no list of the server's, and could not be restored.
    """
    return [
        Problem(
            "wiping",
            (),
            f"{' '.join(found)} would take the settings of the application from the connection "
            "that it has handed in",
            "remove it: flux restores what a migration sets; or give flux an address",
            script.location(piece.start),
        )
        for piece in _readable(pieces)
        if (found := leading_words(piece.text, "postgres")[:2])
        in (("RESET", "ALL"), ("DISCARD", "ALL"))
    ]


def _copies_to_client(statement: Statement) -> bool:
    found = leading_words(statement.text, "postgres")
    if found[:1] != ("COPY",) or statement.copy_data is not None:
        return False
    rest = list(words(statement.text, "postgres"))
    return any(pair in (("TO", "STDOUT"), ("TO", "STDIN")) for pair in pairwise(rest))


def _setting(statement: Statement) -> tuple[str, str]:
    """The setting that a SET sets, and its value; two empty texts for any other statement."""
    found = re.match(_SET, statement.text)
    return (found[1].lower(), found[2].lower()) if found else ("", "")


def needs_no_transaction(found: tuple[str, ...]) -> bool:
    """Whether a statement that begins with these words cannot run in a transaction."""
    if "CONCURRENTLY" in found:
        # A materialized view may be refreshed that way in a transaction.
        return found[0] in ("CREATE", "DROP", "REINDEX", "ALTER")
    return found[:1] == ("VACUUM",) or found[:2] in (
        ("ALTER", "SYSTEM"),
        ("CREATE", "DATABASE"),
        ("DROP", "DATABASE"),
        ("CREATE", "TABLESPACE"),
        ("DROP", "TABLESPACE"),
    )


def _named(found: tuple[str, ...]) -> str:
    if "CONCURRENTLY" in found:
        return " ".join(found[: found.index("CONCURRENTLY") + 1])
    return " ".join(found[: 1 if found[0] == "VACUUM" else 2])
