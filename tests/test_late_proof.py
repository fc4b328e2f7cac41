"""Late migrations that are accepted where their order is proven not to matter."""

from __future__ import annotations

import json
import tempfile

import pytest

from flux import FluxConfig, FluxRunner
from flux.backends.sqlite_scratch import SQLiteScratchPlace
from flux.exceptions import MigrationDirectoryCorruptedError
from flux.late_proof import prove_late, to_prove
from flux.plan import Plan
from flux.rehearsal import Stage
from flux.render_late import late_proof_data, late_proof_text
from flux.results import Event
from flux.row_tables import row_tables
from flux.row_work import row_work, tables_at_stake
from flux.scratch import SCRATCH
from flux.shadow import scratch_place_beside
from flux.statements import Statement, split
from tests.postgres_project import PostgresProject
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
            "INSERT INTO log (what, n) VALUES ('newer', random());\n",
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
            USERS + "ALTER TABLE users ADD COLUMN email TEXT;\n",
            "UPDATE users SET name = '' WHERE name IS NULL;\n",
            "UPDATE users SET email = '' WHERE email IS NULL;\n",
            ".sql",
            id="other columns of rows that migrations did not make",
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
            "the order matters: values of name of {}users",
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
            "the order matters: values of id of {}users",
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
        pytest.param(
            USERS,
            "UPDATE users SET name = 'nobody' WHERE name IS NULL;\n",
            "UPDATE users SET name = '' WHERE name IS NULL;\n",
            "whether the order matters depends on rows that are there already: "
            "002 and 003 may both change rows of users",
            id="rows that migrations did not make",
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
        "  hint: if it is applied nowhere yet, rename it so that it sorts last; or roll back what "
        "is newer, and apply again; or look at `flux test --late`, and give `--allow-late` where "
        "it may be\n"
    )
    assert shop.applied() == ["001", "003"]
    assert shop.query("SELECT count(*) FROM users") == before


# Of what a scratch database has no rows -----------------------------------------------------

BASE = """\
CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, n NUMERIC);
CREATE TABLE old (id INTEGER, a TEXT, n NUMERIC);
"""
FUNCTION = "CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql AS 'SELECT lower($1)';\n"
TRIGGER = """\
CREATE FUNCTION trim_a() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.a := trim(NEW.a); RETURN NEW; END $$;
CREATE TRIGGER trims BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trim_a();
"""
DOUBLES = "UPDATE t SET n = n * 2"


@pytest.mark.parametrize(
    ("more", "late", "newer"),
    [
        pytest.param("CREATE VIEW v AS SELECT * FROM t", "UPDATE v SET n = n * 2",
                     "UPDATE t SET n = n + 1", id="a view"),
        pytest.param("CREATE FUNCTION dbl() RETURNS void LANGUAGE sql AS 'UPDATE t SET n = n * 2'",
                     "SELECT dbl()", "UPDATE t SET n = n + 1", id="a function that updates"),
        pytest.param(FUNCTION,
                     "CREATE OR REPLACE FUNCTION norm(text) RETURNS text LANGUAGE sql "
                     "AS 'SELECT upper($1)'",
                     "UPDATE t SET a = norm(a)", id="a function that is called"),
        pytest.param("", TRIGGER, DOUBLES, id="a trigger"),
        pytest.param("", "CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING", DOUBLES,
                     id="a rule"),
        pytest.param("", "ALTER TABLE t ALTER n SET DEFAULT 9",
                     "INSERT INTO t (id, a) SELECT id, a FROM old", id="a default"),
        pytest.param("CREATE SEQUENCE sq", "ALTER SEQUENCE sq RESTART 100",
                     "INSERT INTO t (id, a) SELECT nextval('sq'), a FROM old", id="a sequence"),
        pytest.param("CREATE SEQUENCE sq", "SELECT nextval('sq')",
                     "INSERT INTO t (id, a) SELECT nextval('sq'), a FROM old", id="nextval"),
        pytest.param("", "ALTER TABLE t ALTER n TYPE numeric(10, 0)", "UPDATE t SET n = n * 10",
                     id="a type that rounds"),
        pytest.param("CREATE TABLE p (id integer, n integer) PARTITION BY RANGE (id);\n"
                     "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
                     "UPDATE p1 SET n = n * 2", "UPDATE p SET n = n + 1", id="a partition"),
        pytest.param("CREATE TABLE par (id integer PRIMARY KEY);\n"
                     "CREATE TABLE chi (id integer REFERENCES par ON DELETE CASCADE);\n"
                     "CREATE TABLE arch (id integer)",
                     "DELETE FROM par", "INSERT INTO arch SELECT * FROM chi", id="a cascade"),
        pytest.param('CREATE TABLE "my-t" (n integer)', 'UPDATE "my-t" SET n = n * 2',
                     'UPDATE "my-t" SET n = n + 1', id="quoted names"),
        pytest.param("", 'UPDATE U&"\\0074" SET n = n * 2', "UPDATE t SET n = n + 1",
                     id="a name in codes"),
        pytest.param("", f"EXPLAIN ANALYZE {DOUBLES}", "UPDATE t SET n = n + 1", id="explain"),
        pytest.param("", f"PREPARE x AS {DOUBLES}; EXECUTE x", "UPDATE t SET n = n + 1",
                     id="prepare"),
        pytest.param("", "UPDATE t SET a = 'z' WHERE id = 1",
                     "UPDATE t SET n = 0 WHERE t::text LIKE '%z%'", id="the whole row"),
        pytest.param("CREATE MATERIALIZED VIEW mv AS SELECT * FROM t",
                     "REFRESH MATERIALIZED VIEW mv", DOUBLES, id="a materialized view"),
        # What others may think of.
        pytest.param("ALTER TABLE old ADD COLUMN c text", "ALTER TABLE t ADD COLUMN c text",
                     "INSERT INTO old SELECT * FROM t", id="all columns"),
        pytest.param("", "CREATE UNIQUE INDEX i ON t (a)",
                     "INSERT INTO t SELECT * FROM old ON CONFLICT DO NOTHING;\n"
                     "UPDATE t SET a = a || id", id="a unique index"),
        pytest.param("", "INSERT INTO old VALUES (1, 'x', 2)",
                     "UPDATE t SET n = (SELECT count(*) FROM old)", id="rows that are counted"),
        pytest.param("", "ALTER TABLE t ADD COLUMN at timestamp",
                     "DO $$ DECLARE r record; BEGIN FOR r IN SELECT table_name FROM "
                     "information_schema.columns WHERE column_name = 'at' AND table_schema = "
                     "'public' LOOP EXECUTE 'UPDATE ' || r.table_name || ' SET at = now()'; "
                     "END LOOP; END $$", id="a block that looks at the catalog"),
        pytest.param("CREATE SCHEMA app", "CREATE TABLE app.t (id integer, n numeric)", DOUBLES,
                     id="a table that may hide another"),
        pytest.param("CREATE TABLE par (id integer PRIMARY KEY);\n"
                     "CREATE TABLE chi (id integer)",
                     "ALTER TABLE chi ADD FOREIGN KEY (id) REFERENCES par ON DELETE CASCADE "
                     "NOT VALID", "DELETE FROM par", id="a foreign key to be"),
        pytest.param("", "ALTER TABLE t ADD COLUMN c serial", DOUBLES, id="rows in their order"),
    ],
)  # fmt: skip
def test_without_its_rows_nothing_is_proven(
    pg_alone: PostgresProject, more: str, late: str, newer: str
) -> None:
    """By the catalog that these migrations make on a real server."""
    assert _at_stake(pg_alone, f"{BASE}{more};\n", late, newer)


@pytest.mark.parametrize(
    ("late", "newer"),
    [
        pytest.param("CREATE TABLE x (id integer)", "CREATE TABLE y (id serial)", id="tables"),
        pytest.param("CREATE TABLE x (id serial REFERENCES t)", DOUBLES, id="a table beside rows"),
        pytest.param("CREATE TABLE x (id integer)", "CREATE INDEX ON t (lower(a))",
                     id="an index"),
        pytest.param("ALTER TABLE t ADD COLUMN c text", "ALTER TABLE old ADD COLUMN c text",
                     id="columns of two tables"),
        pytest.param("ALTER TABLE t ADD COLUMN c text", "UPDATE t SET n = n * 2",
                     id="a column beside others"),
        pytest.param("CREATE TABLE x (id integer); INSERT INTO x VALUES (1)",
                     "CREATE TABLE y (id integer); INSERT INTO y VALUES (1)", id="own rows"),
        pytest.param("CREATE TABLE x (id integer); INSERT INTO x VALUES (1)",
                     "DELETE FROM t WHERE id IN (SELECT id FROM old)", id="own rows beside rows"),
        pytest.param("COMMENT ON TABLE t IS 'x'; GRANT SELECT ON t TO public", DOUBLES,
                     id="comments and grants"),
        pytest.param("ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0)",
                     "CREATE UNIQUE INDEX i ON old (a)", id="constraints"),
        pytest.param("", TRIGGER, id="a trigger beside nothing"),
    ],
)  # fmt: skip
def test_what_needs_no_rows_is_still_proven(
    pg_alone: PostgresProject, late: str, newer: str
) -> None:
    assert not _at_stake(pg_alone, BASE, late, newer)


def _at_stake(project: PostgresProject, base: str, late: str, newer: str) -> set[str]:
    """What is at stake, by the catalog that base, late and newer make."""
    for sql in (base, late, newer):
        if sql:
            project.query(sql)
    with FluxRunner.from_file(project.root / "flux.toml") as runner:
        backend = runner.backend
        tables = row_tables(backend.fingerprint())
    one, other = (
        row_work(
            [piece for piece in split(sql, "postgres") if isinstance(piece, Statement)],
            "postgres",
            tables,
        )
        for sql in (late, newer)
    )
    return tables_at_stake(one, other, tables)


@pytest.mark.parametrize(
    ("more", "late", "newer", "what"),
    [
        pytest.param(
            "CREATE VIEW v AS SELECT * FROM t;\n",
            "UPDATE v SET n = n * 2;\n",
            "UPDATE t SET n = n + 1;\n",
            "rows",
            id="a view",
        ),
        pytest.param("", TRIGGER, f"{DOUBLES};\n", "rows of t", id="a trigger"),
        pytest.param(
            "",
            "ALTER TABLE t ALTER n SET DEFAULT 9;\n",
            "INSERT INTO t (id, a) SELECT id, a FROM old;\n",
            "rows of t",
            id="a default",
        ),
    ],
)
def test_rows_of_users_are_thought_of(
    pg_alone: PostgresProject, more: str, late: str, newer: str, what: str
) -> None:
    pg_alone.configure('late = "prove"', 'migrations_schema = "public"')
    _merge(pg_alone, BASE + more, late, newer)
    error = pg_alone.fail("apply", code=4)
    assert f"are there already: 002 and 003 may both change {what}\n" in error
    assert pg_alone.applied() == ["001", "003"]


def test_a_function_in_python_may_do_anything(shop: Project) -> None:
    late = "def apply(connection):\n    connection.cursor().execute('CREATE TABLE a (b int)')\n"
    _merge(shop, USERS, late, SEED, ".py")
    assert "002 and 003 may both change rows\n" in shop.fail("apply", code=4)


# What it depends on -------------------------------------------------------------------------


def test_what_is_proven_is_proven_once(shop: Project) -> None:
    """Before the question and the lock; under the lock only what has changed meanwhile is news."""
    _merge(shop, USERS, "CREATE TABLE books (id INTEGER);\n", SEED)
    told: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "wait":
            told.append(event.message)

    with FluxRunner.from_file(shop.root / "flux.toml", on_event=note) as runner:
        plan = runner.plan_apply()
        assert [step.name for step in plan.steps] == ["002"]
        assert runner.apply_migrations().applied == ("002",)
    assert told == [PROVING.removeprefix("flux: ").removesuffix("\n")]


@pytest.mark.parametrize("asks", [True, False], ids=["asked", "not asked"])
def test_what_another_process_did_meanwhile_is_proven_again(shop: Project, asks: bool) -> None:
    """It applies one of two late ones while this one is proving; the rest is proven anew."""
    _merge(shop, USERS, "CREATE TABLE books (id INTEGER);\n", SEED)
    shop.add({"002a.sql": "ALTER TABLE books ADD COLUMN title TEXT;\n"})
    told: list[str] = []
    asked: list[list[str]] = []

    def note(event: Event) -> None:
        if event.kind == "wait":
            told.append(event.message)
            if len(told) == 1:
                shop.succeed("apply", "1", "--allow-late")

    def confirm(plan: Plan) -> bool:
        asked.append([step.name for step in plan.steps])
        return True

    with FluxRunner.from_file(shop.root / "flux.toml", on_event=note) as runner:
        done = runner.apply_migrations(confirm=confirm if asks else None)
    assert done.applied == ("002a",)
    assert [message.partition("that it does not matter that ")[2] for message in told] == [
        "002, 002a are late",
        "002a is late",
    ]
    assert asked == ([["002", "002a"], ["002a"]] if asks else [])


def test_all_late_ones_of_a_plan_are_proven_together(shop: Project) -> None:
    _merge(shop, USERS, "CREATE TABLE books (id INTEGER);\n", SEED)
    shop.add({"002a.sql": "ALTER TABLE books ADD COLUMN title TEXT;\n"})
    result = shop.run("apply")
    assert (result.code, result.err) == (0, PROVING.replace("002 is", "002, 002a are"))
    assert shop.applied() == ["001", "002", "002a", "003"]


def test_earlier_late_ones_are_where_they_were_applied(shop: Project) -> None:
    """The order here is that of the history, and not that of the ids: 002 followed 003."""
    _merge(
        shop,
        USERS,
        "INSERT INTO users SELECT count(*) + 10, 'late' FROM users;\n",
        SEED,
    )
    assert "the order matters" in shop.fail("apply", code=4)
    shop.succeed("apply", "--allow-late")
    shop.add({"002a.sql": "CREATE TABLE books (id INTEGER);\n"})
    assert "2a is late, and the order matters: values of id of" in shop.fail("apply", code=4)


def test_a_missing_migration_cannot_be_tried(shop: Project) -> None:
    """An old version of the program, beside a newer database."""
    _merge(shop, USERS, "CREATE TABLE books (id INTEGER);\n", SEED)
    shop.add({"004.sql": "SELECT 1;"})
    shop.succeed("apply", "--allow-late", "--to", "001")
    shop.query("UPDATE _flux_migrations SET id = '005' WHERE id = '001'")
    text = (shop.root / "flux.toml").read_text()
    shop.write("flux.toml", text.replace("[flux]", '[flux]\nmissing = "allow-newer"'))
    for name in ("001.sql", "004.sql"):
        (shop.root / "migrations" / name).unlink()
    assert "002 is late, and the order cannot be tried: 005 is not on disk" in shop.fail(
        "apply", code=4
    )


def test_status_and_validate_leave_the_proof_to_apply(shop: Project) -> None:
    """They only read the one database; a plan is what apply would run, and is proven as well."""
    _merge(shop, USERS + SEED, "DELETE FROM users WHERE name = 'Ada';\n", RENAMES)
    assert shop.run("status", "--check").code == 3
    shop.succeed("validate")
    assert "the order matters" in shop.fail("plan", code=4)
    with (
        FluxRunner.from_file(shop.root / "flux.toml") as runner,
        pytest.raises(MigrationDirectoryCorruptedError, match="the order matters"),
    ):
        runner.apply_migrations()
    shop.succeed("apply", "--allow-late")


def test_what_the_proof_says_is_shown(shop: Project) -> None:
    """As text and as data; no value of a row is among it."""
    _merge(shop, USERS + SEED, "DELETE FROM users WHERE name = 'Ada';\n", RENAMES)
    config = FluxConfig.from_file(shop.root / "flux.toml")._replace(late="allow")
    with FluxRunner.from_config(config) as runner:
        plan = runner.plan_apply()
        applied, late = to_prove(plan, runner.state, config.order)
        with scratch_place_beside(runner) as place:
            proof = prove_late(Stage(config, runner.directory, place), applied, late)
    users = "users" if type(shop) is Project else "public.users"
    assert late_proof_text(proof) == (
        f"not proven   002: the order matters: rows of {users}\n"
        "    (- in the order of their ids, + in the order that it would be here)\n"
        f"      rows of {users}\n"
        "    -     1 row\n"
        "    +     no row"
    ).replace("no row", "0 rows")
    data = late_proof_data(proof)
    assert json.loads(json.dumps(data)) == data
    assert (data["proven"], data["late"], data["failed"]) == (False, ["002"], None)
    assert data["differences"][0]["object"] == f"rows of {users}"


@pytest.mark.parametrize("is_proven", [True, False])
def test_nothing_is_left_behind(
    shop: Project, is_proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where this user's scratch files lie, other tests of other processes have theirs.
    monkeypatch.setenv("TMPDIR", str(shop.root))
    monkeypatch.setattr(tempfile, "tempdir", str(shop.root))
    late = "CREATE TABLE books (id INTEGER);\n" if is_proven else "SELECT nothing_of_this_name;\n"
    _merge(shop, USERS + SEED, late, RENAMES)
    before = _scratch_databases(shop)
    assert shop.run("apply").code == (0 if is_proven else 4)
    assert _scratch_databases(shop) - before == set()


def test_what_reaches_beyond_a_scratch_database_is_not_tried(pg_alone: PostgresProject) -> None:
    pg_alone.configure('late = "prove"', 'migrations_schema = "public"')
    _merge(pg_alone, USERS, "CREATE ROLE flux_late_role;\n", SEED)
    error = pg_alone.fail("apply")
    assert "migrations/002.sql:1:1: CREATE ROLE reaches beyond the database" in error
    assert pg_alone.query("SELECT 1 FROM pg_roles WHERE rolname = 'flux_late_role'") == []


def test_a_shadow_is_where_it_is_proven(pg_alone: PostgresProject) -> None:
    """An address that cannot be reached shows that the proof goes there."""
    pg_alone.configure('late = "prove"', 'migrations_schema = "public"')
    _merge(pg_alone, USERS, "CREATE TABLE books (id INTEGER);\n", SEED)
    shadow = {"FLUX_SHADOW_URL": "postgresql://nobody@127.0.0.1:1/none"}
    result = pg_alone.run("apply", env=shadow)
    assert result.code == 1
    assert "127.0.0.1" in result.err
    assert pg_alone.applied() == ["001", "003"]
    assert pg_alone.run("apply", env={"FLUX_SHADOW_URL": pg_alone.postgres.url}).code == 0


RENAMES = "UPDATE users SET name = 'Ada';\n"


def _scratch_databases(project: Project) -> set[str]:
    """Those of this server, or of this user."""
    if isinstance(project, PostgresProject):
        rows = project.query(
            "SELECT datname FROM pg_database WHERE datname LIKE 'flux!_s%' ESCAPE '!'"
        )
        return {name for (name,) in rows}
    with SQLiteScratchPlace(wait=0) as place:
        return set(place._names(SCRATCH))
