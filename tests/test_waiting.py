"""Waiting for a database that is still starting: `--wait`, `connect_wait`."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import port_for
import pytest

import flux
from flux import FluxConfig
from flux.backends.patience import may_be_starting
from flux.exceptions import DatabaseUnavailableError
from flux.results import Event
from tests.conftest import a_server, unavailable
from tests.flux_process import FluxProcess
from tests.pgbouncer import PgBouncer, PgBouncerUnavailableError, running_pgbouncer
from tests.postgres_server import Postgres, PostgresServer, own_database
from tests.project import Project

#: One process runs them all, for one server is enough to stop.
pytestmark = pytest.mark.xdist_group("waiting")

WAIT = 60  # seconds; all tests are over long before


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server of this file's own, to be stopped at will."""
    with a_server() as running:
        yield running


@pytest.fixture
def database(own_server: PostgresServer) -> Iterator[Postgres]:
    with own_database(own_server) as place:
        yield place


@pytest.fixture(scope="module")
def pooler(own_server: PostgresServer) -> Iterator[PgBouncer]:
    try:
        with running_pgbouncer(own_server) as running:
            yield running
            return
    except PgBouncerUnavailableError as error:
        problem = str(error)
    unavailable(problem)


@pytest.fixture
def waiting(tmp_path: Path, run_flux: FluxProcess) -> Project:
    """A project with one migration; the address is given with each command."""
    project = Project(tmp_path, run_flux)
    project.write("flux.toml", '[flux]\nbackend = "postgres"\n')
    project.add({"001.sql": "CREATE TABLE a ()"})
    return project


@contextmanager
def stopped(server: PostgresServer) -> Iterator[Callable[[], None]]:
    """The server is away until the block ends, or the function that it gets is called."""
    server.stop("fast")
    with contextlib.ExitStack() as stack:
        stack.callback(server.start)
        yield lambda: stack.pop_all().close()


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line on standard error; the empty text at its end."""
    assert process.stderr is not None
    return process.stderr.readline()


def config_of(project: Project, wait: float) -> FluxConfig:
    directory = str(project.root / "migrations")
    return FluxConfig(backend="postgres", migration_directory=directory, connect_wait=wait)


# It comes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("status",), id="status"),
        pytest.param(("plan",), id="plan"),
        pytest.param(("validate",), id="validate"),
        pytest.param(("apply",), id="apply"),
    ],
)
def test_flux_waits_until_the_server_is_there(
    waiting: Project, database: Postgres, command: tuple[str, ...]
) -> None:
    with (
        stopped(database.server) as start,
        waiting.started(*command, database.url, "--wait", str(WAIT)) as process,
    ):
        said = next_line(process)
        assert said.startswith(f"flux: waiting for the database, up to {WAIT} s: cannot connect to")
        assert "Connection refused" in said
        start()
        assert process.wait() == 0
        assert database.server.password not in said + next_line(process)


def test_a_rollback_waits_as_well(waiting: Project, database: Postgres) -> None:
    waiting.add({"001.undo.sql": "DROP TABLE a"})
    waiting.succeed("apply", database.url)
    with (
        stopped(database.server) as start,
        waiting.started("rollback", "-y", database.url, "--wait", str(WAIT)) as process,
    ):
        assert "waiting for the database" in next_line(process)
        start()
        assert process.wait() == 0


def test_a_socket_that_is_not_there_is_waited_for(waiting: Project, database: Postgres) -> None:
    server = database.server
    socket = server.data_directory.parent.parent
    url = (
        f"postgresql://{server.user}:{server.password}@/{database.database}"
        f"?host={socket}&port={server.port}"
    )
    with (
        stopped(server) as start,
        waiting.started("apply", url, "--wait", str(WAIT)) as process,
    ):
        assert "No such file or directory" in next_line(process)
        start()
        assert process.wait() == 0


def test_a_server_that_does_not_take_connections_yet_is_waited_for(
    waiting: Project, database: Postgres
) -> None:
    """SQLSTATE 57P03, from a standby that takes none until it is promoted."""
    server = database.server
    events: list[str] = []

    def on_event(event: Event) -> None:
        events.append(event.message)
        if len(events) == 1:
            server.promote()

    standby = server.data_directory / "standby.signal"
    server.stop("fast")
    settings = server.data_directory / "postgresql.auto.conf"
    before = settings.read_text()
    try:
        settings.write_text(before + "hot_standby = off\n")
        standby.touch()
        standby.chmod(0o666)
        server.start()
        config = config_of(waiting, WAIT)
        flux.apply(database.url, config=config, on_event=on_event)
    finally:
        standby.unlink(missing_ok=True)
        settings.write_text(before)
        server.stop("fast")
        server.start()
    assert "the database system is not" in events[0]


def test_a_program_waits_by_connect_wait(waiting: Project, database: Postgres) -> None:
    with stopped(database.server) as start:
        calls = iter([start])

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                next(calls)()

        result = flux.apply(database.url, config=config_of(waiting, WAIT), on_event=on_event)
    assert [step.name for step in result.steps] == ["001"]


def test_the_setting_is_for_the_command_line_too(waiting: Project, database: Postgres) -> None:
    waiting.write("flux.toml", f'[flux]\nbackend = "postgres"\nconnect_wait = {WAIT}\n')
    with stopped(database.server) as start, waiting.started("apply", database.url) as process:
        assert "waiting for the database" in next_line(process)
        start()
        assert process.wait() == 0


def test_a_server_behind_a_pooler_is_waited_for(
    waiting: Project, database: Postgres, pooler: PgBouncer
) -> None:
    with (
        stopped(database.server) as start,
        waiting.started("apply", pooler.url(database.database), "--wait", str(WAIT)) as process,
    ):
        assert "waiting for the database" in next_line(process)
        start()
        assert process.wait() == 0


# It does not come ---------------------------------------------------------------------------


def test_flux_gives_up_with_the_last_error(waiting: Project) -> None:
    pytest.importorskip("psycopg2")
    closed = port_for.select_random()
    error = waiting.fail("status", f"postgresql://u:s3cr3t@127.0.0.1:{closed}/x", "--wait", "0.2")
    told, cause, _, hint = error.splitlines()
    assert told.startswith("flux: waiting for the database, up to 0.2 s: cannot connect to ")
    assert cause.startswith(f"error: cannot connect to postgresql://u:***@127.0.0.1:{closed}/x: ")
    assert hint == (
        "hint: it was waited for, for 0 s; to wait longer: --wait SECONDS, or connect_wait in the "
        "configuration"
    )
    assert "s3cr3t" not in error


@pytest.mark.parametrize(
    ("address", "says"),
    [
        pytest.param(
            "postgresql://{user}:wrong@{host}:{port}/postgres",
            "password authentication failed",
            id="wrong password",
        ),
        pytest.param(
            "postgresql://{user}:{password}@{host}:{port}/nothing",
            'database "nothing" does not exist',
            id="no database",
        ),
        pytest.param(
            "postgresql://{user}:wrong@[::1]:{port},{host}:{port}/postgres",
            "password authentication failed",
            id="wrong password, after one that refuses",
        ),
        pytest.param(
            "postgresql://{user}:{password}@{host}:{port}/postgres?sslmode=verify-full"
            "&sslrootcert=/nothing/ca.pem",
            "",
            id="no certificate",
        ),
    ],
)
def test_what_will_not_come_is_not_waited_for(
    waiting: Project, server: PostgresServer, address: str, says: str
) -> None:
    values = {"user": server.user, "password": server.password, "host": server.host}
    error = waiting.fail("status", address.format(port=server.port, **values), "--wait", str(WAIT))
    assert error.startswith("error: cannot connect to ")
    assert says in error
    assert "waited for" not in error


def test_sqlite_is_not_waited_for(project: Project) -> None:
    error = project.fail("status", "no/such/app.db", "--wait", str(WAIT))
    assert error.startswith("error: cannot open no/such/app.db")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interruption_ends_the_wait(waiting: Project, sent: signal.Signals, code: int) -> None:
    closed = port_for.select_random()
    address = f"postgresql://u:p@127.0.0.1:{closed}/x"
    with waiting.started("apply", address, "--wait", str(WAIT)) as process:
        assert "waiting for the database" in next_line(process)
        process.send_signal(sent)
        assert process.wait() == code
        assert next_line(process) == "error: interrupted: nothing was changed\n"


# The words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "cannot open the database: (2003, \"Can't connect to MySQL server on 'h' "
        '([Errno 111] Connection refused)")',
        "(2003, \"Can't connect to MySQL server on 'h' ([Errno -2] Name or service not known)\")",
        'could not translate host name "db" to address: Temporary failure in name resolution',
        'connection to server at "h" (10.0.0.1), port 5432 failed: timeout expired',
        'connection to server at "h", port 1 failed: FATAL:  the database system is starting up',
        'connection to server at "h", port 1 failed: FATAL:  the database system is shutting down',
        'connection to server at "h", port 1 failed: server closed the connection unexpectedly',
        'connection to server on socket "/s/.s.PGSQL.1" failed: No such file or directory',
    ],
)
def test_what_may_be_starting(message: str) -> None:
    assert may_be_starting(message)


@pytest.mark.parametrize(
    "message",
    [
        'connection to server at "h", port 1 failed: FATAL:  database "x" does not exist',
        'connection to server at "h" (::1), port 1 failed: Connection refused\n'
        'connection to server at "h" (127.0.0.1), port 1 failed: FATAL:  password authentication '
        'failed for user "u"',
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'h', port: 1, hostaddr: '::1': connection to server at \"::1\", port 1 failed: "
        "Connection refused\n"
        "- host: 'h', port: 1, hostaddr: '127.0.0.1': connection to server at \"127.0.0.1\", port "
        '1 failed: FATAL:  password authentication failed for user "u"',
        'root certificate file "/x/root.crt" does not exist',
        'could not open certificate file "/x": No such file or directory',
        "unable to open database file",
        'definition of service "x" not found',
    ],
)
def test_what_is_not_starting(message: str) -> None:
    assert not may_be_starting(message)


def test_a_backend_that_knows_nothing_of_it_waits(tmp_path: Path) -> None:
    """Whatever backend: what its driver says of a refused connection is enough."""
    import sqlite3

    from flux.backends.sqlite import SQLiteBackend

    tries = iter([sqlite3.OperationalError("Connection refused")] * 2)

    class Late(SQLiteBackend):
        @contextmanager
        def connection(self) -> Iterator[sqlite3.Connection]:
            for error in tries:
                raise error
            with super().connection() as connection:
                yield connection

    backend = Late(":memory:")
    told: list[str] = []
    backend.announce = told.append
    with pytest.raises(DatabaseUnavailableError, match="waited for with --wait"), backend.opened():
        pass
    backend.connect_wait = WAIT
    with backend.opened():
        assert backend.fetch("SELECT 1") == [(1,)]
    assert told == [
        f"waiting for the database, up to {WAIT} s: cannot open the database: Connection refused"
    ]


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("command", ["apply", "doctor"])
def test_an_interruption_ends_connecting(waiting: Project, driver: str, command: str) -> None:
    """To a host that takes the connection and never answers; no wait was asked for."""
    waiting.write("flux.toml", f'[flux]\nbackend = "postgres"\n[backend]\ndriver = "{driver}"\n')
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/x"
        with waiting.started(command, url) as process:
            taken, _ = silent.accept()
            with taken:
                taken.settimeout(60)
                assert taken.recv(1)  # it has begun to connect
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 130
