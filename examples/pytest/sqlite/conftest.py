"""A migrated SQLite database for each test: flux's plugin migrates once, and copies."""

import sqlite3

import pytest

from flux.testing import Database


@pytest.fixture
def connection(flux_database: Database) -> sqlite3.Connection:
    """A connection to a database of the test's own."""
    connection: sqlite3.Connection = flux_database.connect()
    return connection
