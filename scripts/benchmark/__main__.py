"""What flux costs, beside floors and other tools, in one run on one machine.

A floor is the least that does the same work: a loop over psycopg2 or sqlite3 that keeps each
migration's hash. Tools are run in turn, so that what else the machine does falls on all of them; a
ratio is the median, over all rounds, of flux to its base in the same round. flux is installed from
the checkout as its users have it; what is installed is kept in .bench/. Nothing fails for being
slow.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmark import report, works, works_growth, works_template
from benchmark.environments import (
    PSYCOPG2,
    ROOT,
    InPlace,
    NotInstalledError,
    flux_environment,
    python_environment,
)
from benchmark.peers import PEERS
from benchmark.processes import CommandFailedError
from benchmark.rows import Row
from benchmark.tools import Floor, Flux, Tool
from benchmark.workshop import Extent, Team, Workshop, workshop
from tests.postgres_server import PG_CTL_VARIABLE

WORKS: Mapping[str, Callable[[Workshop], Iterator[Row]]] = {
    "start": works.start,
    "round-trips": works.round_trips,
    "wire": works.wire,
    "apply-postgres": works.apply_postgres,
    "apply-sqlite": works.apply_sqlite,
    "nothing-postgres": works.nothing_postgres,
    "nothing-sqlite": works.nothing_sqlite,
    "rollback": works.rollback,
    "template": works_template.template,
    "big": works_growth.big,
    "growth-python": works_growth.growth_python,
    "growth-sqlite": works_growth.growth_sqlite,
    "growth-postgres": works_growth.growth_postgres,
}
NAMES = {peer.name: peer for peer in PEERS}


def main(words: Sequence[str]) -> int:
    """Measure, print a table, and write the same as JSON; 1 where a work could not be done."""
    given = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, _end)
    extent = Extent(given.smaller, given.rounds)
    team, notes = _team(given)
    rows: list[Row] = []
    with workshop(team, extent, os.environ.get(PG_CTL_VARIABLE)) as shop:
        for name in given.works:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                rows += WORKS[name](shop)
            except CommandFailedError as error:
                notes.append(f"{name}: {error}")
        version = shop.server.version
    if given.smaller > 1:  # the limits are for the full sizes
        rows = [row._replace(limit=None) for row in rows]
    print(report.as_text(rows), *notes, sep="\n")
    run = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": _answer("git", "rev-parse", "--short=10", "HEAD"),
        "command": " ".join(["scripts/bench", *words]),
    }
    data = report.as_data(rows, _machine(version, team), run)
    report.write(data, given.json)
    print(f"\nwritten: {given.json}")
    if given.publish:
        report.publish(data, report.PAGE)
        print(f"written: {report.PAGE}, and the same as JSON beside it")
    return 1 if notes else 0


def _end(*_: object) -> None:
    """End, and the server too; another signal meanwhile does not stop what tidies up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--works",
        nargs="+",
        choices=WORKS,
        default=list(WORKS),
        metavar="WORK",
        help=f"what to measure, all when left out: {', '.join(WORKS)}",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=NAMES,
        default=list(NAMES),
        metavar="NAME",
        help=f"the other tools, all when left out: {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--smaller", type=int, default=1, metavar="N", help="divide every size by N"
    )
    parser.add_argument(
        "--rounds", type=int, default=1000, metavar="N", help="at most so many for each work"
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="install nothing: flux runs from the checkout, with the Python of the benchmark",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "build" / "benchmarks.json",
        metavar="PATH",
        help="where to write it; default: build/benchmarks.json",
    )
    parser.add_argument(
        "--publish", action="store_true", help="write it into docs/benchmarks.md, too"
    )
    return parser


def _team(given: argparse.Namespace) -> tuple[Team, list[str]]:
    """Who takes part, and why some do not."""
    if given.in_place:
        here = InPlace.make()
        return Team(Flux(here), Floor(here), ()), []
    notes = []
    peers: list[Tool] = []
    for name in given.peers:
        peer = NAMES[name]
        try:
            peers.append(peer(PEERS[peer]()))
        except NotInstalledError as error:
            notes.append(f"{name} is not installed: {error}")
    floor = Floor(python_environment("floor", PSYCOPG2))
    return Team(Flux(flux_environment()), floor, peers), notes


def _machine(server: int, team: Team) -> dict[str, str]:
    """What the numbers depend on, by its name."""
    peers = ", ".join(f"{peer.name} {peer.version}".strip() for peer in team.peers)
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} "
        f"{platform.release()}",
        "Python": platform.python_version(),
        "PostgreSQL": f"{server // 10000}.{server % 10000}, with its defaults, on loopback",
        "SQLite": sqlite3.sqlite_version,
        "psycopg2": PSYCOPG2.partition("==")[2],
        "other tools": peers or "none",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _answer(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
