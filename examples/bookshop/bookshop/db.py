"""The bookshop's database."""

import sqlite3
from pathlib import Path

import flux

PROJECT = Path(__file__).resolve().parent.parent
DATABASE = PROJECT / "bookshop.db"


def open_database(path: Path = DATABASE) -> sqlite3.Connection:
    """Bring the database at *path* up to date, making it if need be, and connect to it.

    However many processes start at once, flux lets one of them migrate and the others wait.
    """
    flux.apply(
        f"sqlite:///{path.resolve().as_posix()}",
        migration_directory=PROJECT / "migrations",
    )
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
