"""What an error, problems or findings mean for the process: its exit code. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from flux.exceptions import FluxMigrationException, Problem
    from flux.findings import Finding

DONE, FAILED, MISUSED, PENDING, DISAGREES, LOCKED = range(6)
INTERRUPTED, TERMINATED = 130, 143


def code_of_error(error: FluxMigrationException) -> int:
    """The code for a command that an error has ended."""
    from flux import exceptions

    codes = {
        exceptions.InvalidConfigurationError: MISUSED,
        exceptions.BackendLoadingError: MISUSED,
        exceptions.MigrationDirectoryCorruptedError: DISAGREES,
        exceptions.MigrationLockError: LOCKED,
    }
    return next((code for type_, code in codes.items() if isinstance(error, type_)), FAILED)


def code_of_problems(problems: Sequence[Problem]) -> int:
    """The code for a command that has found problems, or none."""
    from flux.plan import DISAGREEMENTS

    if any(problem.kind in DISAGREEMENTS for problem in problems):
        return DISAGREES
    return FAILED if problems else DONE


def code_of_findings(findings: Sequence[Finding]) -> int:
    """The code that the other commands would exit with for the worst of the findings."""
    from flux.plan import DISAGREEMENTS

    problems = [finding for finding in findings if finding.level == "problem"]
    if any(problem.about in ("config", "address", "driver") for problem in problems):
        return MISUSED
    if any(problem.kind in DISAGREEMENTS for problem in problems):
        return DISAGREES
    return FAILED if problems else DONE
