"""Running plans: decided from the directory and the history, and carried out step by step.

The order is always the same: read the history without a lock, read the directory, plan; with
something to do, take the lock, read the history again, plan again, check every script, and
only then run. What runs is recorded in the transaction it ran in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from types import TracebackType

from flux import directory as directories
from flux.address import backend_of
from flux.backends import backend_of_connection
from flux.backends.base import MigrationBackend
from flux.backends.signals import HistoryChangedError
from flux.config import FluxConfig
from flux.exceptions import (
    ApprovalError,
    DatabaseUnavailableError,
    FluxMigrationException,
    MigrationApplyError,
    MigrationLoadingError,
    Problem,
    UnknownMigrationError,
)
from flux.journal import Entry, UnderWay
from flux.migration import AppliedMigration, Migration
from flux.plan import (
    DatabaseState,
    Plan,
    Step,
    changed_repeatables,
    find_problems,
    ids_to_undo,
    newer_than_directory,
    plan_apply,
    plan_rollback,
    refuse,
    survey,
    unproven,
)
from flux.results import BatchResult, Event, Status, StepResult
from flux.steps import StepRunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    from typing_extensions import Self

    from flux.log import Log

#: Asked with the plan before anything is locked; True goes ahead.
Confirm = Callable[[Plan], bool]


#: Of a statement in doubt: it took effect, or it is to run again.
Answer: TypeAlias = "Literal['skip', 'retry']"


class FluxRunner(StepRunner):
    """Migrations of one directory on one database. A context manager.

    Reading methods change nothing and take no lock. `on_event` is called with an `Event` as
    things happen; what it raises ends the batch, but for `progress`, which comes from a thread of
    its own. `directory` is the configuration's where it has been read already.
    """

    def __init__(
        self,
        config: FluxConfig,
        backend: MigrationBackend,
        *,
        on_event: Callable[[Event], None] | None = None,
        directory: directories.MigrationDirectory | None = None,
    ) -> None:
        super().__init__(config, backend, on_event=on_event)
        self._directory = directory
        #: What was listed of it while the database connected.
        self._listing: directories.Listing | None = None
        self._state: DatabaseState | None = None
        #: Called with the runner of each scratch database in which something is proven.
        self.on_scratch: Callable[[StepRunner], None] = lambda _: None
        self._proven: object = None

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        connection_uri: str | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Self:
        """A runner for a configuration file.

        `connection_uri` is the database's address; without it, the environment's or the file's.
        Raises `InvalidConfigurationError` and `BackendLoadingError`.
        """
        return cls.from_config(FluxConfig.from_file(path), connection_uri, on_event=on_event)

    @classmethod
    def from_config(
        cls,
        config: FluxConfig,
        database: Any = None,
        *,
        on_event: Callable[[Event], None] | None = None,
        directory: directories.MigrationDirectory | None = None,
    ) -> Self:
        """A runner for a configuration, and an address or an open connection."""
        runner = super().from_config(config, database, on_event=on_event)
        runner._directory = directory
        return runner

    def __enter__(self) -> Self:
        self.backend.while_connecting = self._list_directory
        try:
            return super().__enter__()
        except DatabaseUnavailableError:
            if self._directory is None:  # what is wrong with it is told all the same
                directories.read_configured(self.config)
            raise

    def _list_directory(self) -> None:
        """List the directory, which takes about as long as to connect. Never raises."""
        if self._directory is None:
            with suppress(MigrationLoadingError):  # told when it is read
                self._listing = directories.list_files(self.config.migration_directory)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = None
        super().__exit__(exc_type, exc, traceback)

    # Reading ---------------------------------------------------------------------------------

    @property
    def directory(self) -> directories.MigrationDirectory:
        """The migration directory, with what its history has recorded under older rules."""
        applied = self.state.applied
        if self._directory is None:
            self._directory = directories.read_configured(
                self.config, applied, listing=self._listing
            )
        self._directory = self._directory.with_recorded(applied)
        return self._directory

    @property
    def state(self) -> DatabaseState:
        """What the database says, as last read."""
        if self._state is None:
            if self.backend.dbapi is None:
                raise RuntimeError("a FluxRunner is open only inside of its `with` block")
            self._state = self.backend.read_state()
        return self._state

    def refresh(self) -> None:
        """Read the history again at the next need."""
        self._state = None

    def status(self) -> Status:
        """Every migration with its state, and every problem. Read-only."""
        directory, state = self.directory, self.state
        return Status(
            rows=survey(directory, state),
            problems=(
                *self._find_problems(),
                *self._changes_of_half(),
            ),
            initialized=state.history is not None,
            unfinished=state.unfinished,
            changed=changed_repeatables(directory, state),
            in_doubt=self.is_in_doubt,
        )

    @property
    def is_in_doubt(self) -> bool:
        """Whether `resume_migration` needs an answer about a statement that was cut off."""
        half = self.state.under_way
        return bool(half and half.open and self.backend.is_in_doubt(half.open))

    def _changes_of_half(self) -> list[Problem]:
        """Where the file of a migration that is half done differs from what it has done."""
        half = self.state.under_way
        steps = [
            Step("apply", m, half) for m in self.directory.migrations if half and m.id == half.id
        ]
        return [problem for problem in self._problems_of(steps) if problem.kind == "under-way"]

    def list_applied_migrations(self) -> list[Migration]:
        """The migrations on disk that are applied, in order. Read-only."""
        applied = self.state.applied
        return [migration for migration in self.directory.migrations if migration.id in applied]

    def list_unapplied_migrations(self) -> list[Migration]:
        """The migrations on disk that are pending, in order. Read-only."""
        applied = self.state.applied
        return [m for m in self.directory.migrations if m.id not in applied]

    def history(self) -> tuple[AppliedMigration, ...]:
        """The rows of the history. Read-only."""
        return self.state.history or ()

    def migrations_to_apply(self, n: int | None = None) -> list[Migration]:
        """The next `n` pending migrations, or all, in order. Read-only."""
        return self.list_unapplied_migrations()[: _count(n)]

    def migrations_to_rollback(self, n: int | None = 1) -> list[Migration]:
        """The last `n` that were applied, or all for None, the last in front. Read-only."""
        on_disk = {migration.id: migration for migration in self.directory.migrations}
        ids = self.state.in_order_of_application(self.config.order)[::-1]
        return [on_disk[id] for id in ids if id in on_disk][: _count(n)]

    def validate_applied_migrations(self) -> None:
        """Raise `MigrationDirectoryCorruptedError` if history and directory disagree. Read-only."""
        refuse(self._find_problems())

    def _find_problems(self) -> tuple[Problem, ...]:
        config = self.config
        return find_problems(self.directory, self.state, missing=config.missing, late=config.late)

    def plan_apply(self, n: int | None = None, *, to: str | None = None) -> Plan:
        """What `apply_migrations` would run. Read-only; raises what it would raise."""
        plan = self._plan_apply(n, to=to)
        self._require_proof(plan)
        return plan

    def _plan_apply(self, n: int | None, *, to: str | None) -> Plan:
        return plan_apply(
            self.directory,
            self.state,
            count=_count(n),
            to=to,
            missing=self.config.missing,
            late=self.config.late,
        )

    def plan_rollback(
        self, n: int | None = 1, *, to: str | None = None, through: str | None = None
    ) -> Plan:
        """What a rollback would run; `through` is undone too. Read-only; raises as it would."""
        state, count = self.state, _count(n)
        ids = ids_to_undo(state, self.config.order, count=count, to=to, through=through)
        directory = self._directory_with(ids)
        if not self.config.apply_repeatable_on_undo:
            directory = directory._replace(pre_apply=(), post_apply=())
        return plan_rollback(directory, state, count=count, to=to, through=through)

    def _directory_with(self, ids: Sequence[str]) -> directories.MigrationDirectory:
        """The directory, of which no more migrations are read than these; all where they are."""
        if self._directory is not None:
            return self.directory
        applied = self.state.applied
        directory = directories.read_configured(
            self.config, applied, only=set(ids), listing=self._listing
        )
        return directory.with_recorded(ids)

    def check(self, plan: Plan) -> None:
        """Raise `MigrationLoadingError` for everything in a plan that could not run. Read-only."""
        _refuse_scripts(self._problems_of(plan.steps))

    def check_directory(self) -> tuple[Problem, ...]:
        """What in any migration, undo or repeatable on disk could not run. Read-only."""
        directory = self.directory
        half = self.state.under_way
        actions: list[Step] = [
            *(Step("run", repeatable) for repeatable in directory.pre_apply),
            *(
                Step("apply", migration, half if half and half.id == migration.id else None)
                for migration in directory.migrations
            ),
            *(Step("run", repeatable) for repeatable in directory.post_apply),
        ]
        return tuple(self._problems_of(actions))

    def _problems_of(self, steps: Sequence[Step]) -> list[Problem]:
        """What stands against steps, which most runs have none of. Read-only."""
        if not steps:
            return []
        from flux.checking import problems_of

        return [problem for step in steps for problem in problems_of(step, self.backend)]

    def _require_proof(self, plan: Plan) -> None:
        """Refuse late migrations whose order matters, where that is to be proven. Read-only.

        What is proven is remembered, for this directory and history.
        """
        if self._is_proven(plan):
            return
        from flux.late_proof import prove_beside, to_prove

        applied, late = to_prove(plan, self.state, self.config.order)
        are = f"{late[0]} is" if len(late) == 1 else f"{', '.join(late)} are"
        message = f"proving in scratch databases that it does not matter that {are} late"
        self._emit(Event("wait", message=message))
        proof = prove_beside(
            self, self.directory, applied, late, self._tell_of_scratch, self.on_scratch
        )
        if not proof.is_proven:
            refuse([unproven(plan, late, str(proof))])
        self._proven = self._claim(plan)

    def _tell_of_scratch(self, event: Event) -> None:
        """Pass on what is told of a scratch database, but for steps: those are of no batch."""
        if event.kind not in ("start", "done"):
            self._emit(event)

    def _is_proven(self, plan: Plan) -> bool:
        """Whether nothing is left to be proven of a plan."""
        is_late = any(step.late and not step.half for step in plan.steps)
        return self.config.late != "prove" or not is_late or self._proven == self._claim(plan)

    def _claim(self, plan: Plan) -> object:
        """All that the proof for a plan depends on but the server."""
        return self.state.history, self.state.late, self.state.journal, plan.outline()

    # Changing --------------------------------------------------------------------------------

    def apply_migrations(
        self, n: int | None = None, *, to: str | None = None, confirm: Confirm | None = None
    ) -> BatchResult:
        """Apply the next `n` pending migrations, or those up to `to`, or all. Writes.

        With nothing to do, nothing is locked and nothing written. Raises
        `MigrationDirectoryCorruptedError` before anything runs, `MigrationLockError`,
        `ApprovalError` when `confirm` says no, and `MigrationApplyError`.
        """
        if self.config.missing == "allow-newer":
            self._tell_what_is_newer()
        done: list[StepResult] = []
        return self._carry_out(lambda: self._plan_apply(_left(n, done), to=to), confirm, done)

    def _tell_what_is_newer(self) -> None:
        if newer := newer_than_directory(self.directory, self.state):
            has = ", ".join(newer)
            message = f"the database is newer than this directory: it also has {has}"
            self._emit(Event("warning", message=message))

    def rollback_migrations(
        self, n: int | None = 1, *, to: str | None = None, confirm: Confirm | None = None
    ) -> BatchResult:
        """Undo the last `n` migrations (None: all), or all that were applied after `to`. Writes.

        The last is the newest, or else a late one that was applied after it. Raises as
        `apply_migrations` does, and `IrreversibleMigrationError` before anything runs.
        """
        done: list[StepResult] = []
        return self._carry_out(lambda: self.plan_rollback(_left(n, done), to=to), confirm, done)

    def rollback_migration(self, id: str) -> BatchResult:
        """Undo all migrations from the last back to this one, which is undone too. Writes.

        Raises `UnknownMigrationError` when it is not applied.
        """
        return self._carry_out(lambda: self.plan_rollback(through=id), None, [])

    def resume_migration(self, answer: Answer | None = None) -> BatchResult:
        """Go on with the migration that is half applied or half rolled back, and no other. Writes.

        `answer` is about a statement of which it cannot be known whether it took effect: `skip`
        says that it did, `retry` that it is to run again. Raises `UnknownMigrationError` where no
        migration is half done or no statement in doubt, and what `apply_migrations` raises.
        """
        half = self._require_half()
        if answer is not None:
            with self.backend.migration_lock():
                self.refresh()
                self._settle_predecessor()
                self.call(partial(self.backend.settle_doubt, self._answered(answer)))
            self.refresh()
        return self._carry_out(lambda: self._plan_rest(half), None, [])

    def _require_half(self) -> UnderWay:
        half = self.state.under_way
        if half is None:
            raise UnknownMigrationError("no migration is half applied or half rolled back")
        return half

    def _plan_rest(self, half: UnderWay) -> Plan:
        """What is left to do of a migration that is half done."""
        if half.direction == "apply":  # it comes before all others, and they may be late
            return self._plan_apply(int(half.id not in self.state.applied), to=half.id)
        return self.plan_rollback(through=half.id)

    def _answered(self, answer: Answer) -> Entry:
        """The row of the statement in doubt, answered."""
        half = self._require_half()
        if half.open is None or not self.backend.is_in_doubt(half.open):
            raise UnknownMigrationError(
                f"no statement of {half.id} is in doubt",
                hint=f"`flux resume` goes on with it, without --{answer}",
            )
        plan = self._plan_rest(half)
        self.check(plan)
        if answer == "retry":
            return half.open._replace(state="failed")
        [step] = [step for step in plan.steps if step.half is not None]
        from flux.units import find_change_of_open

        _refuse_scripts(find_change_of_open(step.script, self.backend.units(step.script), half))
        return half.open._replace(state="finished")

    def _carry_out(
        self, make_plan: Callable[[], Plan], confirm: Confirm | None, done: list[StepResult]
    ) -> BatchResult:
        """Carry out what `make_plan` gives, also when it gives another plan under the lock."""
        while True:
            plan = make_plan()
            if plan.is_empty:
                return BatchResult(tuple(done))
            self.check(plan)
            self._require_proof(plan)
            if confirm is not None and not confirm(plan):
                raise ApprovalError("nothing was changed: the plan was not approved")
            with self.backend.migration_lock():
                planned_for = self.state
                self.refresh()
                self._settle_predecessor()
                # Planning is pure: what was planned for this very history holds, and is checked.
                current = plan if self.state == planned_for else make_plan()
                if confirm is not None and current.outline() != plan.outline():
                    continue  # shown and asked again, without the lock
                if not self._is_proven(current):
                    continue  # and proven without it, which others may wait for
                if current != plan:
                    self.check(current)
                try:
                    self._run_batch(current, done)
                except HistoryChangedError:
                    # Somebody without the lock was faster; what is left is planned again.
                    self.refresh()
                    continue
                self.refresh()
                return BatchResult(tuple(done))

    def _settle_predecessor(self) -> None:
        """Wait for what a killed run still has running, and forget what it did of repeatables."""
        if journal := self.state.journal:
            self.call(partial(self.backend.wait_for_predecessor, journal))
            if started := [entry for entry in journal if entry.direction == "run"]:
                self.call(partial(self.backend.forget_rows, started))

    def _run_batch(self, plan: Plan, done: list[StepResult]) -> None:
        before = len(done)
        remembers = any(step.name.startswith("post-apply/") for step in plan.steps)
        self._prepare(plan, remembers)
        try:
            self._run_steps(plan.steps, done)
        except (Exception, KeyboardInterrupt) as error:
            self._after_failure(plan, error, done, before, remembers)
            raise
        if remembers or plan.finishes:
            self.backend.mark_finished()

    def _prepare(self, plan: Plan, remembers: bool) -> None:
        on_change = any(
            step.action == "run" and step.subject.script.directives.on_change for step in plan.steps
        )
        journals = any(step.script.directives.no_transaction for step in plan.steps)
        undoes = any(step.action == "undo" for step in plan.steps)
        if undoes and self.state.last_runs:
            self.call(self.backend.forget_runs)
        late = [step.late for step in plan.steps if step.late is not None]
        is_new = self.state.history is None
        if is_new or on_change or remembers or journals or late:
            prepare = partial(
                self.backend.prepare,
                history=is_new,
                memory=on_change or remembers or journals or bool(late),
                unfinished=remembers,
            )
            self.call(prepare)
        to_apply = {step.name for step in plan.steps if step.action == "apply"}
        stale = [run for run in self.state.late if run.id in to_apply]
        if late or stale:
            self.call(partial(self.backend.note_late, late, stale))

    def _after_failure(
        self,
        plan: Plan,
        error: BaseException,
        done: Sequence[StepResult],
        before: int,
        remembers: bool,
    ) -> None:
        """Leave the memory of the batch as the truth has it; run post-apply if so configured."""
        if not remembers or self.backend.outcome_is_unknown():
            return  # on a broken connection nothing can be done; the next `apply` finishes it
        if (
            self.config.post_apply_on_failure
            and isinstance(error, MigrationApplyError)
            and not error.id.startswith("post-apply/")
        ):
            try:
                post = [step for step in plan.steps if step.name.startswith("post-apply/")]
                self._run_steps(post, [])
            except FluxMigrationException as second:
                # The first one is what is told; the next `apply` finishes the batch.
                error.state += f"; after that, {second.message}"
                return
        elif self.state.unfinished or any(step.action != "run" for step in done[before:]):
            return  # the next `apply` finishes the batch
        # Where this fails, the next `apply` runs the repeatables once more, and no harm is done.
        with suppress(Exception):
            self.backend.mark_finished()

    @cached_property
    def _log(self) -> Log:
        from flux.log import Log

        return Log()

    def _emit(self, event: Event) -> None:
        self._log.note(event)
        super()._emit(event)


def apply(
    database: Any = None,
    migration_directory: str | os.PathLike[str] | None = None,
    *,
    config: FluxConfig | str | os.PathLike[str] | None = None,
    n: int | None = None,
    to: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> BatchResult:
    """Apply pending migrations to a database, in one call: for an application's start-up. Writes.

    `database` is an address or an open DB-API connection; without it, the environment's or the
    configuration's. `config` is a `FluxConfig` or the path of a configuration file; without it,
    the migrations are those of `migration_directory`, with default settings and the backend
    that the address is for.

    Raises what `FluxRunner.apply_migrations` raises.
    """
    if config is None:
        config = _config_for(database)
    elif not isinstance(config, FluxConfig):
        config = FluxConfig.from_file(config)
    if migration_directory is not None:
        config = config._replace(migration_directory=os.fspath(migration_directory))
    with FluxRunner.from_config(config, database, on_event=on_event) as runner:
        return runner.apply_migrations(n, to=to)


def _config_for(database: Any) -> FluxConfig:
    if database is not None and not isinstance(database, str):
        return FluxConfig(backend=backend_of_connection(database)[0])
    return FluxConfig(backend=backend_of(FluxConfig().find_url(database)))


def _count(n: int | None) -> int | None:
    if n is not None and n < 0:
        raise ValueError(f"n must be 0 or more, not {n}")
    return n


def _left(n: int | None, done: Sequence[StepResult]) -> int | None:
    """How many of `n` migrations are still to be done."""
    return None if n is None else n - sum(step.action != "run" for step in done)


def _refuse_scripts(problems: Sequence[Problem]) -> None:
    if problems:
        raise MigrationLoadingError.of(
            tuple(problems), f"{len(problems)} problems in what would run"
        )
