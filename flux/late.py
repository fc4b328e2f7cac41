"""Late migrations: those that run after newer ones, and the order in which all were applied. Pure.

Ids say in which order migrations are applied, but for late ones. Of these a row beside the history
says after which migration they ran. The history's times could not tell it: clocks are set back,
those of flux-migrations 0.0.3 have no time zone and go back each autumn, and a row that was
written by hand has whatever time it was given. A wrong order is an undo on the wrong schema.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX = "late:"


class LateRun(Record):
    """That a migration ran late: after `after`, which is newer. `number` orders late ones.

    It is written before its batch begins, and means nothing while the history lacks the id.
    """

    id: str
    after: str
    number: int

    @property
    def name(self) -> str:
        """The name of its row."""
        return f"{_PREFIX}{self.id}"

    @property
    def value(self) -> str:
        """The value of its row."""
        return f"{self.number}:{self.after}"


def read_late(remembered: Iterable[tuple[str, str]]) -> tuple[LateRun, ...]:
    """The late runs among the rows beside the history, in any order."""
    found = []
    for name, value in remembered:
        if name.startswith(_PREFIX):
            number, _, after = value.partition(":")
            found.append(LateRun(name.removeprefix(_PREFIX), after, int(number)))
    return tuple(found)


def in_order_of_application(
    ids: Iterable[str], late: Iterable[LateRun], key: Callable[[str], Any]
) -> list[str]:
    """Applied ids, the one that was applied first in front; `key` sorts ids."""
    runs = {run.id: run for run in late}
    if not runs:
        return sorted(ids, key=key)

    def place(id: str) -> tuple[Any, int]:
        run = runs.get(id)
        return (key(run.after), run.number) if run else (key(id), 0)

    return sorted(ids, key=place)


def late_among(
    ids: Sequence[str],
    *,
    newest: str | None,
    applied: Collection[str],
    late: Iterable[LateRun],
    key: Callable[[str], Any],
) -> Iterator[LateRun]:
    """Which of the ids run late, if they run in this order after those that are applied.

    `newest` is the id that a new one has to sort after.
    """
    before = [run for run in late if run.id in applied]
    number = max((run.number for run in before), default=0)
    # One that a late one ran after counts also where its own row was taken away by hand.
    top = max((*filter(None, [newest]), *(run.after for run in before)), key=key, default=None)
    for id in ids:
        if top is None or key(id) > key(top):
            top = id
        elif id != top:
            number += 1
            yield LateRun(id, top, number)
