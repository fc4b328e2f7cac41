"""Holding the migration lock on PostgreSQL for as long as a batch takes, on a second connection."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from flux.backends.postgres_lock import BEGIN, CAN_CHECK_CLIENT, CAN_FLAG, CAN_MARK, Held, Holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.backends.postgres import PostgresBackend

#: Seconds to wait for a pool's second session, before the lock is held without one. Many replicas
#: that start on a busy machine keep every session of a pool for some seconds without that.
_STARVED_AFTER = 10.0


class LockHolder:
    """Takes the lock for one batch, and frees it.

    `held` says what is held once it is taken; without a second connection, each migration is to
    take the lock itself.
    """

    def __init__(self, backend: PostgresBackend) -> None:
        self.held = Held()
        self._backend = backend
        self._connection: Any = None

    def try_to_acquire(self) -> bool:
        """Take the lock if it is free, and then wait for the fence; whether it was free."""
        backend, lock = self._backend, self._backend.lock
        if backend.fetch(lock.is_held):
            return False
        connection = backend.open_another(_import_what_runs)
        if connection is None:
            [(can_mark,)] = backend.fetch(f"SELECT {CAN_MARK}")
            self.held = Held(can_mark=can_mark)
            return True  # and the fence is waited for by each migration
        self._connection = connection
        token = int.from_bytes(os.urandom(7), "big")
        with backend.driver.cursor(connection) as cursor:
            # Nothing else runs on this connection: an error here would free the lock.
            cursor.execute(
                f"{BEGIN}{lock.outlast_timeouts}; {lock.take_token(token)}; "
                f"SELECT {lock.try_lock}, pg_catalog.pg_backend_pid(), {CAN_MARK}, "
                f"{CAN_CHECK_CLIENT}, {CAN_FLAG}, {lock.fence_is_free}"
            )
            is_ours, pid, can_mark, checks_client, can_flag, fence_is_free = cursor.fetchone()
        if not is_ours:
            connection.close()
            self._connection = None
            return False
        # Behind a pooler the server's process may be another one each time.
        is_direct = pid == connection.info.backend_pid
        if not is_direct and self._is_starved():
            self.held = Held(can_mark=can_mark)
            return True
        self.held = Held(
            pid=pid,
            can_mark=can_mark,
            checks_client=checks_client,
            can_flag=can_flag and is_direct,
            is_direct=is_direct,
            runs_in=backend.dbapi.info.backend_pid if is_direct else None,
            token=token,
        )
        if not fence_is_free:
            self._wait_for_fence()
        return True

    def describe(self) -> str | None:
        """The session that holds the lock; None where none does. Read-only."""
        rows = self._backend.fetch(self._backend.lock.holder)
        return str(Holder(*rows[0])) if rows else None

    def free(self) -> None:
        """Let the lock go, if it is held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The server notices later that a connection was closed; the next one, which may be
            # ours, must not wait for that.
            driver = self._backend.driver
            with suppress(driver.error), driver.cursor(connection) as cursor:
                cursor.execute("ROLLBACK")
            connection.close()

    def _is_starved(self) -> bool:
        """Whether a pool has no session for the backend while another one holds the lock.

        Then the lock is let go from another thread; no driver's wait for an answer has a limit.
        """
        import threading

        watchdog = threading.Timer(_STARVED_AFTER, self.free)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._backend.fetch("SELECT 1")
        finally:
            watchdog.cancel()
            watchdog.join()
        return self._connection is None

    def _wait_for_fence(self) -> None:
        """Wait for what a killed run still has under way on the server, and say for whom."""

        def find() -> str | None:
            rows = self._backend.fetch(self._backend.lock.fence_holder)
            return str(Holder(*rows[0])) if rows else None

        wait_until_gone(self._backend, find)


def wait_until_gone(backend: PostgresBackend, find: Callable[[], str | None]) -> None:
    """Wait until `find` finds no session any more, of a run that was cut off.

    Raises `MigrationLockError` after `lock_wait` seconds.
    """
    found: str | None = None

    def is_gone() -> bool:
        nonlocal found
        now = find()
        found = f"{now}, left by a run that was cut off" if now else found
        return now is None

    # Whom it was found to be, also where it is gone by the time that it is told.
    backend.wait_for_lock(is_gone, lambda: found)


def _import_what_runs() -> None:
    """Import what a batch needs, which takes about as long as to open a connection."""
    from flux.backends import postgres_bundle, postgres_watch  # noqa: F401 - for later
