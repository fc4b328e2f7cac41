"""`flux test`: what it proves, what it finds, and what it says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import unavailable
from tests.flux_process import FluxProcess
from tests.postgres_project import PostgresProject
from tests.project import Project

USERS = "CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL);\n"
GOOD = {"001_users.sql": USERS, "001_users.undo.sql": "DROP TABLE users;\n"}
#: A column and an index, whose undo forgets the index.
FORGETS = {
    "002_email.sql": "ALTER TABLE users ADD COLUMN email text;\n"
    "CREATE INDEX users_name ON users (name);\n",
    "002_email.undo.sql": "ALTER TABLE users DROP COLUMN email;\n",
}
MORE = {"003_more.sql": "CREATE TABLE more (a integer);\n", "003_more.undo.sql": "DROP TABLE more;"}

_TIME = re.compile(r"^(\S.{10})  .{8}  ")


def told(text: str) -> list[str]:
    """The lines of an output, without how long each took."""
    return [_TIME.sub(r"\1  ", line) for line in text.splitlines()]


@pytest.fixture(params=["sqlite", "postgres"])
def any_project(request: pytest.FixtureRequest) -> Project:
    """An empty project on either database."""
    name = {"sqlite": "project", "postgres": "pg_alone"}[request.param]
    project: Project = request.getfixturevalue(name)
    return project


def test_what_is_right_is_proven(any_project: Project) -> None:
    """The database that is named stays as it is: empty, or not there."""
    any_project.add({**GOOD, **MORE})
    assert told(any_project.succeed("test")) == [
        "proven       001_users",
        "proven       003_more",
        "2 proven",
    ]
    assert "pending" in any_project.succeed("status")
    if not isinstance(any_project, PostgresProject):
        assert not any_project.database.exists()


def test_an_undo_that_forgets_is_found(any_project: Project) -> None:
    """The diff names the object, and what comes after is proven all the same."""
    any_project.add({**GOOD, **FORGETS, **MORE})
    result = any_project.run("test")
    assert (result.code, result.err) == (1, "")
    lines = told(result.out)
    assert lines[:3] == [
        "proven       001_users",
        "failed       002_email",
        "    migrations/002_email.undo.sql: the undo does not restore what was before",
    ]
    assert lines[3] == "    (- before the migration, + after its undo)"
    assert any(line.startswith("    +") and "users_name" in line for line in lines)
    assert not any("email text" in line for line in lines)
    assert lines[-2:] == ["proven       003_more", "2 proven, 1 failed"]


def test_a_migration_that_cannot_be_applied_again_is_found(project: Project) -> None:
    """Its undo restores the schema, and leaves a row that is in the way."""
    project.add(
        {
            **GOOD,
            "002_row.sql": "INSERT INTO users VALUES (1, 'Zoe');",
            "002_row.undo.sql": "-- nothing\n",
        }
    )
    result = project.run("test")
    assert result.code == 1
    assert told(result.out) == [
        "proven       001_users",
        "failed       002_row",
        "    cannot be applied again after its undo:",
        "    migrations/002_row.sql:1: applying 002_row failed: UNIQUE constraint failed: users.id",
        "        1 | INSERT INTO users VALUES (1, 'Zoe');",
        "1 proven, 1 failed",
    ]


def test_applying_again_must_make_the_same(any_project: Project) -> None:
    """The undo leaves a row, by which applying it again makes another table."""
    any_project.add(
        {
            "001_marks.sql": "CREATE TABLE marks (a integer);",
            "002_odd.py": (
                "def apply(connection):\n"
                "    cursor = connection.cursor()\n"
                "    cursor.execute('SELECT count(*) FROM marks')\n"
                "    [(count,)] = cursor.fetchall()\n"
                "    cursor.execute(f'CREATE TABLE odd_{count} (a integer)')\n"
                "    cursor.execute('INSERT INTO marks VALUES (1)')\n"
                "\n"
                "def undo(connection):\n"
                "    connection.cursor().execute('DROP TABLE IF EXISTS odd_0')\n"
            ),
        }
    )
    result = any_project.run("test")
    assert result.code == 1, result
    lines = told(result.out)
    assert lines[:2] == ["no undo      001_marks", "failed       002_odd"]
    assert lines[2] == (
        "    migrations/002_odd.py: applied again after its undo, it makes something else"
    )
    assert any(line.startswith("    - table") and "odd_0" in line for line in lines)
    assert any(line.startswith("    + table") and "odd_1" in line for line in lines)


def test_an_undo_that_fails_is_found(any_project: Project) -> None:
    any_project.add({**GOOD, "001_users.undo.sql": "DROP TABLE nobody;\n", **MORE})
    result = any_project.run("test")
    assert result.code == 1
    lines = told(result.out)
    assert lines[:2] == ["failed       001_users", "    the undo fails:"]
    assert "migrations/001_users.undo.sql:1" in lines[2]
    assert lines[-2:] == ["proven       003_more", "1 proven, 1 failed"]


def test_what_cannot_be_applied_ends_the_proof(any_project: Project) -> None:
    any_project.add({**GOOD, "002_bad.sql": "SELECT nothing FROM nobody;", **MORE})
    result = any_project.run("test")
    assert result.code == 1
    lines = told(result.out)
    assert lines[:3] == ["proven       001_users", "failed       002_bad", "    cannot be applied:"]
    assert lines[-2:] == [
        "not reached  003_more",
        "1 proven, 1 failed, 1 not reached",
    ]


@pytest.mark.parametrize(
    ("arguments", "setting", "code"),
    [
        pytest.param([], "", 0, id="passes"),
        pytest.param(["--require-undo"], "", 1, id="fails by option"),
        pytest.param([], "require_undo = true", 1, id="fails by setting"),
    ],
)
def test_a_migration_without_an_undo(
    project: Project, arguments: list[str], setting: str, code: int
) -> None:
    project.configure(setting)
    project.add({"001_users.sql": USERS})
    result = project.run("test", *arguments)
    assert result.code == code
    lines = told(result.out)
    if code:
        assert lines[0] == "failed       001_users"
        assert lines[1].startswith("    migrations/001_users.sql: there is no undo, and one is")
        assert lines[-1] == "1 failed"
    else:
        assert lines == ["no undo      001_users", "1 without an undo"]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param(
            ["--since", "002_email"],
            ["applied      001_users", "failed       002_email", "proven       003_more"],
            id="since",
        ),
        pytest.param(
            ["--only", "002_email"],
            ["applied      001_users", "failed       002_email"],
            id="only",
        ),
        pytest.param(["--only", "001_users"], ["proven       001_users"], id="only the first"),
    ],
)
def test_a_choice_of_migrations(project: Project, arguments: list[str], lines: list[str]) -> None:
    project.add({**GOOD, **FORGETS, **MORE})
    found = told(project.run("test", *arguments).out)
    assert [line for line in found[:-1] if not line.startswith(" ")] == lines


def test_an_unknown_choice_is_an_error(project: Project) -> None:
    project.add(GOOD)
    assert project.fail("test", "--since", "001_user", code=2) == (
        "error: no migration '001_user' is on disk\nhint: did you mean '001_users'?\n"
    )


def test_repeatables_must_bear_to_run_again(any_project: Project) -> None:
    any_project.add(
        {
            **GOOD,
            "pre-apply/a.sql": "DROP VIEW IF EXISTS names;",
            "post-apply/b.sql": "CREATE VIEW names AS SELECT name FROM users;",
            "post-apply/c.sql": "CREATE TABLE IF NOT EXISTS calls (a integer);",
        }
    )
    result = any_project.run("test")
    assert result.code == 1
    lines = told(result.out)
    assert lines[:4] == [
        "proven       001_users",
        "proven       pre-apply/a",
        "failed       post-apply/b",
        "    fails when it is run again:",
    ]
    assert lines[-2:] == ["proven       post-apply/c", "3 proven, 1 failed"]


def test_without_a_transaction(pg_alone: PostgresProject) -> None:
    """CONCURRENTLY works in a scratch database as it does elsewhere."""
    pg_alone.add(
        {
            **GOOD,
            "002_index.sql": "-- flux: no-transaction\n"
            "CREATE INDEX CONCURRENTLY users_name ON users (name);",
            "002_index.undo.sql": "-- flux: no-transaction\nDROP INDEX CONCURRENTLY users_name;",
        }
    )
    assert told(pg_alone.succeed("test"))[-1] == "2 proven"


# Hooks --------------------------------------------------------------------------------------

SPLIT = {
    "002_split.sql": "ALTER TABLE users ADD COLUMN initial text;\n"
    "UPDATE users SET initial = substr(name, 1, 1);\n",
    "002_split.undo.sql": "ALTER TABLE users DROP COLUMN initial;\n",
}
HOOKS = """\
def before():
    return "INSERT INTO users VALUES (1, 'Zoe')"


def after(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT initial FROM users")
    assert cursor.fetchall() == [({initial!r},)], "the initial is another"


def undone(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT name FROM users")
    assert cursor.fetchall() == [("Zoe",)]
"""


def test_hooks_put_rows_in_and_look_at_them(any_project: Project) -> None:
    any_project.add({**GOOD, **SPLIT, "tests/002_split.py": HOOKS.format(initial="Z")})
    assert told(any_project.succeed("test"))[-1] == "2 proven"


def test_a_hook_that_fails_is_told_with_its_line(any_project: Project) -> None:
    any_project.add({**GOOD, **SPLIT, "tests/002_split.py": HOOKS.format(initial="X"), **MORE})
    result = any_project.run("test")
    assert result.code == 1
    assert told(result.out) == [
        "proven       001_users",
        "failed       002_split",
        "    after() fails:",
        "    migrations/tests/002_split.py:8: running tests/002_split after() failed: "
        "AssertionError: the initial is another",
        """        8 |     assert cursor.fetchall() == [('X',)], "the initial is another\"""",
        "proven       003_more",
        "2 proven, 1 failed",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "tests/003_nobody.py",
            "def before(connection): pass\n",
            "migrations/tests/003_nobody.py: is named after no migration\n"
            "hint: a file of hooks has the name of its migration; a helper's begins with _",
            id="of no migration",
        ),
        pytest.param(
            "tests/001_users.py",
            "def rows(connection): pass\n",
            "migrations/tests/001_users.py: has no hook\n"
            "hint: define before(connection), after(connection) or undone(connection)",
            id="no hook",
        ),
        pytest.param(
            "tests/001_users.py",
            "def before(connection): pass\ndef aftr(connection): pass\n",
            "migrations/tests/001_users.py: aftr() is no hook\n"
            "hint: did you mean after()? The name of a helper begins with _",
            id="mistyped",
        ),
        pytest.param(
            "tests/001_users.sql",
            "SELECT 1;",
            "migrations/tests: 001_users is no Python file, and hooks are written in Python\n"
            "hint: write 001_users.py, whose functions may return SQL text",
            id="not Python",
        ),
    ],
)
def test_files_that_are_no_hooks(project: Project, name: str, content: str, message: str) -> None:
    project.add({**GOOD, name: content})
    assert project.fail("test") == f"error: {message}\n"


def test_hooks_are_no_migrations(project: Project) -> None:
    """No other command reads or runs them, and doctor does not wonder about them."""
    project.add({**GOOD, "tests/001_users.py": "raise SystemExit('run')\n"})
    project.succeed("apply")
    assert "tests" not in project.run("doctor").out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("_setup.sql", "CREATE TABLE others (id integer PRIMARY KEY);"),
        ("_setup.py", "def apply():\n    return 'CREATE TABLE others (id integer PRIMARY KEY)'\n"),
    ],
)
def test_what_others_make_is_there_before(any_project: Project, name: str, content: str) -> None:
    """`tests/_setup` runs first in each scratch database; drift knows it as well."""
    any_project.add(
        {
            "001_mine.sql": "CREATE TABLE mine (other integer REFERENCES others (id));\n"
            "CREATE VIEW both_of_them AS SELECT id FROM others;\n",
            "001_mine.undo.sql": "DROP VIEW both_of_them;\nDROP TABLE mine;\n",
            f"tests/{name}": content,
        }
    )
    assert told(any_project.succeed("test"))[-1] == "1 proven"
    any_project.query("CREATE TABLE others (id integer PRIMARY KEY)")
    any_project.succeed("apply")
    assert "no drift" in any_project.succeed("drift")


# What reaches beyond ------------------------------------------------------------------------


def test_a_role_is_not_made_on_a_server_that_is_in_use(pg_alone: PostgresProject) -> None:
    """Nothing runs; `--throw-away-server` lets it run."""
    role = f"r_{pg_alone.postgres.database}"
    pg_alone.add(
        {
            **GOOD,
            "002_role.sql": f"CREATE ROLE {role};",
            "002_role.undo.sql": f"DROP ROLE {role};",
        }
    )
    error = pg_alone.fail("test")
    assert "migrations/002_role.sql:1:1" in error
    assert "--throw-away-server" in error
    assert told(pg_alone.run("test", "--throw-away-server").out)[-1] == "2 proven"


def test_a_function_that_makes_a_role_is_found(pg_alone: PostgresProject) -> None:
    """What a function does cannot be read; what it has done to the server can."""
    role = f"f_{pg_alone.postgres.database}"
    pg_alone.add(
        {
            "001_role.py": "def apply(connection):\n"
            f"    connection.cursor().execute('CREATE ROLE {role}')\n"
        }
    )
    try:
        result = pg_alone.run("test")
        assert result.code == 1
        lines = told(result.out)
        assert lines[:2] == [
            "failed       001_role",
            "    migrations/001_role.py: it changes what is outside of its database",
        ]
        assert any(role in line for line in lines[2:])
    finally:
        pg_alone.query(f"DROP ROLE IF EXISTS {role}")


@pytest.mark.parametrize("command", ["test", "schema"])
def test_a_function_of_the_database_that_makes_a_role_is_found(
    pg_alone: PostgresProject, command: str
) -> None:
    role = f"g_{pg_alone.postgres.database}"
    pg_alone.add(
        {
            "001_f.sql": "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n"
            f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')\n"
            f"THEN CREATE ROLE {role}; END IF; END $$;\nSELECT f();\n",
            "001_f.undo.sql": "DROP FUNCTION f();\n",
        }
    )
    try:
        result = pg_alone.run(command)
        assert result.code == 1
        assert f"role {role}" in result.out + result.err
    finally:
        pg_alone.query(f"DROP ROLE IF EXISTS {role}")


def test_a_hook_that_closes_the_connection(any_project: Project) -> None:
    """It is that migration's fault, and the next is proven all the same."""
    any_project.add(
        {**GOOD, **MORE, "tests/001_users.py": "def after(connection):\n    connection.close()\n"}
    )
    result = any_project.run("test")
    assert result.code == 1
    assert told(result.out)[0] == "failed       001_users"
    assert told(result.out)[-2:] == ["proven       003_more", "1 proven, 1 failed"]


def test_an_attached_file_is_refused(project: Project) -> None:
    project.add({"001.sql": "-- flux: no-transaction\nATTACH 'other.db' AS other;\n"})
    assert "--throw-away-server" in project.fail("test")
    assert not (project.root / "other.db").exists()


# Reports ------------------------------------------------------------------------------------


def test_json(project: Project) -> None:
    project.add({**GOOD, **FORGETS})
    result = project.run("test", "--json")
    assert result.code == 1
    document = json.loads(result.out)
    assert (document["format"], document["command"], document["ok"]) == (1, "test", False)
    first, second = document["proofs"]
    assert (first["name"], first["verdict"], first["fault"]) == ("001_users", "proven", None)
    fault = second["fault"]
    assert (second["verdict"], fault["moment"], fault["error"]) == ("failed", "undo", None)
    assert fault["path"] == "migrations/002_email.undo.sql"
    [difference] = fault["differences"]
    assert difference["kind"] == "extra"
    assert difference["object"] == "table users"
    assert "users_name" in difference["item"]


def test_junit(project: Project) -> None:
    """A failure has its text; what a proof only applied on the way is no test."""
    project.add(
        {**GOOD, **FORGETS, "003_no.sql": "SELECT 1;", "004_bad.sql": "bad;", "005.sql": ""}
    )
    project.run("test", "--since", "002_email", "--junit", "report.xml")
    suite = ElementTree.parse(project.root / "report.xml").getroot()[0]  # noqa: S314 - flux's own
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "2"}
    assert [(case.get("name"), case[0].tag, case[0].get("message")) for case in suite] == [
        (
            "002_email",
            "failure",
            "migrations/002_email.undo.sql: the undo does not restore what was before",
        ),
        ("003_no", "skipped", "it has no undo"),
        (
            "004_bad",
            "failure",
            'cannot be applied: applying 004_bad failed: near "bad": syntax error',
        ),
        ("005", "skipped", "one before it cannot be applied"),
    ]
    assert "users_name" in (suite[0][0].text or "")


def test_a_report_of_what_ended_the_proofs(project: Project) -> None:
    """CI shows it where it shows the tests."""
    project.add({**GOOD, "002.sql": "ATTACH 'other.db' AS other;"})
    project.run("test", "--junit", "report.xml")
    suite = ElementTree.parse(project.root / "report.xml").getroot()[0]  # noqa: S314 - flux's own
    assert [(case.get("name"), case[0].tag) for case in suite] == [("flux test", "error")]
    assert "ATTACH" in (suite[0][0].get("message") or "")


@pytest.mark.parametrize("option", ["--junit=report.xml", "--require-undo"])
def test_options_that_late_does_not_have(project: Project, option: str) -> None:
    project.add(GOOD)
    assert "not for --late" in project.fail("test", "--late", option, code=2)


def test_an_id_in_place_of_an_address(project: Project) -> None:
    project.add(GOOD)
    assert project.fail("test", "001_users", code=2) == (
        "error: 001_users is a migration, and stands where the database's address would\n"
        "hint: --only 001_users proves it, --since 001_users that and all newer ones\n"
    )


def test_a_report_that_cannot_be_written(project: Project) -> None:
    project.add(GOOD)
    error = project.fail("test", "--junit", "nowhere/report.xml", code=2)
    assert error.startswith("error: nowhere/report.xml: cannot be written")


# Leftovers ----------------------------------------------------------------------------------


def test_nothing_is_left(any_project: Project) -> None:
    """The scratch databases are dropped, also after faults."""

    def scratch_databases() -> set[str]:
        if isinstance(any_project, PostgresProject):
            rows = any_project.query("SELECT datname FROM pg_database")
            return {name for (name,) in rows if "scratch" in name}
        return set()

    any_project.add({**GOOD, **FORGETS, "004_bad.sql": "bad;"})
    before = scratch_databases()
    any_project.run("test")
    # Other tests have their own on this server, in the same time.
    left = scratch_databases() - before
    if isinstance(any_project, PostgresProject):
        comments = any_project.query(
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
        )
        assert [
            name for name, _ in comments if name in left and _is_unused(any_project, name)
        ] == []


def _is_unused(project: PostgresProject, name: str) -> bool:
    return project.query(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'") == [
        (0,)
    ]


def test_without_an_address(project: Project) -> None:
    """SQLite needs none: its scratch databases are files."""
    project.write("flux.toml", '[flux]\nbackend = "sqlite"\n')
    project.add(GOOD)
    assert told(project.succeed("test"))[-1] == "1 proven"


def test_another_server_needs_a_word(pg_alone: PostgresProject, tmp_path: Path) -> None:
    """Whether an address is near is tested with the place; here, that a shadow is used."""
    url = pg_alone.postgres.url
    pg_alone.configure(url="postgresql://nobody@192.0.2.1/app?connect_timeout=2")
    pg_alone.add(GOOD)
    assert told(pg_alone.succeed("test", "--shadow-url", url))[-1] == "1 proven"
    assert told(pg_alone.succeed("test", env={"FLUX_SHADOW_URL": url}))[-1] == "1 proven"


def test_the_users_database_is_not_touched(project: Project) -> None:
    project.add({**GOOD, **FORGETS})
    project.succeed("apply")
    before = project.database.read_bytes()
    assert project.run("test").code == 1
    assert project.database.read_bytes() == before
    with closing(sqlite3.connect(project.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# Real directories ---------------------------------------------------------------------------

BOOKSHOP = Path(__file__).parents[1] / "examples" / "bookshop"


def test_the_example_project_is_proven(tmp_path: Path, run_flux: FluxProcess) -> None:
    """SQL, Python, backfills and repeatables of a shop, without a false alarm."""
    root = tmp_path / "bookshop"
    shutil.copytree(BOOKSHOP, root)
    result = run_flux("test", cwd=root)
    assert (result.code, result.err) == (0, ""), result
    lines = told(result.out)
    assert not [line for line in lines if line.startswith(("failed", "not reached", " "))]
    assert lines[-1] == "14 proven"


def test_procrastinates_migrations_are_no_false_alarm(pg_alone: PostgresProject) -> None:
    """They have no undo. What they make in a scratch database is what they make elsewhere."""
    spec = importlib.util.find_spec("procrastinate")
    if spec is None or spec.origin is None:
        unavailable("procrastinate is not installed")
    directory = Path(spec.origin).parent / "sql" / "migrations"
    pg_alone.configure(f"migration_directory = {json.dumps(str(directory))}")
    count = len(list(directory.glob("*.sql")))
    assert told(pg_alone.succeed("test"))[-1] == f"{count} without an undo"
    pg_alone.succeed("apply")
    assert pg_alone.succeed("drift").startswith("no drift")
