"""Fingerprints of SQLite: every change is seen as what it is, and nothing else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flux.backends import sqlite_catalog
from flux.backends.sqlite import SQLiteBackend
from flux.exceptions import DatabaseUnavailableError
from flux.fingerprint import Fingerprint, Item
from tests.catalogs import differences, sqlite_fingerprint


class Database(NamedTuple):
    """A SQLite file, and an application's connection to it."""

    path: Path
    connection: sqlite3.Connection

    def run(self, sql: str) -> None:
        """Run statements, and commit them."""
        self.connection.executescript(sql)

    def read(self) -> Fingerprint:
        """What the file holds now."""
        return sqlite_fingerprint(self.path)

    def items(self) -> list[Item]:
        """The items that the file has now, but tables."""
        return [item for item in self.read().items if item.of]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        yield Database(path, connection)


_T = "CREATE TABLE t (a INTEGER, b TEXT);\n"
_INDEX = _T + "CREATE INDEX i ON t (a);\n"
_VIEW = _T + "CREATE VIEW v AS SELECT a FROM t;\n"
_TRIGGER = _T + "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END;\n"


def _rebuilt(table: str) -> str:
    """Make the table `t` anew as the SQLite documentation has it."""
    return (
        f"CREATE TABLE new {table}; INSERT INTO new SELECT * FROM t; DROP TABLE t;"
        "ALTER TABLE new RENAME TO t"
    )


CHANGES: dict[str, tuple[str, str, list[str]]] = {
    "table": ("", _T, ["extra table t"]),
    "table renamed": (_T, "ALTER TABLE t RENAME TO u", ["missing table t", "extra table u"]),
    "without rowid": (
        "CREATE TABLE t (a PRIMARY KEY)",
        _rebuilt("(a PRIMARY KEY) WITHOUT ROWID"),
        ["changed table t"],
    ),
    "column": (_T, "ALTER TABLE t ADD c", ["extra column c"]),
    "column renamed": (
        _T,
        "ALTER TABLE t RENAME a TO c",
        ["missing column a", "extra column c"],
    ),
    "column in another case": (
        _T,
        "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME x TO A",
        ["extra column A", "missing column a"],
    ),
    "type": (_T, _rebuilt("(a BLOB, b TEXT)"), ["changed column a"]),
    "not null": (_T, _rebuilt("(a INTEGER NOT NULL, b TEXT)"), ["changed column a"]),
    "default": (_T, _rebuilt("(a INTEGER, b TEXT DEFAULT 'x')"), ["changed column b"]),
    "default in another case": (
        "CREATE TABLE t (a DEFAULT 'x')",
        _rebuilt("(a DEFAULT 'X')"),
        ["changed column a"],
    ),
    "collation": (_T, _rebuilt("(a INTEGER, b TEXT COLLATE NOCASE)"), ["changed column b"]),
    "primary key": (_T, _rebuilt("(a INTEGER PRIMARY KEY, b TEXT)"), ["changed column a"]),
    "autoincrement": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        _rebuilt("(a INTEGER PRIMARY KEY AUTOINCREMENT)"),
        ["changed column a"],
    ),
    "generated": (
        "CREATE TABLE t (a, b AS (a + 1))",
        "DROP TABLE t; CREATE TABLE t (a, b AS (a + 1) STORED)",
        ["changed column b"],
    ),
    "foreign key's action": (
        "CREATE TABLE t (a REFERENCES p (x) ON DELETE CASCADE)",
        _rebuilt("(a REFERENCES p (x))"),
        ["changed column a"],
    ),
    "unnamed check": (
        "CREATE TABLE t (a, CHECK (a > 1))",
        _rebuilt("(a, CHECK (a > 2))"),
        ["missing check (a > 1)", "extra check (a > 2)"],
    ),
    "named check": (
        "CREATE TABLE t (a, CONSTRAINT c CHECK (a > 1))",
        _rebuilt("(a, CONSTRAINT c CHECK (a > 2))"),
        ["changed constraint c"],
    ),
    "unnamed foreign key": (
        "CREATE TABLE t (a, FOREIGN KEY (a) REFERENCES p)",
        _rebuilt("(a, FOREIGN KEY (a) REFERENCES p DEFERRABLE INITIALLY DEFERRED)"),
        ["changed foreign key (a)"],
    ),
    "conflict clause": (
        "CREATE TABLE t (a, UNIQUE (a))",
        _rebuilt("(a, UNIQUE (a) ON CONFLICT IGNORE)"),
        ["changed unique (a)"],
    ),
    "one of two unnamed foreign keys": (
        "CREATE TABLE t (a, FOREIGN KEY (a) REFERENCES p, FOREIGN KEY (a) REFERENCES q)",
        _rebuilt("(a, FOREIGN KEY (a) REFERENCES q)"),
        ["missing foreign key (a)"],
    ),
    "one of two constraints of a name": (
        "CREATE TABLE t (a, CONSTRAINT c CHECK (a > 1), CONSTRAINT c CHECK (a < 9))",
        _rebuilt("(a, CONSTRAINT c CHECK (a > 2), CONSTRAINT c CHECK (a < 9))"),
        ["changed constraint c"],
    ),
    "the default true, and that word": (
        'CREATE TABLE t (a DEFAULT "true")',
        _rebuilt("(a DEFAULT true)"),
        ["changed column a"],
    ),
    "the number of a row, and that word": (
        "CREATE TABLE t (a, CHECK (a <> rowid))",
        _rebuilt('(a, CHECK (a <> "rowid"))'),
        ['extra check (a <> "rowid")', "missing check (a <> rowid)"],
    ),
    "bytes and their number": (
        "CREATE TABLE t (a DEFAULT x'ab')",
        _rebuilt("(a DEFAULT x'abcd')"),
        ["changed column a"],
    ),
    "foreign key's deferral": (
        "CREATE TABLE t (a NOT NULL REFERENCES p DEFERRABLE)",
        _rebuilt("(a NOT NULL REFERENCES p NOT DEFERRABLE)"),
        ["changed column a"],
    ),
    "index": (_T, "CREATE INDEX i ON t (a)", ["extra index i"]),
    "unique index": (
        _INDEX,
        "DROP INDEX i; CREATE UNIQUE INDEX i ON t (a)",
        ["changed index i"],
    ),
    "partial index": (
        _INDEX,
        "DROP INDEX i; CREATE INDEX i ON t (a) WHERE a > 1",
        ["changed index i"],
    ),
    "index on an expression": (
        _INDEX,
        "DROP INDEX i; CREATE INDEX i ON t (a, lower(b))",
        ["changed index i"],
    ),
    "view": (_VIEW, "DROP VIEW v; CREATE VIEW v AS SELECT b FROM t", ["changed view v"]),
    "trigger": (_TRIGGER, "DROP TRIGGER g", ["missing trigger g"]),
    "trigger's event": (
        _TRIGGER,
        "DROP TRIGGER g; CREATE TRIGGER g BEFORE INSERT ON t BEGIN DELETE FROM t; END",
        ["changed trigger g"],
    ),
    "trigger's body": (
        _TRIGGER,
        "DROP TRIGGER g; CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t WHERE a; END",
        ["changed trigger g"],
    ),
    "trigger of a view": (
        _VIEW,
        "CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN DELETE FROM t; END",
        ["extra trigger g"],
    ),
    "virtual table": (
        "",
        "CREATE VIRTUAL TABLE f USING fts5 (a, b)",
        ["extra virtual table f"],
    ),
    "virtual table's arguments": (
        "CREATE VIRTUAL TABLE f USING fts5 (a, b)",
        "DROP TABLE f; CREATE VIRTUAL TABLE f USING fts5 (a, b, tokenize = 'porter')",
        ["changed virtual table f"],
    ),
    "table named like what a virtual one keeps its content in": (
        "CREATE VIRTUAL TABLE d USING fts5 (a); CREATE VIRTUAL TABLE e USING fts4 (a)",
        "CREATE TABLE d_stat (a); CREATE TABLE d_parent (a); CREATE TABLE e_data (a)",
        ["extra table d_parent", "extra table d_stat", "extra table e_data"],
    ),
    "trigger of what a virtual table keeps its content in": (
        "CREATE VIRTUAL TABLE d USING fts5 (a)",
        "CREATE TRIGGER g AFTER INSERT ON d_config BEGIN SELECT 1; END",
        ["extra trigger g"],
    ),
    "user version": ("", "PRAGMA user_version = 3", ["extra pragma user_version"]),
    "application id": (
        "PRAGMA application_id = 2",
        "PRAGMA application_id = 3",
        ["changed pragma application_id"],
    ),
}


@pytest.mark.parametrize(("make", "change", "found"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen_as_what_it_is(
    database: Database, make: str, change: str, found: list[str]
) -> None:
    database.run(make)
    before = database.read()
    database.run(change)
    assert differences(before, database.read()) == found


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 37), reason="SQLite 3.37 brings STRICT")
def test_a_strict_table_is_another_one(database: Database) -> None:
    test_a_change_is_seen_as_what_it_is(
        database, _T, _rebuilt("(a INTEGER, b TEXT) STRICT"), ["changed table t"]
    )


_CHILD = "CREATE TABLE c (a REFERENCES t (a), FOREIGN KEY (a) REFERENCES t (a));\n"
_NAMES = 'CREATE TABLE t ("Key" int, [b c] text, `d` text, CHECK (d > "Key" OR \'a\' = [b c]));\n'

NEUTRAL = {
    "rows": (_INDEX, "INSERT INTO t VALUES (1, 'x')"),
    "analyze": (_INDEX, "INSERT INTO t VALUES (1, 'x'); ANALYZE"),
    "vacuum": (_INDEX, "VACUUM"),
    "rows with a number of their own": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO t VALUES (7)",
    ),
    "dropped and made again": (
        _INDEX + _CHILD,
        "DROP TABLE t; CREATE TABLE t (b TEXT, a INTEGER); CREATE INDEX i ON t (a)",
    ),
    "spelled in another way": (
        "CREATE TABLE t (a INTEGER NOT NULL DEFAULT -1 CHECK (a <= 2), PRIMARY KEY (a));"
        "CREATE UNIQUE INDEX i ON t (a DESC, lower(a)) WHERE a >= 1.5;"
        "CREATE VIEW v AS SELECT a, x'ab' || 'It''s' FROM t;"
        "CREATE TRIGGER g AFTER UPDATE OF a ON t WHEN NEW.a = 1 BEGIN SELECT 1; SELECT 2; END",
        "DROP TABLE t; DROP VIEW v;"
        'create table"t"(\n[a] integer  not null  -- the a\n  default - 1 check(`a`<=2)/**/,'
        "primary key(a));"
        'create unique index [i]on t("a"desc,lower (a))where a>=1.5;'
        "create view if not exists main.v as\n\nselect a , x'ab'||'It''s' from t; "
        "create trigger g after update of a on t when NEW.a=1\nbegin select 1 ;select 2; end",
    ),
    "rebuilt": (_T, _rebuilt("(a INTEGER, b TEXT)")),
    "rebuilt from a query": ("CREATE TABLE t (a INT, b TEXT)", _rebuilt("AS SELECT * FROM t")),
    "column renamed there and back": (
        _VIEW + _INDEX.removeprefix(_T) + _TRIGGER.removeprefix(_T) + _CHILD,
        "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME x TO a",
    ),
    "column renamed by quoted names": (
        _VIEW + _INDEX.removeprefix(_T) + _CHILD,
        'ALTER TABLE t RENAME "a" TO "x y"; ALTER TABLE t RENAME "x y" TO "a"',
    ),
    "quoted column renamed": (
        _NAMES,
        'ALTER TABLE t RENAME [b c] TO x; ALTER TABLE t RENAME x TO "b c";'
        'ALTER TABLE t RENAME "Key" TO y; ALTER TABLE t RENAME y TO "Key"',
    ),
    "table renamed there and back": (
        _VIEW + _INDEX.removeprefix(_T) + _TRIGGER.removeprefix(_T) + _CHILD,
        "ALTER TABLE t RENAME TO x; ALTER TABLE x RENAME TO t",
    ),
    "case of names": (
        "CREATE TABLE t (a TEXT COLLATE NOCASE DEFAULT TRUE REFERENCES P (X), CHECK (LOWER(a)))",
        _rebuilt("(a TEXT COLLATE nocase DEFAULT true REFERENCES p (x), CHECK (lower(a)))"),
    ),
    "order of clauses": (
        "CREATE TABLE t (a INT DEFAULT 1 CONSTRAINT n NOT NULL REFERENCES p ON DELETE SET NULL"
        " NOT DEFERRABLE CHECK (a NOT NULL), b AS (a) STORED UNIQUE)",
        "DROP TABLE t; CREATE TABLE t (a INT CHECK (a NOT NULL) REFERENCES p ON DELETE SET NULL"
        " NOT DEFERRABLE CONSTRAINT n NOT NULL DEFAULT 1, b UNIQUE AS (a) STORED)",
    ),
    "operators of two spellings": (
        "CREATE TABLE t (a, CHECK (a != 1 AND a == -2))",
        _rebuilt("(a, CHECK (a <> 1 AND a = -2))"),
    ),
    "bytes in another case": (
        "CREATE TABLE t (X DEFAULT X'AB')",
        "DROP TABLE t; CREATE TABLE t (X DEFAULT x'ab')",
    ),
    "version set and reset": ("", "PRAGMA user_version = 3; PRAGMA user_version = 0"),
}


@pytest.mark.parametrize(("make", "action"), NEUTRAL.values(), ids=NEUTRAL)
def test_what_changes_nothing_is_no_difference(database: Database, make: str, action: str) -> None:
    """Nor does the order of columns, or how their statement is spelled."""
    database.run(make)
    before = database.read()
    database.run(action)
    assert differences(before, database.read()) == []


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 35), reason="SQLite 3.35 brings DROP COLUMN")
@pytest.mark.parametrize(
    "table",
    [
        pytest.param("(a INTEGER, b TEXT)", id="columns alone"),
        pytest.param("(a INTEGER, b TEXT, PRIMARY KEY (a), CHECK (b <> ','))", id="constraints"),
        pytest.param("(a INTEGER, b TEXT -- the last\n)", id="a comment"),
        pytest.param("(a INTEGER, b TEXT /* , */, UNIQUE (a)) ", id="a comma"),
    ],
)
def test_a_column_added_and_dropped_is_no_difference(database: Database, table: str) -> None:
    database.run(f"CREATE TABLE t {table}")
    before = database.read()
    database.run("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT ',' CHECK (c <> ')')")
    assert differences(before, database.read()) == ["extra column c"]
    database.run("ALTER TABLE t DROP COLUMN c")
    assert database.read() == before


# Taking a table apart ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "name", "definition"),
    [
        pytest.param("a", "a", "", id="bare"),
        pytest.param("a VarChar (20)", "a", "varchar(20)", id="type"),
        pytest.param("a DECIMAL(10 ,2) NOT NULL", "a", "decimal(10, 2) not null", id="modifiers"),
        pytest.param("a Double PRECISION Default .5", "a", "double precision default .5", id="two"),
        pytest.param('"a b" text', '"a b"', "text", id="quoted"),
        pytest.param('"a""b" text', '"a""b"', "text", id="quotes in quotes"),
        pytest.param("[order] text", '"order"', "text", id="keyword"),
        pytest.param("`Name` text", "Name", "text", id="needlessly quoted"),
        pytest.param("'a' text", "a", "text", id="a literal for a name"),
        pytest.param("key text", '"key"', "text", id="a keyword that may be a name"),
        pytest.param("é text", "é", "text", id="not ASCII"),
        pytest.param('a DEFAULT "Abc"', "a", 'default "Abc"', id="a name for a literal"),
        pytest.param("a DEFAULT (1 - 2)", "a", "default (1 - 2)", id="a difference"),
        pytest.param("a DEFAULT -1", "a", "default -1", id="a sign"),
        pytest.param("a CHECK (a<>-1)", "a", "check (a <> -1)", id="a sign after an operator"),
        pytest.param("a DEFAULT X'00'", "a", "default x'00'", id="bytes"),
        pytest.param("a CHECK(a IN(1,2))", "a", "check (a in (1, 2))", id="keywords as functions"),
        pytest.param("a AS(length(b)||','||1e-5)", "a", "as (length(b) || ',' || 1e - 5)", id="as"),
        pytest.param("a CONSTRAINT n CONSTRAINT m", "a", "constraint n constraint m", id="empty"),
        pytest.param("a CONSTRAINT \"n\" NOT NULL", "a", "constraint n not null", id="named"),
        pytest.param("a REFERENCES \"p\"(b)ON DELETE SET NULL", "a",
                     "references p(b) on delete set null", id="references"),
    ],
)  # fmt: skip
def test_a_column(database: Database, column: str, name: str, definition: str) -> None:
    database.run(f"CREATE TABLE t (b, {column})")
    assert Item("column", name, "table t", definition) in database.items()
    assert len(database.items()) == 2


def test_constraints_need_no_comma_between_them(database: Database) -> None:
    database.run(
        "CREATE TABLE t (a, b, PRIMARY KEY (a) CONSTRAINT c CHECK (a > 1) UNIQUE (b) "
        'CHECK (b) FOREIGN KEY (a) REFERENCES p (x) NOT DEFERRABLE CONSTRAINT "d e" UNIQUE (a, b))'
    )
    assert [item[:2] + item[3:] for item in database.items()] == [
        ("check", "(b)", ""),
        ("column", "a", ""),
        ("column", "b", ""),
        ("constraint", '"d e"', "unique (a, b)"),
        ("constraint", "c", "check (a > 1)"),
        ("foreign key", "(a)", "references p(x) not deferrable"),
        ("primary key", "(a)", ""),
        ("unique", "(b)", ""),
    ]


def test_the_text_of_a_fingerprint(database: Database) -> None:
    database.run(
        'CREATE TABLE "Users" (id INTEGER PRIMARY KEY, "Full name" TEXT NOT NULL DEFAULT \'x\','
        " since TEXT, UNIQUE (since)) WITHOUT ROWID;"
        'CREATE UNIQUE INDEX i ON "Users" (lower("Full name") DESC) WHERE id > 0;'
        'CREATE VIEW happy AS SELECT 1 AS "One", since FROM "Users";'
        'CREATE TRIGGER g AFTER INSERT ON "Users" WHEN NEW.id = 1'
        " BEGIN SELECT 1; UPDATE Users SET since = CASE WHEN 1 THEN 'a;' END; END;"
        "PRAGMA user_version = 3"
    )
    assert "\n".join(database.read().lines()) == (
        """\
pragma user_version
    3

table Users
    without rowid
    column "Full name" text not null default 'x'
    column id integer primary key
    column since text
    index i unique (lower("Full name") desc) where id > 0
    trigger g after insert on Users when NEW.id = 1 begin
            select 1;
            update Users set since = case when 1 then 'a;' end;
        end
    unique (since)

view happy
    as select 1 as One, since from Users"""
    )


# What is left out --------------------------------------------------------------------------------


def test_flux_own_tables_are_no_part_of_it(database: Database) -> None:
    """With all that belongs to them."""
    before = database.read()
    backend = SQLiteBackend(str(database.path), table="History of Ours")
    with backend.opened():
        backend.prepare(history=True, memory=True, unfinished=False)
        backend.run_sql('CREATE INDEX i ON "History of Ours" (hash)')
        backend.run_sql(
            'CREATE TRIGGER g AFTER INSERT ON "HISTORY OF OURS_STATE" BEGIN SELECT 1; END'
        )
        assert backend.fingerprint() == before
    assert differences(before, database.read()) == [
        'extra table "History of Ours"',
        'extra table "History of Ours_state"',
    ]


@pytest.mark.parametrize(
    "module", ["fts3 (a)", "fts4 (a)", "fts5 (a)", "rtree (a, b, c)"], ids=lambda text: text[:4]
)
def test_what_a_virtual_table_keeps_its_content_in_is_no_part_of_it(
    database: Database, module: str
) -> None:
    database.run(f"CREATE VIRTUAL TABLE v USING {module}; CREATE TABLE v_other (a)")
    found = database.read()
    assert [item.label for item in found.items if not item.of] == [
        "table v_other",
        "virtual table v",
    ]


@pytest.mark.parametrize("module", ["fts3 (a)", "fts4 (a)", "fts5 (a)", "rtree (a, b, c)"])
def test_an_old_sqlite_does_not_tell_what_keeps_the_content_of_others(
    database: Database, module: str
) -> None:
    """Then it is known by its name, which is the module's."""
    database.run(f"CREATE VIRTUAL TABLE v USING {module}; CREATE TABLE v_other (a)")

    def fetch(sql: str) -> list[Any]:
        return [] if "table_list" in sql else database.connection.execute(sql).fetchall()

    assert sqlite_catalog.plain_tables(fetch, []) == ["v", "v_other"]


def test_what_is_temporary_or_attached_is_no_part_of_it(tmp_path: Path) -> None:
    backend = SQLiteBackend(":memory:")
    with backend.opened():
        backend.run_sql("CREATE TEMP TABLE t (a)")
        backend.run_sql(f"ATTACH '{tmp_path / 'other.db'}' AS other")
        backend.run_sql("CREATE TABLE other.t (a)")
        backend.run_sql("PRAGMA other.user_version = 3")
        assert backend.fingerprint() == Fingerprint()


def test_a_file_that_is_not_there_is_empty_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    assert sqlite_fingerprint(path) == Fingerprint()
    assert not path.exists()


def test_reading_changes_nothing(database: Database) -> None:
    database.run(_VIEW + "CREATE VIEW broken AS SELECT a FROM nowhere")
    before = database.path.read_bytes()
    assert "view broken" in database.read().lines()
    assert database.path.read_bytes() == before


def test_another_kind_of_file_is_an_error_of_flux(database: Database) -> None:
    database.path.write_bytes(b"no database" * 100)
    with pytest.raises(DatabaseUnavailableError) as raised:
        database.read()
    assert str(raised.value).startswith("cannot read the schema: file is not a database")
