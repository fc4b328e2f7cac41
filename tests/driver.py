"""The driver with which flux is tested on PostgreSQL: the one that FLUX_TEST_DRIVER names.

What tests look up in the database themselves goes by psycopg2, whichever it is.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

#: `psycopg2` or `psycopg`, as `driver` in `[backend]` has it.
NAME: Final = os.environ.get("FLUX_TEST_DRIVER") or "psycopg2"


def connect(*address: str, **options: Any) -> Any:
    """A connection as an application has it, to be handed to flux; the caller closes it."""
    return importlib.import_module(NAME).connect(*address, **options)
