"""The DB-API mechanics that every backend shares: running SQL, reading rows, waiting in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from flux.backends.signals import ErrorReport, StatementError
from flux.exceptions import DatabaseUnavailableError, FluxMigrationException, MigrationLockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from flux.backends.patience import Patience
    from flux.backends.watch import Watcher
    from flux.progress import Progress
    from flux.statements import Dialect, Statement


class Mechanics:
    """One DB-API connection, and what is done on it. `docs/backends.md` lists the names."""

    dialect: ClassVar[Dialect] = "generic"
    driver_error: type[Exception] = Exception

    #: The open connection, while `opened()` is active.
    dbapi: Any = None
    #: How long to wait for the migration lock, in seconds; from the configuration.
    lock_wait: float = 300
    #: How long to wait for a database that is still starting, in seconds; the runner sets it.
    connect_wait: float = 0
    #: Tells the user of a wait; the runner puts its own function here.
    announce: Callable[[str], None] = staticmethod(lambda message: None)
    #: Tells the user of a script that takes long, from another thread; the runner puts its own
    #: function here.
    report: Callable[[Progress], None] = staticmethod(lambda progress: None)

    #: What a backend may call while it waits for its database to connect; it does not raise.
    while_connecting: Callable[[], None] | None = None

    @cached_property
    def watcher(self) -> Watcher:
        """Reports on the script that runs. This one knows the clock alone, and opens nothing."""
        from flux.backends.watch import Watcher

        return Watcher(self.report)

    def describe_error(self, error: BaseException) -> ErrorReport:
        """A driver's exception in words, for the user."""
        return ErrorReport(str(error).strip() or type(error).__name__)

    def cursor(self) -> Any:
        """A cursor that gives plain tuples."""
        return self.dbapi.cursor()

    def literal(self, text: str) -> str:
        """A text as an SQL literal; to be replaced where a backslash is not just a letter."""
        return quote_literal(text)

    def run_sql(self, sql: str) -> None:
        """Execute one statement on a cursor of its own."""
        cursor = self.cursor()
        try:
            cursor.execute(sql)
        finally:
            cursor.close()

    def fetch(self, sql: str) -> list[Any]:
        """The rows that one query gives."""
        cursor = self.cursor()
        try:
            cursor.execute(sql)
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def run_text(self, content: str) -> None:
        """Run SQL text statement by statement, as `dialect` splits it. For `apply_migration`.

        Raises `StatementError`, which says which statement failed.
        """
        from flux.statements import split, without_commands

        self.run_statements(
            without_commands(split(content, self.dialect)),
            lambda statement: self.run_sql(statement.text),
        )

    def run_statements(
        self, statements: Sequence[Statement], execute: Callable[[Statement], None]
    ) -> None:
        """Execute statement by statement.

        Raises `StatementError`, which says which of them failed.
        """
        self.watcher.expect(statements)
        for number, statement in enumerate(statements, 1):
            self.watcher.reach(number)
            try:
                execute(statement)
            except self.driver_error as error:
                raise StatementError(
                    offset=statement.start, exact=False, number=number, total=len(statements)
                ) from error

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn what the driver raises into a `DatabaseUnavailableError` that says `what`."""
        try:
            yield
        except FluxMigrationException:
            raise
        except self.driver_error as error:
            raise unavailable(error, self.describe_error(error), what) from error

    def wait_for_lock(
        self, try_to_acquire: Callable[[], bool], describe_holder: Callable[[], str | None]
    ) -> None:
        """Poll until the lock is ours, with jitter, saying once whom we wait for.

        Never blocks inside the server: a waiter there holds a snapshot, which CREATE INDEX
        CONCURRENTLY waits for (golang-migrate#960).

        Raises `MigrationLockError` after `lock_wait` seconds.
        """
        if try_to_acquire():
            return
        from flux.backends.patience import Patience

        patience = Patience(self.lock_wait)
        while True:
            if patience.is_over or patience.is_due:
                holder = describe_holder()
                who = holder or "another process"
                if patience.is_over:
                    raise MigrationLockError(
                        f"{who} is running migrations on this database, "
                        f"and still was after {patience.waited:.0f} s",
                        holder=holder,
                        hint="wait for it to end, or wait longer: --lock-wait SECONDS, "
                        "or lock_wait in the configuration",
                    )
                self.announce(
                    f"waiting for {who}, which is running migrations on this database"
                    if patience.is_new
                    else f"still waiting for {who}, for {patience.waited:.0f} s now"
                )
                patience.note_word()
            patience.pause()
            if try_to_acquire():
                return

    def wait_for_database(self, connect: Callable[[], Any]) -> Any:
        """What `connect` gives, tried again for `connect_wait` seconds while it may be starting.

        A wrong password and a database that does not exist are not waited for.

        Raises the `DatabaseUnavailableError` of the last try.
        """
        started = time.monotonic()
        patience: Patience | None = None
        while True:
            try:
                return connect()
            except DatabaseUnavailableError as error:
                from flux.backends.patience import Patience, may_be_starting

                patience = patience or Patience(self.connect_wait, started=started)
                if not may_be_starting(error.message):
                    raise
                if patience.is_over:
                    error.add_hint(_wait_hint(patience))
                    raise
                reason = " ".join(error.message.split())
            if patience.is_due:
                self.announce(
                    f"waiting for the database, up to {patience.limit:g} s: {reason}"
                    if patience.is_new
                    else f"still waiting for the database, for {patience.waited:.0f} s: {reason}"
                )
                patience.note_word()
            patience.pause()


def _wait_hint(patience: Patience) -> str:
    how = "--wait SECONDS, or connect_wait in the configuration"
    if patience.limit == 0:
        return f"a database that is still starting is waited for with {how}"
    return f"it was waited for, for {patience.waited:.0f} s; to wait longer: {how}"


def quote_literal(text: str) -> str:
    """A text as an SQL string literal, for ids and hashes in flux's own statements."""
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    """A name as an SQL identifier, as the standard has it."""
    return '"' + name.replace('"', '""') + '"'


def unavailable(error: BaseException, report: ErrorReport, what: str) -> DatabaseUnavailableError:
    """The error for a database that cannot be used, from what it says of itself."""
    detail = f" ({report.detail})" if report.detail else ""
    return DatabaseUnavailableError(f"{what}: {report.message}{detail}", hint=report.hint)
