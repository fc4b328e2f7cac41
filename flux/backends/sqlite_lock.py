"""The lock of a batch on a SQLite file: a side database that the holder keeps locked.

SQLite has no advisory lock, and a lock on the database itself could not outlast the commits
of a batch. `app.db-flux-lock` beside `app.db` holds one row that names the holder; whoever has
a `BEGIN IMMEDIATE` open on it has the lock. The operating system frees it when the holder
dies, however it dies. The file stays, because removing it could give two holders.
"""

from __future__ import annotations

import os
import sqlite3

from flux.exceptions import DatabaseUnavailableError


class BusyError(sqlite3.OperationalError):
    """Another connection kept the database locked for all of `busy_timeout`."""


class SideDatabaseLock:
    """The lock on the SQLite file at `path`; freed by `close`."""

    def __init__(self, path: str) -> None:
        self.path = lock_path(path)
        try:
            self._connection = sqlite3.connect(
                self.path, isolation_level=None, timeout=0, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Let the lock go, if it is held."""
        self._connection.close()

    def try_to_acquire(self) -> bool:
        """Take the lock if it is free. Never waits.

        The row must be committed for waiters to read it, so the lock is let go for a moment
        in between; it is ours only if the row is still ours when it is taken again.
        """
        connection, me = self._connection, _describe_me()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS holder (name TEXT, since TEXT)")
            connection.execute("DELETE FROM holder")
            connection.execute("INSERT INTO holder VALUES (?, datetime('now'))", (me,))
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT name FROM holder").fetchone()
            if row == (me,):
                return True
            connection.execute("ROLLBACK")
            return False
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if "locked" in str(error):
                return False
            raise self._unavailable(error) from error

    def describe_holder(self) -> str | None:
        """Who has the lock: `pid 4711 on host web-1, since 2026-11-23 10:00:00 UTC`."""
        try:
            row = self._connection.execute("SELECT name, since FROM holder").fetchone()
        except sqlite3.OperationalError:
            return None  # at this moment it is being written
        return f"{row[0]}, since {row[1]} UTC" if row else None

    def _unavailable(self, error: sqlite3.Error) -> DatabaseUnavailableError:
        hint = (
            f"the directory {os.path.dirname(self.path)} must be writable, as SQLite needs it for "
            "its journal too"
        )
        if os.path.exists(self.path) and not os.access(self.path, os.W_OK):
            hint = f"this user may not write {self.path}; whoever runs migrations must be able to"
        return DatabaseUnavailableError(
            f"cannot take the migration lock: {self.path}: {error}", hint=hint
        )


def lock_path(path: str) -> str:
    """Where the lock on a SQLite file is: two ways to one file are one lock."""
    return os.path.realpath(path) + "-flux-lock"


def _describe_me() -> str:
    from socket import gethostname

    return f"pid {os.getpid()} on host {gethostname()}"
