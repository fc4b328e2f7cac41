"""Waits on PostgreSQL: timeouts, coming again, and what is told meanwhile."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest

from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests.postgres_project import PostgresProject
from tests.test_postgres_lock import eventually


@pytest.fixture
def table(pg: PostgresProject) -> PostgresProject:
    """A project with a table, and a migration that needs a lock on it."""
    pg.query("CREATE TABLE t (a int)")
    pg.add({"001.sql": "CREATE TABLE fresh (a int);\nALTER TABLE t ADD COLUMN b int;"})
    return pg


@contextmanager
def blocking(pg: PostgresProject) -> Iterator[threading.Event]:
    """A session that sits in a transaction, with a lock on the table, until the event is set."""
    let_go = threading.Event()
    with (
        pg.postgres.connect(application_name="sitter") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("BEGIN; SELECT count(*) FROM t")

        def wait() -> None:
            let_go.wait(60)
            with connection.cursor() as cursor:
                cursor.execute("COMMIT")

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield let_go
        finally:
            let_go.set()
            thread.join()


def test_a_migration_lets_go_and_comes_again(table: PostgresProject) -> None:
    """It succeeds once the blocker is gone; nothing of the tries before is left."""
    table.configure(backend="lock_timeout = 0.2\nlock_retries = 50")
    told: list[str] = []
    with blocking(table) as let_go:

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                told.append(event.message)
                if len(told) == 2:
                    let_go.set()

        with table.runner(on_event=on_event) as runner:
            assert runner.apply_migrations().applied == ("001",)
    for number, message in enumerate(told, 1):
        assert message.startswith("migrations/001.sql did not get a lock in time, blocked by pid ")
        assert "(sitter, on 127.0.0.1), idle in transaction for 0 s: BEGIN; SELECT count(*)" in (
            message.replace(" for 1 s", " for 0 s").replace(" for 2 s", " for 0 s")
        )
        assert message.endswith(f" ({number} of 50)")
    assert table.tables() == ["fresh", "t"]
    assert table.query("SELECT count(*) FROM _flux_migrations") == [(1,)]


@contextmanager
def reading(pg: PostgresProject, limit: str) -> Iterator[list[psycopg2.Error]]:
    """Query the table all the time; what the server ended, as it waited for longer than `limit`."""
    ended: list[psycopg2.Error] = []
    stop = threading.Event()

    def read() -> None:
        with closing(pg.postgres.connect(application_name="reader", lock_timeout=limit)) as reader:
            cursor = reader.cursor()
            while not stop.is_set():
                try:
                    cursor.execute("SELECT count(*) FROM t")
                except psycopg2.Error as error:
                    ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join()


READER_IS_BLOCKED_BY_FLUX = """
SELECT 1 FROM pg_stat_activity reader JOIN pg_stat_activity f
ON f.application_name LIKE 'flux%' AND f.pid = ANY (pg_blocking_pids(reader.pid))
WHERE reader.application_name = 'reader'
"""


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        pytest.param("lock_timeout = 0.3\nlock_retries = 50", "1500ms", id="set"),
        pytest.param("", "8s", id="by default"),  # 5 seconds
    ],
)
def test_no_query_is_blocked_for_longer_than_the_lock_timeout(
    table: PostgresProject, settings: str, limit: str
) -> None:
    """Queries stand in line behind the ALTER TABLE, which lets go in time, tells, comes again."""
    table.configure(backend=settings)
    with (
        blocking(table) as let_go,
        table.started("apply") as process,
        reading(table, limit) as ended,
    ):
        eventually(lambda: table.query(READER_IS_BLOCKED_BY_FLUX), "a query behind the ALTER TABLE")
        assert process.stderr is not None
        told = next(line for line in process.stderr if "did not get a lock in time" in line)
        let_go.set()
        assert process.wait() == 0
    assert ended == []
    assert re.match(
        r"flux: migrations/001\.sql did not get a lock in time, blocked by pid \d+ "
        r"\(sitter, on 127\.0\.0\.1\), idle in transaction for \d s: BEGIN; SELECT count\(\*\)",
        told,
    ), told
    assert (table.tables(), table.applied()) == (["fresh", "t"], ["001"])


def test_it_gives_up_after_the_last_try(table: PostgresProject) -> None:
    table.configure(backend="lock_timeout = 0.05\nlock_retries = 0")
    with blocking(table):
        error = table.exception()
    assert isinstance(error, MigrationApplyError)
    assert str(error) == (
        "migrations/001.sql:2: applying 001 failed: canceling statement due to lock timeout\n"
        "    2 | ALTER TABLE t ADD COLUMN b int;\n"
        "state: rolled back; the database is as it was before 001"
    )
    assert (table.tables(), table.applied()) == (["t"], [])


@pytest.mark.parametrize(
    ("backend", "directive", "lock", "statement"),
    [
        pytest.param("", "", "5s", "0", id="by default"),
        pytest.param("lock_timeout = 1.5\nstatement_timeout = 60", "", "1500ms", "1min", id="set"),
        pytest.param("lock_timeout = 0", "", "0", "0", id="without limit"),
        pytest.param("", "-- flux: lock-timeout=250ms", "250ms", "0", id="for one file"),
        pytest.param(
            "lock_timeout = 1",
            "-- flux: lock-timeout=0 statement-timeout = 2min",
            "0",
            "2min",
            id="for one file, before the settings",
        ),
    ],
)
def test_timeouts(
    pg: PostgresProject, backend: str, directive: str, lock: str, statement: str
) -> None:
    """They are the migration's own: the next session statement of flux has the server's."""
    seen = (
        "INSERT INTO seen SELECT current_setting('lock_timeout'), "
        "current_setting('statement_timeout');"
    )
    pg.configure(backend=backend)
    pg.query("CREATE TABLE seen (lock text, statement text)")
    pg.add(
        {
            "001.sql": f"{directive}\n{seen}",
            "002.py": f'def apply(connection):\n    connection.cursor().execute("{seen}")\n',
            "003.sql": f"-- flux: no-transaction\n{seen}",
        }
    )
    pg.apply()
    first, second, third = pg.query("SELECT * FROM seen")
    assert first == (lock, statement)
    assert (second == first) == (not directive)
    assert third == ("0", "0")


def test_a_statement_that_takes_too_long_is_ended(pg: PostgresProject) -> None:
    pg.add({"001.sql": "-- flux: statement-timeout=100ms\nSELECT 1;\nSELECT pg_sleep(60);"})
    assert pg.error() == (
        "migrations/001.sql:3: applying 001 failed: canceling statement due to statement timeout\n"
        "    3 | SELECT pg_sleep(60);\n"
        "state: rolled back; the database is as it was before 001"
    )
    assert pg.applied() == []


def test_what_takes_long_is_told_while_it_runs(table: PostgresProject) -> None:
    table.configure(backend="lock_timeout = 0")
    told: list[str] = []
    with blocking(table) as let_go:

        def on_event(event: Event) -> None:
            if event.kind == "progress":
                told.append(event.message)
                let_go.set()

        with table.runner(on_event=on_event) as runner:
            runner.apply_migrations()
    assert told[0].startswith(
        "migrations/001.sql:2 (2 of 2, ALTER TABLE t ADD COLUMN b int) runs for 2 s, "
        "blocked by pid "
    )
    assert "(sitter, on 127.0.0.1), idle in transaction for " in told[0]


def test_a_role_that_may_not_look_still_migrates(table: PostgresProject) -> None:
    """Watching never breaks what is watched: here its connection is ended under it."""
    table.configure(backend="lock_timeout = 0")
    table.add({"001.sql": "SELECT pg_sleep(3);"})
    with table.started("apply") as process:
        while not table.query(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
        ):
            assert process.poll() is None
        table.query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND objsubid = 1 AND objid = 3589"
        )
        _, err = process.communicate()
    assert process.returncode == 1
    assert "the migration lock was lost" in err
    assert table.applied() == []


def test_the_statement_of_a_killed_run_ends_soon(pg: PostgresProject) -> None:
    """The server looks whether its client is still there, and so the next run need not wait."""
    [(version,)] = pg.query("SHOW server_version_num")
    if int(version) < 140000:
        pytest.skip("client_connection_check_interval is new in PostgreSQL 14")
    pg.add({"001.sql": "CREATE TABLE half (a int);\nSELECT pg_sleep(3600);"})
    with pg.started("apply") as process:
        while not pg.query(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
            "AND query LIKE '%CREATE TABLE half%' AND pid <> pg_backend_pid()"
        ):
            assert process.poll() is None
        process.kill()
        process.wait()
    pg.add({"001.sql": "CREATE TABLE whole (a int);"})
    pg.apply()  # waits at the fence, and not for an hour
    assert (pg.tables(), pg.applied()) == (["whole"], ["001"])


def test_reading_says_that_it_waits(pg: PostgresProject) -> None:
    """A session that has locked the history itself holds up `status`, but not in silence."""
    pg.add({"001.sql": "CREATE TABLE t (a int);"})
    pg.apply()
    told: list[str] = []
    with pg.postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE _flux_migrations")

        def on_event(event: Event) -> None:
            told.append(event.message)
            cursor.execute("COMMIT")

        with pg.runner(on_event=on_event) as runner:
            assert [row.state for row in runner.status().rows] == ["applied"]
    assert told == ["waiting for the history: another session has it locked"]
