"""A plugin whose author has not written all that a backend must write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flux import AppliedMigration, FluxConfig, Migration, MigrationBackend


class IncompleteBackend(MigrationBackend):
    """A backend without a lock and without a transaction."""

    name = "incompletedb"

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> MigrationBackend:
        """Nobody gets this far."""
        raise NotImplementedError

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """No connection at all."""
        yield None

    def is_initialized(self) -> bool:
        """Never."""
        return False

    def initialize(self) -> None:
        """Create nothing."""

    def register_migration(self, migration: Migration) -> None:
        """Write nothing."""

    def unregister_migration(self, migration: Migration) -> None:
        """Delete nothing."""

    def apply_migration(self, content: str) -> None:
        """Run nothing."""

    def get_applied_migrations(self) -> list[AppliedMigration]:
        """Nothing at all."""
        return []
