"""What flux costs on a wire: round trips to PostgreSQL, counted by a proxy between the two."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

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


def _connecting(pg: PostgresProject, wire: Wire) -> int:
    """What a connection costs before its first query."""
    before = wire.round_trips
    psycopg2.connect(pg.runner().config.resolve_url(), client_encoding="utf8").close()
    return wire.round_trips - before


def _cost(pg: PostgresProject, wire: Wire, connections: int) -> int:
    """The round trips of an `apply` after connecting, for which it takes that many connections."""
    connecting = _connecting(pg, wire)
    before, number_before = wire.round_trips, len(wire.connections)
    pg.apply()
    assert len(wire.connections) - number_before == connections
    return wire.round_trips - before - connections * connecting


def test_x(pg: PostgresProject, wire: Wire) -> None:
    print("connecting", _connecting(pg, wire))
    for rep in ({}, _REPEATABLES):
        pg.add(rep)
        pg.query(
            "drop schema if exists %s cascade; create schema %s"
            % (pg.postgres.schema, pg.postgres.schema)
        )
        first = 0
        for n in (1, 10, 50, 1, 0):
            pg.add(_migrations(n, first))
            first += n
            print(n, bool(rep), _cost(pg, wire, 2 if n else 1))
        import shutil

        shutil.rmtree(pg.root / "migrations")
    assert 0
