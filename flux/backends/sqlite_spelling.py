"""SQL of SQLite in one spelling: white space, comments, case of keywords, quotes of names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from flux.backends.dbapi import quote_identifier
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
#: What is none, but means another thing where it is in quotes: a value, or the number of a row.
_SPECIAL = frozenset(("true", "false", "rowid", "oid", "_rowid_"))
_BYTES = re.compile("'(?:[0-9a-fA-F]{2})*'")
_SIMPLE = re.compile(r"[^\W\d][\w$]*")
_OPERATORS = ("<=", ">=", "<>", "==", "!=", "||", "<<", ">>", "->", "->>")
_AWAITS_OPERAND = frozenset("(,=<>+-*/%&|~")


def words(text: str) -> list[str]:
    """The tokens of a statement, each in one spelling. Raises `UnterminatedError`."""
    found: list[str] = []
    for token in tokens(text, "sqlite"):
        before = found[-1] if found else ""
        word = _spelling(token, before)
        if (before, word) == ("=", "="):
            continue
        if (before, word) == ("!", "="):
            found[-1], word = "<", ">"
        elif word == "(" and before[:1] != "'":
            found[-1:] = [before.lower()]  # a function, or what else has a name of any case
        elif before == "collate":
            word = word.lower()
        elif before in ("x", "X") and _BYTES.fullmatch(word):
            found[-1], word = "x", word.lower()
        found.append(word)
    _lower_references(found)
    return found


def name_of(word: str) -> str:
    """The name that a word stands for, in one spelling."""
    return plain_name(_unquoted(word))


def plain_name(name: str) -> str:
    """A name in SQL's spelling, without quotes where it needs none."""
    is_simple = _SIMPLE.fullmatch(name) and name.lower() not in KEYWORDS | _SPECIAL
    return name if is_simple else quote_identifier(name)


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


def _spelling(token: Token, before: str) -> str:
    """The spelling of a token, which may depend on the word before it."""
    if token.kind == "quoted identifier":
        return (
            quote_identifier(_unquoted(token.text)) if before == "default" else name_of(token.text)
        )
    lower = token.text.lower()
    return lower if lower in KEYWORDS or lower in ("true", "false") else token.text


def _lower_references(words: list[str]) -> None:
    """Put the tables and columns of foreign keys in lower case: theirs means nothing."""
    for at, word in enumerate(words):
        if word == "references":
            end = at + 2
            if words[end : end + 1] == ["("]:
                end = words.index(")", end)
            words[at + 1 : end] = [name.lower() for name in words[at + 1 : end]]


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
    is_blob = before == "x" and word.startswith("'")
    return is_blob or before + word in _OPERATORS
