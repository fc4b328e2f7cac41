"""Several migrations in one transaction of SQLite: what holds for each of them holds there too.

That they shared one at all, each test sees from what SQLite runs: `shared` is what it committed.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flux
from flux import FluxRunner
from flux.backends import sqlite, sqlite_bundle
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests.project import Project

FIVE = tuple(f"{number:03}" for number in range(1, 6))
RECORDS = re.compile(r"""^(?:INSERT INTO|DELETE FROM) "_flux_migrations" .*?'(\w+)'""", re.DOTALL)
PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY)"
CHILD = "CREATE TABLE child (parent REFERENCES parent (id))"


GOES_THROUGH_ROWS = sqlite_bundle._GOES_THROUGH_ROWS


@pytest.fixture(autouse=True)
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a transaction stays young; and nothing is taken to be long."""
    monkeypatch.setattr(sqlite_bundle, "_SECONDS", 3600.0)
    monkeypatch.setattr(sqlite_bundle, "_GOES_THROUGH_ROWS", "(?!)")


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose directory is the current one, with a database that is empty."""
    monkeypatch.chdir(project.root)
    project.query("PRAGMA user_version = 1")
    return project


def five(**others: str) -> dict[str, str]:
    """Five migrations that make a table each; `m003` gives the third another text."""
    files = {f"{id}.sql": f"CREATE TABLE t{id} (id);" for id in FIVE}
    return {**files, **{f"{name[1:]}.sql": text for name, text in others.items()}}


def undos() -> dict[str, str]:
    return {f"{id}.undo.sql": f"DROP TABLE t{id};" for id in FIVE}


def tables(*ids: str) -> list[str]:
    return [f"t{id}" for id in ids]


@contextmanager
def running(
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[tuple[FluxRunner, list[list[str]]]]:
    """A runner, and the ids of the migrations in each transaction that it commits."""
    shared: list[list[str]] = []
    ran: list[str] = []

    def hear(sql: str) -> None:
        if record := RECORDS.match(sql):
            ran.append(record[1])
        elif sql in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
            if sql == "COMMIT" and ran:
                shared.append(list(ran))
            ran.clear()

    with FluxRunner.from_file("flux.toml", on_event=on_event) as runner:
        runner.backend.dbapi.set_trace_callback(hear)
        yield runner, shared


def failing() -> MigrationApplyError:
    """What an `apply`, which must fail, raises."""
    with running() as (runner, _), pytest.raises(MigrationApplyError) as caught:
        runner.apply_migrations()
    return caught.value


def alone(error: MigrationApplyError) -> None:
    """An error is told as it is where its migration is the only one that is left."""
    assert [str(failing())] == [
        re.sub(r"^done before it: .*\n?", "", str(error), flags=re.MULTILINE)
    ]


# Which go together --------------------------------------------------------------------------


def test_migrations_and_undos_share_a_transaction(here: Project) -> None:
    here.add({**five(), **undos()})
    with running() as (runner, shared):
        assert runner.apply_migrations().applied == FIVE
    assert shared == [list(FIVE)]
    assert (here.tables(), here.applied()) == (tables(*FIVE), list(FIVE))
    with running() as (runner, shared):
        assert runner.rollback_migrations(4).undone == FIVE[:0:-1]
    assert shared == [list(FIVE[:0:-1])]
    assert (here.tables(), here.applied()) == (["t001"], ["001"])


ALL = [list(FIVE)]
APART = [["001"], ["002"], ["003", "004", "005"]]


@pytest.mark.parametrize(
    ("file", "text", "shared"),
    [
        pytest.param(
            "002.py", "def apply(connection):\n    connection.execute('SELECT 1')", APART, id="code"
        ),
        pytest.param("002.py", "def apply():\n    return 'SELECT 1'\n", ALL, id="text from code"),
        pytest.param("002.sql", "-- flux: no-transaction\nSELECT 1", APART, id="no-transaction"),
        pytest.param("002.sql", "-- flux: foreign-keys\nSELECT 1", APART, id="foreign-keys"),
        pytest.param("002.sql", "PRAGMA user_version = 2", APART, id="PRAGMA"),
        pytest.param("002.sql", "SELECT * FROM pragma_user_version", APART, id="its function"),
        pytest.param("002.sql", "BEGIN; SELECT 1; COMMIT;", APART, id="an outermost pair"),
        pytest.param("002.sql", "savepoint a; release a", APART, id="a savepoint"),
        pytest.param("002.sql", "ATTACH ':memory:' AS other", APART, id="ATTACH"),
        pytest.param(
            "002.sql", "CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)", APART, id="a conflict"
        ),
        pytest.param(
            "002.sql",
            "CREATE TRIGGER a INSERT ON t001 BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
            APART,
            id="a trigger",
        ),
        pytest.param("002.sql", "CREATE TEMP TABLE x (id)", ALL, id="a temporary table"),
        pytest.param("002.sql", "-- nothing", ALL, id="a comment"),
        pytest.param("002.sql", f"{PARENT}; {CHILD}", ALL, id="a foreign key"),
    ],
)
def test_what_goes_together(here: Project, file: str, text: str, shared: list[list[str]]) -> None:
    here.add({name: other for name, other in five().items() if name != "002.sql"})
    here.add({file: text})
    with running() as (runner, found):
        assert runner.apply_migrations().applied == FIVE
    assert found == shared


@pytest.mark.parametrize(
    ("text", "is_shared"),
    [
        ("INSERT INTO t002 SELECT 1", False),
        ("CREATE TABLE t003 AS\nselect 1 AS id", False),
        ("WITH n (i) AS (VALUES (1)) INSERT INTO t002 SELECT i FROM n", False),
        ("UPDATE t002 SET id = 1", False),
        ("DELETE FROM t002", False),
        ("INSERT INTO t002 VALUES (1); CREATE INDEX selected ON t002 (id)", True),
        (
            "CREATE TABLE x (i PRIMARY KEY, p REFERENCES x ON DELETE CASCADE on\nupdate SET NULL)",
            True,
        ),
    ],
)
def test_what_may_take_long_goes_alone(
    here: Project, monkeypatch: pytest.MonkeyPatch, text: str, is_shared: bool
) -> None:
    """Nobody is to wait for it who shares its transaction, or be rolled back with it."""
    monkeypatch.setattr(sqlite_bundle, "_GOES_THROUGH_ROWS", GOES_THROUGH_ROWS)
    here.add(five(m003=text))
    with running() as (runner, shared):
        runner.apply_migrations()
    assert shared == ([list(FIVE)] if is_shared else [["001", "002"], ["003"], ["004", "005"]])


def test_a_transaction_has_its_limits(here: Project) -> None:
    """50 migrations, 64 Ki characters; a larger one goes alone."""
    here.add({f"{number:03}.sql": "SELECT 1" for number in range(130)})
    with running() as (runner, shared):
        runner.apply_migrations()
    assert [len(ids) for ids in shared] == [50, 50, 30]
    large = f"-- {'x' * 30_000}\nSELECT 1;"
    here.add({f"2{number:02}.sql": large for number in range(3)} | {"203.sql": large * 3})
    with running() as (runner, shared):
        runner.apply_migrations()
    assert [len(ids) for ids in shared] == [2, 1, 1]


def test_in_a_transaction_that_is_old_none_begins(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that others who write wait no longer than for one long migration; each is told of."""
    monkeypatch.setattr(sqlite_bundle, "_SECONDS", 0.0)
    told: list[tuple[str, list[str]]] = []

    def on_event(event: Event) -> None:
        if event.step is not None:
            told.append((f"{event.kind} {event.step.name}", here.applied()))

    here.query("CREATE TABLE _flux_migrations (id TEXT NOT NULL PRIMARY KEY, hash, applied_at)")
    here.add(five())
    with running(on_event) as (runner, shared):
        runner.apply_migrations()
    assert shared == [[id] for id in FIVE]
    assert told == [
        (f"{kind} {id}", list(FIVE[: number + (kind == "done")]))
        for number, id in enumerate(FIVE)
        for kind in ("start", "done")
    ]


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_elsewhere_each_goes_alone(here: Project, is_in_memory: bool) -> None:
    """In memory nothing waits for a disk; one that was handed in is its owner's."""
    here.add(five(m003="CREATE TABLE t001 (id)"))
    name = ":memory:" if is_in_memory else str(here.database)
    with closing(sqlite3.connect(name)) as mine:
        with pytest.raises(MigrationApplyError) as caught:
            flux.apply(mine, config="flux.toml")
        assert caught.value.done == FIVE[:2]
        assert not mine.in_transaction


def test_one_wait_for_the_disk(here: Project) -> None:
    """What SQLite runs for five migrations: one BEGIN, one COMMIT."""
    here.add(five())
    ran: list[str] = []
    with FluxRunner.from_file("flux.toml") as runner:
        runner.apply_migrations(1)
        runner.backend.dbapi.set_trace_callback(ran.append)
        runner.apply_migrations()
    begin = ran.index("PRAGMA foreign_keys")
    kinds = {"SAVEPOINT", "RELEASE", "BEGIN", "COMMIT", "CREATE", "INSERT", "PRAGMA", "ROLLBACK"}
    told = [sql.split()[0] for sql in ran[begin:] if sql.split()[0] in kinds]
    before = ["PRAGMA", "PRAGMA"]  # the violations that were there
    first = ["CREATE", "INSERT", "PRAGMA"]
    others = ["SAVEPOINT", *first, "RELEASE"] * 3
    assert told[:2] == ["PRAGMA", "BEGIN"]
    assert told[2:] in ([*before, *first, *others, "COMMIT"], [*first, *others, "COMMIT"])


def test_where_nothing_can_be_rolled_back_each_goes_alone(here: Project) -> None:
    """A journal that is off rolls nothing back, least of all to a savepoint."""
    here.add(five(m001="-- flux: no-transaction\nPRAGMA journal_mode = OFF;"))
    with running() as (runner, shared):
        runner.apply_migrations()
    assert shared == [[id] for id in FIVE]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_an_exit_by_a_signal_s_handler_hides_nothing(here: Project) -> None:
    """SystemExit, as a server's workers raise it; what is committed is told of."""
    told: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.step is not None:
            told.append(event.step.name)

    many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)"
    here.add(five(m004=f"{many} SELECT count(*) FROM n;"))
    previous = signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
    try:
        with running(on_event) as (runner, _):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(SystemExit):
                runner.apply_migrations()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert told == here.applied()
    assert "003" in told
    assert "005" not in told


# What each of them finds --------------------------------------------------------------------


def test_each_has_its_own_time_and_seconds(here: Project) -> None:
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)"
    here.add({f"{id}.sql": f"SELECT max(i) FROM ({count} SELECT i FROM n)" for id in FIVE})
    with running() as (runner, shared):
        result = runner.apply_migrations()
    assert shared == ALL
    assert here.query("SELECT id FROM _flux_migrations ORDER BY applied_at") == [(i,) for i in FIVE]
    assert all(0.001 < step.seconds < 60 for step in result.steps)


def test_the_order_of_the_events(here: Project) -> None:
    """One begins when the one before it is done, as if each had gone alone."""
    told: list[tuple[str, str]] = []

    def on_event(event: Event) -> None:
        if event.step is not None:
            told.append((event.kind, event.step.name))
            if event.kind == "done":
                assert event.step.name in here.applied()

    here.add(five(m004="SELECT * FROM nowhere"))
    with running(on_event) as (runner, _), pytest.raises(MigrationApplyError):
        runner.apply_migrations()
    done = [(kind, id) for id in FIVE[:3] for kind in ("start", "done")]
    assert told == [*done, ("start", "004")]


def test_what_the_callback_raises_ends_the_batch_and_hides_nothing(here: Project) -> None:
    """Those of the same transaction are done, and told of; what comes after does not begin."""
    told: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.step is not None:
            told.append(event.step.name)
            raise RuntimeError("enough")

    here.add({f"{number:03}.sql": "SELECT 1" for number in range(60)})
    with running(on_event) as (runner, _), pytest.raises(RuntimeError):
        runner.apply_migrations()
    assert told == here.applied()
    assert len(told) == 50


def test_what_takes_long_is_told_by_its_own_file_and_statement(here: Project) -> None:
    """Also a later one of the transaction."""
    told: list[str] = []
    with running(lambda event: told.append(event.message)) as (runner, shared):
        runner.backend.dbapi.create_function("sleep", 1, time.sleep)
        here.add(five(m003="CREATE TABLE t003 (id);\nSELECT sleep(2.9);"))
        runner.apply_migrations()
    assert shared == ALL
    [first, *_] = filter(None, told)
    assert first.startswith("migrations/003.sql:2 (2 of 2, SELECT sleep(2.9)) runs for ")


def test_what_lasts_for_the_connection_lasts_as_when_each_goes_alone(here: Project) -> None:
    """A temporary table of one is there for those after it, and one of a failed one is not."""
    here.add(
        five(
            m001="CREATE TEMP TABLE passed (id); INSERT INTO passed VALUES (7)",
            m002="CREATE TABLE t002 AS SELECT id FROM passed",
            m003="CREATE TEMP TABLE lost (id); DELETE FROM passed; SELECT * FROM nowhere",
        )
    )
    with running() as (runner, shared):
        with pytest.raises(MigrationApplyError):
            runner.apply_migrations()
        temporary = runner.backend.fetch("SELECT name FROM sqlite_temp_master")
        passed = runner.backend.fetch("SELECT id FROM passed")
    assert shared == [["001", "002"]]
    assert (temporary, passed) == ([("passed",)], [(7,)])
    assert here.query("SELECT id FROM t002") == [(7,)]


# Foreign keys -------------------------------------------------------------------------------

FAILED = "FOREIGN KEY constraint failed: child refers to rows that are not in parent: 7"


@pytest.mark.parametrize("deferred", ["", " DEFERRABLE INITIALLY DEFERRED"])
@pytest.mark.parametrize("id", FIVE[1:])
def test_each_leaves_no_row_that_refers_to_nothing(here: Project, id: str, deferred: str) -> None:
    """Also where a later one of the transaction would have mended it."""
    child = f"{PARENT}; CREATE TABLE child (parent REFERENCES parent (id){deferred})"
    files = {
        "m001": child,
        f"m{id}": "CREATE TABLE x (id); INSERT INTO child VALUES (7)",
        "m006": "INSERT INTO parent VALUES (7)",
    }
    here.add(five(**files))
    error = failing()
    assert FAILED in str(error)
    assert error.state == f"rolled back; the database is as it was before {id}"
    before = FIVE[: FIVE.index(id)]
    assert (error.id, error.done, here.applied()) == (id, before, list(before))
    assert here.tables() == ["child", "parent", *tables(*before[1:])]
    alone(error)


def test_a_foreign_key_that_is_made_within_the_transaction_is_checked(here: Project) -> None:
    here.add(five(m002=f"{PARENT}; {CHILD};", m004="INSERT INTO child VALUES (7)"))
    assert FAILED in str(failing())
    assert here.applied() == list(FIVE[:3])


def test_what_was_wrong_before_the_batch_is_held_against_none(here: Project) -> None:
    """Neither where the transaction is lost, and all of them run again."""
    here.query(PARENT)
    here.query(CHILD)
    here.query("INSERT INTO child VALUES (7), (8)")
    here.query("CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)")
    here.add(
        five(
            m002="DELETE FROM child WHERE parent = 8",
            m003="INSERT INTO u VALUES (1); INSERT INTO u VALUES (1)",
        )
    )
    error = failing()
    assert (error.id, error.done) == ("003", FIVE[:2])
    here.add({"003.sql": "INSERT INTO child VALUES (8)"})
    assert "child refers to rows that are not in parent: 8" in str(failing())
    assert here.query("SELECT parent FROM child") == [(7,)]


# Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", FIVE)
@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        pytest.param("SELECT 1;\nSELEC 2;\n", 'near "SELEC": syntax error', 2, id="syntax"),
        pytest.param(
            "SELECT 1;\n\nINSERT INTO b\nVALUES (1)", "no such table: b", 3, id="no table"
        ),
        pytest.param(
            "CREATE TABLE u (a UNIQUE);\nINSERT INTO u VALUES (1);\nINSERT INTO u VALUES (1)",
            "UNIQUE constraint failed: u.a",
            3,
            id="at run time",
        ),
        pytest.param(
            "DROP TABLE _flux_migrations;", "no such table: _flux_migrations", None, id="its row"
        ),
    ],
)
def test_an_error_says_where_and_what_is_done(
    here: Project, id: str, text: str, said: str, line: int | None
) -> None:
    """As it does alone, whichever of them fails."""
    here.add(five(**{f"m{id}": text}))
    error = failing()
    before = FIVE[: FIVE.index(id)]
    assert error.message == f"applying {id} failed: {said}"
    assert error.location is not None
    assert error.location.path == f"migrations/{id}.sql"
    assert error.location.line == line
    assert error.state == f"rolled back; the database is as it was before {id}"
    assert (error.id, error.done) == (id, before)
    assert (here.tables(), here.applied()) == (tables(*before), list(before))
    alone(error)
    here.add(five())
    with running() as (runner, _):
        assert runner.apply_migrations().applied == FIVE[len(before) :]
    assert here.tables() == tables(*FIVE)


def test_an_undo_that_fails(here: Project) -> None:
    here.add({**five(), **undos(), "002.undo.sql": "DROP TABLE t002;\nDROP TABLE nowhere;"})
    with running() as (runner, _):
        runner.apply_migrations()
    with running() as (runner, shared), pytest.raises(MigrationApplyError) as caught:
        runner.rollback_migrations(4)
    assert shared == [["005", "004", "003"]]
    assert (caught.value.id, caught.value.done) == ("002", ("005", "004", "003"))
    assert str(caught.value.location).startswith("migrations/002.undo.sql:2")
    assert (here.tables(), here.applied()) == (tables("001", "002"), ["001", "002"])


ROLLS_BACK = {
    "a table": (
        "CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)",
        "UNIQUE constraint failed: u.a",
    ),
    "a trigger": (
        "CREATE TABLE u (a); CREATE TRIGGER no INSERT ON u WHEN new.a IN (SELECT a FROM u) "
        "BEGIN SELECT RAISE(ROLLBACK, 'no more of it'); END",
        "no more of it",
    ),
}


@pytest.mark.parametrize("id", FIVE[1:])
@pytest.mark.parametrize(("schema", "said"), ROLLS_BACK.values(), ids=ROLLS_BACK)
def test_what_rolls_back_the_whole_transaction(
    here: Project, id: str, schema: str, said: str
) -> None:
    """Nothing of those before it is lost, and the one that failed is told of."""
    here.add(five(m001=schema, **{f"m{id}": "INSERT INTO u VALUES (1);\nINSERT INTO u VALUES (1)"}))
    error = failing()
    before = FIVE[: FIVE.index(id)]
    assert error.message == f"applying {id} failed: {said}"
    assert error.location is not None
    assert error.location.line == 2
    assert error.state == f"rolled back; the database is as it was before {id}"
    assert (error.id, error.done, here.applied()) == (id, before, list(before))
    assert here.tables() == [*tables(*before[1:]), "u"]
    assert here.query("SELECT count(*) FROM u") == [(0,)]
    alone(error)


def test_a_row_that_somebody_else_has_written(here: Project) -> None:
    """The one whose row is there does not run; the plan is made again, nothing is done twice."""
    second = flux.Migration.from_text("004", "INSERT INTO counted VALUES (4)")
    here.query("CREATE TABLE counted (id)")
    here.add(
        {f"{id}.sql": f"INSERT INTO counted VALUES ({int(id)})" for id in FIVE}
        | {
            "002.sql": f"INSERT INTO _flux_migrations VALUES ('004', '{second.hash}', "
            "'2026-01-01 00:00:00')"
        }
    )
    with running() as (runner, shared):
        runner.apply_migrations()
    assert shared == [["001", "002", "003"], ["005"]]
    assert here.applied() == list(FIVE)
    assert here.query("SELECT id FROM counted") == [(1,), (3,), (5,)]


def test_a_full_text_index_is_whole(here: Project) -> None:
    """What a virtual table keeps to itself until COMMIT is taken back with its migration."""
    try:
        here.query("CREATE VIRTUAL TABLE book USING fts5 (title)")
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no FTS5")
    here.add(
        five(
            m001="INSERT INTO book VALUES ('Emma')",
            m002="INSERT INTO book VALUES ('Persuasion')",
            m003="INSERT INTO book VALUES ('Frankenstein'); SELECT * FROM nowhere",
        )
    )
    assert failing().done == FIVE[:2]
    here.query("INSERT INTO book (book, rank) VALUES ('integrity-check', 1)")
    assert here.query("SELECT title FROM book ORDER BY title") == [("Emma",), ("Persuasion",)]
    assert here.query("SELECT * FROM book WHERE book MATCH 'frankenstein'") == []


@pytest.mark.parametrize("is_failing", [True, False])
def test_a_reader_who_keeps_it_from_committing(here: Project, is_failing: bool) -> None:
    """On a rollback journal: nothing is done, and the first is told of, as if it were alone."""
    here.configure(backend="busy_timeout = 0.2")
    here.query("CREATE TABLE _flux_migrations (id TEXT NOT NULL PRIMARY KEY, hash, applied_at)")
    here.query("CREATE TABLE _flux_migrations_state (name PRIMARY KEY, value)")
    here.add(five(m003="SELECT * FROM nowhere") if is_failing else five())
    with closing(sqlite3.connect(here.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sqlite_master").fetchall()
        error = failing()
        reader.execute("ROLLBACK")
    assert error.message == (
        "applying 001 failed: the database is busy: another connection kept it locked for 0.2 s"
    )
    assert (error.id, error.done, here.applied(), here.tables()) == ("001", (), [], [])


def test_a_reader_who_is_waited_for(here: Project) -> None:
    """All of them are committed once it has gone."""
    here.query("CREATE TABLE _flux_migrations (id TEXT NOT NULL PRIMARY KEY, hash, applied_at)")
    here.add(five())
    with closing(sqlite3.connect(here.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sqlite_master").fetchall()
        waits: list[str] = []

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                waits.append(event.message)
                reader.execute("ROLLBACK")

        with running(on_event) as (runner, shared):
            assert runner.apply_migrations().applied == FIVE
    assert waits == ["app.db is busy; waiting for up to 30 s"]
    assert shared == ALL


def test_a_disk_that_is_full(here: Project) -> None:
    """Those for which there is room are applied, and the first of the others fails."""
    here.add(five(m003="CREATE TABLE t003 AS SELECT randomblob(3000000) AS a"))
    with running() as (runner, _):
        runner.backend.dbapi.execute("PRAGMA max_page_count = 100")
        with pytest.raises(MigrationApplyError) as caught:
            runner.apply_migrations()
    assert caught.value.message == "applying 003 failed: database or disk is full"
    assert (caught.value.done, here.applied()) == (FIVE[:2], ["001", "002"])
    assert here.tables() == tables("001", "002")


# Interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("CREATE TABLE t003 (id);\nSELECT stop();\n", id="a query"),
        pytest.param("CREATE TABLE t003 (id);\nINSERT INTO t003 SELECT stop()", id="a write"),
    ],
)
def test_what_is_interrupted_by_way_of_the_database(here: Project, text: str) -> None:
    """An interrupted write takes the whole transaction along, an interrupted query does not."""
    here.add(five(m003=text))
    stops: list[int] = []
    with running() as (runner, _):
        connection = runner.backend.dbapi

        def stop() -> int:
            stops.append(1)
            connection.interrupt()
            return 1

        connection.create_function("stop", 0, stop)
        with pytest.raises(MigrationApplyError) as caught:
            runner.apply_migrations()
    id, done = ("001", ()) if "INSERT" in text else ("003", FIVE[:2])
    assert caught.value.message == f"applying {id} failed: interrupted"
    assert caught.value.state == f"rolled back; the database is as it was before {id}"
    assert (caught.value.done, here.applied()) == (done, list(done))
    assert here.tables() == tables(*done)
    assert stops == [1], "it does not run again"


INTERRUPTED_IN = {sqlite_bundle.__file__, sqlite.__file__}


class _Interruption:
    """Raises KeyboardInterrupt where the rooms of SQLite come to their `number`th line of a run."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, kind: str, value: Any) -> Any:
        if frame.f_code.co_filename not in INTERRUPTED_IN:
            return None
        if kind == "line" and self.left >= 0:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self


def interrupted_at(project: Project, number: int) -> bool:
    """Whether a run comes to so many lines; what is there then must be whole."""
    project.database.unlink()
    project.query("PRAGMA user_version = 1")
    told: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.step is not None:
            told.append(event.step.name)

    interruption = _Interruption(number)
    before = sys.gettrace()
    with FluxRunner.from_file("flux.toml", on_event=on_event) as runner:
        run_bundle = runner.backend.run_bundle

        def run(*arguments: Any) -> None:
            sys.settrace(interruption)
            try:
                run_bundle(*arguments)
            finally:
                sys.settrace(before)

        runner.backend.run_bundle = run  # type: ignore[assignment] # interrupts it
        try:
            runner.apply_migrations()
        except (KeyboardInterrupt, MigrationApplyError):
            pass
        assert not runner.backend.dbapi.in_transaction
    done = project.applied()
    assert done == list(FIVE[: len(done)])
    assert project.tables() == tables(*done)
    assert told == done[: len(told)], "none is told of that is not done"
    return interruption.left < 0


def test_an_interruption_at_any_moment(here: Project) -> None:
    """Each is there as a whole with its row, or not at all, and no transaction stays open."""
    here.add({name: text for name, text in five().items() if name < "004"})
    number = 0
    while interrupted_at(here, number):
        number += 1
    assert number > 50
    assert here.applied() == list(FIVE[:3])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("kind", ["a query", "a write"])
def test_an_end_in_the_middle(here: Project, kind: str, name: str) -> None:
    """What is told as done is done, what ran is rolled back, none after it runs."""
    number = signal.Signals[name]
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    slow = f"SELECT count(*) FROM ({count} SELECT i FROM n)"
    write = "INSERT INTO t003 " if kind == "a write" else ""
    here.add(five(m003=f"CREATE TABLE t003 (id);\n{write}{slow};"))
    with here.started("apply") as process:
        _wait_until_locked(here.database)
        process.send_signal(number)
        out, err = process.communicate()
    told = re.findall(r"^applied .*  (\S+)$", out, re.MULTILINE)
    done = here.applied()
    assert here.tables() == tables(*done)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert done in ([], ["001"], ["001", "002"])
    else:
        assert told == done == ["001", "002"]
        assert "interrupted at 003" in err
    here.add(five())
    here.succeed("apply", "--lock-wait", "0")
    assert here.tables() == tables(*FIVE)


def _wait_until_locked(database: Path) -> None:
    """Return when somebody has had a transaction open that writes, for half a second."""
    seen = 0
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        while seen < 10:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                seen += 1
            else:
                connection.execute("ROLLBACK")
                seen = 0
            time.sleep(0.05)


def test_kills_at_random_moments(here: Project) -> None:
    """At any moment, exactly the migrations in the history have taken effect."""
    ids = [f"{number:03}" for number in range(150)]
    here.add({f"{id}.sql": f"CREATE TABLE t{id} (id); INSERT INTO t{id} VALUES (1)" for id in ids})
    for lines in (1, 20, 40):
        with here.started("apply") as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
        done = here.applied()
        assert here.tables() == tables(*done)
        assert done == ids[: len(done)]
    here.succeed("apply")
    assert here.applied() == ids
    assert [here.query(f"SELECT count(*) FROM t{id}") for id in ids] == [[(1,)]] * 150
