"""The driver with which flux is tested on PostgreSQL: the one that FLUX_TEST_DRIVER names.

What tests look up in the database themselves goes by psycopg2, whichever it is.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

import psycopg
import psycopg2.extensions

#: `psycopg2` or `psycopg`, as `driver` in `[backend]` has it.
NAME: Final = os.environ.get("FLUX_TEST_DRIVER") or "psycopg2"


def libpq_version() -> int:
    """The version of the driver's libpq, as in 150004."""
    if NAME == "psycopg2":
        return psycopg2.extensions.libpq_version()
    return psycopg.pq.version()


def connect(*address: str, **options: Any) -> Any:
    """A connection as an application has it, to be handed to flux; the caller closes it."""
    return importlib.import_module(NAME).connect(*address, **options)


def plain_cursor(connection: Any) -> Any:
    """A cursor that gives plain tuples, whatever the connection's own factories give."""
    if NAME == "psycopg2":
        return connection.cursor(cursor_factory=psycopg2.extensions.cursor)
    return psycopg.ClientCursor(connection, row_factory=psycopg.rows.tuple_row)  # prepares nothing
