"""What became of a step that failed: after its connection broke, the database is asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from flux.backends.base import MigrationBackend
from flux.backends.signals import TransactionEndedError
from flux.journal import UnderWay
from flux.migration import Repeatable, Script
from flux.plan import DatabaseState, Step
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

#: A step that failed may have taken effect: a COMMIT had arrived when the connection broke.
Outcome: TypeAlias = "Literal['no effect', 'took effect', 'unknown']"


class Aftermath(Record):
    """What became of the steps that were under way when one failed.

    `outcome` is that of the one that failed; `half` says how far it got without a transaction.
    `done` is how many of them took effect, and `names` says which ones they were, in words.
    """

    outcome: Outcome
    half: UnderWay | None = None
    done: int = 0
    names: str = ""


def look_after(
    backend: MigrationBackend,
    steps: Sequence[Step],
    error: Exception,
    call: Callable[[Callable[[], None]], None],
) -> Aftermath:
    """What became of steps of which one failed: the first, if the connection has not broken.

    Reads the database, by way of `call`; writes nothing.
    """
    step = steps[0]
    names = _in_words([step.name for step in steps])
    is_broken = backend.outcome_is_unknown() and not isinstance(error, TransactionEndedError)
    if is_broken:
        backend.announce(f"the connection broke: looking whether {names} took effect")
    elif not step.script.directives.no_transaction:
        return Aftermath("no effect")
    states: list[DatabaseState | None] = [None]
    look = backend.look_again if is_broken else backend.read_state
    # What cannot be read, or is interrupted, is not known, and that is what is told.
    with suppress(Exception, KeyboardInterrupt):
        call(lambda: states.append(look()))
    half = states[-1].under_way if states[-1] is not None else None
    half = half if half is not None and half.id == step.name else None
    if not is_broken:
        return Aftermath("no effect", half)
    outcomes = [outcome_of(step, step.script, states[-1]) for step in steps]
    # They ran in order: before one that took effect, all did, whatever became of their rows.
    done = max((n for n, one in enumerate(outcomes, 1) if one == "took effect"), default=0)
    return Aftermath(outcomes[min(done, len(steps) - 1)], half, done, names)


def _in_words(names: Sequence[str]) -> str:
    """One of these, as in: it is not known whether 001 or 002 took effect."""
    return " or ".join(names) if len(names) < 3 else f"any of {names[0]} to {names[-1]}"


def outcome_of(step: Step, script: Script, state: DatabaseState | None) -> Outcome:
    """What became of a step whose connection broke, by the state that was read after that. Pure."""
    if state is None:
        return "unknown"
    if isinstance(step.subject, Repeatable):
        if not script.directives.on_change:
            return "unknown"
        is_done = state.last_runs.get(step.name) == script.hash
    else:
        is_done = (step.name in state.applied) == (step.action == "apply")
    return "took effect" if is_done else "no effect"
