"""The fixtures for pytest, in real runs of it in projects of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.flux_process import FluxResult, flux_environment, run_to_end
from tests.postgres_project import PostgresProject
from tests.postgres_server import drop_flux_databases
from tests.project import Project
from tests.test_testing import MIGRATIONS, builds, databases_left

#: Where flux was installed before it had the entry point, pytest is told of the plugin.
IS_INSTALLED = any(point.name == "flux" for point in entry_points(group="pytest11"))
PLUGINS = ["-p", "no:django", "-p", "no:cacheprovider"]
PLUGINS += [] if IS_INSTALLED else ["-p", "flux.pytest_plugin"]


def run_pytest(project: Project, *arguments: str, within: str = "", **env: str) -> FluxResult:
    """Run pytest in a folder of the project; its temporary files are the project's own."""
    environment = {
        name: value
        for name, value in flux_environment({"TMPDIR": str(project.root), **env}).items()
        if not name.startswith("PYTEST_") or name == "PYTEST_ADDOPTS"
    }
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", *PLUGINS, *arguments]
    return run_to_end(command, cwd=project.root / within, env=environment)


def outcome(result: FluxResult) -> str:
    """The last line without its time: `2 passed, 1 failed`."""
    return result.out.strip().splitlines()[-1].partition(" in ")[0]


@pytest.fixture(params=["sqlite", "postgres"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project with migrations, and an empty directory of tests that is pytest's root."""
    name = {"sqlite": "project", "postgres": "pg_alone"}[request.param]
    project: Project = request.getfixturevalue(name)
    project.add(MIGRATIONS)
    project.write("pytest.ini", "[pytest]\n")
    if not isinstance(project, PostgresProject):
        yield project
        return
    drop_flux_databases(project.postgres.server)  # templates of other tests
    yield project
    drop_flux_databases(project.postgres.server)


USES_DATABASE = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_rows(flux_database, number):
    cursor = flux_database.connect().cursor()
    cursor.execute("INSERT INTO users (id, name) VALUES (1, 'Ada')")
    cursor.execute("SELECT count(*) FROM users")
    assert cursor.fetchone()[0] == 2

def test_that_fails(flux_database):
    flux_database.connect().cursor().execute("BEGIN")
    assert flux_database.url == "shown"
"""


def test_each_test_has_a_database(own: Project) -> None:
    own.write("test_it.py", USES_DATABASE)
    result = run_pytest(own)
    assert outcome(result) == "1 failed, 4 passed", result
    assert databases_left(own) == 0
    assert databases_left(own, "template") == 1
    assert outcome(run_pytest(own)) == "1 failed, 4 passed"
    assert builds(own) == 1


def test_workers_share_the_template(own: Project) -> None:
    own.write("test_it.py", USES_DATABASE.replace("range(4)", "range(20)"))
    result = run_pytest(own, "-n", "4")
    assert outcome(result) == "1 failed, 20 passed", result
    assert builds(own) == 1
    assert databases_left(own) == 0


USES_STEPS = """
def test_first_names_are_filled(flux_migrations):
    flux_migrations.to("001_users")
    flux_migrations.connection.cursor().execute("INSERT INTO users VALUES (1, 'Ada Lovelace')")
    flux_migrations.apply(1)
    cursor = flux_migrations.connection.cursor()
    cursor.execute("SELECT first_name FROM users")
    assert cursor.fetchall() == [("Ada",)]
    flux_migrations.rollback(1)
    cursor.execute("SELECT * FROM users")
    assert cursor.fetchall() == [(1, "Ada Lovelace")]
"""


def test_steps(own: Project) -> None:
    own.write("test_it.py", USES_STEPS)
    result = run_pytest(own)
    assert outcome(result) == "1 passed", result
    assert databases_left(own) == 0


MARKED = """
import pytest

pytestmark = pytest.mark.flux("002_first-name")

def test_database(flux_database):
    cursor = flux_database.connect().cursor()
    cursor.execute("SELECT first_name FROM users")
    assert cursor.fetchall() == []

@pytest.mark.flux("001_users")
def test_steps(flux_migrations):
    assert flux_migrations.applied == ("001_users",)
    assert flux_migrations.apply(1).applied == ("002_first-name",)

def test_both(flux_migrations, flux_database):
    assert flux_migrations.applied == ("001_users", "002_first-name")
    assert flux_migrations.url != flux_database.url

def test_neither():
    pass
"""


def test_the_marker_sets_the_state(own: Project) -> None:
    own.write("test_it.py", MARKED)
    result = run_pytest(own)
    assert outcome(result) == "4 passed", result


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        (
            "flux",
            'the id of one migration, as in @pytest.mark.flux("20240422_001_add-users"), not ()',
        ),
        ("flux(1)", '20240422_001_add-users"), not (1)'),
        ("flux('a', 'b')", "20240422_001_add-users\"), not ('a', 'b')"),
        ("flux(to='a')", "20240422_001_add-users\"), not (to='a')"),
        ("flux('001_user')", "no migration '001_user' is on disk"),
    ],
)
def test_a_wrong_marker_is_told(project: Project, marker: str, says: str) -> None:
    project.add(MIGRATIONS)
    project.write("pytest.ini", "[pytest]\n")
    project.write(
        "test_it.py",
        f"import pytest\n\n@pytest.mark.{marker}\ndef test_it(flux_database):\n    pass\n",
    )
    result = run_pytest(project)
    assert outcome(result) == "1 error"
    assert says in result.out
    assert "Traceback" not in result.out
    assert "pytest_plugin.py" not in result.out


def test_what_flux_cannot_do_is_told_without_a_traceback(own: Project) -> None:
    own.add({"004_fails.sql": "INSERT INTO nowhere VALUES (1);\n"})
    own.write("test_it.py", USES_DATABASE)
    result = run_pytest(own)
    assert outcome(result) == "5 errors", result
    assert result.out.count("004_fails.sql:1") >= 5
    assert "pytest_plugin.py" not in result.out
    assert builds(own) == 1


def test_without_a_configuration(project: Project) -> None:
    (project.root / "flux.toml").unlink()
    project.write("pytest.ini", "[pytest]\n")
    project.write("test_it.py", USES_STEPS)
    result = run_pytest(project)
    assert outcome(result) == "1 error"
    assert "there is no flux.toml here" in result.out


# Options ------------------------------------------------------------------------------------


def test_the_configuration_can_be_elsewhere(project: Project) -> None:
    """Its path counts from pytest's root, from wherever that is run."""
    project.add(MIGRATIONS)
    (project.root / "db").mkdir()
    for name in ("flux.toml", "migrations"):
        (project.root / name).rename(project.root / "db" / name)
    project.write("pytest.ini", "[pytest]\nflux_config = db/flux.toml\n")
    project.write("tests/test_it.py", USES_STEPS)
    result = run_pytest(project, within="tests")
    assert outcome(result) == "1 passed", result


def test_a_fixture_of_the_project_can_give_the_configuration(project: Project) -> None:
    project.add({f"../elsewhere/{name}": text for name, text in MIGRATIONS.items()})
    project.write("pytest.ini", "[pytest]\n")
    project.write("test_it.py", USES_STEPS)
    project.write(
        "conftest.py",
        "import pytest\nfrom flux import FluxConfig\n\n"
        "@pytest.fixture(scope='session')\ndef flux_config():\n"
        "    return FluxConfig(migration_directory='elsewhere')\n",
    )
    result = run_pytest(project)
    assert outcome(result) == "1 passed", result


def test_the_server_can_be_named(pg_alone: PostgresProject) -> None:
    """In the ini file, with variables; the environment comes before it."""
    url = pg_alone.postgres.url
    pg_alone.add(MIGRATIONS)
    nowhere = url.replace(f":{pg_alone.postgres.server.port}/", ":1/")
    pg_alone.configure(url=nowhere)
    pg_alone.write("test_it.py", USES_STEPS)
    pg_alone.write("pytest.ini", "[pytest]\nflux_url = ${SERVER}\n")
    result = run_pytest(pg_alone, SERVER=url)
    assert outcome(result) == "1 passed", result
    result = run_pytest(pg_alone, SERVER=nowhere, FLUX_SHADOW_URL=url)
    assert outcome(result) == "1 passed", result
    result = run_pytest(pg_alone)
    assert outcome(result) == "1 error"
    assert "needs the environment variable 'SERVER', which is not set" in result.out
    result = run_pytest(pg_alone, SERVER=nowhere)
    assert outcome(result) == "1 error"
    assert "cannot connect to" in result.out
    assert pg_alone.postgres.server.password not in result.out


def test_the_options_are_in_the_help(project: Project) -> None:
    result = run_pytest(project, "--help")
    assert "flux_config (string):" in result.out
    assert "flux_url (string):" in result.out
    assert "@pytest.mark.flux(id):" in run_pytest(project, "--markers").out


# What it costs ------------------------------------------------------------------------------


def test_nothing_is_imported_until_a_fixture_is_used(project: Project) -> None:
    """With the plugin pytest imports two modules more, which are flux's and import no other."""
    project.write("pytest.ini", "[pytest]\n")
    project.write("test_it.py", "def test_it():\n    pass\n")
    project.write(
        "conftest.py",
        "import sys\n\ndef pytest_unconfigure():\n"
        "    with open('modules', 'w') as file:\n        print(*sorted(sys.modules), file=file)\n",
    )
    modules = []
    for plugins in (["-p", "no:flux"], ["-p", "flux" if IS_INSTALLED else "flux.pytest_plugin"]):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:django", *plugins]
        environment = {**flux_environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        result = run_to_end(command, cwd=project.root, env=environment)
        assert outcome(result) == "1 passed", result
        modules.append(set((project.root / "modules").read_text().split()))
    without, loaded = modules
    # An editable installation may bring a finder of its own.
    assert {name for name in loaded - without if "editable" not in name} == {
        "flux",
        "flux.pytest_plugin",
    }


def test_the_entry_point_is_the_plugin() -> None:
    root = Path(__file__).parent.parent
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nflux = "flux.pytest_plugin"\n' in text
    assert os.path.exists(root / "flux" / "pytest_plugin.py")
