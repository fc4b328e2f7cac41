"""flux on cooldb, whose driver happens to be the standard library's sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from urllib.parse import quote

from flux import AppliedMigration, FluxConfig, Migration, MigrationBackend
from flux.config import check_keys


class CoolBackend(MigrationBackend):
    """A cooldb database, which has to be there: `cooldb:///srv/app.cool`."""

    name = "cooldb"
    dialect = "sqlite"
    driver_error = sqlite3.Error
    config_example = "# coolness_level = 5   # kept with each row of the history"
    url_example = "cooldb:///srv/app.cool"

    def __init__(self, path: str, coolness_level: int, lock_wait: float) -> None:
        self.path = path
        self.coolness_level = coolness_level
        self.lock_wait = lock_wait

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> CoolBackend:
        check_keys(config.backend_config, {"coolness_level": int}, config.path)
        level = config.backend_config.get("coolness_level", 5)
        return cls(connection_uri.removeprefix("cooldb://"), level, config.lock_wait)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        address = f"file:{quote(self.path)}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            yield connection

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        with closing(sqlite3.connect(f"{self.path}.lock", timeout=0)) as holder:

            def try_to_acquire() -> bool:
                try:
                    holder.cursor().execute("BEGIN EXCLUSIVE")
                except sqlite3.OperationalError:
                    return False
                return True

            self.wait_for_lock(try_to_acquire, lambda: None)
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.run_sql("BEGIN")
        try:
            yield
            self.run_sql("COMMIT")
        except BaseException:
            self.dbapi.rollback()
            raise

    def is_initialized(self) -> bool:
        return bool(self.fetch("SELECT 1 FROM sqlite_master WHERE name = 'cool_history'"))

    def initialize(self) -> None:
        self.run_sql("CREATE TABLE cool_history (id PRIMARY KEY, hash, coolness, applied_at)")

    def register_migration(self, migration: Migration) -> None:
        self.run_sql(
            f"INSERT INTO cool_history VALUES ({self.literal(migration.id)}, "
            f"'{migration.hash}', {self.coolness_level}, datetime('now'))"
        )

    def unregister_migration(self, migration: Migration) -> None:
        self.run_sql(f"DELETE FROM cool_history WHERE id = {self.literal(migration.id)}")

    def apply_migration(self, content: str) -> None:
        self.run_text(content)

    def get_applied_migrations(self) -> list[AppliedMigration]:
        rows = self.fetch("SELECT id, hash, applied_at FROM cool_history")
        return [
            AppliedMigration(id, hash, datetime.fromisoformat(f"{at}+00:00"))
            for id, hash, at in rows
        ]
