"""`flux schema` and `flux drift`: the schema that migrations make, and a database beside it."""

from __future__ import annotations

import json

import pytest
from psycopg2.extensions import make_dsn

from tests.postgres_project import PostgresProject
from tests.project import Project

FILES = {
    "001_users.sql": "CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL);\n",
    "002_email.sql": "ALTER TABLE users ADD COLUMN email text;\n",
    "post-apply/names.sql": "DROP VIEW IF EXISTS names;\n"
    "CREATE VIEW names AS SELECT name FROM users;\n",
}
SCHEMA = """\
table users
    column email text
    column id integer primary key
    column name text not null

view names
    as select name from users
"""


@pytest.fixture(params=["sqlite", "postgres"])
def any_project(request: pytest.FixtureRequest) -> Project:
    """A project on either database, with two migrations that are not applied."""
    name = {"sqlite": "project", "postgres": "pg_alone"}[request.param]
    project: Project = request.getfixturevalue(name)
    project.add(FILES)
    return project


# The schema ---------------------------------------------------------------------------------


def test_the_schema_of_the_migrations(project: Project) -> None:
    """It needs no database, and makes none."""
    project.add(FILES)
    assert project.succeed("schema") == SCHEMA
    assert not project.database.exists()


def test_the_schema_of_a_database_is_that_of_its_migrations(any_project: Project) -> None:
    any_project.succeed("apply")
    made = any_project.succeed("schema")
    assert "users" in made
    assert any_project.succeed("schema", "--live") == made


def test_the_live_schema_has_what_others_made(project: Project) -> None:
    project.query("CREATE TABLE other (a text)")
    assert "table other\n    column a text\n" in project.succeed("schema", "--live")


def test_the_schema_file_is_kept_and_checked(any_project: Project) -> None:
    result = any_project.run("schema", "--check")
    assert result.code == 1
    assert result.err == "there is no schema.txt; `flux schema --write` writes it\n"
    assert any_project.succeed("schema", "--write") == "written  schema.txt\n"
    text = (any_project.root / "schema.txt").read_text()
    assert text.startswith("# ")
    assert text.endswith(f"\n\n{any_project.succeed('schema')}")
    assert any_project.succeed("schema", "--check") == "schema.txt is up to date\n"
    any_project.add({"003_age.sql": "ALTER TABLE users ADD COLUMN age integer;\n"})
    result = any_project.run("schema", "--check")
    assert result.code == 1
    assert result.err == "schema.txt is out of date; `flux schema --write` writes it\n"
    assert [line for line in result.out.splitlines() if line.startswith("+ ")] == [
        "+    column age integer"
    ]


def test_the_place_of_the_schema_file(project: Project) -> None:
    project.configure('schema_file = "db/schema.txt"')
    project.add(FILES)
    (project.root / "db").mkdir()
    assert project.succeed("schema", "--write") == "written  db/schema.txt\n"


def test_schema_as_json(project: Project) -> None:
    project.add(FILES)
    document = json.loads(project.succeed("schema", "--json"))
    assert {"kind": "table", "name": "users", "of": "", "definition": ""} in document["items"]
    document = json.loads(project.run("schema", "--check", "--json").out)
    assert (document["ok"], document["path"]) == (False, "schema.txt")


def test_a_migration_that_fails_ends_it(project: Project) -> None:
    project.add({**FILES, "003_bad.sql": "bad;"})
    assert "migrations/003_bad.sql:1" in project.fail("schema")


def test_control_characters_do_not_reach_the_terminal(project: Project) -> None:
    """A name in a database may hold any; the schema file keeps it as it is."""
    project.add({"001.sql": 'CREATE TABLE "a\x1b[31m" (b);\n'})
    assert "\\x1b[31m" in project.succeed("schema")
    assert "\x1b" not in project.succeed("schema")
    project.succeed("apply")
    project.query('DROP TABLE "a\x1b[31m"')
    assert "\x1b" not in project.run("drift").out


# Drift --------------------------------------------------------------------------------------


def test_no_drift(any_project: Project) -> None:
    any_project.succeed("apply")
    told = any_project.succeed("drift")
    assert told == "no drift: the database is what its migrations make\n"


def test_drift_is_shown_by_object(any_project: Project) -> None:
    """A change by hand is seen, exit 4; nothing is changed by looking."""
    any_project.succeed("apply")
    any_project.query("DROP VIEW names")
    any_project.query("ALTER TABLE users DROP COLUMN email")
    any_project.query("CREATE TABLE by_hand (a integer)")
    for _ in range(2):
        result = any_project.run("drift")
        assert (result.code, result.err) == (4, "")
    lines = result.out.splitlines()
    assert lines[0] == "(- made by the migrations, + in the database)"
    assert any(line.startswith("+ table") and "by_hand" in line for line in lines)
    assert any(line.startswith("- view") and "names" in line for line in lines)
    assert any(line.startswith("-     column email text") for line in lines)


def test_what_others_own_is_ignored(any_project: Project) -> None:
    """By the setting, and by an option that adds to it; a pattern is a name or a label."""
    any_project.succeed("apply")
    any_project.query("CREATE TABLE audit_log (a integer)")
    any_project.query("CREATE TABLE spare (a integer)")
    configuration = any_project.root / "flux.toml"
    text = configuration.read_text()
    configuration.write_text(text.replace("[backend]", 'ignore = ["*audit_*"]\n[backend]'))
    assert "spare" in any_project.run("drift").out
    assert "audit" not in any_project.run("drift").out
    assert "no drift" in any_project.succeed("drift", "--ignore", "table *spare")
    any_project.query("DROP TABLE spare")
    any_project.query("ALTER TABLE users ADD COLUMN nick text")
    assert "no drift" in any_project.succeed("drift", "--ignore", "table *users column nick")
    assert any_project.run("drift", "--ignore", "table *others column nick").code == 4


def test_pending_migrations_are_no_drift(any_project: Project) -> None:
    """A database is compared with what its own history says, and not with the directory."""
    (any_project.root / "migrations/post-apply/names.sql").unlink()
    any_project.succeed("apply", "1")
    assert "no drift" in any_project.succeed("drift")


def test_what_post_apply_makes_of_pending_migrations_is_no_drift(any_project: Project) -> None:
    """Before a deploy: one script needs a pending migration, the other has not run yet."""
    (any_project.root / "migrations/post-apply/names.sql").unlink()
    any_project.succeed("apply")
    any_project.add(
        {
            "003_more.sql": "CREATE TABLE more (a integer);",
            "post-apply/more.sql": "CREATE VIEW all_more AS SELECT a FROM more;",
            "post-apply/names.sql": "CREATE VIEW all_names AS SELECT name FROM users;",
        }
    )
    assert "no drift" in any_project.succeed("drift")
    any_project.query("CREATE TABLE by_hand (a integer)")
    result = any_project.run("drift")
    assert result.code == 4
    assert "by_hand" in result.out
    assert "all_" not in result.out


def test_drift_of_an_untouched_database(any_project: Project) -> None:
    """A mistyped address must not pass for a database without drift."""
    assert any_project.fail("drift") == (
        "error: flux has not touched this database, so there is nothing to compare it with\n"
    )


def test_drift_needs_a_history_that_agrees(any_project: Project) -> None:
    any_project.succeed("apply")
    any_project.add({"002_email.sql": "ALTER TABLE users ADD COLUMN mail text;\n"})
    assert "002_email is divergent" in any_project.fail("drift", code=4)


def test_drift_as_json(project: Project) -> None:
    project.add(FILES)
    project.succeed("apply")
    project.query("CREATE TABLE by_hand (a integer)")
    result = project.run("drift", "--json")
    document = json.loads(result.out)
    assert (result.code, document["ok"]) == (4, False)
    assert document["differences"] == [
        {
            "kind": "extra",
            "object": "table by_hand",
            "item": "table by_hand",
            "before": None,
            "after": "",
        }
    ]


def test_another_owner_is_drift(pg_alone: PostgresProject) -> None:
    """What is owned by another role cannot be altered by the migrations' own."""
    pg_alone.add(FILES)
    pg_alone.succeed("apply")
    role = f"o_{pg_alone.postgres.database}"
    pg_alone.query(f"CREATE ROLE {role}")
    try:
        pg_alone.query(f"ALTER TABLE users OWNER TO {role}")
        result = pg_alone.run("drift")
        assert result.code == 4
        assert role in result.out
    finally:
        pg_alone.query(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_the_schema_does_not_name_who_made_it(pg_alone: PostgresProject) -> None:
    """The schema file is the same on every machine, whatever the role is called there."""
    pg_alone.add(FILES)
    made = pg_alone.succeed("schema")
    role = f"s_{pg_alone.postgres.database}"
    pg_alone.query(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'x'")
    try:
        url = make_dsn(pg_alone.postgres.url, user=role, password="x")
        assert pg_alone.succeed("schema", url) == made
    finally:
        pg_alone.query(f"DROP ROLE {role}")
