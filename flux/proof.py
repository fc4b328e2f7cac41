"""Proving migrations in scratch databases: that an undo undoes, and that all can be done again.

Of each migration: apply it, undo it, and the catalog is what it was; apply it again, and the
catalog is what it was after the first time. Of each repeatable: run it again, and nothing changes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from flux.exceptions import FluxMigrationException, MigrationApplyError
from flux.fingerprint import Difference, Fingerprint, compare
from flux.hooks import Hooks
from flux.migration import Migration, Repeatable
from flux.plan import Action, Step
from flux.rehearsal import Rehearsal, Stage, one_batch

#: `applied`: it was only needed for those after it. `not reached`: one before it fails to apply.
Verdict = Literal["proven", "no undo", "failed", "applied", "not reached"]
#: What was being done when a fault was found; the names of hooks are those of their functions.
Moment = Literal["run", "before", "apply", "after", "undo", "undone", "apply again", "run again"]
_NEEDS_UNDO = (
    "there is no undo, and one is required: write ID.undo.sql beside ID.sql, or undo() in a "
    "Python migration; a comment alone will do where nothing needs undoing"
)
_Subject = Migration | Repeatable
_AnySubject = TypeVar("_AnySubject", Migration, Repeatable)


class Fault(NamedTuple):
    """What is wrong with a file, when it was found, in words, and what differs by it.

    `error` is there where a script failed, rather than made something else than it should.
    `before` and `now` say what the two sides of the differences are.
    """

    moment: Moment
    path: str
    message: str
    differences: tuple[Difference, ...] = ()
    error: FluxMigrationException | None = None
    before: str = "before"
    now: str = "now"


class Proof(NamedTuple):
    """What was found of one migration or repeatable, and how long that took in seconds."""

    name: str
    path: str
    verdict: Verdict
    seconds: float = 0.0
    fault: Fault | None = None


def prove(
    stage: Stage, hooks: Mapping[str, Hooks], chosen: Callable[[str], bool] = lambda _: True
) -> Iterator[Proof]:
    """Prove the chosen migrations of a directory one by one, and with all of them its repeatables.

    The others are applied as far as these need them. What comes after a fault is proven in another
    scratch database. Each is dropped in the end.

    Raises `MigrationLoadingError` and `ScratchDatabaseError` before anything runs, and
    `MigrationApplyError` where a pre-apply script fails on an empty database.
    """
    migrations = stage.directory.migrations
    numbers = [number for number, migration in enumerate(migrations) if chosen(migration.id)]
    pending = deque(migrations[: numbers[-1] + 1] if numbers else ())
    before, after = stage.directory.pre_apply, stage.directory.post_apply
    is_whole = len(numbers) == len(migrations)
    done: list[Migration] = []
    left = dict(hooks)
    while True:
        with stage.rehearsal() as rehearsal:
            bench = _Bench(rehearsal, stage, left)
            if not done:
                rehearsal.check(one_batch(stage.directory, pending))
            bench.replay(before, done)
            fault = None
            while pending and fault is None:
                migration = pending.popleft()
                judge = bench.prove if chosen(migration.id) else bench.apply
                proof = _proof(migration.id, migration, judge)
                fault = proof.fault
                if fault is not None:
                    left.pop(migration.id, None)  # what its hooks do was told, and is not to go on
                done.append(migration)
                yield proof
            if fault is None and is_whole:
                yield from bench.prove_repeatables(before, after)
        if fault is not None and fault.moment == "apply":
            yield from (Proof(m.id, m.path, "not reached") for m in pending)
            return
        if fault is None or not (pending or (is_whole and (before or after))):
            return


class _FaultError(Exception):
    """A fault was found, which this carries."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def _proof(name: str, subject: _AnySubject, judge: Callable[[_AnySubject], Verdict]) -> Proof:
    """What `judge` finds of a migration or a repeatable, and how long it took."""
    started = time.perf_counter()
    fault = None
    try:
        verdict = judge(subject)
    except _FaultError as error:
        verdict, fault = "failed", error.fault
    return Proof(name, subject.path, verdict, time.perf_counter() - started, fault)


def _as_told(error: FluxMigrationException, step: Step) -> FluxMigrationException:
    """The error of a step, without what matters only in a database that stays.

    How to go on with a migration that was half applied, or with a hook as a migration.
    """
    if isinstance(error, MigrationApplyError):
        error.state = ""
        if step.script.directives.no_transaction or isinstance(step.subject, Repeatable):
            error.hint = None
    return error


class _Bench:
    """One scratch database in which proofs are made, and what is known of its catalog."""

    def __init__(self, rehearsal: Rehearsal, stage: Stage, hooks: Mapping[str, Hooks]) -> None:
        self._rehearsal = rehearsal
        self._place = stage.place
        self._requires_undo = stage.config.require_undo
        self._hooks = hooks
        self._known: Fingerprint | None = None
        self._outside = Fingerprint() if rehearsal.reaches_out else stage.place.beyond()
        #: When the last script ran, and its file.
        self._last: tuple[Moment, str] = ("run", "")

    def replay(self, before: Sequence[Repeatable], migrations: Sequence[Migration]) -> None:
        """Bring the database to where all these are applied, with the rows that hooks put in."""
        for repeatable in before:
            self._rehearsal.run(Step("run", repeatable))
        for migration in migrations:
            hooks = self._hooks.get(migration.id, Hooks())
            self._call(hooks.before, "before")
            self._rehearsal.run(Step("apply", migration))
            self._call(hooks.after, "after")

    def apply(self, migration: Migration) -> Verdict:
        """Apply a migration that is not to be proven, with its hooks."""
        hooks = self._hooks.get(migration.id, Hooks())
        self._call(hooks.before, "before")
        self._step("apply", migration, "apply", "cannot be applied")
        self._call(hooks.after, "after")
        return "applied"

    def prove(self, migration: Migration) -> Verdict:
        """Apply a migration, undo it and apply it again, and look at the catalog each time."""
        hooks = self._hooks.get(migration.id, Hooks())
        self._call(hooks.before, "before")
        original = self._fingerprint()
        self._step("apply", migration, "apply", "cannot be applied")
        applied = self._fingerprint()
        self._call(hooks.after, "after")
        if migration.read_undo is None:
            if self._requires_undo:
                raise _FaultError(Fault("undo", migration.path, _NEEDS_UNDO))
            return "no undo"
        undo = migration.read_undo().path
        self._step("undo", migration, "undo", "the undo fails")
        self._expect(
            original,
            lambda found: Fault(
                "undo",
                undo,
                "the undo does not restore what was before",
                found,
                before="before the migration",
                now="after its undo",
            ),
        )
        self._call(hooks.undone, "undone")
        self._step("apply", migration, "apply again", "cannot be applied again after its undo")
        self._expect(
            applied,
            lambda found: Fault(
                "apply again",
                migration.path,
                "applied again after its undo, it makes something else",
                found,
                before="applied for the first time",
                now="applied again",
            ),
        )
        self._call(hooks.after, "after")
        return "proven"

    def prove_repeatables(
        self, before: Sequence[Repeatable], after: Sequence[Repeatable]
    ) -> Iterator[Proof]:
        """Run the repeatables as the next batches would; those before were run once."""
        for repeatable in before:
            yield _proof(repeatable.name, repeatable, self._run_again)
        failed = set()
        for repeatable in after:
            proof = _proof(repeatable.name, repeatable, self._run)
            if proof.fault is not None:
                failed.add(repeatable)
                yield proof
        for repeatable in after:
            if repeatable not in failed:
                yield _proof(repeatable.name, repeatable, self._run_again)

    def _run(self, repeatable: Repeatable) -> Verdict:
        self._step("run", repeatable, "run", "fails")
        return "applied"

    def _run_again(self, repeatable: Repeatable) -> Verdict:
        first = self._fingerprint()
        self._step("run", repeatable, "run again", "fails when it is run again")
        self._expect(
            first,
            lambda found: Fault(
                "run again",
                repeatable.path,
                "run again, it makes something else",
                found,
                before="before it ran again",
            ),
        )
        return "proven"

    def _call(self, hook: Repeatable | None, moment: Moment) -> None:
        if hook is not None:
            self._step("run", hook, moment, f"{moment}() fails")

    def _step(self, action: Action, subject: _Subject, moment: Moment, otherwise: str) -> None:
        """Run one step, and see that it changes nothing outside of the database."""
        step = Step(action, subject)
        self._known, self._last = None, (moment, step.script.path)
        try:
            self._rehearsal.run(step)
        except FluxMigrationException as error:
            told = _as_told(error, step)
            raise _FaultError(Fault(moment, step.script.path, otherwise, error=told)) from error
        if self._rehearsal.reaches_out:
            return
        before, self._outside = self._outside, self._place.beyond()
        if found := compare(before, self._outside):
            message = "it changes what is outside of its database"
            raise _FaultError(Fault(moment, step.script.path, message, found))

    def _fingerprint(self) -> Fingerprint:
        if self._known is None:
            try:
                self._known = self._rehearsal.fingerprint()
            except FluxMigrationException as error:  # a script has closed the connection
                raise _FaultError(
                    Fault(*self._last, "leaves no connection", error=error)
                ) from error
        return self._known

    def _expect(
        self, wanted: Fingerprint, fault: Callable[[tuple[Difference, ...]], Fault]
    ) -> None:
        """See that the catalog is what it should be, or raise the fault of the differences."""
        if found := compare(wanted, self._fingerprint()):
            raise _FaultError(fault(found))
