"""Reading TOML: the lines that most configuration files consist of here, all others by Python's.

Python's own reader takes longer to import than a start of flux may take. Pure.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
#: Digits of a whole number that is read here.
_DIGITS = 15


class _NotPlainError(Exception):
    """Only the whole of TOML will do; or it is none."""


def loads(text: str) -> dict[str, Any]:
    """What a document says. Raises `ValueError` where it is not TOML."""
    try:
        return _read_plain(text)
    except _NotPlainError:
        pass
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _read_plain(text: str) -> dict[str, Any]:
    """What a document of plain lines says: `[section]`, `key = value` and comments.

    Raises `_NotPlainError` for everything else, also for what is wrong: Python's reader says what.
    """
    document: dict[str, Any] = {}
    section = document
    for line in text.replace("\r\n", "\n").split("\n"):
        line = line.strip(" \t")
        if not line.isprintable():
            raise _NotPlainError
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            section = document[_new_key(line[1:].removesuffix("]"), document)] = {}
            if line[-1] != "]":
                raise _NotPlainError
            continue
        key, _, value = line.partition("=")
        section[_new_key(key.rstrip(" \t"), section)] = _plain_value(value.lstrip(" \t"))
    return document


def _new_key(key: str, table: dict[str, Any]) -> str:
    if not key or not _BARE.issuperset(key) or key in table:
        raise _NotPlainError
    return key


def _plain_value(text: str) -> str | int | bool:
    """A text without escapes, a whole number, or a truth; perhaps with a comment behind it."""
    if text[:1] == '"':
        value, quote, rest = text[1:].partition('"')
        rest = rest.strip(" \t")
        if not quote or "\\" in value or (rest and rest[0] != "#"):
            raise _NotPlainError
        return value
    word = text.partition("#")[0].rstrip(" \t")
    if word in ("true", "false"):
        return word == "true"
    is_number = word.isascii() and word.isdigit() and len(word) <= _DIGITS
    if not is_number or (word[0] == "0" and word != "0"):
        raise _NotPlainError
    return int(word)
