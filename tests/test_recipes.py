"""The programs of examples/ run as their users would run them: many at once, and with an error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.flux_process import flux_environment
from tests.postgres_server import Postgres
from tests.services import HANGS_AFTER, Service, running, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples"
BROKEN = "SELECT 1 FROM nowhere;"

not_on_windows = pytest.mark.skipif(
    sys.platform == "win32", reason="it runs several processes, which a SIGTERM has to end"
)


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Copies an example by its name; the directory of the copy."""

    def copy(name: str) -> Path:
        ignored = shutil.ignore_patterns("__pycache__", "*.db*", "broker")
        return Path(shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored))

    return copy


def run(directory: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of an example to its end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=flux_environment(env),
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_AFTER,
        check=False,
    )


def add_migration(directory: Path, sql: str) -> None:
    """Add a migration that is applied after those of the example."""
    (directory / "migrations" / "20990101_001_more.sql").write_text(sql, "utf-8")


# A plain script --------------------------------------------------------------------------------


def test_a_script_that_is_started_many_times_at_once(example: Callable[[str], Path]) -> None:
    directory = example("script")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "diary.py", "entry", str(number)],
                    cwd=directory,
                    env=flux_environment(),
                    stdout=subprocess.DEVNULL,
                )
            )
            for number in range(8)
        ]
        assert [process.wait(HANGS_AFTER) for process in processes] == [0] * 8
    entries = run(directory, "diary.py").stdout.splitlines()
    assert sorted(entry.split("  ")[1] for entry in entries) == [f"entry {n}" for n in range(8)]


def test_a_script_whose_migration_fails(example: Callable[[str], Path]) -> None:
    """It says why, and does nothing else."""
    directory = example("script")
    add_migration(directory, BROKEN)
    ended = run(directory, "diary.py", "entry")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("the diary cannot be opened: ")
    assert "20990101_001_more.sql:1" in ended.stderr


# FastAPI and Starlette ------------------------------------------------------------------------

STARLETTE = """\
import app as fastapi_app
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

routes = [Route("/notes", lambda request: JSONResponse(fastapi_app.notes()))]
app = Starlette(routes=routes, lifespan=fastapi_app.lifespan)
"""


def uvicorn(app: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--port", "0", *options]


def get(service: Service, path: str) -> object:
    """What a web server answers."""
    (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+", service.said()))
    with urllib.request.urlopen(address + path, timeout=HANGS_AFTER) as answer:  # noqa: S310 # http
        return json.load(answer)


@not_on_windows
@pytest.mark.parametrize("app", ["app:app", "of_starlette:app"])
def test_a_web_server_with_several_workers(example: Callable[[str], Path], app: str) -> None:
    """All of them serve, and the row that a migration inserts is there once."""
    directory = example("fastapi")
    (directory / "of_starlette.py").write_text(STARLETTE, "utf-8")
    with running(uvicorn(app, "--workers", "4"), directory, flux_environment()) as service:
        service.wait_for("Application startup complete.", times=4)
        assert get(service, "/notes") == ["Hello from a migrated database"]


@not_on_windows
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_web_server_whose_migration_fails(
    example: Callable[[str], Path], options: tuple[str, ...]
) -> None:
    """No worker serves, the server ends, and its log says why."""
    directory = example("fastapi")
    add_migration(directory, BROKEN)
    with running(uvicorn("app:app", *options), directory, flux_environment()) as service:
        service.exit_code()
    assert "Application startup complete." not in service.said()
    assert "20990101_001_more.sql:1" in service.said()


# Celery ---------------------------------------------------------------------------------------


def celery(*options: str) -> list[str]:
    return [sys.executable, "-m", "celery", "--app", "tasks", "worker", *options]


def send_tasks(directory: Path, count: int) -> None:
    code = f"import tasks; [tasks.greet.delay(str(n)) for n in range({count})]"
    assert run(directory, "-c", code).returncode == 0


@not_on_windows
def test_workers_take_tasks_when_the_database_is_migrated(
    example: Callable[[str], Path], postgres_database: Postgres
) -> None:
    """The tasks wait already when three workers start at once; none of them is lost."""
    directory = example("celery")
    add_migration(directory, "SELECT pg_sleep(1); CREATE TABLE more ();")
    send_tasks(directory, 12)
    env = flux_environment({"FLUX_DATABASE_URL": postgres_database.url})
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                running(
                    celery(
                        "--concurrency=1",
                        "--without-mingle",
                        "--without-gossip",
                        f"--hostname={name}@localhost",
                        "--loglevel=INFO",
                    ),
                    directory,
                    env,
                )
            )
            for name in ("one", "two", "three")
        ]
        for worker in workers:
            worker.wait_for("ready.")
        wait_until(
            lambda: postgres_database.query("SELECT count(*) FROM greetings") == [(12,)],
            lambda: "\n".join(worker.said() for worker in workers),
        )
        for worker in workers:  # together, for each of them takes seconds
            worker.process.terminate()
    assert postgres_database.query("SELECT count(DISTINCT name) FROM greetings") == [(12,)]


@not_on_windows
def test_a_worker_whose_migration_fails_takes_no_task(
    example: Callable[[str], Path], postgres_database: Postgres
) -> None:
    directory = example("celery")
    add_migration(directory, BROKEN)
    send_tasks(directory, 1)
    env = flux_environment({"FLUX_DATABASE_URL": postgres_database.url})
    with running(celery("--concurrency=1"), directory, env) as worker:
        assert worker.exit_code() == 1
    assert "20990101_001_more.sql:1" in worker.said()
    assert len(list((directory / "broker").glob("*.msg"))) == 1


# conftest.py ----------------------------------------------------------------------------------

PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-rs")


def test_a_conftest_for_sqlite(example: Callable[[str], Path]) -> None:
    ended = run(example("pytest/sqlite"), *PYTEST, "--numprocesses=2")
    assert (ended.returncode, "2 passed" in ended.stdout) == (0, True), ended.stdout


def test_a_conftest_for_postgres(
    example: Callable[[str], Path], postgres_database: Postgres
) -> None:
    """Each test has a database of its own; for the next run one template is left."""
    directory = example("pytest/postgres")
    for _ in range(2):
        ended = run(directory, *PYTEST, "--numprocesses=2", TEST_DATABASE_URL=postgres_database.url)
        assert (ended.returncode, "2 passed" in ended.stdout) == (0, True), ended.stdout
    comments = postgres_database.query(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database "
        "WHERE starts_with(datname, 'flux_template_')"
    )
    assert sum(str(directory) in str(comment) for (comment,) in comments) == 1


def test_a_conftest_without_a_server(example: Callable[[str], Path]) -> None:
    """The tests fail, and say which variable is not set."""
    ended = run(example("pytest/postgres"), *PYTEST, TEST_DATABASE_URL="")
    assert ended.returncode == 1
    assert "shadow_url needs the environment variable 'TEST_DATABASE_URL'" in ended.stdout
