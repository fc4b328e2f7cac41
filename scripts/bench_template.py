"""What a migrated database costs a test, as a ratio to the server's own copy of the template.

Each round makes one database with `flux_database`'s code and one with a bare CREATE DATABASE …
TEMPLATE of the same template, in turn, one after the other; a ratio is the median over all rounds.
What a test waits for is `made`; `whole` is with the end, to which the bare DROP DATABASE is
compared. Projects of different sizes show whether the number of migrations matters: it does so as
far as the template grows, which is why the times are ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flux.config import FluxConfig  # noqa: E402 - the checkout's
from flux.testing import ScratchDatabases  # noqa: E402 - the checkout's
from tests.postgres_server import PostgresServer, running_server  # noqa: E402 - the checkout's

#: How much more than the bare copy a migrated database may cost (issue 5).
LIMIT = 1.5


def main() -> None:
    """Measure, and print the result as JSON; exit with 1 where a ratio is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench-template")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument(
        "--migrations", type=int, nargs="+", default=[10, 500], metavar="N", help="default: 10 500"
    )
    arguments = parser.parse_args()
    with running_server(os.environ.get("FLUX_TEST_PG_CTL")) as server:
        results = [measure(server, n, arguments.rounds) for n in arguments.migrations]
        document = {
            "python": platform.python_version(),
            "server": server.version,
            "rounds": arguments.rounds,
            "limit": LIMIT,
            "results": results,
        }
    print(json.dumps(document, indent=2))
    if any(result["made"]["ratio"] > LIMIT for result in results):
        raise SystemExit(1)


def measure(server: PostgresServer, migrations: int, rounds: int) -> dict[str, Any]:
    """The times of one project, in milliseconds, and their ratios."""
    with project(server, migrations) as config, ScratchDatabases(config) as databases:
        started = time.perf_counter()
        with databases.database():
            cold = time.perf_counter() - started
        ours: list[tuple[float, float]] = []
        bare: list[tuple[float, float]] = []
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^flux_template_'")
            [(template,)] = cursor.fetchall()
            for number in range(rounds):
                # In turn first, so that neither has the better half of each round.
                for one in (0, 1) if number % 2 else (1, 0):
                    started = time.perf_counter()
                    if one:
                        with databases.database():
                            made = time.perf_counter()
                        ours.append((made - started, time.perf_counter() - started))
                    else:
                        cursor.execute(f"CREATE DATABASE bare TEMPLATE {template}")
                        made = time.perf_counter()
                        cursor.execute("DROP DATABASE bare WITH (FORCE)")
                        bare.append((made - started, time.perf_counter() - started))
            cursor.execute(f"DROP DATABASE {template}")
    return {
        "migrations": migrations,
        "cold_ms": round(cold * 1000, 1),
        **{
            name: {
                "flux_ms": round(median(one[at] for one in ours) * 1000, 2),
                "bare_ms": round(median(one[at] for one in bare) * 1000, 2),
                "ratio": round(median(a[at] / b[at] for a, b in zip(ours, bare, strict=True)), 3),
            }
            for at, name in enumerate(("made", "whole"))
        },
    }


@contextmanager
def project(server: PostgresServer, migrations: int) -> Iterator[FluxConfig]:
    """A project with so many migrations; each has a statement of its own on one of ten tables."""
    with tempfile.TemporaryDirectory(prefix="flux-bench-") as directory:
        for number in range(migrations):
            text = f"ALTER TABLE t{number % 10} ADD c{number} integer;\n"
            if number < 10:
                text = f"CREATE TABLE t{number} (id integer PRIMARY KEY, name text NOT NULL);\n"
            Path(directory, f"{number:04}_change.sql").write_text(text, encoding="utf-8")
        yield FluxConfig(
            backend="postgres",
            migration_directory=directory,
            database_url=server.url("flux_tests").replace("$", "$$"),
        )


if __name__ == "__main__":
    main()
