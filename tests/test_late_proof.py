"""Late migrations that are accepted where their order is proven not to matter."""

from __future__ import annotations

import pytest

from tests.project import Project

PROVING = "flux: proving in scratch databases that it does not matter that 002 is late\n"


@pytest.fixture(params=["project", "pg_alone"], ids=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest) -> Project:
    """A project in which late migrations have to be proven."""
    project: Project = request.getfixturevalue(request.param)
    backend = "" if request.param == "project" else 'migrations_schema = "public"'
    project.configure('late = "prove"', backend)
    return project


def _merge(project: Project, first: str, late: str, newer: str, ending: str = ".sql") -> None:
    """Apply the first migration and a newer one; the late one is merged then."""
    project.add({"001.sql": first, "003.sql": newer})
    project.succeed("apply")
    project.add({f"002{ending}": late})


USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\n"
SEED = "INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace');\n"


@pytest.mark.parametrize(
    ("first", "late", "newer", "ending"),
    [
        pytest.param(
            USERS + SEED,
            "CREATE TABLE books (id INTEGER PRIMARY KEY);\nINSERT INTO books VALUES (1);\n",
            "ALTER TABLE users ADD COLUMN email TEXT;\nUPDATE users SET email = name || '@here';\n",
            ".sql",
            id="two tables",
        ),
        pytest.param(
            USERS + SEED,
            "ALTER TABLE users ADD COLUMN age INTEGER;\n",
            "ALTER TABLE users ADD COLUMN email TEXT;\n",
            ".sql",
            id="two columns of one table",
        ),
        pytest.param(
            USERS,
            "INSERT INTO users VALUES (1, 'Ada');\n",
            "INSERT INTO users VALUES (2, 'Grace');\n",
            ".sql",
            id="rows in one table, whose order does not matter",
        ),
        pytest.param(
            "CREATE TABLE log (what TEXT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, n FLOAT);\n",
            "INSERT INTO log (what, n) SELECT 'late', random();\n",
            "INSERT INTO log (what, n) SELECT 'newer', random();\n",
            ".sql",
            id="what is another one each time",
        ),
        pytest.param(
            USERS,
            "def apply():\n    return 'CREATE TABLE books (id INTEGER PRIMARY KEY)'\n",
            SEED,
            ".py",
            id="text from Python",
        ),
        pytest.param(
            USERS,
            "def apply(connection):\n"
            "    cursor = connection.cursor()\n"
            "    cursor.execute('CREATE TABLE books (id INTEGER PRIMARY KEY)')\n",
            SEED,
            ".py",
            id="a function in Python",
        ),
        pytest.param(
            USERS + SEED,
            "-- flux: no-transaction\nCREATE INDEX names ON users (name);\n",
            "ALTER TABLE users ADD COLUMN email TEXT;\n",
            ".sql",
            id="without a transaction",
        ),
    ],
)
def test_what_does_not_matter_is_proven(
    shop: Project, first: str, late: str, newer: str, ending: str
) -> None:
    _merge(shop, first, late, newer, ending)
    result = shop.run("apply")
    assert (result.code, result.err) == (0, PROVING)
    assert shop.applied() == ["001", "002", "003"]
    assert shop.succeed("apply") == "nothing to do\n"


@pytest.mark.parametrize(
    ("first", "late", "newer", "why"),
    [
        pytest.param(
            USERS + SEED,
            "UPDATE users SET name = 'nobody' WHERE id = 1;\n",
            "UPDATE users SET name = upper(name);\n",
            "the order matters: values of name of rows of {}users",
            id="values of a column",
        ),
        pytest.param(
            USERS + SEED,
            "DELETE FROM users WHERE name = 'Ada';\n",
            "UPDATE users SET name = 'Ada';\n",
            "the order matters: rows of {}users",
            id="the number of rows",
        ),
        pytest.param(
            USERS + SEED + "CREATE TABLE names (id INTEGER, name TEXT);\n",
            "UPDATE users SET id = 3 - id + 10 WHERE name IN (SELECT name FROM names);\n",
            "INSERT INTO names SELECT id, name FROM users;\n",
            "the order matters: values of id of rows of {}users",
            id="ids",
        ),
        pytest.param(
            USERS,
            "DROP TABLE IF EXISTS books;\nCREATE TABLE books (title TEXT);\n",
            "DROP TABLE IF EXISTS books;\nCREATE TABLE books (name TEXT);\n",
            "the order matters: column name of table {0}books, column title of table {0}books",
            id="a table that both make",
        ),
        pytest.param(
            USERS,
            "ALTER TABLE users RENAME COLUMN name TO full_name;\n",
            "CREATE TABLE books AS SELECT name FROM users;\n",
            "in the order of their ids, 003 cannot be applied",
            id="it cannot be applied in order",
        ),
        pytest.param(
            USERS,
            "CREATE TABLE books AS SELECT name FROM users;\n",
            "ALTER TABLE users RENAME COLUMN name TO full_name;\n",
            "in the order that it would be here, 002 cannot be applied",
            id="it cannot be applied late",
        ),
    ],
)
def test_what_matters_is_refused(
    shop: Project, first: str, late: str, newer: str, why: str
) -> None:
    _merge(shop, first, late, newer)
    before = shop.query("SELECT count(*) FROM users")
    result = shop.run("apply")
    assert result.code == 4
    schema = "" if type(shop) is Project else "public."
    assert result.err == (
        f"{PROVING}error: history and migration directory disagree\n"
        f"- migrations/002.sql: 002 is late, and {why.format(schema)}\n"
        "  hint: rename it so that it sorts last, as `flux new` would name it; or roll back what "
        "is newer, and apply again; `flux test --late` shows all that differs\n"
    )
    assert shop.applied() == ["001", "003"]
    assert shop.query("SELECT count(*) FROM users") == before
