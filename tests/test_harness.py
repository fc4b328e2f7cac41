"""The harness itself: the server answers, and tests do not see each other's work."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import own_program, unavailable
from tests.flux_process import FluxProcess, flux_environment
from tests.postgres_server import Postgres, PostgresServer, ServerUnavailableError, find_pg_ctl

#: One process runs them all, for some are about what the test before them left.
pytestmark = pytest.mark.xdist_group("harness")

_left_open: list[object] = []


def test_the_server_speaks_utf8_and_sorts_by_code_point(postgres: Postgres) -> None:
    assert postgres.query("SHOW server_encoding") == [("UTF8",)]
    assert postgres.query("SELECT x FROM unnest(ARRAY['é', 'a', 'B']) x ORDER BY 1") == [
        ("B",),
        ("a",),
        ("é",),
    ]
    assert postgres.query("SELECT %s || '%%'", "50") == [("50%",)]
    assert postgres.query("SELECT '50%'") == [("50%",)]


def test_the_server_wants_its_password_and_shows_it_to_nobody(server: PostgresServer) -> None:
    import psycopg2

    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(server.url("postgres").replace(server.password, "wrong"))
    assert server.password not in repr(server)


@pytest.mark.parametrize("_time", ["first", "second"])
def test_a_schema_is_new_for_each_test(postgres: Postgres, _time: str) -> None:
    """Neither tables, in `public` too, nor sessions with their locks reach the next test."""
    assert postgres.query("SELECT current_schema") == [(postgres.schema,)]
    assert postgres.query("SELECT pg_try_advisory_lock(3589)") == [(True,)]
    postgres.query("CREATE TABLE book (id int); CREATE TABLE public._flux_migrations (id text)")
    holder = postgres.connect()
    holder.autocommit = False
    holder.cursor().execute(f"SELECT pg_advisory_lock(3589); LOCK TABLE {postgres.schema}.book")
    _left_open.append(holder)


@pytest.mark.parametrize("_time", ["first", "second"])
def test_a_database_is_new_for_each_test(
    postgres_database: Postgres, server: PostgresServer, _time: str
) -> None:
    rows = postgres_database.query("SELECT datname FROM pg_database WHERE datname ~ '^d[0-9]+$'")
    assert rows == [(postgres_database.database,)], "the last test's is gone"
    assert postgres_database.query("SELECT current_schema") == [("public",)]
    _left_open.append(server.connect(postgres_database.database))


def test_settings_with_spaces_and_backslashes_reach_the_session(postgres: Postgres) -> None:
    with closing(postgres.connect(application_name="a b\\c")) as connection:
        assert connection.info.parameter_status("application_name") == "a b\\c"


def test_recording_tells_each_message_of_the_sessions_that_log(postgres: Postgres) -> None:
    with postgres.server.recording() as seen:
        with closing(postgres.connect(log_statement="all", application_name="it")) as loud:
            with loud.cursor() as cursor:
                cursor.execute("SELECT 1;\n\tSELECT 'LOG:  statement: x'")
                cursor.execute("CREATE TABLE é ()")
            pid = loud.info.backend_pid
        postgres.query("SELECT 'not logged'")
    assert seen == [
        (pid, "it", "SELECT 1;\n\tSELECT 'LOG:  statement: x'"),
        (pid, "it", "CREATE TABLE é ()"),
    ]


@pytest.mark.parametrize("program", ["psql", "pg_dump"])
def test_clients_are_of_the_servers_own_version(server: PostgresServer, program: str) -> None:
    import subprocess

    answer = subprocess.run(
        [own_program(server, program), "--version"], capture_output=True, text=True, check=True
    )
    assert f" {server.version // 10000}." in answer.stdout


def test_a_named_pg_ctl_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match="is no pg_ctl with initdb"):
        find_pg_ctl(str(tmp_path / "pg_ctl"))


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        pytest.param("", pytest.skip.Exception, id="skipped"),
        pytest.param("false", pytest.skip.Exception, id="CI=false"),
        pytest.param("true", pytest.fail.Exception, id="failed in CI"),
    ],
)
def test_what_is_missing_is_a_failure_in_ci_alone(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no database"):
        unavailable("no database")


def test_flux_runs_as_a_process_in_the_tests_directory(run_flux: FluxProcess) -> None:
    result = run_flux("--help")
    assert (result.code, result.err) == (0, "")
    assert "flux" in result.out


def test_flux_gets_no_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_DATABASE_URL", "sqlite:///other.db")
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert not {"FLUX_DATABASE_URL", "PGHOST"} & set(flux_environment())
    assert flux_environment({"PGHOST": "here"})["PGHOST"] == "here"
    assert "PATH" not in flux_environment({"PATH": None})
