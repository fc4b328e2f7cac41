"""Scratch databases: made, known again, dropped, swept up after a crash, cloned from templates."""

from __future__ import annotations

import os
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

import psycopg2
import pytest

from flux.address import sqlite_path
from flux.backends.base import MigrationBackend
from flux.backends.postgres import PostgresBackend
from flux.backends.sqlite import SQLiteBackend
from flux.config import FluxConfig
from flux.exceptions import ScratchDatabaseError
from flux.scratch import SCRATCH, ScratchPlace, made_at, new_name
from tests import driver
from tests.flux_process import flux_environment
from tests.postgres_server import Postgres, PostgresServer

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
            found = self.directory.glob(f"*/{prefix}*")
            return {path.name.partition(".db")[0] for path in found}
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
            env=flux_environment({"TMPDIR": str(self.directory)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


@pytest.fixture(params=["sqlite", "postgres"])
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
    before = ground.names("flux_")
    yield ground
    with closing(postgres.server.connect()) as connection, connection.cursor() as cursor:
        for name in ground.names("flux_") - before:
            if name != "flux_tests":
                cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


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
