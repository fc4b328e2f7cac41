"""Taking over a database that the real flux-migrations 0.0.3 has migrated."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import unavailable
from tests.flux_process import FluxProcess
from tests.legacy import LegacyFlux, LegacyUnavailableError, install_legacy_flux
from tests.postgres_project import PostgresProject
from tests.postgres_server import Postgres, PostgresServer, own_database

#: One process runs them all: to install 0.0.3 takes longer than they do.
pytestmark = pytest.mark.xdist_group("taking over")

#: Everything that runs says so in the table `ran`.
_FILES: Mapping[str, str | bytes] = {
    "pre-apply/note.sql": (
        "create table if not exists ran (what text);\ninsert into ran values ('pre')"
    ),
    "post-apply/note.py": "def apply():\n    return \"insert into ran values ('post')\"\n",
    # Line endings of Windows, letters beyond ASCII, and a BOM where 0.0.3 bore one.
    "10_authors.sql": (
        "-- für \ufeffAutoren\r\ncreate table author (id int primary key);\r\n"
        "insert into ran values ('10_authors');\r\n"
    ),
    "10_authors.undo.sql": "drop table author;\r\n",
    # In text order, though not by its number, it comes after 10_authors.
    "9_books.py": (
        "\ufeff# a BOM, which Python drops\r\n"
        "def apply():\r\n"
        '    return """\r\n'
        "        create table book (id int primary key);\r\n"
        "        insert into ran values ('9_books');\\r\\n\t\r\n"
        '    """\r\n'
        "def undo():\r\n"
        '    return "drop table book"\r\n'
    ),
    # flux passes over names that start so, unless the history has them.
    "_loans.sql": "create table loan (id int);\ninsert into ran values ('_loans');  \t\n\n \n",
    "_loans.undo.sql": "drop table loan",
    "a_nothing.sql": "",
    "b_shelves.sql": "create table shelf (id int);\rinsert into ran values ('b_shelves')",
    "b_shelves.undo.sql": "drop table shelf;",
}
_DIRECTORY = 'migration_directory = "migrations"'  # 0.0.3 has no default
_IDS = ["10_authors", "9_books", "_loans", "a_nothing", "b_shelves"]
_NEW = {
    "c_readers.sql": "create table reader (id int);\ninsert into ran values ('c_readers');\n",
    "c_readers.undo.sql": "drop table reader",
}


class Row(NamedTuple):
    """A row of the history, its time as the database writes it."""

    id: str
    hash: str
    applied_at: str


class TakenOver(NamedTuple):
    """A project that 0.0.3 has brought as far as its directory goes, and its history then."""

    project: PostgresProject
    legacy: LegacyFlux
    url: str
    history: list[Row]

    def rows(self) -> list[Row]:
        """The history by id, as it is now."""
        return _history(self.project)

    def ran(self) -> list[str]:
        """What ran, in order, whoever ran it."""
        return [what for (what,) in self.project.query("SELECT what FROM ran ORDER BY ctid")]

    def states(self) -> dict[str, str]:
        """The state of each migration, by `status --json`, whatever it exits with."""
        status: dict[str, Any] = json.loads(self.project.run("status", "--json").out)
        return {migration["id"]: migration["state"] for migration in status["migrations"]}


def _history(project: PostgresProject) -> list[Row]:
    rows = project.query(
        'SELECT id, hash, applied_at::text FROM public._flux_migrations ORDER BY id COLLATE "C"'
    )
    return [Row(*row) for row in rows]


@pytest.fixture(scope="session")
def legacy(pytestconfig: pytest.Config) -> LegacyFlux:
    """The real 0.0.3, installed once and kept in pytest's cache."""
    assert pytestconfig.cache is not None
    problem: LegacyUnavailableError
    try:
        return install_legacy_flux(pytestconfig.cache.mkdir("flux-migrations-0.0.3"))
    except LegacyUnavailableError as error:
        problem = error
    unavailable(f"flux-migrations 0.0.3 cannot be installed: {problem}")


@pytest.fixture(scope="session")
def migrated(
    legacy: LegacyFlux, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Postgres]:
    """A database that 0.0.3 has migrated; each test gets a copy of it."""
    root = tmp_path_factory.mktemp("migrated")
    with own_database(server) as postgres:
        project = PostgresProject(root, FluxProcess(root), postgres)
        project.configure(_DIRECTORY)
        project.add(_FILES)
        legacy.apply(root, server.url(postgres.database))
        yield postgres


@pytest.fixture
def old(
    legacy: LegacyFlux, server: PostgresServer, migrated: Postgres, tmp_path: Path
) -> Iterator[TakenOver]:
    """A project that 0.0.3 has migrated, which both tools can use as it is."""
    with own_database(server, template=migrated.database) as postgres:
        project = PostgresProject(tmp_path, FluxProcess(tmp_path), postgres)
        url = server.url(postgres.database)
        project.configure(_DIRECTORY, url=url)
        project.add(_FILES)
        yield TakenOver(project, legacy, url, _history(project))


def test_what_0_0_3_wrote(old: TakenOver) -> None:
    """The ground that the other tests stand on: the database is as FIELD.md describes it."""
    assert [row.id for row in old.history] == _IDS
    assert old.ran() == ["pre", "10_authors", "9_books", "_loans", "b_shelves", "post"]
    text = "-- für \ufeffAutoren\ncreate table author (id int primary key);\n"
    text += "insert into ran values ('10_authors');\n"
    assert old.history[0].hash == md5(text.encode(), usedforsecurity=False).hexdigest()
    columns = old.project.query(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_name = '_flux_migrations' ORDER BY ordinal_position"
    )
    assert columns == [
        ("id", "text"),
        ("hash", "text"),
        ("applied_at", "timestamp without time zone"),
    ]


def test_status_is_right(old: TakenOver) -> None:
    """Times are shown as the table has them, without a time zone that nobody knows."""
    out = old.project.succeed("status", "--check")
    times = [row.applied_at.partition(".")[0] for row in old.history]
    lines = [f"applied    {id:<10}  {time}" for id, time in zip(_IDS, times, strict=True)]
    assert out.splitlines() == [*lines, "5 migrations: 5 applied"]
    status = json.loads(old.project.succeed("status", "--json"))
    assert [m["applied_at"] for m in status["migrations"]] == [
        time.isoformat()
        for (time,) in old.project.query(
            'SELECT applied_at FROM _flux_migrations ORDER BY id COLLATE "C"'
        )
    ]
    old.project.succeed("validate")


def test_with_nothing_new_nothing_is_done(old: TakenOver) -> None:
    """0.0.3 would run its repeatables; flux runs and writes nothing."""
    ran = old.ran()
    assert old.project.succeed("apply") == "nothing to do\n"
    assert (old.ran(), old.rows()) == (ran, old.history)
    assert old.project.query("SELECT to_regclass('_flux_migrations_state')") == [(None,)]


def test_apply_goes_on(old: TakenOver) -> None:
    """Only what is new runs, and the old rows stay byte for byte as they were."""
    before = old.ran()
    old.project.add(_NEW)
    assert old.states() == {**dict.fromkeys(_IDS, "applied"), "c_readers": "pending"}
    old.project.succeed("apply")
    assert old.ran() == [*before, "pre", "c_readers", "post"]
    *rows, new = old.rows()
    assert rows == old.history
    assert (new.id, len(new.hash)) == ("c_readers", 64)
    status = old.project.succeed("status", "--check")
    assert f"applied    c_readers   {new.applied_at.partition('.')[0]}\n" in status
    assert old.project.succeed("apply") == "nothing to do\n"


@pytest.mark.parametrize("time_zone", ["UTC", "Asia/Kathmandu"])
def test_times_go_on_in_the_time_zone_of_the_server(old: TakenOver, time_zone: str) -> None:
    """So did 0.0.3 write them; one row is shown as the other, without a zone."""
    old.project.query(
        f"ALTER DATABASE {old.project.postgres.database} SET TimeZone = '{time_zone}'"
    )
    old.project.add(_NEW)
    old.project.succeed("apply")
    assert old.project.query(
        "SELECT applied_at BETWEEN localtimestamp - interval '1 minute' AND localtimestamp "
        "FROM _flux_migrations WHERE id = 'c_readers'"
    ) == [(True,)]
    *rows, new = old.rows()
    assert rows == old.history
    assert old.project.succeed("status").splitlines()[4:6] == [
        f"applied    b_shelves   {rows[-1].applied_at.partition('.')[0]}",
        f"applied    c_readers   {new.applied_at.partition('.')[0]}",
    ]


def test_new_goes_on_after_ids_of_0_0_3(legacy: LegacyFlux, pg_alone: PostgresProject) -> None:
    """In a directory of ids that its `new` gave, ours gives the one that comes next."""
    postgres = pg_alone.postgres
    url = postgres.server.url(postgres.database)
    pg_alone.configure(_DIRECTORY, url=url)
    pg_alone.add({"20240422_001_first.sql": "create table first (id int)"})
    legacy.apply(pg_alone.root, url)
    pg_alone.succeed("new", "--sql", "Second")
    assert pg_alone.succeed("status").endswith("2 migrations: 1 applied, 1 pending\n")
    pg_alone.succeed("apply")
    assert pg_alone.succeed("status", "--check").endswith("2 migrations: 2 applied\n")


def test_names_that_0_0_3_did_not_quote(legacy: LegacyFlux, pg_alone: PostgresProject) -> None:
    """The server put them in lower case; flux, which quotes them, must not begin anew."""
    postgres = pg_alone.postgres
    url = postgres.server.url(postgres.database)
    settings = 'migrations_schema = "App"\nmigrations_table = "Flux_History"'
    pg_alone.configure(_DIRECTORY, settings, url=url)
    pg_alone.add({"a.sql": "create table a (id int)"})
    legacy.apply(pg_alone.root, url)
    assert pg_alone.fail("apply", code=2) == (
        "error: the history is in app.flux_history: flux-migrations 0.0.3 did not quote these "
        "names, and the server put them in lower case\n"
        "hint: write migrations_schema and migrations_table in [backend] in lower case\n"
    )
    pg_alone.configure(_DIRECTORY, settings.lower(), url=url)
    assert pg_alone.succeed("status").endswith("1 migration: 1 applied\n")


@pytest.mark.parametrize(
    ("id", "name", "find", "replace", "state"),
    [
        pytest.param("10_authors", "10_authors.sql", b"int", b"bigint", "divergent", id="SQL"),
        pytest.param("9_books", "9_books.py", b"int", b"bigint", "divergent", id="Python"),
        pytest.param("_loans", "_loans.sql", b" int", b" bigint", "divergent", id="_"),
        pytest.param("_loans", "_loans.sql", b"\n \n", b"", "divergent", id="white space"),
        pytest.param("b_shelves", "b_shelves.sql", b"cr", b"\xef\xbb\xbfcr", "divergent", id="BOM"),
        pytest.param("a_nothing", "a_nothing.sql", b"", b"\n", "divergent", id="newline"),
        pytest.param("10_authors", "10_authors.sql", b"\r\n", b"\n", "applied", id="to LF"),
        pytest.param("_loans", "_loans.sql", b"\n", b"\r\n", "applied", id="to CRLF"),
        pytest.param("9_books", "9_books.py", b"\r\n", b"\n", "applied", id="Python to LF"),
    ],
)
def test_a_changed_old_file(
    old: TakenOver, id: str, name: str, find: bytes, replace: bytes, state: str
) -> None:
    """Divergent by the rule that its hash was made with: only line endings do not count."""
    path = old.project.root / "migrations" / name
    path.write_bytes(path.read_bytes().replace(find, replace))
    assert old.states() == {**dict.fromkeys(_IDS, "applied"), id: state}
    ran = old.ran()
    old.project.add(_NEW)
    if state == "divergent":
        assert f"{id} is divergent" in old.project.fail("apply", code=4)
        assert old.ran() == ran
    else:
        old.project.succeed("apply")
        assert "c_readers" in old.ran()
    assert old.rows()[: len(_IDS)] == old.history


def test_a_removed_old_file_is_missing(old: TakenOver) -> None:
    (old.project.root / "migrations" / "_loans.sql").unlink()
    (old.project.root / "migrations" / "_loans.undo.sql").unlink()
    assert "_loans is missing" in old.project.run("status").out


def test_rollback_of_old_rows(old: TakenOver) -> None:
    """By their undo, and one at a time; what is applied again is recorded by today's rule."""
    old.project.succeed("rollback", "-y")
    assert old.rows() == old.history[:-1]
    assert "shelf" not in old.project.tables()
    old.project.succeed("apply")
    *rows, again = old.rows()
    assert rows == old.history[:-1]
    assert (again.id, len(again.hash)) == ("b_shelves", 64)
    old.project.succeed("status", "--check")


def test_an_old_row_without_an_undo_is_not_forgotten(old: TakenOver) -> None:
    """0.0.3 deleted the row of a migration that has no undo, and undid nothing."""
    told = old.project.fail("rollback", "2", "-y")
    assert "a_nothing cannot be rolled back: there is no undo" in told
    assert old.rows() == old.history
    old.project.add({"a_nothing.undo.sql": "-- nothing to undo"})
    old.project.succeed("rollback", "--to", "9_books", "-y")
    assert old.rows() == old.history[:2]
    assert old.project.tables() == ["author", "book", "ran"]


def test_flux_waits_for_a_running_0_0_3(old: TakenOver) -> None:
    """0.0.3 holds its session lock while it asks; flux waits, and then nothing runs twice."""
    old.project.add(_NEW)
    root = old.project.root
    with old.legacy.started(root, "apply", old.url) as asking:
        assert asking.stdin is not None
        _wait_for_the_lock(old)
        # Reading waits for nobody.
        assert old.states()["c_readers"] == "pending"
        with old.project.started("apply", "--lock-wait", "30") as waiting:
            assert waiting.stderr is not None
            told = waiting.stderr.readline()
            assert told.startswith("flux: waiting for pid ")
            assert told.endswith("which is running migrations on this database\n")
            assert waiting.poll() is None
            asking.stdin.write("y\n")
            asking.stdin.flush()
            out, err = asking.communicate()
            assert asking.returncode == 0, out + err
            assert waiting.communicate() == ("nothing to do\n", "")
            assert waiting.returncode == 0
    assert old.ran().count("c_readers") == 1
    assert [len(row.hash) for row in old.rows()] == [32] * 6


def test_flux_gives_up_on_a_0_0_3_that_hangs(old: TakenOver) -> None:
    old.project.add(_NEW)
    with old.legacy.started(old.project.root, "apply", old.url):
        _wait_for_the_lock(old)
        told = old.project.fail("apply", "--lock-wait", "0.2", code=5)
    assert "is running migrations on this database, and still was after 0 s" in told
    assert old.rows() == old.history


def _wait_for_the_lock(old: TakenOver) -> None:
    deadline = time.monotonic() + 30
    while old.project.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted") == []:
        assert time.monotonic() < deadline, "0.0.3 never took its lock"
        time.sleep(0.02)
