"""Ctrl-C, SIGTERM and `kill -9` on PostgreSQL, directly and behind PgBouncer: nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.flux_process import flux_environment
from tests.postgres_project import PostgresProject
from tests.test_postgres_lock import NO_TRANSACTION, PASS_GATE, at_the_gate, closed_gate, eventually
from tests.test_replicas import LOCKS_LEFT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

FOR_EVER = "SELECT pg_sleep(3600)"
#: Sessions of this database in which a migration's statement runs, or a transaction is open.
BUSY = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
)
SLEEPING = f"{BUSY} AND wait_event = 'PgSleep'"

ENDS = [
    pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
    pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
    pytest.param(
        getattr(signal, "SIGKILL", None),
        -9,
        id="kill -9",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="the server sees it on Linux"),
    ),
]
KINDS = {
    "text": {"002.sql": f"CREATE TABLE half ();\n{FOR_EVER};"},
    "COPY": {"002.sql": f"CREATE TABLE half (a int);\nCOPY half FROM stdin;\n1\n\\.\n{FOR_EVER};"},
    "Python": {
        "002.py": "def apply(connection):\n    with connection.cursor() as cursor:\n"
        f'        cursor.execute("CREATE TABLE half ()")\n        cursor.execute("{FOR_EVER}")\n'
    },
}


def interrupt(place: PostgresProject, number: signal.Signals) -> tuple[int, str, str]:
    """Send an apply that signal while its last statement runs; how it ends."""
    with place.started("apply") as process:
        eventually(lambda: place.query(SLEEPING), "a statement that takes for ever")
        process.send_signal(number)
        out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_an_interrupted_migration_is_ended_on_the_server(
    place: PostgresProject, kind: str, number: signal.Signals, code: int
) -> None:
    """And rolled back; what was done before it stays, nothing is locked, the next apply works."""
    place.add({"001.sql": "CREATE TABLE first ();", **KINDS[kind]})
    returned, out, err = interrupt(place, number)
    assert returned == code, err
    # What was done in the same message is told when the message is over.
    assert ("applied" in out) == (number != signal.SIGKILL or kind != "text")
    if number != signal.SIGKILL:
        assert err == (
            "error: interrupted at 002: what ran in a transaction is rolled back, what was done "
            "before it stays\nhint: `flux status` shows where things stand\n"
        )
    eventually(lambda: not place.query(BUSY), "the statement is ended")
    eventually(lambda: not place.query(LOCKS_LEFT), "nothing is locked")
    assert (place.tables(), place.applied()) == (["first"], ["001"])
    for name in KINDS[kind]:
        place.add({name: "def apply(): return 'CREATE TABLE whole ()'" if "py" in name else ""})
    place.succeed("apply", "--lock-wait", "0")
    assert place.applied() == ["001", "002"]


@pytest.mark.parametrize(("number", "code"), ENDS[:2])
def test_an_interrupted_statement_without_a_transaction_is_ended_too(
    place: PostgresProject, number: signal.Signals, code: int
) -> None:
    """What it did before stays, as there is no transaction; nothing is locked."""
    place.add({"001.sql": f"{NO_TRANSACTION}CREATE TABLE first ();\n{FOR_EVER};"})
    returned, _, err = interrupt(place, number)
    assert returned == code, err
    eventually(lambda: not place.query(BUSY), "the statement is ended")
    assert place.query(LOCKS_LEFT) == []
    assert (place.tables(), place.applied()) == (["first"], [])


def test_an_interrupted_index_build_leaves_no_one_waiting(place: PostgresProject) -> None:
    """CREATE INDEX CONCURRENTLY that waits for a writer lets go of its locks at Ctrl-C."""
    place.query("CREATE TABLE t (a int)")
    place.add({"001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY i ON t (a);"})
    with place.postgres.connect() as writer, place.started("apply") as process:
        writer.cursor().execute("BEGIN; INSERT INTO t VALUES (1)")
        building = f"{BUSY} AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
        eventually(lambda: place.query(building), "an index that waits for the writer")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        writer.cursor().execute("ROLLBACK")
    writer.close()
    eventually(lambda: not place.query(BUSY), "the build is ended")
    place.query("SET lock_timeout = '5s'; ALTER TABLE t ADD COLUMN b int")
    assert place.query(LOCKS_LEFT) == []


def test_an_interruption_of_a_program_is_not_swallowed(pg: PostgresProject) -> None:
    """Also where the driver hands over notices just then: what waits for the server is raised."""
    pg.add({"001.sql": PASS_GATE, "002.sql": "SELECT 1"})
    program = "import flux\nflux.apply(config='flux.toml')\nprint('went on')"
    with closed_gate(pg) as open_gate:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=pg.root,
            env=flux_environment(None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        with process:
            at_the_gate(pg)
            process.send_signal(signal.SIGINT)
            open_gate()
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (-signal.SIGINT, ""), err
    assert "KeyboardInterrupt" in err
