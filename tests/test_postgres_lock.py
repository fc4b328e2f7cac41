"""One flux at a time on one PostgreSQL database, whoever waits, dies or is thrown out."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

import flux
from flux.exceptions import MigrationApplyError, MigrationLockError
from flux.results import Event
from tests import driver
from tests.postgres_project import PostgresProject

NO_TRANSACTION = "-- flux: no-transaction\n"
LOCK, GATE = 3589, 777
PASS_GATE = f"SELECT pg_advisory_xact_lock({GATE});"
WAITING = (
    r"flux: waiting for pid (\d+) \((\S+), on 127\.0\.0\.1, since \d{4}-\d\d-\d\d .+\), "
    r"which is running migrations on this database\n"
)
_PROGRESS = re.compile(r"^flux: migrations/.* runs for \d+ s.*\n", re.MULTILINE)

# Watching from outside ----------------------------------------------------------------------


def eventually(look: Callable[[], Any], what: str) -> Any:
    """What `look` gives as soon as that is true; fails after a minute."""
    for _ in range(3000):
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never seen: {what}")


@contextmanager
def closed_gate(pg: PostgresProject) -> Iterator[Callable[[], None]]:
    """Hold up every migration that has `PASS_GATE`, until what is given is called."""
    with closing(pg.postgres.connect(application_name="gate")) as connection:
        connection.cursor().execute(f"SELECT pg_advisory_lock({GATE})")
        yield connection.close


def sessions(pg: PostgresProject, number: int, *, granted: bool) -> list[int]:
    """The pids that hold, or wait for, the advisory lock of a number."""
    rows = pg.query(
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' "
        f"AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        f"AND objid = {number} AND objsubid = 1 AND granted = {granted} "
        "AND application_name <> 'gate'"
    )
    return [pid for (pid,) in rows]


def at_the_gate(pg: PostgresProject) -> int:
    """The pid of the session that runs the migration at the gate."""
    (pid,) = eventually(lambda: sessions(pg, GATE, granted=False), "a migration at the gate")
    return int(pid)


def holder(pg: PostgresProject) -> int:
    """The pid of the session that holds the lock."""
    (pid,) = sessions(pg, LOCK, granted=True)
    return pid


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, output and errors of a process that comes to its end.

    Without the progress of a script that takes long: on a busy machine any may.
    """
    out, err = process.communicate()
    return process.returncode, out, _PROGRESS.sub("", err)


def applied_in(out: str) -> list[str]:
    """The ids that a run says it has applied."""
    return re.findall(r"^applied +\d+ ms  (\S+)$", out, re.MULTILINE)


# Several at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("kind", ["transaction", "concurrently"])
def test_of_several_processes_each_migration_is_applied_by_one(
    pg: PostgresProject, count: int, kind: str
) -> None:
    """All of them exit with 0, and what each says that it did adds up to every migration once."""
    ids = [f"{number:03}" for number in range(1, 9)]
    pg.query("CREATE TABLE ran (id text)")
    for id in ids:
        text = f"INSERT INTO ran VALUES ('{id}');"
        if kind == "concurrently":
            text = f"{NO_TRANSACTION}{text}\nCREATE INDEX CONCURRENTLY i{id} ON ran (id);"
        pg.add({f"{id}.sql": text})
    with ExitStack() as stack:
        processes = [stack.enter_context(pg.started("apply")) for _ in range(count)]
        ends = [end(process) for process in processes]
    assert [code for code, _, _ in ends] == [0] * count, ends
    assert sorted(id for _, out, _ in ends for id in applied_in(out)) == ids
    assert pg.query("SELECT id FROM ran ORDER BY id") == [(id,) for id in ids]
    assert pg.applied() == ids


def test_a_waiter_tells_for_whom_and_then_has_nothing_to_do(pg: PostgresProject) -> None:
    """Once, by pid, application and host of the session that holds the lock."""
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, pg.started("apply") as first:
        at_the_gate(pg)
        pid = holder(pg)
        with pg.started("apply") as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            open_gate()
            assert end(second) == (0, "nothing to do\n", "")
        assert end(first)[::2] == (0, "")
    found = re.fullmatch(WAITING, line)
    assert found is not None, line
    assert found.groups() == (str(pid), "flux")


def test_a_waiter_holds_one_connection_and_no_transaction(pg: PostgresProject) -> None:
    """Between its polls it is idle, and holds no snapshot, however often one looks."""
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, pg.started("apply") as first:
        at_the_gate(pg)
        url = f"{pg.postgres.url}&application_name=waiter"
        with pg.started("apply", env={"FLUX_DATABASE_URL": url}) as second:
            assert second.stderr is not None
            second.stderr.readline()
            seen: set[tuple[int, str, bool]] = set()
            polls: set[object] = set()

            def look() -> bool:
                rows = pg.query(
                    "SELECT pid, state, query_start, state = 'active' OR xact_start IS NULL AND "
                    "backend_xmin IS NULL FROM pg_stat_activity WHERE application_name = 'waiter'"
                )
                seen.update((len(rows), state, is_free) for _, state, _, is_free in rows)
                polls.update(query_start for _, _, query_start, _ in rows)
                return len(polls) > 5

            eventually(look, "a waiter that polls")
            open_gate()
            assert end(second)[0] == 0
        assert end(first)[0] == 0
    assert (1, "idle", True) in seen
    assert seen <= {(1, "idle", True), (1, "active", True)}


@pytest.mark.parametrize("arguments", [("--lock-wait", "0"), ("--lock-wait", "0.2")])
def test_a_wait_in_vain_has_its_own_exit_code(
    pg: PostgresProject, arguments: tuple[str, str]
) -> None:
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, pg.started("apply") as first:
        at_the_gate(pg)
        pid = holder(pg)
        error = pg.fail("apply", *arguments, code=5)
        assert re.fullmatch(
            ("" if arguments[1] == "0" else WAITING)
            + rf"error: pid {pid} \(flux, on 127\.0\.0\.1, since .+\) is running migrations on "
            r"this database, and still was after 0 s\n"
            r"hint: wait for it to end, or wait longer: --lock-wait SECONDS, or lock_wait in the "
            r"configuration\n",
            error,
        ), error
        open_gate()
        assert end(first)[0] == 0


def test_of_a_session_that_it_may_not_see_a_waiter_tells_no_host(pg: PostgresProject) -> None:
    """Rather than guess that it is on the server itself."""
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, pg.started("apply") as first, role(pg) as url:
        at_the_gate(pg)
        pg.configure(url=url)
        pg.query(f"GRANT USAGE ON SCHEMA {pg.postgres.schema} TO replica")
        pg.query("GRANT SELECT ON _flux_migrations TO replica")
        error = pg.fail("apply", "--lock-wait", "0", code=5)
        assert error.startswith(f"error: pid {holder(pg)} (flux) is running migrations")
        open_gate()
        assert end(first)[0] == 0


def test_a_waiter_does_not_hold_up_create_index_concurrently(pg: PostgresProject) -> None:
    """A waiter with a snapshot would wait for the index, and the index for the waiter."""
    pg.query("CREATE TABLE t (x int)")
    pg.add({"001.sql": NO_TRANSACTION + "CREATE INDEX CONCURRENTLY i ON t (x);"})
    with closing(pg.postgres.connect()) as writer, pg.started("apply") as first:
        writer.cursor().execute("BEGIN; INSERT INTO t VALUES (1)")
        eventually(
            lambda: pg.query(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' "
                "AND wait_event_type = 'Lock'"
            ) or first.poll() is not None,
            "an index that waits for the writer",
        )  # fmt: skip
        with pg.started("apply") as second:
            assert second.stderr is not None
            assert second.stderr.readline().startswith("flux: waiting for pid ")
            writer.cursor().execute("COMMIT")
            assert end(first)[::2] == (0, "")
            assert end(second)[0] == 0
    assert pg.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]
    assert pg.applied() == ["001"]


def test_the_session_lock_of_flux_migrations_003_is_the_same_lock(pg: PostgresProject) -> None:
    """It keeps flux out, and flux keeps it out."""
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, closing(pg.postgres.connect()) as legacy:
        cursor = legacy.cursor()
        cursor.execute(f"SELECT pg_advisory_lock({LOCK})")
        with pg.started("apply") as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert f"pid {legacy.info.backend_pid} " in line
            cursor.execute(f"SELECT pg_advisory_unlock({LOCK})")
            at_the_gate(pg)
            cursor.execute(f"SELECT pg_try_advisory_lock({LOCK})")
            assert cursor.fetchone() == (False,)
            open_gate()
            assert end(process)[0] == 0
    assert pg.applied() == ["001"]


def test_a_waiter_that_is_thrown_out_says_so(pg: PostgresProject) -> None:
    pg.add({"001.sql": PASS_GATE})
    with closed_gate(pg) as open_gate, pg.started("apply") as first:
        at_the_gate(pg)
        url = f"{pg.postgres.url}&application_name=waiter"
        with pg.started("apply", env={"FLUX_DATABASE_URL": url}) as second:
            assert second.stderr is not None
            second.stderr.readline()
            pg.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'waiter'"
            )
            code, out, err = end(second)
            assert (code, out) == (1, "")
            assert err.startswith("error: cannot take the migration lock: ")
        open_gate()
        assert end(first)[0] == 0


# The one that holds it dies -----------------------------------------------------------------


@pytest.mark.parametrize("content", ["text", "COPY", "Python"])
@pytest.mark.parametrize("fate", ["goes on", "is ended"])
def test_after_a_kill_the_next_run_waits_for_the_last_statement(
    pg: PostgresProject, content: str, fate: str
) -> None:
    """The lock is free at once; the fence keeps the two apart, and nothing runs twice.

    A dead one that goes on finds, before its COMMIT, that its lock is lost.
    """
    # Else the server sees within a second that it is dead, and nothing is left to wait for.
    unseen = "SET LOCAL client_connection_check_interval = 0;"
    insert = f"{unseen} INSERT INTO ran VALUES ('002');"
    pg.add({"001.sql": "CREATE TABLE ran (id text)", "003.sql": "INSERT INTO ran VALUES ('003')"})
    if content == "text":
        pg.add({"002.sql": f"{insert}\n{PASS_GATE}"})
    elif content == "COPY":
        pg.add({"002.sql": f"{unseen}\nCOPY ran FROM stdin;\n002\n\\.\n{PASS_GATE}"})
    else:
        pg.add(
            {
                "002.py": "def apply(connection):\n    with connection.cursor() as cursor:\n"
                f'        cursor.execute("{insert}")\n        cursor.execute("{PASS_GATE}")\n'
            }
        )
    with closed_gate(pg) as open_gate:
        with pg.started("apply") as first:
            dead = at_the_gate(pg)
            first.kill()
            first.wait()
            eventually(lambda: not sessions(pg, LOCK, granted=True), "the lock is free")
        with pg.started("apply") as second:
            assert second.stderr is not None
            told = second.stderr.readline()
            assert told.startswith(f"flux: waiting for pid {dead} (flux"), told
            assert ", left by a run that was cut off, " in told
            assert len(sessions(pg, GATE, granted=False)) == 1, "two run one migration"
            if fate == "is ended":
                pg.query(f"SELECT pg_terminate_backend({dead}, 5000)")
                assert at_the_gate(pg) != dead
            open_gate()
            code, out, err = end(second)
            assert (code, err) == (0, ""), err
    assert pg.query("SELECT id FROM ran ORDER BY id") == [("002",), ("003",)]
    assert pg.applied() == ["001", "002", "003"]
    assert applied_in(out) == ["002", "003"]


def test_the_wait_for_what_a_killed_run_left_has_a_limit(pg: PostgresProject) -> None:
    """Its host may have vanished without a word; who waits says for whom, and gives up in time."""
    pg.add({"001.sql": "CREATE TABLE t ()"})
    with closing(pg.postgres.connect(application_name="ghost")) as ghost, ghost.cursor() as cursor:
        cursor.execute("BEGIN; SELECT pg_advisory_xact_lock(1718383992, 3589)")
        error = pg.fail("apply", "--lock-wait", "0.1", code=5)
        assert f"error: pid {ghost.info.backend_pid} (ghost, on 127.0.0.1, since " in error
        assert pg.tables() == []
        with pg.started("apply") as process:
            assert process.stderr is not None
            assert "(ghost, on 127.0.0.1, since " in process.stderr.readline()
            cursor.execute("COMMIT")
            assert end(process)[0] == 0
    assert pg.applied() == ["001"]


def test_a_migration_does_not_commit_when_the_lock_is_lost(pg: PostgresProject) -> None:
    """The session that held it was ended while the migration ran."""
    pg.add({"001.sql": f"CREATE TABLE t ();\n{PASS_GATE}", "002.sql": "CREATE TABLE u ()"})
    with closed_gate(pg) as open_gate, pg.started("apply") as process:
        at_the_gate(pg)
        pg.query(f"SELECT pg_terminate_backend({holder(pg)}, 5000)")
        open_gate()
        assert end(process) == (
            1,
            "",
            "error: migrations/001.sql: applying 001 failed: the migration lock was lost: the "
            "session that held it was ended\n"
            "hint: run it again; if a pooler ends idle sessions, give flux a direct connection\n"
            "state: rolled back; the database is as it was before 001\n",
        )
    assert (pg.tables(), pg.applied()) == ([], [])
    assert pg.apply().applied == ("001", "002")


def test_whoever_takes_a_lost_lock_applies_what_the_loser_could_not(pg: PostgresProject) -> None:
    pg.add({"001.sql": f"CREATE TABLE t ();\n{PASS_GATE}", "002.sql": "CREATE TABLE u ()"})
    with closed_gate(pg) as open_gate, pg.started("apply") as loser:
        at_the_gate(pg)
        pg.query(f"SELECT pg_terminate_backend({holder(pg)}, 5000)")
        with pg.started("apply") as taker:
            assert taker.stderr is not None
            told = taker.stderr.readline()
            assert re.fullmatch(
                r"flux: waiting for pid .+, left by a run that was cut off, .+\n", told
            )
            assert sessions(pg, LOCK, granted=True), "the lock is taken again"
            open_gate()
            assert end(loser)[0] == 1
            code, out, _ = end(taker)
            assert (code, applied_in(out)) == (0, ["001", "002"])
    assert pg.tables() == ["t", "u"]


@pytest.mark.parametrize("kind", ["COPY", "Python", "no-transaction", "post-apply"])
def test_a_lock_that_is_lost_between_two_steps_stops_the_second(
    pg: PostgresProject, kind: str
) -> None:
    """Whatever kind it is of; and what was applied before stays."""
    files = {
        "COPY": {"002.sql": "CREATE TABLE u (x text);\nCOPY u FROM stdin;\na\n\\.\n"},
        "Python": {
            "002.py": "def apply(connection):\n"
            "    connection.cursor().execute('CREATE TABLE u ()')\n"
        },
        "no-transaction": {"002.sql": NO_TRANSACTION + "CREATE TABLE u ()"},
        "post-apply": {"post-apply/u.sql": "CREATE TABLE u ()"},
    }
    pg.add({"001.sql": "CREATE TABLE t ()", **files[kind]})

    def lose_the_lock(event: Event) -> None:
        if event.kind == "done" and event.step is not None and event.step.name == "001":
            pg.query(f"SELECT pg_terminate_backend({holder(pg)}, 5000)")

    with pytest.raises(MigrationApplyError) as caught, pg.runner(on_event=lose_the_lock) as runner:
        runner.apply_migrations()
    assert "failed: the migration lock was lost: " in str(caught.value)
    assert caught.value.done == ("001",)
    assert (pg.tables(), pg.applied()) == (["t"], ["001"])
    pg.apply()
    assert pg.tables() == ["t", "u"]


@pytest.mark.parametrize("timeout", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_timeouts_of_the_role_do_not_free_the_lock(pg: PostgresProject, timeout: str) -> None:
    """They end the session that holds it, which does nothing for as long as migrations run."""
    if timeout == "transaction_timeout" and pg.postgres.server.version < 170000:
        pytest.skip("transaction_timeout is new in PostgreSQL 17")
    with role(pg) as url:
        pg.query(f"ALTER ROLE replica SET {timeout} = '150ms'")
        pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO replica")
        pg.configure(url=url)
        ids = [f"{number:03}" for number in range(8)]
        pg.add({f"{id}.sql": "SELECT pg_sleep(0.05)" for id in ids})
        assert pg.apply().applied == tuple(ids)


# The second connection ----------------------------------------------------------------------


@contextmanager
def role(pg: PostgresProject, limit: int = -1) -> Iterator[str]:
    """A role `replica` of at most `limit` connections, that may log in and create; its URL."""
    schema, database = pg.postgres.schema, pg.postgres.database
    pg.query(f"CREATE ROLE replica LOGIN PASSWORD 'p%@ ss' CONNECTION LIMIT {limit}")
    pg.query(f"ALTER ROLE replica SET search_path = {schema}")
    server = pg.postgres.server
    try:
        yield f"postgresql://replica:p%25%40%20ss@{server.host}:{server.port}/{database}"
    finally:
        pg.query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'replica'"
        )
        pg.query("DROP OWNED BY replica CASCADE; DROP ROLE replica")


HOLDERS = f"""
CREATE TABLE holders AS SELECT a.pid, a.pid = pg_backend_pid() AS is_mine, usename::text
FROM pg_locks JOIN pg_stat_activity a USING (pid)
WHERE locktype = 'advisory' AND objid = {LOCK} AND objsubid = 1 AND granted;
"""


def apply_over(connection: Any, pg: PostgresProject) -> tuple[str, ...]:
    """Apply over a connection that is handed in."""
    return flux.apply(connection, config="flux.toml").applied


def test_a_connection_that_was_handed_in_gets_a_second_one_beside_it(pg: PostgresProject) -> None:
    """From what it knows of itself, the password included; it is gone afterwards."""
    pg.add(
        {
            "001.sql": HOLDERS,
            "002.sql": NO_TRANSACTION + "CREATE INDEX CONCURRENTLY i ON holders (pid)",
        }
    )
    with role(pg, limit=2) as url, closing(driver.connect(url)) as connection:
        pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO replica")
        assert apply_over(connection, pg) == ("001", "002")
        ((pid, is_mine, user),) = pg.query("SELECT * FROM holders")
        assert (is_mine, user) == (False, "replica")
        eventually(
            lambda: not pg.query(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"),
            "the second connection is closed",
        )


SESSIONS_OF_ROLE = "SELECT 1 FROM pg_stat_activity WHERE usename = 'replica'"


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
def test_without_a_second_connection_each_migration_takes_the_lock_itself(
    pg: PostgresProject, handed_in: bool
) -> None:
    """Applied, repeatables and undos too; but nothing that runs without a transaction."""
    pg.add(
        {
            "001.sql": HOLDERS,
            "002.sql": "CREATE TABLE t ()",
            "002.undo.sql": "DROP TABLE t",
            "post-apply/x.sql": "SELECT 1",
        }
    )
    with role(pg, limit=1) as url, ExitStack() as stack:
        pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO replica")
        pg.configure(url=url)
        database: Any = None
        if handed_in:
            database = stack.enter_context(closing(driver.connect(url)))

        def runner() -> flux.FluxRunner:
            # The server notices later that the connection before was closed.
            eventually(lambda: handed_in or not pg.query(SESSIONS_OF_ROLE), "the role is free")
            config = flux.FluxConfig.from_file("flux.toml")
            return flux.FluxRunner.from_config(config, database)

        with runner() as first:
            assert first.apply_migrations().applied == ("001", "002")
        assert [row[1:] for row in pg.query("SELECT * FROM holders")] == [(True, "replica")]
        with runner() as second:
            assert second.rollback_migrations().undone == ("002",)
        pg.add({"003.sql": NO_TRANSACTION + "CREATE TABLE never ()"})
        with pytest.raises(MigrationApplyError) as caught, runner() as third:
            third.apply_migrations()
        assert str(caught.value).startswith(
            "migrations/003.sql: applying 003 failed: it runs without a transaction, and there is "
            "no second connection to hold the migration lock meanwhile\n"
            "hint: let flux open one: raise the limit of connections, or hand in an address\n"
            "done before it: 002\n"
        )
        assert pg.tables() == ["holders", "t"]
        assert pg.applied() == ["001", "002"]


def test_without_a_second_connection_others_are_still_kept_out(pg: PostgresProject) -> None:
    pg.add({"001.sql": f"CREATE TABLE t ();\n{PASS_GATE}"})
    with role(pg, limit=1) as url, closed_gate(pg) as open_gate:
        pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO replica")
        with pg.started("apply", env={"FLUX_DATABASE_URL": url}) as alone:
            pid = at_the_gate(pg)
            assert holder(pg) == pid
            assert f"error: pid {pid} (" in pg.fail("apply", "--lock-wait", "0", code=5)
            open_gate()
            assert end(alone)[::2] == (0, "")


def test_several_without_a_second_connection_apply_each_migration_once(
    pg: PostgresProject,
) -> None:
    """They find the lock busy or the history changed, and plan again."""
    ids = [f"{number:03}" for number in range(1, 21)]
    pg.query("CREATE TABLE ran (id text)")
    pg.add({f"{id}.sql": f"INSERT INTO ran VALUES ('{id}');" for id in ids})
    done: list[tuple[str, ...]] = []
    with role(pg, limit=4) as url, ExitStack() as stack:
        pg.query(
            f"GRANT ALL ON SCHEMA {pg.postgres.schema}, public TO replica".replace(", public", "")
        )
        pg.query("GRANT ALL ON ran TO replica")
        connections = [stack.enter_context(closing(driver.connect(url))) for _ in range(4)]
        threads = [
            threading.Thread(target=lambda c=connection: done.append(apply_over(c, pg)))
            for connection in connections
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert len(done) == 4
        assert sorted(id for applied in done for id in applied) == ids
        assert pg.query("SELECT id FROM ran ORDER BY id") == [(id,) for id in ids]
        assert pg.applied() == ids


def test_the_lock_is_free_after_a_failure_and_after_a_refusal(pg: PostgresProject) -> None:
    """Also where the connection lives on, and where waiting was in vain."""
    pg.add({"001.sql": "SELECT 1/0"})
    with closing(driver.connect(pg.postgres.url)) as connection:
        with pytest.raises(MigrationApplyError):
            apply_over(connection, pg)
        assert sessions(pg, LOCK, granted=True) == []
        with closing(pg.postgres.connect()) as other:
            other.cursor().execute(f"SELECT pg_advisory_lock({LOCK})")
            pg.configure("lock_wait = 0")
            with pytest.raises(MigrationLockError):
                apply_over(connection, pg)
            # Not by its end, which the server may notice a moment later.
            other.cursor().execute(f"SELECT pg_advisory_unlock({LOCK})")
        pg.add({"001.sql": "SELECT 1"})
        assert apply_over(connection, pg) == ("001",)
