"""A migrated SQLite database for each test: migrated once, and copied."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import flux

MIGRATIONS = Path(__file__).parent / "migrations"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "app.db"
    flux.apply(str(path), MIGRATIONS)
    return path


@pytest.fixture
def connection(migrated_file: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database of the test's own."""
    with closing(sqlite3.connect(shutil.copy(migrated_file, tmp_path))) as connection:
        yield connection
