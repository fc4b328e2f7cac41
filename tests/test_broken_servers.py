"""A server that stops in mid-migration, and sessions that it ends: what flux says, what is left."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Literal

import psycopg2
import pytest

from flux.backends.postgres_lock import LockSQL
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests.conftest import a_server
from tests.postgres_project import PostgresProject
from tests.postgres_server import PostgresServer
from tests.test_postgres_lock import (
    LOCK,
    NO_TRANSACTION,
    PASS_GATE,
    at_the_gate,
    closed_gate,
    end,
    eventually,
    holder,
)

#: One process runs them all, for one server is enough to break.
pytestmark = pytest.mark.xdist_group("broken servers")

modes = pytest.mark.parametrize("mode", ["immediate", "fast"])
Mode = Literal["immediate", "fast"]

#: What flux sets itself, a file that names it has for itself: it shares no message.
ALONE = "-- application_name\n"
COUNTER = "CREATE TABLE counter (name text PRIMARY KEY, ran int);\n"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests' own, to be broken; what is built on `server` is on this one."""
    with a_server() as running:
        yield running


def count(name: str) -> str:
    """A statement that counts how often it has taken effect."""
    return (
        f"INSERT INTO counter VALUES ('{name}', 1) "
        "ON CONFLICT (name) DO UPDATE SET ran = counter.ran + 1;\n"
    )


def counts(pg: PostgresProject) -> dict[str, int]:
    """How often each has."""
    return dict(pg.query("SELECT name, ran FROM counter"))


@contextmanager
def stopped(pg: PostgresProject, mode: Mode) -> Iterator[None]:
    """Stop the server for as long as the block runs."""
    server = pg.postgres.server
    server.stop(mode)
    try:
        yield
    finally:
        server.start()


def failed(pg: PostgresProject, process: subprocess.Popen[str], step: str) -> tuple[str, str]:
    """What a run that must have failed in a step says: its output, and the state it tells."""
    code, out, err = end(process)
    assert code == 1, (out, err)
    assert "Traceback" not in out + err
    assert pg.postgres.server.password not in out + err
    assert f"error: migrations/{step}." in err
    states = re.findall(r"^state: (.*)$", err, re.MULTILINE)
    assert len(states) == 1, err
    return out, states[0]


def is_true_of_nothing(state: str, step: str) -> bool:
    """Whether a state says of a step without effect that it has none, or that flux cannot know.

    That it may say of what comes after the step in the same message, too.
    """
    unknown = rf"the connection broke, and whether {step}( or \S+)? took effect is not known; "
    return re.match(f"{unknown}|rolled back", state) is not None


# In mid-migration ---------------------------------------------------------------------------

KINDS = {
    "text": {"002.sql": f"{ALONE}CREATE TABLE half ();\n{count('002')}{PASS_GATE}"},
    "COPY": {
        "002.sql": f"CREATE TABLE half (x text);\nCOPY half FROM stdin;\na\n\\.\n"
        f"{count('002')}{PASS_GATE}"
    },
    "Python": {
        "002.py": "def apply(connection):\n    with connection.cursor() as cursor:\n"
        f'        cursor.execute("CREATE TABLE half ()")\n'
        f'        cursor.execute("""{count("002")}""")\n'
        f'        cursor.execute("{PASS_GATE}")\n'
    },
}


@modes
@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_of_a_migration_outlives_its_server(
    pg_alone: PostgresProject, kind: str, mode: Mode
) -> None:
    """flux fails at once and says no more than it knows; the next apply simply works."""
    pg_alone.add({"001.sql": COUNTER + count("001"), **KINDS[kind], "003.sql": count("003")})
    with closed_gate(pg_alone), pg_alone.started("apply") as process:
        at_the_gate(pg_alone)
        with stopped(pg_alone, mode):
            out, state = failed(pg_alone, process, "002")
    assert is_true_of_nothing(state, "002")
    assert re.fullmatch(r"applied +\d+ ms  001\n", out)
    assert (pg_alone.tables(), pg_alone.applied()) == (["counter"], ["001"])
    out = pg_alone.succeed("apply")
    assert re.findall(r"^applied .*  (\S+)$", out, re.MULTILINE) == ["002", "003"]
    assert counts(pg_alone) == {"001": 1, "002": 1, "003": 1}


@modes
def test_what_shares_its_message_with_those_before_it(
    pg_alone: PostgresProject, mode: Mode
) -> None:
    """Nothing is told of as done that the server may have lost; each is there as a whole or not."""
    files = {f"{id}.sql": count(id) for id in ("002", "003", "005")}
    pg_alone.add({"001.sql": COUNTER, **files, "004.sql": f"CREATE TABLE half ();\n{PASS_GATE}"})
    with closed_gate(pg_alone), pg_alone.started("apply") as process:
        at_the_gate(pg_alone)
        with stopped(pg_alone, mode):
            out, state = failed(pg_alone, process, "001")
    assert out == ""
    assert state == (
        "the connection broke, and whether any of 001 to 005 took effect is not known; "
        "`flux status` tells"
    )
    applied = pg_alone.applied()
    assert applied == ["001", "002", "003"][: len(applied)]
    assert pg_alone.tables() == (["counter"] if applied else [])
    assert not applied or counts(pg_alone) == dict.fromkeys(applied[1:], 1)
    pg_alone.succeed("apply")
    assert counts(pg_alone) == {"002": 1, "003": 1, "005": 1}


def test_what_is_told_of_stays(pg_alone: PostgresProject) -> None:
    """Of a message of which one fails, and the server loses its power at that moment."""
    pg_alone.query("ALTER SYSTEM SET wal_writer_delay = '10s'")
    pg_alone.query("SELECT pg_reload_conf()")
    files = {f"{number:03}.sql": f"CREATE TABLE t{number} ();" for number in range(1, 6)}
    pg_alone.add({**files, "004.sql": "SELECT 1 / 0"})
    told: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.step is not None:
            if not told:
                pg_alone.postgres.server.stop("immediate")
            told.append(event.step.name)

    try:
        with pytest.raises(MigrationApplyError), pg_alone.runner(on_event=on_event) as runner:
            runner.apply_migrations()
    finally:
        pg_alone.postgres.server.start()
        pg_alone.query("ALTER SYSTEM RESET wal_writer_delay")
    assert told == ["001", "002", "003"]
    assert (pg_alone.applied(), pg_alone.tables()) == (told, ["t1", "t2", "t3"])


@modes
def test_a_rollback_does_not_outlive_its_server_either(
    pg_alone: PostgresProject, mode: Mode
) -> None:
    undo = f"UPDATE counter SET ran = ran - 1 WHERE name = '002';\n{PASS_GATE}"
    pg_alone.add({"001.sql": COUNTER, "002.sql": count("002"), "002.undo.sql": undo})
    pg_alone.apply()
    with closed_gate(pg_alone), pg_alone.started("rollback", "-y") as process:
        at_the_gate(pg_alone)
        with stopped(pg_alone, mode):
            _, state = failed(pg_alone, process, "002")
    assert is_true_of_nothing(state, "002")
    assert (counts(pg_alone), pg_alone.applied()) == ({"002": 1}, ["001", "002"])
    pg_alone.succeed("rollback", "-y")
    assert (counts(pg_alone), pg_alone.applied()) == ({"002": 0}, ["001"])


def test_a_server_that_is_gone_before_the_first_step_is_said(pg_alone: PostgresProject) -> None:
    pg_alone.add({"001.sql": COUNTER})
    with stopped(pg_alone, "fast"):
        error = pg_alone.fail("apply")
    assert error.startswith("error: cannot connect to postgresql://")
    assert pg_alone.postgres.server.password not in error
    pg_alone.succeed("apply")


# While COMMIT is on its way -----------------------------------------------------------------


HANGING = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = '{}'"


@contextmanager
def commits_that_hang(pg: PostgresProject) -> Iterator[None]:
    """Let every COMMIT wait for a standby that does not exist, until the server starts anew.

    It has then taken effect, and is written, but nobody is told.
    """
    pg.query("CREATE TABLE probe ()")
    pg.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    pg.query("SELECT pg_reload_conf()")
    with closing(pg.postgres.connect(application_name="probe")) as connection:

        def commit_until_it_hangs() -> None:
            with suppress(psycopg2.Error), connection.cursor() as cursor:  # the server's end
                while True:
                    cursor.execute("INSERT INTO probe DEFAULT VALUES")

        thread = threading.Thread(target=commit_until_it_hangs, daemon=True)
        thread.start()
        eventually(lambda: pg.query(HANGING.format("probe")), "a COMMIT that waits")
        pg.query("ALTER SYSTEM RESET synchronous_standby_names")
        yield
        thread.join(60)


@modes
def test_a_commit_that_nobody_was_told_of_is_not_denied(
    pg_alone: PostgresProject, mode: Mode
) -> None:
    """The server dies when it has committed and not answered yet; nothing runs twice."""
    text = ALONE + count("002") + PASS_GATE
    pg_alone.add({"001.sql": COUNTER, "002.sql": text, "003.sql": count("003")})
    with closed_gate(pg_alone) as open_gate, pg_alone.started("apply") as process:
        at_the_gate(pg_alone)
        with commits_that_hang(pg_alone):
            open_gate()
            eventually(lambda: pg_alone.query(HANGING.format("flux")), "flux's COMMIT waits")
            with stopped(pg_alone, mode):
                _, state = failed(pg_alone, process, "002")
    assert state.startswith("the connection broke, and whether 002 took effect is not known")
    assert pg_alone.applied() == ["001", "002"]
    assert re.findall(r"^applied .*  (\S+)$", pg_alone.succeed("apply"), re.MULTILINE) == ["003"]
    assert counts(pg_alone) == {"002": 1, "003": 1}


# Without a transaction ----------------------------------------------------------------------


@modes
def test_between_statements_the_journal_tells_where_to_go_on(
    pg_alone: PostgresProject, mode: Mode
) -> None:
    """What took effect before the server died does not run again."""
    text = (
        f"{NO_TRANSACTION}{count('002 a')}CREATE INDEX CONCURRENTLY i ON counter (ran);\n"
        f"{count('002 b')}{PASS_GATE}\n{count('002 c')}"
    )
    pg_alone.add({"001.sql": COUNTER, "002.sql": text})
    with closed_gate(pg_alone), pg_alone.started("apply") as process:
        at_the_gate(pg_alone)
        with stopped(pg_alone, mode):
            failed(pg_alone, process, "002")
    assert counts(pg_alone) == {"002 a": 1, "002 b": 1}
    pg_alone.succeed("apply")
    assert counts(pg_alone) == {"002 a": 1, "002 b": 1, "002 c": 1}
    assert pg_alone.applied() == ["001", "002"]


@modes
def test_an_index_that_was_half_built_is_built_again(pg_alone: PostgresProject, mode: Mode) -> None:
    """The server leaves it INVALID; the next apply drops it, builds it again and goes on."""
    text = (
        f"{NO_TRANSACTION}{count('002 a')}CREATE INDEX CONCURRENTLY i ON counter (ran);\n"
        f"{count('002 b')}"
    )
    pg_alone.add({"001.sql": COUNTER, "002.sql": text})
    pg_alone.apply(1)
    with closing(pg_alone.postgres.connect()) as writer, pg_alone.started("apply") as process:
        writer.cursor().execute("BEGIN; INSERT INTO counter VALUES ('writer', 1)")
        waits = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('i') AND NOT indisvalid"
        eventually(lambda: pg_alone.query(waits), "an index that waits for the writer")
        with stopped(pg_alone, mode):
            failed(pg_alone, process, "002")
    assert pg_alone.query(waits) == [(1,)]
    pg_alone.succeed("apply")
    assert pg_alone.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [
        (True,)
    ]
    assert counts(pg_alone) == {"002 a": 1, "002 b": 1}


# The session that holds the lock ------------------------------------------------------------

KINDS_OF_SECOND = {
    "transaction": count("002"),
    "no-transaction": NO_TRANSACTION + count("002") + count("003"),
}


@pytest.mark.parametrize("kind", list(KINDS_OF_SECOND))
def test_a_lock_that_is_lost_between_two_migrations_stops_the_second(
    pg_alone: PostgresProject, kind: str
) -> None:
    """The second waits at the fence when it happens, and does nothing; the next apply works."""
    pg_alone.add({"001.sql": COUNTER + PASS_GATE, "002.sql": KINDS_OF_SECOND[kind]})
    fence = LockSQL(LOCK).take_fence
    with closed_gate(pg_alone) as open_gate, pg_alone.started("apply") as process:
        at_the_gate(pg_alone)
        with closing(pg_alone.postgres.connect()) as guard:
            # It stands in line behind the first migration, and so before the second.
            thread = threading.Thread(target=guard.cursor().execute, args=(f"BEGIN; {fence}",))
            thread.start()
            eventually(lambda: waiting_at_fence(pg_alone) == 1, "the guard stands in line")
            open_gate()
            thread.join(60)
            eventually(lambda: waiting_at_fence(pg_alone) == 1, "the second is at the fence")
            pg_alone.query(f"SELECT pg_terminate_backend({holder(pg_alone)}, 5000)")
        code, out, err = end(process)
    assert code == 1
    assert re.fullmatch(r"applied +\d+ ms  001\n", out)
    assert err.startswith(
        "error: migrations/002.sql: applying 002 failed: the migration lock was lost: the session "
        "that held it was ended\n"
    )
    assert (counts(pg_alone), pg_alone.applied()) == ({}, ["001"])
    pg_alone.succeed("apply")
    assert set(counts(pg_alone).values()) == {1}
    assert pg_alone.applied() == ["001", "002"]


def waiting_at_fence(pg: PostgresProject) -> int:
    """How many sessions wait for an advisory lock of two numbers, as the fence is one."""
    [(waiting,)] = pg.query(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND NOT granted"
    )
    return int(waiting)
