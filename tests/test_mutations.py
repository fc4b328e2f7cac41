"""The corpus of broken undos, by fingerprints: each is told from the right one, and by its name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flux import FluxConfig
from flux.backends.postgres import PostgresBackend
from flux.directory import MigrationDirectory
from flux.fingerprint import Fingerprint, compare
from flux.migration import Migration
from flux.proof import prove
from flux.rehearsal import Stage
from flux.shadow import scratch_place
from tests import driver
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


# By `flux test` itself -----------------------------------------------------------------------


def _verdicts(stage: Stage) -> list[tuple[str, str]]:
    return [
        (proof.verdict, proof.fault.moment if proof.fault else "")
        for proof in prove(stage, {}, {"2"}.__contains__)
    ]


def _check_by_proof(stage: Stage, mutation: Mutation) -> None:
    """What `flux test` says of the right undo, and of the broken one."""

    def with_undo(undo: str) -> Stage:
        migrations = (
            Migration.from_text("1", mutation.setup),
            Migration.from_text("2", mutation.apply, undo),
        )
        return stage._replace(directory=MigrationDirectory("migrations", migrations))

    assert _verdicts(with_undo(mutation.undo)) == [("applied", ""), ("proven", "")]
    assert _verdicts(with_undo(mutation.broken)) == [("applied", ""), ("failed", "undo")]


@pytest.fixture(scope="module")
def postgres_stage(server: PostgresServer) -> Iterator[Stage]:
    """Where `flux test` would rehearse: some cases need a role, which is not theirs alone."""
    with own_database(server) as own:
        config = FluxConfig(
            backend="postgres",
            database_url=own.url.replace("$", "$$"),
            backend_config={"driver": driver.NAME},
            throw_away_server=True,
        )
        with scratch_place(config) as place:
            yield Stage(config, MigrationDirectory("migrations"), place)


#: But for the case that drops PL/pgSQL, in which flux's own markers are written.
THROUGH_FLUX = [mutation for mutation in POSTGRES if "EXTENSION plpgsql" not in mutation.setup]


@pytest.mark.parametrize("mutation", THROUGH_FLUX, ids=[mutation.id for mutation in THROUGH_FLUX])
def test_postgres_by_flux_test(
    server: PostgresServer, postgres_stage: Stage, mutation: Mutation
) -> None:
    if server.version < mutation.since * 10000:
        pytest.skip(f"PostgreSQL {mutation.since} brings this")
    _check_by_proof(postgres_stage, mutation)


@pytest.mark.parametrize("mutation", SQLITE, ids=[mutation.id for mutation in SQLITE])
def test_sqlite_by_flux_test(mutation: Mutation) -> None:
    major, minor, _ = sqlite3.sqlite_version_info
    if major * 100 + minor < mutation.since:
        pytest.skip(f"SQLite {mutation.since / 100} brings this")
    config = FluxConfig()
    with scratch_place(config, ":memory:") as place:
        _check_by_proof(Stage(config, MigrationDirectory("migrations"), place), mutation)
