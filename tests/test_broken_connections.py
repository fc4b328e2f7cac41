"""Connections that break while COMMIT is on its way: what is told is what the database holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

import flux
from flux.backends import postgres_outcome
from flux.exceptions import MigrationApplyError
from flux.results import Event
from tests import driver
from tests.pgbouncer import PgBouncer
from tests.postgres_project import PostgresProject
from tests.wire import Breaker, Where, breaking_proxy

#: Stands in the text of what is to break: the connection does at the COMMIT after it.
MARK = "break here"
TEXT = f"CREATE TABLE t (/* {MARK} */);"
PYTHON = f"""
def apply(connection):
    connection.cursor().execute("CREATE TABLE t () /* {MARK} */")


def undo(connection):
    connection.cursor().execute("DROP TABLE t /* undone */")
"""
#: Neighbours that share no message with another one.
NEIGHBOURS = {
    f"{id}.py": f"""
def apply(connection):
    connection.cursor().execute("CREATE TABLE {table} ()")


def undo(connection):
    connection.cursor().execute("DROP TABLE {table}")
"""
    for id, table in (("001", "s"), ("003", "u"))
}
APPLIED = "migrations/{}: 002 was applied, and then the connection broke: "
ROLLED_BACK = "state: rolled back; the database is as it was before 002"
LOOKING = "the connection broke: looking whether 002 took effect"


@contextmanager
def breaking(
    pg: PostgresProject, where: Where, *, start: str = MARK, port: int = 0, refuses: bool = False
) -> Iterator[Breaker]:
    """The project's wire, which breaks at the first COMMIT after `start`."""
    server = pg.postgres.server
    with breaking_proxy(
        server.host,
        port or server.port,
        where,
        start=start.encode(),
        end=b"COMMIT",
        refuses=refuses,
    ) as breaker:
        config = (pg.root / "flux.toml").read_text()
        place = f"@127.0.0.1:{port or server.port}/"
        assert place in config
        pg.write("flux.toml", config.replace(place, f"@127.0.0.1:{breaker.port}/"))
        yield breaker


def apply_failing(pg: PostgresProject) -> MigrationApplyError:
    """What an `apply`, which must fail, raises."""
    error = pg.exception()
    assert isinstance(error, MigrationApplyError)
    return error


@pytest.fixture(params=["text", "Python"])
def second(request: pytest.FixtureRequest, pg: PostgresProject) -> str:
    """The name of the second of three migrations, at which the connection breaks."""
    pg.add(NEIGHBOURS)
    if request.param == "Python":
        pg.add({"002.py": PYTHON})
        return "002.py"
    pg.add({"002.sql": TEXT, "002.undo.sql": "DROP /* undone */ TABLE t;"})
    return "002.sql"


def test_a_commit_that_arrived_is_told_as_applied(pg: PostgresProject, second: str) -> None:
    """Its answer was lost. The next run goes on with what comes after it."""
    with breaking(pg, "after the server"):
        error = apply_failing(pg)
    assert str(error).startswith(APPLIED.format(second))
    assert str(error).endswith(
        "\nhint: run it again for what comes after it\n"
        "done before it: 001\n"
        "state: 002 is applied, and the history says so"
    )
    assert (error.id, error.done) == ("002", ("001", "002"))
    assert (pg.tables(), pg.applied()) == (["s", "t"], ["001", "002"])
    pg.configure()
    assert pg.apply().applied == ("003",)


@pytest.mark.parametrize("where", ["before the server", "delivered late"])
def test_a_commit_that_never_arrived_is_told_as_rolled_back(
    pg: PostgresProject, second: str, where: Where
) -> None:
    """Nor can it come true afterwards: what is delivered late finds the lock lost, or no client."""
    with breaking(pg, where) as breaker:
        error = apply_failing(pg)
        assert str(error).startswith(f"migrations/{second}")
        assert ": applying 002 failed: " in str(error)
        assert str(error).endswith(f"\ndone before it: 001\n{ROLLED_BACK}")
        assert error.done == ("001",)
        if where == "delivered late":
            answer = breaker.deliver()
            # Of a function's transaction, which has begun, the session is ended.
            assert (b"flux: the lock is lost" in answer) == (second == "002.sql")
    assert (pg.tables(), pg.applied()) == (["s"], ["001"])
    pg.configure()
    assert pg.apply().applied == ("002", "003")


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_a_rollback_whose_commit_was_on_its_way(
    pg: PostgresProject, second: str, where: Where
) -> None:
    pg.apply()
    with breaking(pg, where, start="undone"), pytest.raises(MigrationApplyError) as caught:
        pg.rollback(2)
    if where == "after the server":
        name = second if second == "002.py" else "002.undo.sql"
        assert str(caught.value).startswith(
            f"migrations/{name}: 002 was rolled back, and then the connection broke: "
        )
        assert str(caught.value).endswith("\nstate: 002 is rolled back, and the history says so")
        assert caught.value.done == ("003", "002")
        assert (pg.tables(), pg.applied()) == (["s"], ["001"])
    else:
        assert ": undoing 002 failed: " in str(caught.value)
        assert str(caught.value).endswith(f"\ndone before it: 003\n{ROLLED_BACK}")
        assert caught.value.done == ("003",)
        assert (pg.tables(), pg.applied()) == (["s", "t"], ["001", "002"])


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_the_json_of_a_broken_commit(pg: PostgresProject, second: str, where: Where) -> None:
    """`steps`, `done` and `state` agree, and it is still a failure: the batch did not end."""
    with breaking(pg, where):
        result = pg.run("apply", "--json")
    assert (result.code, result.err) == (1, f"flux: {LOOKING}\n")
    document = json.loads(result.out)
    done = ["001", "002"] if where == "after the server" else ["001"]
    assert document["ok"] is False
    assert [step["name"] for step in document["steps"]] == done
    assert document["error"]["done"] == done
    assert document["error"]["type"] == "MigrationApplyError"
    assert document["error"]["state"] == (
        "002 is applied, and the history says so"
        if where == "after the server"
        else ROLLED_BACK.removeprefix("state: ")
    )
    assert pg.applied() == done


def test_the_lines_of_a_broken_commit(pg: PostgresProject, second: str) -> None:
    """The step that took effect has its line among those that are done."""
    with breaking(pg, "after the server"):
        result = pg.run("apply")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == ["applied", "applied"]
    told, _, rest = result.err.partition("\n")
    assert told == f"flux: {LOOKING}"
    assert rest.startswith(f"error: {APPLIED.format(second)}")


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_a_connection_that_was_handed_in(pg: PostgresProject, second: str, where: Where) -> None:
    """Another one is opened from what it knew of itself."""
    with breaking(pg, where):
        url = pg.runner().config.resolve_url()
        with closing(driver.connect(url)) as connection, pytest.raises(MigrationApplyError) as e:
            flux.apply(connection, config="flux.toml")
    applied = ("001", "002") if where == "after the server" else ("001",)
    assert e.value.done == applied
    assert tuple(pg.applied()) == applied


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_behind_the_pooler(pg_pooled: PostgresProject, pgbouncer: PgBouncer, where: Where) -> None:
    """The pooler, which outlives its client, passes the message on or never has it."""
    pg_pooled.add({**NEIGHBOURS, "002.sql": TEXT})
    with breaking(pg_pooled, where, port=pgbouncer.port):
        error = apply_failing(pg_pooled)
    applied = ("001", "002") if where == "after the server" else ("001",)
    assert error.done == applied
    assert tuple(pg_pooled.applied()) == applied


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_an_on_change_repeatable_is_told_by_its_last_run(pg: PostgresProject, where: Where) -> None:
    pg.add({"001.sql": "SELECT 1", "post-apply/v.sql": f"-- flux: on-change\n{TEXT}"})
    with breaking(pg, where):
        error = apply_failing(pg)
    if where == "after the server":
        assert str(error).startswith(
            "migrations/post-apply/v.sql: post-apply/v ran, and then the connection broke: "
        )
        assert error.state == "post-apply/v ran, and is remembered to have run"
        assert (error.done, pg.tables()) == (("001", "post-apply/v"), ["t"])
    else:
        assert error.state == "post-apply/v is rolled back; what was done before it stays"
        assert (error.done, pg.tables()) == (("001",), [])
    pg.configure()
    assert [step.name for step in pg.apply().steps] == (
        [] if where == "after the server" else ["post-apply/v"]
    )


def test_of_other_repeatables_nothing_tells(pg: PostgresProject) -> None:
    """And the next batch runs them again, as it always does."""
    pg.add(
        {"001.sql": "SELECT 1", "post-apply/v.sql": TEXT.replace("TABLE", "TABLE IF NOT EXISTS")}
    )
    with breaking(pg, "after the server"):
        error = apply_failing(pg)
    assert error.state == (
        "the connection broke, and whether post-apply/v took effect is not known; it runs again "
        "in the next batch"
    )
    pg.configure()
    assert [step.name for step in pg.apply().steps] == ["post-apply/v"]


@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_without_another_connection_it_is_not_known(
    pg: PostgresProject, second: str, where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_outcome, "_PAUSES", (0.0, 0.1))
    with breaking(pg, where, refuses=True):
        error = apply_failing(pg)
    assert error.state == (
        "the connection broke, and whether 002 took effect is not known; `flux status` tells"
    )
    assert error.done == ("001",)


def test_a_statement_that_does_not_end_is_not_waited_for_for_ever(
    pg: PostgresProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence is held, as by a statement that still runs: what became of it is not known yet."""
    monkeypatch.setattr(postgres_outcome, "_FENCE_WITHIN", 1)
    pg.add({**NEIGHBOURS, "002.sql": TEXT})
    with ExitStack() as stack:
        runner = pg.runner(on_event=lambda event: hold_fence(event))
        lock = runner.backend.lock.take_fence  # type: ignore[attr-defined]  # it is PostgreSQL's

        def hold_fence(event: Event) -> None:
            if event.message == LOOKING:
                other = stack.enter_context(closing(pg.postgres.connect()))
                other.cursor().execute(f"BEGIN; {lock}")

        with breaking(pg, "before the server"):
            runner = pg.runner(on_event=lambda event: hold_fence(event))
            with runner, pytest.raises(MigrationApplyError) as caught:
                runner.apply_migrations()
    assert caught.value.state.endswith("002 took effect is not known; `flux status` tells")


@pytest.mark.parametrize("handed_in", [True, False], ids=["handed in", "of its own"])
@pytest.mark.parametrize("directive", ["", "# flux: lock-timeout=1\n"])
def test_a_session_that_is_ended_in_mid_statement_is_rolled_back(
    pg: PostgresProject, second: str, directive: str, handed_in: bool
) -> None:
    ending = "SELECT pg_terminate_backend(pg_backend_pid())"
    if second == "002.py":
        body = PYTHON.replace(
            '    connection.cursor().execute("CREATE TABLE t () /*', "    pass  #"
        )
        pg.add(
            {"002.py": directive + body.replace("pass", f"connection.cursor().execute('{ending}')")}
        )
    else:
        pg.add({"002.sql": f"CREATE TABLE t ();\n{ending};"})
    connection = driver.connect(pg.postgres.url) if handed_in else None
    with pytest.raises(MigrationApplyError) as caught:
        flux.apply(connection, config="flux.toml")
    assert caught.value.state == ROLLED_BACK.removeprefix("state: ")
    assert (caught.value.done, pg.tables(), pg.applied()) == (("001",), ["s"], ["001"])


def test_an_undo_whose_session_is_ended_is_rolled_back(pg: PostgresProject) -> None:
    pg.add(
        {
            "001.sql": "CREATE TABLE t ();",
            "001.undo.sql": "DROP TABLE t; SELECT pg_terminate_backend(pg_backend_pid());",
        }
    )
    pg.apply()
    with pytest.raises(MigrationApplyError) as caught:
        pg.rollback()
    assert caught.value.state == "rolled back; the database is as it was before 001"
    assert (pg.tables(), pg.applied()) == (["t"], ["001"])


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(lambda: "connection.close()", id="closes"),
        pytest.param(
            lambda: "cursor.execute('SELECT pg_terminate_backend(pg_backend_pid())')", id="is ended"
        ),
    ],
)
def test_a_python_migration_that_commits_and_then_loses_its_connection(
    pg: PostgresProject, ending: Callable[[], str]
) -> None:
    """What it committed itself is not told as rolled back."""
    pg.add(
        {
            "001.py": "def apply(connection):\n    cursor = connection.cursor()\n"
            f"    cursor.execute('CREATE TABLE t ()')\n    connection.commit()\n    {ending()}\n"
        }
    )
    error = apply_failing(pg)
    assert ": applying 001 failed: it ended the transaction that flux runs it in" in str(error)
    assert error.state == "what it committed is in the database, and the history does not say so"
    assert (pg.tables(), pg.applied()) == (["t"], [])


def test_after_a_broken_connection_post_apply_is_left_to_the_next_run(pg: PostgresProject) -> None:
    """Also where it is to run after failures: there is no connection to run it on."""
    pg.configure("post_apply_on_failure = true")
    pg.add({"001.sql": TEXT, "post-apply/v.sql": "CREATE TABLE IF NOT EXISTS v ();"})
    with breaking(pg, "after the server"):
        error = apply_failing(pg)
    assert error.state == "001 is applied, and the history says so"
    assert pg.tables() == ["t"]
    pg.configure()
    assert [step.name for step in pg.apply().steps] == ["post-apply/v"]
    assert pg.tables() == ["t", "v"]
