"""PostgreSQL: whatever a migration's text holds, it runs as psql would run it, and once."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing
from datetime import datetime, timezone

import pytest

from flux.exceptions import (
    InvalidConfigurationError,
    MigrationApplyError,
    MigrationLoadingError,
    MigrationLockError,
)
from tests.conftest import own_program
from tests.postgres_project import PostgresProject
from tests.postgres_server import LoggedStatement, Postgres, PostgresServer, own_database

T = "CREATE TABLE t (body text);\n"
NO_TRANSACTION = "-- flux: no-transaction\n"

# Names and numbers from the configuration ---------------------------------------------------

LONG = "x" * 63


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param("of its own", id="space"),
        pytest.param('a"b', id="double quote"),
        pytest.param("it's", id="quote"),
        pytest.param("Größe-表", id="Unicode"),
        pytest.param("100%s %(x)s", id="percent"),
        pytest.param("a;b--c/*", id="semicolon and comment"),
        pytest.param("select", id="keyword"),
        pytest.param("a.b", id="dot"),
        pytest.param("a\\b$$", id="backslash and dollar"),
        pytest.param(LONG, id="63 bytes"),
    ],
)
def test_any_legal_name_of_schema_and_table_works(pg_alone: PostgresProject, schema: str) -> None:
    """The schema is made, and apply, status, no-op and rollback all find the tables in it."""
    table = schema.upper()
    pg_alone.configure(
        backend=f"migrations_schema = {json.dumps(schema)}\nmigrations_table = {json.dumps(table)}"
    )
    pg_alone.add(
        {
            "001.sql": T,
            "001.undo.sql": "DROP TABLE t",
            "post-apply/views.sql": "-- flux: on-change\nSELECT 1;",
        }
    )
    assert pg_alone.apply().applied == ("001",)
    assert pg_alone.apply().steps == ()
    with pg_alone.runner() as runner:
        assert [row.state for row in runner.status().rows] == ["applied"]
    found = pg_alone.query(
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema|public)' ORDER BY 2"
    )
    assert len(found) == 2
    assert (schema, table) in found
    assert pg_alone.rollback().undone == ("001",)


def test_names_that_the_server_would_cut_are_refused(pg: PostgresProject) -> None:
    """The server cuts them in silence, and two projects would share one history."""
    for key in ("migrations_schema", "migrations_table"):
        pg.configure(backend=f'{key} = "{"é" * 32}"')
        with pytest.raises(InvalidConfigurationError) as caught:
            pg.apply()
        assert str(caught.value) == (
            f"flux.toml: {key} in [backend] must be 1 to 63 bytes of text, "
            "which is what PostgreSQL takes for a name"
        )


@pytest.mark.parametrize("lock_id", [0, -1, 3589, 2**31, 2**32, 2**63 - 1, -(2**63)])
def test_the_lock_is_the_number_that_was_set(pg: PostgresProject, lock_id: int) -> None:
    """It excludes a session lock of that number, and of no other."""
    pg.configure("lock_wait = 0", f"migrations_lock_id = {lock_id}")
    pg.add({"001.sql": "SELECT 1"})
    with closing(pg.postgres.connect(application_name="someone")) as holder:
        holder.cursor().execute(f"SELECT pg_advisory_lock('{lock_id}')")
        with pytest.raises(MigrationLockError, match=r"pid \d+ \(someone, on 127"):
            pg.apply()
        holder.cursor().execute(
            f"SELECT pg_advisory_unlock_all(), pg_advisory_lock('{lock_id}'::int8 # 1)"
        )
        assert pg.apply().applied == ("001",)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param(
            f"migrations_lock_id = {2**63 - 1}1",
            "migrations_lock_id in [backend] must fit into 64 bits",
            id="too large",
        ),
        pytest.param(
            'migrations_lock_id = "1"',
            "migrations_lock_id in [backend] must be a whole number",
            id="text",
        ),
        pytest.param(
            "migration_table = 'x'",
            "unknown key 'migration_table' in [backend]\nhint: did you mean 'migrations_table'?",
            id="unknown",
        ),
        pytest.param(
            "migrations_table = ''",
            "migrations_table in [backend] must be 1 to 63 bytes of text, "
            "which is what PostgreSQL takes for a name",
            id="empty",
        ),
        pytest.param(
            'migrations_table = "a\\u0000b"',
            "migrations_table in [backend] must be 1 to 63 bytes of text, "
            "which is what PostgreSQL takes for a name",
            id="NUL",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    pg: PostgresProject, setting: str, message: str
) -> None:
    pg.configure(backend=setting)
    with pytest.raises(InvalidConfigurationError) as caught:
        pg.apply()
    assert str(caught.value) == f"flux.toml: {message}"


# One transaction with the history row -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(
            "002.sql", "INSERT INTO seen VALUES (1); INSERT INTO seen VALUES (2);", id="SQL"
        ),
        pytest.param(
            "002.sql",
            "INSERT INTO seen VALUES (1);\nCOPY seen (id) FROM stdin;\n2\n\\.\n"
            "COPY seen (id) FROM stdin;\n3\n\\.\n",
            id="COPY",
        ),
        pytest.param("002.sql", "BEGIN;\nINSERT INTO seen VALUES (1);\nCOMMIT;\n", id="wrapped"),
        pytest.param(
            "002.py",
            "def apply(connection):\n    with connection.cursor() as cursor:\n"
            "        cursor.execute('INSERT INTO seen VALUES (1)')\n"
            "        cursor.execute('INSERT INTO seen VALUES (2)')\n",
            id="Python",
        ),
    ],
)
def test_a_migration_and_its_row_are_one_transaction(
    pg: PostgresProject, name: str, content: str
) -> None:
    """Every row that it writes has the transaction id of its row in the history."""
    pg.add({"001.sql": "CREATE TABLE seen (id int)", name: content})
    assert pg.apply().applied == ("001", "002")
    rows = pg.query(
        "SELECT xmin::text FROM seen UNION SELECT xmin::text FROM _flux_migrations WHERE id = '002'"
    )
    assert len(rows) == 1


@pytest.mark.parametrize("content", ["CREATE TABLE u ();", "COPY t FROM stdin;\na\n\\.\n"])
def test_without_its_row_nothing_of_a_migration_stays(pg: PostgresProject, content: str) -> None:
    pg.add(
        {
            "001.sql": f"""
                {T}
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE 'no row for %', NEW.id; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON _flux_migrations FOR EACH ROW
                    WHEN (NEW.id = '002') EXECUTE FUNCTION refuse();
            """,
            "002.sql": content,
        }
    )
    assert pg.error() == (
        "migrations/002.sql: applying 002 failed: no row for 002\n"
        "detail: PL/pgSQL function refuse() line 1 at RAISE\n"
        "done before it: 001\n"
        "state: rolled back; the database is as it was before 002"
    )
    assert (pg.tables(), pg.query("SELECT * FROM t"), pg.applied()) == (["t"], [], ["001"])


# Round trips --------------------------------------------------------------------------------


def recorded_apply(pg: PostgresProject) -> list[LoggedStatement]:
    """What an `apply`, as a process, sends to the server, message by message."""
    pg.configure(url=pg.postgres.url_with(log_statement="all"))
    with pg.postgres.server.recording() as messages:
        pg.succeed("apply")
    return messages


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("history", ["new", "old"])
def test_each_migration_is_in_one_message(pg: PostgresProject, count: int, history: str) -> None:
    """Its text, its row, BEGIN and COMMIT; many of them take one, and a batch twelve more."""
    if history == "old":
        pg.add({"000.sql": T})
        pg.apply()
    ids = [f"{number:03}" for number in range(1, count + 1)]
    pg.add({f"{id}.sql": f"CREATE TABLE t{id} ();\n\nSELECT 'in {id}';" for id in ids})
    messages = [message.text for message in recorded_apply(pg)]
    sent = [text for text in messages if "CREATE TABLE t" in text]
    assert len(sent) <= 1
    assert len(messages) <= len(sent) + 12
    transactions = [text for message in sent for text in re.split(r"COMMIT\b", message)]
    for id in ids:
        [mine] = [text for text in transactions if f"t{id} " in text]
        assert mine.lstrip(";\n").startswith("BEGIN")
        assert f"CREATE TABLE t{id} ();" in mine
        assert f"SELECT 'in {id}';" in mine
        assert re.search(rf"INSERT INTO .*VALUES \('{id}'", mine)


def test_each_copy_ends_a_message(pg: PostgresProject) -> None:
    """Two COPY in one message make psycopg2 hang."""
    block = "COPY t FROM stdin;\na\n\\.\n"
    pg.add({"000.sql": T})
    pg.apply()
    pg.add({"001.sql": f"SELECT 1;\n{block}{block}SELECT 2;"})
    sent = recorded_apply(pg)
    mine = [m.text for m in sent if "COPY" in m.text or "SELECT 2" in m.text]
    assert [text.split()[-1] for text in mine] == ["stdin;", "stdin;", "COMMIT"]
    assert len({message.pid for message in sent if message.text in mine}) == 1


@pytest.mark.parametrize("with_memory", [False, True], ids=["plain", "with a state table"])
def test_a_no_op_is_cheap_and_takes_no_lock(pg: PostgresProject, with_memory: bool) -> None:
    """At most four messages after connecting, on one connection, and all of them read."""
    pg.add({"001.sql": T})
    if with_memory:
        pg.add({"post-apply/views.sql": "-- flux: on-change\nSELECT 1;"})
    pg.apply()
    messages = recorded_apply(pg)
    assert 1 <= len(messages) <= 4
    assert len({message.pid for message in messages}) == 1
    own_timeout = "SET LOCAL lock_timeout = 1000;\n"
    assert all(m.text.removeprefix(own_timeout).startswith("SELECT ") for m in messages)
    assert not any("advisory" in message.text for message in messages)


@pytest.mark.parametrize("command", ["status", "plan", "validate", "apply"])
def test_reading_waits_for_nobody(pg: PostgresProject, command: str) -> None:
    """While a migration runs, and holds lock and fence, whoever only reads is not held up."""
    pg.add({"001.sql": T, "post-apply/views.sql": "-- flux: on-change\nSELECT 1;"})
    pg.apply()
    with closing(pg.postgres.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; SELECT pg_advisory_xact_lock(3589)")
        cursor.execute(
            "SELECT pg_advisory_xact_lock(x'666C7578'::int, 3589)"  # the fence
        )
        pg.configure(url=pg.postgres.url_with(statement_timeout="5s"))
        pg.succeed(command)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("SELECT 'flux: the history has changed 1'::int", id="constant"),
        pytest.param(
            "SELECT ('flux: the lock is busy ' || relname)::int FROM pg_class", id="computed"
        ),
        pytest.param("DO $$ BEGIN RAISE 'flux: the history has changed'; END $$", id="raised"),
    ],
)
def test_an_error_that_reads_like_one_of_fluxs_is_the_migrations(
    pg: PostgresProject, text: str
) -> None:
    """flux goes back to planning when its own checks fail; a file's error would do so for ever."""
    pg.add({"001.sql": text})
    assert "applying 001 failed: " in pg.fail("apply")


# Without a transaction ----------------------------------------------------------------------


def test_no_transaction_goes_statement_by_statement(pg: PostgresProject) -> None:
    """One message would be one transaction, in which none of these can run."""
    statements = [
        "CREATE INDEX CONCURRENTLY one ON t (body)",
        "CREATE UNIQUE INDEX CONCURRENTLY two ON t (body)",
        "CREATE INDEX CONCURRENTLY three ON t (lower(body))",
        "REINDEX TABLE CONCURRENTLY t",
        "DROP INDEX CONCURRENTLY one",
        "VACUUM t",
    ]
    pg.add({"001.sql": T, "002.sql": NO_TRANSACTION + ";\n".join(statements)})
    messages = [message.text for message in recorded_apply(pg)]
    assert [text for text in messages if text in statements] == statements
    assert pg.query(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
        "WHERE indrelid = 't'::regclass ORDER BY 1"
    ) == [("three", True), ("two", True)]
    assert pg.applied() == ["001", "002"]


def test_no_transaction_may_hold_what_a_transaction_may(pg: PostgresProject) -> None:
    pg.add(
        {
            "001.sql": NO_TRANSACTION
            + T
            + "COPY t FROM stdin;\na\n\\.\n"
            + "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES ('b'); COMMIT;\n"
            + "START TRANSACTION; INSERT INTO t VALUES ('c'); END;\n"
            + "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES ('d'); "
            + "COMMIT; END $$;\nCALL p();\n",
            "002.py": "# flux: no-transaction\ndef apply(connection):\n"
            "    with connection.cursor() as cursor:\n        cursor.execute('VACUUM t')\n",
        }
    )
    assert pg.apply().applied == ("001", "002")
    assert pg.query("SELECT * FROM t") == [("a",), ("b",), ("c",), ("d",)]


_MEND = "hint: mend it from statement {} on, and apply again: flux goes on there"


@pytest.mark.parametrize(
    ("text", "next_one", "state", "tables"),
    [
        pytest.param(
            "CREATE TABLE a ();\nCREATE TABLE b ();\nSELECT 1/0;\nCREATE TABLE c ();",
            3,
            "statements 1 to 2 of 4 took effect, statement 3 failed",
            ["a", "b"],
            id="in the middle",
        ),
        pytest.param(
            "CREATE TABLE a ();\nBEGIN;\nCREATE TABLE b ();\nSELECT 1/0;\nCOMMIT;",
            2,
            "statement 1 of 5 took effect, statement 4 failed",
            ["a"],
            id="in a transaction of its own",
        ),
    ],
)
def test_a_failure_without_a_transaction_says_how_far_it_came(
    pg: PostgresProject, text: str, next_one: int, state: str, tables: list[str]
) -> None:
    pg.add({"001.sql": NO_TRANSACTION + text})
    line = text[: text.index("SELECT")].count("\n") + 2
    assert pg.error() == (
        f"migrations/001.sql:{line}: applying 001 failed: division by zero\n"
        f"    {line} | SELECT 1/0;\n"
        f"{_MEND.format(next_one)}\n"
        f"state: it ran without a transaction: {state}, and 001 is not in the history"
    )
    assert (pg.tables(), pg.applied()) == (tables, [])


def test_a_transaction_left_open_is_an_error(pg: PostgresProject) -> None:
    pg.add({"001.sql": NO_TRANSACTION + "BEGIN;\nCREATE TABLE a ();\n"})
    assert pg.error() == (
        "migrations/001.sql:2:1: BEGIN without a COMMIT\n"
        "    2 | BEGIN;\n"
        "      | ^\n"
        "hint: put BEGIN; and COMMIT; around what belongs together, and remove what else there is"
    )
    assert (pg.tables(), pg.applied()) == ([], [])


# What files hold: it runs as psql would run it ----------------------------------------------

COPIED = """\
COPY t (body) FROM stdin;
a\\tb\\\\c\\\\.d
\\\\.
 \\\\.
\\\\.\\\\.
Größe 表 🦊
%s %(x)s 100%

\\N
; COMMIT; -- no statement
$$ ' " /*
\\.
"""
COPIED_ROWS = [
    ("a\tb\\c\\.d",),
    ("\\.",),
    (" \\.",),
    ("\\.\\.",),
    ("Größe 表 🦊",),
    ("%s %(x)s 100%",),
    ("",),
    (None,),
    ("; COMMIT; -- no statement",),
    ("$$ ' \" /*",),
]
COPIED_LATIN = "COPY t FROM stdin;\nöfter\n\\.\n"
VALUES = "SELECT body FROM t ORDER BY ctid"


@pytest.mark.parametrize(
    ("text", "query", "rows"),
    [
        pytest.param("", "SELECT 1", [(1,)], id="empty"),
        pytest.param(" \n;;\n;", "SELECT 1", [(1,)], id="semicolons"),
        pytest.param("-- nothing", "SELECT 1", [(1,)], id="line comment"),
        pytest.param("/* no; /* nested; */ */\n-- nor", "SELECT 1", [(1,)], id="comments"),
        pytest.param(
            T + "INSERT INTO t VALUES ('100% %s %(x)s %%');",
            VALUES,
            [("100% %s %(x)s %%",)],
            id="percent",
        ),
        pytest.param(
            T + """INSERT INTO t VALUES ('{"a":true} :word :1 $1 ?');-- :word""",
            VALUES,
            [('{"a":true} :word :1 $1 ?',)],
            id="colon",
        ),
        pytest.param(T + "INSERT INTO t VALUES ('a')", VALUES, [("a",)], id="no last semicolon"),
        pytest.param(
            T + "INSERT INTO t VALUES ('a') -- no newline; either",
            VALUES,
            [("a",)],
            id="a comment at the end",
        ),
        pytest.param(
            T + "INSERT INTO t VALUES ('a'); -- below; DO NOT EDIT.",
            VALUES,
            [("a",)],
            id="a comment after the end",
        ),
        pytest.param(
            T + "INSERT INTO t VALUES ('a') /* open; to the end */",
            VALUES,
            [("a",)],
            id="a block comment at the end",
        ),
        pytest.param(
            (T + "INSERT INTO t VALUES ('a\nb');\n-- why\n").replace("\n", "\r\n"),
            VALUES,
            [("a\nb",)],
            id="CRLF",
        ),
        pytest.param("\ufeff" + T, VALUES, [], id="BOM"),
        pytest.param(
            ("\ufeff" + T + COPIED).replace("\n", "\r\n"),
            VALUES,
            COPIED_ROWS,
            id="BOM, CRLF and COPY",
        ),
        pytest.param(
            T + f"INSERT INTO t VALUES ('{'é' * 75_000}');",
            "SELECT length(body) FROM t",
            [(75_000,)],
            id="a line of 150 kB",
        ),
        pytest.param(
            T + "INSERT INTO t VALUES ('a');\n" * 256,
            "SELECT count(*) FROM t",
            [(256,)],
            id="257 statements",
        ),
        pytest.param(
            "LOCK TABLE seen IN ACCESS EXCLUSIVE MODE;\n" + T, VALUES, [], id="LOCK TABLE"
        ),
        pytest.param(
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; "
            "SELECT CASE WHEN true THEN 2 END; END;\nCREATE TABLE t AS SELECT f() AS body",
            VALUES,
            [(2,)],
            id="BEGIN ATOMIC",
        ),
        pytest.param(
            "CREATE RULE r AS ON INSERT TO seen DO ALSO (SELECT 1; SELECT 2);" + T,
            VALUES,
            [],
            id="a rule of several statements",
        ),
        pytest.param(
            "DO $body$ BEGIN CREATE TABLE t (body text); EXECUTE $$INSERT INTO t VALUES (';')$$; "
            "END $body$;",
            VALUES,
            [(";",)],
            id="DO",
        ),
        pytest.param(
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\n"
            "SET TRANSACTION READ WRITE, DEFERRABLE;\nCREATE TABLE t AS "
            "SELECT current_setting('transaction_isolation') AS body",
            VALUES,
            [("serializable",)],
            id="SET TRANSACTION first",
        ),
        pytest.param(
            T + "SAVEPOINT a;\nINSERT INTO t VALUES ('no');\nROLLBACK TO a;\n"
            "INSERT INTO t VALUES ('yes');\nSAVEPOINT b;\nRELEASE SAVEPOINT b;\n"
            "ROLLBACK TRANSACTION TO SAVEPOINT a;INSERT INTO t VALUES ('at last');",
            VALUES,
            [("at last",)],
            id="savepoints",
        ),
        pytest.param(
            "CREATE MATERIALIZED VIEW m AS SELECT 1 AS x; CREATE UNIQUE INDEX ON m (x);\n"
            "REFRESH MATERIALIZED VIEW CONCURRENTLY m;",
            "SELECT x FROM m",
            [(1,)],
            id="REFRESH CONCURRENTLY, which may",
        ),
        pytest.param(
            "CREATE TABLE t (\"concurrently\" int, body text DEFAULT 'create index concurrently');"
            "INSERT INTO t VALUES (1); COMMENT ON TABLE t IS 'COMMIT; concurrently';",
            VALUES,
            [("create index concurrently",)],
            id="CONCURRENTLY that is none",
        ),
        pytest.param(T + COPIED, VALUES, COPIED_ROWS, id="COPY"),
        pytest.param(T + COPIED[:-1], VALUES, COPIED_ROWS, id="COPY without the last newline"),
        pytest.param(
            T
            + COPIED
            + "INSERT INTO t VALUES ('between');\n"
            + COPIED
            + "INSERT INTO t VALUES ('after');",
            VALUES,
            [*COPIED_ROWS, ("between",), *COPIED_ROWS, ("after",)],
            id="two COPY",
        ),
        pytest.param(
            T + "COPY t FROM stdin;\n\\.\n\n\nCOPY t FROM STDIN; -- why; not\n\\.\n"
            "INSERT INTO t VALUES ('a');",
            VALUES,
            [("a",)],
            id="empty COPY",
        ),
        pytest.param(
            T + "COPY t FROM stdin WITH (FORMAT csv, HEADER, FORCE_NULL (body));\nbody\n"
            '"a""\nb; -- \\."\n""\n\\.\nINSERT INTO t VALUES (\'end\')',
            VALUES,
            [('a"\nb; -- \\.',), (None,), ("end",)],
            id="COPY as CSV",
        ),
        pytest.param(
            "\\restrict kU0abc\n\nSET client_encoding = 'UTF8';\n"
            + T
            + COPIED
            + "\\unrestrict kU0abc\n\n",
            VALUES,
            COPIED_ROWS,
            id="restrict",
        ),
        pytest.param(
            T + "CREATE INDEX ON t (body); ANALYZE t;",
            VALUES,
            [],
            id="ANALYZE",
        ),
    ],
)
def test_text_runs_as_it_is(
    pg: PostgresProject, text: str, query: str, rows: list[tuple[object, ...]]
) -> None:
    """Applied once, valid afterwards, and undone by an undo that holds no statement."""
    pg.add({"000.sql": "CREATE TABLE seen ()", "001.sql": text, "001.undo.sql": "-- nothing\n"})
    assert pg.apply().applied == ("000", "001")
    assert pg.query(query) == rows
    assert pg.apply().steps == ()
    with pg.runner() as runner:
        assert runner.status().problems == ()
    assert pg.rollback().undone == ("001",)
    assert pg.applied() == ["000"]


@pytest.mark.parametrize("undo", ["", "\n-- nothing\n", "/* nothing */", ";"])
def test_an_undo_may_hold_no_statement(pg: PostgresProject, undo: str) -> None:
    pg.add({"001.sql": "", "001.undo.sql": undo})
    assert pg.apply().applied == ("001",)
    assert pg.rollback().undone == ("001",)
    assert pg.apply().applied == ("001",)


@pytest.mark.parametrize(
    "id",
    [
        pytest.param("2024.04.22 a b", id="dots and spaces"),
        pytest.param('001_it\'s 100% "Größe"', id="quotes and percent"),
        pytest.param("001_表;--", id="Unicode and semicolon"),
        pytest.param("001_a\\b", id="backslash"),
        pytest.param("001_" + "x" * 200, id="long"),
    ],
)
def test_any_file_name_is_an_id(pg: PostgresProject, id: str) -> None:
    try:
        pg.add({f"{id}.sql": T, f"{id}.undo.sql": "DROP TABLE t"})
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    assert pg.apply().applied == (id,)
    assert pg.applied() == [id]
    assert pg.apply().steps == ()
    assert pg.rollback().undone == (id,)


@pytest.mark.parametrize(
    ("opening", "closing", "isolation"),
    [
        pytest.param("BEGIN;", "COMMIT;", "read committed", id="BEGIN COMMIT"),
        pytest.param("-- why\n\nbegin work ;", "commit work", "read committed", id="WORK"),
        pytest.param("BEGIN TRANSACTION;", "END TRANSACTION;", "read committed", id="TRANSACTION"),
        pytest.param("START TRANSACTION;", "END; -- it", "read committed", id="START"),
        pytest.param("BEGIN ISOLATION LEVEL SERIALIZABLE;", "COMMIT;", "serializable", id="level"),
        pytest.param(
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE;",
            "COMMIT;",
            "repeatable read",
            id="START with a level",
        ),
        pytest.param(
            "BEGIN /* and */ WORK -- hard\nREAD WRITE, ISOLATION LEVEL SERIALIZABLE;",
            "COMMIT /* ; */ ;",
            "serializable",
            id="comments inside",
        ),
        pytest.param(
            "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;",
            "COMMIT;",
            "repeatable read",
            id="SET TRANSACTION inside",
        ),
    ],
)
def test_an_outermost_pair_is_the_transaction_of_flux(
    pg: PostgresProject, opening: str, closing: str, isolation: str
) -> None:
    """With its modes, and with the history row inside."""
    text = f"{opening}\nCREATE TABLE t AS SELECT current_setting('transaction_isolation') AS body;"
    pg.add({"001.sql": f"{text}\n{closing}"})
    pg.apply()
    assert pg.query(VALUES) == [(isolation,)]
    assert (
        len(pg.query("SELECT xmin::text FROM t UNION SELECT xmin::text FROM _flux_migrations")) == 1
    )
    pg.add({"002.sql": f"{opening}\nCREATE TABLE u ();\nSELECT 1/0;\n{closing}"})
    assert "division by zero" in pg.error()
    assert (pg.tables(), pg.applied()) == (["t"], ["001"])


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_default_isolation_level_is_not_that_of_migrations(
    pg: PostgresProject, level: str
) -> None:
    """In these a transaction has seen the history before it has waited for the fence."""
    pg.configure(url=pg.postgres.url_with(default_transaction_isolation=level))
    pg.add(
        {
            "001.sql": "CREATE TABLE t AS SELECT current_setting('transaction_isolation') AS body",
            "002.py": "def apply(connection):\n    connection.cursor().execute("
            "'INSERT INTO t SELECT setting FROM pg_settings WHERE name = %s', "
            "('transaction_isolation',))\n",
        }
    )
    pg.apply()
    assert pg.query(VALUES) == [("read committed",), ("read committed",)]


# What is refused before anything runs -------------------------------------------------------

CONTROL = (
    " inside a migration, which flux runs in a transaction of its own",
    "remove it, or run the whole file without a transaction: -- flux: no-transaction",
)
ALONE = (
    " cannot run inside a transaction",
    "run the whole file without a transaction: -- flux: no-transaction",
)
PSQL = (
    " is a command of psql, which the server does not know",
    "write what it does as SQL, or remove it",
)


@pytest.mark.parametrize(
    ("text", "place", "what", "why"),
    [
        pytest.param("SELECT 1;\n  COMMIT;", "2:3", "COMMIT", CONTROL, id="COMMIT"),
        pytest.param("BEGIN;\nSELECT 1;", "1:1", "BEGIN", CONTROL, id="BEGIN alone"),
        pytest.param("SELECT 1;\nstart transaction;", "2:1", "START", CONTROL, id="START"),
        pytest.param("SELECT 1; END", "1:11", "END", CONTROL, id="END"),
        pytest.param("SELECT 1; /* é */ ROLLBACK;", "1:19", "ROLLBACK", CONTROL, id="ROLLBACK"),
        pytest.param("SELECT 1;\nABORT;", "2:1", "ABORT", CONTROL, id="ABORT"),
        pytest.param(
            "SELECT 1;\nCOMMIT AND CHAIN;", "2:1", "COMMIT", CONTROL, id="COMMIT AND CHAIN"
        ),
        pytest.param(
            "SELECT 1;\nROLLBACK AND CHAIN;", "2:1", "ROLLBACK", CONTROL, id="ROLLBACK AND CHAIN"
        ),
        pytest.param(
            "SELECT 1;\nPREPARE TRANSACTION 'x';", "2:1", "PREPARE", CONTROL, id="PREPARE"
        ),
        pytest.param("COMMIT PREPARED 'x';", "1:1", "COMMIT", CONTROL, id="COMMIT PREPARED"),
        pytest.param(
            "BEGIN; SELECT 1; COMMIT;\nBEGIN; COMMIT;", "1:18", "COMMIT", CONTROL, id="two pairs"
        ),
        pytest.param(
            "CREATE INDEX CONCURRENTLY i ON t (x);",
            "1:1",
            "CREATE INDEX CONCURRENTLY",
            ALONE,
            id="CREATE INDEX CONCURRENTLY",
        ),
        pytest.param(
            "BEGIN;\ncreate unique index\n  concurrently if not exists i ON t (x);\nCOMMIT;",
            "2:1",
            "CREATE UNIQUE INDEX CONCURRENTLY",
            ALONE,
            id="in a pair",
        ),
        pytest.param(
            "DROP INDEX CONCURRENTLY i;", "1:1", "DROP INDEX CONCURRENTLY", ALONE, id="DROP INDEX"
        ),
        pytest.param(
            "REINDEX (VERBOSE) TABLE CONCURRENTLY t;",
            "1:1",
            "REINDEX VERBOSE TABLE CONCURRENTLY",
            ALONE,
            id="REINDEX",
        ),
        pytest.param(
            'ALTER TABLE a.b DETACH PARTITION "c".d CONCURRENTLY;',
            "1:1",
            "ALTER TABLE A B DETACH PARTITION D CONCURRENTLY",
            ALONE,
            id="DETACH PARTITION",
        ),
        pytest.param("VACUUM FULL t;", "1:1", "VACUUM", ALONE, id="VACUUM"),
        pytest.param("ALTER SYSTEM SET x = 1;", "1:1", "ALTER SYSTEM", ALONE, id="ALTER SYSTEM"),
        pytest.param("CREATE DATABASE x;", "1:1", "CREATE DATABASE", ALONE, id="CREATE DATABASE"),
        pytest.param("\\connect other\n", "1:1", "\\connect", PSQL, id="connect"),
        pytest.param("SELECT 1 \\gset\n", "1:10", "\\gset", PSQL, id="gset"),
        pytest.param("SELECT 1 \\echo it's\n", "1:10", "\\echo", PSQL, id="echo of a quote"),
        pytest.param("SELECT 1;\n\\i other.sql", "2:1", "\\i", PSQL, id="include"),
        pytest.param(
            "\\copy t FROM stdin\na\n\\.\n", "1:1", "\\copy", PSQL, id="copy by the client"
        ),
        pytest.param("\\restrict\n", "1:1", "\\restrict", PSQL, id="restrict without a key"),
        pytest.param(
            "COPY t TO STDOUT;",
            "1:1",
            "COPY",
            (" … TO STDOUT gives its rows to nobody in a migration", "remove it"),
            id="COPY TO STDOUT",
        ),
        pytest.param(
            "SELECT 1;\nSET standard_conforming_strings = off;",
            "2:1",
            "standard_conforming_strings = off",
            (
                " changes how the rest of the file is read",
                r"remove it, and write strings that hold a backslash as E'a\\b'",
            ),
            id="strings that are read in another way",
        ),
        pytest.param(
            "set session client_encoding to 'LATIN1';",
            "1:1",
            "client_encoding = latin1",
            (
                " changes how the rest of the file is read",
                "remove it: flux sends every file as UTF-8",
            ),
            id="an encoding",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(
    pg: PostgresProject, text: str, place: str, what: str, why: tuple[str, str]
) -> None:
    """With the file, line and column, and what to do instead."""
    pg.add({"000.sql": T, "001.sql": text})
    message, hint = why
    line, column = map(int, place.split(":"))
    expected = (
        f"migrations/001.sql:{place}: {what}{message}\n"
        f"    {line} | {text.splitlines()[line - 1].rstrip()}\n"
        f"      | {' ' * (column - 1)}^\n"
        f"hint: {hint}"
    )
    with pytest.raises(MigrationLoadingError) as caught:
        pg.apply()
    found = caught.value
    said = [str(found)] if not found.problems else [str(problem) for problem in found.problems]
    assert said[0] == expected
    assert (pg.tables(), pg.applied()) == ([], [])


def test_everything_that_is_refused_is_told_together(pg: PostgresProject) -> None:
    pg.add(
        {
            "001.sql": "BEGIN;\nCREATE TABLE a ();\nCOMMIT;\n"
            "CREATE INDEX CONCURRENTLY i ON a (x);\nBEGIN;\nCREATE TABLE b ();\nCOMMIT;\n",
            "001.undo.sql": "\\set x 1\nDROP INDEX CONCURRENTLY i",
            "002.sql": "SELECT 'open",
        }
    )
    error = pg.error()
    assert error.startswith("6 problems in what would run\n- migrations/001.sql:3:1: COMMIT inside")
    assert [line.split(" ")[1] for line in error.splitlines() if line.startswith("- ")] == [
        "migrations/001.sql:3:1:",
        "migrations/001.sql:4:1:",
        "migrations/001.sql:5:1:",
        "migrations/001.undo.sql:1:1:",
        "migrations/001.undo.sql:2:1:",
        "migrations/002.sql:1:8:",
    ]
    assert (pg.tables(), pg.applied()) == ([], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("DO $$ BEGIN COMMIT; END $$;", "invalid transaction termination", id="DO"),
        pytest.param(
            "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END';\nCALL p();",
            "invalid transaction termination",
            id="CALL",
        ),
    ],
)
def test_a_commit_that_is_hidden_fails_with_a_hint(
    pg: PostgresProject, text: str, message: str
) -> None:
    pg.add({"001.sql": T + text})
    error = pg.exception()
    assert isinstance(error, MigrationApplyError)
    assert f"applying 001 failed: {message}\n" in error.message + "\n"
    assert error.hint == "run the whole file without a transaction: -- flux: no-transaction"
    assert (pg.tables(), pg.applied()) == ([], [])


def test_what_cannot_run_in_a_transaction_and_was_not_foreseen_has_a_hint(
    pg: PostgresProject,
) -> None:
    pg.add({"001.sql": T + "DISCARD ALL"})
    assert pg.error() == (
        "migrations/001.sql:2: applying 001 failed: DISCARD ALL cannot run inside a transaction "
        "block\n"
        "    2 | DISCARD ALL\n"
        "hint: run the whole file without a transaction: -- flux: no-transaction\n"
        "state: rolled back; the database is as it was before 001"
    )


def test_an_enum_value_used_where_it_is_added(pg: PostgresProject) -> None:
    pg.add(
        {
            "001.sql": "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (body mood)",
            "002.sql": "ALTER TYPE mood ADD VALUE 'glad';\nINSERT INTO t VALUES ('glad');\n",
        }
    )
    assert pg.error() == (
        'migrations/002.sql:2:23: applying 002 failed: unsafe use of new value "glad" of enum '
        "type mood\n"
        "    2 | INSERT INTO t VALUES ('glad');\n"
        "      |                       ^\n"
        "hint: put the ALTER TYPE … ADD VALUE into a migration of its own, before this one; a new "
        "value can be used only when it is committed\n"
        "done before it: 001\n"
        "state: rolled back; the database is as it was before 002"
    )
    assert pg.query("SELECT enumlabel FROM pg_enum WHERE enumtypid = 'mood'::regtype") == [("sad",)]
    pg.add(
        {"002.sql": "ALTER TYPE mood ADD VALUE 'glad'", "003.sql": "INSERT INTO t VALUES ('glad')"}
    )
    assert pg.apply().applied == ("002", "003")


# The session's state ------------------------------------------------------------------------

LOOK = """
CREATE TABLE IF NOT EXISTS {schema}.seen (
    path text, role text, owner text, timeout text, custom text, temporary text);
INSERT INTO {schema}.seen SELECT current_setting('search_path'), current_user, session_user,
    current_setting('statement_timeout'), nullif(current_setting('flux.custom', true), ''),
    to_regclass('pg_temp.passing')::text;
"""
SETTINGS = [
    pytest.param("SET search_path = pg_catalog", id="search_path"),
    pytest.param("SELECT pg_catalog.set_config('search_path', '', false)", id="set_config"),
    pytest.param("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", id="characteristics"),
    pytest.param("SET statement_timeout = '59s'", id="statement_timeout"),
    pytest.param("SET ROLE pg_monitor", id="role"),
    pytest.param("SET SESSION AUTHORIZATION pg_monitor", id="session authorization"),
    pytest.param("SET client_min_messages = error", id="client_min_messages"),
    pytest.param("SET default_transaction_isolation = serializable", id="isolation"),
    pytest.param("SET flux.custom = 'x'", id="a setting of its own"),
    pytest.param("SELECT set_config('client_encoding', 'latin1', false)", id="client_encoding"),
    pytest.param("SET lc_messages = 'C.UTF-8'; SET DateStyle = German", id="DateStyle"),
    pytest.param("CREATE TEMP TABLE passing (x int PRIMARY KEY)", id="a temporary table"),
    pytest.param(
        "CREATE TEMP TABLE passing (x int); DECLARE c CURSOR WITH HOLD FOR SELECT * FROM passing; "
        "FETCH c",
        id="a temporary table with a cursor",
    ),
]


@pytest.mark.parametrize("directive", ["", NO_TRANSACTION], ids=["transaction", "none"])
@pytest.mark.parametrize("change", SETTINGS)
def test_session_state_does_not_reach_the_next_migration(
    pg: PostgresProject, change: str, directive: str
) -> None:
    """Each migration starts as the first one did, and flux's own rows are where they belong."""
    schema = pg.postgres.schema
    look = LOOK.format(schema=schema)
    if directive and "TEMP" in change:
        change = f"BEGIN; {change}; COMMIT"
    pg.add({"001.sql": look, "002.sql": f"{directive}{change};", "003.sql": look})
    pg.add({"004_größe.sql": "SELECT 1"})
    assert pg.apply().applied == ("001", "002", "003", "004_größe")
    assert len(pg.query("SELECT * FROM seen")) == 2
    assert len(pg.query("SELECT DISTINCT * FROM seen")) == 1
    assert pg.applied() == ["001", "002", "003", "004_größe"]


@pytest.mark.parametrize("directive", ["", NO_TRANSACTION], ids=["transaction", "none"])
@pytest.mark.parametrize("change", SETTINGS)
def test_session_state_of_a_failure_does_not_reach_what_runs_after_it(
    pg: PostgresProject, change: str, directive: str
) -> None:
    schema = pg.postgres.schema
    pg.configure("post_apply_on_failure = true")
    if directive and "TEMP" in change:
        change = f"BEGIN; {change}; COMMIT"
    pg.add(
        {
            "001.sql": LOOK.format(schema=schema),
            "002.sql": f"{directive}{change};\nSELECT 1/0",
            "post-apply/look.sql": LOOK.format(schema=schema),
        }
    )
    assert "applying 002 failed: " in pg.error()
    assert len(pg.query("SELECT * FROM seen")) == 2
    assert len(pg.query("SELECT DISTINCT * FROM seen")) == 1


def test_a_file_with_a_search_path_is_not_run_again(pg_alone: PostgresProject) -> None:
    """Not by the same run, nor by the next one, when it is the whole database's."""
    pg_alone.add(
        {
            "001.sql": "CREATE SCHEMA other; SET search_path = other; CREATE TABLE t ();",
            "002.sql": f"ALTER DATABASE {pg_alone.postgres.database} SET search_path = other;",
            "003.sql": "CREATE TABLE u ();",
        }
    )
    assert pg_alone.apply().applied == ("001", "002", "003")
    pg_alone.add({"004.sql": "CREATE TABLE v ();"})
    pg_alone.configure(url=pg_alone.postgres.server.url(pg_alone.postgres.database))
    assert pg_alone.apply().applied == ("004",)
    assert pg_alone.query(
        "SELECT schemaname, tablename FROM pg_tables "
        "WHERE schemaname IN ('public', 'other') ORDER BY 1, 2"
    ) == [("other", "t"), ("other", "v"), ("public", "_flux_migrations"), ("public", "u")]


def test_deferred_constraints_are_checked_under_the_migrations_own_settings(
    pg: PostgresProject,
) -> None:
    """At COMMIT, when the settings are back, their triggers would find other tables, or none."""
    pg.add(
        {
            "001.sql": f"""
                CREATE SCHEMA {pg.postgres.schema}_other;
                SET search_path = {pg.postgres.schema}_other;
                CREATE TABLE noted (x int);
                CREATE TABLE t (x int);
                CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN INSERT INTO noted VALUES (NEW.x); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER note AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION note();
                INSERT INTO t VALUES (1);
            """
        }
    )
    assert pg.apply().applied == ("001",)
    assert pg.query(f"SELECT x FROM {pg.postgres.schema}_other.noted") == [(1,)]
    pg.query(f"DROP SCHEMA {pg.postgres.schema}_other CASCADE")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_may_have_another_encoding(
    server: PostgresServer, pg: PostgresProject, encoding: str
) -> None:
    """flux sends UTF-8, and what is in the history is what is on disk."""
    database = f"{pg.postgres.schema}_{encoding.lower()}"
    pg.query(
        f"CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' "
        "LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    pg.configure(backend='migrations_schema = "größe"', url=server.url(database))
    pg.add({"001_größe.sql": T + "INSERT INTO t VALUES ('größe');\n", "002.sql": COPIED_LATIN})
    assert pg.apply().applied == ("001_größe", "002")
    assert pg.apply().steps == ()
    with closing(server.connect(database, client_encoding="utf8")) as open_one:
        cursor = open_one.cursor()
        cursor.execute(VALUES)
        assert cursor.fetchall() == [("größe",), ("öfter",)]
    pg.query(f"DROP DATABASE {database}")


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres"])
def test_the_history_can_be_read_in_any_date_style(pg: PostgresProject, style: str) -> None:
    """The driver reads ISO alone; and a history of flux-migrations 0.0.3 has no time zone."""
    pg.query(
        "CREATE TABLE _flux_migrations (id text PRIMARY KEY, hash text NOT NULL, "
        "applied_at timestamp NOT NULL DEFAULT current_timestamp)"
    )
    pg.query(f"INSERT INTO _flux_migrations VALUES ('000', '{'0' * 32}', '2024-02-01 10:00:00.1')")
    pg.configure(url=pg.postgres.url_with(DateStyle=style))
    with pg.runner() as runner:
        (row,) = runner.history()
        assert row.applied_at == datetime(2024, 2, 1, 10, 0, 0, 100_000)
        assert row.applied_at.tzinfo is None
    pg.query("DROP TABLE _flux_migrations")
    pg.add({"001.sql": "SELECT 1"})
    before = datetime.now(timezone.utc)
    with pg.runner() as runner:
        runner.apply_migrations()
        assert runner.status().rows[0].state == "applied"
        (row,) = runner.history()
    assert before <= row.applied_at <= datetime.now(timezone.utc)


# A real dump --------------------------------------------------------------------------------

WORLD = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'it''s; fine');
CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE shop.numbers START 7;
CREATE TABLE shop.person (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, mood shop.mood,
    born date DEFAULT '2000-01-01', extra jsonb, tags text[], raw bytea);
CREATE TABLE shop.book (
    id int PRIMARY KEY DEFAULT nextval('shop.numbers'), author int REFERENCES shop.person,
    title text) PARTITION BY RANGE (id);
CREATE TABLE shop.book_1 PARTITION OF shop.book FOR VALUES FROM (1) TO (100);
CREATE TABLE public."odd; name" ("a b" text);
CREATE TABLE public.nothing ();
CREATE FUNCTION shop.f(x int) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT 1; SELECT CASE WHEN x > 0 THEN x ELSE 0 END; END;
CREATE FUNCTION shop.g() RETURNS trigger LANGUAGE plpgsql AS
    $_$ BEGIN NEW.title := $q$;'$q$ || NEW.title; RETURN NEW; END $_$;
CREATE PROCEDURE shop.p() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
CREATE TRIGGER g BEFORE UPDATE ON shop.book FOR EACH ROW EXECUTE FUNCTION shop.g();
CREATE VIEW shop.authors AS SELECT name, count(*) FROM shop.person GROUP BY name;
CREATE MATERIALIZED VIEW shop.frozen AS SELECT * FROM shop.authors;
CREATE RULE r AS ON UPDATE TO shop.person DO ALSO (SELECT 1; SELECT 2);
CREATE INDEX ON shop.person (lower(name)) WHERE name <> ';';
ALTER TABLE shop.person ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.person USING (name = current_user);
COMMENT ON TABLE shop.person IS 'people; COMMIT; -- "all"';
INSERT INTO shop.person (name, mood, extra, tags, raw) VALUES
    ('Größe 表 🦊', 'sad', '{"a":true}', ARRAY['a,b', NULL, E'\\\\.'], '\\x00ff'),
    (E'tab\\there\\nand \\\\. there', NULL, NULL, '{}', NULL),
    ('\\.', 'it''s; fine', '1', NULL, '');
INSERT INTO shop.book (author, title) SELECT 1, repeat('long ', 30000);
INSERT INTO public."odd; name" VALUES ('100%'), (''), (NULL);
REFRESH MATERIALIZED VIEW shop.frozen;
"""


@pytest.fixture
def dumped_world(server: PostgresServer) -> str:
    """A dump of a database that holds a bit of everything."""
    with own_database(server) as place:
        place.query(WORLD)
        return dump(place)


def dump(place: Postgres, *options: str) -> str:
    """What the server's own pg_dump gives, without the random keys of its \\restrict lines."""
    program = own_program(place.server, "pg_dump")
    command = [str(program), *options, place.server.url(place.database)]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    return re.sub(r"(\\(un)?restrict) \S+", r"\1 key", done.stdout)


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_dump_is_a_migration(pg_alone: PostgresProject, dumped_world: str, ending: str) -> None:
    """A baseline by pg_dump, with COPY and \\restrict, gives the database that was dumped."""
    assert dumped_world.count("COPY ") == 4
    pg_alone.add({"001_baseline.sql": dumped_world.replace("\n", ending)})
    pg_alone.add({"002.sql": "CREATE TABLE later ()", "002.undo.sql": "DROP TABLE later"})
    assert pg_alone.apply().applied == ("001_baseline", "002")
    assert pg_alone.query("SELECT to_regclass('public.later')::text") == [("later",)]
    assert pg_alone.rollback().undone == ("002",)
    assert dump(pg_alone.postgres, "-T", "public._flux_migrations") == dumped_world


@pytest.mark.parametrize(
    "text",
    [
        "20240422_001_add-users",
        "",
        "--",
        "o'hara",
        "a\\b",
        "a\\'b",
        "1.2_v",
        "x%s",
        "jalapeño",
        "日",
    ],
)
def test_a_text_is_a_literal_of_the_same_text(pg: PostgresProject, text: str) -> None:
    """Whether it is quoted by the driver, or has nothing to quote."""
    with pg.runner() as runner:
        backend = runner.backend
        assert backend.fetch(f"SELECT {backend.literal(text)}::text") == [(text,)]
