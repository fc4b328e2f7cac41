"""PostgreSQL's errors: where, why, what was done before, and what is in the database now."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import port_for
import pytest

import flux
from flux.exceptions import MigrationApplyError
from tests.conftest import own_program
from tests.flux_process import flux_environment
from tests.postgres_project import PostgresProject
from tests.postgres_server import Postgres, PostgresServer, _executable

NO_TRANSACTION = "-- flux: no-transaction\n"
ROLLED_BACK = "state: rolled back; the database is as it was before 001"
FUNCTION = """
CREATE FUNCTION check_all() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'no good' USING DETAIL = 'It is bad.', HINT = 'Try another.';
END $$;
"""

# Where the server gives a position ----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "CREATE TABLE a ();\nCREATE TABLE b ();\n  CREATE TABEL c ();\nSELECT 1;",
            "migrations/001.sql:3:10: applying 001 failed: syntax error at or near \"TABEL\"\n"
            "    3 |   CREATE TABEL c ();\n"
            "      |          ^",
            id="syntax error in the middle",
        ),
        pytest.param(
            "SELECT 1;\nSELECT relname, nope FROM pg_class;\nSELECT 2;",
            'migrations/001.sql:2:17: applying 001 failed: column "nope" does not exist\n'
            "    2 | SELECT relname, nope FROM pg_class;\n"
            "      |                 ^",
            id="undefined column",
        ),
        pytest.param(
            "SELECT 1; SELECT 2; SELECT nope; SELECT nope;",
            'migrations/001.sql:1:28: applying 001 failed: column "nope" does not exist\n'
            "    1 | SELECT 1; SELECT 2; SELECT nope; SELECT nope;\n"
            "      |                            ^",
            id="one of several on a line",
        ),
        pytest.param(
            "SELECT\n  1,\n\n  nope -- why\n;",
            'migrations/001.sql:4:3: applying 001 failed: column "nope" does not exist\n'
            "    4 |   nope -- why\n"
            "      |   ^",
            id="statement of several lines",
        ),
        pytest.param(
            "SELECT '🦊 Größe 表';\nSELECT '🦊 Größe 表', nope;",
            'migrations/001.sql:2:21: applying 001 failed: column "nope" does not exist\n'
            "    2 | SELECT '🦊 Größe 表', nope;\n"
            "      |                     ^",
            id="not ASCII before it",
        ),
        pytest.param(
            "\ufeffSELECT 1;\r\n\r\nSELECT nope;\r\n",
            'migrations/001.sql:3:8: applying 001 failed: column "nope" does not exist\n'
            "    3 | SELECT nope;\n"
            "      |        ^",
            id="BOM and CRLF",
        ),
        pytest.param(
            "SELECT\t1,\tnope;",
            'migrations/001.sql:1:11: applying 001 failed: column "nope" does not exist\n'
            "    1 | SELECT  1,  nope;\n"
            "      |             ^",
            id="tabs",
        ),
        pytest.param(
            f"SELECT '{'x' * 200}', nope;",
            'migrations/001.sql:1:212: applying 001 failed: column "nope" does not exist\n'
            f"    1 | {'x' * 56}', nope;\n"
            f"      | {' ' * 59}^",
            id="long line",
        ),
        pytest.param(
            "SELECT 1;\nSELECT 1 +",
            "migrations/001.sql:2:11: applying 001 failed: syntax error at or near \";\"\n"
            "    2 | SELECT 1 +\n"
            "      |           ^",
            id="at the end",
        ),
        pytest.param(
            "BEGIN;\nSELECT 1;\nSELECT nope;\nCOMMIT;",
            'migrations/001.sql:3:8: applying 001 failed: column "nope" does not exist\n'
            "    3 | SELECT nope;\n"
            "      |        ^",
            id="within BEGIN and COMMIT",
        ),
        pytest.param(
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nSELECT nope;",
            'migrations/001.sql:2:8: applying 001 failed: column "nope" does not exist\n'
            "    2 | SELECT nope;\n"
            "      |        ^",
            id="after SET TRANSACTION",
        ),
        pytest.param(
            "SET TRANSACTION LEVEL NOPE;\nSELECT 1;",
            "migrations/001.sql:1:17: applying 001 failed: syntax error at or near \"LEVEL\"\n"
            "    1 | SET TRANSACTION LEVEL NOPE;\n"
            "      |                 ^",
            id="in SET TRANSACTION",
        ),
        pytest.param(
            "CREATE TABLE t (x int);\nCOPY t FROM stdin;\n1\n\\.\nSELECT 1;\nSELECT nope;\n"
            "COPY t FROM stdin;\n2\n\\.\n",
            'migrations/001.sql:6:8: applying 001 failed: column "nope" does not exist\n'
            "    6 | SELECT nope;\n"
            "      |        ^",
            id="between two COPY",
        ),
        pytest.param(
            "CREATE TABLE t (x int);\nCOPY t FROM stdin;\n1\n\\.\n\n"
            "COPY  nope FROM stdin;\n2\n\\.\n",
            'migrations/001.sql:6: applying 001 failed: relation "nope" does not exist\n'
            "    6 | COPY  nope FROM stdin;",
            id="a COPY itself, which has no position",
        ),
        pytest.param(
            "SELECT 1;\nCREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n"
            "  RETURNN 1;\nEND $$;",
            "migrations/001.sql:4:3: applying 001 failed: syntax error at or near \"RETURNN\"\n"
            "    4 |   RETURNN 1;\n"
            "      |   ^",
            id="in a function's body",
        ),
        pytest.param(
            "SELECT 1;\nCREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT nope';",
            'migrations/001.sql:2:57: applying 001 failed: column "nope" does not exist\n'
            "    2 | CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT nope';\n"
            "      |                                                         ^",
            id="in an SQL function's body",
        ),
        pytest.param(
            "SELECT 'a' /* 100% */ || 1 + 'b';\nSELECT 1;",
            'migrations/001.sql:1:30: applying 001 failed: invalid input syntax for type integer: '
            '"b"\n'
            "    1 | SELECT 'a' /* 100% */ || 1 + 'b';\n"
            "      |                              ^",
            id="percent before it",
        ),
    ],
)  # fmt: skip
def test_an_error_points_at_the_very_character(
    pg: PostgresProject, text: str, message: str
) -> None:
    """And nothing of the file is in the database."""
    pg.add({"001.sql": text})
    assert pg.error() == f"{message}\n{ROLLED_BACK}"
    assert (pg.tables(), pg.applied()) == ([], [])


def test_an_error_in_text_from_python_counts_in_that_text(pg: PostgresProject) -> None:
    pg.add({"001.py": "def apply():\n    return ['SELECT 1;', 'SELECT 2,\\n  nope']\n"})
    assert pg.error() == (
        "migrations/001.py (line 4, column 3, in what apply() gave): applying 001 failed: column "
        '"nope" does not exist\n'
        "    4 |   nope\n"
        "      |   ^\n" + ROLLED_BACK
    )


@pytest.mark.parametrize("directive", ["", NO_TRANSACTION], ids=["transaction", "none"])
def test_an_error_in_an_undo_or_a_repeatable_names_that_file(
    pg: PostgresProject, directive: str
) -> None:
    pg.add({"001.sql": "", "001.undo.sql": f"{directive}SELECT nope"})
    pg.apply()
    line = 2 if directive else 1
    with pytest.raises(MigrationApplyError) as caught:
        pg.rollback()
    assert str(caught.value).startswith(
        f'migrations/001.undo.sql:{line}:8: undoing 001 failed: column "nope" does not exist\n'
        f"    {line} | SELECT nope\n"
        "      |        ^\n"
        "state: "
    )
    assert pg.applied() == ["001"]
    pg.add({"002.sql": "", "pre-apply/x.sql": f"{directive}SELECT nope"})
    assert pg.error().startswith(
        f'migrations/pre-apply/x.sql:{line}:8: running pre-apply/x failed: column "nope" does '
        "not exist\n"
    )
    assert pg.applied() == ["001"]


def test_an_error_without_a_transaction_points_too(pg: PostgresProject) -> None:
    pg.add({"001.sql": NO_TRANSACTION + "CREATE TABLE a ();\n\nSELECT 1,\n  nope;\nSELECT 2;"})
    assert pg.error() == (
        'migrations/001.sql:5:3: applying 001 failed: column "nope" does not exist\n'
        "    5 |   nope;\n"
        "      |   ^\n"
        "hint: mend it from statement 2 on, and apply again: flux goes on there\n"
        "state: it ran without a transaction: statement 1 of 3 took effect, statement 2 failed, "
        "and 001 is not in the history"
    )
    assert (pg.tables(), pg.applied()) == (["a"], [])


# Where it gives none ------------------------------------------------------------------------

FIVE = """\
CREATE TABLE t (x int PRIMARY KEY, y int NOT NULL DEFAULT 1);
INSERT INTO t VALUES (1);
INSERT INTO t
    VALUES (1);
INSERT INTO t VALUES (2);
INSERT INTO t VALUES (3);
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            FIVE,
            "migrations/001.sql:3: applying 001 failed: duplicate key value violates unique "
            'constraint "t_pkey"\n'
            "detail: Key (x)=(1) already exists.\n"
            "    3 | INSERT INTO t",
            id="unique violation",
        ),
        pytest.param(
            f"SET client_min_messages = error;\n{FIVE}",
            "migrations/001.sql:4: applying 001 failed: duplicate key value violates unique "
            'constraint "t_pkey"\n'
            "detail: Key (x)=(1) already exists.\n"
            "    4 | INSERT INTO t",
            id="client_min_messages",
        ),
        pytest.param(
            "DO $$ BEGIN FOR i IN 1..200 LOOP RAISE NOTICE 'flux'; END LOOP; END $$;\n" * 3
            + "SELECT 1/0;\nSELECT 1;",
            "migrations/001.sql:4: applying 001 failed: division by zero\n    4 | SELECT 1/0;",
            id="after many notices",
        ),
        pytest.param(
            "SELECT 1;\n" * 300 + "SELECT 1/0;\n" + "SELECT 1;\n" * 5,
            "migrations/001.sql:301: applying 001 failed: division by zero\n"
            "    301 | SELECT 1/0;",
            id="after many statements",
        ),
        pytest.param(
            f"SELECT 1;\n{FUNCTION}\nSELECT 2;\nSELECT\n  check_all();\nSELECT 3;",
            "migrations/001.sql:9: applying 001 failed: no good\n"
            "detail: It is bad.; PL/pgSQL function check_all() line 3 at RAISE\n"
            "    9 | SELECT\n"
            "hint: Try another.",
            id="raised in a function",
        ),
        pytest.param(
            "CREATE TABLE t (x int);\nDO $$\nBEGIN\n  EXECUTE 'SELECT nope';\nEND $$;",
            'migrations/001.sql:2: applying 001 failed: column "nope" does not exist\n'
            "detail: PL/pgSQL function inline_code_block line 3 at EXECUTE\n"
            "    2 | DO $$",
            id="a position in other text",
        ),
        pytest.param(
            "CREATE TABLE t (x int NOT NULL);\nCOPY t FROM stdin;\n1\n\\N\n\\.\nSELECT 1;",
            'migrations/001.sql:2: applying 001 failed: null value in column "x" of relation "t" '
            "violates not-null constraint\n"
            'detail: Failing row contains (null).; COPY t, line 2: "\\N"\n'
            "    2 | COPY t FROM stdin;",
            id="in the rows of a COPY",
        ),
        pytest.param(
            "CREATE TABLE t (x int);\nCOPY t FROM stdin;\n1\n\\.\nCOPY t (x)\n  FROM stdin;\n2\n"
            "größe\n\\.\nSELECT 1;",
            "migrations/001.sql:5: applying 001 failed: invalid input syntax for type integer: "
            '"größe"\n'
            'detail: COPY t, line 2, column x: "größe"\n'
            "    5 | COPY t (x)",
            id="in the rows of the second COPY",
        ),
        pytest.param(
            "CREATE TABLE t (x int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);\n"
            "INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);\n",
            "migrations/001.sql: applying 001 failed: duplicate key value violates unique "
            'constraint "t_pkey"\n'
            "detail: Key (x)=(1) already exists.",
            id="deferred, so that none of the statements failed",
        ),
        pytest.param(
            "SELECT 1;\nSELECT pg_catalog.set_config('search_path', '', false);\n"
            "CREATE TABLE t ();",
            "migrations/001.sql:3:14: applying 001 failed: no schema has been selected to create "
            "in\n"
            "    3 | CREATE TABLE t ();\n"
            "      |              ^",
            id="no search_path",
        ),
    ],
)  # fmt: skip
def test_an_error_without_a_position_names_the_statement_and_no_column(
    pg: PostgresProject, text: str, message: str
) -> None:
    pg.add({"001.sql": text})
    head, _, hint = message.partition("\nhint: ")
    tail = f"\nhint: {hint}" if hint else ""
    assert pg.error() == f"{head}{tail}\n{ROLLED_BACK}"
    assert (pg.tables(), pg.applied()) == ([], [])


def test_without_plpgsql_no_statement_is_guessed(pg_alone: PostgresProject) -> None:
    """The markers need it; migrations do not."""
    pg_alone.query("DROP EXTENSION plpgsql")
    pg_alone.add({"001.sql": "CREATE TABLE t ();", "002.sql": "SELECT 1;\nSELECT 1/0;"})
    assert pg_alone.error() == (
        "migrations/002.sql: applying 002 failed: division by zero\n"
        "done before it: 001\n"
        "state: rolled back; the database is as it was before 002"
    )
    assert (pg_alone.tables(), pg_alone.applied()) == (["t"], ["001"])


def test_a_failed_batch_says_what_was_done_and_goes_on_from_there(pg: PostgresProject) -> None:
    """What was applied before stays; when the file is mended, nothing runs a second time."""
    pg.add(
        {
            "001.sql": "CREATE TABLE a ()",
            "002.sql": "CREATE TABLE b ()",
            "003.sql": "CREATE TABLE c ();\nSELECT 1/0",
            "004.sql": "CREATE TABLE d ()",
            "pre-apply/x.sql": "SELECT 1",
            "post-apply/y.sql": "CREATE TABLE IF NOT EXISTS y ()",
        }
    )
    result = pg.run("apply")
    assert result.code == 1
    assert [line.split()[-1] for line in result.out.splitlines()] == ["pre-apply/x", "001", "002"]
    assert result.err == (
        "error: migrations/003.sql:2: applying 003 failed: division by zero\n"
        "    2 | SELECT 1/0\n"
        "done before it: pre-apply/x, 001, 002\n"
        "state: rolled back; the database is as it was before 003\n"
    )
    assert (pg.tables(), pg.applied()) == (["a", "b"], ["001", "002"])
    pg.add({"003.sql": "CREATE TABLE c ()"})
    assert pg.apply().applied == ("003", "004")
    assert pg.tables() == ["a", "b", "c", "d", "y"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "def apply(connection):\n    work(connection)\n\n\ndef work(connection):\n"
            "    connection.cursor().execute('CREATE TABLE t ()')\n"
            "    raise ValueError('100% no')\n",
            "migrations/001.py:7: applying 001 failed: ValueError: 100% no\n"
            "    7 |     raise ValueError('100% no')",
            id="raises",
        ),
        pytest.param(
            "def apply(connection):\n    with connection.cursor() as cursor:\n"
            "        cursor.execute('CREATE TABLE t ()')\n        cursor.execute('SELECT nope')\n",
            'migrations/001.py:4: applying 001 failed: UndefinedColumn: column "nope" does not '
            "exist\n    4 |         cursor.execute('SELECT nope')",
            id="an error of the database's",
        ),
        pytest.param(
            "import json\n\ndef apply(connection):\n"
            "    connection.cursor().execute('CREATE TABLE t ()')\n    json.loads('{')\n",
            "migrations/001.py:5: applying 001 failed: JSONDecodeError: Expecting property name "
            "enclosed in double quotes: line 1 column 2 (char 1)\n    5 |     json.loads('{')",
            id="raised by what it calls",
        ),
    ],
)
def test_a_python_migration_that_raises_is_shown_at_its_own_line(
    pg: PostgresProject, source: str, message: str
) -> None:
    pg.add({"001.py": source})
    assert pg.fail("apply") == f"error: {message}\n{ROLLED_BACK}\n"
    assert (pg.tables(), pg.applied()) == ([], [])


def test_a_python_migration_may_swallow_nothing(pg: PostgresProject) -> None:
    """An error that it caught has ended its transaction all the same, and nothing is recorded."""
    pg.add(
        {
            "001.py": "def apply(connection):\n    with connection.cursor() as cursor:\n"
            "        cursor.execute('CREATE TABLE t ()')\n        try:\n"
            "            cursor.execute('SELECT nope')\n        except Exception:\n"
            "            pass\n"
        }
    )
    assert pg.error() == (
        "migrations/001.py: applying 001 failed: InFailedSqlTransaction: current transaction is "
        "aborted, commands ignored until end of transaction block\n" + ROLLED_BACK
    )
    assert (pg.tables(), pg.applied()) == ([], [])


# The database cannot be used ----------------------------------------------------------------


@contextmanager
def ordinary_role(place: Postgres, name: str = "ordinary") -> Iterator[str]:
    """A role that may log in, and nothing else: its URL."""
    place.query(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
    place.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is since PostgreSQL 15
    try:
        server = place.server
        yield f"postgresql://{name}:hunter2@{server.host}:{server.port}/{place.database}"
    finally:
        place.query(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_no_right_to_create_the_history_table(pg_alone: PostgresProject) -> None:
    pg_alone.add({"001.sql": "SELECT 1"})
    with ordinary_role(pg_alone.postgres) as url:
        pg_alone.configure(url=url)
        assert pg_alone.fail("apply") == (
            "error: cannot create the history table: permission denied for schema public\n"
            "hint: since PostgreSQL 15 not every user may create tables in public: GRANT CREATE "
            'ON SCHEMA "public" TO the user, or set migrations_schema in [backend] to a schema of '
            "its own\n"
        )
        assert pg_alone.succeed("status").endswith("flux has not touched this database\n")
        pg_alone.configure(backend='migrations_schema = "of its own"', url=url)
        assert pg_alone.fail("apply") == (
            'error: cannot create the schema "of its own": permission denied for database '
            f"{pg_alone.postgres.database}\n"
            'hint: CREATE SCHEMA "of its own" AUTHORIZATION the user, or set migrations_schema '
            "in [backend] to one that is there\n"
        )
        pg_alone.query('CREATE SCHEMA "of its own" AUTHORIZATION ordinary')
        pg_alone.succeed("apply")


def test_no_right_to_read_the_history_table(pg_alone: PostgresProject) -> None:
    pg_alone.add({"001.sql": "SELECT 1"})
    pg_alone.apply()
    with ordinary_role(pg_alone.postgres) as url:
        pg_alone.configure(url=url)
        assert pg_alone.fail("status") == (
            "error: cannot read the history: permission denied for table _flux_migrations\n"
        )


def test_no_right_to_create_the_table_beside_the_history(pg_alone: PostgresProject) -> None:
    pg_alone.add({"001.sql": "SELECT 1"})
    pg_alone.apply()
    pg_alone.add({"002.sql": "SELECT 1", "post-apply/x.sql": "SELECT 1"})
    with ordinary_role(pg_alone.postgres) as url:
        pg_alone.query("GRANT ALL ON _flux_migrations TO ordinary")
        pg_alone.configure(url=url)
        assert pg_alone.fail("apply").startswith(
            "error: cannot create the table beside the history: permission denied for schema "
            "public\nhint: since PostgreSQL 15 "
        )
        assert pg_alone.applied() == ["001"]


READ_ONLY_HINT = (
    "hint: this server is a standby, or the user's transactions are read-only: give the address "
    "of the primary\n"
)


@contextmanager
def standby(server: PostgresServer, directory: Path) -> Iterator[str]:
    """A standby of the test's server, which replays its log; the address of it, `host:port`."""
    base_backup, pg_ctl = own_program(server, "pg_basebackup"), own_program(server, "pg_ctl")
    # Beside the server's own directory, which whoever runs it may enter.
    data = server.log_file.parent / "standby"
    url = server.url("postgres")
    subprocess.run([base_backup, "-d", url, "-D", data, "-R", "-c", "fast"], check=True)
    port = port_for.select_random()
    script = _executable(pg_ctl, directory)
    if sys.platform != "win32" and os.geteuid() == 0:
        for path in (data, *data.rglob("*")):
            os.chown(path, 65534, 65534)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    log = directory / "standby.log"
    log.touch()
    log.chmod(0o666)
    directory.chmod(0o755)
    try:
        subprocess.run(
            [script, "start", "-w", "-D", data, "-l", log, "-o", options],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(
            [script, "stop", "-m", "immediate", "-D", data], check=False, stdout=subprocess.DEVNULL
        )
        shutil.rmtree(data, ignore_errors=True)


def test_a_standby_is_read_and_not_written(
    pg_alone: PostgresProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`status` works there; `apply` says that it is one, on a fresh database and on an old one."""
    server = pg_alone.postgres.server
    pg_alone.add({"001.sql": "CREATE TABLE t ()"})
    fresh = pg_alone.postgres.database
    old = f"{fresh}_old"
    pg_alone.query(f"CREATE DATABASE {old} TEMPLATE template0")
    pg_alone.configure(url=server.url(old))
    pg_alone.apply()
    pg_alone.add({"002.sql": "SELECT 1;\nCREATE TABLE u ()"})
    with standby(server, tmp_path_factory.mktemp("standby")) as place:
        primary = f"{server.host}:{server.port}"
        pg_alone.configure(url=server.url(fresh).replace(primary, place))
        assert pg_alone.succeed("status").endswith("flux has not touched this database\n")
        assert pg_alone.fail("apply") == (
            "error: cannot create the history table: cannot execute CREATE TABLE in a read-only "
            "transaction\n" + READ_ONLY_HINT
        )
        pg_alone.configure(url=server.url(old).replace(primary, place))
        assert pg_alone.succeed("status").endswith("2 migrations: 1 applied, 1 pending\n")
        assert pg_alone.fail("apply") == (
            "error: migrations/002.sql:2: applying 002 failed: cannot execute CREATE TABLE in a "
            "read-only transaction\n"
            "    2 | CREATE TABLE u ()\n"
            + READ_ONLY_HINT
            + "state: rolled back; the database is as it was before 002\n"
        )
    pg_alone.query(f"DROP DATABASE {old}")


def test_read_only_transactions(pg: PostgresProject) -> None:
    pg.configure(url=pg.postgres.url_with(default_transaction_read_only="on"))
    pg.add({"001.sql": "CREATE TABLE t ()"})
    assert pg.fail("apply") == (
        "error: cannot create the history table: cannot execute CREATE TABLE in a read-only "
        "transaction\n" + READ_ONLY_HINT
    )
    assert pg.applied() == []


PASSWORD = "hunter2 %/@:=&'\\"
ENCODED = "hunter2%20%25%2F%40%3A%3D%26%27%5C"
KEYWORD = "'hunter2 %/@:=&\\'\\\\'"
CANNOT = "error: cannot connect to "
_SOURCE = r"the address is from the environment variable FLUX_DATABASE_URL\n"
_HINT = r"hint: " + _SOURCE


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param(
            "postgresql://{user}:{password}@{host}:{port}/nope",
            CANNOT + r"postgresql://{user}:\*\*\*@{host}:{port}/nope: connection to server at "
            r'"{host}", port {port} failed: FATAL:  database "nope" does not exist\n'
            r"hint: create it first: flux makes tables, not databases; " + _SOURCE,
            id="database that does not exist",
        ),
        pytest.param(
            "postgresql://{user}:{encoded}@{host}:{port}/postgres",
            CANNOT + r"postgresql://{user}:\*\*\*@{host}:{port}/postgres: connection to server at "
            r'"{host}", port {port} failed: FATAL:  password authentication failed for user '
            r'"{user}"\n' + _HINT,
            id="wrong password",
        ),
        pytest.param(
            "host={host} port={port} user={user} dbname=postgres password={keyword}",
            CANNOT + r"host={host} port={port} user={user} dbname=postgres password=\*\*\*: "
            r'connection to server at "{host}", port {port} failed: FATAL:  password '
            r'authentication failed for user "{user}"\n' + _HINT,
            id="wrong password as a keyword",
        ),
        pytest.param(
            "postgresql://{user}@{host}:{port}/postgres?password={encoded}",
            CANNOT + r"postgresql://{user}@{host}:{port}/postgres\?password=\*\*\*: .* password "
            r'authentication failed for user "{user}"\n' + _HINT,
            id="wrong password as a parameter",
        ),
        pytest.param(
            "postgresql://nobody:{encoded}@{host}:{port}/database",
            CANNOT + r'.*: FATAL:  password authentication failed for user "nobody"\n' + _HINT,
            id="role that does not exist",
        ),
        pytest.param(
            "postgresql://{user}:{encoded}@{host}:{closed}/postgres",
            CANNOT + r"postgresql://{user}:\*\*\*@{host}:{closed}/postgres: connection to server "
            r'at "{host}", port {closed} failed: Connection refused\n'
            r"\s+Is the server running on that host and accepting TCP/IP connections\?\n"
            r"hint: a database that is still starting is waited for with --wait SECONDS, or "
            r"connect_wait in the configuration; " + _SOURCE,
            id="server not there",
        ),
        pytest.param(
            "host={host} port={closed} password=hunter2 is mine dbname=x",
            r"error: the database's address cannot be read: it is no list of KEY=VALUE\n"
            r"hint: with quotes .*; " + _SOURCE,
            id="password that is cut in two",
        ),
        pytest.param(
            "postgresql://{user}:hunter2%zz@{host}:{port}/postgres",
            r"error: .*" + _SOURCE,
            id="password that does not decode",
        ),
        pytest.param(
            "postgresql://{user}:hunter2@{host}:{port}/postgres?nope=1",
            r"error: the database's address cannot be read: libpq does not know parameter 1 of it\n"
            r"hint: .*" + _SOURCE,
            id="parameter that is none",
        ),
        pytest.param(
            "postgresql://{user}:{encoded}@{host}:{port}/postgres?sslmode=hunter2",
            r"error: .*" + _SOURCE,
            id="parameter of a wrong value",
        ),
    ],
)
@pytest.mark.parametrize("traceback", [False, True], ids=["", "traceback"])
def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    pg: PostgresProject, server: PostgresServer, url: str, error: str, traceback: bool
) -> None:
    values = {
        "user": server.user,
        "password": server.password,
        "host": server.host,
        "port": str(server.port),
        "closed": str(port_for.select_random()),
        "encoded": ENCODED,
        "keyword": KEYWORD,
    }
    pg.add({"001.sql": "SELECT 1"})
    command = ["status", *(["--traceback"] if traceback else [])]
    result = pg.run(*command, env={"FLUX_DATABASE_URL": url.format_map(values)})
    assert result.code in (1, 2)
    said = result.err
    if "sslmode" not in url:
        assert "hunter2" not in said
        assert "is mine" not in said
    for secret in (server.password, PASSWORD, ENCODED, KEYWORD):
        assert secret not in said
    if not traceback:
        escaped = {name: re.escape(value) for name, value in values.items()}
        pattern = re.sub(r"\{(\w+)\}", lambda match: escaped[match[1]], error)
        assert re.fullmatch(pattern, said, re.DOTALL), said


def test_a_driver_that_is_not_installed(pg: PostgresProject, tmp_path: Path) -> None:
    """flux alone, as `pip install flux-migrations` without [postgres] gives it."""
    library = tmp_path / "library"
    packages = [flux]
    if sys.version_info < (3, 11):
        import tomli

        packages.append(tomli)
    for package in packages:
        assert package.__file__
        source = Path(package.__file__).parent
        shutil.copytree(source, library / source.name, ignore=shutil.ignore_patterns("*.pyc"))
    pg.add({"001.sql": "SELECT 1"})
    done = subprocess.run(
        [sys.executable, "-S", "-m", "flux", "apply"],
        cwd=pg.root,
        env=flux_environment({"PYTHONPATH": str(library)}),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the driver of the backend 'postgres' is not installed: No module named "
        "'psycopg2' or 'psycopg'\n"
        'hint: pip install "flux-migrations[postgres]"\n'
    )


def test_a_connection_that_dies_is_no_traceback(pg: PostgresProject) -> None:
    """The server ends the session in mid-migration: the state is what another connection finds."""
    pg.add({"001.sql": "CREATE TABLE t ();\nSELECT pg_terminate_backend(pg_backend_pid());"})
    error = pg.fail("apply")
    assert re.fullmatch(
        "flux: the connection broke: looking whether 001 took effect\n"
        "error: migrations/001.sql:2: applying 001 failed: (terminating connection|server closed "
        "the connection).*\n"
        r"    2 \| SELECT pg_terminate_backend\(pg_backend_pid\(\)\);\n"
        "state: rolled back; the database is as it was before 001\n",
        error,
    )
    assert (pg.tables(), pg.applied()) == ([], [])
