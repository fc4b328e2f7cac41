"""The backend contract.

A backend writes the ten abstract names over one DB-API connection. Everything else has a
default here, written in their terms, which a backend may replace by something faster or
better informed. `flux.testing` holds the contract as a test suite.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from flux.backends.dbapi import Mechanics
from flux.backends.signals import HistoryChangedError
from flux.config import FluxConfig
from flux.exceptions import (
    InvalidConfigurationError,
    Problem,
    ScratchDatabaseError,
)
from flux.journal import Entry, read_entries, without_ended
from flux.late import LateRun, read_late
from flux.migration import AppliedMigration, Migration, Repeatable, Script
from flux.plan import DatabaseState, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from flux.contents import Column
    from flux.findings import Finding
    from flux.fingerprint import Fingerprint
    from flux.journal import Direction
    from flux.scratch import ScratchPlace
    from flux.statements import MetaCommand, Statement
    from flux.units import Unit, Way

#: The row beside the history that says that a batch is under way, or was cut off.
UNFINISHED = ("unfinished-batch", "post-apply")
_LAST_RUN = "last-run:"


class _NoMemoryError(Exception):
    """The table beside the history cannot be read, which is as if it were not there."""


class MigrationBackend(Mechanics, ABC):
    """One database, reached over one DB-API connection.

    The abstract names are all that a backend must write. `name` is that of its entry point,
    `dialect` says how its SQL is split into statements, `directives` which directives it
    honours, `driver_error` is the root of its driver's exceptions, and `transactional_ddl`
    says whether a rollback also takes back CREATE TABLE and its like.
    """

    name: ClassVar[str] = ""
    directives: ClassVar[frozenset[str]] = frozenset({"no_transaction", "on_change"})
    #: Whether `cancel` works, and the connection can be used in another thread than its own.
    cancellable: ClassVar[bool] = False
    transactional_ddl: ClassVar[bool] = True
    #: Lines for `[backend]` in the file that `flux init` writes.
    config_example: ClassVar[str] = "# settings of this backend"
    #: An address for `database_url` in that file.
    url_example: ClassVar[str] = ""

    #: Where the table beside the history is, quoted as SQL wants it.
    state_table: str = "_flux_migrations_state"

    # What a backend must write ---------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> MigrationBackend:
        """A backend for an address; opens nothing.

        Checks `config.backend_config` with `flux.config.check_keys`, and takes `lock_wait`
        from `config.lock_wait`.
        """

    @abstractmethod
    def connection(self) -> AbstractContextManager[Any]:
        """Open the database, give the DB-API connection, and close it at the end.

        The connection is in autocommit mode: flux says where a transaction begins and ends,
        and a connection that has only read must not keep an old view of the history.
        """

    @abstractmethod
    def migration_lock(self) -> AbstractContextManager[None]:
        """Keep every other flux out of this database; must die with this process.

        It outlasts the transactions inside it, and does not hold up those who only read.
        `wait_for_lock` does the waiting, and raises `MigrationLockError` when `lock_wait` is over.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """A transaction: committed at the end, rolled back when an exception passes."""

    @abstractmethod
    def is_initialized(self) -> bool:
        """Whether the history table is there. Read-only."""

    @abstractmethod
    def initialize(self) -> None:
        """Create the history table. Writes; called within `transaction()`."""

    @abstractmethod
    def register_migration(self, migration: Migration) -> None:
        """Write the migration's row: `migration.id`, `migration.hash`, the time now."""

    @abstractmethod
    def unregister_migration(self, migration: Migration) -> None:
        """Delete the migration's row."""

    @abstractmethod
    def apply_migration(self, content: str) -> None:
        """Run SQL text, of a migration, an undo or a repeatable, on the connection.

        `run_text` does it statement by statement.
        """

    @abstractmethod
    def get_applied_migrations(self) -> Iterable[AppliedMigration]:
        """The rows of the history, in any order. Read-only."""

    # What a backend may do better ------------------------------------------------------------

    @classmethod
    def require_driver(cls) -> None:
        """Raises `ImportError` where what the backend needs is not installed.

        For one whose module can be imported without it.
        """
        return

    @classmethod
    def for_connection(cls, config: FluxConfig, connection: Any) -> MigrationBackend:
        """A backend over a connection that the caller opened and will close.

        Raises `InvalidConfigurationError` where the backend cannot work that way.
        """
        raise InvalidConfigurationError(
            f"the backend {cls.name or cls.__name__!r} takes an address, not an open connection"
        )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the connection open, as `self.dbapi`; waits for a database that is starting."""

        def connect() -> Any:
            with self.reporting("cannot open the database"):
                return stack.enter_context(self.connection())

        try:
            with ExitStack() as stack:
                self.dbapi = self.wait_for_database(connect)
                yield
        finally:
            self.dbapi = None

    def examine(self) -> list[Finding]:
        """What of this database matters to migrations, and what to do about it, for `flux doctor`.

        Called while it is open. Read-only: takes no lock, and waits no longer than seconds.
        """
        return []

    def fingerprint(self) -> Fingerprint:
        """Everything in the catalog of this database, without flux's own tables. Read-only.

        Called while it is open. Raises `ScratchDatabaseError` where the backend has none.
        """
        raise ScratchDatabaseError(f"the backend {self.name!r} reads no fingerprints")

    def contents(self, without: Collection[Column] = ()) -> Fingerprint:
        """Which rows there are, by checksums, but flux's own and but some columns. Read-only.

        Called while it is open. Raises `ScratchDatabaseError` where the backend has none.
        """
        raise ScratchDatabaseError(f"the backend {self.name!r} makes no checksums of rows")

    def scratch_place(self) -> ScratchPlace:
        """Where scratch databases are made beside this database; connects when it is entered.

        Raises `ScratchDatabaseError` where the backend has none.
        """
        raise ScratchDatabaseError(f"the backend {self.name!r} makes no scratch databases")

    def check_reach(self, script: Script) -> list[Problem]:
        """What in a script reaches beyond the database that it runs in. Pure."""
        return []

    def check(self, script: Script) -> list[Problem]:
        """What in a script this database or flux cannot run. Opens nothing, runs nothing."""
        from flux.statements import SplitError, split

        problems = [
            Problem(
                "directive",
                (),
                f"the backend {self.name!r} has no directive {field.replace('_', '-')}",
                "remove it",
                script.location(),
            )
            for field in script.directives.given
            if field not in self.directives
        ]
        if script.text is None:
            return problems
        try:
            pieces = split(script.text, self.dialect)
        except SplitError as error:
            location = script.location(error.offset)
            return [*problems, Problem("syntax", (), error.problem, None, location)]
        problems += self.check_statements(script, pieces)
        return sorted(problems, key=lambda problem: problem.location or ())

    def check_statements(
        self, script: Script, pieces: Sequence[Statement | MetaCommand]
    ) -> list[Problem]:
        """What among a script's statements cannot run: here, transaction control. Pure."""
        from flux.statements import without_commands
        from flux.transactions import transaction_problems

        return transaction_problems(script, without_commands(pieces), self.dialect)

    def read_state(self) -> DatabaseState:
        """The history, and what flux remembers beside it. Read-only, takes no lock."""
        with self.reporting("cannot read the history"):
            if not self.is_initialized():
                return DatabaseState()
            history, remembered = self.get_applied_migrations(), self.read_memory()
            if read_entries(remembered.items()):
                # Once more: another process may have gone on between the two.
                history = self.get_applied_migrations()
            return self.make_state(history, remembered)

    def make_state(
        self, history: Iterable[AppliedMigration], remembered: Mapping[str, str]
    ) -> DatabaseState:
        """The state that the rows of the two tables say; the history was read behind a journal."""
        rows = tuple(sorted(history, key=lambda row: row.id))
        entries = read_entries(remembered.items()) if remembered else ()
        return DatabaseState(
            history=rows,
            unfinished=UNFINISHED[0] in remembered,
            journal=without_ended(entries, {row.id for row in rows}) if entries else (),
            last_runs={
                name.removeprefix(_LAST_RUN): value
                for name, value in remembered.items()
                if name.startswith(_LAST_RUN)
            },
            late=read_late(remembered.items()),
        )

    def is_recorded(self, id: str) -> bool:
        """Whether the history holds this id now. Read-only."""
        return any(row.id == id for row in self.get_applied_migrations())

    def run_migration(self, migration: Migration) -> None:
        """Apply one migration and write its row, in one transaction unless it asks for none.

        Raises `HistoryChangedError` when its row is already there, `StatementError` or what
        the driver or the migration raises when it fails.
        """
        if migration.script.directives.no_transaction:

            def guard() -> None:
                if self.is_recorded(migration.id):
                    raise HistoryChangedError

            record = partial(self.register_migration, migration)
            self.run_journaled(migration.script, "apply", migration.id, guard, record)
            return
        script = migration.script
        with self.watcher.watching(script), self.migration_transaction(script):
            if self.is_recorded(migration.id):
                raise HistoryChangedError
            self.execute(script)
            self.register_migration(migration)

    def undo_migration(self, migration: Migration, undo: Script) -> None:
        """Undo one migration and delete its row, as `run_migration` applies it."""
        if undo.directives.no_transaction:

            def guard() -> None:
                if not self.is_recorded(migration.id):
                    raise HistoryChangedError

            record = partial(self.unregister_migration, migration)
            self.run_journaled(undo, "undo", migration.id, guard, record)
            return
        with self.watcher.watching(undo), self.migration_transaction(undo):
            if not self.is_recorded(migration.id):
                raise HistoryChangedError
            self.execute(undo)
            self.unregister_migration(migration)

    def run_repeatable(self, repeatable: Repeatable) -> None:
        """Run one repeatable, and remember its hash when it runs on change only."""
        script = repeatable.script
        if script.directives.no_transaction:
            record = partial(self.remember_run, repeatable)
            self.run_journaled(script, "run", repeatable.name, lambda: None, record)
            return
        with self.watcher.watching(script), self.migration_transaction(script):
            self.execute(script)
            self.remember_run(repeatable)

    def run_step(self, step: Step) -> None:
        """Carry out one step of a plan: apply or undo a migration, or run a repeatable."""
        if isinstance(step.subject, Repeatable):
            self.run_repeatable(step.subject)
        elif step.action == "apply":
            self.run_migration(step.subject)
        else:
            self.undo_migration(step.subject, step.script)

    def count_bundle(self, steps: Sequence[Step]) -> int:
        """How many of the next steps may go together, at least one. Opens nothing."""
        return 1

    def run_bundle(self, steps: Sequence[Step], note: Callable[[float], None]) -> None:
        """Carry out steps that may go together, one after the other, each as a whole.

        There are no more than `count_bundle` said; it may end after some of them, at least one.
        `note` is called with the seconds that a step took for each that is done, in order, also
        where a later one fails. Raises what `run_step` raises of the first one that is not done.
        """
        for step in steps:
            started = time.perf_counter()
            self.run_step(step)
            note(time.perf_counter() - started)

    def migration_transaction(self, script: Script) -> AbstractContextManager[None]:
        """The transaction that one script runs in."""
        return self.transaction()

    def execute(self, script: Script) -> None:
        """Run a script's text, or its function with the connection."""
        if script.function is not None:
            script.function(self.dbapi)
        elif script.text is not None:
            self.apply_migration(script.text)

    def cancel(self) -> None:
        """Ask for the running statement to end with an error. Called from another thread."""
        return

    def outcome_is_unknown(self) -> bool:
        """Whether the connection broke, so that a commit may or may not have arrived."""
        return False

    def look_again(self) -> DatabaseState | None:
        """The state, read anew after the connection broke; called in place of all that was left.

        Waits until nothing of the broken connection runs any more, and frees the migration lock
        first. None where it cannot be told, within a minute. Read-only.
        """
        return None

    def prepare(self, *, history: bool, memory: bool, unfinished: bool) -> None:
        """Create the tables a batch needs, and note that a batch is under way. Writes."""
        with self.reporting("cannot prepare the history"), self.transaction():
            if history:
                self.initialize()
            if memory:
                self.initialize_memory()
            if unfinished:
                self.remember(*UNFINISHED)

    def mark_finished(self) -> None:
        """Note that no batch is under way any more. Writes."""
        with self.reporting("cannot note the end of the batch"), self.transaction():
            self.forget(UNFINISHED[0])

    def note_late(self, runs: Sequence[LateRun], stale: Sequence[LateRun]) -> None:
        """Note which migrations are about to run late, and forget what is no longer so. Writes."""
        with self.reporting("cannot note which migrations are late"), self.transaction():
            for run in stale:
                self.forget(run.name)
            for run in runs:
                self.remember(run.name, run.value)

    def forget_runs(self) -> None:
        """Forget the last runs of on-change repeatables, so that all are due again. Writes.

        A rollback may take away what they have made.
        """
        with self.reporting("cannot prepare the rollback"), self.transaction():
            self.run_sql(
                f"DELETE FROM {self.state_table} WHERE name LIKE {self.literal(_LAST_RUN + '%')}"
            )

    # Without a transaction -------------------------------------------------------------------

    def run_journaled(
        self,
        script: Script,
        direction: Direction,
        id: str,
        guard: Callable[[], None],
        record: Callable[[], None],
    ) -> None:
        """Run a script without a transaction, unit by unit, and keep the journal of it.

        `guard` raises where it must not run; `record` is called in the transaction of its end.
        """
        from flux.backends.journaled import JournaledRun

        run = JournaledRun(self, script, direction, id, guard=guard, record=record)
        with self.watcher.watching(script):
            self.watcher.expect(run.statements)
            run.run()

    def units(self, script: Script) -> list[Unit]:
        """The units of a script without a transaction. Pure."""
        from flux.units import unit_of_function, units_of_text

        if script.text is None:
            return [unit_of_function(script)]
        return units_of_text(self.statements(script), self.dialect, self.way_of)

    def statements(self, script: Script) -> list[Statement]:
        """The statements of a script's text, in order. Pure."""
        from flux.statements import split, without_commands

        return without_commands(split(script.text or "", self.dialect))

    def way_of(self, statement: Statement) -> Way:
        """How a statement of such a script runs: `together` with its row of the journal in a
        transaction, `alone` in none, or as a setting for the `session`. Pure.
        """
        return "together" if self.transactional_ddl else "alone"

    def is_repeatable(self, sql: str) -> bool:
        """Whether a statement may run once more, whether or not it took effect. Pure."""
        return False

    def is_undone_by_error(self, sql: str) -> bool:
        """Whether a statement that the database says has failed has no effect at all. Pure."""
        return True

    def is_in_doubt(self, entry: Entry) -> bool:
        """Whether only the user can find out if the unit of that row took effect. Pure."""
        return entry.state == "reached" and not self.is_repeatable(entry.sql)

    def run_statement(self, statement: Statement) -> None:
        """Run one statement of such a script."""
        self.run_sql(statement.text)

    def end_settings(self) -> None:
        """End those settings of a script that would keep flux from writing its own rows."""
        return

    def read_journal(self) -> tuple[Entry, ...]:
        """The rows of the journal. Read-only."""
        return read_entries(self.read_memory().items())

    def wait_for_predecessor(self, entries: Sequence[Entry]) -> None:
        """Wait until nothing of the units that an earlier run reached runs on the server."""
        return

    def settle_doubt(self, entry: Entry) -> None:
        """Write a row of the journal whose unit was in doubt, as the user has decided. Writes."""
        with self.reporting("cannot write the journal"), self.transaction():
            self.remember(entry.name, entry.value)

    def forget_rows(self, entries: Sequence[Entry]) -> None:
        """Delete rows of the journal. Writes."""
        with self.reporting("cannot write the journal"), self.transaction():
            for entry in entries:
                self.forget(entry.name)

    # What flux remembers beside the history --------------------------------------------------

    def read_memory(self) -> dict[str, str]:
        """The rows of the table beside the history; empty where it is not there. Read-only."""
        try:
            # Some databases take nothing more in a transaction in which a query has failed.
            with self.transaction():
                try:
                    return dict(self.fetch(f"SELECT name, value FROM {self.state_table}"))
                except self.driver_error as error:
                    raise _NoMemoryError from error
        except _NoMemoryError:
            return {}

    def remember(self, name: str, value: str) -> None:
        """Write one row beside the history. Called within a transaction."""
        self.forget(name)
        self.run_sql(
            f"INSERT INTO {self.state_table} (name, value) "
            f"VALUES ({self.literal(name)}, {self.literal(value)})"
        )

    def forget(self, name: str) -> None:
        """Delete one row beside the history. Called within a transaction."""
        self.run_sql(f"DELETE FROM {self.state_table} WHERE name = {self.literal(name)}")

    def initialize_memory(self) -> None:
        """Create the table beside the history, where a project needs one and it is not there."""
        self.run_sql(self.create_memory_sql())

    def create_memory_sql(self) -> str:
        """The statement that creates the table beside the history, where it is not there."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.state_table} "
            "(name varchar(500) NOT NULL PRIMARY KEY, value text NOT NULL)"
        )

    def remember_run(self, repeatable: Repeatable) -> None:
        """Note the hash of an on-change repeatable that ran, in its own transaction."""
        if repeatable.script.directives.on_change:
            self.remember(*self.last_run_row(repeatable))

    def last_run_row(self, repeatable: Repeatable) -> tuple[str, str]:
        """The row that notes the last run of an on-change repeatable: its name, its value."""
        return _LAST_RUN + repeatable.name, repeatable.script.hash
