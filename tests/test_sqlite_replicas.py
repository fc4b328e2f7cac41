"""SQLite under replicas: many processes on one file, kills, and files that cannot be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.flux_process import FluxProcess, FluxResult, flux_environment
from tests.project import Project
from tests.replicas import run_together
from tests.test_sqlite import AS_ORDINARY_USER, UNTOUCHED

JOURNALS = ["wal", "delete"]
PROCESSES = 24

each_journal = pytest.mark.parametrize("journal", JOURNALS)


def make(project: Project, journal: str, *statements: str) -> None:
    """Make the database with a journal mode, which it keeps."""
    with closing(sqlite3.connect(project.database, isolation_level=None)) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal,)
        for statement in statements:
            connection.execute(statement)


@each_journal
def test_of_many_processes_each_migration_is_applied_by_one(project: Project, journal: str) -> None:
    """Every process exits with 0, each migration has counted itself once, by whatever path."""
    ids = [f"{number:03}" for number in range(1, 16)]
    make(project, journal, "CREATE TABLE counter (id TEXT PRIMARY KEY, ran INT)")
    for id in ids:
        project.query(f"INSERT INTO counter VALUES ('{id}', 0)")
        project.add({f"{id}.sql": f"UPDATE counter SET ran = ran + 1 WHERE id = '{id}';"})
    (project.root / "elsewhere").mkdir()
    link = project.root / "elsewhere" / "link.db"
    link.symlink_to(project.database)
    (project.root / "folder").symlink_to(project.root)
    paths = ["app.db", str(project.database), str(link), "folder/app.db", "./elsewhere/link.db"]
    addresses = [f"sqlite:///{paths[number % 5]}" for number in range(PROCESSES)]
    results = run_together(
        project.root, "sqlite_lock", [["apply", address] for address in addresses]
    )
    assert {result.code for result in results} == {0}, [r for r in results if r.code != 0]
    assert project.query("SELECT id, ran FROM counter ORDER BY id") == [(id, 1) for id in ids]
    assert project.applied() == ids
    assert sum("migrations applied" in result.out for result in results) == 1
    assert sum("nothing to do" in result.out for result in results) == PROCESSES - 1
    assert project.query("PRAGMA journal_mode") == [(journal,)]
    assert project.query("PRAGMA integrity_check") == [("ok",)]


KILLED = """
import os, signal

def apply(connection):
    connection.execute("PRAGMA cache_size = 5")  # so that the file itself is written to
    connection.execute("CREATE TABLE half (x)")
    connection.execute(
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) "
        "INSERT INTO half SELECT randomblob(100) FROM n"
    )
    connection.execute("UPDATE kept SET x = 2")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows: another way to end a process")
@each_journal
def test_a_kill_leaves_no_lock_and_nothing_half_done(project: Project, journal: str) -> None:
    """A hot journal, or a log without its end, is rolled back by whoever comes next."""
    make(project, journal, "CREATE TABLE kept (x)", "INSERT INTO kept VALUES (1)")
    project.add({"001.sql": "UPDATE kept SET x = x", "002.py": KILLED})
    for _ in range(2):
        assert project.run("apply").code == -9
        left, written = ("app.db-wal",) * 2 if journal == "wal" else ("app.db-journal", "app.db")
        assert (project.root / left).stat().st_size > 0
        assert (project.root / written).stat().st_size > 1_000_000
        assert project.succeed("status").endswith("2 migrations: 1 applied, 1 pending\n")
        assert project.query("SELECT x FROM kept") == [(1,)]
        assert project.tables() == ["kept"]
    (project.root / "migrations" / "002.py").unlink()
    project.add({"002.sql": "CREATE TABLE whole (x)"})
    project.succeed("apply", "--lock-wait", "0")
    assert (project.tables(), project.applied()) == (["kept", "whole"], ["001", "002"])
    assert project.query("PRAGMA integrity_check") == [("ok",)]


@each_journal
def test_a_reader_that_holds_the_database(project: Project, journal: str) -> None:
    """It holds up a commit to a rollback journal, and is named as the reason; a log it does not."""
    make(project, journal, "CREATE TABLE kept (x)", "INSERT INTO kept VALUES (1)")
    project.configure(backend="busy_timeout = 0.3")
    project.add({"001.sql": "UPDATE kept SET x = 2"})
    with closing(sqlite3.connect(project.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT x FROM kept").fetchall() == [(1,)]
        result = project.run("apply")
        assert reader.execute("SELECT x FROM kept").fetchall() == [(1,)]
        reader.execute("COMMIT")
    if journal == "wal":
        assert (result.code, result.err) == (0, "")
    else:
        assert result.code == 1
        assert "the database is busy: another connection kept it locked for 0.3 s" in result.err
        assert project.query("SELECT x FROM kept") == [(1,)]
        project.succeed("apply")
    assert project.applied() == ["001"]


# What cannot be written ---------------------------------------------------------------------


@contextmanager
def readable_project() -> Iterator[Project]:
    """A project where another user can go, as pytest's own directories do not let them."""
    name = tempfile.mkdtemp(prefix="flux-test-")
    folder = Path(name)
    folder.chmod(0o777)
    try:
        project = Project(folder, FluxProcess(folder))
        project.configure()
        project.add({"001.sql": "CREATE TABLE a (id)"})
        yield project
    finally:
        folder.chmod(0o777)
        shutil.rmtree(name)


def as_ordinary_user(project: Project, *arguments: str) -> FluxResult:
    """Run flux without root's right to write anything."""
    done = subprocess.run(
        [sys.executable, "-c", AS_ORDINARY_USER, *arguments],
        cwd=project.root,
        env=flux_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return FluxResult(done.returncode, done.stdout, done.stderr)


pytestmark_rights = pytest.mark.skipif(os.name == "nt", reason="Windows has another kind of rights")


@pytestmark_rights
@each_journal
def test_a_file_that_cannot_be_written(journal: str) -> None:
    """In a directory that can be. Nothing runs, and the error says which file."""
    with readable_project() as project:
        make(project, journal, "CREATE TABLE b (id)")
        project.database.chmod(0o444)
        result = as_ordinary_user(project, "apply")
        assert (result.code, result.out) == (1, "")
        assert result.err == (
            "error: cannot prepare the history: attempt to write a readonly database\n"
            "hint: app.db or its directory cannot be written by this user\n"
        )
        project.database.chmod(0o666)
        result = as_ordinary_user(project, "apply")
        if journal == "wal":
            # SQLite has given what it made beside the file the same rights.
            assert result.err == (
                "error: cannot use app.db: attempt to write a readonly database\n"
                "hint: this user may not write app.db-shm\n"
            )
            for path in project.root.glob("app.db-[sw]*"):
                path.chmod(0o666)
            result = as_ordinary_user(project, "apply")
        assert result.code == 0, result
        assert project.applied() == ["001"]


@pytestmark_rights
def test_a_directory_that_cannot_be_written() -> None:
    """The file could be, but SQLite needs a journal beside it, and flux its lock."""
    with readable_project() as project:
        make(project, "delete", "CREATE TABLE b (id)")
        project.database.chmod(0o666)
        project.root.chmod(0o555)
        result = as_ordinary_user(project, "apply")
        assert (result.code, result.out, result.err) == (
            1,
            "",
            f"error: cannot take the migration lock: {project.root}/app.db-flux-lock: unable to "
            "open database file\n"
            f"hint: the directory {project.root} must be writable, as SQLite needs it for its "
            "journal too\n",
        )
        assert as_ordinary_user(project, "status").out == UNTOUCHED


@pytestmark_rights
def test_a_directory_in_which_no_database_can_be_made() -> None:
    with readable_project() as project:
        project.root.chmod(0o555)
        result = as_ordinary_user(project, "apply")
        assert (result.code, result.out) == (1, "")
        assert result.err == (
            "error: cannot open app.db: unable to open database file\n"
            f"hint: the directory {project.root} cannot be written\n"
        )


@pytestmark_rights
def test_a_lock_file_that_cannot_be_written() -> None:
    """Another user has made it: the error names that file, not the directory alone."""
    with readable_project() as project:
        make(project, "delete", "CREATE TABLE b (id)")
        project.database.chmod(0o666)
        lock = project.write("app.db-flux-lock", b"")
        lock.chmod(0o444)
        result = as_ordinary_user(project, "apply")
        assert (result.code, result.out) == (1, "")
        assert result.err == (
            f"error: cannot take the migration lock: {lock}: attempt to write a readonly database\n"
            f"hint: this user may not write {lock}; whoever runs migrations must be able to\n"
        )
        lock.chmod(0o666)
        assert as_ordinary_user(project, "apply").code == 0
