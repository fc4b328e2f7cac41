"""Which driver flux takes on PostgreSQL, and what psycopg 3 has that psycopg2 has not.

All that the two have in common is tested by the other files, with the one that FLUX_TEST_DRIVER
names.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import psycopg2
import pytest
import wrapt
from psycopg.types.string import TextLoader

import flux
from flux.exceptions import (
    ConnectionStateError,
    MigrationApplyError,
)
from tests.flux_process import flux_environment
from tests.postgres_project import PostgresProject

NO_TRANSACTION = "-- flux: no-transaction\n"
#: A Python migration that says whose connection it is given.
WHOSE = "def apply(connection):\n    assert type(connection).__module__ == {!r}, connection\n"
MODULES = {"psycopg2": "psycopg2.extensions", "psycopg": "psycopg"}


@pytest.fixture
def connection(pg: PostgresProject) -> Iterator[psycopg.Connection[Any]]:
    """A connection of psycopg 3, as an application has it."""
    with closing(psycopg.connect(pg.postgres.url)) as connection:
        yield connection


def apply_over(connection: Any) -> tuple[str, ...]:
    """Apply over a connection that is handed in."""
    return flux.apply(connection, config="flux.toml").applied


# Which driver -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
def test_the_configuration_decides(pg: PostgresProject, name: str) -> None:
    """Whatever the address says."""
    other = {"psycopg": "psycopg2", "psycopg2": "psycopg"}[name]
    url = pg.postgres.url.replace(":", f"+{other}:", 1)
    pg.configure(backend=f'driver = "{name}"', url=url)
    pg.add({"001.py": WHOSE.format(MODULES[name])})
    assert pg.apply().applied == ("001",)


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
def test_a_connection_that_is_handed_in_decides(pg: PostgresProject, name: str) -> None:
    """Also for the connections beside it, and whatever the configuration says."""
    other = {"psycopg": "psycopg2", "psycopg2": "psycopg"}[name]
    pg.configure(backend=f'driver = "{other}"')
    pg.add({"001.py": WHOSE.format(MODULES[name])})
    driver: Any = {"psycopg2": psycopg2, "psycopg": psycopg}[name]
    with closing(driver.connect(pg.postgres.url)) as connection:
        assert apply_over(connection) == ("001",)


#: A program in which modules cannot be imported, as if they were not installed.
_WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.partition(".")[0] in sys.argv[1].split(",")
        return None if missing else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from flux.cli import main
code = main(sys.argv[2:])
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"psycopg", "psycopg2"}))
sys.exit(code)
"""


def without(pg: PostgresProject, missing: str, *arguments: str) -> tuple[int, list[str], str]:
    """Run flux where modules are missing: its exit code, the drivers it imported, its errors."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, missing, *arguments],
        cwd=pg.root,
        env=flux_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()[-1].split(), done.stderr


@pytest.mark.parametrize(
    ("missing", "setting", "imported"),
    [
        pytest.param("", "", ["psycopg2"], id="both"),
        pytest.param("psycopg2", "", ["psycopg"], id="psycopg 3 alone"),
        pytest.param("psycopg", "", ["psycopg2"], id="psycopg2 alone"),
        pytest.param("", 'driver = "psycopg"', ["psycopg"], id="as it is set"),
    ],
)
def test_the_driver_that_is_installed_and_no_other_is_imported(
    pg: PostgresProject, missing: str, setting: str, imported: list[str]
) -> None:
    """psycopg2 first. `driver` in a comment keeps the fixture from setting one."""
    pg.configure(backend=setting or "# driver")
    pg.add({"001.sql": "CREATE TABLE t ()"})
    assert without(pg, missing, "apply", "-y") == (0, imported, "")
    assert pg.tables() == ["t"]


@pytest.mark.parametrize(
    ("missing", "name", "message"),
    [
        pytest.param(
            "psycopg2,psycopg",
            "psycopg",
            "error: the driver of the backend 'postgres' is not installed: No module named "
            "'psycopg2' or 'psycopg'\nhint: pip install \"flux-migrations[postgres]\"\n",
            id="none",
        ),
        pytest.param(
            "psycopg",
            "psycopg",
            "error: the driver psycopg cannot be imported: No module named 'psycopg'\n"
            'hint: pip install "flux-migrations[psycopg]"\n',
            id="psycopg",
        ),
        pytest.param(
            "psycopg2",
            "psycopg2",
            "error: the driver psycopg2 cannot be imported: No module named 'psycopg2'\n"
            'hint: pip install "flux-migrations[postgres]"\n',
            id="psycopg2",
        ),
    ],
)
def test_a_driver_that_is_missing(
    pg: PostgresProject, missing: str, name: str, message: str
) -> None:
    pg.configure(backend=f'driver = "{name}"')
    code, _, error = without(pg, missing, "status")
    assert (code, error[: len(message)]) == (2, message)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_driver_that_is_broken(pg: PostgresProject, command: str) -> None:
    """Whatever its import raises is told with its name, and doctor goes on to its last line."""
    pg.configure(backend='driver = "psycopg2"')
    pg.write("broken/psycopg2/__init__.py", "raise RuntimeError('half installed')\n")
    done = pg.run(command, env={"PYTHONPATH": str(pg.root / "broken")})
    assert done.code == 2
    assert "the driver psycopg2 cannot be imported: half installed" in done.out + done.err
    assert ("1 problem" in done.out) == (command == "doctor")


def test_a_driver_that_there_is_not(pg: PostgresProject) -> None:
    pg.configure(backend='driver = "psycopg3"')
    assert pg.fail("status", code=2) == (
        'error: flux.toml: driver in [backend] must be "psycopg2" or "psycopg"\n'
    )


# Connections that are handed in -------------------------------------------------------------


def test_a_pipeline_is_refused(pg: PostgresProject, connection: Any) -> None:
    with connection.pipeline(), pytest.raises(ConnectionStateError) as caught:
        apply_over(connection)
    assert str(caught.value) == (
        "this connection is in pipeline mode, in which a message is one statement\n"
        "hint: leave the block of connection.pipeline() before handing it to flux"
    )


def test_a_block_of_transaction_is_refused(pg: PostgresProject, connection: Any) -> None:
    with connection.transaction(), pytest.raises(ConnectionStateError, match="inside a trans"):
        apply_over(connection)


def test_an_asynchronous_connection_is_refused(pg: PostgresProject) -> None:
    async def hand_it_in() -> None:
        async with await psycopg.AsyncConnection.connect(pg.postgres.url) as connection:
            apply_over(connection)

    with pytest.raises(ConnectionStateError) as caught:
        asyncio.run(hand_it_in())
    assert str(caught.value) == "this connection is asynchronous, and flux is not"


def test_notices_of_migrations_reach_the_application_and_fluxs_own_do_not(
    pg: PostgresProject, connection: Any
) -> None:
    pg.add({"001.sql": "DO $$ BEGIN RAISE NOTICE 'hello'; END $$;\n" * 3, "002.sql": "SELECT 1"})
    heard: list[str] = []
    connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    assert apply_over(connection) == ("001", "002")
    assert heard == ["hello"] * 3


def test_a_connection_that_reads_numbers_as_texts(pg: PostgresProject, connection: Any) -> None:
    """flux reads its own queries by itself: a false that is a text would be true."""
    for name in ("bool", "int4", "int8", "float8"):
        connection.adapters.register_loader(name, TextLoader)
    pg.add({"001.sql": "SELECT 1", "post-apply/x.sql": "-- flux: on-change\nSELECT 1"})
    assert apply_over(connection) == ("001",)
    pg.add({"002.py": "def apply(c):\n    assert c.execute('SELECT 1').fetchone() == ('1',)\n"})
    assert apply_over(connection) == ("002",)


@pytest.mark.parametrize("directive", ["", "# flux: no-transaction\n"])
def test_what_flux_sends_is_never_prepared(
    pg: PostgresProject, connection: Any, directive: str
) -> None:
    """Neither is what a Python migration sends over a connection of flux's own."""
    seen = "SELECT count(*) FROM pg_prepared_statements"
    body = "".join(f"    connection.execute('{seen}')\n" for _ in range(9))
    body += f"    assert connection.execute('{seen}').fetchone() == (0,)\n"
    pg.configure(backend='driver = "psycopg"')
    pg.add({f"{number:03}.sql": "SELECT 1" for number in range(9)})
    pg.add({"100.py": f"{directive}def apply(connection):\n{body}"})
    assert pg.apply().applied[-1] == "100"
    connection.prepare_threshold = 0
    pg.add({"200.sql": "SELECT 1", "201.sql": NO_TRANSACTION + "SELECT 1"})
    assert apply_over(connection) == ("200", "201")
    connection.prepare_threshold = None
    assert connection.execute(seen).fetchone() == (0,)


def test_a_connection_of_a_wrapper(pg: PostgresProject, connection: Any) -> None:
    pg.add({"001.py": WHOSE.format("psycopg")})
    assert apply_over(wrapt.ObjectProxy(connection)) == ("001",)


def test_a_python_migration_in_blocks_of_transaction(pg: PostgresProject) -> None:
    """They are savepoints in flux's own."""
    pg.configure(backend='driver = "psycopg"')
    pg.add(
        {
            "001.py": "def apply(connection):\n"
            "    connection.execute('CREATE TABLE t (x int)')\n"
            "    with connection.transaction():\n"
            "        connection.execute('INSERT INTO t VALUES (1)')\n"
            "    with connection.transaction(force_rollback=True):\n"
            "        connection.execute('INSERT INTO t VALUES (2)')\n"
        }
    )
    assert pg.apply().applied == ("001",)
    assert pg.query("SELECT x FROM t") == [(1,)]


def test_a_python_migration_that_works_in_with_connection(pg: PostgresProject) -> None:
    """Its end commits and closes the connection; that it committed is told."""
    pg.configure(backend='driver = "psycopg"')
    pg.add(
        {
            "001.py": "def apply(connection):\n    with connection:\n"
            "        connection.execute('CREATE TABLE t ()')\n"
        }
    )
    with pytest.raises(MigrationApplyError) as caught:
        pg.apply()
    assert "it ended the transaction that flux runs it in" in str(caught.value)
    assert (pg.tables(), pg.applied()) == (["t"], [])


# On the wire --------------------------------------------------------------------------------


def test_the_server_gets_the_same_messages_from_both_drivers(pg: PostgresProject) -> None:
    """By the simple protocol, each in one piece: `execute` in its log is of another one.

    But for numbers, and for how a text with a backslash is quoted.
    """
    pg.add(
        {
            "001.sql": "CREATE TABLE t (x int);\nINSERT INTO t VALUES (1);",
            "002.py": "def apply(c):\n    c.cursor().execute('CREATE TABLE u ()')\n",
            "003.sql": f"{NO_TRANSACTION}SET work_mem = '9MB';\n"
            "CREATE INDEX CONCURRENTLY i ON t (x);\nCREATE TABLE v ();",
            "004.sql": "COPY t FROM stdin;\n1\n\\.\nCREATE TABLE w ();",
            "004.undo.sql": "DROP TABLE w;",
            "post-apply/x.sql": "-- flux: on-change\nSELECT 1",
        }
    )
    log = pg.postgres.server.log_file
    messages = {}
    for name in MODULES:
        pg.configure(backend=f'driver = "{name}"', url=pg.postgres.url_with(log_statement="all"))
        start = log.stat().st_size
        with pg.postgres.server.recording() as statements:
            pg.apply()
            pg.rollback()
            pg.succeed("status")
        extended = re.findall(rb"LOG:  execute \S+: (.*)", log.read_bytes()[start:])
        assert {*extended} <= {b"BEGIN", b"COMMIT", b"ROLLBACK"}  # psycopg's own, before 3.2
        messages[name] = [
            re.sub(r"\d{3,}(\.\d+)?", "#", one.text).replace(" E'", "'").replace("\\\\", "\\")
            for one in statements
            if one.application.startswith("flux")
        ]
        pg.query("DROP TABLE t, u, v, _flux_migrations, _flux_migrations_state")
    assert len(messages["psycopg2"]) > 20
    assert messages["psycopg"] == messages["psycopg2"]


# COPY ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("directive", ["", NO_TRANSACTION])
def test_copy_of_more_than_a_socket_takes(pg: PostgresProject, directive: str) -> None:
    """The driver's sockets do not block; all rows go over all the same."""
    rows = "".join(f"{number}\t{'x' * 200}\n" for number in range(40_000))
    pg.configure(backend='driver = "psycopg"')
    pg.add(
        {
            "001.sql": f"{directive}CREATE TABLE t (id int, x text);\nCOPY t FROM stdin;\n"
            f"{rows}\\.\nCREATE TABLE u ();\nCOPY t FROM stdin;\n1\tlast\n\\.\n"
        }
    )
    assert pg.apply().applied == ("001",)
    assert pg.query("SELECT count(*), max(x) FROM t") == [(40_001, "x" * 200)]
