"""Apply procrastinate's own migrations with flux and with psql, and compare what they give.

usage: procrastinate_check.py [PSQL PG_DUMP FLUX_URL PSQL_URL]

PSQL and PG_DUMP are the paths of those programs; the URLs are of two empty databases.
Without them, a server is run for it, as for the tests.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

OWN_TABLE = "public._flux_migrations"


def main(arguments: list[str]) -> int:
    """Print how the two schemas differ; 0 when they do not."""
    if arguments:
        psql_path, pg_dump_path, flux_url, psql_url = arguments
        return compare(Path(psql_path), Path(pg_dump_path), flux_url, psql_url)

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.postgres_server import PG_CTL_VARIABLE, own_database, running_server

    with (
        running_server(os.environ.get(PG_CTL_VARIABLE)) as server,
        own_database(server) as one,
        own_database(server) as other,
    ):
        psql, pg_dump = server.client("psql"), server.client("pg_dump")
        if psql is None or pg_dump is None:
            raise SystemExit(f"there is no psql, or no pg_dump, for {server.bin_dir}")
        return compare(psql, pg_dump, one.url, other.url)


def compare(psql: Path, pg_dump: Path, flux_url: str, psql_url: str) -> int:
    """Apply all files to both databases, and print the difference of their dumps."""
    directory = migration_directory()
    files = sorted(directory.glob("*.sql"))
    apply_with_flux(directory, flux_url)
    for file in files:
        run(psql, "-Xq1", "-v", "ON_ERROR_STOP=1", "-f", file, psql_url)
    by_flux, by_psql = (dump(pg_dump, url) for url in (flux_url, psql_url))
    sys.stdout.writelines(difflib.unified_diff(by_psql, by_flux, "psql", "flux"))
    if by_flux != by_psql:
        return 1
    print(f"{len(files)} files, {len(by_flux)} lines of schema: flux and psql agree")
    return 0


def migration_directory() -> Path:
    """The folder in the installed package, which is found without importing it."""
    spec = importlib.util.find_spec("procrastinate")
    if spec is None or spec.origin is None:
        raise SystemExit("procrastinate is not installed")
    return Path(spec.origin).parent / "sql" / "migrations"


def apply_with_flux(directory: Path, url: str) -> None:
    """Point flux at the folder as it is."""
    with tempfile.TemporaryDirectory() as project:
        config = Path(project, "flux.toml")
        config.write_text(
            f'[flux]\nbackend = "postgres"\nmigration_directory = {json.dumps(str(directory))}\n',
            encoding="utf-8",
        )
        run(sys.executable, "-m", "flux", "apply", "--config", config, url)


def dump(pg_dump: Path, url: str) -> list[str]:
    """The lines of a database's schema, without flux's table and the dump's random marks."""
    text = run(pg_dump, "--schema-only", f"--exclude-table={OWN_TABLE}", url)
    marks = ("\\restrict", "\\unrestrict")
    return [line for line in text.splitlines(keepends=True) if not line.startswith(marks)]


def run(*command: str | Path) -> str:
    """Run a program that must succeed, and give what it prints."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
