"""Several migrations in one message: what holds for each of them holds there too.

That they went in one message at all, each test sees from the server: `sent` is what it got.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

import flux
from flux.backends import postgres_outcome, postgres_parts
from flux.backends.postgres import PostgresBackend
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests import driver
from tests.pgbouncer import PgBouncer
from tests.postgres_project import PostgresProject
from tests.test_broken_connections import MARK, breaking
from tests.test_doctor import a_role
from tests.test_postgres_lock import (
    GATE,
    LOCK,
    PASS_GATE,
    at_the_gate,
    closed_gate,
    end,
    eventually,
    holder,
)
from tests.test_replicas import LOCKS_LEFT
from tests.wire import Where

FIVE = tuple(f"{number:03}" for number in range(1, 6))


def five(**others: str) -> dict[str, str]:
    """Five migrations that make a table each; `m003` gives the third another text."""
    files = {f"{id}.sql": f"CREATE TABLE t{id} ();" for id in FIVE}
    return {**files, **{f"{name[1:]}.sql": text for name, text in others.items()}}


def undos() -> dict[str, str]:
    return {f"{id}.undo.sql": f"DROP TABLE t{id};" for id in FIVE}


@contextmanager
def sending(pg: PostgresProject) -> Iterator[list[list[str]]]:
    """The ids of the migrations in each message that the server gets while the block runs."""
    pg.configure(url=pg.postgres.url_with(log_statement="all"))
    sent: list[list[str]] = []
    with pg.postgres.server.recording() as messages:
        yield sent
    guards = [re.search(r"WHERE id IN \((.*?)\)", message.text) for message in messages]
    sent += [re.findall(r"'(\w+)'", guard[1]) for guard in guards if guard]


def failing(pg: PostgresProject) -> MigrationApplyError:
    """What an `apply`, which must fail, raises."""
    error = pg.exception()
    assert isinstance(error, MigrationApplyError)
    return error


def tables(*ids: str) -> list[str]:
    return [f"t{id}" for id in ids]


# Which go together --------------------------------------------------------------------------


def test_migrations_and_undos_go_in_one_message(pg: PostgresProject) -> None:
    pg.add({**five(), **undos()})
    with sending(pg) as sent:
        assert pg.apply().applied == FIVE
    assert sent == [list(FIVE)]
    assert (pg.tables(), pg.applied()) == (tables(*FIVE), list(FIVE))
    with sending(pg) as sent:
        assert pg.rollback(4).undone == FIVE[:0:-1]
    assert sent == [list(FIVE[:0:-1])]
    assert (pg.tables(), pg.applied()) == (["t001"], ["001"])


@pytest.mark.parametrize(
    ("files", "sent"),
    [
        pytest.param(
            {"002.py": "def apply(connection):\n    connection.cursor().execute('SELECT 1')\n"},
            [["001"], ["003", "004", "005"]],
            id="a function",
        ),
        pytest.param(
            {"002.sql": "-- flux: no-transaction\nSELECT 1"},
            [["001"], ["002"], ["003", "004", "005"]],
            id="no-transaction",
        ),
        pytest.param(
            {"002.sql": "CREATE TABLE c (x text); COPY c FROM stdin;\na\n\\.\n"},
            [["001"], ["002"], ["003", "004", "005"]],
            id="COPY",
        ),
        pytest.param(
            {"002.sql": "SET application_name = 'mine'"},
            [["001"], ["002"], ["003", "004", "005"]],
            id="application_name",
        ),
        pytest.param(
            {"002.sql": "CREATE TEMP TABLE x ()"},
            [["001"], ["002"], ["003", "004", "005"]],
            id="what lasts for the session",
        ),
        pytest.param(
            {"002.sql": "-- flux: lock-timeout=100ms\nSELECT 1"},
            [["001"], ["002"], ["003", "004", "005"]],
            id="a short patience",
        ),
        pytest.param(
            {"002.py": "def apply():\n    return 'SELECT 1'\n"}, [[*FIVE]], id="text from Python"
        ),
        pytest.param(
            {"002.sql": "-- flux: statement-timeout=3s\nSELECT 1"}, [[*FIVE]], id="a timeout"
        ),
        pytest.param({"002.sql": "BEGIN; SELECT 1; COMMIT;"}, [[*FIVE]], id="an outermost pair"),
        pytest.param({"002.sql": "-- nothing"}, [[*FIVE]], id="a comment"),
    ],
)
def test_what_goes_together(
    pg: PostgresProject, files: dict[str, str], sent: list[list[str]]
) -> None:
    pg.add({name: text for name, text in five().items() if name != "002.sql"})
    pg.add(files)
    with sending(pg) as found:
        assert pg.apply().applied == FIVE
    if "002.py" in files and len(sent) > 1:
        found = [ids for ids in found if ids != ["002"]]
    assert [list(dict.fromkeys(ids)) for ids in found] == sent


@contextmanager
def waiting_for_no_thread() -> Iterator[None]:
    """Leave the interpreter to another thread only when this one waits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_what_comes_next_is_written_ahead(pg: PostgresProject) -> None:
    """As when it is its turn; but for what the connection quotes, which is busy."""
    files = {f"{number:03}.sql": f"CREATE TABLE t{number} ();" for number in range(120)}
    pg.add(files | {"071 o'clock.sql": "SELECT 1;"})
    with pg.runner() as runner:
        steps = runner.plan_apply().steps
        backend = runner.backend
        assert isinstance(backend, PostgresBackend)
        with backend.migration_lock():
            parts = postgres_parts.Parts(backend)
            assert parts.count_together(steps) == 50
            parts.write(steps[:50])
            with waiting_for_no_thread(), parts.writing_ahead():
                assert parts._ahead == {}  # what sends the message comes first
            ahead = parts.write(steps[50:73])
            now = postgres_parts.Parts(backend).write(steps[50:73])
    assert [part.step.name for part in ahead] == [step.name for step in steps[50:73]]
    flag = re.compile(r"(?<=lock_shared\(1718378855, )\d+")
    texts = [[flag.sub("?", part.message.text) for part in some] for some in (ahead, now)]
    assert texts[0] == texts[1]
    assert [part.first for part in ahead] == sorted({part.first for part in ahead})
    assert pg.apply().applied[70:73] == ("070", "071", "071 o'clock")


def test_no_more_is_written_ahead_than_the_next_message_takes(pg: PostgresProject) -> None:
    """And none of it twice, where the next message takes less."""
    pg.add({f"{number:03}.sql": f"-- {'x' * 60_000}\nSELECT 1;" for number in range(20)})
    with pg.runner() as runner:
        steps = runner.plan_apply().steps
        backend = runner.backend
        assert isinstance(backend, PostgresBackend)
        with backend.migration_lock():
            parts = postgres_parts.Parts(backend)
            assert parts.count_together(steps) == 4
            with parts.writing_ahead():
                pass
            ahead = parts._ahead.copy()
            assert [part.step for part in ahead.values()] == list(steps[4:8])
            assert parts.write(steps[4:6]) == list(ahead.values())[:2]
            assert list(parts._ahead.values()) == list(ahead.values())[2:]


def test_settings_that_a_function_resets(pg: PostgresProject) -> None:
    """That the fence was taken, a setting tells; and where that is gone, the locks."""
    pg.query("CREATE FUNCTION anew() RETURNS void LANGUAGE plpgsql AS 'BEGIN RESET ALL; END'")
    pg.add(five(m003="CREATE TABLE t003 (); SELECT anew();"))
    assert pg.apply().applied == FIVE
    assert pg.tables() == tables(*FIVE)


def test_a_function_that_resets_in_a_text_that_may_end(pg: PostgresProject) -> None:
    """It is not run once more: what it has committed would be there twice."""
    pg.query("CREATE FUNCTION anew() RETURNS void LANGUAGE plpgsql AS 'BEGIN RESET ALL; END'")
    pg.add(five(m003="CREATE TABLE t003 (); SELECT anew(); -- no COMMIT"))
    error = failing(pg)
    assert error.message == "applying 003 failed: it ended the transaction that flux runs it in"
    assert pg.tables() == tables("001", "002")


@pytest.mark.parametrize(
    "function", ["pg_try_advisory_lock_shared(int, int)", "pg_advisory_unlock_shared(int, int)"]
)
def test_where_flags_may_not_be_taken_markers_tell(
    pg_alone: PostgresProject, function: str
) -> None:
    """The rights are those of one database, which is thrown away."""
    pg_alone.query(f"REVOKE EXECUTE ON FUNCTION {function} FROM public")
    pg_alone.query("GRANT CREATE ON SCHEMA public TO public")
    pg_alone.add(five(m003="SELECT 1;\nSELECT 1/0;"))
    with a_role(pg_alone.postgres) as (_, url):
        pg_alone.configure(backend='migrations_schema = "public"', url=url)
        error = failing(pg_alone)
        assert (error.id, error.location and error.location.line) == ("003", 2)


def test_names_that_begin_alike_are_apart(pg: PostgresProject) -> None:
    """Who watches tells scripts apart by what their session's name shows of the file's."""
    long = "x" * 32
    pg.add({f"{long}_{number}.sql": "SELECT 1" for number in range(2)})
    with sending(pg) as sent:
        pg.apply()
    assert sent == [[f"{long}_0"], [f"{long}_1"]]


def test_a_message_has_its_limits(pg: PostgresProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 migrations, 256 Ki characters; a larger one goes alone."""
    monkeypatch.setattr(postgres_parts, "_SECONDS", 3600.0)  # however busy the machine is
    ids = [f"{number:03}" for number in range(130)]
    pg.add({f"{id}.sql": "SELECT 1" for id in ids})
    with sending(pg) as sent:
        pg.apply()
    assert [len(ids) for ids in sent] == [50, 50, 30]
    large = f"-- {'x' * 130_000}\nSELECT 1;"
    pg.add({f"2{number:02}.sql": large for number in range(3)} | {"203.sql": large * 3})
    with sending(pg) as sent:
        pg.apply()
    assert [len(ids) for ids in sent] == [2, 1, 1]


def test_slow_ones_go_in_smaller_messages(pg: PostgresProject) -> None:
    backend = pg.runner().backend
    assert isinstance(backend, PostgresBackend)
    parts = postgres_parts.Parts(backend)
    found = []
    for seconds in (0.1, 0.1, 5.0, 100.0, 0.01):
        parts.note(parts.most, seconds)
        found.append(parts.most)
    assert found == [50, 50, 10, 1, 4]


def test_a_connection_that_was_handed_in_takes_one_at_a_time(pg: PostgresProject) -> None:
    pg.add(five())
    with sending(pg) as sent, closing(driver.connect(pg.runner().config.resolve_url())) as mine:
        flux.apply(mine, config="flux.toml")
    assert sent == [[id] for id in FIVE]


# What each of them finds --------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "SET search_path = pg_catalog",
        "SELECT set_config('search_path', '', false)",
        "SET ROLE pg_monitor",
        "SET SESSION AUTHORIZATION pg_monitor",
        "SET LOCAL statement_timeout = 1",
        "DO $$BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END$$",
        "SET client_min_messages = error",
        "SET default_transaction_isolation = 'serializable'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET default_transaction_read_only = on",
    ],
)
def test_what_one_sets_does_not_reach_the_next(pg_alone: PostgresProject, setting: str) -> None:
    """Not even within their message."""
    shown = (
        "SELECT ARRAY[current_setting('search_path'), current_user::text, session_user::text, "
        "current_setting('statement_timeout'), current_setting('standard_conforming_strings'), "
        "current_setting('client_min_messages'), current_setting('transaction_isolation'), "
        "current_setting('transaction_read_only'), 'a\\b'] AS shown"
    )
    pg_alone.add(
        five(
            m001=f"CREATE TABLE first AS {shown};",
            m002=f"{setting};\nSELECT 1;",
            m003=f"CREATE TABLE second AS {shown};",
        )
    )
    with sending(pg_alone) as sent:
        pg_alone.apply()
    assert sent == [list(FIVE)]
    [first] = pg_alone.query("SELECT * FROM first")
    assert pg_alone.query("SELECT * FROM second") == [first]


def test_each_has_its_own_limits(pg: PostgresProject) -> None:
    shown = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    pg.configure(backend="lock_timeout = 7\nstatement_timeout = 60")
    pg.add(
        five(
            m001="CREATE TABLE seen (lock text, statement text);",
            m002=f"INSERT INTO seen {shown};",
            m003=f"-- flux: lock-timeout=3s statement-timeout=4s\nINSERT INTO seen {shown};",
            m004=f"INSERT INTO seen {shown};",
        )
    )
    assert pg.apply().applied == FIVE
    assert pg.query("SELECT * FROM seen") == [("7s", "1min"), ("3s", "4s"), ("7s", "1min")]


def test_the_limit_of_a_statement_is_that_of_each(pg: PostgresProject) -> None:
    """A message may take longer than one statement may."""
    pg.configure(backend="statement_timeout = 0.5")
    pg.add({f"{id}.sql": "SELECT pg_sleep(0.2)" for id in FIVE})
    assert pg.apply().applied == FIVE
    pg.add({"006.sql": "SELECT 1", "007.sql": "SELECT 1;\nSELECT pg_sleep(60);"})
    error = failing(pg)
    assert (error.id, error.done, error.location and error.location.line) == ("007", ("006",), 2)


def test_the_times_in_the_history_differ(pg: PostgresProject) -> None:
    """now() is that of the message; the rows have the time at which each was done."""
    pg.add({f"{id}.sql": f"SELECT pg_sleep(0.1 * {id})" for id in FIVE})
    result = pg.apply()
    assert pg.query("SELECT id FROM _flux_migrations ORDER BY applied_at") == [(id,) for id in FIVE]
    assert all(step.seconds >= 0.1 * int(step.name) for step in result.steps)
    assert all(0.01 <= step.seconds < 30 for step in result.steps)


def test_the_order_of_the_events(pg: PostgresProject) -> None:
    """One begins when the one before it is done, as if each had gone alone."""
    told: list[tuple[str, str]] = []

    def on_event(event: Event) -> None:
        if event.step is not None:
            told.append((event.kind, event.step.name))

    pg.add(five(m004="SELECT 1/0"))
    with pg.runner(on_event=on_event) as runner, pytest.raises(MigrationApplyError):
        runner.apply_migrations()
    done = [(kind, id) for id in FIVE[:3] for kind in ("start", "done")]
    assert told == [*done, ("start", "004")]


def test_what_the_callback_raises_ends_the_batch_and_hides_nothing(pg: PostgresProject) -> None:
    """Those of the same message are done, and are told of; what comes after it does not begin."""
    told: list[str] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.step is not None:
            told.append(event.step.name)
            raise RuntimeError("enough")

    pg.add({f"{number:03}.sql": "SELECT 1" for number in range(60)})
    with pg.runner(on_event=on_event) as runner, pytest.raises(RuntimeError):
        runner.apply_migrations()
    assert told == pg.applied()
    assert len(told) == 50


# Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", FIVE)
@pytest.mark.parametrize(
    ("text", "said", "place"),
    [
        pytest.param(
            "SELECT 1;\nSELEC 2;\n", 'syntax error at or near "SELEC"', (2, 1), id="syntax"
        ),
        pytest.param(
            "SELECT 1;\nSELECT\n  x;\n", 'column "x" does not exist', (3, 3), id="analysis"
        ),
        pytest.param("SELECT 1;\n\nSELECT 1/0;", "division by zero", (3, None), id="at run time"),
        pytest.param(
            "CREATE TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);\n"
            "INSERT INTO d VALUES (1), (1);",
            "duplicate key value violates unique constraint",
            (None, None),
            id="at its end",
        ),
        pytest.param(
            "SELECT 1;\nDO $$BEGIN\nPERFORM x FROM nowhere; END$$;",
            'relation "nowhere" does not exist',
            (2, None),
            id="within a function",
        ),
        pytest.param(
            "SELECT 'é', 1;\nSELECT 'ü', y;", 'column "y" does not exist', (2, 13), id="é"
        ),
        pytest.param(
            "SELECT 1;\nSELECT U&'\\zzzz';", "invalid Unicode escape", (2, 11), id="lexical"
        ),
    ],
)
def test_an_error_says_where_and_what_is_done(
    pg: PostgresProject,
    id: str,
    text: str,
    said: str,
    place: tuple[int | None, int | None],
) -> None:
    """As it does alone, whichever of them fails."""
    pg.add(five(**{f"m{id}": text}))
    error = failing(pg)
    before = FIVE[: FIVE.index(id)]
    assert error.message.startswith(f"applying {id} failed: {said}")
    assert error.location is not None
    assert error.location.path == f"migrations/{id}.sql"
    assert (error.location.line, error.location.column) == place
    assert error.state == f"rolled back; the database is as it was before {id}"
    assert (error.id, error.done) == (id, before)
    assert (pg.tables(), pg.applied()) == (tables(*before), list(before))
    pg.add(five())
    assert pg.apply().applied == FIVE[len(before) :]
    assert pg.tables() == tables(*FIVE)


def test_two_that_cannot_be_read(pg: PostgresProject) -> None:
    """The server parses the whole message first; what it can say only then is about the third."""
    pg.add(five(m002="SELECT 1/0", m003="SELEC 1", m005="SELEC 2"))
    with sending(pg) as sent:
        error = failing(pg)
    assert (error.id, error.done) == ("002", ("001",))
    assert sent == [["001", "002"]]  # what cannot be parsed is not logged
    pg.add(five(m003="SELEC 1", m005="SELEC 2"))
    with sending(pg) as sent:
        error = failing(pg)
    assert (error.id, error.done) == ("003", ("002",))
    assert sent == [["002"]]


def test_what_fails_at_run_time_runs_once(pg: PostgresProject) -> None:
    pg.query("CREATE SEQUENCE runs")
    pg.add(five(m003="SELECT nextval('runs');\nSELECT 1/0;"))
    assert failing(pg).id == "003"
    assert pg.query("SELECT last_value FROM runs") == [(1,)]


def test_what_was_done_before_is_not_a_wall_of_names(pg: PostgresProject) -> None:
    pg.add({f"{number:03}.sql": "SELECT 1" for number in range(30)} | {"900.sql": "SELECT 1/0"})
    error = failing(pg)
    assert len(error.done) == 30
    assert "\ndone before it: 30 steps, from 000 to 029\n" in str(error)


def test_a_text_of_many_short_statements(pg: PostgresProject) -> None:
    """What flux writes around each is longer than all of the text."""
    pg.add({**five(m002="SELECT 1;\n" * 7000), "002.undo.sql": "SELECT 1;\n" * 7000})
    with sending(pg) as sent:
        assert pg.apply().applied == FIVE
    assert sent == [list(FIVE)]


def test_a_row_that_a_later_one_deletes(pg: PostgresProject) -> None:
    """What ran does not run again, and the one that fails is told of."""
    pg.query("CREATE TABLE runs (a int)")
    pg.add(
        five(
            m002="INSERT INTO runs VALUES (2);",
            m004="DELETE FROM _flux_migrations WHERE id = '002';",
            m005="SELECT 1 / 0;",
        )
    )
    error = failing(pg)
    assert (error.id, error.done) == ("005", FIVE[:4])
    assert pg.query("SELECT a FROM runs") == [(2,)]


@pytest.mark.parametrize(
    "words", ["influx time 10.30.00", "flux time 10.30.00", "flux marker", "the flux marker 7"]
)
def test_a_notice_that_reads_like_one_of_flux_s(pg: PostgresProject, words: str) -> None:
    pg.add(five(m002=f"DO $$BEGIN RAISE INFO '{words}'; END$$;", m004="SELECT 1 / 0;"))
    error = failing(pg)
    assert (error.id, error.done) == ("004", FIVE[:3])


@pytest.mark.parametrize("open_end", ["SELECT 1 /* open", "SELECT 'open", "SELECT $x$ open", "("])
def test_a_text_that_is_left_open_reaches_no_other(pg: PostgresProject, open_end: str) -> None:
    """It is refused before anything runs."""
    pg.add(five(m003=open_end))
    assert "migrations/003.sql" in pg.error()
    assert (pg.tables(), pg.applied()) == ([], [])


def test_a_comment_that_ends_a_text(pg: PostgresProject) -> None:
    pg.add(five(m002="CREATE TABLE t002 () -- no newline", m003="CREATE TABLE t003 () /* here */"))
    pg.apply()
    assert pg.tables() == tables(*FIVE)


def test_an_undo_that_fails(pg: PostgresProject) -> None:
    pg.add({**five(), **undos(), "002.undo.sql": "DROP TABLE t002;\nDROP TABLE nowhere;"})
    pg.apply()
    with pytest.raises(MigrationApplyError) as caught:
        pg.rollback(4)
    assert (caught.value.id, caught.value.done) == ("002", ("005", "004", "003"))
    assert str(caught.value.location).startswith("migrations/002.undo.sql:2")
    assert (pg.tables(), pg.applied()) == (tables("001", "002"), ["001", "002"])


def test_a_row_that_somebody_else_has_written(pg: PostgresProject) -> None:
    """The one whose row is there does not run; the plan is made again, nothing is done twice."""
    pg.add(five(m003="SELECT 1/0"))
    assert failing(pg).done == ("001", "002")
    pg.add(five())
    row = "INSERT INTO _flux_migrations (id, hash) SELECT '004', '{}'"
    with pg.runner() as runner:
        [hash] = [m.hash for m in runner.directory.migrations if m.id == "004"]
    done = False

    def on_event(event: Event) -> None:
        nonlocal done
        if event.kind == "start" and not done:
            done = True
            pg.query(row.format(hash))

    with pg.runner(on_event=on_event) as runner:
        assert runner.apply_migrations().applied == ("003", "005")
    assert pg.tables() == tables("001", "002", "003", "005")


# Locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_a_row_that_changes_behind_the_guard(pg: PostgresProject, command: str) -> None:
    """Of one that has not run yet: nothing that did not happen is told, and nothing runs twice."""
    gate = f"SELECT pg_advisory_xact_lock({GATE});"
    pg.add({**five(m001=gate), **undos(), "001.undo.sql": "SELECT 1;", "005.undo.sql": gate})
    change = "INSERT INTO _flux_migrations VALUES ('003', 'x')"
    if command == "rollback":
        with closed_gate(pg) as open_gate:
            open_gate()
            pg.apply()
        change = "DELETE FROM _flux_migrations WHERE id = '003'"
    words = [command] if command == "apply" else [command, "--all", "-y"]
    with closed_gate(pg) as open_gate, pg.started(*words) as process:
        at_the_gate(pg)
        pg.query(change)
        open_gate()
        code, out, _ = end(process)
    done = re.findall(r" ms  (\d+)$", out, re.MULTILINE)
    if command == "apply":
        assert (code, done) == (1, ["001", "002"])
        assert pg.tables() == tables("002")
    else:
        assert (code, done) == (0, ["005", "004", "002", "001"])
        assert pg.tables() == tables("003", "005")


@pytest.mark.parametrize("last", ["003", "005"])
def test_one_that_waits_for_a_table_comes_again_alone(pg: PostgresProject, last: str) -> None:
    """It says who is in its way, and counts the message as its first try."""
    pg.configure(backend="lock_timeout = 1.5\nlock_retries = 3")
    pg.query("CREATE TABLE busy ()")
    pg.add(five(m003="ALTER TABLE busy ADD a int"))
    told: list[str] = []
    with closing(pg.postgres.connect(application_name="sitter")) as sitter:
        sitter.cursor().execute("BEGIN; LOCK TABLE busy")

        def on_event(event: Event) -> None:
            if event.kind == "wait":
                told.append(event.message)
                assert pg.applied() == ["001", "002"]
                if len(told) == 2:
                    sitter.close()

        with pg.runner(on_event=on_event) as runner:
            assert runner.apply_migrations(to=last).applied == FIVE[: FIVE.index(last) + 1]
    assert len(told) == 2
    for number, message in enumerate(told, 1):
        assert message.startswith("migrations/003.sql did not get a lock in time, blocked by pid ")
        assert "(sitter, on 127.0.0.1)" in message
        assert message.endswith(f" ({number} of 3)")


def test_what_is_committed_is_told_before_another_is_waited_for(pg: PostgresProject) -> None:
    """And the one that waited has taken as long as its tries."""
    pg.configure(backend="lock_timeout = 1.5\nlock_retries = 3")
    pg.query("CREATE TABLE busy ()")
    pg.add(five(m003="ALTER TABLE busy ADD a int"))
    told: list[str] = []
    with closing(pg.postgres.connect()) as sitter:
        sitter.cursor().execute("BEGIN; LOCK TABLE busy")

        def on_event(event: Event) -> None:
            told.append(event.step.name if event.step is not None else event.kind)
            told[-1] += f" {event.kind}"
            if event.kind == "wait":
                sitter.close()

        with pg.runner(on_event=on_event) as runner:
            result = runner.apply_migrations(to="003")
    until = ["001 start", "001 done", "002 start", "002 done", "003 start", "wait wait"]
    assert [one for one in told if "progress" not in one] == [*until, "003 done"]
    assert result.steps[2].seconds > 1.4


def test_without_retries_it_fails_at_once(pg: PostgresProject) -> None:
    pg.configure(backend="lock_timeout = 1\nlock_retries = 0")
    pg.query("CREATE TABLE busy ()")
    pg.add(five(m003="SELECT 1;\nALTER TABLE busy ADD a int"))
    with closing(pg.postgres.connect()) as sitter:
        sitter.cursor().execute("BEGIN; LOCK TABLE busy")
        error = failing(pg)
    assert (error.id, error.done) == ("003", ("001", "002"))
    assert error.location is not None
    assert error.location.line == 2


def test_the_lock_is_lost_in_the_middle(place: PostgresProject) -> None:
    """The one that runs does not commit, nor does any after it; those before it stay."""
    place.add(five(m003=f"CREATE TABLE t003 ();\n{PASS_GATE}"))
    with closed_gate(place) as open_gate, place.started("apply") as process:
        at_the_gate(place)
        place.query(f"SELECT pg_terminate_backend({holder(place)}, 5000)")
        open_gate()
        code, out, err = end(process)
    assert code == 1
    assert re.findall(r"^applied .*  (\S+)$", out, re.MULTILINE) == ["001", "002"]
    assert err.startswith("error: migrations/003.sql: applying 003 failed: the migration lock was ")
    assert err.endswith("state: rolled back; the database is as it was before 003\n")
    assert (place.tables(), place.applied()) == (tables("001", "002"), ["001", "002"])
    assert place.apply().applied == FIVE[2:]


def test_a_session_that_has_the_lock_s_pid_is_not_its_holder(pg: PostgresProject) -> None:
    """Another transaction has the lock by then: behind a pooler it can be in that very session."""
    pg.add(five(m003=f"CREATE TABLE t003 ();\n{PASS_GATE}"))
    with closed_gate(pg) as open_gate, pg.started("apply") as process:
        at_the_gate(pg)
        pg.query(f"SELECT pg_terminate_backend({holder(pg)}, 5000)")
        with closing(pg.postgres.connect()) as other:
            other.cursor().execute(f"SELECT pg_advisory_lock({LOCK})")
            open_gate()
            code, _, err = end(process)
    assert (code, "the migration lock was lost" in err) == (1, True)
    assert pg.applied() == ["001", "002"]


# Ends ---------------------------------------------------------------------------------------

AT_THE_GATE = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_end_in_the_middle(place: PostgresProject, name: str) -> None:
    """Those before it are applied, what ran is rolled back, none after it runs."""
    number = signal.Signals[name]
    place.add(five(m003=f"CREATE TABLE t003 ();\nSELECT pg_advisory_xact_lock({GATE});"))
    with closed_gate(place), place.started("apply") as process:
        at_the_gate(place)
        process.send_signal(number)
        out, err = process.communicate()
        if number != signal.SIGKILL:
            assert re.findall(r"^applied .*  (\S+)$", out, re.MULTILINE) == ["001", "002"]
            assert "interrupted at 003" in err
        eventually(lambda: not place.query(AT_THE_GATE), "the statement is ended")
    eventually(lambda: not place.query(LOCKS_LEFT), "nothing is locked")
    assert (place.tables(), place.applied()) == (tables("001", "002"), ["001", "002"])
    place.succeed("apply", "--lock-wait", "0")
    assert place.tables() == tables(*FIVE)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_what_takes_long_is_told_by_its_own_file_and_statement(pg: PostgresProject) -> None:
    """Also a later one of the message."""
    pg.add(five(m003=f"CREATE TABLE t003 ();\n{PASS_GATE}", m004="SELECT 1;\nSELECT pg_sleep(4);"))
    told: list[str] = []
    with closed_gate(pg) as open_gate:

        def on_event(event: Event) -> None:
            if event.progress is not None:
                told.append(event.message)
                open_gate()

        with pg.runner(on_event=on_event) as runner:
            runner.apply_migrations()
    assert told[0].startswith("migrations/003.sql:2 (2 of 2, SELECT pg_advisory_xact_lock(777)")
    assert told[-1].startswith("migrations/004.sql:2 (2 of 2, SELECT pg_sleep(4)) runs for ")


def test_many_short_ones_are_told_of_too(pg: PostgresProject) -> None:
    """None of them takes long, and their message does."""
    told: list[str] = []
    pg.add({f"{number:03}.sql": "SELECT pg_sleep(0.5)" for number in range(8)})
    with pg.runner(on_event=lambda event: told.append(event.message)) as runner:
        runner.apply_migrations()
    assert re.fullmatch(r"migrations/00\d\.sql.* runs for \d s.*", next(filter(None, told)))


MARKED = f"CREATE TABLE t002 (/* {MARK} */);"
LOOKING = "the connection broke: looking whether any of 001 to 005 took effect"


def check_done(error: MigrationApplyError, pg: PostgresProject, done: Sequence[str]) -> None:
    """What is told is what the database holds."""
    assert error.done == tuple(done)
    assert (pg.tables(), pg.applied()) == (tables(*done), list(done))


def test_the_answer_is_lost(pg: PostgresProject) -> None:
    """All of them are applied, and it says so."""
    pg.add(five(m002=MARKED))
    with breaking(pg, "after the server"):
        error = failing(pg)
    assert str(error).startswith(
        "migrations/005.sql: 005 was applied, and then the connection broke: "
    )
    assert error.state == "005 is applied, and the history says so"
    check_done(error, pg, FIVE)


@pytest.mark.parametrize("where", ["before the server", "delivered late"])
def test_the_message_is_lost(pg: PostgresProject, where: Where) -> None:
    """None of them is applied, nor is it when the message arrives after all."""
    pg.add(five(m002=MARKED))
    with breaking(pg, where) as breaker:
        error = failing(pg)
        if where == "delivered late":
            assert b"flux: the lock is lost" in breaker.deliver()
    assert str(error).startswith("migrations/001.sql: applying 001 failed: ")
    assert error.state == "rolled back; the database is as it was before 001"
    check_done(error, pg, ())
    pg.configure()
    assert pg.apply().applied == FIVE


def test_the_session_ends_in_the_middle(pg: PostgresProject) -> None:
    """Those before it are applied; the one that ran is rolled back, and it says which it was."""
    ending = "SELECT pg_terminate_backend(pg_backend_pid());"
    pg.add(five(m003=f"CREATE TABLE t003 ();\n{ending}"))
    error = failing(pg)
    assert str(error).startswith("migrations/003.sql: applying 003 failed: ")
    assert error.state == "rolled back; the database is as it was before 003"
    check_done(error, pg, ("001", "002"))


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_where_nobody_can_look_it_is_not_known(
    pg: PostgresProject, where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_outcome, "_PAUSES", (0.0, 0.1))
    pg.add(five(m002=MARKED))
    told: list[str] = []
    with (
        breaking(pg, where, refuses=True),
        pytest.raises(MigrationApplyError) as caught,
        pg.runner(on_event=lambda event: told.append(event.message)) as runner,
    ):
        runner.apply_migrations()
    assert caught.value.state == (
        "the connection broke, and whether any of 001 to 005 took effect is not known; "
        "`flux status` tells"
    )
    assert caught.value.done == ()
    assert LOOKING in told


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_behind_the_pooler(pg_pooled: PostgresProject, pgbouncer: PgBouncer, where: Where) -> None:
    """The pooler, which outlives its client, passes the message on or never has it."""
    pg_pooled.add(five(m002=MARKED))
    with breaking(pg_pooled, where, port=pgbouncer.port):
        error = failing(pg_pooled)
    check_done(error, pg_pooled, FIVE if where == "after the server" else ())


def test_a_rollback_whose_answer_is_lost(pg: PostgresProject) -> None:
    pg.add({**five(), **undos(), "003.undo.sql": "DROP /* break here */ TABLE t003;"})
    pg.apply()
    with breaking(pg, "after the server"), pytest.raises(MigrationApplyError) as caught:
        pg.rollback(4)
    assert caught.value.state == "002 is rolled back, and the history says so"
    assert caught.value.done == FIVE[:0:-1]
    assert (pg.tables(), pg.applied()) == (["t001"], ["001"])
