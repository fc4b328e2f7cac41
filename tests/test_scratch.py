"""Scratch databases: made, known again, dropped, swept up after a crash, cloned from templates."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

from flux.address import sqlite_path
from flux.backends.base import MigrationBackend
from flux.backends.postgres import PostgresBackend
from flux.backends.postgres_scratch import _how_to_make
from flux.backends.sqlite import SQLiteBackend
from flux.config import FluxConfig
from flux.exceptions import ScratchDatabaseError
from flux.fingerprint import compare
from flux.scratch import (
    BUILDING,
    KEPT_TEMPLATES,
    SCRATCH,
    TEMPLATE,
    ScratchPlace,
    made_at,
    new_name,
)
from tests import driver
from tests.conftest import not_in_the_server
from tests.flux_process import flux_environment
from tests.postgres_server import Postgres, PostgresServer, drop_flux_databases
from tests.wire import counting_proxy, outer_address

HOUR = 3600


@dataclass(frozen=True)
class Ground:
    """A database beside which scratch databases are made, and how a test looks at them."""

    backend: str
    url: str
    directory: Path
    server: PostgresServer | None = None

    def make(self, url: str = "") -> MigrationBackend:
        if self.backend == "sqlite":
            return SQLiteBackend.from_config(FluxConfig(), url or self.url)
        return PostgresBackend.from_config(
            FluxConfig(backend="postgres", backend_config={"driver": driver.NAME}), url or self.url
        )

    def place(self) -> ScratchPlace:
        return self.make().scratch_place()

    def connect(self, address: str) -> Any:
        """A connection of the test's own, in autocommit."""
        if self.backend == "sqlite":
            return sqlite3.connect(sqlite_path(address), isolation_level=None)
        connection = psycopg2.connect(address)
        connection.autocommit = True
        return connection

    def query(self, address: str, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements in a scratch database; the rows of the last."""
        with closing(self.connect(address)) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def names(self, prefix: str = SCRATCH) -> set[str]:
        """The databases that are there."""
        if self.server is None:
            return {path.stem for path in self.directory.glob(f"*/{prefix}*.db")}
        with closing(self.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]
            )
            return {name for (name,) in cursor.fetchall()}

    def name_of(self, address: str) -> str:
        if self.server is None:
            return Path(sqlite_path(address)).stem
        return str(psycopg2.extensions.parse_dsn(address)["dbname"])

    def age(self, name: str, new: str) -> None:
        """Let a database look as if it had been made when the name `new` says."""
        if self.server is None:
            [path] = self.directory.glob(f"*/{name}.db")
            made = made_at(new)
            assert made is not None
            os.utime(path, (made, made))
            path.rename(path.with_stem(new))
            return
        with closing(self.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"COMMENT ON DATABASE {name} IS NULL")
            cursor.execute(f"ALTER DATABASE {name} RENAME TO {new}")

    def program(self, body: str) -> str:
        """A program that has `place`, entered, in which it runs `body`."""
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        return (
            "import os, signal, sys, time\n"
            "from flux.backends import load_backend\n"
            "from flux.config import FluxConfig\n"
            f"config = FluxConfig(backend={self.backend!r}, "
            f"backend_config={{}} if {self.backend!r} == 'sqlite' else "
            f"{{'driver': {driver.NAME!r}}})\n"
            f"backend = load_backend(config.backend).from_config(config, {self.url!r})\n"
            f"with backend.scratch_place() as place:\n{lines}"
        )

    def start(self, body: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", self.program(body)],
            cwd=self.directory,
            env=flux_environment({"TMPDIR": str(self.directory), "TEMP": str(self.directory)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ground(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    """A database of the test's own; the directory for temporary files is the test's own, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "sqlite":
        yield Ground("sqlite", str(tmp_path / "app.db"), tmp_path)
        return
    postgres: Postgres = request.getfixturevalue("postgres_database")
    ground = Ground("postgres", postgres.server.url(postgres.database), tmp_path, postgres.server)
    drop_flux_databases(postgres.server)  # templates of other tests
    yield ground
    drop_flux_databases(postgres.server)


@pytest.fixture
def place(ground: Ground) -> Iterator[ScratchPlace]:
    with ground.place() as place:
        yield place


# Made and dropped ---------------------------------------------------------------------------


def test_a_scratch_database_is_there_until_the_block_ends(
    ground: Ground, place: ScratchPlace
) -> None:
    with place.database() as address:
        name = ground.name_of(address)
        assert name in ground.names()
        ground.query(address, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
        assert ground.query(address, "SELECT a FROM t") == [(1,)]
        backend = ground.make(address)
        with backend.opened():
            assert backend.fetch("SELECT a FROM t") == [(1,)]
    assert name not in ground.names()


def test_it_is_dropped_after_an_error_and_whoever_is_connected(
    ground: Ground, place: ScratchPlace
) -> None:
    held = []

    def fail() -> None:
        with place.database() as address:
            held.append(ground.connect(address))
            held[0].cursor().execute("CREATE TABLE t (a int)")
            raise RuntimeError(address)

    with pytest.raises(RuntimeError) as caught:
        fail()
    held[0].close()
    assert ground.name_of(str(caught.value)) not in ground.names()


def test_names_tell_when_and_who(ground: Ground, place: ScratchPlace) -> None:
    before = int(time.time())
    with place.database() as address:
        name = ground.name_of(address)
        made = made_at(name)
        assert made is not None
        assert before - 1 <= made <= time.time() + 1
        assert name.split("_")[3] == str(os.getpid())


def test_only_scratch_databases_are_dropped(ground: Ground, place: ScratchPlace) -> None:
    with pytest.raises(ScratchDatabaseError, match=r"is no scratch database of flux's: it stays$"):
        place.drop(ground.url)
    ground.query(ground.url, "SELECT 1")


def test_sides_of_a_file_are_removed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backend = SQLiteBackend.from_config(FluxConfig(), ":memory:")
    with backend.scratch_place() as place, place.database() as address:
        scratch = SQLiteBackend.from_config(FluxConfig(), address)
        with scratch.opened():
            scratch.run_sql("PRAGMA journal_mode = WAL")
            with scratch.migration_lock(), scratch.transaction():
                scratch.initialize()
            [directory] = tmp_path.iterdir()
            assert len(list(directory.iterdir())) == 4  # the file, -wal, -shm, the lock
    assert list(directory.iterdir()) == []
    assert directory.stat().st_mode & 0o777 == 0o700


# Swept up -----------------------------------------------------------------------------------

MAKES_ONE = """\
address = place.create()
print(address, flush=True)
time.sleep(600)"""


@contextmanager
def _left_by_a_kill(ground: Ground) -> Iterator[str]:
    """The name of a scratch database whose maker was killed in the middle."""
    with ground.start(MAKES_ONE) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.communicate()
        process.kill()
    yield ground.name_of(address)


def _aged(name: str, age: float) -> str:
    """The name of a database that is older, of the same process."""
    pid = name.split("_")[3]
    _, _, made, _, end = new_name(SCRATCH, time.time() - age).split("_")
    return f"{SCRATCH}{made}_{pid}_{end}"


def test_what_a_kill_left_is_swept_when_it_is_an_hour_old(
    ground: Ground, place: ScratchPlace
) -> None:
    with _left_by_a_kill(ground) as name:
        assert place.sweep() == []
        young, old = _aged(name, HOUR - 60), _aged(name, HOUR + 60)
        ground.age(name, young)
        assert place.sweep() == []
        ground.age(young, old)
        assert place.sweep() == [old]
        assert ground.names() == set()


def test_what_is_in_use_is_not_swept(ground: Ground, place: ScratchPlace) -> None:
    """Nobody's session is ended for it."""
    with _left_by_a_kill(ground) as name:
        old = _aged(name, HOUR + 60)
        ground.age(name, old)
        address = (
            str(next(ground.directory.glob(f"*/{old}.db")))
            if ground.server is None
            else ground.server.url(old)
        )
        with closing(ground.connect(address)) as user:
            user.cursor().execute("BEGIN")
            user.cursor().execute("CREATE TABLE t (a int)")
            assert place.sweep() == []
            user.cursor().execute("ROLLBACK")
        ground.query(ground.url, "SELECT 1")
    _until(lambda: place.sweep() == [old])


def test_what_its_maker_still_has_is_not_swept(ground: Ground, place: ScratchPlace) -> None:
    """On SQLite the process that has made it; on PostgreSQL its connections."""
    with place.database() as address, closing(ground.connect(address)):
        name = ground.name_of(address)
        if ground.server is None:
            path = sqlite_path(address)
            os.utime(path, (0, 0))
        assert name not in place.sweep()
        assert name in ground.names()


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what the server does a moment later."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Cloned from templates ----------------------------------------------------------------------


def _builder(ground: Ground, built: list[str]) -> Callable[[str], None]:
    def build(address: str) -> None:
        built.append(address)
        ground.query(address, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")

    return build


def test_a_template_is_built_once_and_copied(ground: Ground, place: ScratchPlace) -> None:
    built: list[str] = []
    build = _builder(ground, built)
    first, second = place.clone("abc", build), place.clone("abc", build)
    ground.query(first, "INSERT INTO t VALUES (2)")
    assert ground.query(second, "SELECT a FROM t") == [(1,)]
    with ground.place() as other:
        third = other.clone("abc", build)
    assert ground.query(third, "SELECT a FROM t") == [(1,)]
    assert len(built) == 1
    assert ground.query(place.clone("abd", build), "SELECT a FROM t") == [(1,)]
    assert len(built) == 2
    for address in (first, second, third):
        place.drop(address)
    assert len(ground.names()) == 1
    assert len(ground.names(TEMPLATE)) == 2


def test_a_template_cannot_be_changed(ground: Ground, place: ScratchPlace) -> None:
    place.drop(place.clone("abc", _builder(ground, [])))
    [template] = ground.names(TEMPLATE)
    if ground.server is None:
        [path] = ground.directory.glob(f"*/{template}.db")
        assert path.stat().st_mode & 0o777 == 0o400
        return
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        ground.connect(ground.server.url(template))


def test_a_build_that_fails_leaves_no_template(ground: Ground, place: ScratchPlace) -> None:
    def fail(address: str) -> None:
        ground.query(address, "CREATE TABLE u (a int)")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match=r"^on purpose$"):
        place.clone("abc", fail)
    for prefix in (SCRATCH, BUILDING, TEMPLATE):
        assert ground.names(prefix) == set()
    address = place.clone("abc", _builder(ground, []))
    assert ground.query(address, "SELECT a FROM t") == [(1,)]
    place.drop(address)


def test_a_kill_while_building_leaves_no_template(ground: Ground, place: ScratchPlace) -> None:
    """The next one does not wait for the killed one; what that left is swept later."""
    body = """\
def build(address):
    print(address, flush=True)
    time.sleep(600)
place.clone("abc", build)"""
    with ground.start(body) as process:
        assert process.stdout is not None
        half = process.stdout.readline().strip()
        assert half, process.communicate()
        process.kill()
    address = place.clone("abc", _builder(ground, []))
    assert ground.query(address, "SELECT a FROM t") == [(1,)]
    place.drop(address)
    name = ground.name_of(half)
    assert name in ground.names(BUILDING)
    old = _aged(name, HOUR + 60).replace("scratch", "building")
    ground.age(name, old)
    assert place.sweep() == [old]
    assert len(ground.names(TEMPLATE)) == 1


def test_processes_that_want_one_template_build_it_once(ground: Ground) -> None:
    """Those that come while it is built wait for it, and each gets a copy of its own."""
    statement = "CREATE TABLE t AS SELECT 1 AS a"
    body = f"""\
def build(address):
    with open("built", "a") as file:
        file.write("x")
    time.sleep(0.5)
    scratch = load_backend(config.backend).from_config(config, address)
    with scratch.opened():
        scratch.run_sql({statement!r})
for _ in range(3):
    print(place.clone("abc", build), flush=True)
sys.stdin.read()"""
    processes = [ground.start(body) for _ in range(4)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    addresses = [address for out, _ in said for address in out.splitlines()]
    assert len({*addresses}) == 12
    for address in addresses:
        assert ground.query(address, "SELECT a FROM t") == [(1,)]
    assert (ground.directory / "built").read_text() == "x"


def test_the_newest_templates_of_a_project_stay(ground: Ground, place: ScratchPlace) -> None:
    build = _builder(ground, [])
    place.drop(place.clone("other", build, project="/srv/other"))
    for number in range(KEPT_TEMPLATES + 2):
        place.drop(place.clone(f"key{number}", build, project="/srv/app"))
        if ground.server is None:
            [path] = ground.directory.glob(f"*/{TEMPLATE}key{number}_*.db")
            os.utime(path, (number, number))
        else:
            [name] = ground.names(f"{TEMPLATE}key{number}_")
            comment = f"flux: template, made 2026-01-01T00:00:0{number}Z by me, for /srv/app"
            ground.query(ground.url, f"COMMENT ON DATABASE {name} IS '{comment}'")
    left = {name.split("_")[2] for name in ground.names(TEMPLATE)}
    assert left == {"other", *(f"key{number}" for number in range(2, KEPT_TEMPLATES + 2))}


def test_a_key_is_no_part_of_a_path(place: ScratchPlace) -> None:
    with pytest.raises(ValueError, match=r"^a key is of at most 40 small letters and digits"):
        place.clone("../x", print)


# SQLite -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there the parent is the user's own")
def test_a_directory_of_another_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who foresees its name cannot have it: not open to others, and not by a link."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = tmp_path / f"flux-scratch-{os.getuid()}"
    place = SQLiteBackend.from_config(FluxConfig(), ":memory:").scratch_place()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ScratchDatabaseError) as caught:
        place.__enter__()
    assert str(caught.value).startswith(f"{directory} is not a directory of this user's alone")
    directory.unlink()
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(ScratchDatabaseError):
        place.__enter__()
    directory.chmod(0o700)
    with place:
        assert place.description == f"the directory {directory}"


def test_a_template_in_wal_mode_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def build(address: str) -> None:
        with closing(sqlite3.connect(sqlite_path(address))) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (a int)")

    with SQLiteBackend.from_config(FluxConfig(), ":memory:").scratch_place() as place:
        path = sqlite_path(place.clone("abc", build))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
            assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_a_template_that_is_still_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = []

    def build(address: str) -> None:
        held.append(sqlite3.connect(sqlite_path(address)))
        held[0].execute("PRAGMA journal_mode = WAL")
        held[0].execute("CREATE TABLE t (a int)")

    with SQLiteBackend.from_config(FluxConfig(), ":memory:").scratch_place() as place:
        with pytest.raises(ScratchDatabaseError, match="is still open"):
            place.clone("abc", build)
        held[0].close()


# PostgreSQL ---------------------------------------------------------------------------------


def postgres_backend(address: str) -> PostgresBackend:
    config = FluxConfig(backend="postgres", backend_config={"driver": driver.NAME})
    return PostgresBackend.from_config(config, address)


@pytest.fixture
def server_place(postgres_database: Postgres) -> Iterator[ScratchPlace]:
    backend = postgres_backend(postgres_database.server.url(postgres_database.database))
    with backend.scratch_place() as place:
        yield place


def test_a_warm_copy_is_two_statements(postgres_database: Postgres) -> None:
    """CREATE DATABASE and its comment; no question is asked before."""
    url = postgres_database.url_with(log_statement="all")
    with postgres_backend(url).scratch_place() as place:
        place.drop(place.clone("abc", lambda address: None))
        with postgres_database.server.recording() as statements:
            address = place.clone("abc", lambda address: None)
        place.drop(address)
        words = [statement.text.split()[:2] for statement in statements]
        assert words == [["CREATE", "DATABASE"], ["COMMENT", "ON"]]
        postgres_database.query("SELECT 1")
        _drop_templates(postgres_database.server)


def _drop_templates(server: PostgresServer) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT datname FROM pg_database WHERE starts_with(datname, '{TEMPLATE}')")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP DATABASE {name}")


def test_settings_of_the_address_make_another_template(postgres_database: Postgres) -> None:
    """Tables lie where the search_path is."""
    built: list[str] = []
    for settings in ({}, {"search_path": "x"}, {"search_path": "x"}):
        url = postgres_database.server.url(postgres_database.database, **settings)
        with postgres_backend(url).scratch_place() as place:
            place.drop(place.clone("abc", built.append))
    assert len(built) == 2
    _drop_templates(postgres_database.server)


def test_the_comment_tells_owner_and_time(
    server: PostgresServer, server_place: ScratchPlace
) -> None:
    with server_place.database() as address:
        name = psycopg2.extensions.parse_dsn(address)["dbname"]
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
                [name],
            )
            [(comment,)] = cursor.fetchall()
    pattern = rf"flux: scratch database, made 20\d\d-\d\d-\d\dT[\d:]+Z by .+@.+, pid {os.getpid()}"
    assert re.fullmatch(rf"{pattern}, by session [\d.]+", comment)


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://{user}:{password}@{host}:{port}/{database}",
        "postgresql://{host}:{port}/{database}?user={user}&password={password}",
        "postgresql://{user}:{password}@{host}:{port}?dbname={database}",
        "postgres://{user}:{password}@{host}:{port}/{database}?application_name=it%20is",
        "host={host} port={port} user={user} password={password} dbname={database}",
        "host={host} port={port} user={user} password='{password}' dbname = '{database}'",
        "host={host} port={port} user={user} password={password}",
        "postgresql://{user}:{password}@{host}:{port}",
    ],
)
def test_every_form_of_address(server: PostgresServer, form: str) -> None:
    """The scratch database is reached with the same parameters, and another database."""
    password = "it's a \\ b" if "'" not in form and "=" in form else "x"
    quoted = password
    if "://" in form:
        quoted = quote(password, safe="")
    elif password != "x":
        quoted = "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS maker")
        cursor.execute("CREATE ROLE maker LOGIN CREATEDB PASSWORD %s", [password])
        cursor.execute("CREATE DATABASE maker OWNER maker")
        try:
            url = form.format(
                user="maker", password=quoted, host=server.host, port=server.port, database="maker"
            )
            with postgres_backend(url).scratch_place() as place, place.database() as address:
                with closing(driver.connect(address)) as scratch:
                    inner = scratch.cursor()
                    inner.execute(
                        "SELECT current_user::text, current_database()::text, "
                        "current_setting('application_name')"
                    )
                    [(user, database, application)] = inner.fetchall()
                assert (user, database.startswith(SCRATCH)) == ("maker", True)
                assert application == ("it is" if "application" in form else "")
        finally:
            cursor.execute("DROP DATABASE maker WITH (FORCE)")
            cursor.execute("DROP ROLE maker")


def test_a_connection_that_was_handed_in(postgres_database: Postgres) -> None:
    """Its parameters make the place, its password with them; it is left as it was."""
    url = postgres_database.server.url(postgres_database.database)
    with closing(driver.connect(url)) as connection:
        config = FluxConfig(backend="postgres")
        backend = PostgresBackend.for_connection(config, connection)
        with (
            backend.scratch_place() as place,
            place.database() as address,
            closing(driver.connect(address)) as scratch,
        ):
            assert scratch.info.dbname.startswith(SCRATCH)
        assert connection.info.transaction_status == 0


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_encoding_and_locale_are_those_of_the_database(
    server: PostgresServer, encoding: str
) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE DATABASE model TEMPLATE template0 ENCODING '{encoding}' "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            model = postgres_backend(server.url("model"))
            with model.scratch_place() as place, place.database() as address:
                name = psycopg2.extensions.parse_dsn(address)["dbname"]
                cursor.execute(
                    "SELECT DISTINCT encoding, datcollate, datctype FROM pg_database "
                    f"WHERE datname IN ('model', '{name}')"
                )
                assert len(cursor.fetchall()) == 1
        finally:
            cursor.execute("DROP DATABASE model WITH (FORCE)")


@pytest.mark.parametrize(
    ("own", "how"),
    [
        pytest.param({}, "", id="as template1"),
        pytest.param(
            {"encoding": "LATIN1"},
            " TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' "
            "LOCALE_PROVIDER 'libc'",
            id="encoding",
        ),
        pytest.param(
            {"datlocprovider": "i", "datlocale": "de", "daticurules": "&a < b"},
            " TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' "
            "LOCALE_PROVIDER 'icu' ICU_LOCALE 'de' ICU_RULES '&a < b'",
            id="icu",
        ),
        pytest.param(
            {"datlocprovider": "i", "daticulocale": "de"},
            " TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' "
            "LOCALE_PROVIDER 'icu' ICU_LOCALE 'de'",
            id="icu of 15",
        ),
        pytest.param(
            {"datlocprovider": "b", "datlocale": "C.UTF-8"},
            " TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' "
            "LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C.UTF-8'",
            id="builtin",
        ),
    ],
)
def test_how_a_database_like_another_is_made(own: dict[str, str], how: str) -> None:
    """All versions and providers, which no one server has."""
    template1 = {"encoding": "UTF8", "datcollate": "C", "datctype": "C", "datlocprovider": "c"}
    assert _how_to_make({**template1, **own}, template1, lambda text: f"'{text}'") == how


@pytest.mark.parametrize(
    ("since", "provider", "locale"),
    [(15, "icu", "ICU_LOCALE 'de'"), (17, "builtin", "BUILTIN_LOCALE 'C.UTF-8'")],
)
def test_providers_for_real(server: PostgresServer, since: int, provider: str, locale: str) -> None:
    if server.version < since * 10000:
        pytest.skip(f"databases with the provider {provider} came with PostgreSQL {since}")
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(
                "CREATE DATABASE model TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' "
                f"LC_CTYPE 'C' LOCALE_PROVIDER {provider} {locale}"
            )
        except psycopg2.errors.FeatureNotSupported as error:
            not_in_the_server(str(error))
        try:
            model = postgres_backend(server.url("model"))
            with model.scratch_place() as place, place.database() as address:
                name = psycopg2.extensions.parse_dsn(address)["dbname"]
                cursor.execute(f"SELECT datlocprovider FROM pg_database WHERE datname = '{name}'")
                assert cursor.fetchall() == [(provider[0],)]
        finally:
            cursor.execute("DROP DATABASE model WITH (FORCE)")


PASSWORD = "it's $ecret"


def test_without_the_right_it_says_what_to_do(server: PostgresServer) -> None:
    """And shows no password, nor in the cause."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE humble LOGIN PASSWORD %s", [PASSWORD])
        try:
            url = (
                f"postgresql://humble:{quote(PASSWORD, safe='')}@{server.host}:{server.port}"
                "/flux_tests"
            )
            with postgres_backend(url).scratch_place() as place:
                assert place.description == f"the server at {server.host}:{server.port}"
                for make in (place.create, lambda: place.clone("abc", print)):
                    with pytest.raises(ScratchDatabaseError) as caught:
                        make()
                    assert str(caught.value) == (
                        "cannot make a scratch database: permission denied to create database\n"
                        'hint: ALTER ROLE "humble" CREATEDB, or name a server whose databases may '
                        "come and go: --shadow-url, or shadow_url in the configuration"
                    )
                    assert "ecret" not in repr((caught.value, caught.value.__cause__))
                assert place.sweep() == []
        finally:
            cursor.execute("DROP ROLE humble")


def test_what_is_anothers_is_not_swept(server: PostgresServer) -> None:
    """Neither is it an error that it cannot be dropped."""
    old = new_name(SCRATCH, time.time() - 2 * HOUR)
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE humble LOGIN PASSWORD 'x'")
        cursor.execute(f"CREATE DATABASE {old}")
        try:
            url = f"postgresql://humble:x@{server.host}:{server.port}/flux_tests"
            with postgres_backend(url).scratch_place() as place:
                assert place.sweep() == []
            with postgres_backend(server.url("flux_tests")).scratch_place() as place:
                assert place.sweep() == [old]
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {old}")
            cursor.execute("DROP ROLE humble")


def test_names_that_only_look_like_flux_s_are_not_swept(server: PostgresServer) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE flux_scratch_of_mine")
        try:
            with postgres_backend(server.url("flux_tests")).scratch_place() as place:
                assert place.sweep() == []
        finally:
            cursor.execute("DROP DATABASE flux_scratch_of_mine")


def test_loopback_and_sockets_are_near(server: PostgresServer, server_place: ScratchPlace) -> None:
    assert server_place.is_near
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('unix_socket_directories')")
        [(directories,)] = cursor.fetchall()
    if not (directory := directories.split(",")[0].strip()):
        pytest.skip("the server has no socket")
    address = (
        f"host={directory} port={server.port} user={server.user} password={server.password} "
        "dbname=flux_tests"
    )
    with postgres_backend(address).scratch_place() as place:
        assert place.is_near


def test_another_address_is_not_near(server: PostgresServer) -> None:
    """As the connection has it, whatever name it was found by."""
    if (address := outer_address()) is None:
        pytest.skip("this machine has no address but its own loopback")
    with counting_proxy(server.host, server.port, at=address) as wire:
        url = f"postgresql://{server.user}:{server.password}@{address}:{wire.port}/flux_tests"
        with postgres_backend(url).scratch_place() as place:
            assert not place.is_near
            assert place.description == f"the server at {address}:{wire.port}"


def test_roles_and_tablespaces_lie_beyond(
    server: PostgresServer, server_place: ScratchPlace
) -> None:
    before = server_place.beyond()
    assert compare(before, server_place.beyond()) == ()
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        try:
            cursor.execute("CREATE ROLE one LOGIN")
            cursor.execute("CREATE ROLE two IN ROLE one")
            cursor.execute("ALTER ROLE two SET search_path = x")
            cursor.execute("ALTER ROLE two SET my.password = 'secret'")
            middle = server_place.beyond()
            labels = {
                (difference.kind, difference.item.label) for difference in compare(before, middle)
            }
            assert labels == {("extra", "role one"), ("extra", "role two")}
            assert "secret" not in repr(middle)
            cursor.execute("ALTER ROLE one CREATEDB")
            cursor.execute("ALTER ROLE two RESET search_path")
            cursor.execute("REVOKE one FROM two")
            found = compare(middle, server_place.beyond())
            assert [(one.kind, one.item.kind) for one in found] == [
                ("changed", "role"),
                ("missing", "member of"),
                ("missing", "setting"),
            ]
        finally:
            cursor.execute("DROP ROLE IF EXISTS two, one")


def test_behind_a_pooler(pooled_url: str, server: PostgresServer) -> None:
    """No lock is taken that could not be found again; the template is built nevertheless."""
    with postgres_backend(pooled_url).scratch_place() as place:
        built: list[str] = []
        address = place.clone("pooled", built.append)
        place.drop(address)
        assert len(built) == 1
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchall() == [(0,)]
    _drop_templates(server)
