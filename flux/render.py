"""Results as text for people, and as data for programs. Never prints.

The data is the contract of `--json`; `docs/json.md` describes it, and `FORMAT` counts its
incompatible changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flux.exceptions import (
    FluxMigrationException,
    Location,
    MigrationApplyError,
    MigrationLockError,
    Problem,
)
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.findings import Finding
    from flux.journal import UnderWay
    from flux.plan import Plan, Step
    from flux.results import BatchResult, Status, StepResult

FORMAT = 1


#: What a terminal would take for a command; a name in a database may hold any of it.
_CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f]"


class Palette(Record):
    """How to set words apart: escape sequences for a terminal, or nothing."""

    good: str = ""
    attention: str = ""
    bad: str = ""
    faint: str = ""
    end: str = ""

    def paint(self, colour: str, text: str) -> str:
        """The text in one of this palette's colours."""
        return f"{colour}{text}{self.end}" if colour else text


PLAIN = Palette()
COLOURED = Palette("\033[32m", "\033[33m", "\033[31m", "\033[2m", "\033[0m")

_DONE = {"apply": "applied", "undo": "undone", "run": "ran"}
_TO_DO = {"apply": "apply", "undo": "undo", "run": "run"}


# Text ---------------------------------------------------------------------------------------


def status_text(status: Status, palette: Palette = PLAIN) -> str:
    """A line for each migration, what is wrong, and a line that counts."""
    colours = {
        "applied": palette.good,
        "pending": palette.attention,
        "late": palette.bad,
        "divergent": palette.bad,
        "missing": palette.bad,
    }
    width = max((len(row.id) for row in status.rows), default=0)
    lines = []
    for row in status.rows:
        when = row.applied_at.isoformat(" ", "seconds") if row.applied_at else ""
        state = palette.paint(colours[row.state], f"{row.state:<9}")
        lines.append(f"{state}  {row.id:<{width}}  {palette.paint(palette.faint, when)}".rstrip())
        if row.half is not None:
            lines.append(" " * 11 + palette.paint(palette.attention, _half_text(row.half, status)))
    if status.problems:
        lines += ["", problems_text(status.problems, palette), ""]
    lines += [f"{palette.paint(palette.attention, 'changed  ')}  {name}" for name in status.changed]
    if status.unfinished:
        lines.append(
            "the last batch stopped before its post-apply scripts ran; `flux apply` finishes it"
        )
    lines.append(_counts(status))
    return "\n".join(lines)


def _half_text(half: UnderWay, status: Status) -> str:
    doing = {"apply": "applied", "undo": "rolled back"}[half.direction]
    command = {"apply": "apply", "undo": "rollback"}[half.direction]
    number = half.goes_on_at
    if not status.in_doubt:
        return f"half {doing}: `flux {command}` goes on with statement {number}"
    return (
        f"half {doing}: whether statement {number} took effect is not known; look, and "
        "`flux resume --skip` if it did, else `flux resume --retry`"
    )


def _counts(status: Status) -> str:
    states = [row.state for row in status.rows]
    if not states:
        return "no migrations"
    parts = [
        f"{states.count(state)} {state}"
        for state in ("applied", "pending", "late", "divergent", "missing")
        if states.count(state)
    ]
    fresh = "" if status.initialized else "; flux has not touched this database"
    return f"{counted(len(states), 'migration')}: {', '.join(parts)}{fresh}"


def plan_text(
    plan: Plan, palette: Palette = PLAIN, *, sql_of: Sequence[str] = (), in_doubt: bool = False
) -> str:
    """The steps in order; `sql_of` holds, where it is given, the SQL of each.

    `in_doubt` says that the statement to go on with was cut off, and needs an answer.
    """
    if plan.is_empty:
        return "nothing to do"
    lines = []
    if plan.finishes:
        lines.append("a batch stopped before its post-apply scripts ran; this finishes it:")
    for place, step in enumerate(plan.steps):
        action = palette.paint(_step_colour(step, palette), f"{_TO_DO[step.action]:<5}")
        is_empty = step.action == "apply" and step.subject.script.is_empty
        remark = "  (it holds no statement)" if is_empty else ""
        if step.late is not None:
            remark += f"  (late: it comes after {step.late.after}, which is newer)"
        if step.half is not None:
            number = step.half.goes_on_at
            remark = f"  (goes on with statement {number})"
            if in_doubt:
                remark = f"  (needs `flux resume` to be told what became of statement {number})"
        remark = palette.paint(palette.attention, remark) if remark else ""
        lines.append(f"{action}  {step.name}{remark}")
        if sql_of:
            lines += ["", *("    " + line for line in sql_of[place].splitlines()), ""]
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def _step_colour(step: Step, palette: Palette) -> str:
    return {"apply": palette.good, "undo": palette.attention, "run": palette.faint}[step.action]


def done_text(step: Step, seconds: float, palette: Palette = PLAIN) -> str:
    """The line for a step that is done."""
    done = palette.paint(_step_colour(step, palette), f"{_DONE[step.action]:<7}")
    took = palette.paint(palette.faint, f"{duration(seconds):>8}")
    return f"{done}  {took}  {step.name}"


def result_text(result: BatchResult) -> str:
    """One line on a whole batch."""
    if not result.steps:
        return "nothing to do"
    parts = []
    if result.applied:
        parts.append(f"{counted(len(result.applied), 'migration')} applied")
    if result.undone:
        parts.append(f"{counted(len(result.undone), 'migration')} rolled back")
    if not parts:
        parts.append(f"{counted(len(result.steps), 'repeatable')} run")
    return ", ".join(parts)


def problems_text(problems: Sequence[Problem], palette: Palette = PLAIN) -> str:
    """Every problem with its place and its way out."""
    mark = palette.paint(palette.bad, "-")
    return "\n".join(f"{mark} " + str(problem).replace("\n", "\n  ") for problem in problems)


def finding_text(finding: Finding, palette: Palette = PLAIN) -> str:
    """A line for what was examined, and the way out below it."""
    colours = {"ok": palette.good, "warning": palette.attention, "problem": palette.bad}
    margin = " " * 22
    level = palette.paint(colours[finding.level], f"{finding.level:<7}")
    message = finding.message.replace("\n", f"\n{margin}")
    lines = [f"{level}  {finding.about:<11}  {message}"]
    if finding.hint:
        lines.append(palette.paint(palette.faint, f"{margin}hint: {finding.hint}"))
    return "\n".join(lines)


def findings_summary(findings: Sequence[Finding]) -> str:
    """A line that counts what is not as it should be."""
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    parts = [counted(problems, "problem")] if problems else ["no problem"]
    parts += [counted(warnings, "warning")] if warnings else []
    return ", ".join(parts)


def error_text(error: FluxMigrationException, palette: Palette = PLAIN) -> str:
    """An error as the last thing a user reads."""
    return f"{palette.paint(palette.bad, 'error:')} {error}"


def printable(text: str) -> str:
    """A text from a database for a terminal, with its control characters escaped."""
    return re.sub(_CONTROL, lambda found: ascii(found[0])[1:-1], text)


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 migration`, `2 migrations`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """How long something took, for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


# Data ---------------------------------------------------------------------------------------


def status_data(status: Status) -> dict[str, Any]:
    """`status --json`."""
    return {
        "initialized": status.initialized,
        "unfinished_batch": status.unfinished,
        "changed_repeatables": list(status.changed),
        "migrations": [
            {
                "id": row.id,
                "state": row.state,
                "applied_at": row.applied_at.isoformat() if row.applied_at else None,
                "path": row.path,
                "half": _half_data(row.half, in_doubt=status.in_doubt),
            }
            for row in status.rows
        ],
        "problems": problems_data(status.problems),
    }


def _half_data(half: UnderWay | None, *, in_doubt: bool) -> dict[str, Any] | None:
    if half is None:
        return None
    return {"action": half.direction, "statement": half.goes_on_at, "in_doubt": in_doubt}


def plan_data(plan: Plan, *, sql_of: Sequence[str] = (), in_doubt: bool = False) -> dict[str, Any]:
    """`plan --json`; each step has its SQL where `sql_of` is given."""
    steps: list[dict[str, Any]] = []
    for place, step in enumerate(plan.steps):
        data: dict[str, Any] = {"action": step.action, "name": step.name, "path": step.path}
        if step.half is not None:
            data |= {"statement": step.half.goes_on_at, "in_doubt": in_doubt}
        if step.late is not None:
            data["late_after"] = step.late.after
        if sql_of:
            data["sql"] = sql_of[place]
        steps.append(data)
    return {"finishes_batch": plan.finishes, "steps": steps}


def result_data(steps: Sequence[StepResult]) -> dict[str, Any]:
    """`apply --json` and `rollback --json`."""
    return {
        "steps": [
            {"action": step.action, "name": step.name, "seconds": round(step.seconds, 6)}
            for step in steps
        ]
    }


def problems_data(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as they stand in every format."""
    return [
        {
            "kind": problem.kind,
            "ids": list(problem.ids),
            "message": problem.message,
            "hint": problem.hint,
            "location": _location_data(problem.location),
        }
        for problem in problems
    ]


def findings_data(findings: Sequence[Finding]) -> dict[str, Any]:
    """`doctor --json`."""
    return {
        "ok": all(finding.level != "problem" for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def error_data(error: FluxMigrationException) -> dict[str, Any]:
    """An error as it stands in every format."""
    data: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "location": _location_data(error.location),
        "problems": problems_data(error.problems),
    }
    if isinstance(error, MigrationLockError):
        data["holder"] = error.holder
    if isinstance(error, MigrationApplyError):
        data |= {"name": error.id, "state": error.state, "done": list(error.done)}
    return data


def _location_data(location: Location | None) -> dict[str, Any] | None:
    if location is None:
        return None
    return {
        "path": location.path,
        "line": location.line,
        "column": location.column,
        "within": location.within,
    }


def step_sql(step: Step) -> str:
    """The SQL that a step runs, or a comment for a Python function that does the work itself."""
    script = step.script
    if script.text is None:
        return f"-- a Python function in {script.path}, which is given the connection"
    return script.text.strip()
