"""The fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.flux_process import FluxProcess
from tests.pgbouncer import PgBouncer, PgBouncerUnavailableError, running_pgbouncer
from tests.postgres_project import PostgresProject
from tests.postgres_server import (
    PG_CTL_VARIABLE,
    Postgres,
    PostgresServer,
    ServerFailedError,
    ServerUnavailableError,
    own_database,
    own_schema,
    running_server,
)
from tests.project import Project


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of the tests.

    What a shell runs in the background ignores SIGINT, and what is started from there does too.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of PostgreSQL as `postgres`: those that ask for the server, by whatever way.

    Which fixture a test asks for while it runs cannot be seen; what its module imports can.
    """
    for item in items:
        assert isinstance(item, pytest.Function)
        if "server" in item.fixturenames or "PostgresProject" in vars(item.module):
            item.add_marker("postgres")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many tests run at a time: two on each core, for most of their time they wait."""
    return 2 * (os.cpu_count() or 1)


def unavailable(reason: str) -> NoReturn:
    """Skip the test by a visible reason; in CI (environment variable CI) fail it instead."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"in CI nothing may be missing: {reason}", pytrace=False)
    pytest.skip(reason)


def own_program(server: PostgresServer, name: str) -> Path:
    """A program of the server's own version; the test is skipped where there is none beside it."""
    if path := server.program(name):
        return path
    not_in_the_server(f"{name} is not installed beside the server")


def not_in_the_server(reason: str) -> NoReturn:
    """Skip the test of what a package of PostgreSQL leaves out.

    In CI too, if FLUX_TEST_PG_CTL names the server: who does that knows what is in it.
    """
    if os.environ.get(PG_CTL_VARIABLE):
        pytest.skip(reason)
    unavailable(reason)


@contextmanager
def a_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server until the block ends; the tests are skipped where there is none."""
    for module in ("psycopg2", "pytest_postgresql"):
        if importlib.util.find_spec(module) is None:
            unavailable(f"PostgreSQL: {module} is not installed")
    problem: Exception
    try:
        with running_server(os.environ.get(PG_CTL_VARIABLE)) as running:
            yield running
            return
    except (ServerUnavailableError, ServerFailedError) as error:
        problem = error
    if isinstance(problem, ServerFailedError):
        pytest.fail(str(problem), pytrace=False)
    unavailable(f"PostgreSQL: {problem}")


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the session, started when the first test asks for it."""
    with a_server() as running:
        yield running


@pytest.fixture
def postgres(server: PostgresServer) -> Iterator[Postgres]:
    """A schema of the test's own in a shared database: the cheap one."""
    with own_schema(server) as place:
        yield place


@pytest.fixture
def postgres_database(server: PostgresServer) -> Iterator[Postgres]:
    """A database of the test's own, for tests about what holds for a whole database."""
    with own_database(server) as place:
        yield place


@pytest.fixture(scope="session")
def pgbouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    """One PgBouncer in transaction mode, in front of every database of the server."""
    try:
        with running_pgbouncer(server) as running:
            yield running
            return
    except PgBouncerUnavailableError as error:
        problem = str(error)
    if shutil.which("apt-get") is None:  # its package is Debian's
        pytest.skip(problem)
    unavailable(problem)


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, postgres_database: Postgres) -> str:
    """The URL of `postgres_database` by way of PgBouncer."""
    return pgbouncer.url(postgres_database.database)


@pytest.fixture
def run_flux(tmp_path: Path) -> FluxProcess:
    """Runs `python -m flux` in `tmp_path`, or where told."""
    return FluxProcess(tmp_path)


@pytest.fixture
def project(tmp_path: Path, run_flux: FluxProcess) -> Project:
    """An empty project on a SQLite file that is not there yet."""
    project = Project(tmp_path, run_flux)
    project.configure()
    (tmp_path / "migrations").mkdir()
    return project


@pytest.fixture
def pg(
    postgres: Postgres, tmp_path: Path, run_flux: FluxProcess, monkeypatch: pytest.MonkeyPatch
) -> PostgresProject:
    """An empty project on PostgreSQL, in a schema of the test's own; the test works in it."""
    return _postgres_project(postgres, tmp_path, run_flux, monkeypatch)


@pytest.fixture
def pg_alone(
    postgres_database: Postgres,
    tmp_path: Path,
    run_flux: FluxProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> PostgresProject:
    """An empty project on PostgreSQL, in a database of the test's own; the test works in it."""
    return _postgres_project(postgres_database, tmp_path, run_flux, monkeypatch)


@pytest.fixture
def pg_pooled(pg_alone: PostgresProject, pooled_url: str) -> PostgresProject:
    """`pg_alone`, whose flux goes by way of PgBouncer; the test's own queries go directly."""
    pg_alone.configure(url=pooled_url)
    return pg_alone


@pytest.fixture(params=["pg_alone", "pg_pooled"], ids=["direct", "pooled"])
def place(request: pytest.FixtureRequest) -> PostgresProject:
    """A project on a database of the test's own, which flux reaches in either way."""
    project: PostgresProject = request.getfixturevalue(request.param)
    return project


def _postgres_project(
    postgres: Postgres, root: Path, run_flux: FluxProcess, monkeypatch: pytest.MonkeyPatch
) -> PostgresProject:
    project = PostgresProject(root, run_flux, postgres)
    project.configure()
    (root / "migrations").mkdir()
    monkeypatch.chdir(root)
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)
    return project
