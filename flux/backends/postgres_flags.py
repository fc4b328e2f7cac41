"""Which statement a session has reached, as an advisory lock of that session: a *flag*. Pure.

Such a lock outlasts the transaction in which it was taken, also one that has failed; so the
session can be asked afterwards. To take one costs a fraction of what a marker does, which is sent
to the client. But a marker tells also of a session that is gone, and it reaches the client through
a pooler; flags are for where none is in between.

The locks are shared ones of a class of their own: nobody waits for them, and no query of flux's
about other locks sees them.
"""

from __future__ import annotations

_CLASS = 0x666C6167  # "flag" in ASCII


def hoist(number: int) -> str:
    """An expression: take the flag of a statement of that number."""
    return f"pg_catalog.pg_try_advisory_lock_shared({_CLASS}, {number})"


def strike(number: int) -> str:
    """An expression: let go the flag of a statement of that number."""
    return f"pg_catalog.pg_advisory_unlock_shared({_CLASS}, {number})"


#: A query: the number of the statement whose flag this session has, which it lets go.
STRIKE_ANY = (
    "SELECT l.objid::pg_catalog.int8, "
    f"pg_catalog.pg_advisory_unlock_shared({_CLASS}, l.objid::pg_catalog.int8::pg_catalog.int4) "
    "FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' "
    f"AND l.classid = {_CLASS} AND l.objsubid = 2 AND l.pid = pg_catalog.pg_backend_pid()"
)
