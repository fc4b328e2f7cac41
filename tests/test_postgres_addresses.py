"""Every form of address that docs/addresses.md names, by a real connection."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import port_for
import psycopg2
import pytest
import trustme

from flux import FluxConfig, FluxRunner
from tests import driver
from tests.conftest import a_server, not_in_the_server
from tests.postgres_project import PostgresProject
from tests.postgres_server import PostgresServer

#: A password that each form must bring through.
PASSWORD = "p@ss/w%rd 'x'\\:?#&=é"
ENCODED = quote(PASSWORD, safe="")
QUOTED = "'" + PASSWORD.replace("\\", "\\\\").replace("'", "\\'") + "'"
ROLE = "flux_addressee"


@pytest.fixture
def place(pg_alone: PostgresProject) -> Iterator[dict[str, str]]:
    """What the forms are filled with: a role with a difficult password, in a database of its own.

    Its history has `001`.
    """
    server = pg_alone.postgres.server
    literal = "'" + PASSWORD.replace("'", "''") + "'"
    database = pg_alone.postgres.database
    pg_alone.query(f"CREATE ROLE {ROLE} LOGIN PASSWORD {literal}")
    pg_alone.query(f"GRANT ALL ON SCHEMA public TO {ROLE}")
    pg_alone.add({"001.sql": "CREATE TABLE a ()"})
    try:
        yield {
            "user": ROLE,
            "password": PASSWORD,
            "encoded": ENCODED,
            "quoted": QUOTED,
            "host": server.host,
            "port": str(server.port),
            "closed": str(port_for.select_random()),
            "database": database,
            "socket": tempfile.gettempdir(),
            "socket_encoded": quote(tempfile.gettempdir(), safe=""),
        }
    finally:
        pg_alone.query(f"DROP OWNED BY {ROLE}")
        pg_alone.query(f"DROP ROLE {ROLE}")


_PLACE = "{host}:{port}/{database}"
_LOGIN = {"PGUSER": "{user}", "PGPASSWORD": "{password}"}
_ALL = {**_LOGIN, "PGHOST": "{host}", "PGPORT": "{port}", "PGDATABASE": "{database}"}

FORMS = [
    pytest.param("postgres://{user}:{encoded}@" + _PLACE, {}, id="postgres"),
    pytest.param("postgresql://{user}:{encoded}@" + _PLACE, {}, id="postgresql"),
    pytest.param("POSTGRESQL://{user}:{encoded}@" + _PLACE, {}, id="capitals"),
    pytest.param("postgresql+psycopg2://{user}:{encoded}@" + _PLACE, {}, id="+psycopg2"),
    pytest.param("postgresql+psycopg://{user}:{encoded}@" + _PLACE, {}, id="+psycopg"),
    pytest.param("postgresql+asyncpg://{user}:{encoded}@" + _PLACE, {}, id="+asyncpg"),
    pytest.param("  postgres://{user}:{encoded}@" + _PLACE + "\n", {}, id="white space around it"),
    pytest.param(
        "postgresql://" + _PLACE + "?user={user}&password={encoded}&application_name=a%20b",
        {},
        id="parameters",
    ),
    pytest.param("postgresql://{user}@" + _PLACE, {"PGPASSWORD": "{password}"}, id="PGPASSWORD"),
    pytest.param("postgresql://", _ALL, id="all from the environment"),
    pytest.param("postgresql:///", _ALL, id="all from the environment, three slashes"),
    pytest.param("postgresql:///{database}", {**_ALL, "PGDATABASE": "no"}, id="the rest from it"),
    pytest.param(
        "postgresql://{user}:{encoded}@{host}:{closed},[::1]:{closed},{host}:{port}/{database}"
        "?target_session_attrs=read-write",
        {},
        id="several hosts",
    ),
    pytest.param(
        "postgresql://{user}:{encoded}@/{database}?host={socket}&port={port}", {}, id="a socket"
    ),
    pytest.param(
        "postgresql://{user}:{encoded}@{socket_encoded}:{port}/{database}", {}, id="a socket's path"
    ),
    pytest.param(
        "host={host} port={port} dbname={database} user={user} password={quoted}", {}, id="keywords"
    ),
    pytest.param(
        "  sslmode = prefer  password = {quoted} user={user} host={host} port={port} "
        "dbname='{database}'",
        {},
        id="keywords, spaces around the equals signs",
    ),
    pytest.param(
        "application_name='a b' options='-c statement_timeout=0' user={user} password={quoted} "
        "host={host} port={port} dbname={database}",
        {},
        id="keywords, options",
    ),
    pytest.param("dbname={database}", {**_ALL, "PGDATABASE": "no"}, id="keywords, the rest"),
    pytest.param("service=app", {"PGSERVICEFILE": "services"}, id="a service"),
    pytest.param("postgresql:///?service=app", {"PGSERVICEFILE": "services"}, id="in a URL"),
    pytest.param(
        "postgresql://", {"PGSERVICEFILE": "services", "PGSERVICE": "app"}, id="PGSERVICE"
    ),
    pytest.param("postgresql://{user}@" + _PLACE, {"PGPASSFILE": "passwords"}, id="PGPASSFILE"),
    pytest.param("postgresql://{user}@" + _PLACE, {"HOME": "home"}, id=".pgpass"),
    pytest.param(
        "user={user} host={host} port={port} dbname={database} passfile=passwords",
        {},
        id="passfile",
    ),
]


def _write_files(root: Path, place: dict[str, str]) -> None:
    keys = (("host", "host"), ("port", "port"), ("dbname", "database"), ("user", "user"))
    lines = [f"{key}={place[name]}" for key, name in keys]
    services = "\n".join(["[app]", *lines, f"password={place['password']}"])
    (root / "services").write_text(services + "\n", encoding="utf-8")
    escaped = place["password"].replace("\\", "\\\\").replace(":", "\\:")
    (root / "home").mkdir()
    for file in (root / "passwords", root / "home" / ".pgpass"):
        file.write_text(f"*:*:*:{place['user']}:{escaped}\n", encoding="utf-8")
        file.chmod(0o600)


@pytest.mark.parametrize(("form", "env"), FORMS)
def test_a_form_of_address(
    pg_alone: PostgresProject, place: dict[str, str], form: str, env: dict[str, str]
) -> None:
    """Given on the command line, in the environment and in the file, each reaches the database."""
    if "HOME" in env and driver.libpq_version() < 150000:
        pytest.skip("before version 15, libpq asks the system where the home is")
    _write_files(pg_alone.root, place)
    address = form.format_map(place)
    libpq = {
        name: str(pg_alone.root / "home") if name == "HOME" else value.format_map(place)
        for name, value in env.items()
    }
    out = pg_alone.succeed("apply", address, env=libpq)
    assert out.splitlines()[0].startswith("applied "), out
    assert pg_alone.query("SELECT tableowner FROM pg_tables WHERE tablename = 'a'") == [(ROLE,)]
    pg_alone.succeed("status", "--check", env={**libpq, "FLUX_DATABASE_URL": address})
    pg_alone.configure(url=address)
    pg_alone.succeed("status", "--check", env=libpq)


def test_a_variable_of_the_file_stands_for_a_piece(
    pg_alone: PostgresProject, place: dict[str, str]
) -> None:
    pg_alone.write(
        "flux.toml",
        '[flux]\nbackend = "postgres"\n'
        'database_url = "postgresql://${DB_USER}:${DB_PASSWORD}@'
        + "{host}:{port}/{database}".format_map(place)
        + '"\n',
    )
    pg_alone.succeed("apply", env={"DB_USER": ROLE, "DB_PASSWORD": ENCODED})
    assert pg_alone.applied() == ["001"]


# TLS ----------------------------------------------------------------------------------------


#: One process runs them all, for one server with a certificate is enough.
with_tls = pytest.mark.xdist_group("TLS")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(authority: trustme.CA) -> Iterator[PostgresServer]:
    """A server of this file's own whose certificate is for `localhost`."""
    with a_server() as server:
        certificate = authority.issue_cert("localhost")
        chain, key = server.data_directory / "tls.crt", server.data_directory / "tls.key"
        key.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(chain)
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            try:
                for name, value in (("cert", "tls.crt"), ("key", "tls.key")):
                    cursor.execute(f"ALTER SYSTEM SET ssl_{name}_file = '{value}'")
                cursor.execute("ALTER SYSTEM SET ssl = on")
            except psycopg2.Error as error:
                not_in_the_server(f"TLS: {error}")
        server.stop("fast")
        server.start()
        yield server


def _tls_address(server: PostgresServer, mode: str, certificate: str) -> str:
    return (
        f"postgresql://{server.user}:{server.password}@localhost:{server.port}/flux_tests"
        f"?hostaddr={server.host}&sslmode={mode}&sslrootcert={certificate}"
    )


@with_tls
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_tls(
    tmp_path: Path,
    tls_server: PostgresServer,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    """A relative path of a certificate in the file counts from the file, wherever flux runs."""
    project = tmp_path / "project"
    (project / "migrations").mkdir(parents=True)
    (project / "tls").mkdir()
    authority.cert_pem.write_to_path(project / "tls" / "ca.pem")
    url = _tls_address(tls_server, mode, "tls/ca.pem")
    (project / "flux.toml").write_text(
        f'[flux]\nbackend = "postgres"\ndatabase_url = "{url}"\n', "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    with FluxRunner.from_file("project/flux.toml") as runner:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert runner.backend.fetch(query) == [(True,)]


@with_tls
def test_a_server_that_another_authority_has_signed_for_is_refused(
    tmp_path: Path, tls_server: PostgresServer
) -> None:
    (tmp_path / "migrations").mkdir()
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    url = _tls_address(tls_server, "verify-full", str(tmp_path / "ca.pem"))
    config = FluxConfig(backend="postgres", migration_directory=str(tmp_path / "migrations"))
    with pytest.raises(Exception, match="certificate verify failed") as caught:
        FluxRunner.from_config(config, url).__enter__()
    assert tls_server.password not in str(caught.value)
