"""The journal on SQLite: runs that were cut off, and the next one, by every backend's rules."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.project import HANGS_AFTER, Project

NO_TRANSACTION = "-- flux: no-transaction\n"
COUNT = "UPDATE counter SET n = n + 1;\n"
#: It runs until it is killed.
ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "INSERT INTO counter SELECT count(*) FROM c;\n"
)


@pytest.fixture
def counting(project: Project) -> Project:
    """A project with a counter."""
    project.add({"000.sql": "CREATE TABLE counter (n); INSERT INTO counter VALUES (0);"})
    project.succeed("apply")
    return project


def counted(project: Project) -> int:
    """How often the migrations have counted."""
    [(n,)] = project.query("SELECT n FROM counter")
    return int(n)


def rows(project: Project) -> list[tuple[str, str]]:
    """The rows of the journal: their names and states."""
    found = project.query("SELECT name, value FROM _flux_migrations_state ORDER BY name")
    return [(name, json.loads(value)["state"]) for name, value in found]


def kill_when(project: Project, process: subprocess.Popen[str], finished: int) -> None:
    """Kill flux when so many units are noted, and it has had the time to go on."""
    deadline = time.monotonic() + HANGS_AFTER
    while not project.query(
        "SELECT 1 FROM sqlite_master WHERE name = '_flux_migrations_state'"
    ) or (len(rows(project)) < finished):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.wait()


def test_a_killed_run_is_gone_on_with(counting: Project) -> None:
    """What is done stays, what was cut off leaves nothing, and is mended before it runs again."""
    text = f"{NO_TRANSACTION}PRAGMA recursive_triggers = 1;\n{COUNT}VACUUM;\n{COUNT}"
    counting.add({"001.sql": text + ENDLESS + COUNT})
    with counting.started("apply") as process:
        kill_when(counting, process, 3)
    assert rows(counting) == [(f"journal:apply:{unit}:001", "finished") for unit in (1, 2, 3)]
    assert counting.succeed("status") == (
        f"applied    000  {_applied_at(counting)}\n"
        "pending    001\n"
        "           half applied: `flux apply` goes on with statement 5\n"
        "2 migrations: 1 applied, 1 pending\n"
    )
    counting.add({"001.sql": text + COUNT})
    counting.succeed("apply")
    assert (counted(counting), counting.applied(), rows(counting)) == (3, ["000", "001"], [])


def _applied_at(project: Project) -> str:
    [(at,)] = project.query("SELECT applied_at FROM _flux_migrations WHERE id = '000'")
    return f"{at[:19]}+00:00"


def test_settings_are_made_again(counting: Project) -> None:
    """A run that goes on has those that stand above, as the first one had."""
    head = f"{NO_TRANSACTION}PRAGMA foreign_keys = 1;\nATTACH ':memory:' AS side;\n"
    text = (
        f"{head}CREATE TABLE parent (id INTEGER PRIMARY KEY);\n"
        "CREATE TABLE child (id REFERENCES parent);\n"
    )
    counting.add({"001.sql": f"{text}INSERT INTO child VALUES (1);\n"})
    assert "FOREIGN KEY constraint failed" in counting.fail("apply")
    assert "FOREIGN KEY constraint failed" in counting.fail("apply")
    counting.add({"001.sql": f"{text}CREATE TABLE side.t (a);\nDETACH side;\n"})
    counting.succeed("apply")


def test_settings_at_the_end_are_made(project: Project) -> None:
    """Also where a file has nothing else; and one that is wrong is an error."""
    project.add({"001.sql": f"{NO_TRANSACTION}PRAGMA journal_mode = WAL;\n"})
    project.succeed("apply")
    assert project.query("PRAGMA journal_mode") == [("wal",)]
    project.add({"002.sql": f"{NO_TRANSACTION}CREATE TABLE t (a);\nPRAGMA user_version = 7;\n"})
    project.succeed("apply")
    assert project.query("PRAGMA user_version") == [(7,)]
    project.add({"003.sql": f"{NO_TRANSACTION}PRAGMA user_version = = 8;\n"})
    assert "003.sql:2: applying 003 failed: " in project.fail("apply")


def test_a_block_is_one(counting: Project) -> None:
    """`BEGIN; … COMMIT;` takes effect as a whole, or not at all."""
    counting.add({"001.sql": f"{NO_TRANSACTION}{COUNT}BEGIN;\n{COUNT}{ENDLESS}COMMIT;\n"})
    with counting.started("apply") as process:
        kill_when(counting, process, 1)
    assert counted(counting) == 1
    counting.add({"001.sql": f"{NO_TRANSACTION}{COUNT}BEGIN;\n{COUNT}{COUNT}COMMIT;\n"})
    counting.succeed("apply")
    assert counted(counting) == 3


@pytest.mark.parametrize(("answer", "count"), [("--skip", 1), ("--retry", 2)])
def test_a_function_that_was_cut_off_is_in_doubt(
    counting: Project, answer: str, count: int
) -> None:
    function = (
        f"# flux: no-transaction\ndef apply(connection):\n    connection.execute({COUNT!r})\n"
    )
    counting.add(
        {"001.py": f"{function}    import time; print('here', flush=True); time.sleep(600)\n"}
    )
    with counting.started("apply") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
        process.wait()
    for _ in range(2):
        assert counting.fail("apply") == (
            "error: migrations/001.py: applying 001 failed: an earlier run was cut off at its "
            "function, and whether that took effect cannot be known\n"
            "hint: look whether it did: `flux resume --skip` if so, else `flux resume --retry`\n"
            "state: it ran without a transaction: whether it did is not known, and 001 is not in "
            "the history\n"
        )
    if answer == "--retry":
        counting.add({"001.py": function})
    counting.succeed("resume", answer)
    assert (counted(counting), counting.applied(), rows(counting)) == (count, ["000", "001"], [])


def test_an_undo_goes_on_too(counting: Project) -> None:
    counting.add({"001.sql": "", "001.undo.sql": f"{NO_TRANSACTION}{COUNT}FAIL;\n"})
    counting.succeed("apply")
    for _ in range(2):
        error = counting.fail("rollback", "-y")
        assert "hint: mend it from statement 2 on, and roll back again: flux goes on there" in error
        assert "statement 1 of 2 took effect, statement 2 failed, and 001 is still in the" in error
    counting.add({"001.undo.sql": f"{NO_TRANSACTION}{COUNT}{COUNT}"})
    counting.succeed("rollback", "-y")
    assert (counted(counting), counting.applied(), rows(counting)) == (2, ["000"], [])
    counting.succeed("apply")


def test_a_half_applied_migration_is_pending(counting: Project) -> None:
    counting.add({"001.sql": f"{NO_TRANSACTION}{COUNT}FAIL;\n"})
    counting.fail("apply")
    assert counting.run("status", "--check").code == 3
    assert "001 is half applied: statement 2 is the next" in counting.fail("rollback", "-y")
    assert counting.applied() == ["000"]
