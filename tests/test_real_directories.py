"""flux on migration directories of other projects, as they are."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.conftest import unavailable
from tests.flux_process import flux_environment
from tests.postgres_server import Postgres, PostgresServer, own_database

SCRIPT = Path(__file__).parents[1] / "scripts" / "procrastinate_check.py"


def test_procrastinate(server: PostgresServer, postgres_database: Postgres) -> None:
    """flux makes of its 38 files what psql makes of them; `__init__.py` is not one of them."""
    spec = importlib.util.find_spec("procrastinate")
    if spec is None or spec.origin is None:
        unavailable("procrastinate is not installed")
    psql, pg_dump = server.client("psql"), server.client("pg_dump")
    if psql is None or pg_dump is None:
        unavailable(f"there is no psql, or no pg_dump, for {server.bin_dir}")
    ours = server.url(postgres_database.database)
    with own_database(server) as other:
        theirs = server.url(other.database)
        done = subprocess.run(
            [sys.executable, SCRIPT, psql, pg_dump, ours, theirs],
            env=flux_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert done.stdout.endswith("flux and psql agree\n")
    files = sorted(Path(spec.origin).parent.glob("sql/migrations/*.sql"))
    assert len(files) >= 38
    recorded = postgres_database.query("SELECT id FROM _flux_migrations ORDER BY applied_at")
    assert [id for (id,) in recorded] == [file.stem for file in files]
