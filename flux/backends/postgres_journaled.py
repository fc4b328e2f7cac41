"""Running a script without a transaction on PostgreSQL.

A unit that can run in a transaction is one message, as a whole migration is, with its row of the
journal in it. Of any other one the row is written first, with the session that will run it and
what the catalog says beforehand; then it goes alone, since statements of one message would share
a transaction. The settings that a file makes hold for its statements alone, each time anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

from flux.backends.journaled import NOT_RUN, JournaledRun, Verdict
from flux.backends.postgres_check import needs_no_transaction
from flux.backends.postgres_driver import IDLE
from flux.backends.postgres_errors import InvalidIndexError, meaning, sqlstate
from flux.backends.postgres_in_doubt import Look, find_look
from flux.backends.postgres_leftovers import leaves_something, sets_by_literals
from flux.backends.postgres_lock import BEGIN, LOCK_LOST, fail_unless
from flux.backends.postgres_message import Message, compose, sets_transaction, single
from flux.backends.postgres_run import (
    CHECK_CONSTRAINTS,
    call_function,
    coming_again,
    marking,
    require_lock,
    send,
    settled_session,
)
from flux.backends.signals import StatementError, TransactionEndedError
from flux.exceptions import DatabaseUnavailableError
from flux.journal import ENDED, Direction, Entry, UnitState
from flux.migration import Script
from flux.progress import REPORT_AFTER
from flux.statements import Numbered, Statement, leading_words
from flux.units import Unit, Way

if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend

#: SQLSTATEs of what cannot run in a transaction: active_sql_transaction, and
#: invalid_transaction_termination, of a procedure that commits. Nothing of it has taken effect.
_ALONE_AFTER_ALL = ("25001", "2D000")


class PostgresJournaledRun(JournaledRun):
    """One script; `guard_sql` fails where it must not run, `record_sql` notes that it is done."""

    backend: PostgresBackend

    def __init__(
        self,
        backend: PostgresBackend,
        script: Script,
        direction: Direction,
        id: str,
        *,
        guard_sql: str,
        record_sql: str,
    ) -> None:
        super().__init__(backend, script, direction, id)
        self._guard_sql = guard_sql
        self._record_sql = record_sql
        #: The rows that this run has written, by the number of their unit.
        self._noted: dict[int, Entry] = {}
        self._mark = marking(backend, script, self.statements, self.total)

    def run(self) -> None:
        """Run what is not finished yet, and record the whole."""
        self._refuse_what_cannot_be_safe()
        self.backend.session = self.backend.session.before(self.script, self.backend)
        watcher = self.backend.watcher
        patience = (self.script.directives.lock_timeout or 0) / 2 or REPORT_AFTER
        with settled_session(self.backend), watcher.watching(self.script, patience=patience):
            watcher.expect(self.statements)
            try:
                super().run()
            except (self.backend.driver_error, StatementError) as error:
                raise meaning(error) from error.__cause__

    def _refuse_what_cannot_be_safe(self) -> None:
        if self.backend.held.pid is None:
            raise DatabaseUnavailableError(
                "it runs without a transaction, and there is no second connection to hold the "
                "migration lock meanwhile",
                hint="let flux open one: raise the limit of connections, or hand in an address",
            )
        if self.script.function is not None and not self.backend.held.is_direct:
            raise DatabaseUnavailableError(
                "a Python function without a transaction runs in whichever sessions a pooler gives "
                "it, and what it leaves there would reach other clients",
                hint="give flux the address of the server itself",
            )
        for unit in self.units:
            if not unit.is_atomic:
                self._refuse_behind_pooler(unit)

    def _refuse_behind_pooler(self, unit: Unit) -> None:
        """Refuse what would have to be set for a session that is not flux's alone, and what could
        run twice: there no session can be ended that has been stopped in between."""
        if self.backend.held.is_direct:
            return
        given = self.script.directives
        statements = [one.statement for one in (*unit.session, *unit.statements)]
        leaving = [statement for statement in statements if leaves_something(statement)]
        what = "has a setting, which would reach other clients"
        if given.lock_timeout or given.statement_timeout:
            what = "has a timeout, which would reach other clients"
        elif unit.first is not None and not self.backend.is_undone_by_error(unit.first.text):
            what, leaving = "commits as it goes, and could run twice there", [unit.first]
        elif not leaving:
            return
        raise DatabaseUnavailableError(
            f"behind a pooler this cannot run: a statement that runs in no transaction {what}",
            location=self.script.location(leaving[0].start if leaving else None),
            hint="give flux the address of the server itself, or take it out of the file",
        )

    def run_unit(self, unit: Unit, entry: Entry | None) -> None:
        """Run a unit; again, while others hold what it needs, unless it is in doubt then."""

        def attempt() -> None:
            # After an attempt of this run, what that one has noted.
            super(PostgresJournaledRun, self).run_unit(unit, self._noted.get(unit.number, entry))

        def may_come_again() -> bool:
            noted = self._noted.get(unit.number)
            return noted is None or not self.backend.is_in_doubt(noted)

        coming_again(self.backend, self.script, attempt, may_come_again)

    # One unit --------------------------------------------------------------------------------

    def run_together(self, unit: Unit) -> None:
        """Run a unit and note that it is finished, in one message."""
        backend = self.backend
        closing = (
            CHECK_CONSTRAINTS
            + backend.session.restore
            + require_lock(backend.lock.fence_held, backend.lock, backend.held)
            + self._close_sql(unit)
            + "COMMIT"
        )
        first = sum(1 for _ in takewhile(sets_transaction, unit.statements))
        messages = compose(
            [*unit.statements[:first], *unit.session, *unit.statements[first:]],
            begin=f"BEGIN {unit.modes};\n" if unit.modes else BEGIN,
            opening=self._opening + self._limits("SET LOCAL"),
            closing=closing,
            mark=self._mark,
            total=self.total,
        )
        try:
            self._send(messages)
        except StatementError as error:
            if sqlstate(error.__cause__) not in _ALONE_AFTER_ALL or unit.is_block:
                raise
            backend.roll_back()
            self._refuse_behind_pooler(unit)
            self.run_alone(unit, self.look(unit), None)
        else:
            self._settle_borrowed(unit)

    def run_alone(self, unit: Unit, before: str | None, instead: str | None) -> None:
        """Run a unit in no transaction, noting before that it is reached, and then the end."""
        backend = self.backend
        entry = self.entry(unit)._replace(before=before, session=backend.session_name())
        self._noted[unit.number] = entry
        self._enter(unit, self._row_sql(entry))
        try:
            if self.script.function is not None:
                call_function(backend, self.script.function)
                if backend.dbapi.info.transaction_status != IDLE:
                    raise TransactionEndedError
            elif instead is not None:
                self._send([self._in_place_of(unit, instead)])
            else:
                for one in unit.statements:
                    backend.watcher.reach(one.number)
                    self._send([single(one)])
            self._refuse_invalid_index(unit, before)
        except BaseException as error:
            state: UnitState = "failed" if self.had_no_effect(unit, error) else "reached"
            with suppress(Exception):  # else the next run ends this session
                backend.roll_back()
                backend.session.settle(backend)
                self._note_end(entry, state)
            raise
        if backend.held.is_direct:
            backend.session.settle(backend)  # some settings would rule the next transaction
        self.finish(unit)

    def repair(self, unit: Unit, verdict: Verdict) -> None:
        """Take away what an earlier attempt has left, under the limits of the file."""
        if not verdict.repair:
            return
        self._enter(unit, "")
        for sql in verdict.repair:
            self._send([self._in_place_of(unit, sql)] if unit.statements else [Message(sql, ())])
        if self.backend.held.is_direct:
            self.backend.session.settle(self.backend)

    def _enter(self, unit: Unit, note: str) -> None:
        """Write `note`, SQL about the journal, and make the settings that hold for a unit."""
        is_direct = self.backend.held.is_direct
        opening = self._opening + self._check_lock + note
        self._send(
            compose(
                unit.session if is_direct else (),
                begin=BEGIN,
                opening=opening + (self._limits("SET") if is_direct else ""),
                closing="COMMIT",
                mark=self._mark,
                total=self.total,
            )
        )

    def _in_place_of(self, unit: Unit, sql: str) -> Message:
        """A message of flux's own, whose failure is told as one of the unit's statement."""
        number, statement = unit.statements[0]
        return single(Numbered(number, statement._replace(text=sql)))

    # Looking ---------------------------------------------------------------------------------

    def look(self, unit: Unit) -> str | None:
        """What the catalog says of what a unit is about to change.

        It is asked under the settings of the unit, which say where its names lead.
        """
        look = _look_after(unit)
        if look is None:
            return None
        query = look.query(self.backend.literal)
        if not unit.session:
            return self._answer(query)
        self._send(
            compose(
                unit.session,
                begin=BEGIN,
                opening="",
                closing="",
                mark=self._mark,
                total=self.total,
            )
        )
        answer = self._answer(query)
        self.backend.roll_back()
        return answer

    def judge(self, unit: Unit, entry: Entry) -> Verdict:
        """Whether the unit of that row took effect: by the catalog, where it can tell."""
        look = find_look(entry.sql)
        if look is None or entry.before is None:
            return super().judge(unit, entry)
        now = self._answer(look.query_again(entry.before, self.backend.literal))
        verdict = look.verdict(entry.before, now)
        # What failed took no effect; what is there now, somebody else has made.
        return NOT_RUN if verdict.took_effect and entry.state == "failed" else verdict

    def _answer(self, query: str) -> str:
        [(answer,)] = self.backend.fetch(query)
        return str(answer)

    def _refuse_invalid_index(self, unit: Unit, before: str | None) -> None:
        look = _look_after(unit)
        if look is None or before is None:
            return
        now = self._answer(look.query_again(before, self.backend.literal))
        if invalid := look.invalid(now):
            number, statement = unit.statements[0]
            raise StatementError(
                offset=statement.start, exact=False, number=number, total=self.total
            ) from InvalidIndexError(invalid)

    # Writing ---------------------------------------------------------------------------------

    def _note_end(self, entry: Entry, state: UnitState) -> None:
        """Note that this run goes on no more with a unit, unless another one has it by now."""
        ended = entry._replace(state=state, session=ENDED)
        sql = self.backend.sql.replace(entry.name, entry.value, ended.value)
        self.backend.run_sql(BEGIN + self.backend.lock.take_fence + sql + "COMMIT")
        self._noted[entry.unit] = ended

    def finish(self, unit: Unit) -> None:
        """Note that a unit is finished, in one message."""
        sql = self._opening + self._check_lock + self._close_sql(unit)
        self.backend.run_sql(BEGIN + sql + "COMMIT")

    def close(self, unit: Unit | None) -> None:
        """Within a transaction: note that a unit is finished; with the last (None: all), record."""
        self.backend.run_sql(self._check_lock + self._close_sql(unit))

    def _close_sql(self, unit: Unit | None) -> str:
        if unit is not None and unit.number < len(self.units):
            return self._row_sql(self.entry(unit)._replace(state="finished"))
        return self.backend.sql.forget(self.names()) + self._record_sql

    def _row_sql(self, entry: Entry) -> str:
        return self.backend.sql.remember(entry.name, entry.value)

    @property
    def _opening(self) -> str:
        """What stands at the beginning of each transaction: the fence, and the guard."""
        return self.backend.lock.take_fence + self._guard_sql

    @property
    def _check_lock(self) -> str:
        still_held = self.backend.lock.still_held(self.backend.held)
        return f"SELECT {fail_unless((still_held, LOCK_LOST))};\n"

    def _limits(self, command: str) -> str:
        """Statements that set what a file asks for, or no limit, and have the client looked for."""
        given = self.script.directives
        seconds = {
            "lock_timeout": given.lock_timeout or 0,
            "statement_timeout": given.statement_timeout or 0,
        }
        if self.backend.held.checks_client:
            seconds["client_connection_check_interval"] = 1
        limits = "".join(
            f"{command} {name} = {round(value * 1000)};\n" for name, value in seconds.items()
        )
        return limits + (_NEVER_IDLE if command == "SET" else "")

    def _settle_borrowed(self, unit: Unit) -> None:
        """Take back what a unit's settings have changed on a connection that was handed in."""
        if unit.session and self.backend.session.settings is not None:
            self.backend.session.settle(self.backend)

    def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            send(self.backend, message, self.total)


def _look_after(unit: Unit) -> Look | None:
    return find_look(unit.first.text) if unit.first else None


def way_of(statement: Statement) -> Way:
    """How a statement of a file without a transaction runs. Pure."""
    found = leading_words(statement.text, "postgres")
    if found[:1] == ("RESET",) or (
        found[:1] == ("SET",) and found[1:2] not in (("LOCAL",), ("TRANSACTION",), ("CONSTRAINTS",))
    ):
        return "session"
    if found[:1] == ("SELECT",) and sets_by_literals(statement):
        return "session"
    if needs_no_transaction(found) or found[:1] == ("CALL",):
        return "alone"
    if found[:1] == ("DO",) and _COMMITS.search(statement.text):
        return "alone"
    return "together"


#: A Python function may be busy elsewhere for long.
_NEVER_IDLE = (
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings "
    "WHERE name IN ('idle_in_transaction_session_timeout', 'idle_session_timeout');\n"
)
_COMMITS = re.compile(r"\b(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
