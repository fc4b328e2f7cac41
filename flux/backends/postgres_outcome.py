"""What became of a transaction whose connection broke, asked on a new connection. Read-only.

A COMMIT that was on its way may have arrived or not, and the server may still be at the last
statement. The fence tells when that is over: whoever waits for it and then reads finds the truth.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from flux.backends.postgres_lock import BEGIN
from flux.exceptions import DatabaseUnavailableError
from flux.plan import DatabaseState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.backends.postgres import PostgresBackend

#: Seconds between the tries to connect: a server that was restarted is back after a few.
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
#: Seconds that one try to connect, and that the server's last statement, may take.
_CONNECT_WITHIN = 5
_FENCE_WITHIN = 30


def read_state_behind_fence(backend: PostgresBackend, ran_in: int | None) -> DatabaseState | None:
    """The state, once nothing of the broken session runs any more; None where it cannot be had.

    The migration lock must be free: what of the session has not reached the server yet must find
    it lost, or it could still commit after this look. `ran_in` is the session's pid, where it is
    known; the server, which may not know that its client is gone, is told to end it.
    """
    with _connected_anew(backend) as connection:
        if connection is None:
            return None
        try:
            if ran_in is not None:
                with suppress(backend.driver_error):  # it may be another role's by now
                    backend.run_sql(backend.lock.end_session(ran_in))
            backend.run_sql(
                f"BEGIN; SET LOCAL lock_timeout = '{_FENCE_WITHIN}s';\n"
                f"{backend.lock.take_fence}COMMIT"
            )
            wait_for_disk(backend)
            return backend.read_state()
        except (backend.driver_error, DatabaseUnavailableError):
            return None


def wait_for_disk(backend: PostgresBackend) -> None:
    """Wait until all that is committed is on the disk, also by a COMMIT that has not waited for it.

    A transaction that writes does that at its end. This one writes nothing but a message to nobody.
    """
    message = "SELECT pg_catalog.pg_logical_emit_message(true, 'flux', 'what is committed stays')"
    with suppress(backend.driver_error):  # without a right to it: the server writes it in a moment
        backend.run_sql(f"{BEGIN}{message};\nCOMMIT")
    backend.roll_back()


def was_committed(backend: PostgresBackend, transaction: int) -> bool:
    """Whether the transaction of this number was committed, as far as that can be known."""
    query = f"SELECT pg_catalog.txid_status({transaction})"
    if not backend.dbapi.closed:
        return backend.fetch(query) == [("committed",)]
    with _connected_anew(backend) as connection:
        try:
            return connection is not None and backend.fetch(query) == [("committed",)]
        except backend.driver_error:
            return False


@contextmanager
def _connected_anew(backend: PostgresBackend) -> Iterator[Any]:
    """Work on a new connection in place of the broken one; None where none can be had."""
    connection = _connect(backend)
    if connection is None:
        yield None
        return
    broken, backend.dbapi = backend.dbapi, connection
    try:
        with closing(connection):
            yield connection
    finally:
        backend.dbapi = broken


def _connect(backend: PostgresBackend) -> Any:
    for pause in _PAUSES:
        time.sleep(pause)
        connection = backend.open_another(connect_timeout=_CONNECT_WITHIN)
        if connection is not None:
            return connection
    return None
