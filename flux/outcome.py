"""What became of a step that failed: after its connection broke, the database is asked again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from flux.backends.base import MigrationBackend
from flux.backends.signals import TransactionEndedError
from flux.migration import Repeatable, Script
from flux.plan import DatabaseState, Step

#: A step that failed may have taken effect: a COMMIT had arrived when the connection broke.
Outcome = Literal["no effect", "took effect", "unknown"]


def find_outcome(
    backend: MigrationBackend,
    step: Step,
    script: Script,
    error: Exception,
    call: Callable[[Callable[[], None]], None],
) -> Outcome:
    """What became of a step that failed. Reads the database, by way of `call`; writes nothing."""
    if not backend.outcome_is_unknown() or isinstance(error, TransactionEndedError):
        return "no effect"
    states: list[DatabaseState | None] = [None]
    if not script.directives.no_transaction:
        backend.announce(f"the connection broke: looking whether {step.name} took effect")
        # Interrupted, it is not known, and that is what is told.
        with suppress(KeyboardInterrupt):
            call(lambda: states.append(backend.look_again()))
    return outcome_of(step, script, states[-1])


def outcome_of(step: Step, script: Script, state: DatabaseState | None) -> Outcome:
    """What became of a step whose connection broke, by the state that was read after that. Pure."""
    if state is None or script.directives.no_transaction:
        return "unknown"
    if isinstance(step.subject, Repeatable):
        if not script.directives.on_change:
            return "unknown"
        is_done = state.last_runs.get(step.name) == script.hash
    else:
        is_done = (step.name in state.applied) == (step.action == "apply")
    return "took effect" if is_done else "no effect"
