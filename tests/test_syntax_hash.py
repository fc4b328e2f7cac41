"""The hash of a Python migration that works on the connection: of what it does, by pinned rules."""

from __future__ import annotations

import pytest

from flux.syntax_hash import syntax_hash

_SOURCE = '''\
"""Fill in the slugs of books."""

from bookshop.slugs import slug as make_slug


def apply(connection):
    """In batches."""
    cursor = connection.cursor()
    for id, title in cursor.execute("SELECT id, title FROM book").fetchall():
        cursor.execute("UPDATE book SET slug = ? WHERE id = ?", (make_slug(title), id))


def undo(connection):
    connection.execute("UPDATE book SET slug = NULL")
'''
_PINNED = "944142e395139517102aef39295f2771bb8108089e90b3c4056fbe90e2beb869"


def test_the_hash_is_pinned() -> None:
    """A change of it, by a change of flux or of Python, makes every such migration divergent."""
    assert syntax_hash(_SOURCE) == _PINNED


@pytest.mark.parametrize(
    ("source", "hash"),
    [
        pytest.param(
            "",
            "b5999633d806a4425694a2e389d4c42e99949638e4f3c7a2b793b0073e37c634",
            id="an empty file",
        ),
        pytest.param(
            "x = f'{a!r:>{width}}{b:%Y-%m}{c=}'",
            "93b2a354c7ec06f95ca414cb2a344be6aa8b74c0ce2d47a88b1dbf61adfe0cd5",
            id="f-strings",
        ),
        pytest.param(
            "x = f'{a:{w}}' 'b' f'{c:}'",
            "8504230560b8a9e7b2b38be2130e87af4078ee3a9aac2c61734f373d33263356",
            id="joined f-strings",
        ),
        pytest.param(
            "x = 'é \\U0001fae8 \\u1c89 \\ud800'",
            "b26e27e664bf7d5e18e6f3cd6e2a6f129a62a324b745df1b3aded25d86418166",
            id="Unicode of several versions",
        ),
        pytest.param(
            "x = [1, -2.5, 1e400, 3j, b'\\xff', None, True, ...]",
            "2ce2d242824d24e9ea5869b11fee2f95dd2358884db5cc268568a7b67f4774e8",
            id="constants",
        ),
        pytest.param(
            "match x:\n    case {'a': [1, *_], **rest} | None if rest: pass\n",
            "35202dbd33fb9b87de89bb231bd86d65c3a1dc38f4f1328829c64f9b292de82a",
            id="match",
        ),
        pytest.param(
            "@d\nclass A(B, k=1):\n    def f(self, a, /, b=1, *c, d: int = 2, **e) -> int: ...\n",
            "c470e1da88ad05521f1aafb80e2a1109fa83a49e786b108e8bd951f6a7987240",
            id="functions and classes",
        ),
        pytest.param(
            "try:\n    with a as b, c: del d[1:2, ::3]\nexcept (E, F) as g: raise H from g\n"
            "else: assert i, j\nfinally:\n    while l: break\n    else: pass\n",
            "0df9697240ccec57592d0f0461e68fc36dc67a312e5243c5fb2a52a8d29840d3",
            id="statements",
        ),
        pytest.param(
            "x = [*(lambda y: (yield y)), {**z}, {1 for a in b if c for d in e}, f if g else h]\n"
            "x: int = (y := 1) < 2 <= 3 is not None not in 4\n",
            "737767e4231eb3f891b71af9f53cf44ce2353696673868826451b499a01b30e9",
            id="expressions",
        ),
    ],
)
def test_pinned_hashes_of_everything_that_versions_of_python_see_differently(
    source: str, hash: str
) -> None:
    """These are the same on Python 3.10 to 3.13; `.ci/run` and users' deployments run on each."""
    assert syntax_hash(source) == hash


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(_SOURCE.replace("\n", "\r\n"), id="line endings"),
        pytest.param(_SOURCE.replace('"', "'"), id="quotes"),
        pytest.param(_SOURCE.replace("    ", "\t"), id="tabs"),
        pytest.param(_SOURCE.replace("\n\n\n", "\n"), id="empty lines"),
        pytest.param(_SOURCE + "# The end.\n", id="a comment"),
        pytest.param("# flux: no-transaction\n" + _SOURCE, id="a directive"),
        pytest.param(_SOURCE.replace("In batches", "At once"), id="a docstring's words"),
        pytest.param(_SOURCE.replace('    """In batches."""\n', ""), id="no docstring"),
        pytest.param(_SOURCE[_SOURCE.index("from") :], id="no docstring of the module"),
        pytest.param(
            _SOURCE.replace("(make_slug(title), id)", "(make_slug(title), id,)"), id="comma"
        ),
        pytest.param(_SOURCE.replace("make_slug(title)", "(make_slug(title))"), id="parentheses"),
        pytest.param(
            _SOURCE.replace('"UPDATE book SET slug = ?', '"UPDATE book " "SET slug = ?'),
            id="a literal in two parts",
        ),
        pytest.param(_SOURCE.replace('"SELECT', 'u"SELECT'), id="a u before a literal"),
        pytest.param(_SOURCE.replace("slug = NULL", "slug = 'x'"), id="another undo"),
        pytest.param(_SOURCE[: _SOURCE.index("def undo")], id="no undo"),
        pytest.param(_SOURCE.replace("def undo", "async def undo"), id="an async undo"),
    ],
)
def test_what_is_no_change(source: str) -> None:
    """A formatter may run over an applied migration, and its undo may be mended."""
    assert source != _SOURCE
    assert syntax_hash(source) == syntax_hash(_SOURCE)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(_SOURCE.replace("WHERE id = ?", "WHERE id=?"), id="the SQL's white space"),
        pytest.param(_SOURCE.replace("fetchall", "fetchone"), id="a name"),
        pytest.param(_SOURCE.replace("bookshop.slugs", "bookshop.slug"), id="an import"),
        pytest.param(_SOURCE.replace("def apply(connection)", "def apply(c)"), id="a parameter"),
        pytest.param(_SOURCE.replace("(title), id", "(id), title"), id="the order"),
        pytest.param(_SOURCE + "\nX = 1\n", id="one more statement"),
        pytest.param(_SOURCE.replace("def undo", "def undo_it"), id="no function called undo"),
        pytest.param(
            _SOURCE.replace(
                "    cursor = c", "    'A text.'\n    'No docstring.'\n    cursor = c", 1
            ),
            id="a text that is no docstring",
        ),
    ],
)
def test_what_is_a_change(source: str) -> None:
    assert source != _SOURCE
    assert syntax_hash(source) != syntax_hash(_SOURCE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x = 1", "x = 1.0", id="types of numbers"),
        pytest.param("x = 1", "x = True", id="a number and true"),
        pytest.param("x = 'a'", "x = b'a'", id="text and bytes"),
        pytest.param("x = ('a', 'b')", "x = ['a', 'b']", id="tuple and list"),
        pytest.param("x = 'str:1'", "x = 1", id="a text like the canonical form"),
        pytest.param("f('a', 'b')", "f('a,str:b')", id="one text like two"),
        pytest.param("f(*a)", "f(**a)", id="one star and two"),
        pytest.param("x = ''", "x = None", id="empty and none"),
        pytest.param("def f(a, b=1): pass", "def f(a=1, b=1): pass", id="defaults"),
        pytest.param("def f(a, *, b): pass", "def f(a, b): pass", id="keyword-only"),
        pytest.param("if a: b\nelse: c", "if a: b\nc", id="within and behind"),
        pytest.param("x = f'{a}'", "x = f'{a!r}'", id="a conversion"),
        pytest.param("x = f'{a}{b}'", "x = f'{a}' f'-{b}'", id="texts of an f-string"),
    ],
)
def test_different_code_has_different_hashes(one: str, other: str) -> None:
    assert syntax_hash(one) != syntax_hash(other)


def test_a_deep_tree() -> None:
    """A text put together from thousands of pieces, as a generator of migrations writes it."""
    source = "x = " + " + ".join(["'a'"] * 2000)
    assert len(syntax_hash(source)) == 64
