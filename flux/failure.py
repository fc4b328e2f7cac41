"""What a user is told when a step fails: where, why, and what state the database is in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux.backends.base import MigrationBackend
from flux.backends.signals import LockLostError, StatementError, TransactionEndedError
from flux.exceptions import FluxMigrationException, Location, MigrationApplyError
from flux.migration import Repeatable, Script
from flux.plan import Step
from flux.python_file import python_location

if TYPE_CHECKING:
    from flux.outcome import Outcome

_VERBS = {"apply": "applying", "undo": "undoing", "run": "running"}
_BROKE_AFTER = {
    "apply": ("{} was applied", "{} is applied, and the history says so"),
    "undo": ("{} was rolled back", "{} is rolled back, and the history says so"),
    "run": ("{} ran", "{} ran, and is remembered to have run"),
}
_NOT_RECORDED = {
    "apply": "{} is not in the history",
    "undo": "{} is still in the history",
    "run": "{} ran in part",
}


def apply_error(
    backend: MigrationBackend,
    step: Step,
    script: Script,
    error: Exception,
    *,
    outcome: Outcome,
    done: tuple[str, ...],
) -> MigrationApplyError:
    """The error for a step that failed; `done` names what the batch has finished.

    That includes the step itself where it took effect, and only then the connection broke.
    """
    message, hint = _message(backend, script, error)
    if outcome == "took effect":
        happened, state = (text.format(step.name) for text in _BROKE_AFTER[step.action])
        return MigrationApplyError(
            f"{happened}, and then the connection broke: {message}",
            id=step.name,
            state=state,
            done=done,
            location=script.location(),
            hint="run it again for what comes after it",
        )
    return MigrationApplyError(
        f"{_VERBS[step.action]} {step.name} failed: {message}",
        id=step.name,
        state=_state(backend, step, script, error, outcome),
        done=done,
        location=_location(script, error),
        hint=hint,
    )


def cause_of(error: Exception) -> Exception:
    """The driver's own exception, where flux has wrapped it."""
    if isinstance(error, StatementError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _message(backend: MigrationBackend, script: Script, error: Exception) -> tuple[str, str | None]:
    if isinstance(error, TransactionEndedError):
        if script.directives.no_transaction:
            return "it leaves a transaction open", "commit it at the end of the file"
        failure = error.failure
        then = f", and then failed: {type(failure).__name__}: {failure}" if failure else ""
        return (
            f"it ended the transaction that flux runs it in{then}",
            "leave commit and rollback to flux, or run it without a transaction: no-transaction",
        )
    if isinstance(error, LockLostError):
        return (
            "the migration lock was lost: the session that held it was ended",
            "run it again; if a pooler ends idle sessions, give flux a direct connection",
        )
    if isinstance(error, FluxMigrationException):
        return error.message, error.hint
    report = backend.describe_error(cause_of(error))
    message = report.message
    if script.function is not None:
        message = f"{type(cause_of(error)).__name__}: {message}"
    if report.detail:
        message += f"\ndetail: {report.detail}"
    hint = report.hint
    is_partial = (
        isinstance(error, StatementError) and (error.number or 0) > 1 and not error.rolled_back
    )
    if hint is None and is_partial and script.directives.no_transaction:
        hint = "mend it from that statement on, and take out of the file what took effect"
    return message, hint


def _location(script: Script, error: Exception) -> Location:
    if isinstance(error, StatementError):
        location = script.location(error.offset)
        return location if error.exact else location.without_column()
    if isinstance(error, FluxMigrationException):
        return error.location or script.location()
    if script.function is not None:
        raised = error.failure if isinstance(error, TransactionEndedError) else None
        return python_location(script.path, raised or error)
    return script.location()


def _state(
    backend: MigrationBackend, step: Step, script: Script, error: Exception, outcome: Outcome
) -> str:
    if outcome == "unknown":
        how = "`flux status` tells"
        if isinstance(step.subject, Repeatable):
            how = "it runs again in the next batch"
        return f"the connection broke, and whether {step.name} took effect is not known; {how}"
    if script.directives.no_transaction and isinstance(error, FluxMigrationException):
        return f"nothing of {step.name} ran"
    if script.directives.no_transaction:
        return _state_without_transaction(step, error)
    if isinstance(error, TransactionEndedError):
        return "what it committed is in the database, and the history does not say so"
    if step.action == "run":
        return f"{step.name} is rolled back; what was done before it stays"
    if not backend.transactional_ddl:
        recorded = _NOT_RECORDED[step.action].format(step.name)
        return f"{recorded}; the database cannot roll back changes of the schema, so look at those"
    return f"rolled back; the database is as it was before {step.name}"


def _state_without_transaction(step: Step, error: Exception) -> str:
    recorded = _NOT_RECORDED[step.action].format(step.name)
    if not isinstance(error, StatementError) or error.number is None:
        return f"it ran without a transaction, and {recorded}"
    number = error.number
    before = {1: "no statement", 2: "statement 1"}.get(number, f"statements 1 to {number - 1}")
    if error.rolled_back:
        return (
            f"it ran without a transaction of flux's: {before} of {error.total} ran, statement "
            f"{number} failed, the transaction that was open was rolled back, and {recorded}"
        )
    return (
        f"it ran without a transaction: {before} of {error.total} took effect, "
        f"statement {number} failed, and {recorded}"
    )
