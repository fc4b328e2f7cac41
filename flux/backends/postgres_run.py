"""Running one script on PostgreSQL, between its guard and its record.

A transactional one is one simple-query message: BEGIN, the fence, the guard, its text, the
check that the lock is still ours, its record, COMMIT. Where others hold what it needs, it lets
go and comes again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import extensions

from flux.backends.postgres_errors import meaning, statement_error
from flux.backends.postgres_lock import FENCE_LOST, LOCK_BUSY, LOCK_LOST, fail_unless
from flux.backends.postgres_message import Message, Notices, compose, marker
from flux.backends.postgres_watch import name_for, set_name
from flux.backends.signals import StatementError, TransactionEndedError
from flux.exceptions import DatabaseUnavailableError
from flux.migration import Script
from flux.progress import REPORT_AFTER
from flux.statements import MetaCommand, Statement, split
from flux.transactions import unwrap

if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend

#: Whatever the default is: other levels would see the history as it was before the fence.
READ_COMMITTED = "ISOLATION LEVEL READ COMMITTED"
BEGIN = f"BEGIN {READ_COMMITTED};\n"

#: SQLSTATEs after which a transaction is tried again: lock_not_available, deadlock_detected.
_COME_AGAIN = ("55P03", "40P01")
#: Deferred constraints are checked while a script's own settings and role are in force.
_CHECK_CONSTRAINTS = "SET CONSTRAINTS ALL IMMEDIATE;\n"
IDLE = extensions.TRANSACTION_STATUS_IDLE


class ScriptRun:
    """One script, `guard` (SQL that fails where it must not run) and `record` (SQL that notes it).

    Raises what `meaning` makes of an error, `StatementError`, `TransactionEndedError`, and what a
    Python function raises.
    """

    def __init__(self, backend: PostgresBackend, script: Script, guard: str, record: str) -> None:
        self.backend = backend
        self.script = script
        self.guard = guard
        self.record = record

    def run(self) -> None:
        """Run it; again, while others hold what it needs.

        An ALTER TABLE that waits for its lock holds up every query behind it. So it waits for a
        short time only, lets go, and comes again.
        """
        backend = self.backend
        retries = 0 if self.script.directives.no_transaction else backend.lock_retries
        for attempt in range(retries + 1):
            try:
                return self._run_once()
            except (psycopg2.Error, StatementError) as error:
                cause = error.__cause__ if isinstance(error, StatementError) else error
                is_last = attempt == retries or backend.dbapi.closed
                if is_last or getattr(cause, "pgcode", None) not in _COME_AGAIN:
                    raise
                self._pause(attempt)

    def _pause(self, attempt: int) -> None:
        pause = min(0.5 * 2**attempt, 30.0) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        blockers = "; ".join(map(str, self.backend.watcher.seen.blockers))
        self.backend.announce(
            f"{self.script.path} did not get a lock in time"
            + (f", blocked by {blockers}" if blockers else "")
            + f"; it is rolled back, and tried again in {pause:.1f} s "
            f"({attempt + 1} of {self.backend.lock_retries})"
        )
        time.sleep(pause)

    def _run_once(self) -> None:
        backend, script = self.backend, self.script
        opening = backend.lock.take_fence + self.guard + self._timeouts()
        if backend.held.pid is None:
            opening = f"SELECT {fail_unless(backend.lock.try_lock, LOCK_BUSY)};\n" + opening
        closing = (
            _CHECK_CONSTRAINTS
            + backend.session.restore
            + f"SELECT {fail_unless(backend.lock.fence_held, FENCE_LOST)}, "
            + f"{fail_unless(backend.lock.held_by(backend.held.pid), LOCK_LOST)};\n"
            + self.record
        )
        patience = self._lock_timeout / 2 or REPORT_AFTER
        with self._settled_session(), backend.watcher.watching(script, patience=patience):
            try:
                if script.directives.no_transaction:
                    self._run_without_transaction(opening, closing)
                elif script.function is not None:
                    self._run_function(script.function, opening, closing)
                elif script.text is not None:
                    self._run_text(script.text, opening, closing)
            except (psycopg2.Error, StatementError) as error:
                raise meaning(error) from error.__cause__

    def _timeouts(self) -> str:
        """Statements that set the limits of a script's own transaction."""
        backend, given = self.backend, self.script.directives
        if given.no_transaction:
            return ""
        # A killed run's statement is to end soon, and with it what it keeps others from.
        check = "SET LOCAL client_connection_check_interval = 1000;\n"
        statement = given.statement_timeout
        statement = backend.statement_timeout if statement is None else statement
        return (
            (check if backend.held.checks_client else "")
            + f"SET LOCAL lock_timeout = {round(self._lock_timeout * 1000)};\n"
            f"SET LOCAL statement_timeout = {round(statement * 1000)};\n"
        )

    @property
    def _lock_timeout(self) -> float:
        """Seconds that this script waits for a lock, 0 for any."""
        given = self.script.directives.lock_timeout
        return self.backend.lock_timeout if given is None else given

    def _run_text(self, text: str, opening: str, closing: str) -> None:
        statements, modes = unwrap(statements_of(split(text, "postgres")), "postgres")
        messages = compose(
            statements,
            begin=f"BEGIN {modes};\n" if modes else BEGIN,
            opening=opening,
            closing=closing + "COMMIT",
            mark=self._marking(statements),
        )
        self.backend.watcher.expect(statements)
        for message in messages:
            send(self.backend, message, len(statements))

    def _marking(self, statements: Sequence[Statement]) -> Callable[[int], str]:
        """What marks each statement: for the client, for when it fails, and for who watches it."""
        file, total = self.script.path.rpartition("/")[2], len(statements)
        has_marker = self.backend.held.can_mark
        # A script that has something to do with this setting has it for itself.
        has_name = not any("application_name" in s.text.lower() for s in statements)

        def mark(number: int) -> str:
            return (marker(number) if has_marker else "") + (
                set_name(name_for(number, total, file)) if has_name else ""
            )

        return mark

    def _run_function(self, function: Callable[[Any], object], opening: str, closing: str) -> None:
        """In the driver's own transaction, so that its commit and rollback do what they say."""
        backend = self.backend
        backend.dbapi.autocommit = False
        [(transaction,)] = backend.fetch(
            f"SET TRANSACTION {READ_COMMITTED};\n{opening}SELECT pg_catalog.txid_current()"
        )
        try:
            self._call(function)
        except Exception as error:
            if not backend.dbapi.closed:
                backend.roll_back()
                status = backend.fetch(f"SELECT pg_catalog.txid_status({transaction})")
                if status == [("committed",)]:
                    raise TransactionEndedError(error) from error
            raise
        backend.run_sql(_CHECK_CONSTRAINTS)
        # Of its settings, client_encoding rules the next message.
        backend.session.settle(backend.dbapi)
        backend.run_sql(closing)
        backend.dbapi.commit()

    def _call(self, function: Callable[[Any], object]) -> None:
        dbapi = self.backend.dbapi
        encoding = dbapi.encoding
        try:
            function(dbapi)
        finally:
            if not dbapi.closed:
                # Where it is another one, this ends the transaction, as setting it did before.
                dbapi.set_client_encoding(encoding)

    def _run_without_transaction(self, opening: str, closing: str) -> None:
        """Each statement in a message of its own: in one, they would share a transaction."""
        backend, script = self.backend, self.script
        if backend.held.pid is None:
            raise DatabaseUnavailableError(
                "it runs without a transaction, and there is no second connection to hold the "
                "migration lock meanwhile",
                hint="let flux open one: raise the limit of connections, or hand in an address",
            )
        has_lock = fail_unless(backend.lock.held_by(backend.held.pid), LOCK_LOST)
        backend.run_sql(f"{BEGIN}{opening}SELECT {has_lock};\nCOMMIT")
        if script.function is not None:
            self._call(script.function)
        elif script.text is not None:
            try:
                backend.apply_migration(script.text)
            except StatementError as error:
                error.rolled_back = backend.dbapi.info.transaction_status != IDLE
                raise
        if backend.dbapi.info.transaction_status != IDLE:
            raise TransactionEndedError
        backend.session.settle(backend.dbapi)  # some settings would rule the next transaction
        backend.run_sql(BEGIN + backend.lock.take_fence + closing + "COMMIT")

    @contextmanager
    def _settled_session(self) -> Iterator[None]:
        """Leave no transaction and no setting behind, after a failure as after a success."""
        backend = self.backend
        failed = True
        try:
            yield
            failed = False
        finally:
            if not backend.dbapi.closed:
                backend.roll_back()
                backend.dbapi.autocommit = True  # a Python migration may have changed it
                if failed or backend.session.settings is not None:
                    backend.session.settle(backend.dbapi)


def send(
    backend: PostgresBackend, message: Message, total: int, reached: int | None = None
) -> None:
    """One round trip. Raises `StatementError`, which says which statement failed."""
    dbapi = backend.dbapi
    notices = dbapi.notices = Notices(dbapi.notices, reached)
    cursor = backend.cursor()
    try:
        if message.rows is None:
            cursor.execute(message.text)
        else:
            cursor.copy_expert(message.text, StringIO(message.rows))
    except psycopg2.Error as error:
        raise statement_error(error, message, total, notices.reached) from error
    finally:
        cursor.close()
        dbapi.notices = notices.kept


def statements_of(pieces: Sequence[Statement | MetaCommand]) -> list[Statement]:
    """The statements among what `split` gives."""
    return [piece for piece in pieces if isinstance(piece, Statement)]
