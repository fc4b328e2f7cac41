"""Running one script on PostgreSQL, between its guard and its record.

A transactional one is one simple-query message: BEGIN, the fence, the guard, its text, the
check that the lock is still ours, its record, COMMIT. Where others hold what it needs, it lets
go and comes again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

from flux.backends.postgres_driver import IDLE
from flux.backends.postgres_errors import encoding_error, meaning, sqlstate, statement_error
from flux.backends.postgres_flags import hoist, strike
from flux.backends.postgres_lock import (
    BEGIN,
    FENCE_LOST,
    LOCK_BUSY,
    LOCK_LOST,
    READ_COMMITTED,
    Held,
    LockSQL,
    fail_unless,
)
from flux.backends.postgres_message import LONG, Message, Reached, compose, marker
from flux.backends.postgres_outcome import was_committed
from flux.backends.postgres_watch import name_for, naming
from flux.backends.signals import StatementError, TransactionEndedError
from flux.migration import Script
from flux.progress import REPORT_AFTER
from flux.record import Record
from flux.statements import Statement, numbered, split
from flux.transactions import unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from flux.backends.postgres import PostgresBackend

#: SQL that marks a statement, by its number; and what makes it for a script of so many.
Mark: TypeAlias = "Callable[[int], str]"
Marking: TypeAlias = "Callable[[PostgresBackend, Script, Sequence[Statement], int], Mark]"

#: SQLSTATEs after which a transaction is tried again: lock_not_available, deadlock_detected.
_COME_AGAIN = ("55P03", "40P01")
#: Deferred constraints are checked while a script's own settings and role are in force.
CHECK_CONSTRAINTS = "SET CONSTRAINTS ALL IMMEDIATE;\n"


class Composed(Record):
    """A script as it is sent: its statements, without an outermost pair, and the messages."""

    statements: list[Statement]
    messages: Iterator[Message]


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

    def run(self, failure: Exception | None = None) -> None:
        """Run it; again, while others hold what it needs.

        `failure` is how a first attempt ended, which was in one message with other scripts.
        """
        failures = [] if failure is None else [failure]

        def attempt() -> None:
            if failures:
                raise failures.pop()
            self._run_once()

        coming_again(self.backend, self.script, attempt)

    def _run_once(self) -> None:
        backend, script = self.backend, self.script
        backend.session = backend.session.before(script, backend)
        patience = patience_for(backend, script)
        with settled_session(backend), backend.watcher.watching(script, patience=patience):
            try:
                if script.function is not None:
                    self._run_function(script.function)
                elif script.text is not None:
                    self._run_text(script.text)
            except (backend.driver_error, StatementError) as error:
                raise meaning(error) from error.__cause__

    @property
    def _opening(self) -> str:
        """What stands at the beginning of its transaction."""
        backend = self.backend
        limits = (f"SET LOCAL {name} = {value};\n" for name, value in self._limits().items())
        opening = backend.lock.take_fence + self.guard + "".join(limits)
        if backend.held.pid is None:
            opening = f"SELECT {fail_unless((backend.lock.try_lock, LOCK_BUSY))};\n" + opening
        return opening

    @property
    def _closing(self) -> str:
        """What stands before its COMMIT. The session is that before it ran."""
        backend = self.backend
        return (
            CHECK_CONSTRAINTS
            + backend.session.restore
            + require_lock(backend.lock.fence_held, backend.lock, backend.held)
            + self.record
        )

    def _limits(self) -> dict[str, str]:
        """The limits of a script's own transaction, as settings."""
        backend, given = self.backend, self.script.directives
        statement = given.statement_timeout
        statement = backend.statement_timeout if statement is None else statement
        # A killed run's statement is to end soon, and with it what it keeps others from.
        check = {"client_connection_check_interval": "1000"} if backend.held.checks_client else {}
        return {
            **check,
            "lock_timeout": f"{round(lock_timeout(backend, self.script) * 1000)}",
            "statement_timeout": f"{round(statement * 1000)}",
        }

    def compose_in_one(self, text: str, first: int) -> Composed:
        """Its transaction but for the record and the COMMIT, for a message of several. Pure.

        The guard is not in it: the message looks for all of them before the first. Its statements
        are marked with their numbers from `first` on. The text must have no RESET.
        """
        backend = self.backend
        return self._compose(
            text,
            opening=backend.lock.take_fence_and_set(self._limits()),
            closing=CHECK_CONSTRAINTS
            + require_lock(backend.lock.fence_noted, backend.lock, backend.held)
            + backend.session.restore,
            marking=partial(flagging if backend.held.can_flag else marking, before=first - 1),
            longest=sys.maxsize,
        )

    def _compose(
        self, text: str, *, opening: str, closing: str, marking: Marking, longest: int
    ) -> Composed:
        pieces = [piece for piece in split(text, "postgres") if isinstance(piece, Statement)]
        statements, modes = unwrap(pieces, "postgres")
        messages = compose(
            numbered(statements),
            begin=f"BEGIN {modes};\n" if modes else BEGIN,
            opening=opening,
            closing=closing,
            mark=marking(self.backend, self.script, statements, len(statements)),
            total=len(statements),
            longest=longest,
        )
        return Composed(statements, messages)

    def _run_text(self, text: str) -> None:
        backend = self.backend
        # Behind a pooler, what the application had set is set again before another session may
        # be the one that answers.
        is_apart = backend.session.settings is not None and not backend.held.is_direct
        closing = CHECK_CONSTRAINTS if is_apart else self._closing + "COMMIT"
        statements, messages = self._compose(
            text, opening=self._opening, closing=closing, marking=marking, longest=LONG
        )
        self.backend.watcher.expect(statements)
        for message in messages:
            send(backend, message, len(statements))
        if is_apart:
            backend.session.settle(backend)
            backend.run_sql(self._closing + "COMMIT")

    def _run_function(self, function: Callable[[Any], object]) -> None:
        """In the driver's own transaction, so that its commit and rollback do what they say."""
        backend = self.backend
        backend.dbapi.autocommit = False
        [(transaction,)] = backend.fetch(
            f"SET TRANSACTION {READ_COMMITTED};\n{self._opening}SELECT pg_catalog.txid_current()"
        )
        try:
            call_function(backend, function)
            backend.run_sql(CHECK_CONSTRAINTS)
        except Exception as error:
            backend.roll_back()
            if was_committed(backend, transaction):
                raise TransactionEndedError(error) from error
            raise
        # Of its settings, client_encoding rules the next message.
        backend.session.settle(backend)
        backend.run_sql(self._closing)
        backend.dbapi.commit()


@lru_cache(maxsize=1)  # the same for all of a batch
def require_lock(has_fence: str, lock: LockSQL, held: Held) -> str:
    """A statement that fails where the transaction was ended, or the lock is another's.

    `has_fence` is an expression of the lock's.
    """
    conditions = (has_fence, FENCE_LOST), (lock.still_held(held), LOCK_LOST)
    return f"SELECT {fail_unless(*conditions)};\n"


def lock_timeout(backend: PostgresBackend, script: Script) -> float:
    """Seconds that a script waits for a lock, 0 for any."""
    given = script.directives.lock_timeout
    return backend.lock_timeout if given is None else given


def patience_for(backend: PostgresBackend, script: Script) -> float:
    """Seconds after which it is worth a look what a script waits for."""
    return lock_timeout(backend, script) / 2 or REPORT_AFTER


def marking(
    backend: PostgresBackend,
    script: Script,
    statements: Sequence[Statement],
    total: int,
    *,
    before: int = 0,
) -> Mark:
    """What marks each statement: for the client, for when it fails, and for who watches it.

    `before` is added to each number that is for the client.
    """
    file = file_of(script)
    has_marker = backend.held.can_mark
    # A script that has something to do with this setting has it for itself.
    has_name = not any("application_name" in s.text.lower() for s in statements)

    def mark(number: int) -> str:
        return (marker(before + number) if has_marker else "") + (
            f"SELECT {naming(name_for(number, total, file))};\n" if has_name else ""
        )

    return mark


def flagging(
    backend: PostgresBackend,
    script: Script,
    statements: Sequence[Statement],
    total: int,
    *,
    before: int = 0,
) -> Mark:
    """The same with flags for markers, for a session that can be asked when one has failed.

    The flag of the end is to be struck when the row is written.
    """
    file = file_of(script)
    hoisted: int | None = None

    def mark(number: int) -> str:
        nonlocal hoisted
        marks = [naming(name_for(number, total, file))]
        if hoisted is not None:
            marks.append(strike(hoisted))
        hoisted = before + number
        marks.append(hoist(hoisted))
        return f"SELECT {', '.join(marks)};\n"

    return mark


def file_of(script: Script) -> str:
    """The name of a script's file, without its folder."""
    return script.path.rpartition("/")[2]


def coming_again(
    backend: PostgresBackend,
    script: Script,
    attempt: Callable[[], None],
    may_come_again: Callable[[], bool] = lambda: True,
) -> None:
    """Call `attempt`; again, with growing pauses, while others hold what it needs.

    An ALTER TABLE that waits for its lock holds up every query behind it. So it waits for a
    short time only, lets go, and comes again.
    """
    for number in range(1, backend.lock_retries + 1):
        try:
            return attempt()
        except (backend.driver_error, StatementError) as error:
            cause = error.__cause__ if isinstance(error, StatementError) else error
            if backend.dbapi.closed or sqlstate(cause) not in _COME_AGAIN:
                raise
            if not may_come_again():
                raise
            _pause(backend, script, number)
    attempt()


def _pause(backend: PostgresBackend, script: Script, number: int) -> None:
    import random  # few runs need it, and it takes long to import

    pause = min(0.25 * 2**number, 30.0) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
    blockers = "; ".join(map(str, backend.watcher.seen.blockers))
    what = "it is rolled back, and tried again"
    if script.directives.no_transaction:
        what = "the statement is tried again"
    backend.announce(
        f"{script.path} did not get a lock in time"
        + (f", blocked by {blockers}" if blockers else "")
        + f"; {what} in {pause:.1f} s "
        f"({number} of {backend.lock_retries})"
    )
    time.sleep(pause)


@contextmanager
def settled_session(backend: PostgresBackend) -> Iterator[None]:
    """Leave no transaction and no setting behind, after a failure as after a success."""
    kept = backend.driver.kept(backend.dbapi)
    failed = True
    try:
        yield
        failed = False
    finally:
        if not backend.dbapi.closed:
            backend.roll_back()
            backend.driver.put_back(backend.dbapi, kept)
            if failed or backend.session.settings is not None:
                _settle(backend)


def _settle(backend: PostgresBackend) -> None:
    """Take back what the script has changed; where that fails, the script is done all the same."""
    try:
        backend.session.settle(backend)
    except backend.driver_error as error:
        what = " ".join(str(error).split())
        backend.announce(f"the session could not be put back as it was found: {what}")


def call_function(backend: PostgresBackend, function: Callable[[Any], object]) -> None:
    """Give a Python function the connection, in whatever transaction is open, or none."""
    connection = backend.dbapi
    autocommit = connection.autocommit
    with backend.driver.lending(connection):
        function(connection)
    if connection.closed or connection.autocommit == autocommit:
        return
    if connection.info.transaction_status == IDLE:
        connection.rollback()  # psycopg2 does not see a COMMIT by SQL
        connection.autocommit = autocommit


def send(backend: PostgresBackend, message: Message, total: int) -> None:
    """One round trip. Raises `StatementError`, which says which of `total` statements failed."""
    reached = Reached(message.reached)
    try:
        backend.driver.send(backend.dbapi, message.text, message.rows, reached.hear)
    except backend.driver_error as error:
        raise statement_error(error, message, total, reached.number) from error
    except UnicodeEncodeError as error:
        raise encoding_error(error, message, total)  # noqa: B904 - it has its cause
