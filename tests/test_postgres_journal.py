"""The journal on PostgreSQL: runs that were cut off at each kind of statement, and the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg2
import pytest

import flux
from flux.backends.postgres_journaled import way_of
from flux.backends.postgres_lock import OWN_SESSION
from flux.exceptions import HalfDoneError, MigrationInDoubtError, UnknownMigrationError
from flux.journal import ENDED
from flux.runner import FluxRunner
from flux.statements import Statement, split
from flux.units import entry_of, units_of_text
from tests import driver
from tests.postgres_project import PostgresProject

NO_TRANSACTION = "-- flux: no-transaction\n"
COUNT = "UPDATE counter SET n = n + 1;\n"
ROWS = "SELECT name, value FROM _flux_migrations_state WHERE name LIKE 'journal:%' ORDER BY name"


@pytest.fixture
def half(pg: PostgresProject) -> PostgresProject:
    """A project with a counter, and a table with an index and a partition."""
    return _with_tables(pg)


def _with_tables(pg: PostgresProject) -> PostgresProject:
    pg.query(
        "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); "
        "CREATE TABLE t (a int, b int); "
        "INSERT INTO t SELECT x, x % 5 FROM generate_series(1, 50) x; "
        "CREATE INDEX t_old ON t (a); "
        "CREATE TABLE parted (a int) PARTITION BY LIST (a); "
        "CREATE TABLE part PARTITION OF parted FOR VALUES IN (1)"
    )
    return pg


def counted(pg: PostgresProject) -> int:
    """How often the migrations have counted."""
    [(n,)] = pg.query("SELECT n FROM counter")
    return int(n)


def journal(pg: PostgresProject) -> list[tuple[str, dict[str, Any]]]:
    """The rows of the journal."""
    return [(name, json.loads(value)) for name, value in pg.query(ROWS)]


def indexes(pg: PostgresProject) -> dict[str, bool]:
    """The indexes of the table, and whether each is valid."""
    return dict(
        pg.query(
            "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = indexrelid "
            "WHERE indrelid = 't'::regclass"
        )
    )


@contextmanager
def in_the_way(
    pg: PostgresProject, sql: str = "LOCK TABLE t, parted IN ROW EXCLUSIVE MODE"
) -> Iterator[None]:
    """A session that writes, in a transaction, for which what runs CONCURRENTLY waits."""
    with closing(psycopg2.connect(pg.postgres.url)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = '60s'; {sql}")
        yield


@contextmanager
def running(
    pg: PostgresProject, statement: str, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """flux as a process, which has come to this statement, and is killed at the end."""
    with pg.started(*(arguments or ("apply",))) as process:
        _wait_for(pg, _count_of(statement), 1, process)
        yield process
        process.kill()


def _count_of(statement: str) -> str:
    return (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
        f"AND query LIKE '{statement}%' AND wait_event IS NOT NULL"
    )


def _wait_for(
    pg: PostgresProject, query: str, wanted: int, process: subprocess.Popen[str] | None = None
) -> None:
    deadline = time.monotonic() + 30
    while pg.query(query) != [(wanted,)]:
        assert time.monotonic() < deadline, query
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def cut_off_at(pg: PostgresProject, statement: str, *arguments: str) -> None:
    """Kill flux while the server is at a statement, which a session holds up, and so ends it."""
    with in_the_way(pg):
        with running(pg, statement, *arguments):
            pass
        _wait_for(pg, _count_of(statement), 0)


def cut_off_behind(pg: PostgresProject, statement: str, *arguments: str) -> None:
    """Kill flux when a statement has ended on the server, before flux can note it."""
    with ExitStack() as stack:
        with in_the_way(pg):
            process = stack.enter_context(running(pg, statement, *arguments))
            os.kill(process.pid, signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)  # until every thread of it stands still
        _wait_for(pg, _count_of(statement), 0)


CUT_OFF = pytest.mark.parametrize("cut_off", [cut_off_at, cut_off_behind])


@CUT_OFF
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY t_b ON t (b)",
        'create unique index concurrently if not exists "T b" /* ; */ on t (a, b)',
        "DROP INDEX CONCURRENTLY t_old",
        "REINDEX INDEX CONCURRENTLY t_old",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX (CONCURRENTLY, VERBOSE) TABLE t",
        "ALTER TABLE parted DETACH PARTITION part CONCURRENTLY",
    ],
)
def test_the_catalog_tells_whether_it_took_effect(
    half: PostgresProject, statement: str, cut_off: Any
) -> None:
    """The next `apply` goes on by itself: each statement takes effect once, none is left out."""
    files = {"001.sql": f"{NO_TRANSACTION}{COUNT}{statement};\n{COUNT}"}
    half.add(files)
    cut_off(half, statement)
    [first, second] = journal(half)
    assert (first[0], first[1]["state"]) == ("journal:apply:1:001", "finished")
    assert (second[0], second[1]["state"]) == ("journal:apply:2:001", "reached")
    assert second[1]["session"]
    assert (counted(half), half.applied()) == (1, [])

    with half.postgres.server.recording() as sent:
        half.configure(url=half.postgres.url_with(log_statement="all"))
        assert half.apply().applied == ("001",)
    again = [message for message in sent if message.text == statement]
    finalized = any("FINALIZE" in message.text for message in sent)
    is_reindex = statement.startswith("REINDEX")
    assert len(again) == int(is_reindex or (cut_off is cut_off_at and not finalized))
    assert (counted(half), half.applied(), journal(half)) == (2, ["001"], [])
    assert all(indexes(half).values())
    kept = {"t_old"} if not statement.startswith("DROP") else set()
    names = set(indexes(half))
    assert kept <= names
    assert len(names) == len(kept) + statement.lower().startswith("create")
    attached = half.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'parted'::regclass")
    assert attached == [(0 if statement.startswith("ALTER") else 1,)]


@CUT_OFF
def test_vacuum_may_run_twice(half: PostgresProject, cut_off: Any) -> None:
    half.query("CREATE TABLE slow (a int); INSERT INTO slow VALUES (1)")
    half.query(
        "CREATE FUNCTION nap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "$$ BEGIN PERFORM pg_sleep(0.5); RETURN $1; END $$"
    )
    half.query("CREATE INDEX slow_a ON slow (nap(a))")
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}VACUUM ANALYZE slow;\n{COUNT}"})
    cut_off(half, "VACUUM ANALYZE slow")
    assert half.apply().applied == ("001",)
    assert (counted(half), journal(half)) == (2, [])


PROCEDURE = (
    "CREATE PROCEDURE work() LANGUAGE plpgsql AS $$ BEGIN UPDATE counter SET n = n + 1; COMMIT; "
    "PERFORM count(*) FROM parted; LOCK TABLE parted; COMMIT; END $$"
)


@pytest.fixture
def doubtful(half: PostgresProject) -> PostgresProject:
    """A project whose migration was cut off in a procedure that commits as it goes."""
    half.query(PROCEDURE)
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}CALL work();\n{COUNT}"})
    cut_off_at(half, "CALL work()")
    return half


IN_DOUBT = """\
migrations/001.sql:3: applying 001 failed: an earlier run was cut off at statement 2, and whether \
that took effect cannot be known
    3 | CALL work();
hint: look whether it did: `flux resume --skip` if so, else `flux resume --retry`
state: it ran without a transaction: statement 1 took effect, whether statement 2 did is not \
known, and 001 is not in the history"""


def test_what_cannot_be_known_is_asked(doubtful: PostgresProject) -> None:
    """However often it is tried, nothing runs; `status` and `plan` say where it stands."""
    for arguments in (("apply",), ("apply",), ("resume",)):
        assert doubtful.fail(*arguments) == f"error: {IN_DOUBT}\n"
    assert counted(doubtful) == 2
    with pytest.raises(MigrationInDoubtError) as caught:
        doubtful.apply()
    assert str(caught.value) == IN_DOUBT
    assert doubtful.succeed("status") == (
        "pending    001\n"
        "           half applied: whether statement 2 took effect is not known; look, and "
        "`flux resume --skip` if it did, else `flux resume --retry`\n"
        "1 migration: 1 pending\n"
    )
    [row] = json.loads(doubtful.succeed("status", "--json"))["migrations"]
    assert row["half"] == {"action": "apply", "statement": 2, "in_doubt": True}
    assert doubtful.succeed("plan") == (
        "apply  001  (needs `flux resume` to be told what became of statement 2)\n"
    )
    [step] = json.loads(doubtful.succeed("plan", "--json"))["steps"]
    assert (step["statement"], step["in_doubt"]) == (2, True)


@pytest.mark.parametrize(("answer", "count"), [("--skip", 3), ("--retry", 4)])
def test_the_answer_is_taken(doubtful: PostgresProject, answer: str, count: int) -> None:
    """With --skip what follows runs, with --retry the statement as well; nothing is asked again."""
    doubtful.add({"002.sql": COUNT})
    out = doubtful.succeed("resume", answer)
    assert out.endswith("1 migration applied\n")
    assert (counted(doubtful), doubtful.applied(), journal(doubtful)) == (count, ["001"], [])
    assert doubtful.fail("resume", answer, code=2) == (
        "error: no migration is half applied or half rolled back\n"
    )
    assert doubtful.apply().applied == ("002",)


def test_an_answer_to_no_question_is_refused(half: PostgresProject) -> None:
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}SELECT 1/0;\n"})
    half.fail("apply")
    assert half.fail("resume", "--retry", code=2) == (
        "error: no statement of 001 is in doubt\n"
        "hint: `flux resume` goes on with it, without --retry\n"
    )
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}SELECT 1;\n"})
    assert half.succeed("resume").endswith("1 migration applied\n")
    with half.runner() as runner, pytest.raises(UnknownMigrationError):
        runner.resume_migration("skip")
    assert counted(half) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY ON t (b)",
        'CREATE INDEX CONCURRENTLY U&"t_b" ON t (b)',
        'DROP INDEX CONCURRENTLY U&"t_old"',
    ],
)
def test_what_could_not_be_looked_after_is_refused(half: PostgresProject, statement: str) -> None:
    """An index without a name could not be told from somebody else's."""
    half.add({"001.sql": f"{NO_TRANSACTION}{statement};\n"})
    assert half.error() == (
        "migrations/001.sql:2:1: flux could not tell what became of this statement, were it cut "
        f"off\n    2 | {statement};\n      | ^\n"
        "hint: give the index a name, and write names plainly or in double quotes"
    )
    assert indexes(half) == {"t_old": True}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param(
            "SELECT set_config('search_path', 'a' || 'b', false)",
            "what this SELECT makes for the session would be gone behind it",
            id="a setting that is worked out",
        ),
        pytest.param(
            "BEGIN; SAVEPOINT a; SET work_mem = '9MB'; ROLLBACK TO a; COMMIT",
            "a setting in a block with ROLLBACK TO may be taken back with it",
            id="a setting that may be rolled back",
        ),
    ],
)
def test_a_setting_that_might_not_hold_is_refused(
    half: PostgresProject, text: str, what: str
) -> None:
    half.add({"001.sql": f"{NO_TRANSACTION}{text};\n{COUNT}"})
    assert what in half.error()
    assert counted(half) == 0


def test_what_failed_took_no_effect_whatever_is_there_by_now(half: PostgresProject) -> None:
    """Somebody has made another index of that name meanwhile."""
    half.add({"001.sql": f"{NO_TRANSACTION}CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b);\n"})
    half.fail("apply")
    half.query("DROP INDEX t_b")
    half.query("CREATE INDEX t_b ON t (b)")
    assert "already exists" in half.error()
    assert half.applied() == []


def test_an_invalid_index_is_found_under_other_settings(half: PostgresProject) -> None:
    """The file that is mended has another search_path, or none."""
    schema = half.postgres.schema
    half.query(
        f"CREATE SCHEMA {schema}_two; CREATE TABLE {schema}_two.u (a int); "
        f"INSERT INTO {schema}_two.u VALUES (1), (1)"
    )
    try:
        half.add(
            {
                "001.sql": f"{NO_TRANSACTION}{COUNT}SET search_path = {schema}_two;\n"
                "CREATE UNIQUE INDEX CONCURRENTLY u_a ON u (a);\n"
            }
        )
        half.fail("apply")
        half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}"})
        assert half.apply().applied == ("001",)
        assert half.query(f"SELECT to_regclass('{schema}_two.u_a')") == [(None,)]
    finally:
        half.query(f"DROP SCHEMA {schema}_two CASCADE")


@pytest.mark.parametrize("interrupted", [False, True], ids=["blocked", "interrupted"])
def test_what_commits_as_it_goes_never_runs_again_by_itself(
    half: PostgresProject, interrupted: bool
) -> None:
    """An error does not say how far it came, not even the one after which others come again."""
    half.query("CREATE TABLE gate ()")
    work = "DO $$ BEGIN UPDATE counter SET n = n + 1; COMMIT; LOCK TABLE gate; END $$"
    timeout = "" if interrupted else " lock-timeout=100ms"
    half.add({"001.sql": f"-- flux: no-transaction{timeout}\n{work};\n"})
    with in_the_way(half, "LOCK TABLE gate"):
        if interrupted:
            with running(half, "DO $$ BEGIN UPDATE counter") as process:
                process.send_signal(signal.SIGINT)
                _, err = process.communicate()
        else:
            err = half.fail("apply")
            assert "whether statement 1 did is not known, and 001 is not in the history" in err
    assert "tried again" not in err
    for _ in range(2):
        assert (
            "cut off at statement 1, and whether that took effect cannot be known" in half.error()
        )
    assert counted(half) == 1
    half.succeed("resume", "--skip")
    assert (counted(half), half.applied()) == (1, ["001"])


def test_a_unit_that_is_taken_out_of_the_file_leaves_nothing(broken: PostgresProject) -> None:
    """Its INVALID index is dropped, its row is gone, and a rollback is free again."""
    text = BROKEN[: BROKEN.index("CREATE UNIQUE")]
    broken.add({"001.sql": text, "001.undo.sql": COUNT})
    assert broken.apply().applied == ("001",)
    assert (indexes(broken), journal(broken)) == ({"t_old": True, "t_b": True}, [])
    assert broken.rollback().undone == ("001",)


def test_another_statement_is_not_skipped(doubtful: PostgresProject) -> None:
    """What has taken its place has not run; --retry goes on with it."""
    doubtful.add({"001.sql": f"{NO_TRANSACTION}{COUNT}CREATE TABLE k (a int);\n"})
    assert doubtful.fail("resume", "--skip") == (
        "error: migrations/001.sql:3:1: statement 2, which was cut off, is another one now:\n"
        "- CALL work();\n+ CREATE TABLE k (a int);\n"
        "    3 | CREATE TABLE k (a int);\n      | ^\n"
        "hint: restore it, to skip it; `flux resume --retry` goes on with what the file has now\n"
    )
    doubtful.succeed("resume", "--retry")
    assert "k" in doubtful.tables()


def test_a_unit_in_doubt_that_is_taken_out_of_the_file_is_still_in_doubt(
    doubtful: PostgresProject,
) -> None:
    doubtful.add({"001.sql": NO_TRANSACTION + COUNT})
    assert "cut off at statement 2, and whether that took effect cannot be known" in (
        doubtful.error()
    )
    doubtful.fail("resume", "--skip")
    doubtful.add({"001.sql": f"{NO_TRANSACTION}{COUNT}CALL work();\n"})
    doubtful.fail("resume")
    doubtful.succeed("resume", "--skip")
    assert (counted(doubtful), journal(doubtful)) == (2, [])


def test_another_kind_of_statement_in_its_place_is_looked_after_anew(
    half: PostgresProject,
) -> None:
    half.query("CREATE TABLE rest PARTITION OF parted DEFAULT")
    half.add(
        {"001.sql": f"{NO_TRANSACTION}ALTER TABLE parted DETACH PARTITION part CONCURRENTLY;\n"}
    )
    half.fail("apply")
    half.add({"001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY t_b ON t (b);\n"})
    assert half.apply().applied == ("001",)
    assert indexes(half) == {"t_old": True, "t_b": True}


@pytest.mark.parametrize("is_over", [False, True], ids=["stopped", "known to be over"])
def test_the_session_of_a_stopped_flux_is_ended(half: PostgresProject, is_over: bool) -> None:
    """It has lost its lock, and would send a statement that another one has run by then."""
    half.add({"001.sql": f"{NO_TRANSACTION}VACUUM t;\nSELECT 1/0;\n"})
    half.fail("apply")
    with closing(half.postgres.connect(application_name="mine")) as ghost:
        cursor = ghost.cursor()
        cursor.execute(f"SELECT {OWN_SESSION}")
        [(session,)] = cursor.fetchall()
        text = half.root.joinpath("migrations", "001.sql").read_text("utf-8")
        pieces = [piece for piece in split(text, "postgres") if isinstance(piece, Statement)]
        [unit, _] = units_of_text(pieces, "postgres", way_of)
        entry = entry_of("apply", "001", unit, "reached")
        entry = entry._replace(session=ENDED if is_over else session)
        half.postgres.query("UPDATE _flux_migrations_state SET value = %s", entry.value)
        half.add({"001.sql": f"{NO_TRANSACTION}VACUUM t;\nSELECT 1;\n"})
        assert half.apply().applied == ("001",)
        if is_over:
            cursor.execute("SELECT 1")
        else:
            with pytest.raises(psycopg2.OperationalError):
                cursor.execute("SELECT 1")


def test_a_python_function_that_was_cut_off_is_in_doubt(half: PostgresProject) -> None:
    half.add(
        {
            "001.py": "# flux: no-transaction\ndef apply(connection):\n"
            "    cursor = connection.cursor()\n"
            f"    cursor.execute({COUNT!r})\n    cursor.execute('LOCK TABLE parted')\n"
        }
    )
    # What a function that has failed did before that, only its user can tell.
    assert half.fail("apply").endswith(
        "hint: look whether it did: `flux resume --skip` if so, else `flux resume --retry`\n"
        "state: it ran without a transaction: whether it did is not known, and 001 is not in the "
        "history\n"
    )
    assert "cut off at its function" in half.fail("apply")
    half.add({"001.py": "# flux: no-transaction\ndef apply(connection):\n    pass\n"})
    half.succeed("resume", "--retry")
    half.query("DELETE FROM _flux_migrations")
    half.add(
        {
            "001.py": "# flux: no-transaction\ndef apply(connection):\n"
            "    cursor = connection.cursor()\n"
            f"    cursor.execute({COUNT!r})\n"
            "    cursor.execute('ALTER TABLE parted ADD COLUMN b int')\n"
        }
    )
    cut_off_at(half, "ALTER TABLE parted")
    assert "cut off at its function, and whether that took effect cannot be known" in half.error()
    assert half.succeed("resume", "--skip").endswith("1 migration applied\n")
    assert (counted(half), half.applied(), journal(half)) == (2, ["001"], [])


def test_a_statement_in_a_transaction_is_never_in_doubt(half: PostgresProject) -> None:
    """Killed in it, or just behind it: it and its row are there together, or neither is."""
    block = f"BEGIN;\n{COUNT}ALTER TABLE parted ADD COLUMN b int;\n{COUNT}COMMIT;\n"
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}{block}{COUNT}"})
    with in_the_way(half), half.started("apply") as process:
        _wait_for(
            half,
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%ALTER TABLE parted%' "
            "AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()",
            1,
            process,
        )
        process.kill()
    assert [name for name, _ in journal(half)] == ["journal:apply:1:001"]
    assert counted(half) == 1
    assert half.apply().applied == ("001",)
    assert counted(half) == 4


# Mending the file ---------------------------------------------------------------------------


@pytest.fixture
def broken(half: PostgresProject) -> PostgresProject:
    """A project whose migration fails at its fourth statement."""
    half.add({"001.sql": BROKEN})
    assert half.fail("apply").endswith(
        "hint: mend it from statement 4 on, and apply again: flux goes on there\n"
        "state: it ran without a transaction: statements 1 to 3 of 5 took effect, statement 4 "
        "failed, and 001 is not in the history\n"
    )
    return half


BROKEN = (
    f"{NO_TRANSACTION}{COUNT}SET work_mem = '8MB';\n"
    "CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
    f"CREATE UNIQUE INDEX CONCURRENTLY t_c ON t (b);\n{COUNT}"
)


def test_it_may_be_mended_from_there_on(broken: PostgresProject) -> None:
    """The INVALID index that the failure left is dropped, also where another statement follows."""
    assert indexes(broken) == {"t_old": True, "t_b": True, "t_c": False}
    broken.add({"001.sql": BROKEN.replace("UNIQUE INDEX CONCURRENTLY t_c", "INDEX t_d")})
    assert broken.apply().applied == ("001",)
    assert indexes(broken) == {"t_old": True, "t_b": True, "t_d": True}
    assert (counted(broken), journal(broken)) == (2, [])


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        pytest.param(
            "t_b ON t (b)",
            "t_b ON t (b, a)",
            "migrations/001.sql:4:1: statement 3 has taken effect, and is another one now:\n"
            "  SET work_mem = '8MB';\n"
            "- CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
            "+ CREATE INDEX CONCURRENTLY t_b ON t (b, a);\n"
            "    4 | CREATE INDEX CONCURRENTLY t_b ON t (b, a);\n"
            "      | ^\n",
            id="a statement",
        ),
        pytest.param(
            "8MB",
            "9MB",
            "migrations/001.sql:4:1: statement 3 has taken effect, and is another one now:\n"
            "- SET work_mem = '8MB';\n"
            "+ SET work_mem = '9MB';\n"
            "  CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
            "    4 | CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
            "      | ^\n",
            id="a setting",
        ),
        pytest.param(
            NO_TRANSACTION,
            "",
            "migrations/001.sql: 001 is half applied: statement 4 is the next, and the file now "
            "asks for a transaction\n",
            id="the directive",
        ),
    ],
)
def test_what_is_done_must_not_change(
    broken: PostgresProject, before: str, now: str, message: str
) -> None:
    """The difference is shown, by `plan` as by `apply`, and nothing runs."""
    text = BROKEN.replace(before, now)
    if not now:
        text = text.replace("CONCURRENTLY ", "")
    broken.add({"001.sql": text})
    for command in ("plan", "apply", "resume"):
        assert broken.fail(command).startswith(f"error: {message}hint: ")
    assert broken.fail("status", code=1) == ""
    assert message in broken.run("status").out.replace("\n  ", "\n")
    assert broken.run("validate").out.startswith(f"- {message}".replace("\n", "\n  ").rstrip())
    assert counted(broken) == 1
    broken.add({"001.sql": BROKEN.replace("UNIQUE ", "")})
    assert broken.apply().applied == ("001",)


def test_what_is_done_must_not_go(broken: PostgresProject) -> None:
    broken.add({"001.sql": NO_TRANSACTION + COUNT})
    assert "statement 3 has taken effect, and is another one now:\n" in broken.error()


def test_half_applied_and_not_on_disk(broken: PostgresProject) -> None:
    (broken.root / "migrations" / "001.sql").unlink()
    assert (
        "- 001 is half applied: statement 4 is the next, and the directory does not have it\n"
        "  hint: the database is newer than this directory: use the version that has the file"
    ) in broken.fail("apply", code=4)


def test_what_sorts_before_a_half_applied_one_is_late(broken: PostgresProject) -> None:
    """The half applied one comes first in any case."""
    broken.add({"000.sql": COUNT})
    assert "000 is late: it is pending, and 001, which is newer, is half applied" in broken.fail(
        "apply", code=4
    )
    assert counted(broken) == 1


# The other direction ------------------------------------------------------------------------


def test_a_half_applied_migration_comes_before_a_rollback(half: PostgresProject) -> None:
    half.add({"000.sql": "", "000.undo.sql": ""})
    half.apply()
    half.add({"001.sql": BROKEN})
    half.fail("apply")
    with pytest.raises(HalfDoneError) as caught:
        half.rollback()
    assert str(caught.value) == (
        "001 is half applied: statement 4 is the next; before anything is rolled back, that has to "
        "be done\n"
        "hint: `flux resume` goes on with it; mend the file from that statement on, if need be, "
        "and roll it back then"
    )
    assert half.applied() == ["000"]


def test_an_undo_has_a_journal_too(half: PostgresProject) -> None:
    undo = f"{NO_TRANSACTION}{COUNT}DROP INDEX CONCURRENTLY t_b;\n{COUNT}"
    half.add(
        {
            "001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY t_b ON t (b);",
            "001.undo.sql": undo,
            "000.sql": "",
            "000.undo.sql": "",
        }
    )
    half.apply()
    cut_off_at(half, "DROP INDEX CONCURRENTLY t_b", "rollback", "-y")
    assert "half rolled back: `flux rollback` goes on with statement 2" in half.succeed("status")
    half.add({"002.sql": COUNT})
    assert half.error() == (
        "001 is half rolled back: statement 2 is the next; before anything is applied, that has to "
        "be done\nhint: `flux rollback` goes on with it"
    )
    assert half.rollback().undone == ("001",)
    assert (counted(half), half.applied(), journal(half)) == (2, ["000"], [])
    assert "t_b" not in indexes(half)


# INVALID indexes ----------------------------------------------------------------------------


def test_an_invalid_index_does_not_count(half: PostgresProject) -> None:
    """Also where `IF NOT EXISTS` passes over one that somebody else has left."""
    with pytest.raises(psycopg2.errors.UniqueViolation):
        half.query("CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b)")
    half.add({"001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (b);"})
    index = f"{half.postgres.schema}.t_b"
    message = (
        f"migrations/001.sql:2: applying 001 failed: the index {index} is INVALID: an earlier "
        "attempt left it, and the server does not use it\n"
        "    2 | CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (b);\n"
        f"hint: drop it, and apply again: DROP INDEX CONCURRENTLY {index}\n"
        "state: it ran without a transaction: no statement of 1 took effect, statement 1 failed, "
        "and 001 is not in the history"
    )
    assert half.error() == message
    assert half.error() == message
    half.query("DROP INDEX t_b")
    assert half.apply().applied == ("001",)
    assert indexes(half) == {"t_old": True, "t_b": True}


def test_a_repeatable_that_leaves_an_invalid_index_fails(half: PostgresProject) -> None:
    """It has no memory of its own, and so must not take what it finds for done."""
    half.add(
        {
            "001.sql": "",
            "post-apply/index.sql": NO_TRANSACTION
            + "CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (b);",
        }
    )
    cut_off_at(half, "CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b")
    assert "t_b is INVALID" in half.error()
    half.query("DROP INDEX t_b")
    assert [step.name for step in half.apply().steps] == ["post-apply/index"]
    assert (indexes(half)["t_b"], journal(half)) == (True, [])


# How statements run -------------------------------------------------------------------------


def test_what_the_server_refuses_in_a_transaction_runs_alone(half: PostgresProject) -> None:
    half.query("CREATE INDEX parted_a ON parted (a)")
    half.add({"001.sql": f"{NO_TRANSACTION}{COUNT}REINDEX TABLE parted;\n{COUNT}"})
    assert half.apply().applied == ("001",)
    assert counted(half) == 2


def test_settings_hold_for_what_follows_and_for_it_alone(half: PostgresProject) -> None:
    """Also in a run that goes on; flux's own rows are written by flux's own role."""
    schema = half.postgres.schema
    half.query(
        f"CREATE SCHEMA {schema}_other; CREATE TABLE {schema}_other.inner_t (a int); "
        f"CREATE ROLE {schema}_poor; "
        f"GRANT USAGE, CREATE ON SCHEMA {schema}_other TO {schema}_poor; "
        f"ALTER TABLE {schema}_other.inner_t OWNER TO {schema}_poor"
    )
    try:
        start = (
            f"{NO_TRANSACTION}SET search_path = {schema}_other;\nSET ROLE {schema}_poor;\n"
            "CREATE TABLE mine AS SELECT current_user::text AS who;\n"
        )
        half.add({"001.sql": f"{start}SELECT 1/0;\n"})
        assert "division by zero" in half.error()
        half.add(
            {
                "001.sql": f"{start}CREATE INDEX CONCURRENTLY inner_a ON inner_t (a);\n"
                "RESET ROLE;\nINSERT INTO mine VALUES (current_user);\n",
                "002.sql": "CREATE TABLE whose AS SELECT current_user::text, "
                "current_setting('search_path');",
            }
        )
        assert half.apply().applied == ("001", "002")
        assert half.query(f"SELECT who FROM {schema}_other.mine") == [
            (f"{schema}_poor",),
            (half.postgres.server.user,),
        ]
        assert half.query(f"SELECT to_regclass('{schema}_other.inner_a') IS NULL") == [(False,)]
        [(user, _)] = half.query("SELECT * FROM whose")
        assert user == half.postgres.server.user
    finally:
        half.query(f"DROP SCHEMA {schema}_other CASCADE; DROP ROLE {schema}_poor")


def test_timeouts_of_a_file_hold_for_what_runs_alone(half: PostgresProject) -> None:
    """A lock that is not had in time is let go, what was left is dropped, and it comes again."""
    half.configure(backend="lock_retries = 1")
    half.query(
        "CREATE TABLE seen (a text); CREATE PROCEDURE see() LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO seen VALUES (current_setting('lock_timeout')); COMMIT; END $$"
    )
    half.add(
        {
            "001.sql": "-- flux: no-transaction lock-timeout=100ms\nCALL see();\n"
            "CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
            "INSERT INTO seen VALUES (current_setting('lock_timeout'));\n"
        }
    )
    with in_the_way(half):
        error = half.error()
    assert "canceling statement due to lock timeout" in error
    assert half.apply().applied == ("001",)
    assert half.query("SELECT a FROM seen") == [("100ms",), ("100ms",)]
    assert indexes(half) == {"t_old": True, "t_b": True}


def test_the_journal_over_a_connection_that_was_handed_in(half: PostgresProject) -> None:
    """It is left as it was, settings of the application's own included."""
    half.add({"001.sql": f"{NO_TRANSACTION}SET work_mem = '9MB';\n{COUNT}SELECT 1/0;\n"})
    config = flux.FluxConfig.from_file("flux.toml")
    with closing(driver.connect(half.postgres.url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET work_mem = '7MB'")
        connection.commit()
        with (
            FluxRunner.from_config(config, connection) as runner,
            pytest.raises(Exception, match="zero"),
        ):
            runner.apply_migrations()
        half.add(
            {
                "001.sql": f"{NO_TRANSACTION}SET work_mem = '9MB';\n{COUNT}"
                "CREATE INDEX CONCURRENTLY t_b ON t (b);\n"
            }
        )
        assert flux.apply(connection, config=config).applied == ("001",)
        cursor.execute("SHOW work_mem")
        assert cursor.fetchall() == [("7MB",)]
    assert counted(half) == 1


# Behind a pooler ----------------------------------------------------------------------------


def test_the_next_run_waits_for_what_a_killed_one_left(pg_pooled: PostgresProject) -> None:
    """Behind a pooler the server does not notice that flux is gone, and builds on."""
    pg = _with_tables(pg_pooled)
    statement = "CREATE INDEX CONCURRENTLY t_b ON t (b)"
    pg.add({"001.sql": f"{NO_TRANSACTION}{COUNT}{statement};\n{COUNT}"})
    with in_the_way(pg):
        with running(pg, statement):
            pass
        assert pg.query(_count_of(statement)) == [(1,)]
        assert "left by a run that was cut off" in pg.fail("apply", "--lock-wait", "0", code=5)
        with pg.started("apply") as process:
            assert process.stderr is not None
            assert "left by a run that was cut off, which is running" in process.stderr.readline()
            pg.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE state = 'idle in transaction' AND query LIKE '%ROW EXCLUSIVE MODE'"
            )
            out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert (counted(pg), pg.applied(), journal(pg)) == (2, ["001"], [])
    assert indexes(pg) == {"t_old": True, "t_b": True}


@pytest.mark.parametrize(
    ("head", "what", "place", "line"),
    [
        pytest.param(
            "-- flux: no-transaction lock-timeout=1s\n",
            "has a timeout, which would reach other clients",
            "",
            "",
            id="timeout",
        ),
        pytest.param(
            f"{NO_TRANSACTION}SET work_mem = '9MB';\n",
            "has a setting, which would reach other clients",
            ":2:1",
            "    2 | SET work_mem = '9MB';\n      | ^\n",
            id="setting",
        ),
    ],
)
def test_what_would_leak_is_refused(
    pg_pooled: PostgresProject, head: str, what: str, place: str, line: str
) -> None:
    """But only where it would: with what runs in a transaction it is that one's own."""
    pg = _with_tables(pg_pooled)
    pg.add({"001.sql": f"{head}{COUNT}CREATE INDEX CONCURRENTLY t_b ON t (b);\n"})
    assert pg.error() == (
        f"migrations/001.sql{place}: applying 001 failed: behind a pooler this cannot run: a "
        f"statement that runs in no transaction {what}\n"
        f"{line}"
        "hint: give flux the address of the server itself, or take it out of the file\n"
        "state: nothing of 001 ran"
    )
    pg.add({"001.sql": f"{head}{COUNT}CREATE INDEX t_b ON t (b);\n"})
    assert pg.apply().applied == ("001",)
    assert counted(pg) == 1


# What an attacker found ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["t_Ä", '"t ä"', '"t_b"'], ids=["not ASCII", "quoted", "quoted, without a space"]
)
def test_an_invalid_index_of_an_odd_name_does_not_count(half: PostgresProject, name: str) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation):
        half.query(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON t (b)")
    gap = "" if name == '"t_b"' else " "
    half.add(
        {"001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY IF NOT EXISTS {name}{gap}ON t (b);"}
    )
    assert " is INVALID: an earlier attempt left it" in half.error()


def test_an_invalid_index_of_that_name_on_another_table_does_not_count(
    half: PostgresProject,
) -> None:
    half.query("CREATE TABLE other (a int)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        half.query("CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b)")
    half.add(
        {"001.sql": f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON other (a);"}
    )
    assert " is INVALID: an earlier attempt left it" in half.error()


def test_the_timeouts_of_a_database_do_not_end_what_has_none(pg_alone: PostgresProject) -> None:
    half = _with_tables(pg_alone)
    half.query(f"ALTER DATABASE {half.postgres.database} SET statement_timeout = '300ms'")
    sleep = "DO $$ BEGIN PERFORM pg_sleep(0.6); COMMIT; END $$"
    half.add({"001.sql": f"{NO_TRANSACTION}SELECT pg_sleep(0.6);\n{sleep};\n"})
    assert half.apply().applied == ("001",)


def test_nothing_else_is_rolled_back_over_a_half_rolled_back_one(half: PostgresProject) -> None:
    half.add(
        {"001.sql": "", "002.sql": "", "002.undo.sql": f"{NO_TRANSACTION}{COUNT}SELECT 1/0;\n"}
    )
    half.apply()
    half.fail("rollback", "-y")
    for arguments in (("0",), ("--to", "002")):
        assert "error: 002 is half rolled back: statement 2 is the next; before anything else" in (
            half.fail("rollback", "-y", *arguments)
        )
    half.add({"002.undo.sql": f"{NO_TRANSACTION}{COUNT}SELECT 1;\n"})
    assert half.succeed("resume").endswith("1 migration rolled back\n")
    assert (counted(half), half.applied()) == (1, ["001"])


def test_the_journal_keeps_no_password(half: PostgresProject) -> None:
    half.add({"001.sql": f"{NO_TRANSACTION}CREATE ROLE x PASSWORD 'hunter2' VALID UNTIL 'x';\n"})
    half.fail("apply")
    half.add({"001.sql": f"{NO_TRANSACTION}SELECT 'password = hunter2';\nSELECT 1/0;\n"})
    half.fail("apply")
    assert "hunter2" not in str(journal(half))
    assert len(journal(half)) == 1


def test_what_commits_as_it_goes_is_refused_behind_a_pooler(pg_pooled: PostgresProject) -> None:
    """No session could be ended there whose flux has been stopped in between."""
    pg = _with_tables(pg_pooled)
    pg.add({"001.sql": f"{NO_TRANSACTION}{COUNT}DO $$ BEGIN COMMIT; END $$;\n"})
    assert (
        "migrations/001.sql:3:1: applying 001 failed: behind a pooler this cannot run: a statement "
        "that runs in no transaction commits as it goes, and could run twice there\n"
    ) in pg.error()
    assert counted(pg) == 0


def test_a_python_function_without_a_transaction_is_refused_behind_a_pooler(
    pg_pooled: PostgresProject,
) -> None:
    pg_pooled.add({"001.py": "# flux: no-transaction\ndef apply(connection):\n    pass\n"})
    assert "a Python function without a transaction runs in whichever sessions" in pg_pooled.error()
    assert pg_pooled.applied() == []
