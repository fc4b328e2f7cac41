"""What a migration does to its session reaches nobody: no other migration, nor other clients."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pytest

import flux
from flux.backends.postgres_leftovers import Leftovers, leaves_something
from flux.exceptions import MigrationApplyError, MigrationLoadingError
from flux.migration import Script
from flux.statements import Statement, split
from tests import driver
from tests.postgres_project import PostgresProject
from tests.test_postgres_lock import HOLDERS, NO_TRANSACTION
from tests.test_replicas import pool_state

#: One row: all of a session that a script can change for others. Flux's own locks are not in it.
STATE = """
SELECT current_setting('search_path'), current_user::text, session_user::text,
    current_setting('role'),
    (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings WHERE name IN
     ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'row_security', 'DateStyle',
      'default_transaction_isolation', 'default_transaction_read_only',
      'default_transaction_deferrable', 'client_encoding', 'client_min_messages', 'TimeZone',
      'bytea_output', 'synchronous_commit', 'session_replication_role', 'lc_messages')),
    nullif(current_setting('app.tenant', true), ''), nullif(current_setting('app.x', true), ''),
    (SELECT array_agg(relname::text ORDER BY relname) FROM pg_class
     WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'v', 'S')),
    (SELECT array_agg(name ORDER BY name) FROM pg_cursors WHERE is_holdable),
    (SELECT array_agg(name ORDER BY name) FROM pg_prepared_statements),
    (SELECT array_agg(name ORDER BY name) FROM pg_listening_channels() name),
    (SELECT array_agg(objid::text || mode ORDER BY 1) FROM pg_locks WHERE locktype = 'advisory'
     AND pid = pg_backend_pid() AND objid BETWEEN 9000 AND 9999)
"""
#: The same with the timeouts, which flux sets for each migration.
STATE_OUTSIDE = (
    STATE.rstrip() + ", current_setting('statement_timeout'), current_setting('lock_timeout')"
)
CHANGES = {
    "search_path": "SET search_path = pg_catalog",
    "set_config": "SELECT pg_catalog.set_config('search_path', '', false)",
    "role": "SET ROLE pg_monitor",
    "session authorization": "SET SESSION AUTHORIZATION pg_monitor",
    "timeouts": "SET statement_timeout = '77s'; SET lock_timeout = '77s'; "
    "SET idle_in_transaction_session_timeout = '77s'; SET idle_session_timeout = '77s'",
    "default_transaction": "SET default_transaction_isolation = serializable; "
    "SET default_transaction_read_only = on; SET default_transaction_deferrable = on",
    "characteristics": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "DateStyle": "SET DateStyle = German; SET TimeZone = 'Asia/Tokyo'",
    "client_encoding": "SELECT set_config('client_encoding', 'latin1', false)",
    "row_security": "SET row_security = off",
    "others": "SET client_min_messages = error; SET bytea_output = escape; "
    "SET synchronous_commit = off; SET session_replication_role = replica",
    "a placeholder": "SET app.x = 'mine'; SET app.tenant = '8'",
    "a placeholder by set_config": "SELECT set_config('app.x', 'mine', false); "
    "SELECT set_config( 'App.Tenant' , '8', false)",
    "a placeholder in a block": "DO $$ BEGIN PERFORM set_config('app.x', 'mine', false); "
    "EXECUTE 'SET app.tenant = ''8'''; END $$",
    "temporary": "CREATE TEMP TABLE passing (x int PRIMARY KEY); CREATE TEMP SEQUENCE counting; "
    "CREATE TEMP VIEW looking AS SELECT * FROM passing",
    "a cursor": "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9); FETCH c",
    "a prepared statement": "PREPARE p AS SELECT 1; EXECUTE p",
    "a channel": "LISTEN news",
    "locks": "SELECT pg_advisory_lock(9001); SELECT pg_advisory_lock(9001); "
    "SELECT pg_advisory_lock_shared(9002), pg_try_advisory_lock(9003, 9004)",
}
SETTINGS = [
    name
    for name, change in CHANGES.items()
    if change.startswith(("SET ", "SELECT set_config", "SELECT pg_catalog.set_config"))
]
PYTHON = '''
def apply(connection):
    with connection.cursor() as cursor:
        cursor.execute("""{change}""")
{ending}
'''
each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
each_kind = pytest.mark.parametrize("kind", ["text", "no-transaction", "Python"])
each_fate = pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])


def script(kind: str, change: str, *, fails: bool) -> dict[str, str]:
    """The migration 002, which makes a change and then, perhaps, fails."""
    if kind == "Python":
        ending = "        raise ValueError" if fails else ""
        return {"002.py": PYTHON.format(change=change, ending=ending)}
    directive = NO_TRANSACTION if kind == "no-transaction" else ""
    if directive and change.startswith(("CREATE TEMP", "DECLARE", "PREPARE")):
        change = f"BEGIN; {change}; COMMIT"  # each would be gone behind its statement
    return {"002.sql": f"{directive}{change};" + ("\nSELECT 1/0;" if fails else "")}


def states(pg: PostgresProject, pooled_url: str) -> set[tuple[Any, ...]]:
    """The different states of the sessions of a pool, which has one at least."""
    with closing(psycopg2.connect(pooled_url)) as connection:
        connection.cursor().execute("SELECT 1")
        connection.commit()
    return pool_state(pg, pooled_url, f"SELECT s::text FROM ({STATE_OUTSIDE}) s")


def look(pg: PostgresProject) -> str:
    """A script that notes the state it finds."""
    seen = f"{pg.postgres.schema}.seen"
    return (
        f"CREATE TABLE IF NOT EXISTS {seen} (state text);\n"
        f"INSERT INTO {seen} SELECT s::text FROM ({STATE}) s;"
    )


@each_change
@each_kind
@each_fate
def test_it_does_not_reach_what_runs_next(
    pg: PostgresProject, change: str, kind: str, fails: bool
) -> None:
    """The next script finds what the first one found, and the history is complete."""
    pg.configure("post_apply_on_failure = true")
    pg.add({"001.sql": look(pg), **script(kind, change, fails=fails)})
    pg.add({"post-apply/look.sql": look(pg)})
    if fails:
        assert "applying 002 failed: " in pg.error()
    else:
        assert pg.apply().applied == ("001", "002")
    before, after = (state for (state,) in pg.query("SELECT state FROM seen"))
    assert before == after
    assert pg.applied() == (["001"] if fails else ["001", "002"])


@each_change
@pytest.mark.parametrize("kind", ["text", "Python"])
@each_fate
def test_it_does_not_reach_other_clients_of_a_pooler(
    pg_pooled: PostgresProject, pooled_url: str, change: str, kind: str, fails: bool
) -> None:
    """Whichever session of the pool they get is as a new one."""
    pg = pg_pooled
    pg.add({"001.sql": "SELECT 1", **script(kind, change, fails=fails)})
    before = states(pg, pooled_url)
    if fails:
        assert "applying 002 failed: " in pg.error()
    else:
        assert pg.apply().applied == ("001", "002")
    assert states(pg, pooled_url) == before
    assert len(before) == 1


@each_change
def test_without_a_transaction_each_statement_takes_its_changes_with_it(
    pg_pooled: PostgresProject, pooled_url: str, change: str
) -> None:
    """Behind a pooler, too: they are taken back in the transaction of the statement."""
    pg_pooled.add({"001.sql": "SELECT 1", **script("no-transaction", change, fails=False)})
    assert pg_pooled.apply().applied == ("001", "002")
    assert len(states(pg_pooled, pooled_url)) == 1


@pytest.mark.parametrize("change", SETTINGS)
def test_a_setting_for_what_runs_in_no_transaction_is_refused_behind_a_pooler(
    pg_pooled: PostgresProject, pooled_url: str, change: str
) -> None:
    """It would stay in whichever session of the pool it ran in; so nothing of it runs."""
    pg = pg_pooled
    pg.add({"001.sql": "SELECT 1", "002.sql": f"{NO_TRANSACTION}{CHANGES[change]};\nVACUUM;\n"})
    error = pg.error()
    assert error.startswith(
        "migrations/002.sql:2:1: applying 002 failed: behind a pooler this cannot run: a statement "
        "that runs in no transaction has a setting, which would reach other clients\n"
    )
    assert error.endswith("\ndone before it: 001\nstate: nothing of 002 ran")
    assert len(states(pg, pooled_url)) == 1


def test_what_leaves_nothing_runs_without_a_transaction_behind_a_pooler(
    pg_pooled: PostgresProject,
) -> None:
    pg_pooled.add(
        {
            "001.sql": f"{NO_TRANSACTION}CREATE TABLE t (a int);\n"
            "BEGIN; SET LOCAL work_mem = '1MB'; SELECT set_config('a.b', 'c', true); COMMIT;\n"
            "CREATE INDEX CONCURRENTLY i ON t (a);\n"
        }
    )
    assert pg_pooled.apply().applied == ("001",)


# A connection that was handed in -----------------------------------------------------------


HAS = """
SET app.tenant = 'it''s 7'; SET app.untouched = 'yes'; SET work_mem = '7MB';
CREATE TEMP TABLE mine (x int); PREPARE mine AS SELECT 1; LISTEN mine;
DECLARE mine CURSOR WITH HOLD FOR SELECT generate_series(1, 3);
SELECT pg_advisory_lock(9900), pg_advisory_lock_shared(9901);
"""
HANDED_IN = (
    STATE_OUTSIDE
    + ", current_setting('app.untouched', true), current_setting('work_mem'), "
    + "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
)


def state_of(connection: Any) -> tuple[Any, ...]:
    """The state of a session that was handed in; leaves it idle."""
    with connection.cursor() as cursor:
        cursor.execute(HANDED_IN)
        (row,) = cursor.fetchall()
    connection.rollback()
    return tuple(row)


@each_change
@each_kind
@each_fate
@pytest.mark.parametrize("has", ["", HAS], ids=["new", "in use"])
def test_an_applications_session_is_as_it_was(
    pg: PostgresProject, change: str, kind: str, fails: bool, has: str
) -> None:
    """Its placeholders too, which no list of the server's shows."""
    pg.add(script(kind, change, fails=fails))
    with closing(driver.connect(pg.postgres.url)) as connection:
        if has:
            connection.cursor().execute(has)
            connection.commit()
        before = state_of(connection)
        if fails:
            with pytest.raises(MigrationApplyError):
                flux.apply(connection, config="flux.toml")
        else:
            flux.apply(connection, config="flux.toml")
        assert state_of(connection) == before


@each_fate
def test_an_applications_session_that_may_use_no_second_connection(
    pg: PostgresProject, fails: bool
) -> None:
    """Settings are restored before the COMMIT, as behind a pooler, of which it could be one."""
    pg.query("CREATE ROLE single LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
    pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO single")
    server = pg.postgres.server
    change = f"{HOLDERS}{CHANGES['a placeholder']}; {CHANGES['search_path']}"
    pg.add(script("text", change, fails=fails))
    try:
        with closing(
            driver.connect(
                host=server.host,
                port=server.port,
                dbname=pg.postgres.database,
                user="single",
                password="p",
                options=f"-csearch_path={pg.postgres.schema}",
            )
        ) as connection:
            connection.cursor().execute("SET app.tenant = '7'")
            connection.commit()
            before = state_of(connection)
            if fails:
                with pytest.raises(MigrationApplyError):
                    flux.apply(connection, config="flux.toml")
            else:
                assert flux.apply(connection, config="flux.toml").applied == ("002",)
                assert [row[1] for row in pg.query("SELECT * FROM holders")] == [True]
            assert state_of(connection) == before
    finally:
        pg.query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'single'"
        )
        pg.query("DROP OWNED BY single CASCADE; DROP ROLE single")


@each_fate
def test_an_applications_session_behind_a_pooler_leaks_nothing(
    pg_pooled: PostgresProject, pooled_url: str, fails: bool
) -> None:
    pg = pg_pooled
    change = "; ".join([CHANGES["timeouts"], CHANGES["row_security"], CHANGES["search_path"]])
    pg.add(script("text", change, fails=fails))
    with closing(driver.connect(pooled_url)) as connection:
        before = states(pg, pooled_url)
        if fails:
            with pytest.raises(MigrationApplyError):
                flux.apply(connection, config="flux.toml")
        else:
            flux.apply(connection, config="flux.toml")
    assert len(before) == 1
    assert states(pg, pooled_url) == before


@pytest.mark.parametrize("statement", ["RESET ALL", "DISCARD ALL"])
def test_what_would_wipe_an_applications_own_settings_is_refused(
    pg: PostgresProject, statement: str
) -> None:
    """On a connection that was handed in alone: no list of the server's shows placeholders."""
    pg.add({"001.sql": f"{NO_TRANSACTION}SELECT 1;\n{statement};"})
    with closing(driver.connect(pg.postgres.url)) as connection:
        connection.cursor().execute("SET app.tenant = '7'")
        connection.commit()
        before = state_of(connection)
        with pytest.raises(MigrationLoadingError) as caught:
            flux.apply(connection, config="flux.toml")
        assert str(caught.value) == (
            f"migrations/001.sql:3:1: {statement} would take the settings of the application from "
            "the connection that it has handed in\n"
            f"    3 | {statement};\n"
            "      | ^\n"
            "hint: remove it: flux restores what a migration sets; or give flux an address"
        )
        assert state_of(connection) == before
    assert pg.apply().applied == ("001",)


# What a text names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SET app.x = 1", ("app.x",)),
        ("set session App.X to 1; SET LOCAL b.c = 2; RESET d.e", ("app.x", "b.c", "d.e")),
        ('SET "app".x = 1', ("app.x",)),
        ("SELECT set_config('app.x', v, false), set_config('work_mem', v, true)", ("app.x",)),
        ("DO 'BEGIN PERFORM set_config(''app.x'', ''1'', false); END'", ("app.x",)),
        ("SELECT a.b FROM c.d", ()),
        ("SET a.b.c = 1", ("a.b.c",)),
    ],
)
def test_the_placeholders_that_a_text_names(text: str, names: tuple[str, ...]) -> None:
    assert Leftovers.of(Script.from_text(text, "x.sql")).placeholders == names


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("SET x = 1", True),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", True),
        ("SET LOCAL x = 1", False),
        ("SET TRANSACTION READ ONLY", False),
        ("SET CONSTRAINTS ALL DEFERRED", False),
        ("SELECT set_config('a', 'b', true)", False),
        ("SELECT set_config('a', 'b', false)", True),
        ("SELECT pg_advisory_xact_lock(1)", False),
        ("SELECT pg_try_advisory_lock(1)", True),
        ("PREPARE TRANSACTION 'x'", False),
        ("PREPARE p AS SELECT 1", True),
        ("UPDATE t SET a = 1", False),
        ("LOAD 'auto_explain'", True),
        ("CREATE TEMPORARY TABLE t ()", True),
    ],
)
def test_what_a_statement_leaves(text: str, leaves: bool) -> None:
    (statement,) = split(text, "postgres")
    assert isinstance(statement, Statement)
    assert leaves_something(statement) == leaves
