"""SQL of SQLite in one spelling: white space, comments, case of keywords, quotes of names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from flux.backends.sqlite_foreign_keys import quote
from flux.statements import Token, tokens

#: https://sqlite.org/lang_keywords.html
_KEYWORDS = """
abort action add after all alter always analyze and as asc attach autoincrement before begin
between by cascade case cast check collate column commit conflict constraint create cross
current current_date current_time current_timestamp database default deferrable deferred delete
desc detach distinct do drop each else end escape except exclude exclusive exists explain fail
filter first following for foreign from full generated glob group groups having if ignore
immediate in index indexed initially inner insert instead intersect into is isnull join key last
left like limit match materialized natural no not nothing notnull null nulls of offset on or
order others outer over partition plan pragma preceding primary query raise range recursive
references regexp reindex release rename replace restrict returning right rollback row rows
savepoint select set table temp temporary then ties to transaction trigger unbounded union
unique update using vacuum values view virtual when where window with without
"""
KEYWORDS = frozenset(_KEYWORDS.split())
_SIMPLE = re.compile(r"[^\W\d][\w$]*")
_OPERATORS = ("<=", ">=", "<>", "==", "!=", "||", "<<", ">>", "->", "->>")
_AWAITS_OPERAND = frozenset("(,=<>+-*/%&|~")


def words(text: str) -> list[str]:
    """The tokens of a statement, each in one spelling. Raises `UnterminatedError`."""
    return [_spelling(token) for token in tokens(text, "sqlite")]


def name_of(word: str) -> str:
    """The name that a word stands for, in one spelling."""
    return plain_name(_unquoted(word))


def plain_name(name: str) -> str:
    """A name in SQL's spelling, without quotes where it needs none."""
    return name if _SIMPLE.fullmatch(name) and name.lower() not in KEYWORDS else quote(name)


def spelled(words: Iterable[str]) -> str:
    """Words as one line of SQL."""
    line, before, is_sign = "", "", False
    for word in words:
        if line and not is_sign and not _is_glued(before, word):
            line += " "
        line += word
        is_sign = word in ("-", "+", "~") and (before in KEYWORDS or before in _AWAITS_OPERAND)
        before = word
    return line


def split_at(words: Sequence[str], mark: str) -> Iterator[list[str]]:
    """What is between the marks that stand outside of parentheses."""
    piece: list[str] = []
    for word, depth in with_depth(words):
        if word == mark and not depth:
            yield piece
            piece = []
        else:
            piece.append(word)
    yield piece


def with_depth(words: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each word and in how many parentheses it is; these are outside of themselves."""
    depth = 0
    for word in words:
        depth -= word == ")"
        yield word, depth
        depth += word == "("


def _spelling(token: Token) -> str:
    if token.kind == "quoted identifier":
        return name_of(token.text)
    lower = token.text.lower()
    return lower if lower in KEYWORDS else token.text


def _unquoted(word: str) -> str:
    closing = {"[": "]"}.get(word[:1], word[:1])
    if closing not in ("]", '"', "`", "'") or len(word) < 2:
        return word
    inner = word[1:-1]
    return inner if closing == "]" else inner.replace(closing * 2, closing)


def _is_glued(before: str, word: str) -> bool:
    """Whether nothing is between two words."""
    if word in (")", ",", ";") or before in ("(", "."):
        return True
    if word in ("(", "."):
        return before not in KEYWORDS and (before[-1:].isalnum() or before[-1:] in '_$"')
    is_blob = before in ("x", "X") and word.startswith("'")
    return is_blob or before + word in _OPERATORS
