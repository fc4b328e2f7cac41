"""What flux costs on a wire: round trips to PostgreSQL, counted by a proxy between the two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from io import StringIO

import psycopg2
import pytest

import flux
from flux.backends import postgres_bundle, postgres_parts, postgres_run, watch
from tests import driver
from tests.postgres_project import PostgresProject
from tests.wire import Wire, counting_proxy

_REPEATABLES = {
    "pre-apply/a.sql": "SELECT 1;\n",
    "post-apply/b.sql": "SELECT 2;\n",
    "post-apply/c.sql": "SELECT 3;\n",
}


def _migrations(count: int, first: int = 0) -> dict[str, str]:
    """Migrations of three statements each."""
    return {
        f"{number:03}_table.sql": (
            f"CREATE TABLE t{number} (id int, name text);\n"
            f"CREATE INDEX ON t{number} (name);\nINSERT INTO t{number} VALUES (1, 'one');\n"
        )
        for number in range(first, first + count)
    }


@pytest.fixture
def wire(pg: PostgresProject) -> Iterator[Wire]:
    """The wire between the project and its database."""
    server = pg.postgres.server
    with counting_proxy(server.host, server.port) as wire:
        place, through = (f"@127.0.0.1:{port}/" for port in (server.port, wire.port))
        assert place in pg.postgres.url
        pg.configure(url=pg.postgres.url.replace(place, through))
        yield wire


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no message counts as one that takes long, or is looked at."""
    monkeypatch.setattr(postgres_parts, "_SECONDS", 3600.0)
    monkeypatch.setattr(watch, "REPORT_AFTER", 3600.0)
    for room in (postgres_bundle, postgres_parts, postgres_run):
        monkeypatch.setattr(room, "patience_for", lambda *_: 3600.0)


@pytest.fixture
def connecting(pg: PostgresProject, wire: Wire) -> int:
    """What one connection costs before its first query."""
    driver.connect(pg.runner().config.resolve_url(), client_encoding="utf8").close()
    [connection] = wire.connections
    wire.connections.clear()
    return connection.round_trips


@pytest.mark.parametrize(
    "first", [pytest.param(0, id="a new database"), pytest.param(5, id="five are applied")]
)
@pytest.mark.parametrize(
    "repeatables", [pytest.param({}, id="alone"), pytest.param(_REPEATABLES, id="repeatables")]
)
@pytest.mark.parametrize(("count", "messages"), [(1, 1), (50, 1), (100, 2)])
def test_many_migrations_share_one(
    pg: PostgresProject,
    wire: Wire,
    connecting: int,
    count: int,
    messages: int,
    repeatables: dict[str, str],
    first: int,
) -> None:
    """And six more after connecting, whatever their number; a repeatable is one of its own.

    What is remembered of repeatables is read and written by three more.
    """
    pg.add({**repeatables, **_migrations(first)})
    if first:
        pg.apply()
    wire.connections.clear()
    pg.add(_migrations(count, first))
    result = pg.apply()
    assert len(result.steps) == count + len(repeatables)
    assert len(wire.connections) == 2
    besides = wire.round_trips - 2 * connecting - messages - len(repeatables)
    assert besides <= (9 if repeatables else 6)


@pytest.mark.parametrize(
    ("repeatables", "queries"),
    [
        pytest.param({}, 1, id="alone"),
        pytest.param(_REPEATABLES, 2, id="with what is remembered of repeatables"),
    ],
)
@pytest.mark.parametrize("command", ["apply", "status"])
def test_with_nothing_to_do(
    pg: PostgresProject,
    wire: Wire,
    connecting: int,
    command: str,
    repeatables: dict[str, str],
    queries: int,
) -> None:
    """The history is read once, on one connection, and no lock is taken."""
    pg.add({**repeatables, **_migrations(10)})
    pg.apply()
    wire.connections.clear()
    pg.succeed(command)
    assert len(wire.connections) == 1
    assert wire.round_trips - connecting == queries


@pytest.mark.parametrize("command", ["apply", "status", "validate", "plan"])
def test_with_nothing_to_do_the_history_is_read_and_nothing_else(
    pg: PostgresProject, command: str
) -> None:
    """All that the server is asked is one SELECT, for a second at most: no lock, no write."""
    pg.add(_migrations(10))
    pg.apply()
    pg.configure(url=pg.postgres.url_with(log_statement="all"))
    with pg.postgres.server.recording() as messages:
        pg.succeed(command)
    [message] = messages
    setting, query = message.text.split(";\n")
    assert setting == "SET LOCAL lock_timeout = 1000"
    assert query.startswith("SELECT h.id, h.hash")
    assert not re.search(r"(?i)\w*lock\w*\(|\b(insert|update|delete|for share)\b", query)


def test_inside_a_program_nothing_to_do_is_one_query_too(
    pg: PostgresProject, wire: Wire, connecting: int
) -> None:
    pg.add(_migrations(10))
    pg.apply()
    wire.connections.clear()
    assert flux.apply(config="flux.toml").steps == ()
    [connection] = wire.connections
    assert connection.round_trips - connecting == 1


def test_undos_share_one_too(pg: PostgresProject, wire: Wire, connecting: int) -> None:
    pg.add(_migrations(100))
    pg.add({f"{number:03}_table.undo.sql": f"DROP TABLE t{number};\n" for number in range(100)})
    pg.apply()
    wire.connections.clear()
    assert len(pg.rollback(100).undone) == 100
    assert wire.round_trips - 2 * connecting <= 2 + 5


def test_what_the_proxy_counts(pg: PostgresProject, wire: Wire, connecting: int) -> None:
    """A query is one, however long its answer; and a connection's farewell is none."""
    with closing(psycopg2.connect(pg.runner().config.resolve_url())) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        before = wire.round_trips
        cursor.execute("SELECT 1; SELECT 2")
        cursor.execute("SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        cursor.copy_expert("COPY (SELECT 1) TO STDOUT", StringIO())
        assert wire.round_trips - before == 3
    assert connecting > 0


def test_a_long_way_changes_no_count(pg: PostgresProject) -> None:
    """All that is under way arrives, in order, the end included."""
    server = pg.postgres.server
    with counting_proxy(server.host, server.port, way=0.005) as wire:
        through = f"@127.0.0.1:{wire.port}/"
        url = pg.postgres.url.replace(f"@127.0.0.1:{server.port}/", through)
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            before = wire.round_trips
            cursor = connection.cursor()
            for number in range(3):
                cursor.execute("SELECT repeat(%s, 1000000)", [str(number)])
                assert cursor.fetchall() == [(str(number) * 1_000_000,)]
            assert wire.round_trips - before == 3
