"""A migrated PostgreSQL database for each test: flux migrates once, and the server copies."""

import pytest
from psycopg2.extensions import connection as Connection

from flux.testing import Database


@pytest.fixture
def connection(flux_database: Database) -> Connection:
    """A connection to a database of the test's own, in autocommit."""
    connection: Connection = flux_database.connect()
    return connection
