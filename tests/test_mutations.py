"""The corpus of broken undos, by fingerprints: each is told from the right one, and by its name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flux.backends.postgres import PostgresBackend
from flux.fingerprint import Fingerprint, compare
from tests.catalogs import postgres_backend, sqlite_fingerprint, taken_back
from tests.mutations import Mutation
from tests.mutations.postgres import POSTGRES
from tests.mutations.sqlite import SQLITE
from tests.postgres_server import PostgresServer, own_database


def _check(
    mutation: Mutation, run: Callable[[str], object], fingerprint: Callable[[], Fingerprint]
) -> None:
    """Apply and undo rightly, twice as `flux test` does; and apply and undo wrongly."""
    run(mutation.setup)
    before = fingerprint()
    run(mutation.apply)
    applied = fingerprint()
    assert applied != before
    run(mutation.undo)
    assert compare(before, fingerprint()) == ()
    run(mutation.apply)
    assert compare(applied, fingerprint()) == ()
    run(mutation.broken)
    found = compare(before, fingerprint())
    assert mutation.left in [difference.item.label for difference in found]


@pytest.fixture(scope="module")
def backend(server: PostgresServer) -> Iterator[PostgresBackend]:
    """A database for all of them: each is taken back."""
    with own_database(server) as own:
        backend = postgres_backend(own.url)
        with backend.opened():
            yield backend


@pytest.mark.parametrize("mutation", POSTGRES, ids=[mutation.id for mutation in POSTGRES])
def test_postgres(server: PostgresServer, backend: PostgresBackend, mutation: Mutation) -> None:
    if server.version < mutation.since * 10000:
        pytest.skip(f"PostgreSQL {mutation.since} brings this")
    with taken_back(backend) as run:
        _check(mutation, run, backend.fingerprint)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        yield connection


@pytest.mark.parametrize("mutation", SQLITE, ids=[mutation.id for mutation in SQLITE])
def test_sqlite(tmp_path: Path, connection: sqlite3.Connection, mutation: Mutation) -> None:
    major, minor, _ = sqlite3.sqlite_version_info
    if major * 100 + minor < mutation.since:
        pytest.skip(f"SQLite {mutation.since / 100} brings this")
    path = tmp_path / "app.db"
    _check(mutation, connection.executescript, lambda: sqlite_fingerprint(path))


def test_the_corpus_is_large_and_names_each_case_once() -> None:
    for corpus in (POSTGRES, SQLITE):
        assert len({mutation.id for mutation in corpus}) == len(corpus)
    assert len(POSTGRES) >= 80
    assert len(SQLITE) >= 30
