"""Proving that it does not matter that migrations are late: both orders, in scratch databases.

One database gets all migrations in the order of their ids, as a new one would. The other gets those
that are applied in the order in which they were, and then the late ones. What comes of it is
compared: the catalog, the rows, and how far sequences have counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

from flux.contents import Column, columns_in, in_words, without_consequences
from flux.directory import MigrationDirectory
from flux.exceptions import MigrationApplyError
from flux.findings import listed
from flux.fingerprint import Difference, Fingerprint, compare
from flux.migration import Migration, Order, sort_key
from flux.plan import DatabaseState, Plan
from flux.rehearsal import Rehearsal, Stage, one_batch, unchanged_outside
from flux.results import Event
from flux.row_tables import row_tables
from flux.row_work import ANYTHING, RowWork, row_work, tables_at_stake
from flux.shadow import scratch_place_beside
from flux.steps import StepRunner

#: By their ids, or those that are applied first and the late ones then.
Way = Literal["in order", "late"]


class AtStake(NamedTuple):
    """A table of which a late migration and a newer one may both change rows that are there.

    The name is empty where it may be any table.
    """

    table: str
    late: str
    newer: str

    def __str__(self) -> str:
        rows = f"rows of {self.table}" if self.table else "rows"
        return f"{self.late} and {self.newer} may both change {rows}"


class LateProof(NamedTuple):
    """Whether it matters that the migrations `late` are late, and what differs then.

    `differences` are from a database in which all were applied in order to one in which these
    were late. `error` is there where they cannot even be applied, and `failed` says in which way.
    What is `missing` on disk cannot be applied at all. What is `at_stake` cannot be proven: a
    scratch database does not have the rows that are there already.
    """

    late: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    failed: Way | None = None
    error: MigrationApplyError | None = None
    missing: tuple[str, ...] = ()
    at_stake: tuple[AtStake, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether it does not matter."""
        return not (self.differences or self.error or self.missing or self.at_stake)

    def __str__(self) -> str:
        if self.missing:
            return f"the order cannot be tried: {listed(self.missing)} is not on disk"
        if self.error is not None:
            way = "of their ids" if self.failed == "in order" else "that it would be here"
            return f"in the order {way}, {self.error.id} cannot be applied"
        if self.differences:
            return f"the order matters: {listed([_named(one) for one in self.differences])}"
        if self.at_stake:
            return (
                "whether the order matters depends on rows that are there already: "
                f"{listed([str(one) for one in self.at_stake])}"
            )
        return "the order does not matter"


def to_prove(plan: Plan, state: DatabaseState, order: Order) -> tuple[list[str], list[str]]:
    """What is applied before the late migrations of a plan, and these, as `prove_late` takes them.

    One that is half applied belongs to what is applied: that was decided when it was begun. Pure.
    """
    half = [step.name for step in plan.steps if step.half is not None]
    late = [step.name for step in plan.steps if step.late is not None and step.half is None]
    return [*state.in_order_of_application(order), *half], late


def prove_beside(
    target: StepRunner,
    directory: MigrationDirectory,
    applied: Sequence[str],
    late: Sequence[str],
    on_event: Callable[[Event], None],
    on_runner: Callable[[StepRunner], None],
) -> LateProof:
    """`prove_late` for an open database, in scratch databases at the place that is for them.

    Raises what `scratch_place_beside` and `prove_late` raise.
    """
    config = target.config._replace(backend=target.backend.name or target.config.backend)
    with scratch_place_beside(target) as place:
        return prove_late(Stage(config, directory, place, on_event, on_runner), applied, late)


def prove_late(stage: Stage, applied: Sequence[str], late: Sequence[str]) -> LateProof:
    """Prove that late migrations may follow those that are applied. Writes in scratch databases.

    `applied` are ids in the order in which they were applied, `late` those of the late ones in the
    order in which they would be.

    Raises `MigrationLoadingError` and `ScratchDatabaseError` before anything runs, and the latter
    where a migration changes what is outside of its database.
    """
    directory = stage.directory
    on_disk = {migration.id: migration for migration in directory.migrations}
    if missing := [id for id in applied if id not in on_disk]:
        return LateProof(tuple(late), missing=tuple(missing))
    migrations = [on_disk[id] for id in (*applied, *late)]
    key = sort_key(directory.order)
    in_order = sorted(migrations, key=lambda migration: key(migration.id))
    with unchanged_outside(stage.config, stage.place), ExitStack() as stack:

        def make(migrations: Sequence[Migration]) -> Rehearsal:
            return _apply_all(stack.enter_context(stage.rehearsal()), directory, migrations)

        way: Way = "in order"
        try:
            one = make(in_order)
            way = "late"
            other = make(migrations)
            found = _compare(one, other)
            if found:  # maybe but by chance, or by what now() gives
                found = _without_chance(one, other, make(in_order))
            at_stake = () if found else _rows_at_stake(one, migrations, late, key)
        except MigrationApplyError as error:
            return LateProof(tuple(late), failed=way, error=error)
    return LateProof(tuple(late), found, at_stake=at_stake)


def _apply_all(
    rehearsal: Rehearsal, directory: MigrationDirectory, migrations: Sequence[Migration]
) -> Rehearsal:
    """Bring an empty database to where these migrations were applied in this order, as one batch.

    The scripts around a batch are those of today, and may need what the last migration makes.
    """
    steps = one_batch(directory, migrations)
    rehearsal.check(steps)
    for step in steps:
        rehearsal.run(step)
    return rehearsal


def _compare(
    one: Rehearsal, other: Rehearsal, without: Collection[Column] = ()
) -> tuple[Difference, ...]:
    return compare(_look(one, without), _look(other, without))


def _look(rehearsal: Rehearsal, without: Collection[Column]) -> Fingerprint:
    """All that is in a database: the catalog and what it holds."""
    found = rehearsal.fingerprint(), rehearsal.backend.contents(without)
    return Fingerprint.of(item for part in found for item in part.items)


def _without_chance(one: Rehearsal, other: Rehearsal, again: Rehearsal) -> tuple[Difference, ...]:
    """What differs in another order, but for what differs in the same order as well.

    The last of the three is the one that was made last: what the time is part of, which was
    another one for the second than for the first, is another one for it, too.
    """
    by_chance = columns_in(_compare(one, again))
    noise = {difference.item[:3] for difference in _compare(one, again, by_chance)}
    found = _compare(one, other, by_chance)
    return without_consequences([one for one in found if one.item[:3] not in noise])


def _rows_at_stake(
    rehearsal: Rehearsal,
    migrations: Sequence[Migration],
    late: Collection[str],
    key: Callable[[str], Any],
) -> tuple[AtStake, ...]:
    """The tables whose rows both a late migration and a newer one may change, by what they say."""
    backend = rehearsal.backend

    tables = row_tables(rehearsal.fingerprint())

    def work(migration: Migration) -> RowWork:
        script = migration.script
        if script.function is not None:
            return ANYTHING
        return row_work(backend.statements(script), backend.dialect, tables)

    works = {migration.id: work(migration) for migration in migrations}
    return tuple(
        sorted(
            AtStake(table, id, other)
            for id in late
            for other in works
            if key(other) > key(id) and other not in late
            for table in tables_at_stake(works[id], works[other], tables)
        )
    )


def _named(difference: Difference) -> str:
    return in_words(difference.item)
