"""What is told while a script takes long: in words, at which pace, and by a real server."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

import flux
from flux.backends.postgres_watch import name_for
from flux.exceptions import Location
from flux.progress import Blocker, Pace, Progress, one_line
from flux.results import Event
from tests.postgres_project import PostgresProject
from tests.project import HANGS_AFTER, Project
from tests.terminal import at_terminal, posix_only

# In words -----------------------------------------------------------------------------------

_FILE = Location("migrations/001.sql")
_LINE = Location("migrations/001.sql", 3, 5, "ALTER TABLE t …")
_SITTER = Blocker(12, "sitter", "10.0.0.1", "idle in transaction", 75.2, "SELECT 1")


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        pytest.param(Progress(_FILE, 2.4, 2.4), "migrations/001.sql runs for 2 s", id="the clock"),
        pytest.param(
            Progress(_LINE, 9, 9, "ALTER TABLE t", 1, 2, waits_for="IO DataFileRead"),
            "migrations/001.sql:3 (1 of 2, ALTER TABLE t) runs for 9 s, waits for IO DataFileRead",
            id="it waits",
        ),
        pytest.param(
            Progress(_LINE, 9, 40, "ALTER TABLE t", 2, 2, "Lock relation", blockers=(_SITTER,)),
            "migrations/001.sql:3 (2 of 2, ALTER TABLE t) runs for 9 s, 40 s in all, blocked by "
            "pid 12 (sitter, on 10.0.0.1), idle in transaction for 75 s: SELECT 1",
            id="it is blocked",
        ),
        pytest.param(
            Progress(_LINE, 9, 9, "CREATE INDEX", 1, 1, "IO X", "building index", 40),
            "migrations/001.sql:3 (1 of 1, CREATE INDEX) runs for 9 s, 40 %, building index",
            id="an index",
        ),
        pytest.param(
            Progress(_FILE, 3, 9, total=2, waits_for="IPC SyncRep", phase="at its end"),
            "migrations/001.sql runs for 3 s, 9 s in all, at its end, waits for IPC SyncRep",
            id="its end",
        ),
        pytest.param(
            Progress(Location("migrations/001.py"), 9, 9, "SELECT 1"),
            "migrations/001.py (SELECT 1) runs for 9 s",
            id="a function",
        ),
    ],
)
def test_progress_in_words(progress: Progress, text: str) -> None:
    assert str(progress) == text


@pytest.mark.parametrize(
    ("blocker", "text"),
    [
        pytest.param(Blocker(12, None, None, None, None, None), "pid 12", id="not to be seen"),
        pytest.param(
            Blocker(12, None, "10.0.0.1", "active", 3, "SELECT\n  1"),
            "pid 12 (on 10.0.0.1), active for 3 s: SELECT 1",
            id="without a name",
        ),
    ],
)
def test_a_blocker_in_words(blocker: Blocker, text: str) -> None:
    assert str(blocker) == text


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        pytest.param("SELECT\n\t1", "SELECT 1", id="lines"),
        pytest.param("SELECT '\x1b[2J\x00'", "SELECT '?[2J?'", id="escape sequences"),
        pytest.param("ALTER TABLE " + "x" * 40, "ALTER TABLE " + "x" * 27 + "…", id="long"),
        pytest.param("CREATE ROLE r PASSWORD 'it''s'", "CREATE ROLE r PASSWORD '***'", id="role"),
        pytest.param("ALTER ROLE r PASSWORD e'abc", "ALTER ROLE r PASSWORD e'***", id="cut off"),
        pytest.param("CONNECTION 'password=a b'", "CONNECTION 'password=*** b'", id="keyword"),
        pytest.param("connect('x://u:p@h/d')", "connect('x://u:***@h/d')", id="URL"),
        pytest.param("ADD COLUMN password text", "ADD COLUMN password text", id="a column"),
    ],
)
def test_sql_is_shown_on_one_line_without_passwords(sql: str, shown: str) -> None:
    assert one_line(sql, 40) == shown


@pytest.mark.parametrize(
    ("number", "file", "name"),
    [
        pytest.param(3, "001_add users.sql", "flux: 3 of 12, 001_add users.sql", id="plain"),
        pytest.param(13, "001.sql", "flux: 12 of 12 done, 001.sql", id="the end"),
        pytest.param(1, "it's-ü\\.sql", "flux: 1 of 12, it?s-??.sql", id="other characters"),
        pytest.param(1, "x" * 99, "flux: 1 of 12, " + "x" * 48, id="long"),
    ],
)
def test_the_name_of_a_session(number: int, file: str, name: str) -> None:
    assert name_for(number, 12, file) == name


# The pace -----------------------------------------------------------------------------------


def _looks(until: float, begin: float = 0, number: int | None = 1) -> list[Progress]:
    """A look each half second at a statement that begins when the script has run for `begin`."""
    looks = [half / 2 for half in range(4, int(2 * until) + 1)]
    return [Progress(_LINE, at - begin, at, number=number) for at in looks if at >= begin]


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        pytest.param(_looks(130), [2, 4, 8, 16, 32, 62, 92, 122], id="one statement"),
        pytest.param(
            [Progress(_LINE, 0.1, at / 2, number=at) for at in range(4, 130)],
            [2, 4, 8, 16, 32, 62],
            id="many short ones",
        ),
        pytest.param(
            [*_looks(39), *_looks(60, begin=39.5, number=2)],
            [2, 4, 8, 16, 32, 41.5, 43.5, 47.5, 55.5],
            id="another statement",
        ),
        pytest.param([*_looks(9), *_looks(5)], [2, 4, 8, 2, 4], id="another try"),
        pytest.param([p for p in _looks(9) if p.elapsed > 5], [5.5, 8], id="late"),
    ],
)
def test_the_pace_of_lines(looks: list[Progress], told: list[float]) -> None:
    """Soon at first, then further apart."""
    pace = Pace()
    assert [look.elapsed for look in looks if pace.is_due(look)] == told


# On a server --------------------------------------------------------------------------------

both_ways = pytest.mark.parametrize("fixture", ["pg", "pg_pooled"], ids=["direct", "PgBouncer"])


def _apply(pg: PostgresProject, on_progress: Callable[[Progress], None]) -> None:
    """Apply all, and see that all was applied."""

    def on_event(event: Event) -> None:
        if event.kind == "progress":
            assert event.progress is not None
            assert event.message == str(event.progress)
            on_progress(event.progress)

    with pg.runner(on_event=on_event) as runner:
        runner.apply_migrations()
        assert runner.status().is_settled


@contextmanager
def sitting(pg: PostgresProject) -> Iterator[Callable[[], None]]:
    """A session that has written to a table and sits in its transaction, until it is let go."""
    with closing(pg.postgres.connect(application_name="sitter")) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN; INSERT INTO t VALUES (1)")
        yield lambda: cursor.execute("COMMIT")


@both_ways
def test_which_statement_runs(fixture: str, request: pytest.FixtureRequest) -> None:
    """Of those in one message the server knows which is reached, and what it waits for."""
    pg: PostgresProject = request.getfixturevalue(fixture)
    pg.configure(backend="lock_timeout = 0", url=pg.runner().config.resolve_url())
    pg.query("CREATE TABLE t (a int)")
    pg.add({"001.sql": "SELECT 1;\n\n-- ;\nALTER TABLE t\n  ADD b int;\nSELECT 2;\n"})
    seen: list[Progress] = []
    with sitting(pg) as let_go:

        def on_progress(progress: Progress) -> None:
            if not seen:
                let_go()
            seen.append(progress)

        _apply(pg, on_progress)
    first = seen[0]
    assert (first.location.path, first.location.line) == ("migrations/001.sql", 4)
    assert (first.statement, first.number, first.total) == ("ALTER TABLE t ADD b int", 2, 3)
    assert 2 <= first.seconds <= first.elapsed
    assert (first.waits_for, first.phase, first.percent) == ("Lock relation", None, None)
    [blocker] = first.blockers
    assert (blocker.application, blocker.state) == ("sitter", "idle in transaction")
    assert blocker.query == "BEGIN; INSERT INTO t VALUES (1)"


@both_ways
def test_an_index_build(fixture: str, request: pytest.FixtureRequest) -> None:
    """The phase and the percentage that the server counts, and who holds it up."""
    pg: PostgresProject = request.getfixturevalue(fixture)
    pg.query("CREATE TABLE t (a int)")
    pg.add({"001.sql": "-- flux: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);"})
    seen: list[Progress] = []
    with sitting(pg) as let_go:

        def on_progress(progress: Progress) -> None:
            if not seen:
                let_go()
            seen.append(progress)

        _apply(pg, on_progress)
    first = seen[0]
    assert (first.location.line, first.statement) == (2, "CREATE INDEX CONCURRENTLY i ON t (a)")
    assert (first.phase, first.percent) == ("waiting for writers before build", 0)
    assert [blocker.application for blocker in first.blockers] == ["sitter"]


def test_the_lock_s_connection_is_left_alone(pg: PostgresProject) -> None:
    """A query there would have a snapshot, and CREATE INDEX CONCURRENTLY would wait for its end."""
    pg.add({"001.sql": "SELECT pg_sleep(4);"})
    last_queries: list[Any] = []
    _apply(
        pg,
        lambda progress: last_queries.append(
            pg.query(
                "SELECT a.pid, a.query_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE locktype = 'advisory' AND objsubid = 1 AND objid = 3589"
            )
        ),
    )
    assert len(last_queries) > 1
    assert last_queries[0]
    assert all(query == last_queries[0] for query in last_queries)


def test_a_python_function_tells_by_its_queries(pg: PostgresProject) -> None:
    pg.add(
        {
            "001.py": "def apply(connection):\n"
            '    connection.cursor().execute("SELECT\\n  pg_sleep(3)")\n'
        }
    )
    seen: list[Progress] = []
    _apply(pg, seen.append)
    assert str(seen[0]).startswith("migrations/001.py (SELECT pg_sleep(3)) runs for 2 s, waits for")


def test_the_end_of_a_transaction_takes_time_too(pg: PostgresProject) -> None:
    """Deferred constraints are checked when all statements are done."""
    pg.query("CREATE TABLE t (a int)")
    pg.query(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(3); RETURN NULL; END'"
    )
    pg.query(
        "CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    pg.add({"001.sql": "INSERT INTO t VALUES (1);"})
    seen: list[Progress] = []
    _apply(pg, seen.append)
    assert (seen[0].phase, seen[0].statement, seen[0].number) == ("at its end", None, None)


# The name of the session --------------------------------------------------------------------

_SEE = "INSERT INTO seen SELECT current_setting('application_name')"


@pytest.mark.parametrize("ending", ["", "SELECT 1 / 0;"], ids=["committed", "failed"])
def test_a_connection_that_is_handed_in_keeps_its_name(pg: PostgresProject, ending: str) -> None:
    pg.query("CREATE TABLE t (a int)")
    # A function, in which flux does not see what it sets.
    pg.query("CREATE FUNCTION rename() RETURNS text LANGUAGE sql AS $$ SELECT set_config("
             "'application_name', 'renamed', false) $$")  # fmt: skip
    pg.add({"001.sql": f"SELECT rename();\nINSERT INTO t VALUES (1);\n{ending}"})
    with closing(pg.postgres.connect(application_name="mine")) as connection:
        cursor = connection.cursor()
        cursor.execute("SET application_name = 'mine, set'")
        try:
            flux.apply(connection, config=pg.runner().config)
        except flux.exceptions.MigrationApplyError:
            assert ending
        cursor.execute("SHOW application_name")
        assert cursor.fetchall() == [("mine, set",)]


@both_ways
def test_a_migration_may_use_the_name_itself(fixture: str, request: pytest.FixtureRequest) -> None:
    """What it sets holds until its end, and reaches neither the next nor a pooler's clients."""
    pg: PostgresProject = request.getfixturevalue(fixture)
    pg.query("CREATE TABLE seen (name text)")
    pg.add(
        {
            "001.sql": f"{_SEE};\nSET LOCAL application_name = 'own';\nSELECT 1;\n{_SEE};",
            "002.sql": "SELECT 1;",
            "003.sql": f"{_SEE};",
        }
    )
    _apply(pg, lambda progress: None)
    (first,), (second,), (third,) = pg.query("SELECT name FROM seen")
    assert (first, second) == ("flux", "own")
    # A pooler's sessions start without a name, to which flux returns them.
    assert third in ("flux", "")


def test_other_sessions_see_how_far_it_is(pg: PostgresProject) -> None:
    """For who looks into pg_stat_activity; it is gone when the migration is over."""
    pg.add({"001_wait.sql": "SELECT 1;\nSELECT pg_sleep(3);"})
    names: list[Any] = []
    like_ours = (
        "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'flux: %'"
    )
    _apply(pg, lambda progress: names.append(pg.query(like_ours)))
    assert names[0] == [("flux: 2 of 2, 001_wait.sql",)]


# It never breaks what it watches ------------------------------------------------------------


def test_what_the_callback_raises_does_not_end_the_migration(
    pg: PostgresProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes where Python puts what any thread raises, and is told once."""
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    pg.add({"001.sql": "SELECT pg_sleep(4);"})

    def on_progress(progress: Progress) -> None:
        raise LookupError("no such chat room")

    _apply(pg, on_progress)
    assert [str(args.exc_value) for args in raised] == ["no such chat room"]
    assert pg.applied() == ["001"]


def test_a_callback_that_hangs_does_not_hang_the_migration(pg: PostgresProject) -> None:
    pg.add({"001.sql": "SELECT pg_sleep(3);", "002.sql": "SELECT 1;"})
    release, returned = threading.Event(), threading.Event()

    def on_progress(progress: Progress) -> None:
        release.wait(60)
        returned.set()

    _apply(pg, on_progress)
    assert not returned.is_set()
    release.set()
    assert returned.wait(60)


@posix_only
def test_a_server_that_does_not_answer_the_watcher(pg: PostgresProject) -> None:
    """Its process is stopped between two looks: the next look waits, and the migration does not."""
    pg.add({"001.sql": "SELECT pg_sleep(4);"})
    stopped: list[int] = []

    def on_progress(progress: Progress) -> None:
        [(pid,)] = pg.query(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SET LOCAL statement_timeout%' "
            "AND pid <> pg_backend_pid()"
        )
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)

    try:
        _apply(pg, on_progress)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert len(stopped) == 1
    assert pg.applied() == ["001"]
    for thread in threading.enumerate():
        if thread.name == "flux-watcher":
            thread.join(HANGS_AFTER)
            assert not thread.is_alive()


# Its thread ---------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that are started, in order."""
    names: list[str] = []
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    return names


def test_one_thread_watches_a_batch(project: Project, started: list[str]) -> None:
    """It may end between two migrations that are slow to follow; for each, it is not begun."""
    project.add({f"{number:03}.sql": "SELECT 1;" for number in range(50)})
    flux.apply(config=project.root / "flux.toml")
    assert 1 <= started.count("flux-watcher") <= 10


def test_the_thread_ends_with_the_batch(project: Project) -> None:
    project.add({"001.sql": "SELECT 1;"})
    flux.apply(config=project.root / "flux.toml")
    for thread in threading.enumerate():
        if thread.name == "flux-watcher":
            thread.join(HANGS_AFTER)
            assert not thread.is_alive()


# Without a server ---------------------------------------------------------------------------


def test_sqlite_tells_by_the_clock(project: Project) -> None:
    """Which statement runs, and for how long; the statement waits here until it is told of."""
    told = threading.Event()
    seen: list[Progress] = []

    def on_event(event: Event) -> None:
        if event.progress is not None:
            seen.append(event.progress)
            told.set()

    project.add({"001.sql": "CREATE TABLE t (a);\n\nINSERT INTO t\nVALUES (wait());"})
    config = flux.FluxConfig(migration_directory=str(project.root / "migrations"))
    with closing(sqlite3.connect(project.database)) as connection:
        connection.create_function("wait", 0, lambda: told.wait(60))
        flux.apply(connection, config=config, on_event=on_event)
    first = seen[0]
    assert first.location.line == 3
    assert (first.statement, first.number, first.total) == ("INSERT INTO t VALUES (wait())", 2, 2)
    assert 1 <= first.seconds <= first.elapsed
    assert project.query("SELECT a FROM t") == [(1,)]


# On the command line ------------------------------------------------------------------------

_STATEMENT = "migrations/001.sql:1 (1 of 1, SELECT pg_sleep(3)) runs for 2 s"


@pytest.fixture
def slow(pg: PostgresProject) -> PostgresProject:
    """A project whose one migration takes three seconds."""
    pg.add({"001.sql": "SELECT pg_sleep(3);"})
    return pg


@pytest.mark.parametrize(
    ("general", "told"),
    [
        pytest.param("", [f"flux: {_STATEMENT}, waits for Timeout PgSleep"], id="by default"),
        pytest.param('log_level = "ERROR"', [], id="nothing but errors"),
    ],
)
def test_lines_where_there_is_no_terminal(
    slow: PostgresProject, general: str, told: list[str]
) -> None:
    """One at two seconds and none before four, though it is looked at twice a second."""
    slow.configure(general)
    result = slow.run("apply", "--json")
    assert (result.code, result.err.splitlines()) == (0, told)
    assert result.out.startswith("{")


@posix_only
@pytest.mark.parametrize(
    ("columns", "line"),
    [
        pytest.param(120, f"flux: {_STATEMENT}, waits for Timeout PgSleep", id="all of it"),
        pytest.param(
            80,
            "flux: migrations/001.sql:1 (1 of 1) runs for 2 s, waits for Timeout PgSleep",
            id="without its first words",
        ),
        pytest.param(40, "flux: migrations/001.sql:1 (1 of 1) r", id="cut"),
    ],
)
def test_a_line_that_is_rewritten(slow: PostgresProject, columns: int, line: str) -> None:
    """It fits into the terminal, and is gone when the migration is done."""
    with at_terminal(slow, "apply", "--auto-approve") as terminal:
        terminal.resize(columns=columns)
        shown = terminal.read_to_the_end()
        assert terminal.process.wait() == 0
    before, done, after = shown.partition("applied")
    *lines, last = re.findall(r"\r([^\r]*)\x1b\[K", before)
    assert len(lines) >= 2
    assert {re.sub(r"for \d s", "for 2 s", told) for told in lines} == {line}
    assert last == ""
    assert done
    assert "\r" not in after


@posix_only
def test_a_line_is_taken_away_before_an_error(pg: PostgresProject) -> None:
    pg.add({"001.sql": "SELECT pg_sleep(3);\nSELECT 1 / 0;"})
    with at_terminal(pg, "apply", "--auto-approve", env={"NO_COLOR": "1"}) as terminal:
        assert "\r\x1b[Kerror: migrations/001.sql:2" in terminal.read_to_the_end()


@posix_only
def test_a_terminal_that_cannot_rewrite_gets_lines(slow: PostgresProject) -> None:
    with at_terminal(slow, "apply", "--auto-approve", env={"TERM": "dumb"}) as terminal:
        told, applied, _ = terminal.read_to_the_end().partition("applied")
    assert told.startswith(f"flux: {_STATEMENT}, waits for Timeout PgSleep\n")
    assert all(line.startswith("flux: ") for line in told.splitlines())
    assert applied
