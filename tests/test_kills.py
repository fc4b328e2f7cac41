"""flux is killed with `kill -9` at random moments, and run again until it is done.

`scripts/kill-test` does the same for as long as one likes.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.kill_migrations import MIGRATIONS
from tests.kills import Target, kill_again_and_again, postgres_target, sqlite_target
from tests.pgbouncer import PgBouncer
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")

KILLS = 20
SEED_VARIABLE = "FLUX_TEST_SEED"


def check_that_it_survives(target: Target) -> None:
    """Kill, let it go on, and compare with what an undisturbed run gives."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.randrange(2**32))  # noqa: S311 - no secret
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201 - pytest shows it with a failure
    tally = kill_again_and_again(target, kills=KILLS, seed=seed)
    print(tally)  # noqa: T201 - with pytest -s, to see where the kills landed
    assert tally.kills == KILLS
    assert tally.in_steps > KILLS / 4, "most kills missed what they are for"


@pytest.fixture
def dumping_server(server: PostgresServer) -> PostgresServer:
    """The server, where there is a pg_dump for it."""
    if server.client("pg_dump") is None:
        unavailable("there is no pg_dump for the server")
    return server


def test_postgres(dumping_server: PostgresServer, tmp_path: Path) -> None:
    """The schema by pg_dump, the rows and every counter are those of a run that nobody kills."""
    files, url = MIGRATIONS["postgres"], dumping_server.url
    check_that_it_survives(postgres_target(dumping_server, tmp_path, files, url=url))


def test_behind_pgbouncer(
    dumping_server: PostgresServer, pgbouncer: PgBouncer, tmp_path: Path
) -> None:
    """The same where the server learns of a client's death from the pooler alone."""
    files, url = MIGRATIONS["postgres"], pgbouncer.url
    check_that_it_survives(postgres_target(dumping_server, tmp_path, files, url=url))


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_sqlite(tmp_path: Path, journal_mode: str) -> None:
    """The same, and the file is whole and nobody's lock is on it."""
    files = MIGRATIONS["sqlite"]
    check_that_it_survives(sqlite_target(tmp_path, files, journal_mode=journal_mode))
