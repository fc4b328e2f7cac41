"""What migrations may do to rows that are there already, and which of them are proven together."""

from __future__ import annotations

import pytest

from flux.fingerprint import Fingerprint, Item
from flux.row_tables import RowTables, row_tables
from flux.row_work import ANYTHING, Effect, RowWork, row_work, tables_at_stake
from flux.statements import Dialect, Statement, split

TABLES = RowTables(
    {
        "users": frozenset({"id", "name", "email"}),
        "books": frozenset({"id", "title"}),
        "loud": frozenset({"id"}),
        "new": frozenset({"a", "b"}),
    },
    odd=frozenset({"loud", "v"}),
    code=frozenset({"norm"}),
)


def _work(sql: str, dialect: Dialect = "postgres", tables: RowTables = TABLES) -> RowWork:
    statements = [one for one in split(sql, dialect) if isinstance(one, Statement)]
    return row_work(statements, dialect, tables)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "CREATE TABLE new (a integer PRIMARY KEY, b text NOT NULL)",
        "CREATE TABLE IF NOT EXISTS new (a bigint GENERATED ALWAYS AS IDENTITY)",
        "CREATE TABLE new (a integer); INSERT INTO new (a) VALUES (1), (2)",
        "CREATE TABLE app.new (a integer); INSERT INTO app.new VALUES (1, lower('X'))",
        "CREATE INDEX ON users (lower(name))",
        "CREATE INDEX CONCURRENTLY i ON users USING gin (name)",
        "CREATE VIEW w AS SELECT norm(name) FROM users",
        "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN d AS text; CREATE SEQUENCE sq",
        "CREATE SCHEMA IF NOT EXISTS app",
        "COMMENT ON TABLE users IS 'x'; GRANT SELECT ON users TO public",
        "SET LOCAL lock_timeout = '1s'; SELECT 1",
    ],
)
def test_what_is_harmless(sql: str) -> None:
    assert _work(sql).effect is Effect.HARMLESS


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE users ADD COLUMN a varchar(20) NOT NULL DEFAULT 'x'",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (length(name) > 0)",
        "ALTER TABLE users ADD FOREIGN KEY (id) REFERENCES books (id) ON DELETE SET NULL",
        "ALTER TABLE users ALTER name SET DEFAULT 'x'",
        "ALTER TABLE users ALTER COLUMN name DROP NOT NULL",
        "CREATE UNIQUE INDEX ON users (name)",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE OR REPLACE FUNCTION norm(text) RETURNS text LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION norm()",
        "CREATE TABLE new (a integer REFERENCES users ON DELETE CASCADE)",
        "CREATE TABLE new (LIKE users)",
        "CREATE TABLE IF NOT EXISTS new (a integer); INSERT INTO new VALUES (1)",
        "INSERT INTO users VALUES (1, 'x')",
    ],
)
def test_what_shapes(sql: str) -> None:
    assert _work(sql).effect is Effect.SHAPES


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE users SET name = ''",
        'UPDATE public."users" SET name = 1',
        "-- all\nDELETE FROM users",
        "INSERT INTO books SELECT id FROM users",
        "INSERT INTO users VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO users VALUES ((SELECT max(id) FROM books))",
        "CREATE TABLE new AS SELECT * FROM users",
        "ALTER TABLE users ALTER name TYPE numeric(10, 0)",
        "ALTER TABLE users ADD COLUMN a serial",
        "ALTER TABLE users ADD a integer, DROP name",
        "ALTER TABLE users DROP COLUMN name",
        "DROP TABLE books",
        "TRUNCATE TABLE users",
    ],
)
def test_what_works_on_rows(sql: str) -> None:
    assert _work(sql).effect is Effect.ROWS


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1) DELETE FROM users",
        "DO $$ BEGIN DELETE FROM users; END $$",
        "SELECT nextval('sq')",
        "CALL clean()",
        "UPDATE users SET name = norm(name)",
        "UPDATE users SET name = \"norm\"(name)",
        "UPDATE users SET name = other.lower(name)",
        "UPDATE users SET id = (SELECT count(*) FROM pg_class)",
        "UPDATE v SET name = ''",
        "UPDATE loud SET id = 1",
        "UPDATE unknown SET id = 1",
        'UPDATE U&"\\0074" SET id = 1',
        'CREATE TABLE U&"\\0074" (a integer)',
        "INSERT INTO loud VALUES (1)",
        "INSERT INTO users VALUES (nextval('sq'))",
        "CREATE INDEX ON users (norm(name))",
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION norm()",
        "CREATE TEMPORARY TABLE users (a integer)",
        "CREATE MATERIALIZED VIEW m AS SELECT 1",
        "CREATE SCHEMA a CREATE TABLE b (c integer)",
        "ALTER TABLE users ADD COLUMN a text DEFAULT norm('x')",
        "ALTER TABLE users ADD CHECK (norm(name) > '')",
        "DROP TABLE users CASCADE",
        "DROP TRIGGER t ON users",
        "SET search_path = app",
        "GRANT one TO other",
    ],
)  # fmt: skip
def test_what_may_do_anything(sql: str) -> None:
    assert _work(sql).effect is Effect.ANYTHING


def test_what_runs_by_itself_leaves_nothing_known() -> None:
    loud = TABLES._replace(is_quiet=False)
    assert _work("CREATE TABLE new (a integer)", tables=loud).effect is Effect.ANYTHING


@pytest.mark.parametrize(
    ("one", "other", "tables"),
    [
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET name = 2", {"users"},
                     id="one column"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET email = 2", set(),
                     id="columns"),
        pytest.param("UPDATE users SET name = 1", "UPDATE books SET id = 2", set(), id="tables"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET id = 1 WHERE name = 2",
                     {"users"}, id="a condition"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users SET id = 1 WHERE ctid = 2",
                     {"users"}, id="where a row lies"),
        pytest.param("UPDATE users SET name = 1", "UPDATE users u SET id = 1", {"users"},
                     id="an alias"),
        pytest.param("UPDATE users SET name = 1", 'UPDATE users SET "id" = 1', {"users"},
                     id="a quoted name"),
        pytest.param("UPDATE users SET name = 1", "DELETE FROM users WHERE id = 2", {"users"},
                     id="rows that go"),
        pytest.param("UPDATE users SET name = 1", "INSERT INTO users VALUES (1)", set(),
                     id="rows of literals"),
        pytest.param("UPDATE users SET name = 1", "ALTER TABLE users ADD COLUMN a text", set(),
                     id="a new column"),
        pytest.param("UPDATE users SET name = a", "ALTER TABLE users ADD COLUMN email text",
                     {"users"}, id="a name that is no column"),
        pytest.param("DELETE FROM users", "ALTER TABLE users ADD COLUMN a text", {"users"},
                     id="rows that go, and a new column"),
        pytest.param("DELETE FROM users", "CREATE UNIQUE INDEX ON books (title)", {""},
                     id="no table in common"),
        pytest.param("UPDATE users SET name = 1", "CREATE TABLE app.users (id integer)",
                     {"users"}, id="a table that may hide another"),
        pytest.param("DELETE FROM users", "CREATE TABLE new (a integer)", set(),
                     id="a new table beside rows"),
        pytest.param("DO 'x'", "CREATE TABLE new (a integer)", {""}, id="beside anything"),
        pytest.param("CREATE UNIQUE INDEX ON users (name)",
                     "ALTER TABLE users ALTER email SET DEFAULT ''", set(), id="two shapes"),
    ],
)  # fmt: skip
def test_what_meets(one: str, other: str, tables: set[str]) -> None:
    for works in ((_work(one), _work(other)), (_work(other), _work(one))):
        assert tables_at_stake(*works, TABLES) == tables


def test_a_literal_may_be_a_name_in_sqlite() -> None:
    one, other = (
        _work(sql, "sqlite")
        for sql in ("UPDATE users SET 'name' = 1", "UPDATE users SET name = id")
    )
    assert tables_at_stake(one, other, TABLES) == {"users"}


def test_beside_a_function_nothing_is_proven() -> None:
    assert tables_at_stake(ANYTHING, _work("CREATE TABLE new (b int)"), TABLES) == {""}


def test_the_tables_of_a_catalog() -> None:
    """Which are odd, and why; `users` alone is simply a table."""
    items = [
        Item("table", "public.users"),
        Item("column", "id", "table public.users", "integer generated always as identity"),
        Item("column", '"Full Name"', "table public.users", "text"),
        Item("constraint", "f", "table public.users", "FOREIGN KEY (id) REFERENCES other(id)"),
        Item("table", "public.twice"),
        Item("table", "app.twice"),
        Item("view", "public.v"),
        Item("column", "a", "view public.v", "text"),
        Item("table", "public.triggered"),
        Item("trigger", "t", "table public.triggered", "…"),
        Item("table", "public.par"),
        Item("table", "public.chi"),
        Item("constraint", "f", "table public.chi",
             "FOREIGN KEY (id) REFERENCES public.par(id) ON DELETE CASCADE"),
        Item("table", "public.p", definition="partition by RANGE (id)"),
        Item("table", "public.parent"),
        Item("table", "public.heir", definition="inherits (public.parent)"),
        Item("table", "public.made"),
        Item("column", "g", "table public.made", "integer generated always as (n * 2) stored"),
        Item("table", "public.called"),
        Item("column", "g", "table public.called", "text default norm('x')"),
        Item("table", 'public."My ""Books"""'),
        Item("function", "public.norm(text)"),
        Item("domain", "public.posint"),
    ]  # fmt: skip
    tables = row_tables(Fingerprint.of(items))
    assert tables.columns["users"] == {"id", "full name"}
    assert set(tables.columns) - tables.odd == {"users", 'my ""books""'}
    assert tables.odd >= {"v", "par", "chi", "twice"}
    assert tables.code == {"norm", "posint"}
    assert tables.is_quiet
    loud = Item("event trigger", "e", "", "…")
    assert not row_tables(Fingerprint.of([*items, loud])).is_quiet
