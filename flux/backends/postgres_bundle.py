"""Several migrations on PostgreSQL in one message: one round trip for all of them.

Each is in a transaction of its own, as it would be alone: BEGIN, the fence, its text, the check
that the lock is still ours, its record, COMMIT. The guards of all stand before the first, behind
the fence: what a killed run still has under way then can commit nothing any more, as its lock is
gone. The server ends a message at the first error; those before it are committed. The marks say
which statement of which migration that was; where it was none, the history says what is committed.

Only the last COMMIT waits for the disk, and so for what those before it have written, too. Nothing
is told of before that; after an error, the wait is made up for. A server that crashes meanwhile
may lose some at the end, each as a whole, with its row: as if it had crashed a moment earlier.

The server parses a message before it runs any of it. Where that fails, those before the faulty one
go once more, and then that one alone, so that the error is the one that it has alone. One that
others keep from a lock comes again alone; the message was its first attempt.

Whatever may need more than one message, or the session for itself, goes alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Container, Sequence
from itertools import accumulate

from flux.backends.postgres_errors import meaning, statement_error
from flux.backends.postgres_flags import STRIKE_ANY
from flux.backends.postgres_lock import BEGIN
from flux.backends.postgres_message import Reached, microseconds, tell_time
from flux.backends.postgres_outcome import wait_for_disk
from flux.backends.postgres_parts import Part, Parts
from flux.backends.postgres_run import ScriptRun, file_of, patience_for, settled_session
from flux.backends.postgres_watch import shown
from flux.backends.signals import TransactionEndedError
from flux.backends.watch import Watched
from flux.exceptions import DatabaseUnavailableError
from flux.migration import Migration
from flux.plan import Step
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.backends.postgres import PostgresBackend

_COMMIT = "COMMIT;\n"
_COMMIT_AND_GO_ON = "SET LOCAL synchronous_commit = off;\nCOMMIT;\n"


class _Found(Record):
    """What is found of a message that has failed: when each part was done that is.

    `number` is that of the statement of the next one that was reached; None where it was none.
    A moment is in seconds since 1970; None where it is not known.
    """

    number: int | None = None
    moments: Sequence[float | None] = ()

    @property
    def done(self) -> int:
        """How many are."""
        return len(self.moments)


class BundleRun:
    """Runs steps that `Parts` has found to go together.

    `note` is called with the seconds of each one that is done, in order. Raises what `ScriptRun`
    raises, of the first that is not done.
    """

    def __init__(
        self,
        backend: PostgresBackend,
        steps: Sequence[Step],
        parts: Parts,
        note: Callable[[float], None],
    ) -> None:
        self._backend = backend
        self._batch = parts
        self._note = note
        self._parts = parts.write(steps)

    def run(self) -> None:
        """Run them all."""
        parts = self._parts
        while parts:
            parts = parts[self._run_some(parts) :]

    def _run_some(self, parts: Sequence[Part]) -> int:
        """Run some of the parts, the first at least; how many."""
        if len(parts) == 1:
            self._run_alone(parts[0])
            return 1
        reached = Reached()
        start = self._start(parts)
        texts = (part.message.text for part in parts)
        text = start + _COMMIT_AND_GO_ON.join(texts) + _COMMIT + self._end
        began = time.perf_counter()
        try:
            self._send(parts, text, reached)
        except self._backend.driver_error as error:
            starts = _starts(parts, len(start))
            return self._after(parts, starts, reached, error, time.perf_counter() - began)
        except KeyboardInterrupt:
            self._note_found(self._find(parts, reached), reached, time.perf_counter() - began)
            raise
        first, *written, last = reached.times
        for seconds in _durations(first, _moments(parts, written), last):
            self._note(seconds)
        self._batch.note(len(parts), time.perf_counter() - began)
        return len(parts)

    def _start(self, parts: Sequence[Part]) -> str:
        """What stands before the first: the fence, the guards of all, the time."""
        return f"{BEGIN}{self._backend.lock.take_fence}{self._guard(parts)}{tell_time()}COMMIT;\n"

    @property
    def _end(self) -> str:
        """What stands behind the last: when each row was written, and the time."""
        moment = f"{microseconds('h.applied_at')}::pg_catalog.text"
        written = (
            f"(SELECT coalesce(pg_catalog.string_agg({moment}, ' ' ORDER BY h.applied_at), '') "
            f"FROM {self._backend.table} h WHERE h.applied_at >= pg_catalog.statement_timestamp())"
        )
        return f"{BEGIN}{tell_time(written)}COMMIT"

    def _guard(self, parts: Sequence[Part]) -> str:
        """SQL that fails where one of the parts has run already."""
        of: dict[str, list[Migration]] = {"apply": [], "undo": []}
        for part in parts:
            of[part.step.action].append(part.migration)
        return self._backend.sql.guard(pending=of["apply"], applied=of["undo"])

    def _send(self, parts: Sequence[Part], text: str, reached: Reached) -> None:
        backend, first = self._backend, parts[0]
        patience = min(patience_for(backend, part.script) for part in parts)
        script = first.step.script
        with settled_session(backend), backend.watcher.watching(script, patience=patience):
            backend.watcher.expect(first.statements)
            backend.watcher.expect_all(
                {
                    shown(file_of(part.script)): Watched(part.script, part.statements)
                    for part in parts
                }
            )
            with self._batch.writing_ahead():
                backend.driver.send(backend.dbapi, text, None, reached.hear)

    def _run_alone(self, part: Part, failure: Exception | None = None, spent: float = 0.0) -> None:
        """Run one part; `failure` is how its first try ended, after `spent` seconds."""
        started = time.perf_counter()
        sql = self._backend.sql
        around = sql.apply if part.step.action == "apply" else sql.undo
        ScriptRun(self._backend, part.script, *around(part.migration)).run(failure)
        self._note(spent + time.perf_counter() - started)

    def _after(
        self,
        parts: Sequence[Part],
        starts: Sequence[int],
        reached: Reached,
        error: Exception,
        seconds: float,
    ) -> int:
        """Go on after an error, or raise it; how many of the parts are done.

        Their message, in which they begin at `starts`, took so many `seconds`.
        """
        if not self._backend.dbapi.closed and not reached.times:
            # Nothing of the message ran.
            if before := _place(starts, error):
                return self._run_some(parts[:before])
            self._run_alone(parts[0])
            return 1
        found = self._find(parts, reached)
        left = seconds - self._note_found(found, reached, seconds)
        if found.done == len(parts):
            return found.done
        part = _moved(parts[found.done], starts[found.done])
        failure = statement_error(error, part.message, len(part.statements), found.number)
        failure.__cause__ = error
        meant: Exception | None = meaning(failure)
        if isinstance(meant, TransactionEndedError) and not _may_end(part):
            meant = None  # it has reset all settings: alone, the locks tell
        self._run_alone(part, meant, left)
        return found.done + 1

    def _find(self, parts: Sequence[Part], reached: Reached) -> _Found:
        """What is done of a message that has failed, once it is sure to stay.

        Of a session that is gone, nothing is known: the server may be gone, too, with what it was
        at last. Who looks again on a new connection finds out.
        """
        backend = self._backend
        if backend.dbapi.closed:
            return _Found()
        try:
            wait_for_disk(backend)
            place = self._find_place(reached)
            applied = backend.read_state().applied
        except (backend.driver_error, DatabaseUnavailableError):
            backend.dbapi.close()  # so that a new connection reads it
            return _Found()
        done, number = _count_done(parts, applied), None
        for before, part in enumerate(parts if place is not None else ()):
            if (number := part.number_of(place or 0)) is not None:
                # A marker of its end was perhaps the last of what is committed; a flag is not.
                is_at_end = number > len(part.statements) and not backend.held.can_flag
                done = before + (is_at_end and _is_done(part.step, applied))
                break
        rows = [applied.get(part.step.name) for part in parts[:done]]
        return _Found(number, [row and row.applied_at.timestamp() for row in rows])

    def _find_place(self, reached: Reached) -> int | None:
        """The number in the message of the statement that was reached; None of none."""
        backend = self._backend
        if not backend.held.can_flag:
            return reached.number
        rows = backend.fetch(STRIKE_ANY)
        return rows[0][0] if rows else None

    def _note_found(self, found: _Found, reached: Reached, seconds: float) -> float:
        """Note those that are done of a message that took so many `seconds`; what they took."""
        start = reached.times[0] if reached.times else 0.0
        durations = _durations(start, found.moments, start + seconds)
        for duration in durations:
            self._note(duration)
        return min(sum(durations), seconds)


def _moments(parts: Sequence[Part], written: Sequence[float]) -> list[float | None]:
    """When each part was done, by when their rows were written; None where there is none."""
    applied = [part.step.action == "apply" for part in parts]
    if len(written) != sum(applied):  # one has deleted another's
        return [None] * len(parts)
    moments = iter(written)
    return [next(moments) if is_applied else None for is_applied in applied]


def _durations(start: float, moments: Sequence[float | None], end: float) -> list[float]:
    """The seconds that each of some took that were done at these moments, in order.

    Those of which it is not known share the time until the next that is, or the end.
    """
    durations: list[float] = []
    for count, moment in enumerate([*moments, end], 1):
        if moment is not None:
            share = count - len(durations)
            durations += [max(0.0, moment - start) / share] * share
            start = moment
    return durations[: len(moments)]


def _count_done(parts: Sequence[Part], applied: Container[str]) -> int:
    """How many are done, by the history: they ran in order, whatever became of their rows."""
    done = (n for n, part in enumerate(parts, 1) if _is_done(part.step, applied))
    return max(done, default=0)


def _may_end(part: Part) -> bool:
    """Whether a text may have ended its transaction; the word is enough, also in a comment."""
    text = part.script.text or ""
    return re.search(r"(?i)\b(commit|rollback|abort|prepare)\b", text) is not None


def _is_done(step: Step, applied: Container[str]) -> bool:
    return (step.name in applied) == (step.action == "apply")


def _starts(parts: Sequence[Part], first: int) -> list[int]:
    """Where each of the parts begins in their message, in which the first one does at `first`."""
    lengths = (len(part.message.text) + len(_COMMIT_AND_GO_ON) for part in parts[:-1])
    return list(accumulate(lengths, initial=first))


def _moved(part: Part, start: int) -> Part:
    """A part whose segments count from the start of a message in which it begins at `start`."""
    message = part.message
    segments = tuple(one._replace(start=one.start + start) for one in message.segments)
    return part._replace(message=message._replace(segments=segments))


def _place(starts: Sequence[int], error: Any) -> int:
    """In which of the parts that begin there an error lies; the first where it does not say."""
    position = int(error.diag.statement_position or 1) - 1
    return sum(start <= position for start in starts[1:])
