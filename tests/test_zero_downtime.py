"""What docs/guides/zero-downtime.md says of PostgreSQL's locks is what this server does."""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from tests.documents import DOCS
from tests.postgres_server import Postgres

_GUIDE = (DOCS / "guides" / "zero-downtime.md").read_text("utf-8")
_ROW = re.compile(r"(?m)^\| `([^`]+)` \| ([A-Z ]+)(, on both tables)? \| (.*) \|$")
#: From the weakest to the strongest.
_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_TABLES = """
    CREATE TABLE customers (id integer PRIMARY KEY);
    INSERT INTO customers SELECT generate_series(1, 10);
    CREATE TABLE orders (
        id integer PRIMARY KEY, customer integer, code varchar(10), total numeric(10, 2)
    );
    INSERT INTO orders SELECT n, n, 'C' || n, 1 FROM generate_series(1, 10) AS n;
    CREATE UNIQUE INDEX orders_code ON orders (code);
    ALTER TABLE orders ADD CONSTRAINT total_positive CHECK (total > 0) NOT VALID;
"""
_LOCKS = """
    SELECT relation::regclass::text, mode FROM pg_locks
    WHERE relation IN ('orders'::regclass, 'customers'::regclass) AND mode <> 'AccessShareLock'
"""
_WORK = "SELECT pg_relation_filenode('orders'), pg_stat_get_xact_numscans('orders'::regclass)"


class Claim(NamedTuple):
    """A row of the guide's table."""

    statement: str
    lock: str
    on_both: str
    work: str

    @property
    def mode(self) -> str:
        """The lock as `pg_locks` writes it."""
        return self.lock.title().replace(" ", "") + "Lock"

    @property
    def tables(self) -> set[str]:
        """The tables that are locked so."""
        return {"orders", "customers"} if self.on_both else {"orders"}


_CLAIMS = [Claim(*match) for match in _ROW.findall(_GUIDE)]
_IN_TRANSACTIONS = [claim for claim in _CLAIMS if "CONCURRENTLY" not in claim.statement]


@pytest.fixture
def place(postgres: Postgres) -> Postgres:
    """Tables such as the guide's, with some rows."""
    postgres.query(_TABLES)
    return postgres


def _strongest(locks: list[tuple[str, str]], table: str) -> str:
    modes = [mode for locked, mode in locks if locked == table]
    return max(modes, key=_MODES.index, default="none")


def _work(before: tuple[int, int], after: tuple[int, int]) -> str:
    if after[0] != before[0]:
        return "rewrites the table"
    return "reads the table" if after[1] != before[1] else "at once"


def _run(place: Postgres, statement: str) -> tuple[list[tuple[str, str]], str]:
    """The locks that a statement takes, and the work that it is, in a transaction for itself."""
    with closing(place.connect()) as session, session.cursor() as cursor:

        def ask(sql: str) -> list[Any]:
            cursor.execute(sql)
            return cursor.fetchall()

        cursor.execute("BEGIN")
        [before] = ask(_WORK)
        cursor.execute(statement)
        locks = ask(f"{_LOCKS} AND pid = pg_backend_pid()")
        [after] = ask(_WORK)
        cursor.execute("ROLLBACK")
    return locks, _work(before, after)


def test_the_guide_has_its_table() -> None:
    assert len(_IN_TRANSACTIONS) >= 20
    assert len(_CLAIMS) == len(_IN_TRANSACTIONS) + 1


@pytest.mark.parametrize("claim", _IN_TRANSACTIONS, ids=lambda claim: str(claim.statement))
def test_what_a_statement_locks_and_does(place: Postgres, claim: Claim) -> None:
    locks, work = _run(place, claim.statement)
    for table in claim.tables:
        assert _strongest(locks, table) == claim.mode
    assert claim.work.startswith(work)


def test_a_valid_check_spares_the_look_for_nulls(place: Postgres) -> None:
    place.query("ALTER TABLE orders ADD CONSTRAINT code_is_there CHECK (code IS NOT NULL)")
    _, work = _run(place, "ALTER TABLE orders ALTER COLUMN code SET NOT NULL")
    assert work == "at once"


@pytest.mark.parametrize("type_", ["text", "varchar(20)", "numeric(12, 2)"])
def test_a_longer_type_is_no_rewrite(place: Postgres, type_: str) -> None:
    column = "total" if type_.startswith("numeric") else "code"
    _, work = _run(place, f"ALTER TABLE orders ALTER COLUMN {column} TYPE {type_}")
    assert work == "at once"


def test_an_index_built_concurrently_lets_others_write(place: Postgres) -> None:
    """And it waits for a transaction that is older than itself."""
    [claim] = [claim for claim in _CLAIMS if claim not in _IN_TRANSACTIONS]
    with closing(place.connect()) as older, closing(place.connect()) as builder:
        older.cursor().execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM customers")
        pid = builder.info.backend_pid
        build = threading.Thread(target=lambda: builder.cursor().execute(claim.statement))
        build.start()
        try:
            deadline = time.monotonic() + 30
            while not (locks := place.query(f"{_LOCKS} AND granted AND pid = {pid}")):
                assert time.monotonic() < deadline, "it has not begun"
            place.query("UPDATE orders SET total = 2 WHERE id = 1")
            valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('i')"
            assert place.query(valid) in ([], [(False,)])
        finally:
            older.cursor().execute("ROLLBACK")
            build.join(30)
        assert _strongest(locks, "orders") == claim.mode
        assert place.query(valid) == [(True,)]
