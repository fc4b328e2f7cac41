"""Taking over a database that the real flux-migrations 0.0.3 has migrated."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Mapping
from hashlib import md5
from typing import Any, NamedTuple

import pytest

from tests.conftest import unavailable
from tests.legacy import LegacyFlux, LegacyUnavailableError, install_legacy_flux
from tests.postgres_project import PostgresProject

#: Everything that runs says so in the table `ran`.
_FILES: Mapping[str, str | bytes] = {
    "pre-apply/note.sql": "create table if not exists ran (what text);\ninsert into ran values ('pre')",
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


@pytest.fixture
def unmigrated(legacy: LegacyFlux, pg_alone: PostgresProject) -> TakenOver:
    """A project on an empty database, which both tools can use as it is."""
    postgres = pg_alone.postgres
    url = postgres.server.url(postgres.database)
    pg_alone.configure('migration_directory = "migrations"', url=url)
    return TakenOver(pg_alone, legacy, url, [])


@pytest.fixture
def old(unmigrated: TakenOver) -> TakenOver:
    """A project that 0.0.3 has migrated."""
    unmigrated.project.add(_FILES)
    unmigrated.legacy.apply(unmigrated.project.root, unmigrated.url)
    assert unmigrated.ran() == ["pre", "10_authors", "9_books", "_loans", "b_shelves", "post"]
    return unmigrated._replace(history=unmigrated.rows())


def test_what_0_0_3_wrote(old: TakenOver) -> None:
    """The ground that the other tests stand on: the database is as FIELD.md describes it."""
    assert [row.id for row in old.history] == _IDS
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
        row.applied_at.replace(" ", "T") for row in old.history
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
    # Its time is in the time zone of the others: of the server's, not of flux.
    assert old.project.query(
        "SELECT applied_at BETWEEN localtimestamp - interval '1 minute' AND localtimestamp "
        "FROM _flux_migrations WHERE id = 'c_readers'"
    ) == [(True,)]
    status = old.project.succeed("status", "--check")
    assert f"applied    c_readers   {new.applied_at.partition('.')[0]}\n" in status
    assert old.project.succeed("apply") == "nothing to do\n"


def test_times_are_those_of_the_servers_time_zone(old: TakenOver) -> None:
    """A history in local time goes on in local time, and is shown so, one row beside the other."""
    database = old.project.postgres.database
    old.project.query(f"ALTER DATABASE {database} SET TimeZone = 'Asia/Kathmandu'")
    old.project.add(_NEW)
    old.project.succeed("apply")
    *rows, new = old.rows()
    assert rows == old.history
    [(local,)] = old.project.query("SELECT localtimestamp::text")
    assert new.applied_at[:13] == local[:13] or new.applied_at < local
    assert new.applied_at > max(row.applied_at for row in rows), "5:45 ahead of them"
    assert "+" not in old.project.succeed("status")


def test_on_as_0_0_3_names_them(unmigrated: TakenOver) -> None:
    """In a directory of ids that 0.0.3 gave, `flux new` gives the one that comes next."""
    project = unmigrated.project
    project.add({"20240422_001_first.sql": "create table first (id int)"})
    unmigrated.legacy.apply(project.root, unmigrated.url)
    project.succeed("new", "--sql", "Second")
    (project.root / "migrations" / "20240422_001_first.sql").touch()
    assert list(unmigrated.states().values()) == ["applied", "pending"]
    project.succeed("apply")
    assert list(unmigrated.states().values()) == ["applied", "applied"]


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


@pytest.mark.skipif(sys.platform == "win32", reason="select() on a pipe")
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
            assert select.select([waiting.stdout], [], [], 0) == ([], [], [])
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
    import time

    deadline = time.monotonic() + 30
    while old.project.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted") == []:
        assert time.monotonic() < deadline, "0.0.3 never took its lock"
        time.sleep(0.02)
