"""flux inside a program: it does its work, and leaves the program as it found it."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import flux
from flux import directory
from flux.exceptions import (
    ApprovalError,
    ConnectionStateError,
    DatabaseUnavailableError,
    FluxMigrationException,
    InvalidBackendError,
    InvalidConfigurationError,
    IrreversibleMigrationError,
    MigrationApplyError,
    MigrationDirectoryCorruptedError,
    MigrationLoadingError,
    MigrationLockError,
    UnknownMigrationError,
)
from flux.results import BatchResult, Event
from tests.project import Project

BOOKS = "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT)"


@pytest.fixture
def shop(project: Project) -> Project:
    """A project whose rebuild of a table would lose rows with foreign keys on."""
    project.add(
        {
            "001_book.sql": f"{BOOKS};\nCREATE TABLE review (book REFERENCES book ON DELETE "
            "CASCADE);\nINSERT INTO book VALUES (1, 'Emma');\nINSERT INTO review VALUES (1);\n",
            "001_book.undo.sql": "DROP TABLE review;\nDROP TABLE book;\n",
            "002_rebuild.sql": "CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL);\n"
            "INSERT INTO new SELECT * FROM book;\nDROP TABLE book;\n"
            "ALTER TABLE new RENAME TO book;\n",
            "002_rebuild.undo.sql": "-- nothing to undo\n",
            "003_count.py": "def apply(connection):\n"
            "    (row,) = connection.execute('SELECT count(*) FROM review').fetchall()\n"
            "    assert row == (1,), row\n"
            "    connection.execute('CREATE TABLE counted (n INTEGER)')\n"
            "    connection.execute('INSERT INTO counted VALUES (?)', row)\n\n"
            "def undo(connection):\n    connection.execute('DROP TABLE counted')\n",
        }
    )
    return project


IDS = ("001_book", "002_rebuild", "003_count")


def migrations(project: Project) -> Path:
    return project.root / "migrations"


@pytest.fixture
def connection(shop: Project) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(shop.database)) as connection:
        yield connection


# flux.apply ---------------------------------------------------------------------------------


def test_apply_takes_an_address(shop: Project) -> None:
    result = flux.apply(f"sqlite:///{shop.database}", migrations(shop))
    assert result.applied == IDS
    assert shop.applied() == list(IDS)
    assert flux.apply(str(shop.database), str(migrations(shop))) == BatchResult()


def test_apply_takes_a_connection(shop: Project, connection: sqlite3.Connection) -> None:
    assert flux.apply(connection, migrations(shop), n=1).applied == IDS[:1]
    assert flux.apply(connection, migrations(shop), to=IDS[1]).applied == IDS[1:2]
    assert flux.apply(connection, migrations(shop)).applied == IDS[2:]
    assert connection.execute("SELECT n FROM counted").fetchall() == [(1,)]


def test_apply_takes_a_database_in_memory(shop: Project) -> None:
    """It exists for its connection alone, and so needs no lock, nor a file for it."""
    with closing(sqlite3.connect(":memory:")) as memory:
        assert flux.apply(memory, migrations(shop)).applied == IDS
        assert memory.execute("SELECT count(*) FROM _flux_migrations").fetchall() == [(3,)]
    assert not list(shop.root.glob("*flux-lock"))


def test_apply_takes_a_configuration(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path or as it is; the address comes from it, or from the environment before it."""
    path = shop.root / "flux.toml"
    assert flux.apply(config=path, n=1).applied == IDS[:1]
    assert flux.apply(config=flux.FluxConfig.from_file(path), n=1).applied == IDS[1:2]
    monkeypatch.setenv("FLUX_DATABASE_URL", f"sqlite:///{shop.root}/env.db")
    assert flux.apply(config=path).applied == IDS
    assert flux.apply(migration_directory=migrations(shop)) == BatchResult()
    assert shop.applied() == list(IDS[:2])


def test_apply_refuses_what_is_no_connection(shop: Project) -> None:
    with pytest.raises(InvalidBackendError) as caught:
        flux.apply(object(), migrations(shop))
    assert str(caught.value) == (
        "flux does not know this kind of connection: builtins.object\n"
        "hint: hand in a sqlite3, psycopg2 or psycopg connection, or the database's address"
    )


def test_apply_tells_what_happens(shop: Project) -> None:
    events: list[Event] = []
    flux.apply(str(shop.database), migrations(shop), n=1, on_event=events.append)
    assert [(event.kind, event.step and event.step.name) for event in events] == [
        ("start", IDS[0]),
        ("done", IDS[0]),
    ]


def test_what_on_event_raises_ends_the_batch(shop: Project) -> None:
    """Those of the same transaction are done. It is not taken for a failure of a migration."""

    def on_event(event: Event) -> None:
        if event.kind == "start" and event.step is not None and event.step.name == IDS[1]:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        flux.apply(str(shop.database), migrations(shop), on_event=on_event)
    assert shop.applied() in (list(IDS[:1]), list(IDS[:2])), "as many as were quick enough"


def test_two_threads_apply_once(shop: Project) -> None:
    """Each with a connection of its own, as two workers of one server would."""
    results: list[BatchResult] = []

    def work() -> None:
        results.append(flux.apply(str(shop.database), migrations(shop)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.applied for result in results) == [(), (), (), IDS]
    assert shop.applied() == list(IDS)


# FluxRunner ---------------------------------------------------------------------------------


def ids(found: list[flux.Migration]) -> list[str]:
    return [migration.id for migration in found]


def test_a_runner_reads_and_writes(shop: Project) -> None:
    with flux.FluxRunner.from_file(shop.root / "flux.toml", str(shop.database)) as runner:
        assert ids(runner.migrations_to_apply()) == list(IDS)
        assert ids(runner.migrations_to_apply(2)) == list(IDS[:2])
        assert (runner.history(), ids(runner.list_applied_migrations())) == ((), [])
        assert not shop.database.exists(), "reading makes no file"

        assert runner.apply_migrations(2).applied == IDS[:2]
        assert ids(runner.list_applied_migrations()) == list(IDS[:2])
        assert ids(runner.list_unapplied_migrations()) == list(IDS[2:])
        assert [row.id for row in runner.history()] == list(IDS[:2])
        assert ids(runner.migrations_to_rollback()) == [IDS[1]]
        assert ids(runner.migrations_to_rollback(None)) == [IDS[1], IDS[0]]
        assert [row.state for row in runner.status().rows] == ["applied", "applied", "pending"]
        runner.validate_applied_migrations()

        assert runner.apply_migrations().applied == IDS[2:]
        assert runner.apply_migrations() == BatchResult()
        assert runner.rollback_migrations().undone == IDS[2:]
        assert runner.rollback_migration(IDS[0]).undone == (IDS[1], IDS[0])
        assert runner.rollback_migrations() == BatchResult()
        assert runner.apply_migrations(to=IDS[1]).applied == IDS[:2]
        assert runner.rollback_migrations(to=IDS[0]).undone == (IDS[1],)
        assert runner.rollback_migrations(None).undone == (IDS[0],)
        assert runner.history() == ()
    assert shop.tables() == []


def test_a_runner_sees_what_others_do_when_it_acts(shop: Project) -> None:
    """What it read before the lock does not count once it has the lock."""
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        assert ids(runner.migrations_to_apply()) == list(IDS)
        shop.succeed("apply", "2")
        assert runner.apply_migrations().applied == IDS[2:]
        assert [row.id for row in runner.history()] == list(IDS)
        shop.succeed("rollback", "-y")
        runner.refresh()
        assert ids(runner.list_unapplied_migrations()) == list(IDS[2:])


def test_a_rollback_reads_what_it_undoes_and_no_other_file(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is not held up, a minute after a deploy, by a file that has no part in it."""
    shop.succeed("apply")
    shop.add({"001_book.sql": b"\xff", "004_new.py": "raise ValueError"})
    read: list[str] = []
    read_bytes = directory._read_bytes

    def note(path: str) -> bytes:
        read.append(os.path.basename(path))
        return read_bytes(path)

    monkeypatch.setattr(directory, "_read_bytes", note)
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        assert runner.rollback_migrations(2).undone == IDS[:0:-1]
        files = ["002_rebuild.sql", "002_rebuild.undo.sql", "003_count.py"]
        assert sorted(read) == files, "each of them once"
        with pytest.raises(MigrationLoadingError, match="is not UTF-8"):
            runner.rollback_migrations()
        with pytest.raises(MigrationLoadingError, match="2 problems"):
            runner.status()
    assert shop.applied() == list(IDS[:1])


def test_an_undo_runs_as_it_was_approved(shop: Project) -> None:
    """What was checked, and asked about, is what runs, whoever writes the file meanwhile."""
    shop.add(
        {
            "002_rebuild.undo.sql": "CREATE TABLE approved (id INTEGER);\n",
            "003_count.py": "def apply(): return 'SELECT 1'\n"
            "def undo(): return 'CREATE TABLE approved_too (id INTEGER)'\n",
        }
    )

    def change(plan: object) -> bool:
        shop.add({"002_rebuild.undo.sql": "DROP TABLE book;\n", "003_count.py": "raise ValueError"})
        return True

    shop.succeed("apply")
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        assert runner.rollback_migrations(2, confirm=change).undone == IDS[:0:-1]
    assert shop.tables() == ["approved", "approved_too", "book", "review"]


def test_a_rollback_is_planned_anew_where_others_were_faster(shop: Project) -> None:
    """Of what was planned before the lock, nothing holds when the history is another one."""
    shop.succeed("apply")

    def be_faster(plan: object) -> bool:
        if not asked:
            shop.succeed("rollback", "-y")
        asked.append([step.name for step in plan.steps])  # type: ignore[attr-defined] # a plan
        return True

    asked: list[list[str]] = []
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        assert runner.rollback_migrations(confirm=be_faster).undone == IDS[1:2]
    assert asked == [[IDS[2]], [IDS[1]]]
    assert shop.applied() == list(IDS[:1])


def test_a_runner_closes_what_it_opened(shop: Project) -> None:
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        read_from = runner.backend.dbapi
        runner.apply_migrations()
        wrote_to = runner.backend.dbapi
    for opened in (read_from, wrote_to):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened.execute("SELECT 1")
    with runner:
        assert len(runner.history()) == 3, "and it can be opened again"


def test_a_plan_is_asked_about(shop: Project) -> None:
    seen: list[list[str]] = []

    def confirm(plan: Any) -> bool:
        seen.append([step.name for step in plan.steps])
        return len(seen) > 1

    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        with pytest.raises(ApprovalError):
            runner.apply_migrations(1, confirm=confirm)
        assert not shop.database.exists()
        runner.apply_migrations(1, confirm=confirm)
    assert seen == [[IDS[0]], [IDS[0]]]
    assert shop.applied() == [IDS[0]]


@pytest.mark.parametrize("n", [-1, -100])
def test_a_negative_number_is_refused(shop: Project, n: int) -> None:
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        runner.apply_migrations()
        methods: list[Callable[[int], object]] = [
            runner.apply_migrations,
            runner.rollback_migrations,
            runner.migrations_to_apply,
            runner.migrations_to_rollback,
        ]
        for method in methods:
            with pytest.raises(ValueError, match=r"^n must be 0 or more, not -"):
                method(n)
    assert shop.applied() == list(IDS)


def test_results_are_frozen(shop: Project) -> None:
    result = flux.apply(str(shop.database), migrations(shop))
    with flux.FluxRunner.from_file(shop.root / "flux.toml") as runner:
        status, history, listed = (
            runner.status(),
            runner.history(),
            runner.list_applied_migrations(),
        )
        config = runner.config
    frozen: list[Any] = [
        result,
        result.steps[0],
        status,
        status.rows[0],
        history[0],
        listed[0],
        config,
    ]
    for record in frozen:
        with pytest.raises(AttributeError):
            setattr(record, record._fields[0], "other")
        with pytest.raises(AttributeError):
            record.anything = 1


# A connection that was handed in ------------------------------------------------------------


def state_of(connection: sqlite3.Connection) -> dict[str, object]:
    """All that a program can have set on a connection, and can be asked for."""
    state: dict[str, object] = {
        name: getattr(connection, name)
        for name in ("isolation_level", "row_factory", "text_factory", "in_transaction")
    }
    cursor = connection.cursor()
    cursor.row_factory = None
    for name in (
        "foreign_keys",
        "recursive_triggers",
        "legacy_alter_table",
        "busy_timeout",
        "cache_size",
        "synchronous",
        "query_only",
    ):
        state[name] = cursor.execute(f"PRAGMA {name}").fetchone()
    return state


def dict_factory(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    """The recipe of Python's documentation; its rows have no numbers."""
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


SETTINGS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "as it is": lambda connection: None,
    "foreign keys on": lambda connection: connection.execute("PRAGMA foreign_keys = ON"),
    "autocommit": lambda connection: setattr(connection, "isolation_level", None),
    "exclusive": lambda connection: setattr(connection, "isolation_level", "EXCLUSIVE"),
    "sqlite3.Row": lambda connection: setattr(connection, "row_factory", sqlite3.Row),
    "rows as dicts": lambda connection: setattr(connection, "row_factory", dict_factory),
    "text as bytes": lambda connection: setattr(connection, "text_factory", bytes),
    "recursive triggers": lambda connection: connection.execute("PRAGMA recursive_triggers = ON"),
}
MEDDLES = (
    "def apply(connection):\n"
    "    connection.row_factory = None\n"
    "    connection.text_factory = bytearray\n"
    "    connection.isolation_level = 'IMMEDIATE'\n"
    "    connection.execute('PRAGMA recursive_triggers = 1')\n"
    "    connection.execute('PRAGMA cache_size = 77')\n"
)


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_a_connection_is_left_as_it_was_found(
    shop: Project, connection: sqlite3.Connection, setting: str, fails: bool
) -> None:
    """Whatever it was set to, whatever migrations set, and also when one of them fails."""
    SETTINGS[setting](connection)
    shop.add(
        {
            "004.py": MEDDLES,
            "005.sql": "-- flux: no-transaction\nPRAGMA foreign_keys = 0;\n"
            "PRAGMA recursive_triggers = 0;\nPRAGMA query_only = 1;\n" + "FAIL;" * fails,
        }
    )
    before = state_of(connection)
    if fails:
        with pytest.raises(MigrationApplyError):
            flux.apply(connection, migrations(shop))
    else:
        flux.apply(connection, migrations(shop))
    assert state_of(connection) == before
    cursor = connection.cursor()
    cursor.row_factory = None
    assert cursor.execute("SELECT n FROM counted").fetchall() == [(1,)], "no child row is lost"
    connection.execute("CREATE TABLE usable (id)")


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        pytest.param(
            lambda connection: connection.execute("BEGIN"),
            "this connection is inside a transaction, which a migration would commit\n"
            "hint: commit or roll back before handing it to flux",
            id="a transaction",
        ),
        pytest.param(
            lambda connection: (
                connection.execute("CREATE TABLE mine (id)")
                and connection.execute("INSERT INTO mine VALUES (1)")
            ),
            "this connection is inside a transaction, which a migration would commit\n"
            "hint: commit or roll back before handing it to flux",
            id="a transaction that sqlite3 began",
        ),
        pytest.param(
            lambda connection: connection.close(),
            "this connection cannot be used: Cannot operate on a closed database.",
            id="closed",
        ),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(
    shop: Project,
    connection: sqlite3.Connection,
    prepare: Callable[[sqlite3.Connection], object],
    error: str,
) -> None:
    prepare(connection)
    with pytest.raises(ConnectionStateError) as caught:
        flux.apply(connection, migrations(shop))
    assert str(caught.value) == error
    if "closed" not in error:
        assert connection.in_transaction, "the program's own transaction goes on"
        connection.rollback()
    assert shop.tables() in ([], ["mine"])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has sqlite3's autocommit")
@pytest.mark.parametrize("autocommit", [True, False])
def test_autocommit_of_python_3_12(shop: Project, autocommit: bool) -> None:
    """With `autocommit=False` a connection is always inside a transaction; that is said."""
    options: dict[str, Any] = {"autocommit": autocommit}
    with closing(sqlite3.connect(shop.database, **options)) as connection:
        before = state_of(connection)
        if autocommit:
            assert flux.apply(connection, migrations(shop)).applied == IDS
        else:
            with pytest.raises(ConnectionStateError) as caught:
                flux.apply(connection, migrations(shop))
            assert str(caught.value) == (
                "this sqlite3 connection has autocommit=False, with which it is always inside a "
                "transaction\n"
                "hint: hand in one with autocommit=True or with sqlite3's default"
            )
        assert getattr(connection, "autocommit", None) is autocommit
        assert state_of(connection) == before
    assert shop.tables() == (["book", "counted", "review"] if autocommit else [])


def test_a_connection_of_another_thread_is_refused(
    shop: Project, connection: sqlite3.Connection
) -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            flux.apply(connection, migrations(shop))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in caught] == [ConnectionStateError]
    assert "created in a thread can only be used in that same thread" in str(caught[0])


def test_a_connection_without_a_timeout_still_waits(shop: Project) -> None:
    """Another one writes, and ends that when flux says that it waits."""
    with (
        closing(sqlite3.connect(shop.database, timeout=0)) as connection,
        closing(sqlite3.connect(shop.database, isolation_level=None)) as other,
    ):
        words: list[str] = []

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                words.append(event.message)
                other.execute("COMMIT")

        other.execute("BEGIN IMMEDIATE")
        result = flux.apply(connection, migrations(shop), on_event=on_event)
        assert result.applied == IDS
        path = os.path.realpath(shop.database)
        assert words == [f"{path} is busy; waiting for up to 30 s"]


# Wrapped connections ------------------------------------------------------------------------


@contextmanager
def by_sqlalchemy_connection(path: Path) -> Iterator[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
            yield connection
            counted = connection.execute(sqlalchemy.text("SELECT n FROM counted"))
            assert [tuple(row) for row in counted] == [(1,)]
    finally:
        engine.dispose()


@contextmanager
def by_sqlalchemy_raw(path: Path) -> Iterator[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with closing(engine.raw_connection()) as connection:
            yield connection
            assert connection.is_valid
    finally:
        engine.dispose()


@contextmanager
def by_wrapt(path: Path) -> Iterator[Any]:
    import wrapt

    class Tracer(wrapt.ObjectProxy[Any]):
        """What the tracers of monitoring services are: all goes to the wrapped connection."""

        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("a tracer's cursor, which flux has no use for")

    with closing(sqlite3.connect(path)) as connection:
        yield Tracer(Tracer(connection))


@contextmanager
def by_subclass(path: Path) -> Iterator[Any]:
    class Own(sqlite3.Connection):
        """A connection of a program's own class."""

    with closing(sqlite3.connect(path, factory=Own)) as connection:
        yield connection


@contextmanager
def by_plain_wrapper(path: Path) -> Iterator[Any]:
    class Django:
        """As Django's: the driver's connection is its attribute `connection`."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection

    with closing(sqlite3.connect(path)) as connection:
        yield Django(connection)


@pytest.mark.parametrize(
    "opened",
    [by_sqlalchemy_connection, by_sqlalchemy_raw, by_wrapt, by_subclass, by_plain_wrapper],
)
def test_a_wrapped_connection_is_as_good(shop: Project, opened: Callable[[Path], Any]) -> None:
    """A migration in Python is given the driver's own connection out of it."""
    shop.add(
        {
            "004.py": "import sqlite3\ndef apply(connection):\n"
            "    assert isinstance(connection, sqlite3.Connection), connection\n"
            "    assert type(connection).__module__ in ('sqlite3', 'tests.test_library')\n"
        }
    )
    with opened(shop.database) as connection:
        assert flux.apply(connection, migrations(shop)).applied == (*IDS, "004")


def test_a_wrapper_of_itself_does_not_hang(shop: Project) -> None:
    class Endless:
        connection: Any

    endless = Endless()
    endless.connection = endless
    with pytest.raises(InvalidBackendError):
        flux.apply(endless, migrations(shop))


# Errors -------------------------------------------------------------------------------------


def change(project: Project, name: str, content: str | None) -> None:
    if content is None:
        (migrations(project) / name).unlink()
    else:
        project.add({name: content})


@pytest.mark.parametrize(
    ("changes", "act", "type_", "message"),
    [
        pytest.param(
            {"001_book.sql": "SELECT 1"},
            lambda runner: runner.validate_applied_migrations(),
            MigrationDirectoryCorruptedError,
            "history and migration directory disagree",
            id="divergent",
        ),
        pytest.param(
            {"002_rebuild.undo.sql": None},
            lambda runner: runner.rollback_migrations(None),
            IrreversibleMigrationError,
            "002_rebuild cannot be rolled back: there is no undo",
            id="irreversible",
        ),
        pytest.param(
            {},
            lambda runner: runner.rollback_migration("004"),
            UnknownMigrationError,
            "no migration '004' is applied",
            id="unknown",
        ),
        pytest.param(
            {"004.sql": "COMMIT"},
            lambda runner: runner.apply_migrations(),
            MigrationLoadingError,
            "COMMIT inside a migration, which flux runs in a transaction of its own",
            id="what could not run",
        ),
        pytest.param(
            {"004.sql": "FAIL"},
            lambda runner: runner.apply_migrations(),
            MigrationApplyError,
            'applying 004 failed: near "FAIL": syntax error',
            id="what failed",
        ),
    ],
)
def test_each_error_is_one_of_flux(
    shop: Project,
    changes: dict[str, str | None],
    act: Callable[[flux.FluxRunner], object],
    type_: type[FluxMigrationException],
    message: str,
) -> None:
    flux.apply(str(shop.database), migrations(shop))
    for name, content in changes.items():
        change(shop, name, content)
    with (
        flux.FluxRunner.from_file(shop.root / "flux.toml") as runner,
        pytest.raises(FluxMigrationException) as caught,
    ):
        act(runner)
    assert type(caught.value) is type_
    assert caught.value.message == message
    assert shop.applied() == list(IDS)


def test_a_failure_carries_what_was_done_where_and_why(shop: Project) -> None:
    shop.add({"004.sql": "-- four\n  INSERT INTO book (pages)\n  VALUES (1);\n"})
    with pytest.raises(MigrationApplyError) as caught:
        flux.apply(str(shop.database), migrations(shop))
    error = caught.value
    path = str(migrations(shop) / "004.sql")
    assert (error.id, error.done) == ("004", IDS)
    assert error.location is not None
    assert error.location[:4] == (path, 2, None, "  INSERT INTO book (pages)")
    assert error.state == "rolled back; the database is as it was before 004"
    assert isinstance(error.__cause__, sqlite3.OperationalError)
    assert str(error) == (
        f"{path}:2: applying 004 failed: table book has no column named pages\n"
        "    2 |   INSERT INTO book (pages)\n"
        "done before it: 001_book, 002_rebuild, 003_count\n"
        "state: rolled back; the database is as it was before 004"
    )


@pytest.mark.parametrize(
    ("database", "type_", "message"),
    [
        pytest.param("", InvalidConfigurationError, "the database's address is empty", id="empty"),
        pytest.param(
            "nosuch://u:secret@host/db",
            FluxMigrationException,
            "no installed package provides the backend 'nosuch'",
            id="another database",
        ),
        pytest.param(
            "{root}",
            DatabaseUnavailableError,
            "cannot open {root}: unable to open database file",
            id="a directory",
        ),
    ],
)
def test_an_address_that_cannot_be_used(
    shop: Project, database: str, type_: type[FluxMigrationException], message: str
) -> None:
    with pytest.raises(type_) as caught:
        flux.apply(database.format(root=shop.root), migrations(shop))
    assert caught.value.message == message.format(root=shop.root)


def test_a_lock_that_is_held_for_too_long(shop: Project) -> None:
    config = flux.FluxConfig.from_file(shop.root / "flux.toml")._replace(lock_wait=0)
    with (
        flux.FluxRunner.from_config(config) as holder,
        holder.backend.migration_lock(),
        pytest.raises(MigrationLockError) as caught,
    ):
        flux.apply(config=config)
    assert caught.value.holder is not None
    assert caught.value.holder.startswith(f"pid {os.getpid()} on host ")
    assert flux.apply(config=config).applied == IDS


# Logging ------------------------------------------------------------------------------------


def test_records_go_to_the_logger_flux(shop: Project, caplog: pytest.LogCaptureFixture) -> None:
    shop.add({"post-apply/views.sql": "SELECT 1"})
    with caplog.at_level(logging.DEBUG, logger="flux"):
        flux.apply(str(shop.database), migrations(shop), n=1)
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert [(name, level, text.partition(":")[0]) for name, level, text in told] == [
        ("flux", "DEBUG", "apply 001_book"),
        ("flux", "INFO", "apply 001_book"),
        ("flux", "DEBUG", "run post-apply/views"),
        ("flux", "INFO", "run post-apply/views"),
    ]


def test_the_library_configures_no_logging_and_prints_nothing(
    shop: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does it change the program's levels, handlers, signals or path of imports."""
    import signal

    def state() -> list[object]:
        logger = logging.getLogger("flux")
        return [
            *logging.root.handlers,
            *logger.handlers,
            logging.root.level,
            logger.level,
            logger.propagate,
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGINT),
            *sys.path,
            sys.dont_write_bytecode,
        ]

    before = state()
    flux.apply(str(shop.database), migrations(shop))
    shop.add({"004.sql": "FAIL"})
    with pytest.raises(MigrationApplyError):
        flux.apply(str(shop.database), migrations(shop))
    assert state() == before
    assert capfd.readouterr() == ("", "")
