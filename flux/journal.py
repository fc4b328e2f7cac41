"""The journal: how far a migration without a transaction got, unit by unit (`units`). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Direction: TypeAlias = "Literal['apply', 'undo', 'run']"
UnitState: TypeAlias = "Literal['reached', 'failed', 'finished']"

_PREFIX = "journal:"
#: What stands for a session that is known not to go on with its unit.
ENDED = "ended"


class Entry(Record):
    """One row of the journal: a unit of the migration `id`, and how far it got.

    `statement` is the number of its last statement in the file; `text` its beginning, of which
    `lead` characters are settings. `before` is
    what the database said, before it ran, of what it changes. `session` names the database's
    session that ran it.
    """

    direction: Direction
    id: str
    unit: int
    state: UnitState
    hash: str
    text: str
    lead: int
    statement: int
    before: str | None = None
    session: str | None = None

    @property
    def name(self) -> str:
        """The name of its row."""
        return f"{_PREFIX}{self.direction}:{self.unit}:{self.id}"

    @property
    def sql(self) -> str:
        """Its text without the settings; empty for a Python function."""
        return self.text[self.lead :].removesuffix(";\n")

    @property
    def value(self) -> str:
        """The value of its row, as JSON."""
        import json

        fields = self._asdict()
        for of_name in ("direction", "id", "unit"):
            del fields[of_name]
        return json.dumps(fields, ensure_ascii=False)


class UnderWay(Record):
    """A migration that was begun and is not done: its rows, in order."""

    direction: Direction
    id: str
    entries: tuple[Entry, ...]

    @property
    def finished(self) -> tuple[Entry, ...]:
        """The rows of the units that took effect."""
        return tuple(entry for entry in self.entries if entry.state == "finished")

    @property
    def open(self) -> Entry | None:
        """The row of the unit that was reached, or failed, and did not finish."""
        last = self.entries[-1]
        return None if last.state == "finished" else last

    @property
    def goes_on_at(self) -> int:
        """The number of the statement to go on with."""
        return (self.finished[-1].statement if self.finished else 0) + 1

    def __str__(self) -> str:
        doing = {"apply": "applied", "undo": "rolled back"}[self.direction]
        return f"{self.id} is half {doing}: statement {self.goes_on_at} is the next"


def read_entries(remembered: Iterable[tuple[str, str]]) -> tuple[Entry, ...]:
    """The journal among the rows beside the history, by migration and unit."""
    found = []
    for name, value in remembered:
        if name.startswith(_PREFIX):
            import json

            direction, unit, id = name.removeprefix(_PREFIX).split(":", 2)
            # What a newer flux has added is passed over.
            fields = {k: v for k, v in json.loads(value).items() if k in Entry._fields}
            found.append(Entry(direction, id, int(unit), **fields))  # type: ignore[arg-type] # as it was written
    return tuple(sorted(found, key=lambda entry: (entry.id, entry.unit)))


def without_ended(entries: Iterable[Entry], recorded: Collection[str]) -> tuple[Entry, ...]:
    """The rows of what is under way, by the ids of a history that was read after them.

    What has ended in between left no row; but that was seen after the rows were.
    """
    return tuple(
        entry
        for entry in entries
        if entry.direction == "run" or (entry.id in recorded) == (entry.direction == "undo")
    )


def under_way(entries: Iterable[Entry]) -> UnderWay | None:
    """The migration that is half applied or half undone, if one is. Repeatables start anew."""
    own = [entry for entry in entries if entry.direction != "run"]
    if not own:
        return None
    first = own[0]
    rows = tuple(e for e in own if (e.direction, e.id) == (first.direction, first.id))
    return UnderWay(first.direction, first.id, rows)
