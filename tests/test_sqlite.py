"""SQLite: whatever is killed, busy, rebuilt or badly written, nothing is lost and nothing lies."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.flux_process import flux_environment
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
        pytest.param(5000, id="spilled to the file, with a hot journal"),
    ],
)
def test_a_kill_in_mid_migration_leaves_nothing_of_it(project: Project, rows: int) -> None:
    """The database is as it was before, the lock is free, and the next apply goes on."""
    project.add({"001.sql": "CREATE TABLE whole (id)", "002.py": DIES.format(rows=rows)})
    killed = project.run("apply", env={"DIE": "1"})
    assert killed.code == -signal.SIGKILL
    hot = project.root / "app.db-journal"
    assert (hot.exists() and hot.stat().st_size > 512) == (rows > 1), "the journal is hot"

    assert "pending    002" in project.succeed("status")
    assert (project.tables(), project.applied()) == (["whole"], ["001"])
    assert project.succeed("apply").endswith("1 migration applied\n")
    assert (project.tables(), project.applied()) == (["half", "whole"], ["001", "002"])
    assert project.query("SELECT count(*) FROM half") == [(rows,)]


@pytest.mark.parametrize("lines", [1, 7, 23])
def test_a_kill_between_any_two_migrations_is_gone_on_from(project: Project, lines: int) -> None:
    """At any moment, exactly the migrations in the history have taken effect."""
    ids = [f"{number:03}" for number in range(40)]
    project.add({f"{id}.sql": f"CREATE TABLE t{id} (id); INSERT INTO t{id} VALUES (1)" for id in ids})
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


def test_a_python_migration_that_closes_the_connection_is_an_error(project: Project) -> None:
    project.add({"001.py": ENDS + "    connection.close()\n"})
    assert project.fail("apply") == (
        "error: migrations/001.py: applying 001 failed: ProgrammingError: "
        "Cannot operate on a closed database.\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert (project.tables(), project.applied()) == ([], [])


@pytest.mark.parametrize(
    ("source", "gives"),
    [
        pytest.param("def apply(c): return 'CREATE TABLE a (id)'", "str", id="text"),
        pytest.param("def apply(c): return ['CREATE TABLE a (id)']", "list", id="texts"),
        pytest.param("def apply(c): yield 'CREATE TABLE a (id)'", "generator", id="a generator"),
        pytest.param("async def apply(c): c.execute('SELECT 1')", "coroutine", id="a coroutine"),
    ],
)
def test_a_python_migration_whose_work_nobody_does_is_not_recorded(
    project: Project, source: str, gives: str
) -> None:
    """With the connection as its parameter, what it returns would be dropped in silence."""
    project.add({"001.py": source + "\n"})
    assert project.fail("apply") == (
        f"error: migrations/001.py: applying 001 failed: apply() takes the connection and gives "
        f"a {gives}, which nothing runs\n"
        "hint: run it on the connection; or take no parameter, and return SQL text\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert project.applied() == []


@pytest.mark.parametrize("status", ["0", "3", "'a word'", ""])
def test_a_python_migration_that_exits_is_a_failure(project: Project, status: str) -> None:
    """`sys.exit(0)` within a migration must not look like success to a deploy job."""
    source = f"import sys\ndef apply(connection):\n    sys.exit({status})\n"
    project.add({"001.py": source})
    shown = status.strip("'") or "None"
    assert project.fail("apply") == (
        f"error: migrations/001.py:3: applying 001 failed: SystemExit: {shown}\n"
        f"    3 |     sys.exit({status})\n"
        "state: rolled back; the database is as it was before 001\n"
    )
    assert project.applied() == []


def test_a_migration_that_somebody_else_recorded_does_not_run_again(project: Project) -> None:
    """Its own transaction reads the history again, and what is left is planned anew."""
    project.add(
        {
            "001.sql": "CREATE TABLE counted (id); INSERT INTO _flux_migrations\n"
            "SELECT '002', hash, applied_at FROM hashes;",
            "002.sql": "INSERT INTO counted VALUES (2);",
            "003.sql": "INSERT INTO counted VALUES (3);",
        }
    )
    # The hash of 002 as flux itself records it.
    other = Project(project.root / "other", project.run)
    other.write("migrations/002.sql", "INSERT INTO counted VALUES (2);")
    other.query("CREATE TABLE counted (id)")
    result = project.run(
        "apply", "sqlite:///other/app.db", "--config", "other/flux.toml", cwd=other.root.parent
    )
    assert result.code == 2, "it has no configuration"
    other.configure()
    assert project.run("apply", cwd=other.root).code == 0
    project.query("CREATE TABLE hashes (hash, applied_at)")
    for hash, applied_at in other.query("SELECT hash, applied_at FROM _flux_migrations"):
        project.query(f"INSERT INTO hashes VALUES ('{hash}', '{applied_at}')")

    assert project.succeed("apply").endswith("2 migrations applied\n")
    assert project.applied() == ["001", "002", "003"]
    assert project.query("SELECT id FROM counted") == [(3,)]
