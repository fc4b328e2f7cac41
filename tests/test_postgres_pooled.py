"""Behind PgBouncer in transaction mode, flux does all that it does on a direct connection."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import pytest

import flux
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests import driver
from tests.pgbouncer import PgBouncer, running_pgbouncer
from tests.postgres_project import PostgresProject
from tests.test_postgres_lock import (
    HOLDERS,
    NO_TRANSACTION,
    PASS_GATE,
    at_the_gate,
    closed_gate,
    end,
    holder,
)
from tests.test_postgres_waits import blocking
from tests.test_replicas import LOCKS_LEFT


@pytest.mark.parametrize("directive", ["", NO_TRANSACTION])
def test_an_error_points_at_its_character(pg_pooled: PostgresProject, directive: str) -> None:
    pg_pooled.add({"001.sql": f"{directive}CREATE TABLE t ();\nSELECT  nope FROM t;\n"})
    line = 3 if directive else 2
    assert str(pg_pooled.exception()).startswith(
        f'migrations/001.sql:{line}:9: applying 001 failed: column "nope" does not exist\n'
        f"    {line} | SELECT  nope FROM t;\n"
        "      |         ^\n"
    )
    assert pg_pooled.tables() == (["t"] if directive else [])


def test_an_error_without_a_position_names_its_statement(pg_pooled: PostgresProject) -> None:
    pg_pooled.add({"001.sql": "SELECT 1;\n\nSELECT 1/0;\nSELECT 2;\n"})
    assert pg_pooled.error() == (
        "migrations/001.sql:3: applying 001 failed: division by zero\n"
        "    3 | SELECT 1/0;\n"
        "state: rolled back; the database is as it was before 001"
    )


def test_copy_python_repeatables_and_rollback(pg_pooled: PostgresProject) -> None:
    """And `status` tells of each; nothing keeps a lock."""
    pg = pg_pooled
    pg.add(
        {
            "001.sql": "CREATE TABLE t (x int);\nCOPY t FROM stdin;\n1\n2\n\\.\n"
            "INSERT INTO t VALUES (3);\nCOPY t FROM stdin;\n4\n\\.\n",
            "002.py": "def apply(connection):\n    with connection.cursor('c') as rows:\n"
            "        rows.execute('SELECT x FROM t ORDER BY x')\n"
            "        assert [x for (x,) in rows] == [1, 2, 3, 4]\n"
            "    connection.cursor().execute('SAVEPOINT s; INSERT INTO t VALUES (5); RELEASE s')\n"
            "def undo(connection):\n"
            "    connection.cursor().execute('DELETE FROM t WHERE x = 5')\n",
            "003.sql": NO_TRANSACTION + "CREATE INDEX CONCURRENTLY i ON t (x);",
            "003.undo.sql": NO_TRANSACTION + "DROP INDEX CONCURRENTLY i;",
            "pre-apply/a.sql": "SELECT 1;",
            "post-apply/v.sql": "-- flux: on-change\nCREATE OR REPLACE VIEW v AS SELECT 1;",
        }
    )
    assert [step.name for step in pg.apply().steps] == [
        "pre-apply/a",
        "001",
        "002",
        "003",
        "post-apply/v",
    ]
    assert pg.succeed("status").endswith("\n3 migrations: 3 applied\n")
    assert pg.apply().steps == ()
    assert pg.query("SELECT count(*) FROM t") == [(5,)]
    assert pg.rollback(2).undone == ("003", "002")
    assert pg.query("SELECT count(*) FROM t") == [(4,)]
    assert pg.applied() == ["001"]
    assert pg.query(LOCKS_LEFT) == []


def test_a_migration_lets_go_comes_again_and_names_the_blocker(
    pg_pooled: PostgresProject, pgbouncer: PgBouncer
) -> None:
    pg = pg_pooled
    pg.query("CREATE TABLE t (a int)")
    pg.add({"001.sql": "CREATE TABLE fresh (a int);\nALTER TABLE t ADD COLUMN b int;"})
    pg.configure(
        backend="lock_timeout = 0.6\nlock_retries = 50",
        url=pgbouncer.url(pg.postgres.database),
    )
    told: list[str] = []
    with blocking(pg) as let_go:

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                told.append(event.message)
                if len(told) == 2:
                    let_go.set()

        with pg.runner(on_event=on_event) as runner:
            assert runner.apply_migrations().applied == ("001",)
    assert len(told) >= 2
    for message in told[:2]:  # after those, nobody blocks it
        assert message.startswith("migrations/001.sql did not get a lock in time, blocked by pid ")
        assert "(sitter, on 127.0.0.1), idle in transaction for " in message
    assert pg.tables() == ["fresh", "t"]


def test_a_waiter_names_the_session_of_the_pool(pg_pooled: PostgresProject) -> None:
    """That is who holds the lock on the server, and what can be ended there."""
    pg_pooled.add({"001.sql": PASS_GATE})
    with closed_gate(pg_pooled) as open_gate, pg_pooled.started("apply") as first:
        at_the_gate(pg_pooled)
        error = pg_pooled.fail("apply", "--lock-wait", "0", code=5)
        assert error.startswith(f"error: pid {holder(pg_pooled)} (")
        open_gate()
        assert end(first)[::2] == (0, "")


# A pool with one session --------------------------------------------------------------------


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
def test_a_pool_of_one_session(pg_alone: PostgresProject, handed_in: bool) -> None:
    """Nothing hangs: each migration takes the lock itself; without a transaction none runs."""
    pg = pg_alone
    pg.add(
        {
            "001.sql": HOLDERS,
            "002.py": "def apply(c):\n    c.cursor().execute('CREATE TABLE t ()')\n",
            "post-apply/x.sql": "SELECT 1",
        }
    )
    with running_pgbouncer(pg.postgres.server, pool_size=1) as pooler, ExitStack() as stack:
        url = pooler.url(pg.postgres.database)
        pg.configure(url=url)
        database: Any = url
        if handed_in:
            database = stack.enter_context(closing(driver.connect(url)))
        assert flux.apply(database, config="flux.toml").applied == ("001", "002")
        assert [row[1] for row in pg.query("SELECT * FROM holders")] == [True]
        pg.add({"003.sql": NO_TRANSACTION + "CREATE TABLE never ()"})
        with pytest.raises(MigrationApplyError) as caught:
            flux.apply(database, config="flux.toml")
        assert "failed: it runs without a transaction, and there is no second connection" in str(
            caught.value
        )
    assert pg.applied() == ["001", "002"]
    assert pg.query(LOCKS_LEFT) == []


@pytest.mark.parametrize("place", ["pg", "pg_pooled"])
def test_an_isolation_level_of_a_files_own_works_with_the_fence(
    place: str, request: pytest.FixtureRequest
) -> None:
    """SET TRANSACTION comes before the fence, which is a query; the fence is held all the same."""
    pg: PostgresProject = request.getfixturevalue(place)
    pg.add(
        {
            "001.sql": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\n"
            "CREATE TABLE t AS SELECT current_setting('transaction_isolation') AS level,\n"
            "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2\n"
            "AND pid = pg_backend_pid()) AS fences;"
        }
    )
    assert pg.apply().applied == ("001",)
    assert pg.query("SELECT * FROM t") == [("serializable", 1)]
