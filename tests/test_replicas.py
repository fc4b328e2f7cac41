"""Many replicas at once, directly and behind PgBouncer in transaction mode."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import psycopg2
import pytest

from tests.postgres_project import PostgresProject
from tests.replicas import run_together
from tests.test_postgres_lock import NO_TRANSACTION, applied_in

#: One after the other: fifty processes are enough for a machine.
pytestmark = pytest.mark.xdist_group("replicas")

REPLICAS = 50


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
    results = run_together(place.root, "postgres", [["apply"]] * REPLICAS)
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
