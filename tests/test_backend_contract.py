"""The backends that come with flux keep the contract; a plugin's own test is in tests/plugins."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flux import FluxConfig, MigrationBackend
from flux.backends import load_backend
from flux.backends.sqlite import SQLiteBackend
from flux.testing import BackendContract, same, skip
from tests.postgres_server import Postgres

if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend


class TestSQLite(BackendContract):
    """A file, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "app.db"
        self.path.touch()

    def make_backend(self, config: FluxConfig) -> SQLiteBackend:
        return SQLiteBackend.from_config(config, str(self.path))


class TestSQLiteConnection(BackendContract):
    """A connection that the application opened, with sqlite3's own ideas of transactions."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "app.db"
        with ExitStack() as self.connections:
            yield

    def make_backend(self, config: FluxConfig) -> SQLiteBackend:
        connection = self.connections.enter_context(closing(sqlite3.connect(self.path)))
        connection.row_factory = sqlite3.Row
        return SQLiteBackend.for_connection(config, connection)


class TestPostgres(BackendContract):
    """A schema of a database, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def make_backend(self, config: FluxConfig) -> MigrationBackend:
        return load_backend("postgres").from_config(self.settings(config), self.postgres.url)

    def settings(self, config: FluxConfig) -> FluxConfig:
        """The configuration with the history in the test's own schema."""
        schema = {"migrations_schema": self.postgres.schema}
        return config._replace(backend_config={**config.backend_config, **schema})


class TestPostgresConnection(TestPostgres):
    """A connection that the application opened, with psycopg2's own ideas of transactions."""

    def make_backend(self, config: FluxConfig) -> MigrationBackend:
        connection = self.postgres.connect()  # what is left open is ended after the test
        connection.autocommit = False
        return load_backend("postgres").for_connection(self.settings(config), connection)
