"""What would run, and what stands in the way: the only room that decides. Opens nothing.

Every function here is pure: what is on disk and what the database says go in, a plan or an
error comes out. The runner obeys the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from flux.directory import MigrationDirectory
from flux.exceptions import (
    HalfDoneError,
    IrreversibleMigrationError,
    Location,
    MigrationDirectoryCorruptedError,
    MigrationLoadingError,
    Problem,
    UnknownMigrationError,
)
from flux.journal import Entry, UnderWay, under_way
from flux.late import LateRun, in_order_of_application, late_among
from flux.migration import (
    AppliedMigration,
    Late,
    Migration,
    Missing,
    Order,
    Repeatable,
    Script,
    is_legacy_hash,
    is_set_aside,
    sort_key,
)
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from typing import Literal, TypeAlias

Action: TypeAlias = "Literal['apply', 'undo', 'run']"
MigrationState: TypeAlias = "Literal['applied', 'pending', 'late', 'divergent', 'missing']"
#: The kinds of problems that are between the history and the directory.
DISAGREEMENTS = ("divergent", "missing", "late")
_RENAME = (
    "if it is applied nowhere yet, rename it so that it sorts last; or roll back what is newer, "
    "and apply again"
)


class DatabaseState(Record):
    """What the target database says: its history, and what flux remembers beside it.

    `history` is None on a database that flux has never touched. `unfinished` says that a
    batch stopped before its post-apply repeatables ran. `last_runs` maps the names of
    on-change repeatables to the hash of their last run. `journal` says how far a migration
    without a transaction got, and `late` after which ones late migrations ran.
    """

    history: tuple[AppliedMigration, ...] | None = None
    unfinished: bool = False
    last_runs: Mapping[str, str] = {}
    journal: tuple[Entry, ...] = ()
    late: tuple[LateRun, ...] = ()

    @property
    def under_way(self) -> UnderWay | None:
        """The migration that is half applied or half undone, if one is."""
        return under_way(self.journal)

    @property
    def applied(self) -> dict[str, AppliedMigration]:
        """The history by id."""
        return {row.id: row for row in self.history or ()}

    def in_order_of_application(self, order: Order) -> list[str]:
        """The ids in the history, the one that was applied first in front."""
        return in_order_of_application(self.applied, self.late, sort_key(order))


class Step(Record):
    """One thing to do: apply or undo a migration, or run a repeatable.

    `half` says how far an earlier run got with it, `late` after which newer one it is applied.
    """

    action: Action
    subject: Migration | Repeatable
    half: UnderWay | None = None
    late: LateRun | None = None

    @property
    def name(self) -> str:
        """The migration's id, or where the repeatable lies: `post-apply/views`."""
        return self.subject.id if isinstance(self.subject, Migration) else self.subject.name

    @property
    def path(self) -> str:
        """The file, as shown to users."""
        return self.subject.path

    @property
    def script(self) -> Script:
        """What it runs; an undo is read from disk for it."""
        if self.action == "undo" and isinstance(self.subject, Migration):
            return self.subject.undo_script()
        return self.subject.script

    def loaded(self) -> Step:
        """The same with its script read, where that is on disk and read anew at each look."""
        subject = self.subject
        if not isinstance(subject, Migration):
            return self
        if self.action == "undo":
            script = self.script
            return self._replace(subject=subject._replace(read_undo=lambda: script))
        loaded = subject.loaded()
        return self if loaded is subject else self._replace(subject=loaded)


class Plan(Record):
    """What would run, in order. `finishes` says that it completes a batch that was cut off."""

    steps: tuple[Step, ...] = ()
    finishes: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do, not even to finish a batch."""
        return not self.steps and not self.finishes

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """The migrations that would be applied or undone, in order."""
        return tuple(step.subject for step in self.steps if isinstance(step.subject, Migration))

    def outline(self) -> tuple[tuple[str, str, str], ...]:
        """Action, name and hash of each step: what it means for two plans to be the same."""
        return tuple((step.action, step.name, step.subject.hash) for step in self.steps)


class StatusRow(Record):
    """One migration as `status` shows it: on disk, in the history, or both.

    `half` says how far a run got that was to apply or undo it and did not come to the end.
    """

    id: str
    state: MigrationState
    applied_at: datetime.datetime | None = None
    path: str | None = None
    half: UnderWay | None = None


def survey(directory: MigrationDirectory, state: DatabaseState) -> tuple[StatusRow, ...]:
    """Every migration on disk or in the history, in order, with its state; none that was unread."""
    key = sort_key(directory.order)
    applied = state.applied
    on_disk = {migration.id: migration for migration in directory.migrations}
    half = state.under_way
    begun = {half.id} if half else set()
    newest = _newest(state, directory.order)
    rows = []
    half_id = half.id if half else None
    for id in sorted({*applied, *on_disk, *begun} - directory.unread, key=key):
        row, migration = applied.get(id), on_disk.get(id)
        if migration is None:
            found: MigrationState = "missing"
        elif row is None:
            is_late = newest is not None and key(id) < key(newest)
            found = "late" if is_late else "pending"
        else:
            found = "applied" if migration.matches(row.hash) else "divergent"
        at, path = row and row.applied_at, migration.path if migration else None
        rows.append(StatusRow._make((id, found, at, path, half if half_id == id else None)))
    return tuple(rows)


def newest_of(ids: Iterable[str], order: Order) -> str | None:
    """The id that a new one has to sort after, if there is any.

    Names that today's rules pass over do not count, also where flux-migrations 0.0.3 recorded
    them: `_x` sorts after every date.
    """
    key, ids = sort_key(order), list(ids)
    newest = max(ids, key=key, default=None)
    if newest is not None and is_set_aside(newest):
        return max((id for id in ids if not is_set_aside(id)), key=key, default=None)
    return newest


def _newest(state: DatabaseState, order: Order) -> str | None:
    """The newest id that is applied, half applied or half undone."""
    half = state.under_way
    begun = [half.id] if half else []
    return newest_of([row.id for row in state.history or ()] + begun, order)


def _newest_on_disk(directory: MigrationDirectory) -> str | None:
    ids = (migration.id for migration in directory.migrations)
    return newest_of((*ids, *directory.unread), directory.order)


def newer_than_directory(directory: MigrationDirectory, state: DatabaseState) -> tuple[str, ...]:
    """The missing ids, if all are newer than the newest on disk: the database is newer."""
    key = sort_key(directory.order)
    missing = [row.id for row in survey(directory, state) if row.state == "missing"]
    newest_on_disk = _newest_on_disk(directory)
    if newest_on_disk is None or any(key(id) <= key(newest_on_disk) for id in missing):
        return ()
    return tuple(missing)


def find_problems(
    directory: MigrationDirectory,
    state: DatabaseState,
    *,
    missing: Missing = "refuse",
    late: Late = "refuse",
) -> tuple[Problem, ...]:
    """Everything in which directory and history disagree, and breaches of the rules for ids.

    With `missing` as `allow-newer`, a database that is newer than the directory is no problem.
    With another `late` than `refuse`, late migrations are none. One that is half applied is none
    in any case: that it may run late was decided when it was begun.
    """
    problems: list[Problem] = []
    if directory.id_problems:
        # What flux-migrations 0.0.3 recorded stays valid, also where today's rules refuse the id.
        legacy = {row.id for row in state.history or () if is_legacy_hash(row.hash)}
        problems += [one for one in directory.id_problems if not legacy.issuperset(one.ids)]
    if _is_settled(directory, state):
        return tuple(problems)
    rows = survey(directory, state)
    key = sort_key(directory.order)
    half = state.under_way
    newest = _newest(state, directory.order)
    newest_on_disk = _newest_on_disk(directory) or ""
    allowed = newer_than_directory(directory, state) if missing == "allow-newer" else ()
    for row in rows:
        if row.state in ("applied", "pending") or row.id in allowed:
            continue
        if row.state == "divergent":
            problems.append(_divergent(row))
        elif row.state == "missing":
            problems.append(_missing(row, is_newer=key(row.id) > key(newest_on_disk)))
        elif row.state == "late" and late == "refuse" and row.half is None:
            is_half = half is not None and half.id == newest and half.direction == "apply"
            problems.append(_late(row, f"{newest}, which is newer, is {'half ' * is_half}applied"))
    return tuple(problems)


def _is_settled(directory: MigrationDirectory, state: DatabaseState) -> bool:
    """Whether all on disk is applied as it is, nothing else is, and nothing is under way.

    So it is at most starts; what `survey` tells of each would say no more, and takes longer.
    """
    recorded = {row.id: row.hash for row in state.history or ()}
    on_disk = {migration.id: migration.kept.hash for migration in directory.migrations}
    return recorded == on_disk and state.under_way is None


def refuse(problems: Sequence[Problem]) -> None:
    """Raise an error that holds all problems, if there are any.

    It is a `MigrationDirectoryCorruptedError` if history and directory disagree, else a
    `MigrationLoadingError`.
    """
    if any(problem.kind in DISAGREEMENTS for problem in problems):
        raise MigrationDirectoryCorruptedError(
            "history and migration directory disagree", problems=tuple(problems)
        )
    if problems:
        raise MigrationLoadingError(
            "the migration directory breaks the rules for ids", problems=tuple(problems)
        )


def plan_apply(
    directory: MigrationDirectory,
    state: DatabaseState,
    *,
    count: int | None = None,
    to: str | None = None,
    missing: Missing = "refuse",
    late: Late = "refuse",
) -> Plan:
    """The batch that applies the next `count` pending migrations, or those up to `to`, or all.

    An empty plan means that there is nothing to do. On-change repeatables that changed make a
    batch of their own; a batch that was cut off is finished. Late migrations that `late` lets pass
    are applied in order with the others; one that is half applied comes before all.

    Raises `MigrationDirectoryCorruptedError`, `UnknownMigrationError`, and `HalfDoneError` where a
    rollback was cut off in the middle of a migration, or `to` leaves out one that is half applied.
    """
    refuse(find_problems(directory, state, missing=missing, late=late))
    half = state.under_way
    if half is not None and half.direction == "undo":
        raise HalfDoneError(
            f"{half}; before anything is applied, that has to be done",
            hint="`flux rollback` goes on with it",
        )
    applied = state.applied
    pending = [migration for migration in directory.migrations if migration.id not in applied]
    if to is not None:
        key = sort_key(directory.order)
        find_migration(to, [migration.id for migration in directory.migrations], "on disk")
        pending = [migration for migration in pending if key(migration.id) <= key(to)]
    if half is not None:
        pending.sort(key=lambda migration: migration.id != half.id)
        if pending and pending[0].id != half.id:
            raise HalfDoneError(
                f"{half}; before anything else is applied, that has to be done",
                hint="`flux resume` goes on with it",
            )
    pending = pending[:count]
    due_before = _due(directory.pre_apply, state)
    due_after = _due(directory.post_apply, state)
    if not pending and not changed_repeatables(directory, state):
        steps = due_after if state.unfinished else ()
        return Plan(tuple(Step("run", r) for r in steps), finishes=state.unfinished)
    return _around(due_before, _steps_to_apply(pending, state, directory.order), due_after)


def _steps_to_apply(
    migrations: Sequence[Migration], state: DatabaseState, order: Order
) -> list[Step]:
    runs = late_among(
        [migration.id for migration in migrations],
        newest=newest_of(state.applied, order),
        applied=state.applied,
        late=state.late,
        key=sort_key(order),
    )
    late = {run.id: run for run in runs}
    return [
        _step("apply", migration, state.under_way)._replace(late=late.get(migration.id))
        for migration in migrations
    ]


def _step(action: Action, migration: Migration, half: UnderWay | None) -> Step:
    return Step(action, migration, half if half and half.id == migration.id else None)


def changed_repeatables(directory: MigrationDirectory, state: DatabaseState) -> tuple[str, ...]:
    """The names of the on-change repeatables whose text differs from their last run."""
    due = (*_due(directory.pre_apply, state), *_due(directory.post_apply, state))
    return tuple(repeatable.name for repeatable in due if repeatable.script.directives.on_change)


def ids_to_undo(
    state: DatabaseState,
    order: Order,
    *,
    count: int | None = 1,
    to: str | None = None,
    through: str | None = None,
) -> list[str]:
    """The last `count` ids of the history (None: all), the one that was applied last in front.

    The last is the one that was applied last: a late one, or else the newest. Or all that were
    applied after `to`, which itself stays applied; or all back to `through`, which is undone too.

    Raises `HalfDoneError` where a migration is half applied, and `UnknownMigrationError`.
    """
    half = state.under_way
    if half is not None and half.direction == "apply":
        raise HalfDoneError(
            f"{half}; before anything is rolled back, that has to be done",
            hint="`flux resume` goes on with it; mend the file from that statement on, if need be, "
            "and roll it back then",
        )
    last_first = state.in_order_of_application(order)[::-1]
    target = to if to is not None else through
    if target is None:
        ids = last_first[:count]
    else:
        find_migration(target, last_first, "applied")
        ids = last_first[: last_first.index(target) + (through is not None)]
    if half is not None and half.id not in ids:
        raise HalfDoneError(
            f"{half}; before anything else, that has to be done",
            hint="`flux resume` goes on with it, and so does `flux rollback`",
        )
    return ids


def plan_rollback(
    directory: MigrationDirectory,
    state: DatabaseState,
    *,
    count: int | None = 1,
    to: str | None = None,
    through: str | None = None,
) -> Plan:
    """The batch that undoes `ids_to_undo`. The directory need have read no other migrations.

    Each undo is read from disk once, when it is looked at. With nothing to undo, a batch that was
    cut off is finished.

    Raises `MigrationDirectoryCorruptedError` where what is to be undone is divergent or
    missing, `IrreversibleMigrationError` where it has no undo, and what `ids_to_undo` raises.
    """
    ids = ids_to_undo(state, directory.order, count=count, to=to, through=through)
    touched = set(ids)
    refuse(
        [
            problem
            for problem in find_problems(directory, state)
            if problem.kind in ("divergent", "missing") and touched.issuperset(problem.ids)
        ]
    )
    on_disk = {migration.id: migration for migration in directory.migrations}
    migrations = [on_disk[id] for id in ids]
    _refuse_irreversible(migrations)
    # On-change ones wait for the next apply, which runs them all: what they made may be gone.
    before = [r for r in directory.pre_apply if not r.script.directives.on_change]
    after = [r for r in directory.post_apply if not r.script.directives.on_change]
    if not migrations:
        finishes = state.unfinished and bool(after)
        return Plan(tuple(Step("run", r) for r in after) if finishes else (), finishes=finishes)
    steps = [_step("undo", _reading_once(migration), state.under_way) for migration in migrations]
    return _around(before, steps, after)


def _reading_once(migration: Migration) -> Migration:
    """The same, whose undo stays what it was when it was first read."""
    read_undo = migration.read_undo
    return migration._replace(read_undo=read_undo and cache(read_undo))


def _around(
    before: Sequence[Repeatable], steps: Sequence[Step], after: Sequence[Repeatable]
) -> Plan:
    return Plan(
        (*(Step("run", r) for r in before), *steps, *(Step("run", r) for r in after)),
    )


def _due(repeatables: Sequence[Repeatable], state: DatabaseState) -> list[Repeatable]:
    return [
        repeatable
        for repeatable in repeatables
        if not repeatable.script.directives.on_change
        or state.last_runs.get(repeatable.name) != repeatable.script.hash
    ]


def find_migration(id: str, ids: Sequence[str], where: str = "on disk") -> int:
    """The place of an id among others. Raises `UnknownMigrationError`, with those it is like."""
    if id in ids:
        return ids.index(id)
    from difflib import get_close_matches

    containing = [known for known in ids if id and id in known]
    near = containing or get_close_matches(id, ids, n=1)
    raise UnknownMigrationError(
        f"no migration {id!r} is {where}",
        hint=f"did you mean {' or '.join(map(repr, near[:3]))}?"
        if near
        else "`flux status` lists them",
    )


def _refuse_irreversible(migrations: Sequence[Migration]) -> None:
    without = [migration for migration in migrations if migration.read_undo is None]
    if without:
        raise IrreversibleMigrationError(
            f"{_ids([m.id for m in without])} cannot be rolled back: there is no undo",
            hint="write one: ID.undo.sql beside ID.sql, or undo() in a Python migration; "
            "a comment alone will do where nothing needs undoing",
            problems=tuple(
                Problem("irreversible", (m.id,), "has no undo", None, Location(m.path))
                for m in without
            ),
        )


def _ids(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} migrations"


def _divergent(row: StatusRow) -> Problem:
    return Problem(
        "divergent",
        (row.id,),
        f"{row.id} is divergent: it has changed since it was applied",
        "restore the file as it was applied, and put the change into a new migration; or roll "
        "back to before it, and change it then",
        Location(row.path) if row.path else None,
    )


def _missing(row: StatusRow, *, is_newer: bool) -> Problem:
    return Problem(
        "missing",
        (row.id,),
        f"{row.half}, and the directory does not have it"
        if row.half
        else f"{row.id} is missing: the history has it, and the directory does not",
        "the database is newer than this directory: use the version that has the file, or "
        'restore it (missing = "allow-newer" in the configuration lets an old version start)'
        if is_newer
        else "restore the file; if it was renamed, give it back the name it was applied with",
    )


def _late(row: StatusRow, why: str) -> Problem:
    return Problem(
        "late",
        (row.id,),
        f"{row.id} is late: it is pending, and {why}",
        f"{_RENAME}; or let `flux test --late` prove that their order does not matter, and give "
        "`--allow-late`",
        Location(row.path) if row.path else None,
    )


def unproven(plan: Plan, ids: Sequence[str], why: str) -> Problem:
    """The problem of a plan's late migrations of which a proof failed; `why` says at what."""
    [first, *others] = [step for step in plan.steps if step.name in ids]
    return Problem(
        "late",
        tuple(ids),
        f"{', '.join(ids)} {'are' if others else 'is'} late, and {why}",
        f"{_RENAME}; or look at `flux test --late`, and give `--allow-late` where it may be",
        None if others else Location(first.path),
    )
