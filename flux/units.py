"""The units of a migration without a transaction. Pure.

Its text is taken apart into *units*. A unit takes effect as one and is noted as one: a statement
that can run in a transaction, together with its row in the journal; a `BEGIN; … COMMIT;` of the
file's own likewise; or a statement that must run alone, of which the journal says before it runs
that it is reached, and afterwards that it is finished. What a file sets for its session (`SET`,
`PRAGMA`) is no unit: it holds for the units below it, and is set again where a run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from flux.exceptions import Problem
from flux.journal import Direction, Entry, UnderWay, UnitState
from flux.migration import Script, text_hash
from flux.record import Record
from flux.statements import Dialect, Numbered, Statement, numbered
from flux.transactions import closes_transaction, modes_of, opens_transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

#: How a statement runs: in a transaction with its row, in none, or as a setting for what follows.
Way: TypeAlias = "Literal['together', 'alone', 'session']"

#: What is kept of a text that may hold a password.
_NOT_KEPT = "(what mentions a password is not kept);\n"
_TO_HIDE = r"(?i)passw|pwd|secret|token|credential|://[^\s/]*@"
#: How many characters of a unit the journal keeps, to show what has changed.
_KEPT = 4000


class Unit(Record):
    """What takes effect as one. `number` counts units from 1; `source` is what its hash is of.

    `session` are the settings that hold for it; the last `fresh` of them stand directly before
    it, and are the first `lead` characters of `source`. `last` is the number of its last
    statement in the file. A Python function is a unit without statements.
    """

    number: int
    source: str
    is_atomic: bool
    last: int
    statements: tuple[Numbered, ...] = ()
    session: tuple[Numbered, ...] = ()
    lead: int = 0
    fresh: int = 0
    modes: str = ""

    @property
    def hash(self) -> str:
        """The hash by which the journal knows the unit again."""
        return text_hash(self.source)

    @property
    def is_block(self) -> bool:
        """Whether it is a `BEGIN; … COMMIT;` of the file's own."""
        return self.is_atomic and not (self.statements and self.statements[-1].number == self.last)

    @property
    def is_function(self) -> bool:
        """Whether it is a Python function."""
        return not (self.is_atomic or self.statements)

    @property
    def first(self) -> Statement | None:
        """Its first statement; None for a Python function."""
        return self.statements[0].statement if self.statements else None


def entry_of(direction: Direction, id: str, unit: Unit, state: UnitState) -> Entry:
    """The row for a unit in a state."""
    lead = len(_kept(unit.source[: unit.lead]))
    text = "" if unit.is_function else _kept_of(unit)
    return Entry(direction, id, unit.number, state, unit.hash, text, lead, unit.last)


def _kept_of(unit: Unit) -> str:
    """What a row keeps of a unit's text."""
    return (_kept(unit.source[: unit.lead]) + _kept(unit.source[unit.lead :]))[:_KEPT]


def _kept(source: str) -> str:
    return _NOT_KEPT if re.search(_TO_HIDE, source) else source


def units_of_text(
    statements: Sequence[Statement], dialect: Dialect, way_of: Callable[[Statement], Way]
) -> list[Unit]:
    """The units of a file's statements; `way_of` says how the database runs one."""
    units: list[Unit] = []
    session: list[Numbered] = []
    fresh = 0
    block: list[Numbered] | None = None
    modes = ""

    def add(inside: Sequence[Numbered], last: int, *, is_atomic: bool, modes: str = "") -> None:
        nonlocal fresh
        lead = "".join(_source(part.statement) for part in session[len(session) - fresh :])
        source = lead + "".join(_source(part.statement) for part in inside)
        units.append(
            Unit(
                number=len(units) + 1,
                source=source,
                lead=len(lead),
                is_atomic=is_atomic,
                last=last,
                statements=tuple(inside),
                session=tuple(session),
                fresh=fresh,
                modes=modes,
            )
        )
        fresh = 0

    for numbered_one in numbered(statements):
        number, statement = numbered_one
        if block is not None:
            if closes_transaction(statement, dialect):
                add(block, number, is_atomic=True, modes=modes)
                session += [one for one in block if way_of(one.statement) == "session"]
                block = None
            else:
                block.append(numbered_one)
        elif opens_transaction(statement, dialect):
            block, modes = [], modes_of(statement, dialect)
        elif (way := way_of(statement)) == "session":
            session.append(numbered_one)
            fresh += 1
        else:
            add([numbered_one], number, is_atomic=way == "together")
    if fresh:  # settings that nothing follows: they may be wrong, or last
        add([], session[-1].number, is_atomic=True)
    return units


def unit_of_function(script: Script) -> Unit:
    """The only unit of a Python function, which runs alone."""
    return Unit(number=1, source=script.hash, is_atomic=False, last=1)


def _source(statement: Statement) -> str:
    return f"{statement.text};\n{statement.copy_data or ''}"


def find_changes(script: Script, units: Sequence[Unit], half: UnderWay) -> list[Problem]:
    """Where a file differs from what it has already done; from there on it may be mended."""
    if not script.directives.no_transaction:
        return [
            Problem(
                "under-way",
                (half.id,),
                f"{half}, and the file now asks for a transaction",
                "give it back its directive until it is done: -- flux: no-transaction",
                script.location(),
            )
        ]
    problems = []
    for entry in half.finished:
        unit = units[entry.unit - 1] if entry.unit <= len(units) else None
        if unit is not None and unit.hash == entry.hash:
            continue
        first = unit.first if unit else None
        problems.append(
            Problem(
                "under-way",
                (half.id,),
                f"statement {entry.statement} has taken effect, and is another one now:\n"
                + difference(entry.text, _kept_of(unit) if unit else ""),
                "restore it, and put the change into a statement below or into a new migration",
                script.location(first.start) if first else script.location(),
            )
        )
    return problems


def find_change_of_open(script: Script, units: Sequence[Unit], half: UnderWay) -> list[Problem]:
    """Why the unit in doubt cannot be taken for done: another one is in its place now."""
    entry = half.open
    unit = units[entry.unit - 1] if entry is not None and entry.unit <= len(units) else None
    if entry is None or (unit is not None and unit.hash == entry.hash):
        return []
    where = script.location(unit.first.start) if unit and unit.first else script.location()
    what = f"statement {entry.statement}" if entry.text else "the function"
    changes = difference(entry.text, _kept_of(unit) if unit else "") if entry.text else ""
    return [
        Problem(
            "under-way",
            (half.id,),
            f"{what}, which was cut off, is another one now" + (f":\n{changes}" if changes else ""),
            "restore it, to skip it; `flux resume --retry` goes on with what the file has now",
            where,
        )
    ]


def difference(before: str, now: str) -> str:
    """What has changed between two texts, line by line."""
    from difflib import ndiff

    lines = ndiff(before.splitlines(), now.splitlines())
    return "\n".join(line.rstrip() for line in lines if not line.startswith("?"))
