"""The schema that migrations make, read from a scratch database; and the drift from it."""

from __future__ import annotations

from collections.abc import Sequence

from flux.exceptions import FluxMigrationException
from flux.fingerprint import Difference, Fingerprint, compare
from flux.plan import find_problems, refuse
from flux.rehearsal import Stage, one_batch
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
    wanted = stage.make(one_batch(directory, applied) if applied else [])
    with target.backend.reporting("cannot read the catalog"):
        found = target.backend.fingerprint()
    return compare(wanted.without(ignore), found.without(ignore))


def text_of(fingerprint: Fingerprint) -> str:
    """What a schema file holds, which is kept under version control."""
    return "\n".join([HEADING, "", *fingerprint.lines(), ""])
