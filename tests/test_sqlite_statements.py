"""SQLite: what flux runs around a migration, and that what it leaves out is not needed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

import flux
from flux import FluxRunner
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests.project import Project

#: A word that acts on the transaction is enough for a migration to have one alone.
ALONE = "SELECT 1 -- no savepoint"
PLAIN = "CREATE TABLE plain (id)"
PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
CHILD = "CREATE TABLE child (parent REFERENCES parent (id))"
ORPHAN = "INSERT INTO child VALUES (7)"
FAILED = "FOREIGN KEY constraint failed: child refers to rows that are not in parent: 7"


@pytest.mark.parametrize(
    ("migration", "around"),
    [
        pytest.param(
            PLAIN, ["{migration}", "{record}", "PRAGMA main.data_version"], id="no foreign keys"
        ),
        pytest.param(
            "CREATE TABLE child (parent REFERENCES parent (id))",
            ["{migration}", "{record}", "PRAGMA main.foreign_key_check"],
            id="a foreign key",
        ),
        pytest.param(
            'CREATE VIEW ended AS SELECT 1 AS "end"',
            [
                "SAVEPOINT flux_migration",
                "{migration}",
                "RELEASE flux_migration",
                "{record}",
                "PRAGMA main.data_version",
            ],
            id="a word that may end the transaction",
        ),
    ],
)
def test_the_statements_around_a_migration(
    project: Project, migration: str, around: list[str]
) -> None:
    """They are what a migration costs beside its own."""
    project.query("CREATE TABLE first (id)")
    project.add({"001.sql": ALONE, "002.sql": migration})
    ran: list[str] = []
    with FluxRunner.from_file(project.root / "flux.toml") as runner:
        runner.backend.dbapi.set_trace_callback(ran.append)
        runner.apply_migrations()
        runner.backend.dbapi.set_trace_callback(None)
    begin = len(ran) - 1 - ran[::-1].index("BEGIN IMMEDIATE")
    names = {migration: "{migration}", 'INSERT INTO "_flux_migrations"': "{record}"}
    names |= {'SELECT 1 FROM "_flux_migrations"': "{guard}"}
    told = [
        next((name for start, name in names.items() if sql.startswith(start)), sql)
        for sql in ran[begin - 1 :]
    ]
    assert told == ["PRAGMA foreign_keys", "BEGIN IMMEDIATE", "{guard}", *around, "COMMIT"]


FOREIGN_KEYS = {
    "in lower case": {"002.sql": f"{PARENT} {CHILD.lower()}"},
    "without a space": {"002.sql": f'{PARENT} CREATE TABLE child ("parent"REFERENCES[parent](id))'},
    "by ALTER TABLE": {
        "002.sql": f"{PARENT} CREATE TABLE child (id);"
        "ALTER TABLE child ADD COLUMN parent REFERENCES parent (id); ALTER TABLE child DROP id"
    },
    "by Python": {
        "002.py": "def apply(connection):\n"
        "    connection.execute('CREATE TABLE parent (id INTEGER PRIMARY KEY)')\n"
        "    connection.execute('CREATE TABLE child (parent REF' 'ERENCES parent (id))')\n"
    },
    "without a transaction": {"002.sql": f"-- flux: no-transaction\n{PARENT} {CHILD};"},
    "in the text of the schema": {
        "002.sql": f"{PARENT} CREATE TABLE child (parent); PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE TABLE child (parent REF' || 'ERENCES parent (id))'"
        "WHERE name = 'child'; PRAGMA writable_schema = RESET"
    },
    "before a repeatable": {"pre-apply/all.sql": PLAIN, "002.sql": f"{PARENT} {CHILD}"},
    "by a repeatable": {
        "pre-apply/all.sql": f"{PARENT.replace('TABLE', 'TABLE IF NOT EXISTS')} "
        f"{CHILD.replace('TABLE', 'TABLE IF NOT EXISTS')}"
    },
}


@pytest.mark.parametrize("files", FOREIGN_KEYS.values(), ids=FOREIGN_KEYS)
def test_a_foreign_key_that_is_made_on_the_way_is_checked(
    project: Project, files: dict[str, str]
) -> None:
    """Of the same batch, and however it is made."""
    project.add({"001.sql": "CREATE TABLE first (id)", **files, "003.sql": ORPHAN})
    assert FAILED in project.fail("apply")
    assert project.query("SELECT count(*) FROM child") == [(0,)]


@pytest.mark.parametrize("is_handed_in", [True, False])
def test_a_foreign_key_that_somebody_else_makes_is_checked(
    project: Project, is_handed_in: bool
) -> None:
    """By another connection, or between two migrations by the one that was handed in."""
    project.add({"001.sql": PLAIN, "002.sql": ALONE, "003.sql": ORPHAN})
    with closing(sqlite3.connect(project.database)) as connection:

        def on_event(event: Event) -> None:
            if event.kind == "done" and event.step is not None and event.step.name == "002":
                connection.executescript(f"{PARENT} {CHILD};")

        database = connection if is_handed_in else str(project.database)
        with pytest.raises(MigrationApplyError, match=FAILED):
            flux.apply(database, project.root / "migrations", on_event=on_event)
    assert project.query("SELECT count(*) FROM child") == [(0,)]


@pytest.mark.parametrize(
    "ending", ["COMMIT; BEGIN", "END; BEGIN", "commit; begin", "ROLLBACK; BEGIN"]
)
def test_a_text_that_ends_the_transaction_is_noticed(project: Project, ending: str) -> None:
    """Also where nobody has checked it before: a backend may be used without a runner."""
    project.add({"001.sql": PLAIN})
    with FluxRunner.from_file(project.root / "flux.toml") as runner:
        runner.apply_migrations()
        backend = runner.backend
        migration = flux.Migration.from_text("002", f"SELECT 1; {ending}; SELECT 2;")
        with pytest.raises(Exception, match="transaction"):
            backend.run_migration(migration)
    assert project.applied() == ["001"]
