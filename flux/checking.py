"""What stands against a step before anything runs: all that its scripts hold and cannot run."""

from __future__ import annotations

from flux.backends.base import MigrationBackend
from flux.directory import loading_problems
from flux.exceptions import MigrationLoadingError, Problem
from flux.migration import Migration, Repeatable, Script
from flux.plan import Step


def problems_of(step: Step, backend: MigrationBackend) -> list[Problem]:
    """What stands against a step; a migration's undo is looked at with its apply. Read-only."""
    problems: list[Problem] = []
    subject = step.subject
    if isinstance(subject, Repeatable):
        scripts = [subject.script]
    else:
        scripts = [] if step.action == "undo" else [subject.script]
        if subject.read_undo is not None:
            try:
                scripts.append(subject.read_undo())
            except MigrationLoadingError as error:
                problems += loading_problems(error)
    for script in scripts:
        problems += backend.check(script)
        if script.directives.on_change and isinstance(subject, Migration):
            problems.append(_on_change(script))
    if step.half is not None and not problems:
        from flux.units import find_changes

        half = step.half
        script = step._replace(action=half.direction).script
        problems += find_changes(script, backend.units(script), half)
    return [problem._replace(ids=(step.name,)) for problem in problems]


def _on_change(script: Script) -> Problem:
    return Problem(
        "directive",
        (),
        "on-change is for repeatables; a migration runs once",
        "remove it, or move the file to pre-apply/ or post-apply/",
        script.location(),
    )
