"""One migration as simple-query messages, and the way back from an error's position. Pure.

A message holds several statements and costs one round trip. The server parses a message as a
whole before it runs any of it, so a syntax error runs nothing; positions count from the start
of the message. A long script is several messages in one transaction. `COPY … FROM stdin` ends a
message, too, because its rows follow on the wire.

Many errors carry no position. A *marker* before each statement, a `RAISE INFO` that the server
sends to the client at once and does not log, says which statement was reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from flux.record import Record
from flux.statements import Numbered, Statement, leading_words

#: A whole notice, whose level may be in any language: a script's own may have such words in it.
_MARKER = re.compile(r"[^\n:]*:\s+flux (marker|time) ([\d ]+)(?:\n|\Z)")


class Segment(Record):
    """Where a statement lies in its message, and which one it is (1-based)."""

    start: int
    statement: Statement
    number: int


class Message(Record):
    """What goes to the server in one round trip; `rows` follow a COPY that ends the text.

    `reached` is the number of the statement that it begins with, where no marker tells.
    """

    text: str
    segments: tuple[Segment, ...]
    rows: str | None = None
    reached: int | None = None


#: Characters after which a message ends, lest a long script is in memory again and again: as a
#: text, encoded, and in the driver's buffer.
LONG = 1 << 20


class _Writer:
    """Builds a message, and remembers where each statement comes to lie."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._segments: list[Segment] = []
        self.length = 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self.length += len(text)

    def add_statement(self, one: Numbered) -> None:
        number, statement = one
        self._segments.append(Segment(self.length, statement, number))
        self.add(statement.text)
        self.add(";\n")

    def end(self, rows: str | None = None) -> Message:
        """The message, after which another one begins."""
        message = Message("".join(self._parts), tuple(self._segments), rows)
        self._parts, self._segments, self.length = [], [], 0
        return message


def compose(
    statements: Sequence[Numbered],
    *,
    begin: str,
    opening: str,
    closing: str,
    mark: Callable[[int], str],
    total: int,
    longest: int = LONG,
) -> Iterator[Message]:
    """The messages for one transaction: `begin`, `opening`, the statements, `closing`.

    `mark` gives the SQL before each statement by its number, of `total`, and before `closing`.
    A message ends behind the statement with which it has `longest` characters or more.

    A SET TRANSACTION that the statements start with comes before `opening`: it must come
    before any query.
    """
    writer = _Writer()
    writer.add(begin)
    first = sum(1 for _ in takewhile(sets_transaction, statements))
    for one in statements[:first]:
        writer.add_statement(one)
    writer.add(opening)
    for one in statements[first:]:
        writer.add(mark(one.number))
        writer.add_statement(one)
        if one.statement.copy_data is not None or writer.length >= longest:
            yield writer.end(one.statement.copy_data)
    writer.add(mark(total + 1))
    writer.add(closing)
    yield writer.end()


def single(one: Numbered) -> Message:
    """A message of one statement alone, which so runs in no transaction but its own."""
    number, statement = one
    return Message(statement.text, (Segment(0, statement, number),), statement.copy_data, number)


def segment_at(message: Message, position: int) -> Segment | None:
    """The statement at a 1-based position of the message; None for flux's own part of it."""
    for segment in message.segments:
        if segment.start <= position - 1 <= segment.start + len(segment.statement.text):
            return segment
    return None


class Reached:
    """How far a message got: `number` is that of the last statement that a marker told of.

    A message of several migrations tells the time at its start; and at its end, after the times at
    which rows were written. `times` are in seconds, by the server's clock.
    """

    def __init__(self, number: int | None = None) -> None:
        self.number = number
        self.times: list[float] = []

    def hear(self, notice: str) -> bool:
        """Take a notice if it is a marker; whether it is one."""
        found = _MARKER.match(notice)
        if found is None:
            return False
        kind, value = found.groups()
        if kind == "marker":
            self.number = int(value)
        else:
            self.times += [int(one) / 1_000_000 for one in value.split()]
        return True


def sets_transaction(one: Numbered) -> bool:
    """Whether a statement is a SET TRANSACTION."""
    return leading_words(one.statement.text, "postgres")[:2] == ("SET", "TRANSACTION")


def marker(number: int) -> str:
    """SQL that tells the client which statement is reached; it needs plpgsql."""
    return f"DO $flux$BEGIN RAISE INFO 'flux marker {number}'; END$flux$;\n"


def tell_time(before: str = "") -> str:
    """SQL that tells the client the server's time, in microseconds since 1970.

    `before` is an expression that gives a text of more such numbers, without `$`.
    """
    values = ", ".join(filter(None, [before, microseconds("pg_catalog.clock_timestamp()")]))
    return (
        f"DO $flux$BEGIN RAISE INFO 'flux time{' %' * (1 + bool(before))}', {values}; END$flux$;\n"
    )


def microseconds(moment: str) -> str:
    """An expression: a moment in microseconds since 1970."""
    return f"pg_catalog.int8(1000000 * pg_catalog.date_part('epoch', {moment}))"
