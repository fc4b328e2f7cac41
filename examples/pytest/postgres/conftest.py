"""A migrated PostgreSQL database for each test: migrated once, and copied by the server.

TEST_DATABASE_URL is the address of any database on a server where databases may be created.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

import flux

MIGRATIONS = Path(__file__).parent / "migrations"


@pytest.fixture(scope="session")
def server() -> str:
    address = os.environ.get("TEST_DATABASE_URL")
    if not address:
        pytest.skip("TEST_DATABASE_URL is not set")
    return address


@contextmanager
def new_database(server: str, template: str = "template1") -> Iterator[str]:
    """The name of a database that is dropped when the block ends."""
    name = f"test_{uuid.uuid4().hex}"
    with closing(psycopg2.connect(server)) as connection:
        connection.autocommit = True  # as CREATE DATABASE needs it
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def migrated(server: str) -> Iterator[str]:
    """The name of a migrated database, to which nobody may be connected while it is copied."""
    with new_database(server) as name:
        flux.apply(make_dsn(server, dbname=name), MIGRATIONS)
        yield name


@pytest.fixture
def connection(server: str, migrated: str) -> Iterator[Connection]:
    """A connection to a database of the test's own."""
    with (
        new_database(server, template=migrated) as name,
        closing(psycopg2.connect(make_dsn(server, dbname=name))) as connection,
    ):
        yield connection
