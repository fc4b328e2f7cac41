"""Migrations with an undo that is right and one that is broken in one way: what proof must tell.

Data alone: SQL to be run, or to be written into files.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A migration, on what `setup` makes, with two undos.

    `undo` takes it back; `broken` leaves something of it, or puts something back wrongly: in the
    item of the fingerprint whose label is `left`. All of it can run in a transaction.
    """

    id: str
    setup: str
    apply: str
    undo: str
    broken: str
    left: str
    since: int = 0  # the first version that takes it: 15 of PostgreSQL, 337 for 3.37 of SQLite
