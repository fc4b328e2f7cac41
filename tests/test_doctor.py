"""`flux doctor`: each finding on a real database that has what it is about."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from flux.backends.postgres_examination import (
    OpenTransaction,
    Server,
    describe_lock,
    describe_server,
    describe_sessions,
    describe_way,
)
from flux.backends.postgres_lock import Holder
from flux.backends.sqlite_examination import describe_library
from flux.doctor import describe_history
from flux.journal import Entry, UnderWay
from flux.plan import StatusRow
from flux.results import Status
from tests.postgres_project import PostgresProject
from tests.postgres_server import Postgres
from tests.project import Project

Row = tuple[str, str, str, str | None]


def examined(project: Project, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """What `doctor --json` finds; it must exit with `code`, and change no file."""
    before = project.files()
    result = project.run("doctor", "--json", *arguments)
    assert (result.code, result.err) == (code, ""), result
    assert project.files() == before
    document = json.loads(result.out)
    assert (document["format"], document["command"]) == (1, "doctor")
    found: list[dict[str, Any]] = document["findings"]
    assert document["ok"] == all(one["level"] != "problem" for one in found)
    return found


def told(found: list[dict[str, Any]], level: str) -> list[str]:
    """The findings of a level, as `about: message`."""
    return [f"{one['about']}: {one['message']}" for one in found if one["level"] == level]


def only(found: list[dict[str, Any]], about: str) -> dict[str, Any]:
    """The one finding that is no `ok`, which must be about that."""
    [one] = [one for one in found if one["level"] != "ok"]
    assert one["about"] == about, one
    assert one["hint"]
    return one


# The project --------------------------------------------------------------------------------


def test_all_is_well(project: Project) -> None:
    """Nothing is created, the database included."""
    project.add({"001_a.sql": "CREATE TABLE a (id);\n"})
    before = project.files()
    shown = project.succeed("doctor")
    assert project.files() == before
    lines = [line.split(None, 2) for line in shown.splitlines()]
    assert [line[:2] for line in lines[:-2]] == [
        ["ok", "config"],
        ["ok", "directory"],
        ["ok", "address"],
        ["ok", "connection"],
        ["ok", "server"],
        ["ok", "file"],
        ["ok", "history"],
    ]
    assert shown.endswith("\n\nno problem\n")
    project.succeed("apply")
    assert told(examined(project), "problem") == told(examined(project), "warning") == []


@pytest.mark.parametrize(
    ("files", "code", "problem"),
    [
        pytest.param(
            {"flux.toml": '[flux]\nbackend = "sqlite"\nlog_levle = "INFO"\n'},
            2,
            "config: flux.toml: unknown key 'log_levle' in [flux]",
            id="unknown key",
        ),
        pytest.param(
            {"flux.toml": '[flux]\nbackend = "sqlite"\n'},
            2,
            "address: no database is named",
            id="no address",
        ),
        pytest.param(
            {
                "flux.toml": '[flux]\nbackend = "sqlite"\ndatabase_url = "app.db"\n'
                "[backend]\nbusy_timeuot = 1\n"
            },
            2,
            "config: flux.toml: unknown key 'busy_timeuot' in [backend]",
            id="unknown key of the backend",
        ),
        pytest.param(
            {"flux.toml": '[flux]\nbackend = "oracle"\ndatabase_url = "oracle://db"\n'},
            2,
            "driver: no installed package provides the backend 'oracle'",
            id="no such backend",
        ),
        pytest.param(
            {"migrations/001_a.SQL": ""},
            1,
            "directory: migrations{sep}001_a.SQL: the ending is not in small letters",
            id="an ending in capitals",
        ),
        pytest.param(
            {"migrations/001_a.sql": "SELECT 'a"},
            1,
            "directory: migrations{sep}001_a.sql:1:8: ",
            id="a script that cannot be split",
        ),
        pytest.param(
            {"flux.toml": '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///no/where.db"\n'},
            1,
            "connection: cannot open no/where.db: unable to open database file",
            id="no such database",
        ),
        pytest.param(
            {"app.db": "this is something else" * 100},
            1,
            "connection: cannot examine the database: file is not a database",
            id="another kind of file",
        ),
    ],
)
def test_what_is_wrong_with_a_project(
    project: Project, files: dict[str, str], code: int, problem: str
) -> None:
    """The other checks are made all the same."""
    for name, content in files.items():
        project.write(name, content)
    found = examined(project, code=code)
    assert told(found, "problem")[0].startswith(problem.replace("{sep}", os.sep))
    if code == 1:
        assert any(one["about"] == "address" for one in found)


def test_no_configuration_at_all(project: Project) -> None:
    (project.root / "flux.toml").unlink()
    found = examined(project, code=2)
    assert told(found, "problem")[0].startswith("config: there is no flux.toml here")
    assert "flux init" in found[0]["hint"]


def test_what_lies_beside_the_migrations(project: Project) -> None:
    """What may be meant as a migration, and not what people keep in every directory."""
    for name in ("001_a.sql.bak", "README.md", "_notes", ".keep", "2024/002_b.sql", "img/x.png"):
        project.write(f"migrations/{name}", "")
    found = only(examined(project), "directory")
    assert found["message"] == "no migrations, and passed over: 001_a.sql.bak, 2024/"


def test_the_history_and_the_directory_disagree(project: Project) -> None:
    project.add({"001_a.sql": "CREATE TABLE a (id);\n", "003_c.sql": ""})
    project.succeed("apply")
    project.add({"001_a.sql": "CREATE TABLE other (id);\n", "002_b.sql": ""})
    (project.root / "migrations" / "003_c.sql").unlink()
    found = examined(project, code=4)
    kinds = [one["kind"] for one in found if one["level"] == "problem"]
    assert sorted(kinds) == ["divergent", "late", "missing"]
    assert told(found, "ok")[-1] == "history: 2 migrations applied; 1 pending"


def test_a_batch_that_was_cut_off(project: Project) -> None:
    project.add({"001_a.sql": "CREATE TABLE a (id);\n", "post-apply/x.sql": "SELECT nothing;\n"})
    project.fail("apply")
    assert only(examined(project), "journal")["hint"] == "`flux apply` finishes it"


def test_a_migration_that_is_half_done(project: Project) -> None:
    text = "-- flux: no-transaction\nCREATE TABLE a (id);\nSELECT nothing;\n"
    project.add({"001_a.sql": text})
    project.fail("apply")
    found = only(examined(project), "journal")
    assert found["message"] == "001_a is half applied: statement 2 is the next"
    assert found["hint"] == "`flux apply` goes on with statement 2"


@pytest.mark.parametrize(
    ("direction", "in_doubt", "level", "hint"),
    [
        ("apply", False, "warning", "`flux apply` goes on with statement 3"),
        ("undo", False, "warning", "`flux rollback` goes on with statement 3"),
        (
            "apply",
            True,
            "problem",
            "look, and run `flux resume --skip` if it did, else `flux resume",
        ),
    ],
)
def test_how_a_half_done_migration_goes_on(
    direction: Literal["apply", "undo"], in_doubt: bool, level: str, hint: str
) -> None:
    done = Entry(direction, "001_a", 1, "finished", "hash", "SELECT 1", 0, 2)
    half = UnderWay(direction, "001_a", (done,))
    row = StatusRow("001_a", "pending", half=half)
    status = Status((row,), (), initialized=True, unfinished=False, in_doubt=in_doubt)
    first, second = describe_history(status, rows=5, legacy=2)
    assert first.message.startswith("5 migrations applied, 2 of them by flux-migrations 0.0.3")
    assert (second.level, second.about) == (level, "journal")
    assert (second.hint or "").startswith(hint)


def test_doctor_is_for_everybody(project: Project) -> None:
    """The output for people has the hint below, and a line that counts."""
    project.write("migrations/001_a.bak", "")
    shown = project.succeed("doctor")
    assert "\nwarning  directory    no migrations, and passed over: 001_a.bak\n" in shown
    assert "\n                      hint: a migration's name ends in .sql or .py" in shown
    assert shown.endswith("\nno problem, 1 warning\n")


# SQLite -------------------------------------------------------------------------------------


def test_a_database_that_is_busy_is_not_waited_for(project: Project) -> None:
    project.add({"001_a.sql": "CREATE TABLE a (id);\n"})
    project.succeed("apply")
    with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        # Not `examined`: to read the file in this process, and close it, would free its lock.
        result = project.run("doctor")
    assert result.code == 1
    assert "\nproblem  history      it would have to wait: app.db is busy" in result.out


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user with limits")
def test_what_this_user_may_not_write(project: Project) -> None:
    project.add({"001_a.sql": "CREATE TABLE a (id);\n"})
    project.succeed("apply")
    lock = Path(f"{project.database}-flux-lock")
    for path in (project.database, lock):
        path.chmod(0o444)
    problems = told(examined(project, code=1), "problem")
    assert len(problems) == 2
    assert all(one.startswith("rights: this user may not write ") for one in problems)


def test_a_damaged_file(project: Project) -> None:
    project.add({"001_a.sql": "CREATE TABLE a (b); CREATE INDEX i ON a (b);\n"})
    project.succeed("apply")
    [(page,)] = project.query("SELECT rootpage FROM sqlite_master WHERE name = 'i'")
    [(size,)] = project.query("PRAGMA page_size")
    with project.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    [one] = told(examined(project, code=1), "problem")
    assert one.startswith("file: it is damaged: ")


def test_rows_that_refer_to_nothing(project: Project) -> None:
    text = "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a (id));\n"
    project.add({"001_a.sql": text})
    project.succeed("apply")
    project.query("INSERT INTO b VALUES (7)")
    assert only(examined(project), "file")["message"].startswith("rows of b refer to rows that")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a lock")
def test_who_runs_migrations_on_a_file_now(project: Project) -> None:
    """Without taking the lock: the batch that has it goes on to its end."""
    waits = (
        "import pathlib, time\n\n"
        "def apply(connection):\n"
        "    while not pathlib.Path('go').exists():\n"
        "        time.sleep(0.05)\n"
    )
    project.add({"001_a.sql": "CREATE TABLE a (id);\n"})
    project.succeed("apply")
    project.add({"002_b.py": waits})
    with project.started("apply", "-y") as running:
        deadline = time.monotonic() + 30
        # Not `examined`, which sees to it that no file changes meanwhile.
        while f"\nwarning  lock         pid {running.pid} " not in project.run("doctor").out:
            assert time.monotonic() < deadline
        project.write("go", "")
        assert running.wait(30) == 0
    assert any(one.startswith("lock: last taken by pid ") for one in told(examined(project), "ok"))


def test_who_took_the_lock_last(project: Project) -> None:
    project.add({"001_a.sql": ""})
    project.succeed("apply")
    assert any(one.startswith("lock: last taken by pid ") for one in told(examined(project), "ok"))


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 30, 1), "warning"), ((3, 31, 0), "ok"), ((4, 0, 0), "ok")],
    ids=str,
)
def test_the_version_of_sqlite(version: tuple[int, ...], level: str) -> None:
    [finding] = describe_library(version)
    assert finding.level == level


# PostgreSQL ---------------------------------------------------------------------------------


def test_all_is_well_on_postgres(pg_alone: PostgresProject) -> None:
    """Nothing is created, and no password is shown."""
    pg_alone.add({"001_a.sql": "CREATE TABLE a (id int);\n"})
    result = pg_alone.run("doctor")
    assert (result.code, result.err) == (0, ""), result
    about = [line.split()[1] for line in result.out.splitlines() if line.startswith("ok")]
    assert about == [
        "config",
        "directory",
        "address",
        "connection",
        "driver",
        "server",
        "settings",
        "rights",
        "pooler",
        "connections",
        "lock",
        "history",
    ]
    assert result.out.endswith("\n\nno problem\n")
    assert pg_alone.postgres.server.password not in result.out
    assert pg_alone.tables() == []
    assert pg_alone.query("SELECT to_regclass('_flux_migrations')") == [(None,)]
    pg_alone.apply()
    assert told(examined(pg_alone), "ok")[-1] == "history: 1 migration applied"


def test_a_server_that_is_not_there(pg: PostgresProject) -> None:
    pg.configure(url="postgresql://someone:hidden-word@127.0.0.1:1/app")
    result = pg.run("doctor")
    assert result.code == 1
    assert "problem  connection   cannot connect to postgresql://someone:***@" in result.out
    assert "hidden-word" not in result.out + result.err


@contextmanager
def a_role(place: Postgres, options: str = "") -> Iterator[tuple[str, str]]:
    """A role that may log in, and the URL with which it does; dropped at the end."""
    name = f"role_{place.database}_{place.schema}"
    place.query(f"CREATE ROLE {name} LOGIN PASSWORD 'hidden-word' {options}")
    try:
        server = place.server
        url = f"postgresql://{name}:hidden-word@{server.host}:{server.port}/{place.database}"
        yield name, f"{url}?options=-csearch_path%3D{place.schema}"
    finally:
        place.query(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("prepare", "problem", "hint"),
    [
        pytest.param(
            "REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
            "{role} may not use the schema {schema}, in which the history is",
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}",
            id="no use of the schema",
        ),
        pytest.param(
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "{role} may not create the history table in the schema {schema}",
            "GRANT CREATE ON SCHEMA {schema} TO {role}",
            id="no history, and none can be made",
        ),
        pytest.param(
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}; "
            "CREATE TABLE {schema}._flux_migrations (id text, hash text, applied_at timestamptz); "
            "GRANT SELECT ON {schema}._flux_migrations TO {role}",
            '{role} may not read and write "{schema}"."_flux_migrations"',
            'GRANT SELECT, INSERT, UPDATE, DELETE ON "{schema}"."_flux_migrations" TO {role}',
            id="a history that cannot be written",
        ),
    ],
)
def test_rights_that_are_missing(
    pg_alone: PostgresProject, prepare: str, problem: str, hint: str
) -> None:
    """What the hint says is what mends it, as the role finds when it is done."""
    place = pg_alone.postgres
    with a_role(place) as (role, url):
        names = {"role": role, "schema": place.schema}
        place.query(prepare.format(**names))
        pg_alone.configure(url=url)
        found = examined(pg_alone, code=1)
        assert f"rights: {problem.format(**names)}" in told(found, "problem")
        given = next(one["hint"] for one in found if one["level"] == "problem")
        assert given.startswith(hint.format(**names))
        assert any("only the pid can be told" in one for one in told(found, "ok"))
        assert "hidden-word" not in json.dumps(found)
        place.query(hint.format(**names))
        assert told(examined(pg_alone), "problem") == []


def test_a_schema_that_is_not_there_and_cannot_be_made(pg_alone: PostgresProject) -> None:
    place = pg_alone.postgres
    with a_role(place) as (role, url):
        pg_alone.configure(url=url, backend='migrations_schema = "ops"')
        problems = told(examined(pg_alone, code=1), "problem")
        message = f"there is no schema ops for the history, and {role} may not create it"
        assert problems == [f"rights: {message}"]
        place.query(f"GRANT CREATE ON DATABASE {place.database} TO {role}")
        assert told(examined(pg_alone), "problem") == []


@pytest.mark.parametrize(
    ("setting", "level", "words"),
    [
        ("default_transaction_read_only = on", "problem", "nothing can be written"),
        ("standard_conforming_strings = off", "warning", "as if it were on"),
        (
            "idle_in_transaction_session_timeout = '5s'",
            "warning",
            "a Python migration that is busy",
        ),
        ("idle_session_timeout = '5s'", "warning", "whose question at the terminal"),
        ("search_path = nowhere", "warning", "no schema of the search_path is there"),
    ],
)
def test_what_is_set_for_the_database(
    pg_alone: PostgresProject, setting: str, level: str, words: str
) -> None:
    place = pg_alone.postgres
    place.query(f"ALTER DATABASE {place.database} SET {setting}")
    pg_alone.configure(url=place.server.url(place.database))
    found = examined(pg_alone, code=1 if level == "problem" else 0)
    [one] = [one for one in found if one["level"] == level]
    assert words in one["message"]
    assert "ALTER ROLE postgres SET " + setting.partition(" ")[0] in one["hint"]


def test_settings_that_flux_sets_itself_are_no_warning(pg_alone: PostgresProject) -> None:
    place = pg_alone.postgres
    place.query(f"ALTER DATABASE {place.database} SET statement_timeout = '30s'")
    place.query(f"ALTER DATABASE {place.database} SET lock_timeout = '1s'")
    pg_alone.configure(url=place.server.url(place.database))
    assert told(examined(pg_alone), "warning") == []


def test_a_pooler_in_between(pg_pooled: PostgresProject) -> None:
    place = pg_pooled.postgres
    place.query(f"ALTER DATABASE {place.database} SET statement_timeout = '30s'")
    pooler, setting = sorted(told(examined(pg_pooled), "warning"))
    assert pooler.startswith("pooler: a pooler is in between: ")
    assert setting.startswith("settings: statement_timeout is 30 s, and behind a pooler it holds")


def test_the_lock_is_held(pg_alone: PostgresProject) -> None:
    """By whom is told; it is not waited for, and not taken."""
    with closing(pg_alone.postgres.connect(application_name="deploy")) as other:
        cursor = other.cursor()
        cursor.execute("BEGIN; SELECT pg_advisory_xact_lock(3589)")
        pid = other.info.backend_pid
        found = only(examined(pg_alone), "lock")
    assert found["message"].startswith(f"pid {pid} (deploy, on ")
    assert "is running migrations on this database now" in found["message"]


def test_the_session_that_has_the_lock_is_told_of_once() -> None:
    holder = Holder(4711, "flux", "10.0.0.1", None)
    [running] = describe_lock(holder, holder, 300)
    assert "is running migrations" in running.message
    [left] = describe_lock(None, holder, 300)
    assert "left by a run that was cut off" in left.message
    assert left.hint == "`flux apply` waits for it, for up to 300 s"
    assert describe_lock(None, None, 300)[0].level == "ok"


def test_a_history_that_is_locked_is_not_waited_for(pg_alone: PostgresProject) -> None:
    pg_alone.add({"001_a.sql": "SELECT 1;\n"})
    pg_alone.apply()
    with closing(pg_alone.postgres.connect()) as other:
        other.cursor().execute("BEGIN; LOCK TABLE _flux_migrations IN ACCESS EXCLUSIVE MODE")
        problems = told(examined(pg_alone, code=1), "problem")
    message = "it would have to wait: waiting for the history: another session has it locked"
    assert problems == [f"history: {message}"]


def test_an_invalid_index(pg_alone: PostgresProject) -> None:
    pg_alone.query("CREATE TABLE a (id int)")
    pg_alone.query("INSERT INTO a VALUES (1), (1)")
    with pytest.raises(Exception, match="could not create unique index"):
        pg_alone.query("CREATE UNIQUE INDEX CONCURRENTLY once ON a (id)")
    found = only(examined(pg_alone), "indexes")
    assert found["message"].endswith(": once")
    assert found["hint"].startswith("REINDEX INDEX CONCURRENTLY once, or DROP INDEX")


def test_open_transactions_of_others(pg_alone: PostgresProject) -> None:
    """An old one is told of with its pid, and how long it has been open; a young one is not."""
    with closing(pg_alone.postgres.connect()) as other:
        other.cursor().execute("BEGIN; SELECT 1")
        assert told(examined(pg_alone), "warning") == []
    old = OpenTransaction(4711, "psql", "idle in transaction", 600.0)
    young = old._replace(seconds=59.0)
    prepared = OpenTransaction(None, "two-phase", None, 3.0)
    assert [one.message.partition(":")[0] for one in describe_sessions([old, young, prepared])] == [
        "pid 4711 (psql) has a transaction open for 10 min, idle in transaction",
        "the prepared transaction two-phase has been open for 3 s, and keeps its locks until "
        "somebody ends it",
    ]


_SERVER = Server(
    number=150018,
    version="15.18",
    pid=1,
    is_replica=False,
    encoding="UTF8",
    can_mark=True,
    checks_client=True,
    free=90,
)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", "PostgreSQL 15.18"),
        ({"number": 130020, "version": "13.20"}, "warning", "PostgreSQL 13.20 is older than"),
        ({"number": 180004, "version": "18.4"}, "ok", "PostgreSQL 18.4"),
        ({"number": 190000, "version": "19beta1"}, "warning", "PostgreSQL 19beta1 is newer than"),
        ({"is_replica": True}, "problem", "this server is a replica"),
        ({"encoding": "LATIN1"}, "warning", "the database's encoding is LATIN1"),
        ({"can_mark": False}, "warning", "plpgsql is not there"),
        ({"checks_client": False}, "warning", "does not notice in mid-statement"),
    ],
    ids=str,
)
def test_what_a_server_is(changes: dict[str, Any], level: str, words: str) -> None:
    finding = describe_server(_SERVER._replace(**changes))[-1]
    assert finding.level == level
    assert words in finding.message
    assert level == "ok" or finding.hint


def test_a_role_with_too_few_connections(pg_alone: PostgresProject) -> None:
    """Counted with the session that looks."""
    place = pg_alone.postgres
    with a_role(place, "CONNECTION LIMIT 2") as (role, url):
        place.query(f"GRANT USAGE, CREATE ON SCHEMA {place.schema} TO {role}")
        pg_alone.configure(url=url)
        assert only(examined(pg_alone), "connections")["message"].startswith(
            "the server or the role has room for 1 more connections"
        )
    assert describe_way(_SERVER._replace(free=2), is_direct=True)[-1].level == "ok"


def test_another_encoding_and_no_plpgsql(pg_alone: PostgresProject) -> None:
    place = pg_alone.postgres
    name = f"{place.database}_latin"
    place.query(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        with closing(place.server.connect(name)) as connection:
            connection.cursor().execute("DROP EXTENSION plpgsql")
        pg_alone.configure(url=place.server.url(name))
        encoding, language = told(examined(pg_alone), "warning")
    finally:
        place.query(f"DROP DATABASE {name} WITH (FORCE)")
    assert encoding.startswith("server: the database's encoding is LATIN1")
    assert language.startswith("server: plpgsql is not there for everybody")


def test_what_the_client_sets_is_changed_where_it_is_set(pg_alone: PostgresProject) -> None:
    """ALTER ROLE would change nothing: the client's option wins."""
    pg_alone.configure(url=pg_alone.postgres.url_with(default_transaction_read_only="on"))
    hints = [one["hint"] for one in examined(pg_alone, code=1) if one["level"] == "problem"]
    assert (
        "give default_transaction_read_only=off where it comes from: PGOPTIONS, or options in the "
        "address"
    ) in hints


def test_limits_that_do_not_hold_for_a_superuser(pg_alone: PostgresProject) -> None:
    place = pg_alone.postgres
    place.query(f"ALTER DATABASE {place.database} CONNECTION LIMIT 0")
    assert "connections: there is room for a batch" in told(examined(pg_alone), "ok")
