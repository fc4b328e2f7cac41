"""SQLite, by the standard library: what differs from the other backends.

Each migration runs in a `BEGIN IMMEDIATE`, or in a savepoint of one that it shares, together with
its history row. Foreign keys are off around it, as a table rebuild needs it (https://sqlite.org/lang_altertable.html,
section 7): with them on, dropping the old parent table would delete its children's rows.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import cached_property

from flux import address
from flux.backends.base import MigrationBackend
from flux.backends.dbapi import quote_identifier, quote_literal, unavailable
from flux.backends.signals import ErrorReport, TransactionEndedError
from flux.config import FluxConfig, check_keys
from flux.exceptions import ConnectionStateError, DatabaseUnavailableError, Problem
from flux.migration import AppliedMigration, Migration, Script
from flux.plan import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, TypeVar

    from flux.backends.sqlite_foreign_keys import ForeignKeys
    from flux.backends.sqlite_scratch import SQLiteScratchPlace
    from flux.contents import Column
    from flux.findings import Finding
    from flux.fingerprint import Fingerprint
    from flux.statements import Dialect, MetaCommand, Statement
    from flux.units import Way

    _Result = TypeVar("_Result")

DEFAULT_TABLE = "_flux_migrations"
DEFAULT_BUSY_TIMEOUT = 30.0
MEMORY = ":memory:"
#: Seconds of silence before a wait for a busy database is announced.
_SILENT_WAIT = 1.0
#: Settings of the session that a migration may change, and that outlive its transaction.
_SESSION_PRAGMAS = (
    "foreign_keys",
    "legacy_alter_table",
    "recursive_triggers",
    "ignore_check_constraints",
    "reverse_unordered_selects",
    "writable_schema",
    "trusted_schema",
    "query_only",
    "read_uncommitted",
    "automatic_index",
    "secure_delete",
    "synchronous",
    "locking_mode",
    "temp_store",
    "cache_size",
    "busy_timeout",
)

#: How statements run that cannot run in a transaction, by their first word.
_WAYS: dict[str, Way] = {
    "VACUUM": "alone",
    "PRAGMA": "session",
    "ATTACH": "session",
    "DETACH": "session",
}


class SQLiteBackend(MigrationBackend):
    """A SQLite database: a file, `:memory:`, or a connection that was handed in."""

    name: ClassVar[str] = "sqlite"
    dialect: ClassVar[Dialect] = "sqlite"
    directives: ClassVar[frozenset[str]] = frozenset(
        {"no_transaction", "on_change", "foreign_keys"}
    )
    driver_error: type[Exception] = sqlite3.Error
    cancellable: ClassVar[bool] = True
    config_example: ClassVar[str] = f"""\
# migrations_table = "{DEFAULT_TABLE}"
# busy_timeout = {DEFAULT_BUSY_TIMEOUT:g}   # seconds to wait while another connection writes"""
    url_example: ClassVar[str] = "sqlite:///app.db"

    def __init__(
        self,
        path: str,
        *,
        table: str = DEFAULT_TABLE,
        busy_timeout: float = DEFAULT_BUSY_TIMEOUT,
        lock_wait: float = 300,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """`path` of a file or `:memory:`; `busy_timeout` and `lock_wait` in seconds."""
        self.path = path
        self.table = quote_identifier(table)
        self.state_table = quote_identifier(table + "_state")
        self.busy_timeout = busy_timeout
        self.lock_wait = lock_wait
        self._handed_in = connection
        #: Whether the transaction that is open is that of several scripts, in a savepoint each.
        self.is_shared = False
        #: An empty database in memory is read in place of a file that is not there.
        self._stands_in = False

    @cached_property
    def foreign_keys(self) -> ForeignKeys:
        """Which rows refer to nothing, before the batch and now."""
        from flux.backends.sqlite_foreign_keys import ForeignKeys

        return ForeignKeys(self.fetch, flux_s_own=self._handed_in is None)

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> SQLiteBackend:
        """For the address of a file; a path beside it holds the lock."""
        return cls(address.sqlite_path(connection_uri), **_settings(config))

    @classmethod
    def for_connection(cls, config: FluxConfig, connection: Any) -> SQLiteBackend:
        """For an open `sqlite3.Connection`, which is left as it was found.

        Raises `ConnectionStateError` where it is closed or inside a transaction, or has
        `autocommit=False`, with which it always is.
        """
        try:
            if getattr(connection, "autocommit", None) is False:
                raise ConnectionStateError(
                    "this sqlite3 connection has autocommit=False, with which it is always inside "
                    "a transaction",
                    hint="hand in one with autocommit=True or with sqlite3's default",
                )
            if connection.in_transaction:
                raise ConnectionStateError(
                    "this connection is inside a transaction, which a migration would commit",
                    hint="commit or roll back before handing it to flux",
                )
            with _borrowed(connection), closing(connection.cursor()) as cursor:
                # Row 0 is `main`; its file is empty for a database in memory.
                path = cursor.execute("PRAGMA database_list").fetchall()[0][2]
        except sqlite3.Error as error:  # it is closed, or another thread's
            raise ConnectionStateError(f"this connection cannot be used: {error}") from error
        return cls(path or MEMORY, connection=connection, **_settings(config))

    # The connection --------------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection. A file that does not exist is only created by `migration_lock`."""
        if self._handed_in is not None:
            with _borrowed(self._handed_in) as connection:
                yield connection
            return
        try:
            self._stands_in = self.path != MEMORY and not os.path.exists(self.path)
            if self._stands_in and not os.path.isdir(os.path.dirname(os.path.abspath(self.path))):
                # Not a database that is still to come, but an address that is wrong.
                raise self._cannot_open(sqlite3.OperationalError("unable to open database file"))
            is_file = self.path != MEMORY and not self._stands_in
            self.dbapi = self._open("rw" if is_file else "memory")
            yield self.dbapi
        finally:
            if self.dbapi is not None:
                self.dbapi.close()

    def _open(self, mode: str) -> sqlite3.Connection:
        path = MEMORY if self.path == MEMORY else os.path.abspath(self.path)
        for special in "%?#":
            path = path.replace(special, f"%{ord(special):X}")
        # What follows two slashes would be a host.
        target = "file:" + path.replace("//", "/", 1) + f"?mode={mode}"
        try:
            connection = sqlite3.connect(
                target,
                uri=True,
                isolation_level=None,
                timeout=min(_SILENT_WAIT, self.busy_timeout),
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._cannot_open(error) from error
        return connection

    def _cannot_open(self, error: sqlite3.Error) -> DatabaseUnavailableError:
        folder = os.path.dirname(os.path.abspath(self.path))
        hint = None
        if not os.path.isdir(folder):
            hint = f"there is no directory {folder}"
        elif os.path.isdir(self.path):
            hint = "this is a directory"
        elif not os.access(folder, os.W_OK):
            hint = f"the directory {folder} cannot be written"
        return DatabaseUnavailableError(
            f"cannot open {address.redact(self.path)}: {error}",
            hint=hint and address.redact(hint),
        )

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Hold the lock for a batch; first creates the database file where there is none."""
        self.foreign_keys.forget()
        if self.path == MEMORY:
            yield
            return
        from flux.backends.sqlite_lock import SideDatabaseLock

        if self._stands_in:
            # Whether or not the file is there by now: somebody else may have been faster.
            replaced, self.dbapi = self.dbapi, self._open("rwc")
            self._stands_in = False
            replaced.close()
        with closing(SideDatabaseLock(self.path)) as lock:
            self.wait_for_lock(lock.try_to_acquire, lock.describe_holder)
            yield

    # Transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction that may write; waits for a busy database, and says so."""
        try:
            self.run_sql("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A `BEGIN IMMEDIATE`; waits for a busy database, and says so after a second."""
        self.begin()
        try:
            yield
            # With readers on a rollback journal, COMMIT too finds the database busy.
            self.run_sql("COMMIT")
        except BaseException:
            if self.dbapi.in_transaction:
                self.run_sql("ROLLBACK")
            raise

    @contextmanager
    def migration_transaction(self, script: Script) -> Iterator[None]:
        """A transaction with foreign keys off outside it, checked before it commits.

        A script that shares one is checked at its end, and does not end it.
        """
        with nullcontext() if self.is_shared else self._own_transaction(script):
            if self.is_shared and _mentions_references(script):
                self.foreign_keys.expect_new()
            self.foreign_keys.note()
            yield
            self.foreign_keys.check()

    @contextmanager
    def _own_transaction(self, script: Script) -> Iterator[None]:
        with self.session_for(script), self.transaction():
            yield

    def count_bundle(self, steps: Sequence[Step]) -> int:
        """How many of the next steps may share a transaction, at least one. Opens nothing."""
        if self._handed_in is not None or self.path == MEMORY:
            return 1
        from flux.backends.sqlite_bundle import count_together

        return count_together(steps)

    def run_bundle(self, steps: Sequence[Step], note: Callable[[float], None]) -> None:
        """Carry out the first of some steps in one transaction, each in a savepoint."""
        if len(steps) == 1:
            super().run_bundle(steps, note)
        else:
            from flux.backends.sqlite_bundle import BundleRun

            BundleRun(self, steps, note).run()

    @contextmanager
    def session_for(self, script: Script) -> Iterator[None]:
        """The settings that a script runs with; what it changes of them ends with it."""
        touches_settings = _touches_settings(script)
        if touches_settings or _mentions_references(script):
            self.foreign_keys.expect_new()
        names = _SESSION_PRAGMAS if touches_settings else ("foreign_keys",)
        before = {name: self.fetch(f"PRAGMA {name}") for name in names}
        wanted = int(script.directives.foreign_keys)
        is_other = before["foreign_keys"] != [(wanted,)]
        if is_other:  # to set it, also to what it is, has SQLite compile its statements anew
            self.run_sql(f"PRAGMA foreign_keys = {wanted}")
        try:
            with _kept(self.dbapi, *["isolation_level"] if script.function else []):
                yield
        finally:
            for name, rows in before.items():
                # What the script cannot have touched is as it was set above.
                if self.fetch(f"PRAGMA {name}") != rows if touches_settings else is_other:
                    self.run_sql(f"PRAGMA {name} = {rows[0][0]}")

    def run_sql(self, sql: str) -> None:
        """Execute one statement of flux's own; waits while the database is busy."""
        self._patiently(super().run_sql, sql)

    def fetch(self, sql: str) -> list[Any]:
        """The rows that one query of flux's own gives; waits while the database is busy."""
        return self._patiently(super().fetch, sql)

    def _patiently(self, act: Callable[[str], _Result], sql: str) -> _Result:
        """Do it again while the database is busy, for `busy_timeout` seconds in all."""
        started = time.monotonic()
        announced = False
        while True:
            try:
                return act(sql)
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                if time.monotonic() >= started + self.busy_timeout:
                    from flux.backends.sqlite_lock import BusyError

                    raise BusyError(
                        "the database is busy: another connection kept it locked for "
                        f"{self.busy_timeout:g} s"
                    ) from error
            if not announced:
                self.announce(f"{self.path} is busy; waiting for up to {self.busy_timeout:g} s")
                announced = True
            time.sleep(0.02)  # a connection that was handed in may have no timeout of its own

    def _unavailable(self, error: sqlite3.Error) -> DatabaseUnavailableError:
        return unavailable(error, self.describe_error(error), f"cannot use {self.path}")

    # The history -----------------------------------------------------------------------------

    def is_initialized(self) -> bool:
        """Whether the history table is there. Read-only."""
        return self._has_table(self.table)

    def initialize(self) -> None:
        """Create the history table."""
        self.run_sql(
            f"CREATE TABLE IF NOT EXISTS {self.table} ("
            "id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL, applied_at TEXT NOT NULL)"
        )

    def register_migration(self, migration: Migration) -> None:
        """Write the migration's row, with the time in UTC to the millisecond."""
        self.run_sql(
            f"INSERT INTO {self.table} (id, hash, applied_at) VALUES "
            f"({quote_literal(migration.id)}, {quote_literal(migration.hash)}, "
            "strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'))"
        )

    def unregister_migration(self, migration: Migration) -> None:
        """Delete the migration's row."""
        self.run_sql(f"DELETE FROM {self.table} WHERE id = {quote_literal(migration.id)}")

    def get_applied_migrations(self) -> list[AppliedMigration]:
        """The rows of the history by id. Read-only."""
        from datetime import datetime

        return [
            AppliedMigration._make((id, hash, datetime.fromisoformat(applied_at)))
            for id, hash, applied_at in self.fetch(
                f"SELECT id, hash, applied_at FROM {self.table} ORDER BY id"
            )
        ]

    def is_recorded(self, id: str) -> bool:
        """Whether the history holds this id now. Read-only."""
        return bool(self.fetch(f"SELECT 1 FROM {self.table} WHERE id = {quote_literal(id)}"))

    def read_memory(self) -> dict[str, str]:
        """The rows of the table beside the history. Read-only."""
        if not self._has_table(self.state_table):
            return {}
        return dict(self.fetch(f"SELECT name, value FROM {self.state_table}"))

    def _has_table(self, quoted: str) -> bool:
        # The pragma gives no row for a table that is not there, and takes the name as it is.
        return bool(self.fetch(f"PRAGMA table_info({quoted})"))

    # Statements ------------------------------------------------------------------------------

    def check_statements(
        self, script: Script, pieces: Sequence[Statement | MetaCommand]
    ) -> list[Problem]:
        """Refuse transaction control in a file that runs inside flux's own transaction."""
        from flux.statements import without_commands
        from flux.transactions import transaction_problems, unwrap

        statements = without_commands(pieces)
        if not script.directives.no_transaction:
            statements = unwrap(statements, "sqlite").statements
        return transaction_problems(script, statements, "sqlite")

    def apply_migration(self, content: str) -> None:
        """Run SQL text statement by statement: `executescript` would commit first."""
        from flux.statements import split, without_commands
        from flux.transactions import unwrap

        statements = without_commands(split(content, "sqlite"))
        if self.dbapi.in_transaction:
            statements = unwrap(statements, "sqlite").statements
        self.run_statements(statements, self._execute)

    def run_journaled(self, script: Script, *rest: Any) -> None:
        """Run a script without a transaction; its settings end with it."""
        with self.session_for(script), _kept(self.dbapi, "text_factory", "row_factory"):
            super().run_journaled(script, *rest)

    def way_of(self, statement: Statement) -> Way:
        """VACUUM runs alone, and PRAGMAs and attached databases are the session's. Pure."""
        from flux.statements import leading_words

        first, *_ = (*leading_words(statement.text, "sqlite"), "")
        return _WAYS.get(first, "together")

    def is_repeatable(self, sql: str) -> bool:
        """Whether a statement may run once more, as VACUUM may. Pure."""
        from flux.statements import words

        return tuple(words(sql, "sqlite")) in (("VACUUM",), ("VACUUM", "MAIN"))

    def end_settings(self) -> None:
        """Let flux write again, where the script's last settings forbid it."""
        self.run_sql("PRAGMA query_only = OFF")

    def run_statement(self, statement: Statement) -> None:
        """Run one statement of a script without a transaction."""
        self._execute(statement)

    def execute(self, script: Script) -> None:
        """Run a script, and see that the transaction it found, or none, is open at its end."""
        run = self._execute_inside if self.dbapi.in_transaction else self._execute_outside
        if script.function is None:  # SQL does not reach what the connection is set to in Python
            run(script)
            return
        with _kept(self.dbapi, "text_factory", "row_factory"):
            run(script)

    def _execute_inside(self, script: Script) -> None:
        # Commit or rollback by the script itself takes the savepoint away.
        if script.text is not None:
            from flux.transactions import mentions_control

            may_end = mentions_control(script.text)
            if may_end:
                self.run_sql("SAVEPOINT flux_migration")
            super().execute(script)
            if may_end and not self._is_released():
                raise TransactionEndedError
            return
        # A rollback, SQLite's own included, takes the table away; a commit leaves it.
        self.run_sql("CREATE TEMP TABLE flux_mark (a)")
        self.run_sql("SAVEPOINT flux_migration")
        try:
            super().execute(script)
        except Exception as error:
            if not self._is_released() and self._drop_mark():
                raise TransactionEndedError(error) from error
            raise
        if not self._is_released():
            self._drop_mark()
            raise TransactionEndedError
        self.run_sql("DROP TABLE temp.flux_mark")

    def _is_released(self) -> bool:
        """Release the savepoint of flux's transaction; False where that was ended."""
        try:
            self.run_sql("RELEASE flux_migration")
        except sqlite3.OperationalError:
            return False
        return True

    def _drop_mark(self) -> bool:
        """Drop the table that marks flux's transaction; whether it was there."""
        if self.dbapi.in_transaction:  # the script's own
            self.run_sql("ROLLBACK")
        was_there = bool(self.fetch("PRAGMA temp.table_info(flux_mark)"))
        if was_there:
            self.run_sql("DROP TABLE temp.flux_mark")
        return was_there

    def _execute_outside(self, script: Script) -> None:
        try:
            super().execute(script)
            if self.dbapi.in_transaction:
                raise TransactionEndedError
        finally:
            if self.dbapi.in_transaction:
                self.run_sql("ROLLBACK")

    def _execute(self, statement: Statement) -> None:
        if self.dbapi.in_transaction:
            self._run(statement.text)
        else:
            self._patiently(self._run, statement.text)

    def _run(self, sql: str) -> None:
        cursor = self.dbapi.cursor()
        try:
            cursor.execute(sql)
            # A statement that gives rows has only run as far as its rows were taken.
            deque(cursor, maxlen=0)
        finally:
            cursor.close()

    def cancel(self) -> None:
        """End the running statement with an error. Called from another thread."""
        self.dbapi.interrupt()

    def examine(self) -> list[Finding]:
        """The library, the file and what lies beside it. Read-only."""
        from flux.backends.sqlite_examination import examine

        return examine(self.path, self.fetch)

    def fingerprint(self) -> Fingerprint:
        """Everything in the schema table but flux's own tables. Read-only."""
        from flux.backends import sqlite_catalog

        with self.reporting("cannot read the schema"):
            return sqlite_catalog.read(self.fetch, (self.table, self.state_table))

    def contents(self, without: Collection[Column] = ()) -> Fingerprint:
        """Which rows there are, by checksums, but flux's own and but some columns. Read-only."""
        from flux.backends import sqlite_contents

        with self.reporting("cannot read the rows"):
            return sqlite_contents.read(self.fetch, (self.table, self.state_table), without)

    def scratch_place(self) -> SQLiteScratchPlace:
        """A directory of this user's own, below the system's for temporary files."""
        from flux.backends.sqlite_scratch import SQLiteScratchPlace

        return SQLiteScratchPlace(wait=self.lock_wait)

    def check_reach(self, script: Script) -> list[Problem]:
        """The statements that open or write another file. Pure."""
        from flux.backends.sqlite_reach import find_reaching

        return find_reaching(script)

    def describe_error(self, error: BaseException) -> ErrorReport:
        """sqlite3's message, with a way out of what SQLite refuses inside a transaction."""
        from flux.backends.sqlite_lock import BusyError

        message = str(error)
        hint = None
        if re.search(r"(within|inside|from within) (a )?transaction", message):
            hint = "run the whole file without a transaction: -- flux: no-transaction"
        elif isinstance(error, BusyError):
            hint = "end the other transaction, or wait longer: busy_timeout (seconds) in [backend]"
        elif "readonly" in message:
            hint = self._rights_hint()
        elif "not a database" in message:
            hint = f"{self.path} is another kind of file"
        return ErrorReport(message, None, hint)

    def _rights_hint(self) -> str:
        if os.access(self.path, os.W_OK):
            # The log has the rights that the file had when it was made.
            sides = [self.path + ending for ending in ("-wal", "-shm", "-journal")]
            closed = [
                side for side in sides if os.path.exists(side) and not os.access(side, os.W_OK)
            ]
            if closed:
                return f"this user may not write {', '.join(closed)}"
        return f"{self.path} or its directory cannot be written by this user"


def _settings(config: FluxConfig) -> dict[str, Any]:
    settings = config.backend_config
    check_keys(settings, {"migrations_table": str, "busy_timeout": (int, float)}, config.path)
    return {
        "table": settings.get("migrations_table", DEFAULT_TABLE),
        "busy_timeout": settings.get("busy_timeout", DEFAULT_BUSY_TIMEOUT),
        "lock_wait": config.lock_wait,
    }


def _touches_settings(script: Script) -> bool:
    return script.text is None or re.search("(?i:pragma)", script.text) is not None


def _mentions_references(script: Script) -> bool:
    return re.search("(?i:references)", script.text or "") is not None


@contextmanager
def _borrowed(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A connection that was handed in, with plain rows and text, and no implicit BEGIN."""
    with _kept(connection, "text_factory", "row_factory", "isolation_level"):
        connection.text_factory, connection.row_factory = str, None
        connection.isolation_level = None
        yield connection


@contextmanager
def _kept(connection: sqlite3.Connection, *names: str) -> Iterator[None]:
    """Give attributes of a connection back the values they had, whatever happens."""
    before = {name: getattr(connection, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if getattr(connection, name) != value:
                setattr(connection, name, value)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # sqlite_errorcode came with Python 3.11.
    return "database is locked" in str(error) or "database table is locked" in str(error)
