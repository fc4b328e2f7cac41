"""What a runner gives back and what it tells meanwhile: frozen records. Pure."""

from __future__ import annotations

from flux.exceptions import Problem
from flux.plan import StatusRow, Step
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from flux.progress import Progress


class StepResult(Record):
    """One step that was done: what, and how long it took in seconds."""

    action: Literal["apply", "undo", "run"]
    name: str
    seconds: float


class BatchResult(Record):
    """What a batch did, in order; empty when there was nothing to do."""

    steps: tuple[StepResult, ...] = ()

    @property
    def applied(self) -> tuple[str, ...]:
        """The ids that were applied, in order."""
        return tuple(step.name for step in self.steps if step.action == "apply")

    @property
    def undone(self) -> tuple[str, ...]:
        """The ids that were rolled back, newest first."""
        return tuple(step.name for step in self.steps if step.action == "undo")


class Status(Record):
    """The state of every migration, and what is wrong.

    `initialized` says that there is a history, `unfinished` that a batch stopped before its
    post-apply scripts ran; `changed` names the on-change repeatables that are due. `in_doubt` says
    that a statement was cut off, and that only somebody who looks can tell if it took effect.
    """

    rows: tuple[StatusRow, ...]
    problems: tuple[Problem, ...]
    initialized: bool
    unfinished: bool
    changed: tuple[str, ...] = ()
    in_doubt: bool = False

    @property
    def pending(self) -> tuple[str, ...]:
        """The ids that `apply` would have to apply, late ones included."""
        return tuple(row.id for row in self.rows if row.state in ("pending", "late"))

    @property
    def is_settled(self) -> bool:
        """Whether `apply` would find nothing to do."""
        is_half_done = any(row.half for row in self.rows)
        return not (self.pending or self.unfinished or self.changed or is_half_done)


class Event(Record):
    """Something that happens while a batch runs, for `on_event`.

    `kind` is `start` or `done` of a step, `wait`, of which `message` says for whom, `warning`, or
    `progress` of a step that takes long, with its `progress`, which `message` says in words.
    """

    kind: Literal["start", "done", "wait", "warning", "progress"]
    step: Step | None = None
    seconds: float | None = None
    message: str = ""
    progress: Progress | None = None
