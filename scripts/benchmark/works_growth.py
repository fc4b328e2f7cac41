"""How flux grows: with the number of migrations, and with the size of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median

from benchmark.changes import Kind, changes, data
from benchmark.measure import exponent, in_turn
from benchmark.processes import Command, Sample
from benchmark.rows import FLUX, Row, Series, Unit
from benchmark.tools import Dialect, Place, PythonFlux, Tool
from benchmark.works import NAMES
from benchmark.workshop import Workshop

_LIMIT = 1.05
_APPLY = "apply"
_NOTHING = "nothing to do"

#: The samples of each command.
_Taken = dict[str, Sequence[Sample]]


def growth_postgres(shop: Workshop) -> Iterator[Row]:
    """A hundred, a thousand, ten thousand migrations on PostgreSQL."""
    return _growth(shop, "postgres")


def growth_sqlite(shop: Workshop) -> Iterator[Row]:
    """The same on SQLite."""
    return _growth(shop, "sqlite")


def growth_python(shop: Workshop) -> Iterator[Row]:
    """Nothing to do where all migrations are written in Python."""
    flux = PythonFlux(shop.flux.environment)
    taken = {
        FLUX: [
            _take(shop, flux, "sqlite", size, "rows", {_NOTHING: flux.apply})
            for size in _sizes(shop)
        ]
    }
    return _rows("growth-python", "Python files, SQLite", _sizes(shop), taken)


def _growth(shop: Workshop, dialect: Dialect) -> Iterator[Row]:
    flux, floor = shop.flux, shop.floor
    again: dict[Tool, Mapping[str, Callable[[Place], Command]]] = {
        flux: {_NOTHING: flux.apply, "status": flux.status, "validate": flux.validate},
        floor: {_NOTHING: floor.nothing},
    }
    taken = {
        tool.name: [_take(shop, tool, dialect, size, "tables", commands) for size in _sizes(shop)]
        for tool, commands in again.items()
    }
    return _rows(f"growth-{dialect}", NAMES[dialect], _sizes(shop), taken)


def _sizes(shop: Workshop) -> list[int]:
    return [shop.extent.size(full) for full in (100, 1_000, 10_000)]


def _take(
    shop: Workshop,
    tool: Tool,
    dialect: Dialect,
    size: int,
    kind: Kind,
    again: Mapping[str, Callable[[Place], Command]],
) -> _Taken:
    """Apply once, and then run other commands in turn."""
    site = shop.site(tool, dialect, changes(size, kind))
    site.renew()
    applied = site.run(tool.apply)
    contenders = {
        name: shop.contender(site, partial(site.run, command), 5) for name, command in again.items()
    }
    return {_APPLY: [applied], **in_turn(contenders)}


def _rows(
    work: str, where: str, sizes: Sequence[int], taken: Mapping[str, Sequence[_Taken]]
) -> Iterator[Row]:
    """A row for the time and one for the memory of each of flux's commands."""

    def row(command: str, what: str, unit: Unit, of: Callable[[Sample], float]) -> Row:
        amounts = {
            tool: [median(map(of, one[command])) for one in of_sizes]
            for tool, of_sizes in taken.items()
            if command in of_sizes[0]
        }
        exponents = {tool: exponent(sizes, series) for tool, series in amounts.items()}
        title = f"{command}, {where}: {what} from {sizes[-2]:,} to {sizes[-1]:,}"
        series = Series(unit, amounts[FLUX])
        return Row(work, title, "exponent", exponents, limit=_LIMIT, series=series)

    for command in taken[FLUX][0]:
        yield row(command, "time", "seconds", lambda sample: sample.seconds)
        yield row(command, "memory", "bytes", lambda sample: sample.memory)


def big(shop: Workshop) -> Iterator[Row]:
    """The peak memory of applying one migration of 200 MB, as a multiple of its size."""
    size = shop.extent.size(200_000_000)
    for dialect in NAMES:
        peaks = []
        for amount in (0, size):
            site = shop.site(shop.flux, dialect, data(amount))
            site.renew()
            peaks.append(site.run(shop.flux.apply).memory)
        title = f"a migration of {size / 1e6:g} MB, {NAMES[dialect]}: memory by its size"
        yield Row("big", title, "times", {FLUX: (peaks[1] - peaks[0]) / size}, limit=3.0)
