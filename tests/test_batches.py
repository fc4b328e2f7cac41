"""Repeatables around batches, and batches that were cut off: none of their work is forgotten."""

from __future__ import annotations

import os

import pytest

from tests.flux_process import FluxResult
from tests.project import Project

# What ran is noted in a table that a migration of its own makes, in the order it ran.
LOG = "CREATE TABLE ran (what TEXT);"


def note(what: str) -> str:
    return f"INSERT INTO ran VALUES ('{what}');\n"


def ran(project: Project) -> list[str]:
    """What has run since this was asked the last time, in order."""
    rows = project.query("SELECT what FROM ran ORDER BY rowid")
    project.query("DELETE FROM ran")
    return [what for (what,) in rows]


@pytest.fixture
def logged(project: Project) -> Project:
    """A project with a repeatable on either side of its migrations."""
    project.query(LOG)
    project.add(
        {
            "001.sql": note("001"),
            "001.undo.sql": note("undo 001"),
            "002.sql": note("002"),
            "002.undo.sql": note("undo 002"),
            "pre-apply/a.sql": note("pre a"),
            "pre-apply/b.sql": note("pre b"),
            "post-apply/a.sql": note("post a"),
            "post-apply/b.py": "def apply(connection):\n"
            "    connection.execute(\"INSERT INTO ran VALUES ('post b')\")\n",
        }
    )
    return project


AROUND = ("pre a", "pre b"), ("post a", "post b")


def around(*what: str) -> list[str]:
    before, after = AROUND
    return [*before, *what, *after]


# Around a batch -----------------------------------------------------------------------------


def test_repeatables_run_around_each_batch_and_only_then(logged: Project) -> None:
    assert logged.succeed("apply", "1").endswith("\n1 migration applied\n")
    assert ran(logged) == around("001")
    logged.succeed("apply")
    assert ran(logged) == around("002")
    assert logged.succeed("apply") == "nothing to do\n"
    assert ran(logged) == []
    logged.succeed("rollback", "--all", "-y")
    assert ran(logged) == around("undo 002", "undo 001")
    assert logged.succeed("rollback", "-y") == "nothing to do\n"
    assert ran(logged) == []


def test_rollback_leaves_repeatables_out_when_the_configuration_says_so(logged: Project) -> None:
    logged.configure("apply_repeatable_on_undo = false")
    logged.succeed("apply")
    assert ran(logged) == around("001", "002")
    logged.succeed("rollback", "-y")
    assert ran(logged) == ["undo 002"]


def test_a_plan_shows_the_repeatables_too(logged: Project) -> None:
    assert logged.succeed("plan") == (
        "run    pre-apply/a\n"
        "run    pre-apply/b\n"
        "apply  001\n"
        "apply  002\n"
        "run    post-apply/a\n"
        "run    post-apply/b\n"
    )


@pytest.mark.parametrize(
    ("prepare", "command"),
    [
        pytest.param(["apply"], ["apply"], id="all is applied"),
        pytest.param(["apply"], ["apply", "0"], id="none is asked for"),
        pytest.param(["apply"], ["apply", "--to", "001"], id="up to one that is applied"),
        pytest.param(["apply"], ["rollback", "0", "-y"], id="none is to be undone"),
        pytest.param(["apply"], ["rollback", "--to", "002", "-y"], id="the newest stays"),
        pytest.param([], ["rollback", "-y"], id="none is applied"),
    ],
)
def test_with_nothing_to_do_nothing_is_locked_and_nothing_written(
    logged: Project, prepare: list[str], command: list[str]
) -> None:
    """Not a byte of the database changes, and no lock is taken: there is no file for it."""
    if prepare:
        logged.succeed(*prepare)
    lock = logged.root / "app.db-flux-lock"
    lock.unlink(missing_ok=True)
    before = logged.files()
    assert logged.succeed(*command) == "nothing to do\n"
    assert logged.files() == before


def test_without_any_migration_no_database_is_made(project: Project) -> None:
    project.add({"pre-apply/a.sql": "SELECT 1", "post-apply/a.sql": "SELECT 1"})
    before = project.files()
    assert project.succeed("apply") == "nothing to do\n"
    assert project.succeed("status") == "no migrations\n"
    assert project.files() == before


# On change ----------------------------------------------------------------------------------


def test_on_change_runs_only_when_its_text_differs_from_its_last_run(logged: Project) -> None:
    name = "post-apply/c.sql"
    logged.add({name: "-- flux: on-change\n" + note("c1")})
    logged.succeed("apply", "1")
    assert ran(logged) == [*around("001"), "c1"]
    logged.succeed("apply")
    assert ran(logged) == around("002")
    # A change of it makes a batch, of which the other repeatables are part.
    logged.add({name: "-- flux: on-change\n" + note("c2")})
    assert logged.succeed("apply").endswith("\n5 repeatables run\n")
    assert ran(logged) == [*around(), "c2"]
    assert logged.succeed("apply") == "nothing to do\n"
    # Line endings are no change, and neither is white space at the end.
    logged.add({name: ("-- flux: on-change\n" + note("c2")).replace("\n", "\r\n") + "\r\n"})
    assert logged.succeed("apply") == "nothing to do\n"
    # Back to what once ran is a change again.
    logged.add({name: "-- flux: on-change\n" + note("c1")})
    logged.succeed("apply")
    assert ran(logged) == [*around(), "c1"]


def test_status_tells_of_a_change_that_is_due(logged: Project) -> None:
    """`status --check` says whether `apply` would do anything."""
    logged.add({"post-apply/c.sql": "-- flux: on-change\nSELECT 1"})
    logged.succeed("apply")
    logged.succeed("status", "--check")
    logged.add({"post-apply/c.sql": "-- flux: on-change\nSELECT 2"})
    result = logged.run("status", "--check")
    assert (result.code, result.out.splitlines()[-2]) == (3, "changed    post-apply/c")


def test_a_rollback_leaves_on_change_to_the_next_apply_which_runs_all(logged: Project) -> None:
    """What they made may be gone with what was rolled back."""
    logged.add(
        {
            "pre-apply/c.sql": "-- flux: on-change\n" + note("pre c"),
            "post-apply/c.sql": "-- flux: on-change\n" + note("post c"),
        }
    )
    logged.succeed("apply")
    assert ran(logged) == ["pre a", "pre b", "pre c", "001", "002", "post a", "post b", "post c"]
    logged.add({"post-apply/c.sql": "-- flux: on-change\n" + note("post c2")})
    logged.succeed("rollback", "-y")
    assert ran(logged) == around("undo 002")
    status = logged.run("status", "--check")
    assert (status.code, status.out.splitlines()[2:4]) == (
        3,
        ["changed    pre-apply/c", "changed    post-apply/c"],
    )
    logged.succeed("apply")
    assert ran(logged) == ["pre a", "pre b", "pre c", "002", "post a", "post b", "post c2"]
    assert logged.succeed("apply") == "nothing to do\n"


def test_on_change_that_fails_is_due_again(logged: Project) -> None:
    name = "pre-apply/c.sql"
    logged.add({name: "-- flux: on-change\n" + note("c1") + "FAIL;\n"})
    assert logged.fail("apply") == (
        'error: migrations/pre-apply/c.sql:3: running pre-apply/c failed: near "FAIL": syntax '
        "error\n"
        "    3 | FAIL;\n"
        "done before it: pre-apply/a, pre-apply/b\n"
        "state: pre-apply/c is rolled back; what was done before it stays\n"
    )
    assert ran(logged) == ["pre a", "pre b"]
    logged.add({name: "-- flux: on-change\n" + note("c2")})
    logged.succeed("apply")
    assert ran(logged) == ["pre a", "pre b", "c2", "001", "002", "post a", "post b"]
    assert logged.succeed("apply") == "nothing to do\n"


def test_on_change_is_refused_for_a_migration(project: Project) -> None:
    project.add({"001.sql": "-- flux: on-change\nSELECT 1"})
    assert project.fail("apply") == (
        "error: migrations/001.sql: on-change is for repeatables; a migration runs once\n"
        "hint: remove it, or move the file to pre-apply/ or post-apply/\n"
    )
    assert not project.database.exists()


def test_a_repeatable_without_a_transaction(logged: Project) -> None:
    logged.add(
        {"post-apply/c.sql": "-- flux: no-transaction on-change\nVACUUM;\n" + note("vacuumed")}
    )
    logged.succeed("apply")
    assert ran(logged) == [*around("001", "002"), "vacuumed"]
    assert logged.succeed("apply") == "nothing to do\n"


# Cut off ------------------------------------------------------------------------------------

UNFINISHED = "the last batch stopped before its post-apply scripts ran; `flux apply` finishes it\n"
FINISHES = "a batch stopped before its post-apply scripts ran; this finishes it:\n"


def test_after_a_failure_post_apply_does_not_run_and_is_remembered(logged: Project) -> None:
    logged.add({"003.sql": "FAIL;"})
    assert "done before it: pre-apply/a, pre-apply/b, 001, 002\n" in logged.fail("apply")
    assert ran(logged) == ["pre a", "pre b", "001", "002"]
    assert UNFINISHED in logged.succeed("status")
    assert logged.run("status", "--check").code == 3

    # Without the migration that failed there is nothing pending, and the batch is finished.
    (logged.root / "migrations" / "003.sql").unlink()
    assert logged.run("status", "--check").code == 3
    assert logged.succeed("plan") == FINISHES + "run    post-apply/a\nrun    post-apply/b\n"
    assert logged.succeed("apply").endswith("\n2 repeatables run\n")
    assert ran(logged) == ["post a", "post b"]
    assert UNFINISHED not in logged.succeed("status", "--check")
    assert logged.succeed("apply") == "nothing to do\n"


def test_a_batch_of_which_nothing_took_effect_leaves_nothing_to_finish(logged: Project) -> None:
    logged.add({"001.sql": "FAIL;"})
    logged.fail("apply")
    assert ran(logged) == ["pre a", "pre b"]
    assert UNFINISHED not in logged.succeed("status")
    logged.add({"001.sql": note("001")})
    logged.succeed("apply")
    assert ran(logged) == around("001", "002")


def test_post_apply_that_fails_is_run_again(logged: Project) -> None:
    """The next apply runs all of them, the ones that had gone well included."""
    logged.add({"post-apply/b.py": "def apply(connection):\n    raise ValueError('no')\n"})
    assert logged.fail("apply") == (
        "error: migrations/post-apply/b.py:2: running post-apply/b failed: ValueError: no\n"
        "    2 |     raise ValueError('no')\n"
        "done before it: pre-apply/a, pre-apply/b, 001, 002, post-apply/a\n"
        "state: post-apply/b is rolled back; what was done before it stays\n"
    )
    assert ran(logged) == ["pre a", "pre b", "001", "002", "post a"]
    for _ in range(2):
        assert logged.fail("apply").startswith("error: migrations/post-apply/b.py:2")
        assert ran(logged) == ["post a"]
    logged.add({"post-apply/b.py": f"def apply():\n    return {note('post b')!r}\n"})
    logged.succeed("apply")
    assert ran(logged) == ["post a", "post b"]
    assert logged.succeed("apply") == "nothing to do\n"


def test_a_rollback_that_is_cut_off_is_finished_by_the_next_apply(logged: Project) -> None:
    logged.succeed("apply")
    ran(logged)
    logged.add({"001.undo.sql": "FAIL;"})
    logged.fail("rollback", "--all", "-y")
    assert ran(logged) == ["pre a", "pre b", "undo 002"]
    assert UNFINISHED in logged.succeed("status")
    logged.succeed("apply", "--to", "001")
    assert ran(logged) == ["post a", "post b"]
    logged.succeed("apply")
    assert ran(logged) == around("002")


DIES = """
import os, signal

def apply(connection):
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    connection.execute("INSERT INTO ran VALUES ('{what}')")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows: another way to end a process")
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        pytest.param(
            "pre-apply/b", ["pre a"], [*around("001", "002"), "post c"], id="before migrations"
        ),
        pytest.param(
            "002",
            ["pre a", "pre b", "001"],
            ["pre a", "pre b", "002", "post a", "post b", "post c"],
            id="between migrations",
        ),
        pytest.param(
            "post-apply/a",
            ["pre a", "pre b", "001", "002"],
            ["post a", "post b", "post c"],
            id="after all migrations",
        ),
        pytest.param(
            "post-apply/c",
            ["pre a", "pre b", "001", "002", "post a", "post b"],
            ["post a", "post b", "post c"],
            id="at the last step",
        ),
    ],
)
def test_a_batch_that_was_killed_is_finished_by_the_next_apply(
    logged: Project, name: str, before: list[str], after: list[str]
) -> None:
    (logged.root / "migrations" / f"{name}.sql").unlink(missing_ok=True)
    (logged.root / "migrations" / f"{name}.undo.sql").unlink(missing_ok=True)
    what = name.replace("-apply/", " ")
    logged.add({"post-apply/c.sql": note("post c")} if name != "post-apply/c" else {})
    logged.add({f"{name}.py": DIES.format(what=what)})
    assert logged.run("apply", env={"DIE": "1"}).code == -9
    assert ran(logged) == before
    assert UNFINISHED in logged.succeed("status")
    logged.succeed("apply")
    assert ran(logged) == after
    assert logged.succeed("apply") == "nothing to do\n"


def test_of_many_that_finish_a_batch_one_does(logged: Project) -> None:
    logged.add({"003.sql": "FAIL;"})
    logged.fail("apply")
    (logged.root / "migrations" / "003.sql").unlink()
    ran(logged)
    with logged.started("apply") as one, logged.started("apply") as other:
        ended = [one.communicate(), other.communicate()]
    assert (one.returncode, other.returncode) == (0, 0), ended
    assert ran(logged) == ["post a", "post b"]


# When the configuration wants post-apply after a failure ------------------------------------


def test_post_apply_on_failure(logged: Project) -> None:
    """It runs after the failure, once, and nothing is left to be finished."""
    logged.configure("post_apply_on_failure = true")
    logged.add({"002.sql": "FAIL;"})
    assert logged.fail("apply") == (
        'error: migrations/002.sql:1: applying 002 failed: near "FAIL": syntax error\n'
        "    1 | FAIL;\n"
        "done before it: pre-apply/a, pre-apply/b, 001\n"
        "state: rolled back; the database is as it was before 002\n"
    )
    assert ran(logged) == around("001")
    assert UNFINISHED not in logged.succeed("status")


def test_post_apply_that_fails_after_a_failure_does_not_hide_it(logged: Project) -> None:
    """A view over a table that the failed migration was to make fails as well."""
    logged.configure("post_apply_on_failure = true")
    logged.add(
        {
            "002.sql": "FAIL;",
            "post-apply/aa.sql": "CREATE VIEW v AS SELECT x FROM ran;\nSELECT * FROM v;",
        }
    )
    assert logged.fail("apply") == (
        'error: migrations/002.sql:1: applying 002 failed: near "FAIL": syntax error\n'
        "    1 | FAIL;\n"
        "done before it: pre-apply/a, pre-apply/b, 001\n"
        "state: rolled back; the database is as it was before 002; after that, running "
        "post-apply/aa failed: no such column: x\n"
    )
    assert ran(logged) == ["pre a", "pre b", "001", "post a"]
    assert UNFINISHED in logged.succeed("status")


def test_post_apply_that_failed_by_itself_stays_to_be_finished(logged: Project) -> None:
    logged.configure("post_apply_on_failure = true")
    logged.add({"post-apply/a.sql": "FAIL;"})
    assert "running post-apply/a failed" in logged.fail("apply")
    assert ran(logged) == ["pre a", "pre b", "001", "002"]
    assert UNFINISHED in logged.succeed("status")
    logged.add({"post-apply/a.sql": note("post a")})
    logged.succeed("apply")
    assert ran(logged) == ["post a", "post b"]


# Problems stop a batch before its first repeatable ------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [
        pytest.param(
            {"001.sql": "SELECT 'changed';"},
            4,
            "error: history and migration directory disagree\n"
            "- migrations/001.sql: 001 is divergent: it has changed since it was applied\n"
            "  hint: restore the file as it was applied, and put the change into a new migration"
            "; or roll back to before it, and change it then\n",
            id="divergent",
        ),
        pytest.param(
            {"000.sql": "SELECT 1;"},
            4,
            "error: history and migration directory disagree\n"
            "- migrations/000.sql: 000 is late: it is pending, and 001, which is newer, is "
            "applied\n"
            "  hint: if it is applied nowhere yet, rename it so that it sorts last; or roll back "
            "what is newer, and apply again; or let `flux test --late` prove that their order "
            "does not matter, and give `--allow-late`\n",
            id="late",
        ),
        pytest.param(
            {"002.sql": "COMMIT;"},
            1,
            "error: migrations/002.sql:1:1: COMMIT inside a migration, which flux runs in a "
            "transaction of its own\n"
            "    1 | COMMIT;\n"
            "      | ^\n"
            "hint: remove it, or run the whole file without a transaction: -- flux: "
            "no-transaction\n",
            id="a script that cannot run",
        ),
        pytest.param(
            {"post-apply/a.sql": "COMMIT;"},
            1,
            "error: migrations/post-apply/a.sql:1:1: COMMIT inside a migration, which flux runs "
            "in a transaction of its own\n"
            "    1 | COMMIT;\n"
            "      | ^\n"
            "hint: remove it, or run the whole file without a transaction: -- flux: "
            "no-transaction\n",
            id="a repeatable that cannot run",
        ),
    ],
)
def test_a_problem_stops_apply_before_anything_runs(
    logged: Project, change: dict[str, str], code: int, error: str
) -> None:
    logged.succeed("apply", "1")
    ran(logged)
    logged.add(change)
    assert logged.fail("apply", code=code) == error
    assert ran(logged) == []
    assert logged.applied() == ["001"]


def test_all_that_disagrees_is_told_together_and_stops_rollback_where_it_matters(
    logged: Project,
) -> None:
    logged.add({f"{id}.sql": note(id) for id in ("003", "004")})
    logged.add({f"{id}.undo.sql": note(f"undo {id}") for id in ("003", "004")})
    logged.succeed("apply")
    ran(logged)
    logged.add({"001.sql": "SELECT 'changed'", "001b.sql": "SELECT 1"})
    (logged.root / "migrations" / "003.sql").unlink()
    (logged.root / "migrations" / "003.undo.sql").unlink()

    for command in (["apply"], ["apply", "0"], ["rollback", "--all", "-y"]):
        error = logged.fail(*command, code=4)
        assert "001 is divergent" in error
        assert "003 is missing" in error
        assert ("001b is late" in error) == (command[0] == "apply"), "late ones stay pending"
    for command in (["status"], ["validate"]):
        result = logged.run(*command)
        assert result.code == 4
        assert all(word in result.out for word in ("divergent", "missing", "late"))
    assert ran(logged) == []

    # The newest one is in order, and so can be undone.
    logged.succeed("rollback", "-y")
    assert ran(logged) == around("undo 004")
    assert logged.applied() == ["001", "002", "003"]


def test_a_database_that_is_newer_may_be_allowed(logged: Project) -> None:
    """During a rollout old replicas meet migrations they do not have."""
    logged.add({"003.sql": note("003")})
    logged.succeed("apply")
    (logged.root / "migrations" / "003.sql").unlink()
    assert "003 is missing" in logged.fail("apply", code=4)

    logged.configure('missing = "allow-newer"')
    assert logged.run("apply") == FluxResult(
        0, "nothing to do\n", "flux: the database is newer than this directory: it also has 003\n"
    )
    assert "missing    003" in logged.succeed("status", "--check")
    logged.succeed("validate")
    assert "003 is missing" in logged.fail("rollback", "-y", code=4)
    assert logged.applied() == ["001", "002", "003"]


def test_a_migration_without_an_undo_is_not_forgotten(logged: Project) -> None:
    logged.add({"003.sql": note("003")})
    logged.succeed("apply")
    ran(logged)
    assert logged.fail("rollback", "2", "-y") == (
        "error: 003 cannot be rolled back: there is no undo\n"
        "- migrations/003.sql: has no undo\n"
        "hint: write one: ID.undo.sql beside ID.sql, or undo() in a Python migration; a comment "
        "alone will do where nothing needs undoing\n"
    )
    assert ran(logged) == []
    assert logged.applied() == ["001", "002", "003"]
