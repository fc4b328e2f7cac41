"""SQL text + dialect → statements with their line and column. Pure.

This knows no grammar, only where statements end. The text is searched for *marks*: what opens a
quotation or a comment, `;`, and parentheses and backslashes where the dialect cares. All between
them (words, numbers, operators) is passed over in one step. The words of a statement are looked at
only where they matter: for `COPY … FROM stdin`, and where a body may hold `;` of its own.
"""

from __future__ import annotations

import re
from functools import cache, cached_property, lru_cache
from itertools import islice

from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

Dialect: TypeAlias = "Literal['postgres', 'sqlite', 'generic']"


class Statement(Record):
    """One statement: an exact slice of the source, without its `;` and comments around it."""

    text: str
    start: int  # 0-based offset in the source; the slice ends at start + len(text)
    line: int  # 1-based
    column: int  # 1-based, in characters
    copy_data: str | None = None  # the rows after `COPY … FROM stdin;`, each ended by a newline


class Numbered(Record):
    """A statement and its place among all of its file, counted from 1."""

    number: int
    statement: Statement


class MetaCommand(Record):
    r"""A psql command, from its backslash to the end of the line; `\;` and `\:` are just that."""

    text: str
    start: int  # 0-based offset in the source
    line: int  # 1-based
    column: int  # 1-based, in characters


class SplitError(ValueError):
    """The text cannot be taken apart: `problem`, 0-based `offset`, 1-based `line` and `column`."""

    def __init__(self, problem: str, text: str, offset: int) -> None:
        self.problem = problem
        self.offset = offset
        self.line, self.column = _locator(text)(offset)
        super().__init__(f"{problem} (line {self.line}, column {self.column})")


class UnterminatedError(SplitError):
    """Something is opened and never closed: `what`, and the position at which it begins."""

    def __init__(self, what: str, text: str, offset: int) -> None:
        super().__init__(f"unterminated {what}", text, offset)
        self.what = what


def without_commands(pieces: Iterable[Statement | MetaCommand]) -> list[Statement]:
    """The statements alone; only PostgreSQL's dialect has psql's commands."""
    return [piece for piece in pieces if isinstance(piece, Statement)]


def split(text: str, dialect: Dialect) -> list[Statement | MetaCommand]:
    r"""Take SQL text apart into its statements, in order; comments and empty statements are none.

    `text` has `\n` line endings and no byte order mark. `postgres` reads it as psql and the server
    do. A psql command outside of quotations is reported as a MetaCommand, not interpreted. One
    within a statement comes before that statement, which still holds it: no server takes it.

    Rows after `COPY … FROM stdin;` have to end with a `\.` line. (psql also takes the end of the
    file for their end, and so the rest of a file in which the line is missing for rows.)

    Raises: UnterminatedError: a quotation, comment, parenthesis, body or block of rows is never
    closed, and the database would not accept that (SQLite accepts it of a comment). SplitError:
    a statement follows `COPY … FROM stdin;` on its line, and so stands above the rows.
    """
    lexis = _lexis(dialect)
    opens_body = lexis.rules.opens_body
    where = _locator(text)
    pieces: list[Statement | MetaCommand] = []
    pos = end = line = column = 0
    start = -1  # of the open statement, if any
    segment = 0  # offset of what follows the last `;` in its body
    in_body = False
    parentheses: list[int] = []  # offsets of the open ones

    while True:
        if start < 0 and (plain := lexis.plain.match(text, pos, pos + _SHORT)):
            begin, end = plain.span(1)
            head = lexis.head.match(text, begin)
            if not head or (
                head[0].upper() == "CREATE" and not lexis.hint.search(text, begin, end)
            ):
                pieces.append(Statement._make((text[begin:end], begin, *where(begin), None)))
                pos = plain.end()
                continue
        mark, at, after = _next(lexis, lexis.marks, text, pos, len(text))
        if start < 0:
            begin = at - len(text[pos:at].lstrip(_SPACE))
            if begin < at or mark not in _NO_PART_OF_A_STATEMENT:
                start = segment = begin
                line, column = where(start)
        if mark not in _NO_PART_OF_A_STATEMENT:
            end = after
        elif bare := text[pos:at].rstrip(_SPACE):
            end = pos + len(bare)
        pos = after

        if mark == "(":
            parentheses.append(at)
        elif mark == ")":
            del parentheses[-1:]
        elif mark == "\\":
            pos = _meta_command_end(text, at)
            command = text[at:pos].rstrip(_SPACE)
            end = at + len(command)
            pieces.append(MetaCommand(command, at, *where(at)))
            if start < 0 and re.match(_META_COPY, command):
                _, pos = _copy_rows(text, pos, at)
        elif start >= 0 and (not mark or (mark == ";" and not parentheses)):
            if parentheses:
                raise UnterminatedError("parenthesis", text, parentheses[0])
            copy_data = None
            head = lexis.head.match(text, start)
            if head and head[0].upper() == "COPY":
                # the server takes FROM stdout for the same
                if _finds(_tokens(lexis, text, start, end), "FROM", "STDIN", "STDOUT"):
                    copy_data, pos = _copy_rows(text, after, start)
            elif head and opens_body and (in_body or lexis.hint.search(text, start, end)):
                tokens = _tokens(lexis, text, segment, end)
                if in_body:  # it ends where END stands alone between two `;`
                    in_body = next(tokens, "") != "END" or next(tokens, "") != ""
                else:
                    in_body = opens_body(tokens)
                segment = after
                if in_body:
                    if mark:
                        continue
                    raise UnterminatedError(lexis.rules.body, text, start)
            pieces.append(Statement(text[start:end], start, line, column, copy_data))
            start = -1
        if not mark:
            return pieces


def numbered(pieces: Sequence[Statement | MetaCommand]) -> list[Numbered]:
    """The statements among what `split` gives, with their places."""
    statements = [piece for piece in pieces if isinstance(piece, Statement)]
    return [Numbered(number, statement) for number, statement in enumerate(statements, 1)]


def words(text: str, dialect: Dialect, pos: int = 0) -> Iterator[str]:
    """Yield the bare words of a statement in upper case: no quoted names, literals or comments.

    `pos` is the 0-based offset at which to begin, between two of its pieces.

    Raises: UnterminatedError: when it comes to what is never closed.
    """
    lexis = _lexis(dialect)
    word = len(lexis.rules.quotations) + 1
    while pos >= 0:
        opened = -1
        for found in lexis.tokens.finditer(text, pos):
            if found.lastindex == word:
                yield found[0].upper()
            elif found.lastindex:
                opened = found.start()
                break
        pos = _next(lexis, lexis.tokens, text, opened, len(text))[2] if opened >= 0 else -1


def leading_words(text: str, dialect: Dialect) -> tuple[str, ...]:
    """The first twelve of `words`: they say what a statement is, which is asked again and again.

    Raises: UnterminatedError: when it comes to what is never closed.
    """
    return _leading_words(text, dialect) if len(text) <= 4096 else _find_leading(text, dialect)


def _find_leading(text: str, dialect: Dialect) -> tuple[str, ...]:
    found: list[str] = []
    pos = 0
    if plain := _lexis(dialect).plain_start.match(text):
        pieces = plain[0].upper().translate(_AS_SPACE).split()
        found = [piece for piece in pieces if piece[0] not in "0123456789"]
        pos = plain.end()
    if len(found) < _LEADING and pos < len(text):
        found += islice(words(text, dialect, pos), _LEADING - len(found))
    return tuple(found[:_LEADING])


_LEADING = 12
# What statements begin with, up to a piece that only its dialect can read: words, numbers and what
# separates them. Those are told apart faster than by a pattern.
_SEPARATING = "()<>=,.;+* \t\n\r\f"
_PLAIN_START = rf"(?a)[\w{_SEPARATING}]{{1,400}}(?:(?<=[{_SEPARATING}])|\Z)"
_AS_SPACE = str.maketrans(dict.fromkeys(_SEPARATING, " "))

_leading_words = lru_cache(maxsize=64)(_find_leading)  # those of a file, not of all files


class Token(Record):
    """A piece of a statement: `kind` is `word`, what a quotation is, or the character itself."""

    kind: str
    text: str  # as it stands there


def tokens(text: str, dialect: Dialect) -> Iterator[Token]:
    """Yield the pieces of a statement in order, without comments.

    Raises: UnterminatedError: when it comes to what is never closed.
    """
    lexis, kind, pos = _lexis(dialect), "word", 0
    while kind:
        kind, start, pos = _next(lexis, lexis.tokens, text, pos, len(text))
        if kind and kind != "comment":
            yield Token(kind, text[start:pos])


# --- Looking into a statement


def _opens_routine(tokens: Iterator[str]) -> bool:
    """PostgreSQL: CREATE [OR REPLACE] FUNCTION or PROCEDURE with BEGIN ATOMIC.

    The grammar wants a `;` after each statement in that body, and so before its END. Hence no END
    of a CASE, and none that is a column's name, is mistaken for it, as counting them would.
    """
    next(tokens)  # CREATE
    kind = next(tokens, "")
    if kind == "OR":
        next(tokens, "")  # REPLACE
        kind = next(tokens, "")
    if kind not in ("FUNCTION", "PROCEDURE"):
        return False
    return _finds(tokens, "BEGIN", "ATOMIC") and next(tokens, "") != "END"


def _opens_trigger(tokens: Iterator[str]) -> bool:
    """SQLite: CREATE [TEMP | TEMPORARY] TRIGGER, as sqlite3_complete() has it."""
    word = next(tokens)
    if word == "EXPLAIN":
        deciding = ("CREATE", "EXPLAIN", "TEMP", "TEMPORARY", "TRIGGER", "END")
        word = next((this for this in tokens if this in deciding), "")
    if word != "CREATE":
        return False
    return next((this for this in tokens if this not in ("TEMP", "TEMPORARY")), "") == "TRIGGER"


def _finds(tokens: Iterator[str], first: str, *second: str) -> bool:
    """Whether one word directly follows another, outside of parentheses; reads no further."""
    depth, before = 0, ""
    for this in tokens:
        depth += (this == "(") - (this == ")")
        if not depth and before == first and this in second:
            return True
        before = this
    return False


# --- psql's own syntax


def _meta_command_end(text: str, start: int) -> int:
    if text.startswith(("\\;", "\\:"), start):
        return start + 2
    newline = text.find("\n", start)
    return newline if newline >= 0 else len(text)


def _copy_rows(text: str, pos: int, start: int) -> tuple[str, int]:
    """The rows below the line of `pos`, and where text goes on after them.

    `start` is the offset of the COPY they belong to, for the error.
    """
    rest = re.compile(_REST_OF_LINE).match(text, pos)
    if not rest:
        raise SplitError("a statement follows COPY … FROM stdin; on its line", text, pos)
    newline = rest.end() - 1
    stop = text.find("\n\\.\n", newline)
    if stop < 0 and text.endswith("\n\\.") and len(text) - 3 >= newline:
        stop = len(text) - 3
    if stop < 0:
        raise UnterminatedError("COPY data", text, start)
    return text[newline + 1 : stop + 1], min(stop + 4, len(text))


# --- The rules of the dialects

_SPACE = " \t\n\r\f"
_LETTER = r"[^\x00-@\[-^`{-\x7f]"  # A-Z, a-z, _, and all that is not ASCII
_WORD = r"[^\x00-/:-@\[-^`{-\x7f]"  # … and 0-9
_WORD_OR_DOLLAR = r"[^\x00-#%-/:-@\[-^`{-\x7f]"
# PostgreSQL: a literal goes on in the next one if only a newline, blanks and `--` come between.
_CONTINUED = r"(?:[ \t\r\f]|--[^\n]*)*\n(?:[ \t\n\r\f]|--[^\n]*\n)*'"
_NO_PART_OF_A_STATEMENT = ("comment", ";", "\\", "")
_META_COPY = r"(?i)\\copy\b.*\bfrom\s+stdin\b"
_REST_OF_LINE = r"(?:[ \t\r\f]|/\*[^*\n]*\*/)*(?:--[^\n]*)?(?:\n|\Z)"


class _Rules(Record):
    """A dialect. A quotation is (what it is, how it opens, how it goes on).

    How it goes on is searched for after the opening: a match that sets group 1 closes it, one that
    sets group 2 opens another level, others are stepped over. "" is for: as it opened.
    """

    quotations: tuple[tuple[str, str, str], ...]
    marks: str = ";"  # more that may open, close or end something
    head: str = "(?!)"  # the first word of statements whose words have to be looked at
    # Whether the tokens up to the first `;` open a body that holds `;`, what that is called, and a
    # word without which none opens one.
    opens_body: Callable[[Iterator[str]], bool] | None = None
    body: str = ""
    hint: str = "(?!)"


_STRING = ("string literal", "'", "'(?:'|())")
_NAME = ("quoted identifier", '"', '"(?:"|())')
_LINE_COMMENT = ("comment", "--", r"[^\n]*()")

_DIALECTS: dict[Dialect, _Rules] = {
    "postgres": _Rules(
        (
            # The lookbehinds: `E` is a word of its own; `$` is not within a word.
            (
                "string literal",
                rf"'(?<=[eE]')(?<!{_WORD_OR_DOLLAR}[eE]')",
                rf"\\.|'(?:'|{_CONTINUED}|())",
            ),
            _STRING,
            _NAME,
            (
                "dollar-quoted string",
                rf"\$(?<!{_WORD_OR_DOLLAR}\$)(?:{_LETTER}{_WORD}*)?\$",
                "",
            ),
            _LINE_COMMENT,
            ("comment", r"/\*", r"\*/()|/\*()"),
        ),
        marks=r";|\(|\)|\\",
        head="COPY|CREATE",
        opens_body=_opens_routine,
        body="BEGIN ATOMIC body",
        hint="ATOMIC",
    ),
    "sqlite": _Rules(
        (
            _STRING,
            _NAME,
            ("quoted identifier", "`", "`(?:`|())"),
            ("quoted identifier", r"\[", r"\]()"),
            _LINE_COMMENT,
            ("comment", r"/\*(?!\Z)", r"(\*/|\Z)"),  # the end of the text closes it
        ),
        head="CREATE|EXPLAIN",
        opens_body=_opens_trigger,
        body="trigger body",
        hint="TRIGGER",
    ),
    "generic": _Rules((_STRING, _NAME, _LINE_COMMENT, ("comment", r"/\*", r"\*/()"))),
}


# --- The statements that most are

# One that all dialects read alike, up to its `;`: no comments, no backslashes, no dollars, no
# quotations but the standard's, and no parentheses but closed ones.
_PLAIN_CHARACTERS = r"[^;'\"()$\\/\-`\[\]]*"
_PLAIN_QUOTATION = r"""'[^'\\]*'|"[^"]*\""""


def _plain_parentheses(*inside: str) -> str:
    """A pattern for parentheses that hold plain characters, and what is given."""
    among = "|".join((_PLAIN_QUOTATION, *inside))
    return rf"\({_PLAIN_CHARACTERS}(?:(?:{among}){_PLAIN_CHARACTERS})*\)"


_PLAIN_STATEMENT = (
    rf"[{_SPACE}]*((?=[A-Za-z]){_PLAIN_CHARACTERS}"
    rf"(?:(?:{_PLAIN_QUOTATION}|{_plain_parentheses(_plain_parentheses())}){_PLAIN_CHARACTERS})*)"
    rf"(?<![{_SPACE}]);"
)
_SHORT = 4096

# --- The scanner


class _Lexis:
    """A dialect's rules. Each pattern is compiled at its first use: plain text needs few of them.

    Group n of `marks` and `tokens` is the nth of `quotations`.
    """

    def __init__(self, rules: _Rules) -> None:
        self.rules = rules

    @cached_property
    def _opens(self) -> str:
        # Alternatives that begin with a literal character are what the engine searches fast.
        return "|".join(f"{opening}()" for _, opening, _ in self.rules.quotations)

    @cached_property
    def marks(self) -> re.Pattern[str]:
        return re.compile(f"{self._opens}|{self.rules.marks}")

    @cached_property
    def tokens(self) -> re.Pattern[str]:
        """Quotations, words (as the last of them) and single characters."""
        word = rf"(?!(?:[bBeEnNxX]|[uU]&)'|[uU]&\"){_LETTER}{_WORD_OR_DOLLAR}*()"
        return re.compile(rf"{self._opens}|{word}|[0-9$]{_WORD_OR_DOLLAR}*|[^{_SPACE}]")

    @cached_property
    def quotations(self) -> tuple[tuple[str, re.Pattern[str] | None], ...]:
        quotations = [
            (what, re.compile(rest, re.S) if rest else None)
            for what, _, rest in self.rules.quotations
        ]
        return (*quotations, ("word", re.compile("()")))

    @cached_property
    def head(self) -> re.Pattern[str]:
        return re.compile(rf"(?i:{self.rules.head})(?!{_WORD_OR_DOLLAR})")

    @cached_property
    def hint(self) -> re.Pattern[str]:
        return re.compile(self.rules.hint, re.IGNORECASE)

    @cached_property
    def plain(self) -> re.Pattern[str]:
        """A whole statement, the same for all."""
        return re.compile(_PLAIN_STATEMENT)

    @cached_property
    def plain_start(self) -> re.Pattern[str]:
        return re.compile(_PLAIN_START)


@cache
def _lexis(dialect: Dialect) -> _Lexis:
    return _Lexis(_DIALECTS[dialect])


def _next(
    lexis: _Lexis, pattern: re.Pattern[str], text: str, pos: int, stop: int
) -> tuple[str, int, int]:
    """What is found first between two offsets: its kind, its start, its end.

    The kind is that of the quotation, else the text itself, and "" at `stop` if nothing is found.
    """
    found = pattern.search(text, pos, stop)
    if not found:
        return "", stop, stop
    start, pos = found.span()
    if not found.lastindex:
        return found[0], start, pos
    kind, rest = lexis.quotations[found.lastindex - 1]
    if not rest:
        end = text.find(found[0], pos)
        if end >= 0:
            return kind, start, end + pos - start
    else:
        level = 1
        for step in rest.finditer(text, pos):
            if step.lastindex:
                level += 1 if step.lastindex == 2 else -1
                if not level:
                    return kind, start, step.end()
    raise UnterminatedError(kind, text, start)


def _tokens(lexis: _Lexis, text: str, pos: int, stop: int) -> Iterator[str]:
    """Yield what is between two offsets: words in upper case, characters, kinds of quotations."""
    kind = "word"
    while kind:
        kind, start, pos = _next(lexis, lexis.tokens, text, pos, stop)
        if kind and kind != "comment":
            yield text[start:pos].upper() if kind == "word" else kind


def _locator(text: str) -> Callable[[int], tuple[int, int]]:
    """A function from offsets to lines and columns; the offsets have to ascend."""
    line, line_start, seen = 1, 0, 0

    def where(offset: int) -> tuple[int, int]:
        nonlocal line, line_start, seen
        if newlines := text.count("\n", seen, offset):
            line += newlines
            line_start = text.rindex("\n", seen, offset) + 1
        seen = offset
        return line, offset - line_start + 1

    return where
