"""What a user is told when a step fails: where, why, and what state the database is in. Pure."""

from __future__ import annotations

from flux.backends.base import MigrationBackend
from flux.backends.signals import (
    ChangedError,
    InDoubtError,
    LockLostError,
    StatementError,
    TransactionEndedError,
)
from flux.exceptions import (
    FluxMigrationException,
    Location,
    MigrationApplyError,
    MigrationInDoubtError,
)
from flux.journal import UnderWay
from flux.migration import Repeatable, Script
from flux.plan import Step
from flux.python_file import python_location
from flux.units import difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.outcome import Aftermath

_ANSWER = "look whether it did: `flux resume --skip` if so, else `flux resume --retry`"
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
    after: Aftermath,
    done: tuple[str, ...],
) -> MigrationApplyError:
    """The error for a step that failed; `done` names what the batch has finished.

    That includes the step itself where it took effect, and only then the connection broke.
    """
    message, hint = _message(backend, step, script, error, after.half)
    if after.outcome == "took effect":
        happened, state = (text.format(step.name) for text in _BROKE_AFTER[step.action])
        return MigrationApplyError(
            f"{happened}, and then the connection broke: {message}",
            id=step.name,
            state=state,
            done=done,
            location=script.location(),
            hint="run it again for what comes after it",
        )
    is_in_doubt = isinstance(error, InDoubtError) and not isinstance(error, ChangedError)
    kind = MigrationInDoubtError if is_in_doubt else MigrationApplyError
    return kind(
        f"{_VERBS[step.action]} {step.name} failed: {message}",
        id=step.name,
        state=_state(backend, step, script, error, after),
        done=done,
        location=_location(script, error),
        hint=hint,
    )


def cause_of(error: Exception) -> Exception:
    """The driver's own exception, where flux has wrapped it."""
    if isinstance(error, StatementError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _message(
    backend: MigrationBackend,
    step: Step,
    script: Script,
    error: Exception,
    half: UnderWay | None,
) -> tuple[str, str | None]:
    if isinstance(error, InDoubtError):
        return _doubt(script, error)
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
    if hint is not None and "no-transaction" in hint and script.directives.no_transaction:
        hint = "take it out of the BEGIN; … COMMIT; that it stands in"
    if half is not None and half.open is not None and backend.is_in_doubt(half.open):
        return message, _ANSWER
    if hint is None and half is not None and isinstance(error, StatementError):
        again = {"apply": "apply", "undo": "roll back", "run": "apply"}[step.action]
        hint = f"mend it from statement {half.goes_on_at} on, and {again} again: flux goes on there"
    return message, hint


def _doubt(script: Script, error: InDoubtError) -> tuple[str, str]:
    what = "its function" if script.function else f"statement {error.entry.statement}"
    if isinstance(error, ChangedError):
        now = error.statement.text if error.statement else ""
        return (
            f"{what} has taken effect, at least in part, and is another one now:\n"
            + difference(error.entry.sql, now),
            "restore it, and put the change into a statement below or into a new migration",
        )
    return (
        f"an earlier run was cut off at {what}, and whether that took effect cannot be known",
        _ANSWER,
    )


def _location(script: Script, error: Exception) -> Location:
    if isinstance(error, StatementError):
        location = script.location(error.offset)
        return location if error.exact else location.without_column()
    if isinstance(error, InDoubtError) and error.statement is not None:
        return script.location(error.statement.start).without_column()
    if isinstance(error, FluxMigrationException):
        return error.location or script.location()
    if script.function is not None:
        raised = error.failure if isinstance(error, TransactionEndedError) else None
        return python_location(script.path, raised or error)
    return script.location()


def _state(
    backend: MigrationBackend, step: Step, script: Script, error: Exception, after: Aftermath
) -> str:
    if after.outcome == "unknown":
        how = "`flux status` tells"
        if isinstance(step.subject, Repeatable):
            how = "it runs again in the next batch"
        return f"the connection broke, and whether {after.names} took effect is not known; {how}"
    if script.directives.no_transaction:
        return _state_without_transaction(backend, step, script, error, after.half)
    if isinstance(error, TransactionEndedError):
        return "what it committed is in the database, and the history does not say so"
    if step.action == "run":
        return f"{step.name} is rolled back; what was done before it stays"
    if not backend.transactional_ddl:
        recorded = _NOT_RECORDED[step.action].format(step.name)
        return f"{recorded}; the database cannot roll back changes of the schema, so look at those"
    return f"rolled back; the database is as it was before {step.name}"


def _state_without_transaction(
    backend: MigrationBackend,
    step: Step,
    script: Script,
    error: Exception,
    half: UnderWay | None,
) -> str:
    recorded = _NOT_RECORDED[step.action].format(step.name)
    failed = error.number if isinstance(error, StatementError) else None
    count = half.goes_on_at - 1 if half else 0
    if step.action == "run" and failed is not None:
        count = failed - 1  # its journal only says what runs
    if half is None and isinstance(error, FluxMigrationException):
        return f"nothing of {step.name} ran"
    before = {0: "no statement", 1: "statement 1"}.get(count, f"statements 1 to {count}")
    total = f" of {error.total}" if isinstance(error, StatementError) and error.total else ""
    parts = [] if script.function is not None else [f"{before}{total} took effect"]
    if half is not None and half.open is not None and half.open.state == "reached":
        what = "it" if script.function is not None else f"statement {half.goes_on_at}"
        known = "is not known" if backend.is_in_doubt(half.open) else "the next run finds out"
        parts.append(f"whether {what} did {known}")
    elif failed is not None:
        parts.append(f"statement {failed} failed")
    return f"it ran without a transaction: {', '.join([*parts, f'and {recorded}'])}"
