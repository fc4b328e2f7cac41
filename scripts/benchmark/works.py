"""What is measured beside the floors and the peers. Each work gives rows; limits are issue 6's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from benchmark.changes import changes
from benchmark.measure import in_turn
from benchmark.processes import Command, Sample, resident
from benchmark.rows import FLUX, Row, compared
from benchmark.tools import Dialect, FluxAsModule, Place, Tool
from benchmark.workshop import Site, Workshop

FLOOR = "floor"
BATCHED = "floor, batched"
EMPTY = "python -c pass"
NAMES: dict[Dialect, str] = {"postgres": "PostgreSQL", "sqlite": "SQLite"}
MIB = 2**20


def round_trips(shop: Workshop) -> Iterator[Row]:
    """The round trips of a hundred small migrations, and of nothing to do."""
    count = shop.extent.size(100)
    each, nothing = {}, {}
    with shop.wire() as wire:
        for name, site in shop.sites("postgres", changes(count)).items():
            site.renew()
            site.through(wire)
            site.run(site.tool.apply)
            applied = wire.round_trips
            site.run(site.tool.nothing)
            nothing[name] = float(wire.round_trips - applied)
            each[name] = (applied - nothing[name]) / count
            wire.connections.clear()
    title = f"round trips for each of {count:,} migrations, beyond those with nothing to do"
    yield Row("round-trips", title, "round trips", each, limit=0.1)
    title = "round trips with nothing to do, connection included"
    ratio = nothing[FLUX] / nothing[FLOOR]
    yield Row("round-trips", title, "round trips", nothing, FLOOR, ratio, 1.0)


def wire(shop: Workshop) -> Iterator[Row]:
    """A hundred migrations over a wire with round trips of ten milliseconds."""
    count = shop.extent.size(100)
    with shop.wire(way=0.005) as wire:
        contenders = {}
        for name, site in shop.sites("postgres", changes(count)).items():

            def prepare(site: Site = site) -> None:
                site.renew()
                site.through(wire)

            run = partial(site.run, site.tool.apply)
            contenders[name] = shop.contender(site, run, 5, prepare)
        samples = in_turn(contenders)
    title = f"apply {count:,} over round trips of 10 ms"
    yield compared("wire", title, samples, BATCHED, 1.5)


def _apply(shop: Workshop, dialect: Dialect) -> tuple[int, dict[str, list[Sample]]]:
    count = shop.extent.size(1000)
    contenders = {
        name: shop.contender(site, partial(site.run, site.tool.apply), 7, site.renew)
        for name, site in shop.sites(dialect, changes(count)).items()
    }
    return count, in_turn(contenders)


def apply_postgres(shop: Workshop) -> Iterator[Row]:
    """A thousand migrations on PostgreSQL."""
    count, samples = _apply(shop, "postgres")
    title = f"apply {count:,}, PostgreSQL"
    yield compared("apply-postgres", title, samples, FLOOR, 1.0)
    yield compared(
        "apply-postgres",
        f"{title}: the client's CPU",
        samples,
        FLOOR,
        2.0,
        of=lambda sample: sample.cpu,
    )


def apply_sqlite(shop: Workshop) -> Iterator[Row]:
    """A thousand migrations on SQLite."""
    count, samples = _apply(shop, "sqlite")
    yield compared("apply-sqlite", f"apply {count:,}, SQLite", samples, FLOOR, 1.05)


def _nothing(shop: Workshop, dialect: Dialect) -> Iterator[Row]:
    work = f"nothing-{dialect}"
    for full, limit in ((1000, 1.35), (5000, 1.15)):
        count = shop.extent.size(full)
        title = f"nothing to do, {count:,} applied, {NAMES[dialect]}"
        sites = shop.sites(dialect, changes(count, "rows"), without=[BATCHED])
        for site in sites.values():
            site.renew()
            site.run(site.tool.apply)
        runs = {
            name: shop.contender(site, partial(site.run, site.tool.nothing), 15)
            for name, site in sites.items()
        }
        samples = in_turn(runs)
        yield compared(work, title, samples, FLOOR, limit)
        if full == 5000:
            peaks = {
                name: float(max(sample.memory for sample in taken))
                for name, taken in samples.items()
            }
            most = 36.0 * MIB if dialect == "postgres" else None
            yield Row(work, f"{title}: memory", "bytes", peaks, limit=most)
        with ExitStack() as stack:
            runs = {}
            for name, site in sites.items():
                if (command := site.tool.inside(site.place)) is not None:
                    said = shop.work / f"{name}.txt"
                    program = stack.enter_context(resident(command, said))
                    runs[name] = shop.contender(site, program.ask, 15)
            samples = in_turn(runs)
        yield compared(work, f"{title}, inside a program", samples, FLOOR, 1.2)


def nothing_postgres(shop: Workshop) -> Iterator[Row]:
    """Nothing to do with one and with five thousand applied, on PostgreSQL."""
    return _nothing(shop, "postgres")


def nothing_sqlite(shop: Workshop) -> Iterator[Row]:
    """The same on SQLite."""
    return _nothing(shop, "sqlite")


def rollback(shop: Workshop) -> Iterator[Row]:
    """A hundred of a thousand undone on PostgreSQL."""
    count, newest = shop.extent.size(1000), shop.extent.size(100)
    undone = changes(count)[-newest:]
    contenders = {}
    for name, site in shop.sites("postgres", changes(count), without=[BATCHED]).items():
        site.renew()

        def run(site: Site = site) -> Sample:
            return site.run(lambda place: site.tool.rollback(place, undone))

        apply = partial(site.run, site.tool.apply)
        contenders[name] = shop.contender(site, run, 7, apply)
    title = f"roll back {newest:,} of {count:,}, PostgreSQL"
    yield compared("rollback", title, in_turn(contenders), FLOOR, 1.3)


def start(shop: Workshop) -> Iterator[Row]:
    """What it costs to start: the help, and the status of ten migrations."""
    sites = _ready(shop, "sqlite")
    yield _started(shop, "--help", sites, lambda tool: tool.help, EMPTY, 2.2)
    title = "status, ten applied"
    yield _started(shop, f"{title}, SQLite", sites, lambda tool: tool.status, EMPTY, 3.3)
    sites = _ready(shop, "postgres")
    yield _started(shop, f"{title}, PostgreSQL", sites, lambda tool: tool.status, FLOOR, 1.3)


def _ready(shop: Workshop, dialect: Dialect) -> dict[str, Site]:
    """Projects in which all ten migrations are applied."""
    sites = shop.sites(dialect, changes(10), without=[BATCHED])
    as_module = FluxAsModule(shop.flux.environment)
    sites[as_module.name] = shop.site(as_module, dialect, changes(10))
    for site in sites.values():
        site.renew()
        site.run(site.tool.apply)
    return sites


def _started(
    shop: Workshop,
    title: str,
    sites: dict[str, Site],
    action: Callable[[Tool], Callable[[Place], Command | None]],
    base: str,
    limit: float,
) -> Row:
    contenders = {
        name: shop.contender(site, partial(site.run, action(site.tool)), 30)
        for name, site in sites.items()
        if action(site.tool)(site.place) is not None
    }
    floor = sites[FLOOR]
    empty = partial(floor.run, shop.floor.empty)
    contenders[EMPTY] = shop.contender(floor, empty, 30)
    return compared("start", title, in_turn(contenders), base, limit)
