"""The migration directory: what is read from it, every defect it can have, and Python in it."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256
from pathlib import Path

import pytest

from flux import directory
from flux.directory import MigrationDirectory
from flux.exceptions import InvalidMigrationModuleError, MigrationLoadingError
from flux.migration import Directives, Order, Script

Files = dict[str, str | bytes]
Fill = Callable[[Files], None]

SQL = "CREATE TABLE t (a int);\n"


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Writes files below `m`, the migration directory; the test runs beside it."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("m")

    def fill(files: Files) -> None:
        for name, content in files.items():
            path = os.path.join("m", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)

    return fill


def _ids(found: MigrationDirectory) -> list[str]:
    return [migration.id for migration in found.migrations]


def _error(order: Order = "text") -> MigrationLoadingError:
    with pytest.raises(MigrationLoadingError) as caught:
        directory.read("m", order=order)
    return caught.value


def _script(name: str = "x") -> Script:
    return next(m.script for m in directory.read("m").migrations if m.id == name)


# What is read -------------------------------------------------------------------------------


def test_an_empty_directory(fill: Fill) -> None:
    assert directory.read("m") == MigrationDirectory(path="m")


def test_a_directory_with_everything(fill: Fill) -> None:
    fill(
        {
            "2_b.sql": "SELECT 2;",
            "1_a.sql": "SELECT 1;",
            "1_a.undo.sql": "SELECT -1;",
            "3_c.py": "def apply(): return 'SELECT 3;'\ndef undo(): return 'SELECT -3;'",
            "pre-apply/b.sql": "SELECT 'b';",
            "pre-apply/a.sql": "SELECT 'a';",
            "post-apply/c.py": "def apply(): return 'SELECT 4;'",
        }
    )
    found = directory.read("m")
    assert [(m.id, m.path, m.script.text) for m in found.migrations] == [
        ("1_a", os.path.join("m", "1_a.sql"), "SELECT 1;"),
        ("2_b", os.path.join("m", "2_b.sql"), "SELECT 2;"),
        ("3_c", os.path.join("m", "3_c.py"), "SELECT 3;"),
    ]
    undos = [m.read_undo and (m.read_undo().path, m.read_undo().text) for m in found.migrations]
    assert undos == [
        (os.path.join("m", "1_a.undo.sql"), "SELECT -1;"),
        None,
        (os.path.join("m", "3_c.py"), "SELECT -3;"),
    ]
    repeatables = (*found.pre_apply, *found.post_apply)
    assert [(r.name, r.script.text) for r in repeatables] == [
        ("pre-apply/a", "SELECT 'a';"),
        ("pre-apply/b", "SELECT 'b';"),
        ("post-apply/c", "SELECT 4;"),
    ]
    assert (found.id_problems, dict(found.set_aside)) == ((), {})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("1 add users.sql", id="spaces"),
        pytest.param("v1.10.3_x.sql", id="dots"),
        pytest.param('1_it\'s "quoted"; --.sql', id="quotes"),
        pytest.param("1_añadir-usuários.sql", id="letters of other alphabets"),
        pytest.param("-rf.sql", id="a hyphen first"),
        pytest.param("x" * 200 + ".sql", id="long"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses quotes in names")
def test_ids_are_file_names_without_their_endings(fill: Fill, name: str) -> None:
    fill({name: SQL, name.replace(".sql", ".undo.sql"): SQL})
    (migration,) = directory.read("m").migrations
    assert migration.id == name.removesuffix(".sql")
    assert migration.undo_script().text == SQL


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "_helpers.py",
        "_x.sql",
        ".x.sql",
        ".sql",
        "._1_x.sql",
        "README.md",
        "1_x.sql.orig",
        "1_x.sql~",
        "1_x.pyc",
        "1_x",
        "sql",
        "folder/1_x.sql",
        "__pycache__/1_x.cpython-311.pyc",
        "_folder.sql/x",
        "_X.SQL",
    ],
)
def test_what_is_no_migration(fill: Fill, name: str) -> None:
    """It is not even run: each of them would raise."""
    fill({name: "raise SystemExit", "1_a.sql": SQL, f"pre-apply/{name}": "raise SystemExit"})
    found = directory.read("m")
    assert (_ids(found), found.pre_apply) == (["1_a"], ())


def test_a_history_can_bring_back_what_is_set_aside(fill: Fill) -> None:
    """flux-migrations 0.0.3 took these for migrations, and what it recorded stays valid."""
    fill(
        {
            "_x.sql": "SELECT 1;",
            "_x.undo.sql": "SELECT 2;",
            "_y.py": "def apply(): return 'SELECT 3;'",
            "_broken.py": "raise ValueError('not wanted')",
            "1_a.sql": SQL,
        }
    )
    found = directory.read("m")
    assert _ids(found) == ["1_a"]
    assert sorted(found.set_aside) == ["_broken", "_x", "_y"]
    assert found.with_recorded(["1_a", "gone"]) is found
    recorded = found.with_recorded(["_y", "1_a", "_x"])
    assert _ids(recorded) == ["1_a", "_x", "_y"]
    assert recorded.migrations[1].undo_script().text == "SELECT 2;"
    with pytest.raises(InvalidMigrationModuleError, match="not wanted"):
        found.with_recorded(["_broken"])


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        pytest.param("text", ["x-10", "x-1a", "x-2"], id="text"),
        pytest.param("natural", ["x-1a", "x-2", "x-10"], id="natural"),
    ],
)
def test_order(fill: Fill, order: Order, ids: list[str]) -> None:
    fill({f"{folder}{id}.sql": SQL for id in ids for folder in ("", "pre-apply/")})
    found = directory.read("m", order=order)
    assert _ids(found) == ids
    assert [repeatable.id for repeatable in found.pre_apply] == ids


@pytest.mark.parametrize(
    ("content", "text", "legacy"),
    [
        pytest.param(b"", "", b"", id="empty"),
        pytest.param(b"-- nothing", "-- nothing", b"-- nothing", id="a comment"),
        pytest.param(b"a\r\nb\rc\n", "a\nb\nc\n", b"a\nb\nc\n", id="CRLF"),
        pytest.param(b"\xef\xbb\xbfa\r\n", "a\n", b"\xef\xbb\xbfa\n", id="BOM"),
        pytest.param(
            "é %s :x \u2028".encode(), "é %s :x \u2028", "é %s :x \u2028".encode(), id="é"
        ),
        pytest.param(b"a \n\n", "a \n\n", b"a \n\n", id="white space at its end"),
    ],
)
def test_sql_files(fill: Fill, content: bytes, text: str, legacy: bytes) -> None:
    """`legacy` is what 0.0.3 hashed: universal newlines, with the BOM and all white space."""
    fill({"x.sql": content})
    script = _script()
    assert script.text == text
    assert script.hash == sha256(text.rstrip(" \n").encode()).hexdigest()
    assert script.legacy_hash == md5(legacy, usedforsecurity=False).hexdigest()


def test_the_undo_is_read_when_it_is_wanted(fill: Fill) -> None:
    """Start-up reads half of the files; a rollback reads what is there then."""
    fill({"x.sql": SQL, "x.undo.sql": b"\xff"})
    (migration,) = directory.read("m").migrations
    with pytest.raises(MigrationLoadingError) as caught:
        migration.undo_script()
    path = os.path.join("m", "x.undo.sql")
    assert str(caught.value) == f"{path}:1: is not UTF-8 (byte 0xFF)\nhint: save it as UTF-8"
    fill({"x.undo.sql": "DROP TABLE t;"})
    assert migration.undo_script().text == "DROP TABLE t;"


def test_list_ids_runs_and_reads_nothing(fill: Fill) -> None:
    fill({"1_a.sql": b"\xff", "2_b.py": "raise ValueError", "3_c.undo.sql": SQL, "_x.sql": SQL})
    assert sorted(directory.list_ids("m")) == ["1_a", "2_b", "3_c"]


# Defects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            {"x.sql": SQL, "x.py": "def apply(): return ''"},
            "m: x.sql and x.py have one id\nhint: remove one of the two",
            id="duplicate",
        ),
        pytest.param(
            {"pre-apply/x.sql": SQL, "pre-apply/x.py": "def apply(): return ''"},
            "m/pre-apply: x.sql and x.py have one id\nhint: remove one of the two",
            id="duplicate repeatable",
        ),
        pytest.param(
            {"x.undo.sql": SQL},
            "m/x.undo.sql: an undo without its migration\nhint: put x.sql back; "
            "if nothing of it was ever applied, remove the undo",
            id="orphan undo",
        ),
        pytest.param(
            {"x.py": "def apply(): return ''", "x.undo.sql": SQL},
            "m/x.undo.sql: an undo beside a Python migration, x.py\n"
            "hint: move it into an undo() of x.py",
            id="SQL undo of Python",
        ),
        pytest.param(
            {"x.py": "def apply(): return ''", "x.undo.py": "def apply(): return ''"},
            "m/x.undo.py: an undo in Python is no file of its own\nhint: move it into x.py",
            id="Python undo in a file of its own",
        ),
        pytest.param(
            {"post-apply/x.sql": SQL, "post-apply/x.undo.sql": SQL},
            "m/post-apply/x.undo.sql: a repeatable has no undo\nhint: remove it",
            id="repeatable with undo",
        ),
        pytest.param(
            {"post-apply/x.py": "def apply(): return ''\ndef undo(): return ''"},
            "m/post-apply/x.py: a repeatable has no undo\nhint: remove undo()",
            id="Python repeatable with undo",
        ),
        pytest.param(
            {"x.SQL": SQL},
            "m/x.SQL: the ending is not in small letters\nhint: rename it to x.sql",
            id="ending in capitals",
        ),
        pytest.param(
            {"x.Py": SQL},
            "m/x.Py: the ending is not in small letters\nhint: rename it to x.py",
            id="Python ending in capitals",
        ),
        pytest.param(
            {"x.sql": SQL, "x.Undo.sql": SQL},
            "m/x.Undo.sql: the ending is not in small letters\nhint: rename it to x.undo.sql",
            id="undo in capitals, which would be applied",
        ),
        pytest.param(
            {"pre-apply/x.SQL": SQL},
            "m/pre-apply/x.SQL: the ending is not in small letters\nhint: rename it to x.sql",
            id="repeatable in capitals",
        ),
        pytest.param(
            {"x.sql": "SELECT 1;\nSELECT '\0';"},
            "m/x.sql:2:9: holds a NUL byte, at which drivers would cut the text",
            id="NUL",
        ),
        pytest.param(
            {"x.py": "def apply(): return 'SELECT \\0'"},
            "m/x.py (line 1, column 8, in what apply() gave): "
            "holds a NUL byte, at which drivers would cut the text",
            id="NUL from Python",
        ),
        pytest.param(
            {"x.py": "x = 1\n\0\n"},
            "m/x.py:2:1: holds a NUL byte, at which drivers would cut the text",
            id="NUL in Python",
        ),
        pytest.param(
            {"x.sql": "-- ä\n".encode() + b"-- \xe4\n"},
            "m/x.sql:2: is not UTF-8 (byte 0xE4)\nhint: save it as UTF-8",
            id="Latin 1",
        ),
        pytest.param(
            {"x.sql": "SELECT 1".encode("utf-16")},
            "m/x.sql:1: is not UTF-8 (byte 0xFF)\nhint: save it as UTF-8",
            id="UTF-16",
        ),
        pytest.param(
            {"x.py": "# coding: latin-1\ndef apply(): return 'ä'".encode("latin-1")},
            "m/x.py:2: is not UTF-8 (byte 0xE4)\nhint: save it as UTF-8",
            id="Latin 1 in Python, also where it says so",
        ),
        pytest.param(
            {"x.sql": "SELECT 1;\n-- flux: no-transaction\n"},
            "m/x.sql:2:1: a directive stands below the first statement, where it has no effect\n"
            "    2 | -- flux: no-transaction\n"
            "      | ^\n"
            "hint: move it to the comments at the top of the file",
            id="directive too late",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths with slashes")
def test_a_defect(fill: Fill, files: Files, message: str) -> None:
    fill({"1_a.sql": SQL, **files})
    assert str(_error()) == message


@pytest.mark.skipif(sys.platform == "win32", reason="what Windows refuses to make")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: os.mkdir("m/x.sql"),
            "m/x.sql: cannot be read: Is a directory",
            id="a directory named like a migration",
        ),
        pytest.param(
            lambda: os.mkdir("m/x.py"),
            "m/x.py: cannot be read: Is a directory",
            id="a package named like a migration",
        ),
        pytest.param(
            lambda: os.symlink("nowhere", "m/x.sql"),
            "m/x.sql: cannot be read: No such file or directory",
            id="a broken link",
        ),
        pytest.param(
            lambda: Path("m/a\nb.sql").touch(),
            "m/a\\nb.sql: the name holds a control character, or is not UTF-8\nhint: rename it",
            id="a line ending in the name",
        ),
        pytest.param(
            lambda: Path(os.fsdecode(b"m/\xe4.py")).touch(),
            "m/\\udce4.py: the name holds a control character, or is not UTF-8\nhint: rename it",
            id="a name that is not UTF-8",
        ),
    ],
)
def test_a_defect_of_the_file_system(fill: Fill, make: Callable[[], None], message: str) -> None:
    make()
    assert str(_error()) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: None,
            "m: there is no such migration directory\n"
            "hint: `flux new NAME` makes it with its first migration; migration_directory in the "
            "configuration says where it is",
            id="none",
        ),
        pytest.param(
            lambda: Path("m").touch(),
            "m: the migration directory cannot be read: Not a directory",
            id="a file",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="other words on Windows")
def test_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    assert str(_error()) == message
    with pytest.raises(MigrationLoadingError) as caught:
        directory.list_ids("m")
    assert str(caught.value) == message


def test_a_directory_of_alembic(fill: Fill) -> None:
    """Flask-Migrate has it under the name that flux looks for."""
    fill({"env.py": "", "script.py.mako": "", "alembic.ini": "", "versions/1_a.py": ""})
    assert str(_error()) == (
        "m: this is a directory of Alembic's (it has env.py and script.py.mako)\n"
        "hint: give flux a directory of its own: migration_directory in the configuration"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="paths with slashes")
def test_all_defects_are_reported_at_once(fill: Fill) -> None:
    fill(
        {
            "1_a.sql": SQL,
            "2_b.sql": SQL,
            "2_b.py": "def apply(): return ''",
            "3_c.undo.sql": SQL,
            "3_d.undo.sql": SQL,
            "4_d.SQL": SQL,
            "5_e.sql": b"\xff",
            "6_f.py": "import nowhere_to_be_found",
            "7_g.py": "",
            "8_h.sql": "\0",
            "pre-apply/x.undo.sql": SQL,
            "pre-apply/x.py": "def apply(): return None",
            "post-apply/y.sql": b"\xff",
        }
    )
    error = _error()
    assert type(error) is MigrationLoadingError
    assert str(error).replace("\n  hint", "\nhint") == (
        "11 problems in the migration directory\n"
        "- m/4_d.SQL: the ending is not in small letters\n"
        "hint: rename it to 4_d.sql\n"
        "- m: 2_b.sql and 2_b.py have one id\n"
        "hint: remove one of the two\n"
        "- m/3_c.undo.sql: an undo without its migration\n"
        "hint: put 3_c.sql back; if nothing of it was ever applied, remove the undo\n"
        "- m/3_d.undo.sql: an undo without its migration\n"
        "hint: put 3_d.sql back; if nothing of it was ever applied, remove the undo\n"
        "- m/5_e.sql:1: is not UTF-8 (byte 0xFF)\n"
        "hint: save it as UTF-8\n"
        "- m/8_h.sql:1:1: holds a NUL byte, at which drivers would cut the text\n"
        "- m/6_f.py:1: fails when it is read: "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"
        "      1 | import nowhere_to_be_found\n"
        "- m/7_g.py: has no apply()\n"
        "hint: define apply() that returns SQL text, or apply(connection) that does the work "
        "itself\n"
        "- m/pre-apply/x.undo.sql: a repeatable has no undo\n"
        "hint: remove it\n"
        "- m/pre-apply/x.py: apply() gives None instead of SQL text\n"
        "hint: apply() returns SQL text, or several texts; is a `return` missing?\n"
        "- m/post-apply/y.sql:1: is not UTF-8 (byte 0xFF)\n"
        "hint: save it as UTF-8"
    )
    assert [(problem.kind, problem.ids) for problem in error.problems] == [
        ("file-name", ("4_d",)),
        ("duplicate", ("2_b",)),
        ("orphan-undo", ("3_c",)),
        ("orphan-undo", ("3_d",)),
        ("unreadable", ("5_e",)),
        ("unreadable", ("8_h",)),
        ("invalid-module", ("6_f",)),
        ("invalid-module", ("7_g",)),
        ("repeatable-undo", ("pre-apply/x",)),
        ("invalid-module", ("pre-apply/x",)),
        ("unreadable", ("post-apply/y",)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "1_x.down.sql",
            SQL,
            "m/1_x.down.sql: named as other tools name their up and down files: both would be "
            "applied\nhint: rename ID.up.sql to ID.sql, and ID.down.sql to ID.undo.sql",
            id="a pair of up and down",
        ),
        *(
            pytest.param(
                "1_x.sql",
                f"SELECT 1;\n{marker}\nDROP TABLE t;",
                "m/1_x.sql:2:1: is written for another tool: what is below this line would be "
                f"applied, too\n    2 | {marker}\n      | ^\n"
                "hint: move it into ID.undo.sql, and remove the other tool's comments",
                id=tool,
            )
            for tool, marker in [
                ("goose", "-- +goose Down"),
                ("dbmate", "-- migrate:down"),
                ("sql-migrate", "-- +migrate Down"),
            ]
        ),
        pytest.param(
            "pre_apply/a.sql",
            SQL,
            "m/pre_apply: looks like pre-apply/, and is not: nothing in it would run\n"
            "hint: rename it to pre-apply",
            id="an underscore for the hyphen",
        ),
        pytest.param(
            "Post-Apply/a.sql",
            SQL,
            "m/Post-Apply: looks like post-apply/, and is not: nothing in it would run\n"
            "hint: rename it to post-apply",
            id="capitals",
        ),
    ],
)
def test_what_another_tool_means_is_not_guessed(
    fill: Fill, name: str, content: str, message: str
) -> None:
    """A down part that runs as if it were up would destroy what the up part made."""
    fill({name: content})
    assert str(_error()) == message


def test_ids_of_repeatables_follow_the_rules(fill: Fill) -> None:
    fill({"pre-apply/10_a.sql": SQL, "pre-apply/9_b.sql": SQL})
    assert str(_error()).startswith("m/pre-apply: 10_a sorts before 9_b as text")


def test_defects_of_modules_alone_have_their_own_error(fill: Fill) -> None:
    fill({"1_a.py": "", "2_b.py": ""})
    assert type(_error()) is InvalidMigrationModuleError


_AMBIGUOUS = (
    "{} differ only by case or Unicode form, which some file systems do not tell apart\n"
    "hint: rename all but one"
)
_MISORDERED = (
    "{} sorts before {} as text, but not by its number\n"
    'hint: pad the numbers with zeros, or set order = "natural" in the configuration'
)


@pytest.mark.parametrize(
    ("names", "order", "problems"),
    [
        pytest.param(["1_a", "2_b"], "text", [], id="none"),
        pytest.param(
            ["1_a", "2_b", "10_c", "11_d"],
            "text",
            [_MISORDERED.format("11_d", "1_a")],
            id="misordered",
        ),
        pytest.param(["1_a", "2_b", "10_c"], "natural", [], id="misordered, but natural"),
        pytest.param(
            ["1_Add", "1_add", "1_ADD", "2_b"],
            "text",
            [_AMBIGUOUS.format("1_ADD and 1_Add and 1_add")],
            id="case",
        ),
        pytest.param(
            ["1_caf\u00e9", "1_cafe\u0301"],
            "natural",
            [_AMBIGUOUS.format("1_cafe\u0301 and 1_caf\u00e9")],
            id="Unicode form",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="file systems that tell such names apart")
def test_problems_of_ids(fill: Fill, names: list[str], order: Order, problems: list[str]) -> None:
    """They are the plan's to judge, since what 0.0.3 recorded stays valid."""
    fill({f"{name}.sql": SQL for name in names})
    found = directory.read("m", order=order)
    assert [str(problem) for problem in found.id_problems] == problems
    assert len(found.migrations) == len(names)


# Python -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("def apply(): return 'SELECT 1'", "SELECT 1", id="text"),
        pytest.param("def apply(): return ''", "", id="empty text"),
        pytest.param("def apply(): return ['a', 'b']", "a\n;\nb", id="list"),
        pytest.param("def apply(): return ('a',)", "a", id="tuple"),
        pytest.param("def apply(): return []", "", id="empty list"),
        pytest.param("def apply():\n  yield 'a -- x'\n  yield 'b'", "a -- x\n;\nb", id="generator"),
        pytest.param("apply = lambda: 'a'", "a", id="lambda"),
        pytest.param("def apply(**options): return 'a'", "a", id="options"),
        pytest.param("def apply(*, schema='s'): return schema", "s", id="keyword with default"),
        pytest.param("class S(str): pass\ndef apply(): return S('a')", "a", id="a kind of str"),
        pytest.param(
            "from functools import partial\ndef f(x): return x\napply = partial(f, 'a')",
            "a",
            id="partial",
        ),
        pytest.param("class A:\n  def text(self): return 'a'\napply = A().text", "a", id="method"),
        pytest.param(
            "class A:\n  def __call__(self): return 'a'\napply = A()", "a", id="callable object"
        ),
        pytest.param(
            "from functools import wraps\n"
            "def loud(f):\n"
            "  @wraps(f)\n"
            "  def g(*args, **kwargs): return f(*args, **kwargs).upper()\n"
            "  return g\n"
            "@loud\n"
            "def apply(): return 'a'",
            "A",
            id="decorated",
        ),
        pytest.param("\ufeffdef apply():\r\n  return '''a\r\nb'''", "a\nb", id="BOM and CRLF"),
        pytest.param("# coding: latin-1\ndef apply(): return 'é'", "é", id="a coding's name"),
        pytest.param(
            "from __future__ import annotations\nx: y\ndef apply(): return 'a'", "a", id="future"
        ),
        pytest.param(
            "from dataclasses import dataclass\n@dataclass\nclass A:\n  x: 'int' = 1\n"
            "def apply(): return f'{A().x} {__name__[:15]}'",
            "1 flux_migration_",
            id="dataclass",
        ),
        pytest.param(
            "import os\ndef apply(): return os.path.basename(__file__)", "x.py", id="__file__"
        ),
    ],
)
def test_apply_gives_text(fill: Fill, source: str, text: str) -> None:
    fill({"x.py": source})
    script = _script()
    assert (script.text, script.raw, script.function) == (text, text, None)
    assert script.within == "apply()"
    assert script.hash == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def apply(c): c.execute('SELECT 1')", id="function"),
        pytest.param("def apply(c=None): c.execute('SELECT 1')", id="with default"),
        pytest.param("def apply(c, /): c.execute('SELECT 1')", id="positional-only"),
        pytest.param("def apply(c, *more): c.execute('SELECT 1')", id="and more"),
        pytest.param("def apply(c, *, size=9): c.execute('SELECT 1')", id="keyword with default"),
        pytest.param(
            "apply = lambda c: c.execute('SELECT 1')", id="lambda, which returns a cursor"
        ),
        pytest.param(
            "class A:\n  def work(self, c): c.execute('SELECT 1')\napply = A().work", id="method"
        ),
        pytest.param(
            "from functools import wraps\n"
            "def loud(f):\n"
            "  @wraps(f)\n"
            "  def g(*args, **kwargs): return f(*args, **kwargs)\n"
            "  return g\n"
            "@loud\n"
            "def apply(c): c.execute('SELECT 1')",
            id="decorated",
        ),
        pytest.param(
            "from functools import partial\n"
            "def work(sql, c): c.execute(sql)\n"
            "apply = partial(work, 'SELECT 1')",
            id="partial",
        ),
    ],
)
def test_apply_takes_the_connection(fill: Fill, source: str) -> None:
    fill({"x.py": source})
    script = _script()
    assert (script.text, script.raw) == (None, None)
    assert len(script.hash) == 64
    connection = sqlite3.connect(":memory:")
    sent: list[str] = []
    connection.set_trace_callback(sent.append)
    assert script.function is not None
    assert script.function(connection) is None
    connection.close()
    assert sent == ["SELECT 1"]


_DEFINE = (
    "hint: define apply() that returns SQL text, or apply(connection) that does the work itself"
)
_PLAIN = (
    "hint: a plain function: without parameters, to return SQL text, or with one, to be given "
    "the connection"
)
_RETURN = "hint: apply() returns SQL text, or several texts"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("", f"has no apply()\n{_DEFINE}", id="nothing"),
        pytest.param("def Apply(): pass", f"has no apply()\n{_DEFINE}", id="another name"),
        pytest.param("apply = 'SELECT 1'", f"has no apply()\n{_DEFINE}", id="a text"),
        pytest.param("apply = None", f"has no apply()\n{_DEFINE}", id="None"),
        pytest.param("class apply: pass", f"has no apply()\n{_DEFINE}", id="a class"),
        pytest.param("apply = dict", f"has no apply()\n{_DEFINE}", id="a built-in class"),
        pytest.param("import builtins as apply", f"has no apply()\n{_DEFINE}", id="a module"),
        pytest.param(
            "def apply(a, b): pass", f"apply() takes 2 parameters\n{_PLAIN}", id="two parameters"
        ),
        pytest.param(
            "def apply(a, b=1): pass",
            f"apply() takes 2 parameters\n{_PLAIN}",
            id="two parameters, one with a default",
        ),
        pytest.param(
            "def apply(*a): pass",
            f"apply() does not say whether it takes the connection\n{_PLAIN}",
            id="any number",
        ),
        pytest.param(
            "def loud(f): return lambda *a, **k: f(*a, **k)\n@loud\ndef apply(c): pass",
            f"apply() does not say whether it takes the connection\n{_PLAIN}",
            id="decorated without wraps",
        ),
        pytest.param(
            "def apply(*, connection): pass",
            f"apply() does not say whether it takes the connection\n{_PLAIN}",
            id="keyword-only",
        ),
        pytest.param(
            "apply = print",
            f"apply() does not say whether it takes the connection\n{_PLAIN}",
            id="a built-in function",
        ),
        pytest.param(
            "apply = max",
            f"apply() does not say whether it takes the connection\n{_PLAIN}",
            id="a built-in function without a signature",
        ),
        pytest.param(
            "async def apply(): return ''",
            f"apply() is async, and flux is not\n{_PLAIN}",
            id="async",
        ),
        pytest.param(
            "async def apply(c): pass",
            f"apply() is async, and flux is not\n{_PLAIN}",
            id="async with connection",
        ),
        pytest.param(
            "async def apply():\n  yield ''",
            f"apply() is async, and flux is not\n{_PLAIN}",
            id="async generator",
        ),
        pytest.param(
            "def apply(c):\n  yield 'SELECT 1'",
            f"apply() takes the connection and yields, and nothing would run it\n{_PLAIN}",
            id="generator with connection",
        ),
        pytest.param(
            "def apply(): pass",
            f"apply() gives None instead of SQL text\n{_RETURN}; is a `return` missing?",
            id="no return",
        ),
        pytest.param(
            "def apply(): return 3",
            f"apply() gives an object of type int instead of SQL text\n{_RETURN}",
            id="int",
        ),
        pytest.param(
            "def apply(): return b'a'",
            f"apply() gives an object of type bytes instead of SQL text\n{_RETURN}",
            id="bytes",
        ),
        pytest.param(
            "def apply(): return {'a': 'b'}",
            f"apply() gives an object of type dict instead of SQL text\n{_RETURN}",
            id="dict",
        ),
        pytest.param(
            "def apply(): return ['a', None]",
            f"apply() gives an iterable that holds a NoneType instead of SQL text\n{_RETURN}",
            id="a list with None",
        ),
        pytest.param(
            "def apply():\n  yield b'a'",
            f"apply() gives an iterable that holds a bytes instead of SQL text\n{_RETURN}",
            id="a generator of bytes",
        ),
        pytest.param(
            "async def f(): return ''\ndef apply(): return f()",
            f"apply() gives an object of type coroutine instead of SQL text\n{_RETURN}",
            id="a coroutine",
        ),
    ],
)
def test_apply_of_another_form(fill: Fill, source: str, message: str) -> None:
    """flux guesses neither what a function wants nor what it meant."""
    fill({"x.py": source})
    error = _error()
    assert str(error) == f"{os.path.join('m', 'x.py')}: {message}"
    assert type(error) is InvalidMigrationModuleError


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "x = (\n  1 +\n)\n",
            ":3:1: SyntaxError: invalid syntax\n    3 | )\n      | ^",
            id="syntax",
        ),
        pytest.param(
            "ééé = = 1\n",
            ":1:7: SyntaxError: invalid syntax\n    1 | ééé = = 1\n      |       ^",
            id="syntax, with a column in characters",
        ),
        pytest.param(
            "def apply():\nreturn ''",
            ":2:1: SyntaxError: expected an indented block after function definition on line 1\n"
            "    2 | return ''\n      | ^",
            id="indentation",
        ),
        pytest.param(
            "import nowhere\n",
            ":1: fails when it is read: ModuleNotFoundError: No module named 'nowhere'\n"
            "    1 | import nowhere",
            id="import",
        ),
        pytest.param(
            "import json\n\ndef f():\n    json.loads('x')\n\nf()\n",
            ":4: fails when it is read: "
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0)\n"
            "    4 |     json.loads('x')",
            id="the innermost line of the file itself",
        ),
        pytest.param(
            "def apply():\n    raise ValueError('no')\n",
            ":2: apply() fails: ValueError: no\n    2 |     raise ValueError('no')",
            id="apply",
        ),
        pytest.param(
            "def apply():\n    raise NotImplementedError\n",
            ":2: apply() fails: NotImplementedError\n    2 |     raise NotImplementedError",
            id="an error without words",
        ),
        pytest.param(
            "def apply():\n    yield ''\n    1 / 0\n",
            ":3: apply() fails: ZeroDivisionError: division by zero\n    3 |     1 / 0",
            id="a generator",
        ),
        pytest.param(
            "def apply():\n    return '\\ud800'\n",
            ": apply() fails: UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' "
            "in position 0: surrogates not allowed",
            id="what is no UTF-8",
        ),
        pytest.param(
            "import sys\nsys.exit(0)\n",
            ":2: fails when it is read: SystemExit: 0\n    2 | sys.exit(0)",
            id="an exit",
        ),
        pytest.param(
            "def apply():\n    raise SystemExit\n",
            ":2: apply() fails: SystemExit\n    2 |     raise SystemExit",
            id="an exit in apply",
        ),
        pytest.param(
            "import sys\ndel sys.modules[__name__]\nx\n",
            ":3: fails when it is read: NameError: name 'x' is not defined\n    3 | x",
            id="a module that takes itself away",
        ),
        pytest.param(
            "import _broken\n",
            ":1: fails when it is read: SyntaxError: invalid syntax (_broken.py, line 2)\n"
            "    1 | import _broken",
            id="syntax of a helper",
        ),
        pytest.param(
            "def apply():\n    return f()\n\ndef f():\n    return f()\n",
            ":5: apply() fails: RecursionError: maximum recursion depth exceeded\n"
            "    5 |     return f()",
            id="endless recursion",
        ),
    ],
)
def test_errors_of_python_point_at_its_own_line(fill: Fill, source: str, message: str) -> None:
    fill({"x.py": source, "_broken.py": "x = 1\n)\n"})
    error = str(_error())
    if "RecursionError" in error:
        error = error.replace(" while calling a Python object", "").replace(" in comparison", "")
    # Python 3.10 finds other words for a bracket without its twin.
    error = error.replace("unmatched ')'", "invalid syntax")
    assert error == os.path.join("m", "x.py") + message


def test_an_exit_with_code_0_is_no_success(fill: Fill) -> None:
    """A migration cannot end flux, and so a deploy job, as if all were done."""
    fill({"x.py": "def apply(c):\n    raise SystemExit(0)\n"})
    function = _script().function
    assert function is not None
    with pytest.raises(RuntimeError, match=r"^it ends Python: SystemExit: 0$") as caught:
        function(None)
    assert caught.traceback[-1].lineno == 1  # 0-based: the migration's second line


@pytest.mark.parametrize(
    ("source", "what"),
    [
        pytest.param("def apply(c): return 'SELECT 1'", "str", id="text"),
        pytest.param("async def f(): pass\ndef apply(c): return f()", "coroutine", id="coroutine"),
        pytest.param("def apply(c): return (x for x in 'ab')", "generator", id="generator"),
    ],
)
def test_what_nobody_runs_does_not_pass_for_done(fill: Fill, source: str, what: str) -> None:
    fill({"x.py": source})
    function = _script().function
    assert function is not None
    with pytest.raises(TypeError) as caught:
        function(None)
    assert str(caught.value) == f"apply(connection) returns a {what}, which nothing would run"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("undo = None", "has no undo()", id="None"),
        pytest.param("def undo(): pass", "undo() gives None instead of SQL text", id="no return"),
        pytest.param("async def undo(): pass", "undo() is async, and flux is not", id="async"),
        pytest.param(
            "def undo(): 1 / 0", "undo() fails: ZeroDivisionError: division by zero", id="raises"
        ),
    ],
)
def test_an_undo_of_another_form(fill: Fill, source: str, message: str) -> None:
    fill({"x.py": f"def apply(): return ''\n{source}\n"})
    (migration,) = directory.read("m").migrations
    with pytest.raises(InvalidMigrationModuleError) as caught:
        migration.undo_script()
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("source", "directives"),
    [
        pytest.param("def apply(): return ''", Directives(), id="none"),
        pytest.param(
            "# flux: no-transaction\ndef apply(): return ''",
            Directives(no_transaction=True),
            id="of the file",
        ),
        pytest.param(
            "# flux: no-transaction\ndef apply(): return '-- flux: foreign-keys'",
            Directives(no_transaction=True, foreign_keys=True),
            id="of file and text",
        ),
        pytest.param(
            "# flux: no-transaction\r\ndef apply(c): pass",
            Directives(no_transaction=True),
            id="with connection",
        ),
    ],
)
def test_directives(fill: Fill, source: str, directives: Directives) -> None:
    fill({"x.py": source})
    assert _script().directives == directives


def test_the_undo_of_python_may_take_another_form_than_its_apply(fill: Fill) -> None:
    fill({"x.py": "def apply(c): pass\ndef undo(): return 'DROP TABLE t'"})
    (migration,) = directory.read("m").migrations
    assert migration.script.text is None
    assert migration.undo_script().text == "DROP TABLE t"


# Imports ------------------------------------------------------------------------------------


def _tree(path: str) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names}


def test_helpers_of_the_project_and_beside_the_migrations(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a file is read, when its undo is, and when its function runs; nothing is written."""
    os.mkdir("project")
    Path("project/flux_test_app.py").write_text("TABLE = 'book'\n")
    fill(
        {
            "_helpers.py": "def create(table): return f'CREATE TABLE {table} (id int)'\n",
            "1_a.py": "from _helpers import create\nfrom flux_test_app import TABLE\n"
            "def apply(): return create(TABLE)\n"
            "def undo():\n"
            "  import _helpers, flux_test_app\n"
            "  return 'DROP TABLE ' + flux_test_app.TABLE\n",
            "2_b.py": "def apply(connection):\n"
            "  import _helpers, flux_test_app\n"
            "  connection.append(_helpers.create(flux_test_app.TABLE))\n",
            "post-apply/c.py": "import _helpers\ndef apply(): return _helpers.create('c')\n",
        }
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delitem(sys.modules, "flux_test_app", raising=False)
    before, path = _tree("."), list(sys.path)
    found = directory.read("m", project_directory="project")
    one, two = found.migrations
    assert one.script.text == "CREATE TABLE book (id int)"
    assert one.undo_script().text == "DROP TABLE book"
    ran: list[str] = []
    assert two.script.function is not None
    two.script.function(ran)
    assert ran == ["CREATE TABLE book (id int)"]
    assert found.post_apply[0].script.text == "CREATE TABLE c (id int)"
    assert (_tree("."), sys.path, sys.dont_write_bytecode) == (before, path, False)
    assert not [name for name in sys.modules if name.startswith(("flux_migration_", "_helpers"))]
    monkeypatch.delitem(sys.modules, "flux_test_app")


def test_two_directories_have_helpers_of_their_own(tmp_path: Path) -> None:
    """Two databases in one program: the helpers of the one must not make the SQL of the other."""
    texts = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "_helpers.py").write_text(f"TABLE = {name!r}\n")
        (folder / "x.py").write_text("from _helpers import TABLE\ndef apply(): return TABLE\n")
        texts += [m.script.text for m in directory.read(str(folder)).migrations]
    assert texts == ["one", "two"]


def test_a_file_that_changed_is_read_anew(fill: Fill) -> None:
    """The line in an error is the one that is there now, also in a program that runs for long."""
    fill({"x.py": "a = 1 / 0\n"})
    assert "1 | a = 1 / 0" in str(_error())
    fill({"x.py": "b_b = 2 / 0\n"})
    assert "1 | b_b = 2 / 0" in str(_error())
    fill({"x.py": "def apply(): return 'x'"})
    assert _script().text == "x"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in directories")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """Whoever writes it may do so in pieces; it cannot be opened twice."""
    path = tmp_path / "x.sql"
    os.mkfifo(path)

    def write() -> None:
        with path.open("w", encoding="utf-8", buffering=1) as pipe:
            for number in range(2000):
                pipe.write(f"INSERT INTO t VALUES ({number}, 'a text that takes some room');\n")

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        script = directory.read_sql(str(path))
        writing.result()
    assert (script.text or "").count("INSERT") == 2000
    assert (script.text or "").startswith("INSERT INTO t VALUES (0,")
