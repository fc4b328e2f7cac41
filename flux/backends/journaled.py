"""Running a script without a transaction: unit by unit, each noted in the journal.

A unit that can run in a transaction commits together with its row, and so is never in doubt.
Before any other one runs, its row says that it is reached. A run that finds such a row asks the
database whether the unit took effect, and goes on with it, or behind it, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from flux.backends.signals import ChangedError, InDoubtError, StatementError
from flux.journal import Direction, Entry
from flux.migration import Script
from flux.record import Record
from flux.statements import Numbered
from flux.units import Unit, entry_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.backends.base import MigrationBackend


class Verdict(Record):
    """What is known of a unit that was reached: whether it took effect; None where it is not.

    `repair` are statements to run, each alone, before the unit runs again; `instead` is one to
    run in its place.
    """

    took_effect: bool | None
    repair: tuple[str, ...] = ()
    instead: str | None = None


NOT_RUN = Verdict(took_effect=False)
UNKNOWN = Verdict(took_effect=None)


class JournaledRun:
    """One script of the migration or repeatable `id`.

    `guard` raises where it must not run; `record` writes that the whole is done, and is called
    within the transaction of the last row. A repeatable starts anew each time, and its rows only
    say what runs.

    `run` raises `StatementError`, `InDoubtError`, `ChangedError`, `TransactionEndedError`, and
    what the driver or a Python function raises.
    """

    def __init__(
        self,
        backend: MigrationBackend,
        script: Script,
        direction: Direction,
        id: str,
        *,
        guard: Callable[[], None] = lambda: None,
        record: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = backend
        self.script = script
        self.direction: Direction = direction
        self.id = id
        self.guard = guard
        self.record = record
        self.units = backend.units(script)
        #: All statements of the file, settings and BEGIN and COMMIT included.
        self.statements = backend.statements(script)
        self.total = len(self.statements)
        self._entries: list[Entry] = []
        self._has_session = False

    def run(self) -> None:
        """Run what is not finished yet, and record the whole."""
        self.guard()
        self._entries = self._read_entries()
        entries = {} if self.direction == "run" else {row.unit: row for row in self._entries}
        begin = sum(entry.state == "finished" for entry in entries.values())
        for unit in self.units[begin:]:
            self.run_unit(unit, entries.get(unit.number))
        if begin == len(self.units):
            if begin + 1 in entries:
                self._settle_removed(entries[begin + 1])
            with self.backend.transaction():
                self.close(None)

    def _read_entries(self) -> list[Entry]:
        return [
            entry
            for entry in self.backend.read_journal()
            if (entry.direction, entry.id) == (self.direction, self.id)
        ]

    def run_unit(self, unit: Unit, entry: Entry | None) -> None:
        """Run a unit; `entry` is its row from an earlier run that did not finish it."""
        verdict = NOT_RUN if entry is None else self._judge_known(unit, entry)
        is_same = entry is not None and entry.hash == unit.hash
        if entry is not None and not is_same and (verdict.took_effect or verdict.instead):
            raise ChangedError(entry, unit.first)
        if verdict.took_effect:
            self.finish(unit)
            return
        self.repair(unit, verdict)
        if unit.is_atomic:
            self.run_together(unit)
        else:
            # Of another statement than before, what was there before is to be asked anew.
            before = entry.before if entry is not None and is_same else self.look(unit)
            self.run_alone(unit, before, verdict.instead)

    def _judge_known(self, unit: Unit, entry: Entry) -> Verdict:
        verdict = self.judge(unit, entry)
        if verdict.took_effect is None:
            raise InDoubtError(entry, unit.first)
        return verdict

    def _settle_removed(self, entry: Entry) -> None:
        """See to a unit that an earlier run reached, and that is not in the file any more."""
        session = self.units[-1].session if self.units else ()
        unit = Unit(entry.unit, "", is_atomic=True, last=self.total, session=session)
        verdict = self._judge_known(unit, entry)
        if verdict.took_effect or verdict.instead:
            raise ChangedError(entry, None)
        self.repair(unit, verdict)

    # What a database can do better -----------------------------------------------------------

    def run_together(self, unit: Unit) -> None:
        """Run a unit and note that it is finished, in one transaction."""
        self.enter_session(unit)
        if not unit.statements:
            self.backend.end_settings()
        with self.backend.transaction():
            self.run_numbered(unit.statements)
            self.close(unit)

    def run_alone(self, unit: Unit, before: str | None, instead: str | None) -> None:
        """Run a unit in no transaction, noting before that it is reached, and then the end.

        `instead` is a statement to run in its place.
        """
        self.enter_session(unit)
        entry = self.entry(unit)._replace(before=before)
        self.note(entry)
        try:
            if self.script.function is not None:
                self.backend.execute(self.script)
            elif instead is not None:
                self.backend.run_sql(instead)
            else:
                self.run_numbered(unit.statements)
        except Exception as error:
            if self.had_no_effect(unit, error):
                with suppress(Exception):  # else it is in doubt
                    self.note(entry._replace(state="failed"))
            raise
        self.finish(unit)

    def had_no_effect(self, unit: Unit, error: BaseException) -> bool:
        """Whether the database has said that a unit failed, and so has no effect."""
        if not isinstance(error, StatementError) or self.backend.outcome_is_unknown():
            return False
        return unit.first is not None and self.backend.is_undone_by_error(unit.first.text)

    def repair(self, unit: Unit, verdict: Verdict) -> None:
        """Take away what an earlier attempt has left."""
        for sql in verdict.repair:
            self.backend.run_sql(sql)

    def enter_session(self, unit: Unit) -> None:
        """Make the settings that hold for a unit, where they are not made yet."""
        new = unit.fresh if self._has_session else len(unit.session)
        self._has_session = True
        self.run_numbered(unit.session[len(unit.session) - new :])

    def look(self, unit: Unit) -> str | None:
        """What the database says of what a unit is about to change; None where nothing can tell."""
        return None

    def judge(self, unit: Unit, entry: Entry) -> Verdict:
        """Whether the unit of that row took effect. It may be another one in the file by now."""
        if entry.state == "failed" or self.backend.is_repeatable(entry.sql):
            return NOT_RUN
        return UNKNOWN

    # Writing ---------------------------------------------------------------------------------

    def entry(self, unit: Unit) -> Entry:
        """The row that says that a unit is reached."""
        return entry_of(self.direction, self.id, unit, "reached")

    def note(self, entry: Entry) -> None:
        """Write one row, in a transaction of its own."""
        with self.backend.transaction():
            self.backend.remember(entry.name, entry.value)

    def finish(self, unit: Unit) -> None:
        """Note that a unit is finished, in a transaction of its own."""
        with self.backend.transaction():
            self.close(unit)

    def close(self, unit: Unit | None) -> None:
        """Within a transaction: note that a unit is finished; with the last (None: all), record."""
        if unit is not None and unit.number < len(self.units):
            entry = self.entry(unit)._replace(state="finished")
            self.backend.remember(entry.name, entry.value)
            return
        for name in self.names():
            self.backend.forget(name)
        self.record()

    def names(self) -> list[str]:
        """The names of all rows that there are, or may be, of this script."""
        own = [self.entry(unit).name for unit in self.units]
        return sorted({*own, *(entry.name for entry in self._entries)})

    def run_numbered(self, statements: Sequence[Numbered]) -> None:
        """Run statements of the file. Raises `StatementError`, which says which one failed."""
        for number, statement in statements:
            self.backend.watcher.reach(number)
            try:
                self.backend.run_statement(statement)
            except self.backend.driver_error as error:
                raise StatementError(
                    offset=statement.start, exact=False, number=number, total=self.total
                ) from error
