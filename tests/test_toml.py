"""Plain lines are read as Python's reader reads them, and everything else by it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import pytest

from flux import toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PLAIN = {
    "empty": "",
    "comment": "# nothing\n\n  # else\n",
    "sections": '[flux]\nbackend = "sqlite"\n\n[backend]\nbusy_timeout = 30\n',
    "without a section": 'database_url = "sqlite:///app.db"',
    "comments behind": 'a = "1 # 2" # 3\nb = 4 # 5\nc = true# 6\n',
    "white space": '\t[a]  \n  b  =  "c" \t\n',
    "line ends": '[a]\r\nb = "c"\r\n',
    "words": "a = true\nb = false\n",
    "numbers": "a = 0\nb = 3589\n",
    "letters": 'a = "ü €"\n',
    "key of digits": "1 = 2\n",
    "empty text": 'a = ""\n',
}
_WHOLE = {
    "text with escapes": r'a = "b\tc"',
    "literal text": "a = 'b'",
    "long text": 'a = """b"""',
    "list": 'ignore = ["a", "b"]',
    "list of lines": 'ignore = [\n  "a",\n]\n',
    "table within a line": "a = { b = 1 }",
    "float": "a = 2.5",
    "number with a sign": "a = -1",
    "number with marks": "a = 1_000",
    "hexadecimal": "a = 0xff",
    "long number": "a = 12345678901234567890",
    "date": "a = 2024-01-02",
    "dotted key": "a.b = 1",
    "dotted section": "[tool.flux]\na = 1",
    "quoted key": '"a" = 1',
    "tables": "[[a]]\nb = 1",
    "comment behind a section": "[a] # b\nc = 1",
    "spaces in a section": "[ a ]\nb = 1",
    "tab in a text": 'a = "b\tc"',
}
_WRONG = {
    "no value": "a =",
    "no key": "= 1",
    "no mark": "a 1",
    "twice": "a = 1\na = 2",
    "section twice": "[a]\n[a]",
    "section over a key": "a = 1\n[a]",
    "open section": "[a",
    "open text": 'a = "b',
    "something behind": 'a = "b" c',
    "zeros in front": "a = 01",
    "other digits": "a = ١",
    "True": "a = True",
    "letters in a key": "ä = 1",
    "control character": 'a = "\x01"',
    "control character in a comment": "# \x01",
    "lone carriage return": "a = 1\rb = 2",
    "carriage return at the end": "a = 1\r",
    "space in a key": "a b = 1",
    "other spaces": "\u00a0a = 1",
}


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that Python's reader is given."""
    given: list[str] = []
    read = tomllib.loads

    def loads(text: str) -> object:
        given.append(text)
        return read(text)

    monkeypatch.setattr(tomllib, "loads", loads)
    return given


@pytest.mark.parametrize("text", _PLAIN.values(), ids=_PLAIN)
def test_plain_lines(text: str, whole: list[str]) -> None:
    found = toml.loads(text)
    assert whole == []
    assert found == tomllib.loads(text)


@pytest.mark.parametrize("text", _WHOLE.values(), ids=_WHOLE)
def test_the_whole_of_toml(text: str, whole: list[str]) -> None:
    assert toml.loads(text) == tomllib.loads(text)
    assert whole == [text, text]


@pytest.mark.parametrize("text", _WRONG.values(), ids=_WRONG)
def test_what_is_wrong_is_told_by_pythons_reader(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as theirs:
        tomllib.loads(text)
    with pytest.raises(tomllib.TOMLDecodeError) as ours:
        toml.loads(text)
    assert str(ours.value) == str(theirs.value)


def test_any_text_is_read_the_same() -> None:
    """Thousands of texts of pieces that mean something to TOML."""
    pieces = [*"ab=[]\"#.\\\n\r\t '0123-_{},ä", "true", "false", ' = "', '"\n', "[a]\n", "a = 1\n"]
    choose = random.Random(1)  # noqa: S311 - the same texts each time
    for _ in range(20_000):
        text = "".join(choose.choices(pieces, k=choose.randint(1, 12)))
        assert _read(toml.loads, text) == _read(tomllib.loads, text), repr(text)


def _read(loads: Callable[[str], object], text: str) -> str:
    try:
        return repr(loads(text))
    except tomllib.TOMLDecodeError as error:
        return str(error)
