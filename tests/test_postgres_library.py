"""flux inside an application: a connection that was handed in is left as it was found."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import psycopg.types.string
import psycopg2
import pytest
import sqlalchemy
import wrapt
from psycopg2 import extras

import flux
from flux import directory
from flux.exceptions import (
    ConnectionStateError,
    InvalidBackendError,
    MigrationApplyError,
    MigrationLoadingError,
)
from tests import driver
from tests.postgres_project import PostgresProject

NO_TRANSACTION = "-- flux: no-transaction\n"
HOSTILE = """
CREATE TABLE IF NOT EXISTS t ();
SET search_path = pg_catalog;
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = German;
SET statement_timeout = '77s';
SET lock_timeout = '77s';
SET default_transaction_isolation = 'repeatable read';
SET default_transaction_read_only = on;
SET client_min_messages = error;
SET standard_conforming_strings = on;
SELECT set_config('client_encoding', 'sql_ascii', false);
SET ROLE pg_monitor;
"""
PYTHON = """
def apply(connection):
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute("SET ROLE pg_monitor")
        cursor.execute("SET TimeZone = 'Asia/Tokyo'")
        cursor.execute("SET client_encoding = 'LATIN2'")
"""


def apply_over(connection: Any) -> tuple[str, ...]:
    """Apply over a connection that is handed in."""
    return flux.apply(connection, config="flux.toml").applied


@contextmanager
def connected(pg: PostgresProject, **options: Any) -> Iterator[Any]:
    """A connection as an application has it."""
    with closing(driver.connect(pg.postgres.url, **options)) as connection:
        yield connection


#: What an application may have changed of a connection itself.
ATTRIBUTES = {
    "psycopg2": "autocommit isolation_level readonly deferrable encoding cursor_factory status "
    "closed",
    "psycopg": "autocommit isolation_level read_only deferrable row_factory cursor_factory "
    "server_cursor_factory prepare_threshold prepared_max adapters closed",
}


def snapshot(connection: Any) -> dict[str, Any]:
    """Everything about a connection that an application may rely on. Leaves it idle."""
    found = {name: getattr(connection, name) for name in ATTRIBUTES[driver.NAME].split()}
    found["transaction"] = connection.info.transaction_status
    if driver.NAME == "psycopg2":
        found["notices"] = id(connection.notices), list(connection.notices)
    else:
        found["notices"] = connection.pgconn.notice_handler, list(connection._notice_handlers)
    with driver.plain_cursor(connection) as cursor:
        for query in (
            "SELECT name, setting FROM pg_settings WHERE source = 'session' "
            "AND name !~ '^transaction_' ORDER BY name",
            "SELECT current_user, session_user, current_setting('app.tenant', true), "
            "current_setting('transaction_isolation'), current_setting('transaction_read_only')",
            "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
            "SELECT name FROM pg_prepared_statements UNION SELECT name FROM pg_cursors "
            "WHERE is_holdable UNION SELECT pg_listening_channels() ORDER BY 1",
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        ):
            cursor.execute(query)
            found[query] = cursor.fetchall()
    if not connection.autocommit:
        connection.rollback()
    return found


def sql(text: str) -> Callable[[Any], None]:
    """Something that an application does to its connection by SQL."""

    def act(connection: Any) -> None:
        with driver.plain_cursor(connection) as cursor:
            cursor.execute(text)
        if not connection.autocommit:
            connection.commit()

    return act


def with_begin(connection: Any) -> None:
    connection.autocommit = True
    connection.cursor().execute("BEGIN")


def with_notices(connection: Any) -> None:
    connection.notices = deque(["an older one"], maxlen=10)


def having(**attributes: Any) -> Callable[[Any], None]:
    """What an application does to its connection by setting attributes."""

    def act(connection: Any) -> None:
        for name, value in attributes.items():
            setattr(connection, name, value)

    return act


def in_encoding(name: str) -> Callable[[Any], None]:
    """What an application does to change the encoding."""
    if driver.NAME == "psycopg2":
        return lambda connection: connection.set_client_encoding(name)
    return sql(f"SET client_encoding = '{name}'")


READ_ONLY = {"psycopg2": "readonly", "psycopg": "read_only"}[driver.NAME]
SERIALIZABLE = {"psycopg2": "SERIALIZABLE", "psycopg": psycopg.IsolationLevel.SERIALIZABLE}[
    driver.NAME
]
#: What an application may have done to a connection: in any driver, and in the one under test.
STATES = [
    pytest.param(having(), id="new"),
    pytest.param(having(autocommit=True), id="autocommit"),
    pytest.param(having(isolation_level=SERIALIZABLE), id="isolation level"),
    pytest.param(
        having(isolation_level=SERIALIZABLE, deferrable=True, autocommit=True),
        id="isolation level and autocommit",
    ),
    pytest.param(having(**{READ_ONLY: False}), id="read and write"),
    pytest.param(sql("SET search_path = information_schema, public"), id="search_path"),
    pytest.param(
        sql("SET TimeZone = 'Europe/Paris'; SET statement_timeout = '88s'; SET DateStyle = SQL"),
        id="settings",
    ),
    pytest.param(sql("SET app.tenant = 'it''s 7'"), id="a setting of its own"),
    pytest.param(sql("SET ROLE pg_database_owner"), id="role"),
    pytest.param(sql("SET SESSION AUTHORIZATION flux_app"), id="session authorization"),
    pytest.param(
        sql("SET SESSION AUTHORIZATION flux_app; SET ROLE flux_group"), id="role of another"
    ),
    pytest.param(
        sql(
            "CREATE TEMP TABLE mine (x int); PREPARE it AS SELECT 1; LISTEN channel; "
            "SELECT pg_advisory_lock(5); DECLARE c CURSOR WITH HOLD FOR SELECT * FROM mine"
        ),
        id="what a session has",
    ),
]
STATES += {
    "psycopg2": [
        pytest.param(in_encoding("LATIN1"), id="encoding"),
        pytest.param(with_notices, id="notices"),
        pytest.param(lambda c: c.notices.append("an older one"), id="an old notice"),
        pytest.param(having(cursor_factory=extras.RealDictCursor), id="cursor_factory"),
    ],
    "psycopg": [
        pytest.param(in_encoding("LATIN1"), id="encoding"),
        pytest.param(sql("SET client_encoding = 'SQL_ASCII'"), id="no encoding"),
        pytest.param(lambda c: c.add_notice_handler(repr), id="notices"),
        pytest.param(
            having(row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.ClientCursor),
            id="factories",
        ),
        pytest.param(having(prepare_threshold=0, prepared_max=1), id="prepares all"),
        pytest.param(
            lambda c: c.adapters.register_loader("bool", psycopg.types.string.TextLoader),
            id="adapters",
        ),
    ],
}[driver.NAME]


CONTENTS = [
    pytest.param("001.sql", "SELECT 1", id="harmless"),
    pytest.param("001.sql", HOSTILE, id="hostile"),
    pytest.param("001.sql", NO_TRANSACTION + HOSTILE, id="without a transaction"),
    pytest.param("001.sql", HOSTILE + "SELECT 1/0", id="failing"),
    pytest.param("001.sql", NO_TRANSACTION + HOSTILE + "SELECT 1/0", id="failing without"),
    pytest.param("001.py", PYTHON, id="Python"),
    pytest.param("001.py", PYTHON + "    raise ValueError\n", id="failing Python"),
]


def states_and_contents() -> Iterator[Any]:
    """The three contents that differ most for each state, and all for the two worst states."""
    for state in STATES:
        for content in CONTENTS:
            if content.id in ("hostile", "failing without", "Python") or state.id in (
                "isolation level and autocommit",
                "role of another",
            ):
                yield pytest.param(*state.values, *content.values, id=f"{state.id}: {content.id}")


@pytest.fixture
def app_roles(pg: PostgresProject) -> Iterator[None]:
    """An application's role, and one that it may take on; both may work in the test's schema."""
    pg.query("CREATE ROLE flux_app; CREATE ROLE flux_group; GRANT flux_group TO flux_app")
    pg.query("GRANT pg_monitor TO flux_app, flux_group")
    pg.query(f"GRANT ALL ON SCHEMA {pg.postgres.schema} TO PUBLIC")
    yield
    pg.query("DROP OWNED BY flux_app, flux_group CASCADE; DROP ROLE flux_app, flux_group")


@pytest.mark.parametrize(("prepare", "name", "content"), list(states_and_contents()))
@pytest.mark.usefixtures("app_roles")
def test_a_connection_is_left_as_it_was_found(
    pg: PostgresProject, prepare: Callable[[Any], None], name: str, content: str
) -> None:
    """Whatever the application has set, and whatever the migration sets or breaks."""
    if "CREATE TABLE" in content:
        content = content.replace(" t (", f" {pg.postgres.schema}.t (")
    pg.add({name: content})
    fails = "1/0" in content or "raise" in content
    with connected(pg) as connection:
        prepare(connection)
        before = snapshot(connection)
        if fails:
            with pytest.raises(MigrationApplyError):
                apply_over(connection)
        else:
            assert apply_over(connection) == ("001",)
            assert apply_over(connection) == ()
        assert snapshot(connection) == before
    assert pg.applied() == ([] if fails else ["001"])


#: A Python migration that sets what it can of its connection. No transaction may be open then.
SETS_ALL = {
    "psycopg2": """
    from psycopg2.extras import RealDictCursor
    connection.set_session("SERIALIZABLE", readonly=True, deferrable=True)
    connection.cursor_factory = RealDictCursor
    connection.notices = []
    connection.notifies = []
""",
    "psycopg": """
    import psycopg
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = connection.deferrable = True
    connection.row_factory = psycopg.rows.dict_row
    connection.cursor_factory = psycopg.ClientCursor
    connection.server_cursor_factory = type("Other", (psycopg.ServerCursor,), {})
    connection.prepare_threshold = connection.prepared_max = 1
    connection.add_notice_handler(repr)
    connection.add_notify_handler(repr)
""",
}[driver.NAME]
#: The next one, which finds the connection as it was.
FINDS = f"""
def apply(connection):
    names = {ATTRIBUTES[driver.NAME]!r}.split()
    found = [getattr(connection, name) for name in names if name not in ("adapters", "status")]
    with open("found", "a") as file:
        print(found, file=file)
"""


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
@pytest.mark.parametrize(
    ("head", "body", "failure"),
    [
        pytest.param("# flux: no-transaction\n", SETS_ALL, None, id="without a transaction"),
        pytest.param(
            "# flux: no-transaction\n",
            f"    connection.autocommit = False\n{SETS_ALL}",
            None,
            id="out of autocommit",
        ),
        pytest.param("", f"    connection.commit()\n{SETS_ALL}", "it ended", id="after commit()"),
        pytest.param(
            "",
            f"    connection.commit()\n{SETS_ALL}    connection.cursor().execute('SELECT 1')\n",
            "it ended",
            id="after commit(), and goes on",
        ),
    ],
)
def test_what_a_python_migration_sets_of_the_connection_ends_with_it(
    pg: PostgresProject, head: str, body: str, failure: str | None, handed_in: bool
) -> None:
    """It reaches neither the next migration nor the application."""
    pg.add({"001.py": FINDS, "002.py": f"{head}def apply(connection):\n{body}", "003.py": FINDS})
    with connected(pg) as connection:
        before = snapshot(connection)
        target = connection if handed_in else pg.postgres.url
        if failure is None:
            assert flux.apply(target, config="flux.toml").applied == ("001", "002", "003")
            first, second = (pg.root / "found").read_text().splitlines()
            assert first == second
        else:
            with pytest.raises(MigrationApplyError, match=failure):
                flux.apply(target, config="flux.toml")
        assert snapshot(connection) == before


FACTORIES = {
    "psycopg2": "    connection.cursor_factory = __import__('psycopg2.extras').extras.DictCursor\n"
    "    connection.notices = []\n",
    "psycopg": "    connection.row_factory = __import__('psycopg').rows.dict_row\n"
    "    connection.add_notice_handler(repr)\n",
}[driver.NAME]


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
def test_factories_that_a_python_migration_sets_end_with_it(
    pg: PostgresProject, handed_in: bool
) -> None:
    """They can be set within a transaction, so that the migration counts as applied."""
    pg.add({"001.py": FINDS, "002.py": f"def apply(connection):\n{FACTORIES}", "003.py": FINDS})
    with connected(pg) as connection:
        before = snapshot(connection)
        flux.apply(connection if handed_in else pg.postgres.url, config="flux.toml")
        assert snapshot(connection) == before
    first, second = (pg.root / "found").read_text().splitlines()
    assert first == second
    assert pg.applied() == ["001", "002", "003"]


def test_types_that_the_application_registered_do_not_reach_flux(pg: PostgresProject) -> None:
    """flux reads its own queries by itself: a text that is None would be no history."""
    pg.add({"001.sql": "SELECT 1", "post-apply/x.sql": "-- flux: on-change\nSELECT 1"})
    with closing(psycopg2.connect(pg.postgres.url)) as connection:
        for oid in (16, 18, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1043):
            odd = psycopg2.extensions.new_type((oid,), f"ODD{oid}", lambda *_: "odd'")
            psycopg2.extensions.register_type(odd, connection)
        assert apply_over(connection) == ("001",)
        pg.add(
            {
                "002.py": "def apply(c):\n    cursor = c.cursor()\n"
                "    cursor.execute('SELECT 1')\n    assert cursor.fetchone() == (\"odd'\",)\n"
            }
        )
        assert apply_over(connection) == ("002",)
    assert pg.applied() == ["001", "002"]


def test_notices_of_migrations_reach_the_application_and_fluxs_own_do_not(
    pg: PostgresProject,
) -> None:
    """Into whatever object it takes them with."""
    pg.add({"001.sql": "DO $$ BEGIN RAISE NOTICE 'hello'; END $$;\n" * 3, "002.sql": "SELECT 1"})
    with closing(psycopg2.connect(pg.postgres.url)) as connection:
        with_notices(connection)
        apply_over(connection)
        assert list(connection.notices) == ["an older one", *["NOTICE:  hello\n"] * 3]


_CANNOT_BE_SENT = (
    "failed: the character 表 (U+8868) cannot be sent: the connection's encoding, {}, does not "
    "have it\n"
)
_HAND_IN = "hint: hand in a connection whose client_encoding is UTF8\nstate: "


def test_text_that_the_connections_encoding_lacks_is_an_error(pg: PostgresProject) -> None:
    pg.add({"001_größe.sql": "CREATE TABLE t AS SELECT 'größe' AS x"})
    with connected(pg) as connection:
        in_encoding("LATIN1")(connection)
        assert apply_over(connection) == ("001_größe",)
        assert (pg.query("SELECT x FROM t"), pg.applied()) == ([("größe",)], ["001_größe"])
        pg.add({"002.sql": "CREATE TABLE u AS\n SELECT '表' AS x"})
        with pytest.raises(MigrationApplyError) as caught:
            apply_over(connection)
        assert str(caught.value) == (
            f"migrations/002.sql:2:10: applying 002 {_CANNOT_BE_SENT}".format("latin-1")
            + "    2 |  SELECT '表' AS x\n      |          ^\n"
            + _HAND_IN
            + "rolled back; the database is as it was before 002"
        )
        assert pg.tables() == ["t"]


@pytest.mark.parametrize(("encoding", "codec"), [("LATIN1", "latin-1"), ("SQL_ASCII", "ascii")])
@pytest.mark.parametrize(
    ("content", "place", "state"),
    [
        pytest.param(
            "CREATE TABLE u (x text);\nCOPY u FROM stdin;\na\n表\n\\.\n",
            ":2",
            "rolled back; the database is as it was before 001",
            id="rows of a COPY",
        ),
        pytest.param(
            NO_TRANSACTION + "CREATE TABLE u ();\nCREATE TABLE v AS SELECT '表';",
            ":3:27",
            "it ran without a transaction: statement 1 of 2 took effect, statement 2 failed, and "
            "001 is not in the history",
            id="without a transaction",
        ),
    ],
)
def test_a_character_that_cannot_be_sent_is_found(
    pg: PostgresProject, encoding: str, codec: str, content: str, place: str, state: str
) -> None:
    pg.add({"001.sql": content})
    with connected(pg) as connection:
        in_encoding(encoding)(connection)
        with pytest.raises(MigrationApplyError) as caught:
            apply_over(connection)
    lines = str(caught.value).splitlines(keepends=True)
    assert "".join(line for line in lines if " |" not in line) == (
        f"migrations/001.sql{place}: applying 001 {_CANNOT_BE_SENT}".format(codec)
        + _HAND_IN
        + state
    )


def test_a_name_that_cannot_be_sent_is_an_error(pg: PostgresProject) -> None:
    pg.add({"001_表.sql": "SELECT 1"})
    with connected(pg) as connection:
        in_encoding("LATIN1")(connection)
        with pytest.raises(MigrationApplyError) as caught:
            apply_over(connection)
    assert str(caught.value) == (
        f"migrations/001_表.sql: applying 001_表 {_CANNOT_BE_SENT}".format("latin-1")
        + _HAND_IN
        + "rolled back; the database is as it was before 001_表"
    )


# What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(
            lambda c: c.cursor().execute("SELECT 1"),
            "this connection is inside a transaction, which a migration would commit\n"
            "hint: commit or roll back before handing it to flux",
            id="inside a transaction",
        ),
        pytest.param(
            with_begin,
            "this connection is inside a transaction, which a migration would commit\n"
            "hint: commit or roll back before handing it to flux",
            id="inside one by SQL",
        ),
        pytest.param(lambda c: c.close(), "this connection is closed", id="closed"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(
    pg: PostgresProject, prepare: Callable[[Any], None], message: str
) -> None:
    """And what the application was doing in it goes on."""
    pg.add({"001.sql": "CREATE TABLE t ()"})
    with connected(pg) as connection:
        connection.cursor()
        prepare(connection)
        status = None if connection.closed else connection.info.transaction_status
        with pytest.raises(ConnectionStateError) as caught:
            apply_over(connection)
        assert str(caught.value) == message
        assert status == (None if connection.closed else connection.info.transaction_status)
    assert (pg.tables(), pg.applied()) == ([], [])


def test_an_aborted_transaction_is_refused(pg: PostgresProject) -> None:
    with connected(pg) as connection:
        with pytest.raises(connection.Error):
            connection.cursor().execute("SELECT nope")
        with pytest.raises(ConnectionStateError, match="inside a transaction"):
            apply_over(connection)


def test_an_asynchronous_connection_is_refused(pg: PostgresProject) -> None:
    connection = psycopg2.connect(pg.postgres.url, async_=True)
    with closing(connection):
        extras.wait_select(connection)
        with pytest.raises(ConnectionStateError) as caught:
            apply_over(connection)
        assert str(caught.value) == "this connection is asynchronous, and flux is not"


def test_something_that_is_no_connection_is_refused(pg: PostgresProject) -> None:
    with pytest.raises(InvalidBackendError) as caught:
        apply_over(print)
    assert str(caught.value) == (
        "flux does not know this kind of connection: builtins.builtin_function_or_method\n"
        "hint: hand in a sqlite3, psycopg2 or psycopg connection, or the database's address"
    )


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_read_only_connection_changes_nothing(pg: PostgresProject, autocommit: bool) -> None:
    """The drivers write that into their own BEGIN alone; flux's is no way around it."""
    pg.add({"001.sql": "CREATE TABLE t ()"})
    with connected(pg) as connection:
        having(**{READ_ONLY: True}, autocommit=autocommit)(connection)
        before = snapshot(connection)
        with pytest.raises(flux.exceptions.DatabaseUnavailableError, match="read-only"):
            apply_over(connection)
        assert snapshot(connection) == before
    assert pg.applied() == []


# Wrapped ------------------------------------------------------------------------------------


@pytest.fixture
def engine(pg: PostgresProject) -> Iterator[sqlalchemy.Engine]:
    """SQLAlchemy's, over the driver under test."""
    engine = sqlalchemy.create_engine(pg.postgres.url.replace(":", f"+{driver.NAME}:", 1))
    yield engine
    engine.dispose()


def test_a_connection_of_sqlalchemys(pg: PostgresProject, engine: sqlalchemy.Engine) -> None:
    """Before and after flux it works as SQLAlchemy's; inside a transaction of its it is refused."""
    pg.add({"001.sql": "CREATE TABLE t AS SELECT '100%' AS x"})
    with engine.connect() as connection:
        assert apply_over(connection) == ("001",)
        assert connection.execute(sqlalchemy.text("SELECT x FROM t")).scalar() == "100%"
        with pytest.raises(ConnectionStateError, match="inside a transaction"):
            apply_over(connection)
        connection.rollback()
        assert apply_over(connection) == ()
    assert pg.applied() == ["001"]


def test_a_raw_connection_of_sqlalchemys(pg: PostgresProject, engine: sqlalchemy.Engine) -> None:
    pg.add({"001.sql": "CREATE TABLE t ()"})
    raw = engine.raw_connection()
    try:
        assert apply_over(raw) == ("001",)
    finally:
        raw.close()
    assert pg.applied() == ["001"]


@pytest.mark.parametrize("levels", [1, 3])
def test_a_connection_in_a_tracers_proxy(pg: PostgresProject, levels: int) -> None:
    pg.add({"001.sql": "CREATE TABLE t ()", "002.py": PYTHON})
    with connected(pg) as connection:
        proxy: Any = connection
        for _ in range(levels):
            proxy = wrapt.ObjectProxy(proxy)
        assert apply_over(proxy) == ("001", "002")
    assert pg.applied() == ["001", "002"]


OTHER_CLASSES = {
    "psycopg2": [
        pytest.param({"connection_factory": factory}, id=factory.__name__)
        for factory in (
            extras.RealDictConnection,
            extras.NamedTupleConnection,
            extras.DictConnection,
        )
    ],
    "psycopg": [
        pytest.param({"row_factory": factory}, id=factory.__name__)
        for factory in (psycopg.rows.dict_row, psycopg.rows.namedtuple_row)
    ],
}


@pytest.mark.parametrize("options", OTHER_CLASSES[driver.NAME])
def test_a_connection_that_gives_other_rows(pg: PostgresProject, options: Any) -> None:
    """Its cursors give other rows; a Python migration gets those, and flux has its own."""
    pg.add(
        {
            "001.sql": "CREATE TABLE t ()",
            "post-apply/x.sql": "-- flux: on-change\nSELECT 1",
            "002.py": "def apply(connection):\n    with connection.cursor() as cursor:\n"
            "        cursor.execute('SELECT 1 AS x')\n        row = cursor.fetchone()\n"
            "        assert type(row) is not tuple, row\n",
        }
    )
    with connected(pg, **options) as connection:
        assert apply_over(connection) == ("001", "002")
        assert apply_over(connection) == ()


# Python migrations and the transaction ------------------------------------------------------

ENDED = (
    "migrations/002.py: applying 002 failed: it ended the transaction that flux runs it in\n"
    "hint: leave commit and rollback to flux, or run it without a transaction: no-transaction\n"
    "done before it: 001\n"
    "state: what it committed is in the database, and the history does not say so"
)


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
@pytest.mark.parametrize(
    ("body", "tables"),
    [
        pytest.param("cursor.execute('COMMIT')", ["a", "t"], id="COMMIT"),
        pytest.param("cursor.execute('COMMIT; BEGIN')", ["a", "t"], id="COMMIT and BEGIN"),
        pytest.param("cursor.execute('COMMIT AND CHAIN')", ["a", "t"], id="COMMIT AND CHAIN"),
        pytest.param("cursor.execute('ROLLBACK')", ["a"], id="ROLLBACK"),
        pytest.param("connection.commit()", ["a", "t"], id="commit()"),
        pytest.param("connection.rollback()", ["a"], id="rollback()"),
        pytest.param(
            "connection.commit(); connection.autocommit = True", ["a", "t"], id="autocommit"
        ),
        pytest.param(
            "connection.commit(); cursor.execute('CREATE TABLE u ()'); connection.commit()",
            ["a", "t", "u"],
            id="commit() twice",
        ),
        pytest.param(
            "connection.rollback(); cursor.execute('CREATE TABLE u ()')", ["a"], id="and goes on"
        ),
        pytest.param(
            "connection.__enter__(); connection.__exit__(None, None, None)",
            ["a", "t"],
            id="with connection",
            marks=pytest.mark.skipif(driver.NAME == "psycopg", reason="psycopg 3 closes it then"),
        ),
    ],
)
def test_a_python_migration_that_ends_the_transaction_is_noticed(
    pg: PostgresProject, body: str, tables: list[str], handed_in: bool
) -> None:
    """Before its row is written; and what comes after it does not run."""
    pg.add(
        {
            "001.sql": "CREATE TABLE a ()",
            "002.py": "def apply(connection):\n    cursor = connection.cursor()\n"
            f"    cursor.execute('CREATE TABLE t ()')\n    {body}\n",
            "003.sql": "CREATE TABLE never ()",
        }
    )
    with connected(pg) as connection:
        before = snapshot(connection)
        with pytest.raises(MigrationApplyError) as caught:
            flux.apply(connection if handed_in else pg.postgres.url, config="flux.toml")
        # The server's warnings are for the application to see.
        assert snapshot(connection) | {"notices": None} == before | {"notices": None}
    assert str(caught.value) == ENDED
    assert (pg.tables(), pg.applied()) == (tables, ["001"])


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
@pytest.mark.parametrize(
    ("ending", "tables"),
    [
        pytest.param("connection.commit()", ["a", "t"], id="commit()"),
        pytest.param("cursor.execute('COMMIT')", ["a", "t"], id="COMMIT"),
        pytest.param("cursor.execute('COMMIT; BEGIN')", ["a", "t"], id="COMMIT and BEGIN"),
    ],
)
def test_a_python_migration_that_commits_and_then_fails_tells_of_both(
    pg: PostgresProject, ending: str, tables: list[str], handed_in: bool
) -> None:
    """Nothing says that it was rolled back: its table is there."""
    pg.add(
        {
            "001.sql": "CREATE TABLE a ()",
            "002.py": "def apply(connection):\n    cursor = connection.cursor()\n"
            f"    cursor.execute('CREATE TABLE t ()')\n    {ending}\n"
            "    raise ValueError('no')\n",
        }
    )
    with connected(pg) as connection, pytest.raises(MigrationApplyError) as caught:
        flux.apply(connection if handed_in else pg.postgres.url, config="flux.toml")
    first, _, rest = ENDED.partition("\n")
    assert str(caught.value) == (
        first.replace("002.py:", "002.py:5:")
        + f", and then failed: ValueError: no\n    5 |     raise ValueError('no')\n{rest}"
    )
    assert (pg.tables(), pg.applied()) == (tables, ["001"])


COPIES = {
    "psycopg2": 'cursor.copy_expert("COPY t FROM stdin", StringIO("1\\n2\\n3\\n"))',
    "psycopg": 'with cursor.copy("COPY t FROM stdin") as rows: rows.write("1\\n2\\n3\\n")',
}


def test_a_python_migration_has_what_the_driver_gives(pg: PostgresProject) -> None:
    """Savepoints, parameters, named cursors and COPY, all in the transaction of its row."""
    pg.add(
        {
            "001.py": """
from io import StringIO

def apply(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x int)")
        COPY
        cursor.execute("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s")
        cursor.execute("INSERT INTO t VALUES (%s)", (4,))
    with connection.cursor("backfill") as rows, connection.cursor() as cursor:
        rows.itersize = 2
        rows.execute("SELECT x FROM t ORDER BY x")
        for (x,) in rows:
            cursor.execute("INSERT INTO t VALUES (%s)", (x * 10,))
""".replace("COPY", COPIES[driver.NAME])
        }
    )
    assert pg.apply().applied == ("001",)
    assert pg.query("SELECT array_agg(x ORDER BY x) FROM t") == [([1, 2, 3, 4, 10, 20, 30, 40],)]
    assert (
        len(pg.query("SELECT xmin::text FROM t UNION SELECT xmin::text FROM _flux_migrations")) == 1
    )


@pytest.mark.parametrize("directive", ["", "# flux: no-transaction\n"])
@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            "connection.cursor().execute(\"SET client_encoding = 'LATIN1'\")", id="by SQL"
        ),
        pytest.param(
            "connection.set_client_encoding('LATIN1')",
            id="by the driver",
            marks=pytest.mark.skipif(driver.NAME == "psycopg", reason="psycopg 3 has no such way"),
        ),
    ],
)
def test_an_encoding_set_by_a_python_migration_does_not_reach_the_history(
    pg: PostgresProject, change: str, handed_in: bool, directive: str
) -> None:
    """Its id would be written as other letters, and it would run again."""
    ids = ("001_größe", "002_größe")
    pg.add({"001_größe.py": f"{directive}def apply(connection):\n    {change}\n"})
    pg.add({"002_größe.sql": "CREATE TABLE größe ()"})
    with connected(pg) as connection:
        database = connection if handed_in else pg.postgres.url
        if "set_client" in change and not directive:  # for which the driver rolls back
            with pytest.raises(MigrationApplyError, match="it ended the transaction"):
                flux.apply(database, config="flux.toml")
            assert pg.applied() == []
            pg.add({"001_größe.py": "def apply(connection):\n    pass\n"})
        assert flux.apply(database, config="flux.toml").applied == ids
        assert flux.apply(database, config="flux.toml").applied == ()
    assert (pg.tables(), pg.applied()) == (["größe"], list(ids))


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
def test_a_python_migration_that_closes_the_connection_fails(
    pg: PostgresProject, handed_in: bool
) -> None:
    pg.add(
        {
            "001.py": "def apply(connection):\n"
            "    connection.cursor().execute('CREATE TABLE t ()')\n    connection.close()\n"
        }
    )
    with connected(pg) as connection, pytest.raises(MigrationApplyError) as caught:
        flux.apply(connection if handed_in else pg.postgres.url, config="flux.toml")
    says = {
        "psycopg2": "InterfaceError: connection already closed",
        "psycopg": "OperationalError: the connection is closed",
    }
    assert str(caught.value) == (
        f"migrations/001.py: applying 001 failed: {says[driver.NAME]}\n"
        "state: rolled back; the database is as it was before 001"
    )
    assert (pg.tables(), pg.applied()) == ([], [])


def test_the_directory_is_listed_once_while_it_connects(
    pg: PostgresProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the names of thousands of files take no time of their own."""
    listed: list[str] = []
    list_files = directory.list_files

    def note(path: str) -> directory.Listing:
        listed.append("connected" if runner.backend.dbapi else "connecting")
        return list_files(path)

    monkeypatch.setattr(directory, "list_files", note)
    pg.add({"1_a.sql": "CREATE TABLE a ();"})
    runner = pg.runner()
    with runner:
        assert runner.apply_migrations().applied == ("1_a",)
    assert listed == ["connecting" if driver.NAME == "psycopg2" else "connected"]


def test_what_is_added_while_a_runner_is_open_is_seen(pg: PostgresProject) -> None:
    """Though the directory was listed while the runner connected."""
    pg.add({"1_a.sql": "CREATE TABLE a ();"})
    with pg.runner() as runner:
        pg.add({"2_b.sql": "CREATE TABLE b ();"})
        assert runner.apply_migrations().applied == ("1_a", "2_b")


def test_a_broken_directory_is_told_behind_what_the_database_says(pg: PostgresProject) -> None:
    """It is listed while the runner connects, and refused when it is read."""
    (pg.root / "migrations").rmdir()
    with pg.runner() as runner:
        assert runner.history() == ()
        with pytest.raises(MigrationLoadingError, match="no such migration directory"):
            runner.status()
