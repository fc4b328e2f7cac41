"""SQLite: whatever is killed, busy, rebuilt or badly written, nothing is lost and nothing lies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from flux import Migration
from tests.flux_process import FluxProcess, flux_environment
from tests.project import Project

# One transaction for a migration and its history row ----------------------------------------

DIES = """
import os, signal

def apply(connection):
    connection.execute("CREATE TABLE half (body BLOB)")
    for _ in range({rows}):
        connection.execute("INSERT INTO half VALUES (randomblob(1000))")
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(1, id="in memory"),
        pytest.param(5000, id="spilled to the file"),
    ],
)
def test_a_kill_in_mid_migration_leaves_nothing_of_it(project: Project, rows: int) -> None:
    """The database is as it was before, the lock is free, and the next apply goes on."""
    project.add({"001.sql": "CREATE TABLE whole (id)", "002.py": DIES.format(rows=rows)})
    killed = project.run("apply", env={"DIE": "1"})
    assert killed.code == -signal.SIGKILL
    is_spilled = project.database.stat().st_size > 1_000_000
    assert is_spilled == (rows > 1), "a journal has to bring back what was there"

    assert "pending    002" in project.succeed("status")
    assert (project.tables(), project.applied()) == (["whole"], ["001"])
    assert project.succeed("apply").endswith("1 migration applied\n")
    assert (project.tables(), project.applied()) == (["half", "whole"], ["001", "002"])
    assert project.query("SELECT count(*) FROM half") == [(rows,)]


@pytest.mark.parametrize("lines", [1, 7, 23])
def test_a_kill_between_any_two_migrations_is_gone_on_from(project: Project, lines: int) -> None:
    """At any moment, exactly the migrations in the history have taken effect."""
    ids = [f"{number:03}" for number in range(40)]
    project.add(
        {f"{id}.sql": f"CREATE TABLE t{id} (id); INSERT INTO t{id} VALUES (1)" for id in ids}
    )
    with project.started("apply") as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
    done = project.applied()
    assert len(done) >= lines
    assert project.tables() == [f"t{id}" for id in done]
    project.succeed("apply")
    assert project.applied() == ids
    assert [project.query(f"SELECT count(*) FROM t{id}") for id in ids] == [[(1,)]] * 40


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        pytest.param(
            "CREATE TABLE a (id);\n\nINSERT INTO b\nVALUES (1);\n",
            "error: migrations/002.sql:3: applying 002 failed: no such table: b\n"
            "    3 | INSERT INTO b\n"
            "done before it: 001\n"
            "state: rolled back; the database is as it was before 002\n",
            id="a statement",
        ),
        pytest.param(
            "CREATE TABLE a (id); DROP TABLE _flux_migrations;",
            "error: migrations/002.sql: applying 002 failed: no such table: _flux_migrations\n"
            "done before it: 001\n"
            "state: rolled back; the database is as it was before 002\n",
            id="its history row",
        ),
    ],
)
def test_a_migration_whose_end_fails_leaves_nothing_of_it(
    project: Project, sql: str, error: str
) -> None:
    project.add({"001.sql": "CREATE TABLE whole (id)", "002.sql": sql, "003.sql": "SELECT 1"})
    assert project.fail("apply") == error
    assert (project.tables(), project.applied()) == (["whole"], ["001"])


def test_an_undo_that_fails_leaves_the_migration_applied(project: Project) -> None:
    project.add(
        {"001.sql": "CREATE TABLE a (id)", "001.undo.sql": "DROP TABLE a;\nDROP TABLE nowhere;"}
    )
    project.succeed("apply")
    assert project.fail("rollback", "-y") == (
        "error: migrations/001.undo.sql:2: undoing 001 failed: no such table: nowhere\n"
        "    2 | DROP TABLE nowhere;\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == (["a"], ["001"])


ENDS = "def apply(connection):\n    connection.execute('CREATE TABLE a (id)')\n"


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        pytest.param("    connection.commit()", ["a"], id="commit"),
        pytest.param("    connection.rollback()", [], id="rollback"),
        pytest.param("    with connection: pass", ["a"], id="with connection"),
        pytest.param("    connection.executescript('SELECT 1')", ["a"], id="executescript"),
        pytest.param("    connection.isolation_level = None", ["a"], id="isolation_level"),
        pytest.param("    connection.execute('END')", ["a"], id="END"),
        pytest.param("    connection.execute('RELEASE flux_migration')", [], id="the savepoint"),
        pytest.param(
            "    connection.commit()\n    connection.execute('BEGIN')", ["a"], id="commit and begin"
        ),
    ],
)
def test_a_python_migration_that_ends_the_transaction_is_noticed(
    project: Project, ending: str, left: list[str]
) -> None:
    """No history row is written for work that could no longer be taken back with it."""
    project.add({"001.py": ENDS + ending + "\n", "002.sql": "CREATE TABLE later (id)"})
    assert project.fail("apply") == (
        "error: migrations/001.py: applying 001 failed: it ended the transaction that flux runs "
        "it in\n"
        "hint: leave commit and rollback to flux, or run it without a transaction: no-transaction\n"
        "state: what it committed is in the database, and the history does not say so\n"
    )
    assert (project.tables(), project.applied()) == (left, [])


def test_a_python_migration_that_commits_and_then_fails_tells_of_both(project: Project) -> None:
    project.add({"001.py": ENDS + "    connection.commit()\n    raise ValueError('no')\n"})
    line = ENDS.count("\n") + 2
    assert project.fail("apply") == (
        f"error: migrations/001.py:{line}: applying 001 failed: it ended the transaction that "
        "flux runs it in, and then failed: ValueError: no\n"
        f"    {line} |     raise ValueError('no')\n"
        "hint: leave commit and rollback to flux, or run it without a transaction: no-transaction\n"
        "state: what it committed is in the database, and the history does not say so\n"
    )
    assert (project.tables(), project.applied()) == (["a"], [])


def test_a_python_migration_that_fails_without_a_commit_is_rolled_back(project: Project) -> None:
    project.add({"001.py": ENDS + "    raise ValueError('no')\n"})
    assert project.fail("apply").endswith(
        "\nstate: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


def test_a_python_migration_that_closes_the_connection_is_an_error(project: Project) -> None:
    project.add({"001.py": ENDS + "    connection.close()\n"})
    assert project.fail("apply") == (
        "error: migrations/001.py: applying 001 failed: ProgrammingError: "
        "Cannot operate on a closed database.\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


def test_a_python_migration_whose_work_nobody_does_is_not_recorded(project: Project) -> None:
    """With the connection as its parameter, text that it returns would be dropped in silence."""
    project.add({"001.py": ENDS + "    return 'CREATE TABLE b (id)'\n"})
    assert project.fail("apply") == (
        "error: migrations/001.py: applying 001 failed: TypeError: apply(connection) returns a "
        "str, which nothing would run\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


@pytest.mark.parametrize("status", ["0", "3", "'a word'"])
def test_a_python_migration_that_exits_is_a_failure(project: Project, status: str) -> None:
    """`sys.exit(0)` within a migration must not look like success to a deploy job."""
    project.add({"001.py": ENDS + f"    import sys; sys.exit({status})\n"})
    shown = status.strip("'")
    assert project.fail("apply") == (
        "error: migrations/001.py:3: applying 001 failed: RuntimeError: it ends Python: "
        f"SystemExit: {shown}\n"
        f"    3 |     import sys; sys.exit({status})\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


def test_a_migration_that_somebody_else_recorded_does_not_run_again(project: Project) -> None:
    """Its own transaction reads the history again, and what is left is planned anew."""
    second = "INSERT INTO counted VALUES (2);"
    recorded = Migration.from_text("002", second)
    project.add(
        {
            "001.sql": "CREATE TABLE counted (id);\nINSERT INTO _flux_migrations "
            f"VALUES ('002', '{recorded.hash}', '2026-01-01 00:00:00');",
            "002.sql": second,
            "003.sql": "INSERT INTO counted VALUES (3);",
        }
    )
    assert project.succeed("apply").endswith("2 migrations applied\n")
    assert project.applied() == ["001", "002", "003"]
    assert project.query("SELECT id FROM counted") == [(3,)]


# Foreign keys -------------------------------------------------------------------------------

SHOP = """
CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE review (
    id INTEGER PRIMARY KEY, book_id INTEGER NOT NULL REFERENCES book (id) ON DELETE CASCADE
);
INSERT INTO book VALUES (1, 'Emma'), (2, 'Frankenstein');
INSERT INTO review VALUES (10, 1), (11, 1), (12, 2);
"""
REBUILD = """
CREATE TABLE book_new (id INTEGER PRIMARY KEY, title TEXT NOT NULL CHECK (title <> ''));
INSERT INTO book_new SELECT * FROM book;
DROP TABLE book;
ALTER TABLE book_new RENAME TO book;
"""
REVIEWS = "SELECT id, book_id FROM review ORDER BY id"


@pytest.mark.parametrize(
    "rebuild",
    [
        pytest.param(REBUILD, id="bare"),
        pytest.param(f"BEGIN;{REBUILD}COMMIT;", id="in a BEGIN and COMMIT of its own"),
        pytest.param(
            f"PRAGMA foreign_keys = OFF;\nBEGIN TRANSACTION;{REBUILD}"
            "PRAGMA foreign_key_check;\nCOMMIT;\nPRAGMA foreign_keys = ON;\n",
            id="by SQLite's own recipe",
        ),
        pytest.param(f"PRAGMA foreign_keys = ON;{REBUILD}", id="asking for foreign keys, too late"),
    ],
)
def test_a_table_rebuild_keeps_the_rows_of_its_children(project: Project, rebuild: str) -> None:
    """FIELD.md 16: with foreign keys on, DROP TABLE of the old parent deletes the children."""
    project.add({"001.sql": SHOP, "002.sql": rebuild, "003.sql": REBUILD})
    project.succeed("apply")
    assert project.query(REVIEWS) == [(10, 1), (11, 1), (12, 2)]
    with closing(sqlite3.connect(project.database)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM book WHERE id = 1")
        assert connection.execute(REVIEWS).fetchall() == [(12, 2)], "the key refers to the new one"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        pytest.param(
            "DELETE FROM book WHERE id = 1",
            "FOREIGN KEY constraint failed: review refers to rows that are not in book: 1",
            id="several rows, one value",
        ),
        pytest.param(
            "DELETE FROM book",
            "FOREIGN KEY constraint failed: review refers to rows that are not in book: 1, and 1 "
            "more",
            id="several values",
        ),
        pytest.param(
            "CREATE TABLE note (of REFERENCES book (title)); INSERT INTO note VALUES ('Emma')",
            'foreign key mismatch - "note" referencing "book"',
            id="a key to what is not unique",
        ),
        pytest.param(
            "CREATE TABLE pair (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;"
            "CREATE TABLE of_pair (x, y, z, PRIMARY KEY (z), FOREIGN KEY (x, y) REFERENCES pair) "
            "WITHOUT ROWID; INSERT INTO of_pair VALUES (1, 'b', 'c')",
            "FOREIGN KEY constraint failed: of_pair refers to rows that are not in pair: ?",
            id="without rowid",
        ),
        pytest.param(
            "CREATE TABLE pair (a, b, PRIMARY KEY (a, b)); CREATE TABLE of_pair "
            "(x, y, FOREIGN KEY (x, y) REFERENCES pair); INSERT INTO of_pair VALUES (1, 'b')",
            "FOREIGN KEY constraint failed: of_pair refers to rows that are not in pair: 1, 'b'",
            id="two columns",
        ),
    ],
)
def test_a_migration_that_breaks_a_foreign_key_fails(
    project: Project, sql: str, message: str
) -> None:
    project.add({"001.sql": SHOP, "002.sql": sql})
    assert project.fail("apply") == (
        f"error: migrations/002.sql: applying 002 failed: {message}\n"
        "done before it: 001\n"
        "state: rolled back; the database is as it was before 002\n"
    )
    assert (project.tables(), project.applied()) == (["book", "review"], ["001"])
    assert project.query("SELECT count(*) FROM book") == [(2,)]


def test_only_new_violations_fail(project: Project) -> None:
    """What was broken before flux came does not stand in the way of any migration."""
    project.query("CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)")
    project.query("CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent)")
    project.query("CREATE TABLE odd (parent REFERENCES parent (name))")
    project.query("INSERT INTO child VALUES (1, 77), (2, 77), (3, 78)")
    project.query("INSERT INTO odd VALUES ('x')")
    project.add(
        {
            "001.sql": "CREATE TABLE a (id)",
            "002.sql": "CREATE TABLE c2 (id INTEGER PRIMARY KEY, parent REFERENCES parent);"
            "INSERT INTO c2 SELECT id + 100, parent FROM child;"
            "DROP TABLE child; ALTER TABLE c2 RENAME TO child;",
            "003.sql": "DELETE FROM child WHERE id = 103;",
            "004.sql": "INSERT INTO child (parent) VALUES (78);",
        }
    )
    assert project.fail("apply") == (
        "error: migrations/004.sql: applying 004 failed: FOREIGN KEY constraint failed: child "
        "refers to rows that are not in parent: 78\n"
        "done before it: 001, 002, 003\n"
        "state: rolled back; the database is as it was before 004\n"
    )
    assert project.query("SELECT id, parent FROM child") == [(101, 77), (102, 77)]


@pytest.mark.parametrize("directive", ["foreign-keys", "foreign-keys, no-transaction"])
@pytest.mark.parametrize("ending", [".sql", ".py"])
def test_the_directive_keeps_foreign_keys_on(project: Project, directive: str, ending: str) -> None:
    """ON DELETE CASCADE deletes the children, and only in the migration that asks for it."""
    delete = "DELETE FROM book WHERE id = 1"
    python = f"# flux: {directive}\ndef apply(connection):\n    connection.execute('{delete}')\n"
    project.add(
        {
            "001.sql": SHOP,
            f"002{ending}": python if ending == ".py" else f"-- flux: {directive}\n{delete};\n",
            "003.sql": REBUILD,
        }
    )
    project.succeed("apply")
    assert project.query(REVIEWS) == [(12, 2)]


def test_a_deferred_foreign_key_fails_at_the_commit(project: Project) -> None:
    project.add(
        {
            "001.sql": SHOP,
            "002.sql": "-- flux: foreign-keys\nCREATE TABLE loan (book REFERENCES book (id) "
            "DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO loan VALUES (9);\n",
        }
    )
    assert project.fail("apply") == (
        "error: migrations/002.sql: applying 002 failed: FOREIGN KEY constraint failed: loan "
        "refers to rows that are not in book: 9\n"
        "done before it: 001\n"
        "state: rolled back; the database is as it was before 002\n"
    )
    assert (project.tables(), project.applied()) == (["book", "review"], ["001"])


# What stands in files -----------------------------------------------------------------------

T = "CREATE TABLE t (body);"
TRIGGER = """CREATE TABLE log (body);
CREATE TRIGGER t_log AFTER INSERT ON t WHEN NEW.body <> 'end;'
BEGIN
    INSERT INTO log VALUES (NEW.body || ';'); -- END;
    SELECT CASE WHEN 1 THEN 2 END;
END;
INSERT INTO t VALUES ('a'), ('end;');
"""


@pytest.mark.parametrize(
    ("text", "query", "rows"),
    [
        pytest.param(T + TRIGGER, "SELECT * FROM log", [("a;",)], id="trigger"),
        pytest.param(f"BEGIN;{T}COMMIT;", "SELECT * FROM t", [], id="wrapped"),
        pytest.param(
            f"-- why\nbegin immediate transaction;{T}end transaction; -- so",
            "SELECT * FROM t",
            [],
            id="wrapped in other words",
        ),
        pytest.param(
            f"{T}SAVEPOINT a; INSERT INTO t VALUES (1); ROLLBACK TO a; RELEASE a;",
            "SELECT * FROM t",
            [],
            id="savepoint",
        ),
        pytest.param(
            f"{T}SAVEPOINT left_open; INSERT INTO t VALUES (1);",
            "SELECT * FROM t",
            [(1,)],
            id="savepoint left open",
        ),
        pytest.param("", "SELECT 1", [(1,)], id="empty"),
        pytest.param("\n \n", "SELECT 1", [(1,)], id="blank"),
        pytest.param(";;\n;", "SELECT 1", [(1,)], id="semicolons"),
        pytest.param("-- nothing; to do\n/* here; */", "SELECT 1", [(1,)], id="comments alone"),
        pytest.param("/* never closed", "SELECT 1", [(1,)], id="a comment never closed"),
        pytest.param(
            T + "INSERT INTO t VALUES ('50% %s %(a)s %%');",
            "SELECT * FROM t",
            [("50% %s %(a)s %%",)],
            id="percent",
        ),
        pytest.param(
            T + "-- see :word\nINSERT INTO t VALUES (':word ?1 @a $b'); /* :also */",
            "SELECT * FROM t",
            [(":word ?1 @a $b",)],
            id="colon",
        ),
        pytest.param(
            T + """INSERT INTO t VALUES ('{"a":true,"b":[1,2]}');""",
            "SELECT * FROM t",
            [('{"a":true,"b":[1,2]}',)],
            id="JSON",
        ),
        pytest.param(
            T + "INSERT INTO t VALUES (1)", "SELECT * FROM t", [(1,)], id="no last semicolon"
        ),
        pytest.param(
            T + "INSERT INTO t VALUES (1) -- no newline; either",
            "SELECT * FROM t",
            [(1,)],
            id="a comment at the end",
        ),
        pytest.param(
            "CREATE TABLE t (body);\r\n-- why\r\nINSERT INTO t VALUES ('a\r\nb');\r\n",
            "SELECT * FROM t",
            [("a\nb",)],
            id="CRLF",
        ),
        pytest.param("\ufeff" + T, "SELECT * FROM t", [], id="BOM"),
        pytest.param(
            "CREATE TABLE \"a;b\" ([c;d], `e;f`); INSERT INTO \"a;b\" VALUES (';', ''';');",
            'SELECT * FROM "a;b"',
            [(";", "';")],
            id="semicolons in names",
        ),
        pytest.param(
            T + "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) "
            "INSERT INTO t SELECT i FROM n RETURNING body;",
            "SELECT count(*) FROM t",
            [(5,)],
            id="a statement that gives rows",
        ),
        pytest.param(
            T + f"INSERT INTO t VALUES ('{'x' * 150_000}');",
            "SELECT length(body) FROM t",
            [(150_000,)],
            id="a long line",
        ),
        pytest.param(
            T + "INSERT INTO t VALUES (1);" * 1000, "SELECT sum(body) FROM t", [(1000,)], id="many"
        ),
    ],
)
def test_text_runs_as_it_is(
    project: Project, text: str, query: str, rows: list[tuple[object, ...]]
) -> None:
    """Applied, valid afterwards, and undone by an undo that holds no statement."""
    project.add({"001.sql": text, "001.undo.sql": "-- nothing\n"})
    project.succeed("apply")
    assert project.query(query) == rows
    assert project.applied() == ["001"]
    project.succeed("validate")
    project.succeed("rollback", "-y")
    assert project.applied() == []


def refused(first_words: str, place: str, line: str) -> str:
    """What is said of transaction control, at `place` (line:column)."""
    number, column = place.split(":")
    caret = " " * (len(number) + 1) + "| " + " " * (int(column) - 1) + "^"
    return (
        f"error: migrations/001.sql:{place}: {first_words} inside a migration, which flux runs in "
        "a transaction of its own\n"
        f"    {number} | {line}\n"
        f"    {caret}\n"
        "hint: remove it, or run the whole file without a transaction: -- flux: no-transaction\n"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param(f"{T}\n  COMMIT;", refused("COMMIT", "2:3", "  COMMIT;"), id="COMMIT"),
        pytest.param(f"BEGIN;\n{T}", refused("BEGIN", "1:1", "BEGIN;"), id="BEGIN alone"),
        pytest.param(f"{T}\nEND", refused("END", "2:1", "END"), id="END alone"),
        pytest.param(f"{T}\nROLLBACK;", refused("ROLLBACK", "2:1", "ROLLBACK;"), id="ROLLBACK"),
        pytest.param(
            f"BEGIN;\n{T}\nROLLBACK;", refused("BEGIN", "1:1", "BEGIN;"), id="a pair that undoes"
        ),
    ],
)
def test_other_transaction_control_is_refused_before_anything_runs(
    project: Project, text: str, error: str
) -> None:
    project.add({"000.sql": "CREATE TABLE before (id)", "001.sql": text})
    if text.startswith("BEGIN") and "ROLLBACK" in text:
        assert "2 problems in what would run" in project.fail("apply")
    else:
        assert project.fail("apply") == error
    assert "transaction of its own" in project.run("validate").out
    assert not project.database.exists()


def test_all_transaction_control_is_refused_together(project: Project) -> None:
    project.add({"000.sql": f"{T} COMMIT; BEGIN;", "000.undo.sql": "ABORT; END;"})
    error = project.fail("apply")
    assert error.startswith("error: 4 problems in what would run\n- migrations/000.sql:1:24: COM")
    assert [line.split(" ")[1] for line in error.splitlines() if line.startswith("- ")] == [
        "migrations/000.sql:1:24:",
        "migrations/000.sql:1:32:",
        "migrations/000.undo.sql:1:1:",
        "migrations/000.undo.sql:1:8:",
    ]
    assert not project.database.exists()


# Settings of the session --------------------------------------------------------------------

PRAGMAS = {
    "legacy_alter_table": (0, 1),
    "recursive_triggers": (0, 1),
    "ignore_check_constraints": (0, 1),
    "reverse_unordered_selects": (0, 1),
    "writable_schema": (0, 1),
    "query_only": (0, 1),
    "read_uncommitted": (0, 1),
    "automatic_index": (1, 0),
    "cache_size": (-2000, 3000),
    "busy_timeout": (1000, 7),
    "synchronous": (2, 0),
    "locking_mode": ("normal", "exclusive"),
    "foreign_keys": (0, 1),
}
READ_PRAGMAS = """
def apply(connection):
    for name in {names!r}:
        (value,) = connection.execute(f"PRAGMA {{name}}").fetchone()
        seen = connection.execute("INSERT INTO seen VALUES (?, ?)", (name, value))
"""


@pytest.mark.parametrize("directive", ["", "-- flux: no-transaction\n"])
def test_a_pragma_does_not_reach_the_next_migration(project: Project, directive: str) -> None:
    """Each migration starts with the settings that flux gives, whatever ran before it."""
    # Inside a transaction SQLite refuses these, or they would hinder flux's own row.
    settable = {
        name: value
        for name, (_, value) in PRAGMAS.items()
        if directive or name not in ("synchronous", "query_only")
    }
    project.add(
        {
            "001.sql": "CREATE TABLE seen (name, value)",
            "002.sql": directive + "".join(f"PRAGMA {n} = {v};\n" for n, v in settable.items()),
            "003.py": READ_PRAGMAS.format(names=list(PRAGMAS)),
        }
    )
    project.succeed("apply")
    assert dict(project.query("SELECT * FROM seen")) == {n: old for n, (old, _) in PRAGMAS.items()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("connection.row_factory = lambda c, row: {'x': row[0]}", id="row_factory"),
        pytest.param("connection.text_factory = bytes", id="text_factory"),
        pytest.param("connection.isolation_level = 'EXCLUSIVE'", id="isolation_level"),
    ],
)
def test_what_python_sets_on_the_connection_does_not_reach_flux_or_the_next(
    project: Project, change: str
) -> None:
    project.query("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    project.query("CREATE TABLE child (parent REFERENCES parent)")
    project.query("INSERT INTO child VALUES ('nobody')")
    project.add(
        {
            "001.py": f"def apply(connection):\n    {change}\n",
            "002.sql": "-- flux: no-transaction\nPRAGMA foreign_keys = 1;\nINSERT INTO child "
            "VALUES (NULL);\n",
            "003.py": "def apply(connection):\n    assert connection.isolation_level is None\n"
            "    assert connection.execute('SELECT 1, ?', ('a',)).fetchall() == [(1, 'a')]\n",
        }
    )
    project.succeed("apply")
    assert project.applied() == ["001", "002", "003"]


# Without a transaction ----------------------------------------------------------------------


def test_what_no_transaction_may_hold_runs_without_one(project: Project) -> None:
    project.add(
        {
            "001.sql": "CREATE TABLE t (id); INSERT INTO t VALUES (1);",
            "002.sql": "-- flux: no-transaction\nPRAGMA journal_mode = WAL;\nVACUUM;\n",
            "003.py": "# flux: no-transaction\ndef apply(connection):\n"
            "    assert not connection.in_transaction\n    connection.execute('VACUUM')\n",
            "004.sql": "-- flux: no-transaction\nBEGIN; INSERT INTO t VALUES (2); COMMIT;\n"
            "BEGIN IMMEDIATE; INSERT INTO t VALUES (3); END;\n",
        }
    )
    project.succeed("apply")
    assert project.query("PRAGMA journal_mode") == [("wal",)]
    assert project.query("SELECT id FROM t") == [(1,), (2,), (3,)]
    assert project.applied() == ["001", "002", "003", "004"]


def test_vacuum_inside_a_transaction_says_what_to_do(project: Project) -> None:
    project.add({"001.sql": "VACUUM;"})
    assert project.fail("apply") == (
        "error: migrations/001.sql:1: applying 001 failed: cannot VACUUM from within a "
        "transaction\n"
        "    1 | VACUUM;\n"
        "hint: run the whole file without a transaction: -- flux: no-transaction\n"
        "state: rolled back; the database is as it was before 001\n"
    )


MEND = "hint: mend it from statement {} on, and apply again: flux goes on there\n"


@pytest.mark.parametrize(
    ("text", "line", "next_one", "state", "tables"),
    [
        pytest.param(
            "CREATE TABLE a (id);\nCREATE TABLE b (id);\nFAIL;\nCREATE TABLE c (id);",
            4,
            3,
            "statements 1 to 2 of 4 took effect, statement 3 failed",
            ["a", "b"],
            id="in the middle",
        ),
        pytest.param(
            "CREATE TABLE a (id);\nFAIL;",
            3,
            2,
            "statement 1 of 2 took effect, statement 2 failed",
            ["a"],
            id="after one",
        ),
        pytest.param(
            "FAIL;\nCREATE TABLE a (id);",
            2,
            None,
            "no statement of 2 took effect, statement 1 failed",
            [],
            id="at once",
        ),
        pytest.param(
            "CREATE TABLE a (id);\nBEGIN;\nCREATE TABLE b (id);\nFAIL;\nCOMMIT;",
            5,
            2,
            "statement 1 of 5 took effect, statement 4 failed",
            ["a"],
            id="in a transaction of its own",
        ),
    ],
)
def test_a_failure_without_a_transaction_says_how_far_it_came(
    project: Project, text: str, line: int, next_one: int | None, state: str, tables: list[str]
) -> None:
    project.add({"000.sql": "", "001.sql": f"-- flux: no-transaction\n{text}"})
    assert project.fail("apply") == (
        f'error: migrations/001.sql:{line}: applying 001 failed: near "FAIL": syntax error\n'
        f"    {line} | FAIL;\n"
        + (MEND.format(next_one) if next_one else "")
        + "done before it: 000\n"
        f"state: it ran without a transaction: {state}, and 001 is not in the history\n"
    )
    assert (project.tables(), project.applied()) == (tables, ["000"])


def test_a_transaction_that_is_left_open_is_an_error(project: Project) -> None:
    text = (
        "# flux: no-transaction\ndef apply(connection):\n    connection.execute('BEGIN')\n"
        "    connection.execute('CREATE TABLE a (id)')\n"
    )
    project.add({"001.py": text})
    assert project.fail("apply") == (
        "error: migrations/001.py: applying 001 failed: it leaves a transaction open\n"
        "hint: commit it at the end of the file\n"
        "state: it ran without a transaction: whether it did is not known, and 001 is not in the "
        "history\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


# A busy database ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param("BEGIN IMMEDIATE", id="somebody writes"),
        pytest.param("BEGIN EXCLUSIVE", id="not even reading is possible"),
    ],
)
def test_a_busy_database_is_waited_for_aloud(project: Project, begin: str) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    project.query("CREATE TABLE theirs (id)")
    with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
        other.execute(begin)
        with project.started("apply") as process:
            assert process.stderr is not None
            word = process.stderr.readline()
            assert word == "flux: app.db is busy; waiting for up to 30 s\n"
            other.execute("INSERT INTO theirs VALUES (1)")
            other.execute("COMMIT")
            assert process.wait() == 0
    assert project.query("SELECT * FROM theirs") == [(1,)]
    assert (project.tables(), project.applied()) == (["a", "theirs"], ["001"])


@pytest.mark.parametrize(
    ("begin", "command", "error"),
    [
        pytest.param("BEGIN IMMEDIATE", "apply", "cannot use app.db", id="writing"),
        pytest.param("BEGIN EXCLUSIVE", "status", "cannot read the history", id="reading"),
    ],
)
def test_a_busy_database_is_given_up_after_the_time_that_is_set(
    project: Project, begin: str, command: str, error: str
) -> None:
    project.configure(backend="busy_timeout = 0.2")
    project.add({"001.sql": "CREATE TABLE a (id)"})
    project.query("CREATE TABLE theirs (id)")
    with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
        other.execute(begin)
        assert project.fail(command) == (
            f"error: {error}: the database is busy: another connection kept it locked for 0.2 s\n"
            "hint: end the other transaction, or wait longer: busy_timeout (seconds) in [backend]\n"
        )
    assert project.tables() == ["theirs"]


def test_a_reader_that_holds_up_a_commit_is_waited_for(project: Project) -> None:
    """On a rollback journal a COMMIT needs that nobody reads; what waited is then committed."""
    project.add({"001.sql": "CREATE TABLE a (id)"})
    project.query("CREATE TABLE theirs (id)")
    project.query("INSERT INTO theirs VALUES (1), (2)")
    with closing(sqlite3.connect(project.database)) as reader:
        rows = reader.execute("SELECT * FROM theirs")
        rows.fetchone()
        with project.started("apply") as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "flux: app.db is busy; waiting for up to 30 s\n"
            rows.fetchall()
            assert process.wait() == 0
    assert project.applied() == ["001"]


def test_a_migration_without_a_transaction_waits_too(project: Project) -> None:
    """And when it gives up, nothing of it has run."""
    project.configure(backend="busy_timeout = 0.2")
    project.add(
        {
            "001.sql": "",
            "002.sql": "-- flux: no-transaction\nPRAGMA user_version;\nCREATE TABLE a (id);\n",
        }
    )
    project.succeed("apply", "1")
    with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert project.fail("apply") == (
            "error: cannot use app.db: the database is busy: another connection kept it locked for "
            "0.2 s\n"
            "hint: end the other transaction, or wait longer: busy_timeout (seconds) in [backend]\n"
        )
    assert (project.tables(), project.applied()) == ([], ["001"])
    project.succeed("apply")
    assert (project.tables(), project.applied()) == (["a"], ["001", "002"])


# Reading ------------------------------------------------------------------------------------

UNTOUCHED = "pending    001\n1 migration: 1 pending; flux has not touched this database\n"


def make_sqlite(path: Path, *sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in sql:
            connection.execute(statement)


@pytest.mark.parametrize("command", ["status", "plan", "validate"])
@pytest.mark.parametrize(
    ("content", "code", "error"),
    [
        pytest.param(None, 0, "", id="missing"),
        pytest.param(b"", 0, "", id="empty"),
        pytest.param(
            b"This is a letter, and not a database.\n" * 100,
            1,
            "error: cannot read the history: file is not a database\n"
            "hint: app.db is another kind of file\n",
            id="another kind of file",
        ),
        pytest.param(
            "directory",
            1,
            "error: cannot open app.db: unable to open database file\n"
            "hint: this is a directory; the address is from database_url in flux.toml\n",
            id="a directory",
        ),
    ],
)
def test_reading_what_is_no_database_yet_writes_nothing(
    project: Project, command: str, content: bytes | str | None, code: int, error: str
) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    if content == "directory":
        project.database.mkdir()
    elif isinstance(content, bytes):
        project.write("app.db", content)
    before = project.files()
    result = project.run(command)
    assert (result.code, result.err) == (code, error)
    if command == "status" and not error:
        assert result.out == UNTOUCHED
    assert project.files() == before


APPLICATION = """
import sqlite3, sys
connection = sqlite3.connect("app.db", isolation_level=None)
connection.execute("INSERT INTO b VALUES (1)")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("touched", [True, False], ids=["touched", "untouched"])
@pytest.mark.parametrize("journal", ["delete", "wal", "truncate"])
@pytest.mark.parametrize("is_open", [True, False], ids=["in use", "alone"])
def test_reading_a_database_changes_no_byte(
    project: Project, touched: bool, journal: str, is_open: bool
) -> None:
    """Nor does it leave a file beside it, also where the application has it open."""
    project.add({"001.sql": "CREATE TABLE a (id)"})
    make_sqlite(project.database, f"PRAGMA journal_mode = {journal}", "CREATE TABLE b (id)")
    if touched:
        project.succeed("apply")
    with ExitStack() as stack:
        if is_open:
            # Not in this process, which loses its locks on a file that it reads by itself.
            application = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", APPLICATION],
                    cwd=project.root,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert application.stdout is not None
            application.stdout.readline()
        before = project.files()
        for command in ("status", "plan", "validate"):
            project.succeed(command)
        after = project.files()
        if is_open and journal == "wal":
            # Shared memory, in which each reader notes where it reads; no part of the data.
            del before["app.db-shm"], after["app.db-shm"]
        assert after == before
    assert project.succeed("status").startswith("applied" if touched else "pending")


def test_reading_after_a_crash_in_wal_mode_loses_nothing(project: Project) -> None:
    """A killed application leaves its log behind; whoever opens the database next takes it in."""
    project.add({"001.sql": "CREATE TABLE a (id)"})
    code = (
        "import os, sqlite3; c = sqlite3.connect('app.db', isolation_level=None); "
        "c.execute('PRAGMA journal_mode = wal'); c.execute('CREATE TABLE b (id)'); "
        "c.execute('INSERT INTO b VALUES (1)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project.root, check=True)
    assert (project.root / "app.db-wal").stat().st_size > 0
    assert project.succeed("status") == UNTOUCHED
    assert project.query("SELECT id FROM b") == [(1,)]


AS_ORDINARY_USER = """
import contextlib, io, os, random, socket, sys, threading, typing
import flux.backends.sqlite_lock, flux.cli, flux.interruption

if os.geteuid() == 0:
    # Once as root, to import all that it needs: nobody may not enter root's home.
    with contextlib.redirect_stdout(io.StringIO()):
        flux.cli.main(["status", "nowhere.db"])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(flux.cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another kind of rights")
@pytest.mark.parametrize(
    ("journal", "status"),
    [
        pytest.param("delete", (0, UNTOUCHED, ""), id="rollback journal"),
        pytest.param(
            "wal",
            (
                1,
                "",
                "error: cannot read the history: attempt to write a readonly database\n"
                "hint: app.db or its directory cannot be written by this user\n",
            ),
            id="WAL",
        ),
    ],
)
def test_a_database_without_the_right_to_write(journal: str, status: tuple[int, str, str]) -> None:
    """It can be read where SQLite can read it; apply says that it cannot be written."""
    with tempfile.TemporaryDirectory(prefix="flux-test-") as name:
        folder = Path(name)
        project = Project(folder, FluxProcess(folder))
        project.configure()
        project.add({"001.sql": "CREATE TABLE a (id)"})
        make_sqlite(project.database, f"PRAGMA journal_mode = {journal}", "CREATE TABLE b (id)")
        project.database.chmod(0o444)
        folder.chmod(0o555)

        def flux(command: str) -> tuple[int, str, str]:
            done = subprocess.run(
                [sys.executable, "-c", AS_ORDINARY_USER, command],
                cwd=folder,
                env=flux_environment(),
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            return done.returncode, done.stdout, done.stderr

        before = project.files()
        assert flux("status") == status
        code, _, error = flux("apply")
        if journal == "delete":
            assert (code, error) == (
                1,
                f"error: cannot take the migration lock: {folder}/app.db-flux-lock: unable to "
                "open database file\n"
                f"hint: the directory {folder} must be writable, as SQLite needs it for its "
                "journal too\n",
            )
        assert code == 1
        assert project.files() == before
        folder.chmod(0o755)


# Many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [2, 8])
def test_of_many_that_start_at_once_one_runs_each_migration(
    project: Project, processes: int
) -> None:
    """The file is not there when they start; all succeed, and nothing ran twice."""
    ids = [f"{number:03}" for number in range(12)]
    project.add({f"{id}.sql": f"INSERT INTO ran VALUES ('{id}');" for id in ids})
    project.add(
        {
            "000.sql": "CREATE TABLE ran (id TEXT);INSERT INTO ran VALUES ('000');",
            "pre-apply/count.sql": "CREATE TABLE IF NOT EXISTS batches (id);"
            "INSERT INTO batches VALUES (1);",
            "post-apply/count.sql": "INSERT INTO batches VALUES (2);",
        }
    )
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(project.started("apply")) for _ in range(processes)]
        ended = [process.communicate() for process in all_of_them]
    assert [process.returncode for process in all_of_them] == [0] * processes, ended
    assert project.query("SELECT id FROM ran ORDER BY id") == [(id,) for id in ids]
    assert project.applied() == ids
    assert project.query("SELECT id FROM batches ORDER BY rowid") == [(1,), (2,)]
    outputs = [out for out, _ in ended]
    assert sum("12 migrations applied" in out for out in outputs) == 1
    assert sum("nothing to do" in out for out in outputs) == processes - 1


WAITS_FOR_A_FILE = """
import os, time

def apply(connection):
    open("running", "w").close()
    while not os.path.exists("go on"):
        time.sleep(0.01)
"""


def wait_until_running(project: Project, process: subprocess.Popen[str]) -> None:
    """Wait until a migration of WAITS_FOR_A_FILE runs; the watchdog ends what hangs."""
    while not (project.root / "running").exists():
        assert process.poll() is None


@pytest.mark.skipif(os.name == "nt", reason="Windows: another way to end a process")
def test_a_waiter_names_the_holder_and_goes_on_when_it_is_killed(project: Project) -> None:
    project.add({"001.py": WAITS_FOR_A_FILE, "002.sql": "CREATE TABLE a (id)"})
    with project.started("apply") as holder, ExitStack() as stack:
        wait_until_running(project, holder)
        waiter = stack.enter_context(project.started("apply"))
        assert waiter.stderr is not None
        word = waiter.stderr.readline()
        assert word.startswith(f"flux: waiting for pid {holder.pid} on host ")
        assert word.endswith(" UTC, which is running migrations on this database\n")
        project.write("go on", "")
        holder.kill()
        assert waiter.wait() == 0
    assert project.applied() == ["001", "002"]


def test_lock_wait_of_zero_gives_up_at_once(project: Project) -> None:
    project.add({"001.py": WAITS_FOR_A_FILE})
    with project.started("apply") as holder:
        wait_until_running(project, holder)
        error = project.fail("apply", "--lock-wait", "0", code=5)
        assert error.startswith(f"error: pid {holder.pid} on host ")
        assert error.endswith(
            " UTC is running migrations on this database, and still was after 0 s\n"
            "hint: wait for it to end, or wait longer: --lock-wait SECONDS, or lock_wait in the "
            "configuration\n"
        )
        # Reading takes no lock, and needs none.
        assert project.succeed("status").startswith("pending    001\n")
        project.write("go on", "")
        assert holder.wait() == 0
    assert project.applied() == ["001"]
    project.succeed("apply", "--lock-wait", "0")


def test_two_ways_to_one_file_are_one_lock(project: Project) -> None:
    project.add({"001.py": WAITS_FOR_A_FILE})
    (project.root / "elsewhere").mkdir()
    link = project.root / "elsewhere" / "link.db"
    project.query("SELECT 1")
    try:
        link.symlink_to(project.database)
    except OSError:
        pytest.skip("this user may not make symbolic links")
    with project.started("apply", f"sqlite:///{link}") as holder:
        wait_until_running(project, holder)
        assert "is running migrations" in project.fail("apply", "--lock-wait=0", code=5)
        project.write("go on", "")
        assert holder.wait() == 0
    assert not (project.root / "elsewhere" / "link.db-flux-lock").exists()


def test_a_lock_file_of_another_kind_is_an_error(project: Project) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    lock = project.write(
        "app.db-flux-lock", b"not a database, but long enough to look like one" * 30
    )
    assert project.fail("apply") == (
        f"error: cannot take the migration lock: {lock}: file is not a database\n"
        f"hint: the directory {project.root} must be writable, as SQLite needs it for its journal "
        "too\n"
    )
    assert project.tables() == []


def test_two_databases_are_two_locks(project: Project) -> None:
    project.add({"001.py": WAITS_FOR_A_FILE})
    with project.started("apply") as holder:
        wait_until_running(project, holder)
        project.write("go on", "")
        project.succeed("apply", "other.db", "--lock-wait", "0")
        assert holder.wait() == 0


# Addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "file"),
    [
        pytest.param("sqlite:///other.db", "other.db", id="URL"),
        pytest.param("other.db", "other.db", id="path"),
        pytest.param("sqlite:///a%20b.db", "a b.db", id="percent-encoded URL"),
        pytest.param("a%20b ?#é.db", "a%20b ?#é.db", id="a path is taken as it is"),
        pytest.param("sqlite:///{root}/x.db", "x.db", id="absolute URL"),
        pytest.param("{root}/x.db", "x.db", id="absolute path"),
        pytest.param("/{root}//x.db", "x.db", id="slashes that are too many"),
    ],
)
def test_an_address_names_a_file(project: Project, address: str, file: str) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    project.succeed("apply", address.format(root=project.root))
    made = sorted(path.name for path in project.root.iterdir() if ".db" in path.name)
    assert made == [file, f"{file}-flux-lock"]
    shutil.copy(project.root / file, project.database)
    assert project.applied() == ["001"]


@pytest.mark.parametrize("command", ["status", "apply"])
@pytest.mark.parametrize(
    ("address", "code", "error"),
    [
        pytest.param(
            "",
            2,
            "error: the database's address is empty\n",
            id="empty: a variable that is not set",
        ),
        pytest.param(
            "postgresql://u:secret@h/db",
            2,
            'error: backend = "sqlite" in flux.toml, and the address that was given is one of '
            "postgres: postgresql://u:***@h/db\n"
            'hint: set backend = "postgres", or give an address of sqlite: '
            "a path, or sqlite:///relative/path, or sqlite:////absolute/path\n",
            id="another backend's",
        ),
    ],
)
def test_an_address_that_names_none_is_refused(
    project: Project, command: str, address: str, code: int, error: str
) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    before = project.files()
    assert project.fail(command, address, code=code) == error
    assert project.files() == before


def test_a_directory_that_is_not_there_is_said(project: Project) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    assert project.fail("apply", "no/such/app.db") == (
        "error: cannot open no/such/app.db: unable to open database file\n"
        f"hint: there is no directory {project.root}/no/such\n"
    )


# The history --------------------------------------------------------------------------------


def test_the_history_is_as_documented(project: Project) -> None:
    """docs/formats.md is a contract. Any name will do for the table, and any id."""
    project.configure(backend="""migrations_table = 'the "history" of flux'""")
    project.add({"it's 1.sql": "CREATE TABLE a (id)"})
    project.succeed("apply")
    ((id, hash, applied_at),) = project.query('SELECT * FROM "the ""history"" of flux"')
    assert (id, hash) == ("it's 1", Migration.from_text("", "CREATE TABLE a (id)").hash)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+00:00", applied_at)
    assert project.succeed("status").startswith("applied    it's 1  2")
    assert project.succeed("apply") == "nothing to do\n"


def test_a_foreign_table_of_the_same_name_is_an_error(project: Project) -> None:
    project.add({"001.sql": "CREATE TABLE a (id)"})
    project.query("CREATE TABLE _flux_migrations (something)")
    for command in ("status", "apply"):
        assert project.fail(command) == "error: cannot read the history: no such column: id\n"
    assert project.tables() == []


def test_what_sqlite_itself_rolled_back_is_told_as_rolled_back(project: Project) -> None:
    """`OR ROLLBACK` ends the transaction with nothing of it left; no commit is suspected."""
    project.add(
        {
            "001.py": "def apply(connection):\n"
            "    connection.execute('CREATE TABLE a (id UNIQUE)')\n"
            "    connection.execute('INSERT INTO a VALUES (1)')\n"
            "    connection.execute('INSERT OR ROLLBACK INTO a VALUES (1)')\n"
        }
    )
    assert project.fail("apply") == (
        "error: migrations/001.py:4: applying 001 failed: IntegrityError: UNIQUE constraint "
        "failed: a.id\n"
        "    4 |     connection.execute('INSERT OR ROLLBACK INTO a VALUES (1)')\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert project.tables() == []
    assert project.applied() == []
