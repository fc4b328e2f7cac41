"""Transaction control inside a migration's text: what it says, and whether flux can take it.

flux runs a migration in a transaction of its own. An outermost `BEGIN; … COMMIT;` around a
whole file says the same, and is taken as flux's own; any other transaction control is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flux.exceptions import Problem
from flux.migration import Script
from flux.record import Record
from flux.statements import Dialect, Statement, leading_words

_OPENING = {
    "postgres": (("BEGIN",), ("START", "TRANSACTION")),
    "sqlite": (("BEGIN",),),
    "generic": (("BEGIN",), ("START", "TRANSACTION")),
}
_CLOSING = (("COMMIT",), ("END",))
_OTHER = (("ROLLBACK",), ("ABORT",), ("PREPARE", "TRANSACTION"))
_CONTROLS = {
    dialect: frozenset((*opening, *_CLOSING, *_OTHER)) for dialect, opening in _OPENING.items()
}
# The words that all of it begins with; few other words have such a letter in front.
_FIRST_WORDS = tuple(sorted({words[0] for words in _CONTROLS["generic"]}))
_LONGEST = max(map(len, _FIRST_WORDS))
_MENTIONS_CONTROL = (
    rf"(?i)\b(?=[{''.join(word[0] for word in _FIRST_WORDS)}])(?:{'|'.join(_FIRST_WORDS)})\b"
)
_NOISE = {"WORK", "TRANSACTION", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"}


class Unwrapped(Record):
    """The statements of a file without its outermost pair, and the modes its BEGIN asked for.

    `modes` is what stood behind BEGIN, as written (`ISOLATION LEVEL SERIALIZABLE`), or "".
    """

    statements: list[Statement]
    modes: str = ""


def mentions_control(text: str) -> bool:
    """Whether a text may hold transaction control; the word is enough, also in a comment."""
    return re.search(_MENTIONS_CONTROL, text) is not None


def unwrap(statements: Sequence[Statement], dialect: Dialect) -> Unwrapped:
    """Take away an outermost `BEGIN; … COMMIT;`, if the statements have one.

    SQLite's own recipe for a table rebuild sets PRAGMAs around the pair; they stay.
    """
    body = list(statements)
    first, last = 0, len(body) - 1
    if dialect == "sqlite":
        while first < last and _is_pragma(body[first]):
            first += 1
    if first >= last or not opens_transaction(body[first], dialect):
        return Unwrapped(body)
    if dialect == "sqlite":
        while last > first and _is_pragma(body[last]):
            last -= 1
    if first >= last or not closes_transaction(body[last], dialect):
        return Unwrapped(body)
    modes = modes_of(body[first], dialect)
    return Unwrapped([*body[:first], *body[first + 1 : last], *body[last + 1 :]], modes)


def _is_pragma(statement: Statement) -> bool:
    text = statement.text
    return text[:6].upper() == "PRAGMA" and leading_words(text, "sqlite")[:1] == ("PRAGMA",)


def _may_control(statement: Statement) -> bool:
    """Whether a statement begins as transaction control does; most do not, and that is said fast.

    Nothing stands before the first word of a statement, not even a comment.
    """
    return statement.text[:_LONGEST].upper().startswith(_FIRST_WORDS)


def controls_transaction(statement: Statement, dialect: Dialect) -> bool:
    """Whether a statement begins or ends a transaction. Savepoints do not."""
    if not _may_control(statement):
        return False
    found = leading_words(statement.text, dialect)
    if found[:1] == ("ROLLBACK",) and "TO" in found[1:3]:
        return False
    return found[:1] in _CONTROLS[dialect] or found[:2] in _CONTROLS[dialect]


def transaction_problems(
    script: Script, statements: Sequence[Statement], dialect: Dialect
) -> list[Problem]:
    """What flux cannot run of the transaction control among a script's statements.

    Of a script in a transaction they come without an outermost pair, where the backend takes it.
    """
    if script.directives.no_transaction:
        found = _misplaced(statements, dialect)
        hint = "put BEGIN; and COMMIT; around what belongs together, and remove what else there is"
    else:
        where = "inside a migration, which flux runs in a transaction of its own"
        found = [(one, where) for one in statements if controls_transaction(one, dialect)]
        hint = "remove it, or run the whole file without a transaction: -- flux: no-transaction"
    return [
        Problem(
            "transaction-control",
            (),
            f"{leading_words(statement.text, dialect)[0]} {where}",
            hint,
            script.location(statement.start),
        )
        for statement, where in found
    ]


def _misplaced(statements: Sequence[Statement], dialect: Dialect) -> list[tuple[Statement, str]]:
    """The transaction control that a file without a transaction cannot have, and why.

    It may hold `BEGIN; … COMMIT;` around some of its statements, and nothing else of the kind.
    """
    found = []
    opening: Statement | None = None
    for statement in statements:
        if opens_transaction(statement, dialect) and opening is None:
            opening = statement
        elif closes_transaction(statement, dialect) and opening is not None:
            opening = None
        elif controls_transaction(statement, dialect):
            where = "outside of" if opening is None else "inside"
            found.append((statement, f"{where} a BEGIN; … COMMIT;"))
            if not opens_transaction(statement, dialect):
                opening = None
    if opening is not None:
        found.append((opening, "without a COMMIT"))
    return found


def opens_transaction(statement: Statement, dialect: Dialect) -> bool:
    """Whether a statement begins a transaction."""
    if not _may_control(statement):
        return False
    found = leading_words(statement.text, dialect)
    return found[:1] in _OPENING[dialect] or found[:2] in _OPENING[dialect]


def closes_transaction(statement: Statement, dialect: Dialect) -> bool:
    """Whether a statement commits a transaction, and begins no other."""
    found = leading_words(statement.text, dialect)
    # COMMIT AND CHAIN opens the next one; COMMIT PREPARED is about another one.
    return found[:1] in _CLOSING and _NOISE.issuperset(found[1:4])


def modes_of(statement: Statement, dialect: Dialect) -> str:
    """What a BEGIN asks for, as written: `ISOLATION LEVEL SERIALIZABLE`, or ""."""
    if dialect == "sqlite":
        return ""
    rest = statement.text.split(None, 1)[1:]
    modes = rest[0].strip() if rest else ""
    for noise in ("WORK", "TRANSACTION"):
        if modes.upper().startswith(noise):
            modes = modes[len(noise) :].strip()
    return modes
