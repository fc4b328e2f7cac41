"""The schema that migrations make, read from a scratch database; and the drift from it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from flux.directory import MigrationDirectory
from flux.exceptions import FluxMigrationException, MigrationApplyError
from flux.fingerprint import Difference, Fingerprint, compare
from flux.migration import Migration
from flux.plan import Step, find_problems, refuse
from flux.rehearsal import Stage, one_batch, unchanged_outside
from flux.runner import FluxRunner

#: The first line of a schema file.
HEADING = "# What the migrations make; written by `flux schema --write`, and not by hand."


def made_by_migrations(stage: Stage) -> Fingerprint:
    """What all migrations and repeatables of a directory make of an empty database.

    Raises what `Stage.make` raises.
    """
    return stage.make(one_batch(stage.directory, stage.directory.migrations))


def find_drift(stage: Stage, target: FluxRunner, ignore: Sequence[str]) -> tuple[Difference, ...]:
    """How an open database differs from what its applied migrations make of an empty one.

    `ignore` has patterns for what others own (`Fingerprint.without`). Does not write to the target.

    Raises `FluxMigrationException` where there is no history, `MigrationDirectoryCorruptedError`
    where an applied migration is divergent or missing, and what `Stage.make` raises.
    """
    directory, state = target.directory, target.state
    if state.history is None:
        raise FluxMigrationException(
            "flux has not touched this database, so there is nothing to compare it with"
        )
    refuse(
        [
            problem
            for problem in find_problems(directory, state)
            if problem.kind in ("divergent", "missing")
        ]
    )
    by_id = {migration.id: migration for migration in directory.migrations}
    applied = [by_id[id] for id in state.in_order_of_application(directory.order)]
    with target.backend.reporting("cannot read the catalog"):
        found = target.backend.fingerprint().without(ignore)
    if len(applied) == len(directory.migrations):
        return compare(stage.make(one_batch(directory, applied)).without(ignore), found)
    before, after = _around_post_apply(stage, directory, applied)
    # They may have run as they are now, or as they were before something was pending.
    drift = compare(after.without(ignore), found)
    explained = {one.item[:3] for one in drift} - {
        one.item[:3] for one in compare(before.without(ignore), found)
    }
    return tuple(one for one in drift if one.item[:3] not in explained)


def _around_post_apply(
    stage: Stage, directory: MigrationDirectory, applied: Sequence[Migration]
) -> tuple[Fingerprint, Fingerprint]:
    """What the applied migrations make, and what post-apply scripts then make of that.

    A script that fails may need a pending migration, and is passed over.
    """
    alone = one_batch(directory._replace(post_apply=()), applied)
    scripts = [Step("run", repeatable) for repeatable in directory.post_apply]
    with unchanged_outside(stage.config, stage.place), stage.rehearsal() as rehearsal:
        rehearsal.check([*alone, *scripts])
        for step in alone:
            rehearsal.run(step)
        before = rehearsal.fingerprint()
        for step in scripts:
            with suppress(MigrationApplyError):
                rehearsal.run(step)
        return before, rehearsal.fingerprint()


def text_of(fingerprint: Fingerprint) -> str:
    """What a schema file holds, which is kept under version control."""
    return "\n".join([HEADING, "", *fingerprint.lines(), ""])
