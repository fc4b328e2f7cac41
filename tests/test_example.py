"""The bookshop of examples/: what newcomers read is right, and its undo scripts undo."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.flux_process import FluxProcess
from tests.project import Project

EXAMPLE = Path(__file__).parent.parent / "examples" / "bookshop"
IDS = sorted(
    {
        path.name.partition(".")[0]
        for path in (EXAMPLE / "migrations").iterdir()
        if path.suffix in (".sql", ".py")
    }
)


@pytest.fixture
def bookshop(tmp_path: Path) -> Project:
    """A copy of the example, without a database that somebody may have made in it."""
    root = tmp_path / "bookshop"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    return Bookshop(root, FluxProcess(root))


class Bookshop(Project):
    """The example names its database by itself."""

    @property
    def database(self) -> Path:
        """The file that the example's flux.toml names."""
        return self.root / "bookshop.db"


def schema(project: Project) -> list[tuple[Any, ...]]:
    """All tables, indexes, triggers and views of the migrations: not those of repeatables."""
    # Quotation marks around a name, as ALTER TABLE RENAME puts them there, are no difference.
    rows = project.query(
        "SELECT type, name, tbl_name, replace(sql, '\"', '') FROM sqlite_master ORDER BY type, name"
    )
    of_repeatables = {"countries", "top_customers", "stock_to_reorder", "sales_by_country"}
    return [row for row in rows if row[2] not in of_repeatables]


def contents(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables but flux's own."""
    return {
        table: sorted(project.query(f'SELECT * FROM "{table}"'), key=repr)
        for table in project.tables()
    }


def sample(project: Project) -> None:
    """Rows that refer to one another, old baskets among them, as an open shop has them."""
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.executescript(
            """
            PRAGMA foreign_keys = ON;
            INSERT INTO customers (id, email, name, country) VALUES
                (1, 'ada@example.org', 'Ada', 'GB'), (2, 'bo@example.org', 'Bo', 'SE');
            INSERT INTO orders (id, customer_id, status, created_at, updated_at) VALUES
                (1, 1, 'placed', '2024-01-01', '2024-01-01'),
                (2, 2, 'basket', '2024-01-01', '2024-01-01'),
                (3, 2, 'basket', '2024-06-01', '2024-06-01');
            INSERT INTO order_lines VALUES (1, 1, 2, 1499), (2, 2, 1, 899), (3, 3, 1, 799);
            """
        )


def test_the_example_is_of_some_size() -> None:
    """What the issue asks of it: ten migrations of both kinds, and repeatables on both sides."""
    names = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.is_file()}
    assert len(IDS) >= 10
    for ending in (".py", ".undo.sql", ".sql"):
        assert any(name.startswith("migrations/2") and name.endswith(ending) for name in names)
    for placement in ("pre-apply", "post-apply"):
        assert any(name.startswith(f"migrations/{placement}/") for name in names)


def test_the_commands_of_its_readme(bookshop: Project) -> None:
    assert bookshop.succeed("status").endswith("; flux has not touched this database\n")
    assert bookshop.succeed("validate").startswith(f"valid: {len(IDS)} migrations")
    bookshop.succeed("apply")
    assert bookshop.succeed("status").endswith(f"\n{len(IDS)} migrations: {len(IDS)} applied\n")
    bookshop.succeed("rollback", "-y")
    assert bookshop.applied() == IDS[:-1]
    bookshop.succeed("apply")
    assert bookshop.applied() == IDS
    assert bookshop.succeed("apply") == "nothing to do\n"


@pytest.mark.parametrize("id", IDS)
def test_each_undo_gives_back_what_was_there(bookshop: Project, id: str) -> None:
    """The schema to the letter, and every row; then it can be applied again."""
    number = IDS.index(id)
    filled_from = next(index for index, name in enumerate(IDS) if "add-orders" in name)
    if number:
        bookshop.succeed("apply", "--to", IDS[min(number - 1, filled_from)])
    if number > filled_from:
        sample(bookshop)
        bookshop.succeed("apply", "--to", IDS[number - 1])
    before = (schema(bookshop), contents(bookshop)) if number else ([], {})
    bookshop.succeed("apply", "--to", id)
    after = schema(bookshop), contents(bookshop)
    assert after != before

    bookshop.succeed("rollback", "-y")
    now = schema(bookshop), contents(bookshop)
    if number:
        assert now == before
    else:
        assert [row for row in now[0] if not row[2].startswith("_flux")] == []
    bookshop.succeed("apply", "--to", id)
    assert (schema(bookshop), contents(bookshop)) == after


def test_all_can_be_undone_and_applied_again(bookshop: Project) -> None:
    bookshop.succeed("apply")
    before = schema(bookshop), contents(bookshop)
    bookshop.succeed("rollback", "--all", "-y")
    assert bookshop.applied() == []
    assert [row for row in schema(bookshop) if not row[2].startswith("_flux")] == []
    bookshop.succeed("apply")
    assert (schema(bookshop), contents(bookshop)) == before
