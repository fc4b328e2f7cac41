"""`flux.testing`: databases of a test's own, without a test runner."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux import FluxConfig
from flux.directory import read
from flux.exceptions import (
    InvalidConfigurationError,
    MigrationApplyError,
    ScratchDatabaseError,
    UnknownMigrationError,
)
from flux.testing import Database, MigrationSteps, ScratchDatabases, template_key
from tests.postgres_project import PostgresProject
from tests.postgres_server import drop_flux_databases
from tests.project import Project
from tests.wire import counting_proxy, outer_address

MIGRATIONS = {
    "001_users.sql": "CREATE TABLE users (id integer PRIMARY KEY, name varchar(80));\n",
    "001_users.undo.sql": "DROP TABLE users;\n",
    "002_first-name.sql": (
        "ALTER TABLE users ADD COLUMN first_name varchar(80);\n"
        "UPDATE users SET first_name = substr(name, 1, 3);\n"
    ),
    "002_first-name.undo.sql": "ALTER TABLE users DROP COLUMN first_name;\n",
    "003_rows.py": (
        "def apply(connection):\n"
        "    connection.cursor().execute(\"INSERT INTO users VALUES (0, 'root', 'root')\")\n"
        "    with open('builds', 'a') as file:\n"
        "        file.write('x')\n"
        "def undo():\n"
        "    return 'DELETE FROM users WHERE id = 0'\n"
    ),
}


@pytest.fixture(params=["sqlite", "postgres"])
def own(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """A project with migrations; the test works in it, and has its own temporary files."""
    name = {"sqlite": "project", "postgres": "pg_alone"}[request.param]
    project: Project = request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    project.add(MIGRATIONS)
    if not isinstance(project, PostgresProject):
        yield project
        return
    drop_flux_databases(project.postgres.server)  # templates of other tests
    yield project
    drop_flux_databases(project.postgres.server)


def databases_left(project: Project, kind: str = "scratch") -> int:
    """How many databases of that kind are there."""
    if not isinstance(project, PostgresProject):
        return len(list(project.root.glob(f"flux-scratch-*/flux_{kind}_*.db")))
    [(count,)] = project.query(
        f"SELECT count(*) FROM pg_database WHERE starts_with(datname, 'flux_{kind}_')"
    )
    return int(count)


def rows(database: Database, sql: str = "SELECT id, first_name FROM users ORDER BY id") -> Any:
    cursor = database.connect().cursor()
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


def builds(project: Project) -> int:
    """How often the last migration ran."""
    return len((project.root / "builds").read_text())


# Migrated databases -------------------------------------------------------------------------


def test_each_database_is_migrated_and_its_own(own: Project) -> None:
    with ScratchDatabases("flux.toml") as databases:
        with databases.database() as first, databases.database() as second:
            first.connect().cursor().execute("INSERT INTO users VALUES (1, 'Ada', 'Ada')")
            assert rows(first) == [(0, "root"), (1, "Ada")]
            assert rows(second) == [(0, "root")]
            assert databases_left(own) == 2
        assert databases_left(own) == 0
    with ScratchDatabases("flux.toml") as databases, databases.database() as third:
        assert rows(third) == [(0, "root")]
    assert builds(own) == 1
    assert not own.database.exists()


def test_a_database_goes_with_its_connections(own: Project) -> None:
    """Also after an error, and with a transaction still open."""
    with ScratchDatabases("flux.toml") as databases:

        def fail() -> None:
            with databases.database() as database:
                held.append(database.connect())
                held[0].cursor().execute("BEGIN")
                held[0].cursor().execute("INSERT INTO users VALUES (1, 'Ada', 'Ada')")
                raise RuntimeError("on purpose")

        held: list[Any] = []
        with pytest.raises(RuntimeError, match=r"^on purpose$"):
            fail()
        assert databases_left(own) == 0
    with pytest.raises(Exception, match=r"(?i)closed"):
        held[0].cursor().execute("SELECT 1")


def test_connections_are_in_autocommit(own: Project) -> None:
    """What one has written, another one sees."""
    with ScratchDatabases("flux.toml") as databases, databases.database() as database:
        database.connect().cursor().execute("INSERT INTO users VALUES (1, 'Ada', 'Ada')")
        assert rows(database) == [(0, "root"), (1, "Ada")]


def test_another_migration_makes_another_template(own: Project) -> None:
    with ScratchDatabases("flux.toml") as databases, databases.database():
        pass
    own.add({"004_more.sql": "INSERT INTO users VALUES (4, 'four', 'fou');\n"})
    with ScratchDatabases("flux.toml") as databases, databases.database() as database:
        assert rows(database) == [(0, "root"), (4, "fou")]
    assert databases_left(own, "template") == 2


def test_a_state_is_a_template_of_its_own(own: Project) -> None:
    """Later migrations are no part of it; an older one of the same state goes."""
    with ScratchDatabases("flux.toml") as databases:
        for _ in range(2):
            with databases.database("001_users") as database:
                assert rows(database, "SELECT * FROM users") == []
    assert databases_left(own, "template") == 1
    own.add({"004_more.sql": "SELECT 1;\n"})
    with ScratchDatabases("flux.toml") as databases, databases.database("001_users"):
        assert databases_left(own, "template") == 1
    own.add({"001_users.sql": "CREATE TABLE users (id integer PRIMARY KEY, name varchar(90));\n"})
    with ScratchDatabases("flux.toml") as databases, databases.database("001_users"):
        assert databases_left(own, "template") == 1


def test_a_build_that_fails_fails_once(own: Project) -> None:
    own.add({"004_fails.sql": "INSERT INTO nowhere VALUES (1);\n"})
    with ScratchDatabases("flux.toml") as databases:
        errors = []
        for _ in range(2):
            with pytest.raises(MigrationApplyError) as caught, databases.database():
                pass
            errors.append(caught.value)
        assert errors[0] is errors[1]
        assert builds(own) == 1
        assert [databases_left(own, kind) for kind in ("scratch", "building", "template")] == [
            0
        ] * 3


# Steps --------------------------------------------------------------------------------------


def test_steps(own: Project) -> None:
    with ScratchDatabases("flux.toml") as databases, databases.steps() as migrations:
        assert list(migrations.applied) == []
        migrations.to("001_users")
        migrations.connection.cursor().execute("INSERT INTO users VALUES (1, 'Ada Lovelace')")
        assert migrations.apply(1).applied == ("002_first-name",)
        assert rows(migrations) == [(1, "Ada")]
        assert migrations.rollback().undone == ("002_first-name",)
        migrations.to("003_rows")
        assert list(migrations.applied) == ["001_users", "002_first-name", "003_rows"]
        assert migrations.to("001_users").undone == ("003_rows", "002_first-name")
        migrations.to("001_users")
        assert migrations.apply().applied == ("002_first-name", "003_rows")
        migrations.rollback(None)
        assert list(migrations.applied) == []
    assert databases_left(own) == 0


def test_steps_from_a_state(own: Project) -> None:
    with ScratchDatabases("flux.toml") as databases, databases.steps("002_first-name") as steps:
        assert steps.applied == ("001_users", "002_first-name")
        steps.connection.cursor().execute("INSERT INTO users VALUES (1, 'Ada', 'Ada')")
        steps.apply(1)
        assert rows(steps) == [(0, "root"), (1, "Ada")]


@pytest.mark.parametrize("way", ["database", "steps"])
def test_a_state_that_is_not_there(own: Project, way: str) -> None:
    with ScratchDatabases("flux.toml") as databases:
        with pytest.raises(UnknownMigrationError, match="001_user"), getattr(databases, way)("001"):
            pass
        with databases.steps() as steps, pytest.raises(UnknownMigrationError):
            steps.to("001")
    assert databases_left(own) == 0


# What must not be ---------------------------------------------------------------------------


def test_what_reaches_beyond_is_refused(own: Project) -> None:
    """In what undoes as well, where it could run; unless the server is a throw-away one."""
    is_sqlite = not isinstance(own, PostgresProject)
    beyond = "VACUUM INTO 'x.db'" if is_sqlite else "COMMENT ON ROLE nobody IS 'x'"
    own.add({"004_x.sql": "SELECT 1;\n", "004_x.undo.sql": f"{beyond};\n"})
    with ScratchDatabases("flux.toml") as databases:
        with databases.database():
            pass
        with pytest.raises(ScratchDatabaseError, match="reaches beyond the database"):
            databases.steps().__enter__()
        assert databases_left(own) == 0
    own.add({"004_x.sql": f"-- flux: no-transaction\n{beyond};\n"})
    own.add({"004_x.undo.sql": "SELECT 1;\n"})
    with ScratchDatabases("flux.toml") as databases:
        with pytest.raises(ScratchDatabaseError) as caught, databases.database():
            pass
        assert (caught.value.location or ("",))[0].endswith("004_x.sql")
        with databases.database("003_rows"):
            pass
    if is_sqlite:
        own.configure("throw_away_server = true")
        with ScratchDatabases("flux.toml") as databases, databases.database():
            assert (own.root / "x.db").exists()


def test_a_server_elsewhere_has_to_be_named(
    pg_alone: PostgresProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the configured database only where it is on this machine; else where one says."""
    server = pg_alone.postgres.server
    if (address := outer_address()) is None:
        pytest.skip("this machine has no address but its own loopback")
    pg_alone.add(MIGRATIONS)
    with counting_proxy(server.host, server.port, at=address) as wire:
        far = f"postgresql://{server.user}:{server.password}@{address}:{wire.port}/flux_tests"
        pg_alone.configure(url=far)
        with pytest.raises(ScratchDatabaseError) as caught:
            ScratchDatabases("flux.toml").__enter__()
        assert str(caught.value) == (
            f"scratch databases would be made on the server at {address}:{wire.port}, which is not "
            "this machine's own\n"
            "hint: name a server for the databases of tests: FLUX_SHADOW_URL, or shadow_url in the "
            "configuration"
        )
        with ScratchDatabases("flux.toml", far) as databases, databases.database() as database:
            assert rows(database) == [(0, "root")]
        monkeypatch.setenv("FLUX_SHADOW_URL", pg_alone.postgres.url)
        before = wire.round_trips
        with ScratchDatabases("flux.toml") as databases, databases.database() as database:
            assert rows(database) == [(0, "root")]
        assert wire.round_trips == before
    drop_flux_databases(pg_alone.postgres.server)


def test_without_a_database_there_is_no_server(pg_alone: PostgresProject) -> None:
    pg_alone.write("flux.toml", '[flux]\nbackend = "postgres"\n')
    with pytest.raises(InvalidConfigurationError, match="no database is named"):
        ScratchDatabases("flux.toml").__enter__()


# The key ------------------------------------------------------------------------------------


def test_what_makes_another_template(project: Project) -> None:
    """All that a migrated database depends on, and no more."""
    project.add({"a.sql": "SELECT 1;\n", "b.sql": "SELECT 2;\n", "b.undo.sql": "SELECT 3;\n"})
    config = FluxConfig(migration_directory=str(project.root / "migrations"))

    def key(config: FluxConfig = config, /) -> str:
        return template_key(config, read(config.migration_directory))

    seen = [key()]
    project.add({"b.undo.sql": "SELECT 4;\n"})
    assert key() == seen[0]
    assert key(config._replace(log_level="DEBUG", lock_wait=1)) == seen[0]
    for files in (
        {"a.sql": "SELECT 2;\n"},
        {"c.sql": "SELECT 2;\n"},
        {"post-apply/v.sql": "SELECT 2;\n"},
        {"post-apply/v.sql": "SELECT 3;\n"},
        {"pre-apply/v.sql": "SELECT 3;\n"},
        {"a.sql": "-- flux: no-transaction\nSELECT 2;\n"},
    ):
        project.add(files)
        seen.append(key())
    seen.append(key(config._replace(backend_config={"migrations_table": "x"})))
    assert len({*seen}) == len(seen)
    assert all(len(one) == 40 and one.isalnum() for one in seen)


def test_the_types_are_those_that_are_given(project: Project, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(project.root))
    with (
        ScratchDatabases(project.root / "flux.toml") as databases,
        databases.database() as database,
        databases.steps() as steps,
    ):
        assert type(database) is Database
        assert type(steps) is MigrationSteps
        assert steps.connection is steps.connection


def test_what_others_make_is_there_before(own: Project) -> None:
    """`tests/_setup` runs in both kinds, and a change of it makes another template."""
    setup = "migrations/tests/_setup.sql"
    own.write(setup, "CREATE TABLE others (id integer PRIMARY KEY);\n")
    own.add({"004_mine.sql": "CREATE TABLE mine (other integer REFERENCES others (id));\n"})
    count = "SELECT count(*) FROM others"
    with ScratchDatabases("flux.toml") as databases:
        with databases.database() as database:
            assert rows(database, count) == [(0,)]
        with databases.steps() as steps:
            assert rows(steps, count) == [(0,)]
            steps.to("004_mine")
    own.write(setup, "CREATE TABLE others (id integer PRIMARY KEY); INSERT INTO others VALUES (1)")
    with ScratchDatabases("flux.toml") as databases, databases.database() as database:
        assert rows(database, count) == [(1,)]
