"""Which statements work on rows that are there already, and which of them meet."""

from __future__ import annotations

import pytest

from flux.fingerprint import Fingerprint, Item
from flux.row_work import ANYTHING, RowWork, columns_of, row_work, tables_at_stake
from flux.statements import Statement, split

COLUMNS = {"users": {"id", "name", "email"}, "books": {"id", "title"}}


def _work(sql: str) -> RowWork:
    return row_work(
        [one for one in split(sql, "postgres") if isinstance(one, Statement)], "postgres"
    )


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        pytest.param("INSERT INTO users VALUES (1, 'x')", [], id="rows of its own"),
        pytest.param("INSERT INTO users SELECT 1, 'x'", [], id="a row of its own"),
        pytest.param("INSERT INTO books SELECT id FROM users", ["books", "users"], id="a copy"),
        pytest.param("INSERT INTO users VALUES (1) ON CONFLICT DO NOTHING", ["users"],
                     id="where there is none"),
        pytest.param("UPDATE users SET name = ''", ["users"], id="update"),
        pytest.param('UPDATE public."users" SET name = 1', ["users"], id="a quoted name"),
        pytest.param("-- all\nDELETE FROM users", ["users"], id="delete"),
        pytest.param("WITH a AS (SELECT 1) DELETE FROM users", ["users"], id="with"),
        pytest.param("DO $$ BEGIN DELETE FROM users; END $$", ["users"], id="a block"),
        pytest.param("CREATE TABLE books AS SELECT * FROM users", ["books", "users"], id="made of"),
        pytest.param("CREATE TABLE users (id integer)", [], id="create"),
        pytest.param("CREATE INDEX ON users (name)", [], id="index"),
        pytest.param("CREATE VIEW v AS SELECT * FROM users", [], id="view"),
        pytest.param("ALTER TABLE users ADD COLUMN a text DEFAULT 'x'", [], id="a new column"),
        pytest.param("ALTER TABLE users ALTER name TYPE int USING name::int", ["users"],
                     id="using"),
    ],
)  # fmt: skip
def test_what_works_on_rows(sql: str, tables: list[str]) -> None:
    """By what it has in common with a function, which may do anything."""
    assert sorted(tables_at_stake(_work(sql), ANYTHING, COLUMNS)) == tables


@pytest.mark.parametrize(
    ("one", "other", "tables"),
    [
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET name = 2", ["users"],
                     id="one column"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET email = 2", [], id="columns"),
        pytest.param("UPDATE users SET name = 1", "UPDATE books SET id = 2", [], id="tables"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET id = 1 WHERE name = 2",
                     ["users"], id="a condition"),
        pytest.param("UPDATE users SET name = 1", "DELETE FROM users WHERE id = 2", ["users"],
                     id="rows that go"),
        pytest.param("UPDATE users SET name = 1", "INSERT INTO users VALUES (1)", [], id="own"),
    ],
)  # fmt: skip
def test_what_meets(one: str, other: str, tables: list[str]) -> None:
    for works in ((_work(one), _work(other)), (_work(other), _work(one))):
        assert sorted(tables_at_stake(*works, COLUMNS)) == tables


def test_a_function_meets_what_works_on_rows_alone() -> None:
    assert tables_at_stake(ANYTHING, _work("CREATE TABLE a (b int)"), COLUMNS) == set()
    assert tables_at_stake(ANYTHING, ANYTHING, COLUMNS) == set(COLUMNS)


def test_the_columns_of_a_catalog() -> None:
    items = [
        Item("table", "public.users"),
        Item("column", "name", "table public.users", "text"),
        Item("column", '"Full Name"', "table public.users", "text"),
        Item("table", 'public."My ""Books"""'),
        Item("view", "public.v"),
        Item("column", "a", "view public.v", "text"),
    ]
    assert columns_of(Fingerprint.of(items)) == {
        "users": {"name", "full name"},
        'my ""books""': set(),
    }
