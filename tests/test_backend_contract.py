"""The backends that come with flux keep the contract; a plugin's own test is in tests/plugins."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from unittest import SkipTest

import pytest

from flux import AppliedMigration, FluxConfig, Migration, MigrationBackend
from flux.backends import load_backend
from flux.backends.sqlite import SQLiteBackend
from flux.exceptions import DatabaseUnavailableError
from flux.testing import BackendContract
from tests import driver
from tests.postgres_server import Postgres


class TestSQLite(BackendContract):
    """A file, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "app.db"
        self.path.touch()

    def make_backend(self, config: FluxConfig) -> SQLiteBackend:
        return SQLiteBackend.from_config(config, str(self.path))


class TestSQLiteConnection(BackendContract):
    """A connection that the application opened, with sqlite3's own ideas of transactions."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "app.db"
        with ExitStack() as self.connections:
            yield

    def make_backend(self, config: FluxConfig) -> SQLiteBackend:
        connection = self.connections.enter_context(closing(sqlite3.connect(self.path)))
        connection.row_factory = sqlite3.Row
        return SQLiteBackend.for_connection(config, connection)


class TestPostgres(BackendContract):
    """A schema of a database, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def make_backend(self, config: FluxConfig) -> MigrationBackend:
        return load_backend("postgres").from_config(self.settings(config), self.postgres.url)

    def settings(self, config: FluxConfig) -> FluxConfig:
        """The configuration with the history in the test's own schema."""
        own = {"driver": driver.NAME, "migrations_schema": self.postgres.schema}
        return config._replace(backend_config={**config.backend_config, **own})


class TestPostgresConnection(TestPostgres):
    """A connection that the application opened, with the driver's own ideas of transactions."""

    @pytest.fixture(autouse=True)
    def connections(self) -> Iterator[None]:
        with ExitStack() as self.stack:
            yield

    def make_backend(self, config: FluxConfig) -> MigrationBackend:
        connection = self.stack.enter_context(closing(driver.connect(self.postgres.url)))
        return load_backend("postgres").for_connection(self.settings(config), connection)


# What the contract notices ------------------------------------------------------------------


class NoRollback(SQLiteBackend):
    """Commits also when an exception passes."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.run_sql("BEGIN")
        try:
            yield
        finally:
            self.run_sql("COMMIT")


class NoLock(SQLiteBackend):
    """Lets everybody in."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        yield


class LastingLock(SQLiteBackend):
    """Locks with a file, which stays when its holder is killed."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        file = Path(f"{self.path}.lock")

        def try_to_acquire() -> bool:
            try:
                file.touch(exist_ok=False)
            except FileExistsError:
                return False
            return True

        self.wait_for_lock(try_to_acquire, lambda: None)
        yield
        file.unlink()


class WritesWhenItReads(SQLiteBackend):
    """Creates the history when it is asked for it."""

    def is_initialized(self) -> bool:
        self.initialize()
        return True


class UnquotedIds(SQLiteBackend):
    """Does not expect a quote in an id."""

    def unregister_migration(self, migration: Migration) -> None:
        self.run_sql(f"DELETE FROM {self.table} WHERE id = '{migration.id}'")


class KeepsItsView(SQLiteBackend):
    """Leaves a transaction open after it has read, as drivers do that are not in autocommit."""

    def get_applied_migrations(self) -> list[AppliedMigration]:
        if not self.dbapi.in_transaction:
            self.run_sql("BEGIN")
        return super().get_applied_migrations()


class RunsTwice(SQLiteBackend):
    """Does not look into the history before it runs a migration."""

    def is_recorded(self, id: str) -> bool:
        return False


class CutsAtSemicolons(SQLiteBackend):
    """Takes every semicolon for the end of a statement."""

    def apply_migration(self, content: str) -> None:
        for statement in content.split(";"):
            self.run_sql(statement)


class Forgetful(SQLiteBackend):
    """Remembers nothing beside the history."""

    def read_memory(self) -> dict[str, str]:
        return {}


class Impatient(SQLiteBackend):
    """Has a patience of its own."""

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> SQLiteBackend:
        return super().from_config(config._replace(lock_wait=1), connection_uri)


@pytest.mark.parametrize(
    ("backend", "test", "says"),
    [
        pytest.param(
            NoRollback,
            BackendContract.test_a_transaction_is_rolled_back_when_an_exception_passes,
            "the rows after _OnPurposeError: expected [], found [(1, 'x')]",
            id="no rollback",
        ),
        pytest.param(
            NoRollback,
            BackendContract.test_a_failing_migration_leaves_no_table,
            "whether the table of a failed migration is there: expected False, found True",
            id="no rollback of a table",
        ),
        pytest.param(
            NoLock,
            BackendContract.test_the_lock_keeps_others_out,
            "migration_lock() while the lock is held did not raise MigrationLockError",
            id="no lock",
        ),
        pytest.param(
            LastingLock,
            BackendContract.test_the_lock_is_free_after_an_exception,
            "another process is running migrations on this database, and still was after 0 s",
            id="a lock that an exception leaves",
        ),
        pytest.param(
            LastingLock,
            BackendContract.test_the_lock_dies_with_its_holder,
            "another process is running migrations on this database, and still was after 0 s",
            id="a lock that outlives its holder",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="forks, for Linux alone"),
        ),
        pytest.param(
            WritesWhenItReads,
            BackendContract.test_a_new_database_has_no_history_and_reading_makes_none,
            "read_state() of an empty database: expected DatabaseState(history=None, "
            "unfinished=False, last_runs={}, journal=(), late=()), found DatabaseState(history=(), "
            "unfinished=False, last_runs={}, journal=(), late=())",
            id="reading that writes",
        ),
        pytest.param(
            UnquotedIds,
            BackendContract.test_what_is_unregistered_is_not_in_the_history,
            'near "s": syntax error',
            id="unquoted ids",
        ),
        pytest.param(
            KeepsItsView,
            BackendContract.test_reading_again_shows_what_others_have_done,
            "the history that a connection reads which has read it before: "
            "expected ['a'], found []",
            id="an old view",
        ),
        pytest.param(
            RunsTwice,
            BackendContract.test_nothing_runs_twice,
            "UNIQUE constraint failed: _flux_migrations.id",
            id="runs twice",
        ),
        pytest.param(
            CutsAtSemicolons,
            BackendContract.test_text_runs_as_it_is,
            'unrecognized token: "\'a"',
            id="cut at semicolons",
        ),
        pytest.param(
            Forgetful,
            BackendContract.test_an_unfinished_batch_is_remembered,
            "whether a batch is unfinished (1): expected True, found False",
            id="forgets",
        ),
        pytest.param(
            Impatient,
            BackendContract.test_the_lock_wait_is_the_configured_one,
            "backend.lock_wait, made with lock_wait=12.5: expected 12.5, found 1",
            id="a lock_wait of its own",
        ),
    ],
)
def test_the_contract_notices(
    backend: type[SQLiteBackend],
    test: Callable[[BackendContract], None],
    says: str,
    tmp_path: Path,
) -> None:
    """A suite that everybody passes would be worth nothing."""
    path = tmp_path / "app.db"
    # A journal lets others write beside an open reader.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")

    class Suite(BackendContract):
        patience = 0.2

        def make_backend(self, config: FluxConfig) -> MigrationBackend:
            return backend.from_config(config, str(path))

    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever kind
        test(Suite())
    assert str(caught.value).partition("\nhint: ")[0] == says


def test_what_a_database_cannot_do_is_skipped_and_said(tmp_path: Path) -> None:
    class NoTransactionalDDL(SQLiteBackend):
        name = "olddb"
        transactional_ddl = False

    class Suite(BackendContract):
        def make_backend(self, config: FluxConfig) -> MigrationBackend:
            return NoTransactionalDDL.from_config(config, str(tmp_path / "app.db"))

    for test in (
        Suite().test_initialize_is_rolled_back_with_its_transaction,
        Suite().test_a_failing_migration_leaves_no_table,
    ):
        with pytest.raises(SkipTest, match=r"^olddb has no transactional DDL$"):
            test()


def test_the_suite_asks_for_its_hook() -> None:
    with pytest.raises(NotImplementedError, match="make_backend"):
        BackendContract().test_the_backend_has_a_name()


# What the defaults do for a backend ---------------------------------------------------------


def test_a_database_that_does_not_answer_has_not_forgotten(tmp_path: Path) -> None:
    """Only a table that is not there means that nothing is remembered (DESIGN: never, 11)."""

    class Defaults(SQLiteBackend):
        read_memory = MigrationBackend.read_memory
        is_busy = False

        @contextmanager
        def transaction(self) -> Iterator[None]:
            if self.is_busy:
                raise sqlite3.OperationalError("database is locked")
            with super().transaction():
                yield

    backend = Defaults(str(tmp_path / "app.db"))
    Path(backend.path).touch()
    with backend.opened():
        assert backend.read_memory() == {}
        backend.prepare(history=True, memory=True, unfinished=True)
        assert backend.read_state().unfinished
        backend.is_busy = True
        with pytest.raises(DatabaseUnavailableError) as caught:
            backend.read_state()
    assert str(caught.value) == "cannot read the history: database is locked"
