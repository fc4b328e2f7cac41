"""Several migrations on SQLite in one transaction: one wait for the disk for all of them.

Each has all that it has alone: the look whether it has run, its text, the check of the foreign
keys, its row. Those behind the first are in a savepoint. One begins in a transaction that is young
only, so nobody waits longer for the lock than for the longest of them. Nothing is told of before
COMMIT.

Where one fails, its savepoint is rolled back and those before it are committed. What rolls back
the whole transaction (ON CONFLICT ROLLBACK, RAISE(ROLLBACK), a full disk) takes those before it
along: they run again one by one, and so does the one that failed. So does one that lacked room: a
savepoint may need a temporary file, which alone it does not. An interrupted write rolls back the
whole, too; then nothing runs again.

Whatever may end the transaction, sees more of it than its savepoint, or may take long goes alone.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from flux.backends.sqlite_lock import BusyError
from flux.migration import Migration
from flux.plan import Step
from flux.transactions import mentions_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.backends.sqlite import SQLiteBackend

#: Migrations in a transaction, and the characters of their texts.
_MOST = 50
_CHARACTERS = 64 * 1024
#: Seconds; in a transaction that is older, no other migration begins.
_SECONDS = 0.005
#: What may take long, as it goes through rows that are there.
_GOES_THROUGH_ROWS = r"(?i)\b(?:select|with)\b|(?<!\bon\s)\b(?:update|delete)\b"
#: What acts on the transaction, or on the connection, or cannot run in a transaction.
_ALONE = ("pragma", "savepoint", "release", "rollback", "attach", "detach", "vacuum")


def count_together(steps: Sequence[Step]) -> int:
    """How many of the next steps may share a transaction, at least one. Opens nothing."""
    characters = 0
    for count, step in enumerate(steps[:_MOST]):
        text = _text_for_company(step)
        if text is None or characters + len(text) > _CHARACTERS:
            return max(1, count)
        characters += len(text)
    return min(len(steps), _MOST)


def _text_for_company(step: Step) -> str | None:
    """The text of a step that may share a transaction; None of one that goes alone."""
    text = step.script.text
    if not isinstance(step.subject, Migration) or step.half is not None or text is None:
        return None
    if step.script.directives.given or mentions_control(text):
        return None
    if re.search(_GOES_THROUGH_ROWS, text):
        return None
    lower = text.lower()
    return None if any(word in lower for word in _ALONE) else text


class BundleRun:
    """Runs the first of some steps that `count_together` has found to go together.

    `note` is called with the seconds of each one that is done, in order; the last one's are also
    those of COMMIT. Raises what `run_step` raises, of the first that is not done.
    """

    def __init__(
        self, backend: SQLiteBackend, steps: Sequence[Step], note: Callable[[float], None]
    ) -> None:
        self._backend = backend
        self._steps = steps
        self._note = note
        #: The seconds of each step that has run in the transaction, and is kept if that is.
        self._ran: list[float] = []

    def run(self) -> None:
        """Run as many as begin while the transaction is young."""
        backend, first = self._backend, self._steps[0].script
        if backend.fetch("PRAGMA main.journal_mode") == [("off",)]:  # nothing can be rolled back
            backend.run_bundle(self._steps[:1], self._note)
            return
        with backend.session_for(first):
            try:
                backend.begin()
                backend.is_shared = True
                failure = self._run_in_turn()
                backend.is_shared = False
                is_kept = self._commit()
            except BaseException:
                if self._is_committed():
                    self._note_all()
                raise
            finally:
                backend.is_shared = False
                if backend.dbapi.in_transaction:
                    backend.run_sql("ROLLBACK")
        if is_kept:
            self._note_all()
        if failure is not None and _is_interruption(failure):
            # Where those before it are gone, too, it is the first of them that is told of.
            is_first = is_kept or not self._ran
            raise failure if is_first else failure.__cause__ or failure
        if not is_kept and self._ran:
            self._run_again()
        if failure is not None:
            if not self._ran or (is_kept and not _lacks_room(failure)):
                raise failure
            backend.run_bundle(self._steps[len(self._ran) :][:1], self._note)

    def _run_in_turn(self) -> BaseException | None:
        """Run the steps while the transaction is young; what one raised, of which nothing stays."""
        backend, ran = self._backend, self._ran
        no_more = time.monotonic() + _SECONDS
        for step in self._steps:
            started = time.perf_counter()
            savepoint = _savepoint(ran) if ran else None
            try:
                if savepoint is not None:
                    backend.run_sql(f"SAVEPOINT {savepoint}")
                backend.run_step(step)
                # From here on it has run, whatever interrupts this.
                ran.append(time.perf_counter() - started)
                if savepoint is not None:
                    backend.run_sql(f"RELEASE {savepoint}")
            except BaseException as error:
                self._take_back()
                return error
            if time.monotonic() >= no_more:
                break
        return None

    def _take_back(self) -> None:
        """Roll back the step that has not run to its end, where one has begun."""
        if not self._backend.dbapi.in_transaction:
            return
        if not self._ran:
            self._backend.run_sql("ROLLBACK")
            return
        try:
            self._backend.run_sql(f"ROLLBACK TO {_savepoint(self._ran)}")
        except sqlite3.OperationalError as error:
            if "no such savepoint" not in str(error):
                raise

    def _commit(self) -> bool:
        """Commit what has run; whether there was something, and it is kept.

        Raises `BusyError` where a reader does not let it: nothing is kept then.
        """
        backend, ran = self._backend, self._ran
        if not ran or not backend.dbapi.in_transaction:
            return False
        started = time.perf_counter()
        try:
            with backend.watcher.watching(self._steps[len(ran) - 1].script):
                backend.run_sql("COMMIT")
        except BusyError:
            raise
        except sqlite3.Error:
            return False
        ran[-1] += time.perf_counter() - started
        return True

    def _is_committed(self) -> bool:
        """Whether what has run is kept, after an interruption at any moment."""
        if not self._ran or self._backend.dbapi.in_transaction:
            return False
        last = self._steps[len(self._ran) - 1]
        with suppress(sqlite3.Error):
            return self._backend.is_recorded(last.name) == (last.action == "apply")
        return False

    def _note_all(self) -> None:
        for seconds in self._ran:
            self._note(seconds)

    def _run_again(self) -> None:
        """Run what was rolled back with the whole transaction."""
        self._backend.foreign_keys.note_again()
        for step in self._steps[: len(self._ran)]:
            self._backend.run_bundle([step], self._note)


def _savepoint(ran: Sequence[float]) -> str:
    """The savepoint of the next step: another one than that of the step before it."""
    return f"flux_step_{len(ran) % 2}"


def _lacks_room(failure: BaseException) -> bool:
    """Whether there was no room for what SQLite writes, which is less without a savepoint."""
    cause = failure.__cause__ or failure
    wants = ("database or disk is full", "disk I/O error", "out of memory")
    return isinstance(cause, MemoryError) or str(cause).startswith(wants)


def _is_interruption(failure: BaseException) -> bool:
    """Whether somebody has asked for the end, by an exception or by way of the database."""
    cause = failure.__cause__ or failure
    return not isinstance(failure, Exception) or str(cause) == "interrupted"
