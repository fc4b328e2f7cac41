"""A project on PostgreSQL: its history lies in the test's own schema, beside its tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flux import FluxRunner
from flux.exceptions import FluxMigrationException
from flux.results import BatchResult
from tests import driver
from tests.postgres_server import Postgres
from tests.project import Project


@dataclass(frozen=True)
class PostgresProject(Project):
    """A project whose flux runs as a process, or, many times faster, in this one.

    The test's process works in `root`, so that both name files in the same way.
    """

    postgres: Postgres

    def configure(self, general: str = "", backend: str = "", *, url: str = "") -> None:
        """Write flux.toml anew; the database's URL is the test's own unless another is given."""
        if "migrations_schema" not in backend:
            backend = f'migrations_schema = "{self.postgres.schema}"\n{backend}'
        if "driver" not in backend:
            backend = f'driver = "{driver.NAME}"\n{backend}'
        url = (url or self.postgres.url).replace("$", "$$")
        self.write(
            "flux.toml",
            f'[flux]\nbackend = "postgres"\ndatabase_url = {json.dumps(url)}\n{general}\n'
            f"[backend]\n{backend}\n",
        )

    def runner(self, **options: Any) -> FluxRunner:
        """A runner in this process, to be entered."""
        return FluxRunner.from_file("flux.toml", **options)

    def apply(self, n: int | None = None) -> BatchResult:
        """Apply what is pending, in this process."""
        with self.runner() as runner:
            return runner.apply_migrations(n)

    def rollback(self, n: int | None = 1) -> BatchResult:
        """Undo the newest, in this process."""
        with self.runner() as runner:
            return runner.rollback_migrations(n)

    def error(self) -> str:
        """What an `apply` in this process, which must fail, says."""
        return str(self.exception())

    def exception(self) -> FluxMigrationException:
        """What an `apply` in this process, which must fail, raises."""
        try:
            done = self.apply()
        except FluxMigrationException as error:
            return error
        raise AssertionError(f"applied: {done}")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL in a connection of its own, and commit it."""
        return self.postgres.query(sql)

    def tables(self) -> list[str]:
        """The names of all tables in the test's schema but flux's own."""
        rows = self.query(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema::regnamespace "
            "AND relkind IN ('r', 'p') AND relname NOT LIKE '\\_flux%' ORDER BY relname"
        )
        return [name for (name,) in rows]

    def applied(self) -> list[str]:
        """The ids in the history; none where there is no history."""
        if self.query("SELECT to_regclass('_flux_migrations')") == [(None,)]:
            return []
        return [
            id for (id,) in self.query('SELECT id FROM _flux_migrations ORDER BY id COLLATE "C"')
        ]
