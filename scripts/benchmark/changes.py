"""What is migrated: changes of three statements each, for any tool and any database."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Each change makes a table of its own, or all write into that of the first one.
Kind = Literal["tables", "rows"]


class Change(NamedTuple):
    """One change; tools number and name it as they like to."""

    number: int
    apply: tuple[str, ...]
    undo: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name that sorts by the number, and begins with as many digits as a time has."""
        return f"2024{self.number:010}_change"


def changes(count: int, kind: Kind = "tables") -> list[Change]:
    """The changes from 1 to `count`."""
    return [_table(n) if kind == "tables" or n == 1 else _row(n) for n in range(1, count + 1)]


def text(statements: tuple[str, ...]) -> str:
    """Statements as a file has them."""
    return "".join(f"{statement};\n" for statement in statements)


def _table(n: int) -> Change:
    return Change(
        n,
        (
            f"CREATE TABLE t{n} (id integer, name text)",
            f"CREATE INDEX t{n}_name ON t{n} (name)",
            f"INSERT INTO t{n} (id, name) VALUES (1, 'one')",
        ),
        (f"DROP TABLE t{n}",),
    )


def _row(n: int) -> Change:
    return Change(
        n,
        tuple(f"INSERT INTO t1 (id, name) VALUES ({n}, 'number {n}, {i}')" for i in range(3)),
        (f"DELETE FROM t1 WHERE id = {n}",),
    )


def data(size: int) -> list[Change]:
    """A table, and a change that fills it by about `size` bytes of INSERTs of 1,000 rows each."""
    row = f"(1, '{'x' * 190}')"
    insert = "INSERT INTO t1 (id, name) VALUES " + ", ".join([row] * 1000)
    return [_table(1), Change(2, (insert,) * max(1, size // len(insert)), ("DELETE FROM t1",))]
