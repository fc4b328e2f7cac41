"""Kill flux with `kill -9` at random moments, run it again until it is done, and compare.

The long version of tests/test_kills.py: servers of its own, as many kills as are asked for.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.kill_migrations import MIGRATIONS
from tests.kills import Target, kill_again_and_again, postgres_target, sqlite_target
from tests.pgbouncer import PgBouncer, running_pgbouncer
from tests.postgres_server import PG_CTL_VARIABLE, PostgresServer, running_server

DATABASES = ("postgres", "pgbouncer", "sqlite")


def main(arguments: Sequence[str]) -> int:
    """Kill, compare and tell; 0 when every database holds what it should."""
    parser = argparse.ArgumentParser(prog="kill-test", description=__doc__.partition("\n")[0])
    parser.add_argument("kills", nargs="?", type=int, default=200, help="per database (200)")
    parser.add_argument("--seed", type=int, help="of the randomness, as an earlier run printed it")
    parser.add_argument("--database", choices=DATABASES, help="one of them; all when left out")
    given = parser.parse_args(arguments)
    seed = random.randrange(2**32) if given.seed is None else given.seed  # noqa: S311 - no secret
    databases = DATABASES if given.database is None else (given.database,)
    for database in databases:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, target in targets(database, root, stack):
                print(f"{name}: {given.kills} kills, seed {seed}", flush=True)
                started = time.monotonic()
                try:
                    tally = kill_again_and_again(target, kills=given.kills, seed=seed)
                except AssertionError as error:
                    print(error)
                    return 1
                print(f"{tally}\nevery database is as it should be", end=" ")
                print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def targets(database: str, root: Path, stack: ExitStack) -> Iterator[tuple[str, Target]]:
    """What to kill flux on, by name; `stack` ends the servers that are run for it."""
    if database == "sqlite":
        for mode in ("wal", "delete"):
            target = sqlite_target(root / mode, MIGRATIONS["sqlite"], journal_mode=mode)
            yield f"sqlite, journal_mode {mode}", target
        return
    server = stack.enter_context(running_server(os.environ.get(PG_CTL_VARIABLE)))
    place: PostgresServer | PgBouncer = server
    if database == "pgbouncer":
        place = stack.enter_context(running_pgbouncer(server))
    yield database, postgres_target(server, root, MIGRATIONS["postgres"], url=place.url)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
