"""Functions that are called so that Ctrl-C ends them: in which thread, and what is raised."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest

from flux import FluxRunner
from flux.backends.sqlite import SQLiteBackend
from flux.interruption import Interruptible, in_thread
from tests.project import Project


def _abandon() -> NoReturn:
    raise AssertionError("it ends when it is asked to")


def test_all_steps_of_a_batch_run_in_one_thread(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is not that of the program; to start one for each takes longer than most steps."""
    threads: list[int] = []
    run_migration = SQLiteBackend.run_migration

    def run(backend: SQLiteBackend, *arguments: object) -> None:
        threads.append(threading.get_ident())
        run_migration(backend, *arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(SQLiteBackend, "run_migration", run)
    project.add({f"{number:03}.sql": "SELECT 1" for number in range(10)})
    with FluxRunner.from_file(project.root / "flux.toml") as runner:
        runner.call = Interruptible(runner.backend.cancel, _abandon)
        runner.apply_migrations()
    assert len(threads) == len(project.applied()) == 10
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_one_that_calls_others_hears_of_the_interruption_from_them() -> None:
    """And what it raises itself, having heard of it, is raised."""
    calls = Interruptible(lambda: None, _abandon)
    heard: list[type[BaseException]] = []

    def fail() -> None:
        calls.was_interrupted = True  # as the main thread does
        raise OSError("it was cancelled")

    def act() -> None:
        try:
            calls(fail)
        except BaseException as error:
            heard.append(type(error))
            raise ValueError("what became of it") from error

    with pytest.raises(ValueError, match="what became of it"):
        calls(act)
    assert heard == [KeyboardInterrupt]


def test_one_that_calls_no_other_is_told_of_itself() -> None:
    calls = Interruptible(lambda: None, _abandon)
    calls.was_interrupted = True

    def fail() -> None:
        raise OSError("it was cancelled")

    with pytest.raises(KeyboardInterrupt):
        calls(fail)


def test_something_is_done_while_a_connection_is_made() -> None:
    """Each of the two waits here until the other one runs."""
    connects, lists = threading.Event(), threading.Event()

    def connect() -> str:
        connects.set()
        assert lists.wait(60)
        return "connected"

    def list_files() -> None:
        assert connects.wait(60)
        lists.set()

    assert in_thread(connect, list_files) == "connected"
