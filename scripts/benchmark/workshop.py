"""What the works share: tools, projects, databases, and a process that runs commands."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmark.changes import Change
from benchmark.measure import Contender
from benchmark.processes import Command, Runner, Sample, running
from benchmark.tools import BatchedFloor, Dialect, Floor, Flux, Place, Tool
from tests.postgres_server import DURABLE, PostgresServer, running_server
from tests.wire import Wire, counting_proxy


class Extent(NamedTuple):
    """How much is measured: sizes are divided by `smaller`, and no work has more than `rounds`."""

    smaller: int = 1
    rounds: int = 1000

    def size(self, full: int) -> int:
        """The size that stands for the full one; at least 2."""
        return max(2, full // self.smaller)


class Team(NamedTuple):
    """Who takes part."""

    flux: Flux
    floor: Floor
    peers: Sequence[Tool]


class Site:
    """One tool's project, and the database that it works on now."""

    def __init__(self, shop: Workshop, tool: Tool, place: Place) -> None:
        self._shop = shop
        self.tool = tool
        self.place = place

    def renew(self) -> None:
        """Go on with an empty database."""
        self.place = self.place._replace(url=self._shop.new_database(self.place.dialect))

    def through(self, wire: Wire) -> None:
        """Reach the database by way of a proxy."""
        port = f"@127.0.0.1:{self._shop.server.port}/"
        self.place = self.place._replace(
            url=self.place.url.replace(port, f"@127.0.0.1:{wire.port}/")
        )

    def run(self, command: Callable[[Place], Command | None]) -> Sample:
        """Run one of the tool's commands, which it must have."""
        words = command(self.place)
        assert words is not None, f"{self.tool.name} does not do that"
        return self._shop.runner.run(words)


class Workshop:
    """See the module."""

    def __init__(
        self,
        team: Team,
        extent: Extent,
        server: PostgresServer,
        runner: Runner,
        work: Path,
    ) -> None:
        self.flux, self.floor, self.peers = team.flux, team.floor, team.peers
        self.tools = (team.flux, team.floor, BatchedFloor(team.floor.environment), *team.peers)
        self.extent = extent
        self.server, self.runner, self.work = server, runner, work
        self._numbers = itertools.count(1)

    def site(self, tool: Tool, dialect: Dialect, changes: Sequence[Change]) -> Site:
        """A new project of a tool, without a database."""
        directory = self._new_path(f"{type(tool).__name__.lower()}")
        directory.mkdir()
        place = Place(directory, dialect, "")
        tool.write(place, changes)
        return Site(self, tool, place)

    def sites(
        self, dialect: Dialect, changes: Sequence[Change], *, without: Container[str] = ()
    ) -> dict[str, Site]:
        """A new project of each tool for such databases, by the tool's name."""
        return {
            tool.name: self.site(tool, dialect, changes)
            for tool in self.tools
            if dialect in tool.dialects and tool.name not in without
        }

    def contender(
        self,
        site: Site,
        run: Callable[[], Sample],
        rounds: int,
        prepare: Callable[[], object] = lambda: None,
    ) -> Contender:
        """A tool of a site in a comparison of so many rounds; a peer runs in a third of them."""
        rounds = min(rounds, self.extent.rounds)
        return Contender(run, -(-rounds // 3) if site.tool in self.peers else rounds, prepare)

    def new_database(self, dialect: Dialect) -> str:
        """The URL of an empty database. It is there until the end: dropping makes disks slow."""
        if dialect == "sqlite":
            return f"sqlite:///{self._new_path('database')}.db"
        name = f"bench{next(self._numbers)}"
        with closing(self.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
            cursor.execute("CHECKPOINT")  # which would else fall on what is measured
        return self.server.url(name)

    @contextmanager
    def wire(self, way: float = 0) -> Iterator[Wire]:
        """A proxy before the server: see `tests.wire.counting_proxy`."""
        with counting_proxy(self.server.host, self.server.port, way=way) as wire:
            yield wire

    def _new_path(self, name: str) -> Path:
        return self.work / f"{next(self._numbers)}-{name}"


@contextmanager
def workshop(team: Team, extent: Extent, pg_ctl: str | None) -> Iterator[Workshop]:
    """A workshop with a server of its own, which writes to the disk as servers do."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flux-bench-")))
        server = stack.enter_context(running_server(pg_ctl, DURABLE))
        runner = stack.enter_context(running(work))
        yield Workshop(team, extent, server, runner, work)
