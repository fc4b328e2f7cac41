"""Many replicas at once, directly and behind PgBouncer in transaction mode."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import psycopg2
import pytest

from tests.flux_process import FluxResult, flux_environment
from tests.postgres_project import PostgresProject
from tests.test_postgres_lock import NO_TRANSACTION, applied_in

REPLICAS = 50
HANGS_AFTER = 60.0  # seconds

# `python -m flux`, which has loaded what it needs, and goes on when its standard input ends.
REPLICA = """\
import runpy, sys
import flux.backends.postgres, flux.cli, flux.runner
print("ready", flush=True)
sys.stdin.read()
runpy.run_module("flux", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(params=["direct", "pooled"])
def place(request: pytest.FixtureRequest) -> PostgresProject:
    """A project on a database of the test's own, which flux reaches in either way."""
    name = "pg_alone" if request.param == "direct" else "pg_pooled"
    project: PostgresProject = request.getfixturevalue(name)
    return project


def run_together(pg: PostgresProject, count: int, *arguments: str) -> Sequence[FluxResult]:
    """Run flux in `count` processes that start at the same moment; how each of them ended.

    Fails, with what they have said, when one has not ended in time; it is killed then.
    """
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", REPLICA, *arguments],
                cwd=pg.root,
                env=flux_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        deadline = time.monotonic() + HANGS_AFTER
        results, late = [], 0
        for process in processes:
            try:
                out, err = process.communicate(timeout=max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late += 1
                process.kill()
                out, err = process.communicate()
            results.append(FluxResult(process.returncode, out, err))
    assert not late, f"{late} of {count} still ran after {HANGS_AFTER} s: {results}"
    return results


@pytest.mark.parametrize("kind", ["ordinary", "concurrently"])
def test_of_fifty_replicas_each_migration_is_applied_by_one(
    place: PostgresProject, kind: str
) -> None:
    """Every process exits with 0, and each migration has counted itself once."""
    ids = [f"{number:03}" for number in range(1, 21)]
    place.query("CREATE TABLE counter (id text, ran int)")
    for id in ids:
        place.query(f"INSERT INTO counter VALUES ('{id}', 0)")
        text = f"UPDATE counter SET ran = ran + 1 WHERE id = '{id}';\n"
        if kind == "concurrently":
            text = f"{NO_TRANSACTION}{text}CREATE INDEX CONCURRENTLY i{id} ON counter (ran);\n"
        place.add({f"{id}.sql": text})
    results = run_together(place, REPLICAS, "apply")
    assert {result.code for result in results} == {0}, [r for r in results if r.code != 0]
    assert place.query("SELECT id, ran FROM counter ORDER BY id") == [(id, 1) for id in ids]
    assert sorted(id for result in results for id in applied_in(result.out)) == ids
    assert place.applied() == ids
    assert place.query(LOCKS_LEFT) == []


#: Advisory locks of this database that anyone still holds.
LOCKS_LEFT = """
SELECT pid, classid, objid FROM pg_locks WHERE locktype = 'advisory'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


# Behind the pooler --------------------------------------------------------------------------

STATE = """
SELECT (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
        WHERE source = 'session' AND name NOT IN
        ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable',
         'application_name', 'client_encoding')),
    current_user, session_user, current_setting('search_path'),
    (SELECT string_agg(relname, ' ') FROM pg_class WHERE relpersistence = 't')
"""


def pool_state(pg: PostgresProject, url: str, state: str = STATE) -> set[tuple[Any, ...]]:
    """What other clients find in the sessions of the pool: each of them, as many as there are.

    `state` is a query of one row.
    """
    [(count,)] = pg.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    states = {}
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(closing(psycopg2.connect(url)))
            stack.callback(connection.commit)  # else the pooler closes the session with it
            cursor = connection.cursor()  # in a transaction, which pins a session
            cursor.execute("SELECT pg_backend_pid()")
            [(pid,)] = cursor.fetchall()
            cursor.execute(state)
            [states[pid]] = cursor.fetchall()
    assert len(states) == count > 0
    return set(states.values())
