"""The files of examples/ that other programs read: they are valid, and their commands run."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest
import yaml

import flux
from tests.flux_process import FluxProcess, FluxResult, flux_environment
from tests.postgres_server import Postgres
from tests.replicas import run_together
from tests.services import HANGS_AFTER, running, wait_until

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="it is about POSIX systems")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What lies in the image of examples/container, and in a checkout of the application."""
    return Path(shutil.copytree(EXAMPLES / "container", tmp_path / "project"))


def read(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / path).read_text("utf-8"))
    return loaded


def add_migration(directory: Path, sql: str) -> None:
    """Add a migration that is applied after those of the example."""
    (directory / "migrations" / "20990101_001_more.sql").write_text(sql, "utf-8")


# Kubernetes -----------------------------------------------------------------------------------

JOB, DEPLOYMENT = read("kubernetes/job.yaml"), read("kubernetes/deployment.yaml")


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


(CONTAINER,) = pod(JOB)["containers"]
(INIT_CONTAINER,) = pod(DEPLOYMENT)["initContainers"]


def action(code: int) -> str:
    """What the Job's podFailurePolicy does about a container's exit code."""
    for rule in JOB["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes and codes["containerName"] == CONTAINER["name"]:
            assert codes["operator"] == "In"
            if code in codes["values"]:
                return str(rule["action"])
    return "Count"


def run_container(directory: Path, postgres: Postgres) -> FluxResult:
    """Run the Job's container: the image's entry point is flux."""
    return FluxProcess(directory)(*CONTAINER["args"], env={"FLUX_DATABASE_URL": postgres.url})


# 1.31: the first in which podFailurePolicy is stable.
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", [JOB, DEPLOYMENT], ids=["job", "deployment"])
def test_kubernetes_accepts_the_manifests(manifest: dict[str, Any], version: str) -> None:
    checked = kubernetes_validate.validate(manifest, version, strict=True)
    assert version.startswith(checked)  # it falls back to an older one in silence


def test_what_the_schema_of_a_job_does_not_say() -> None:
    """The API server refuses a podFailurePolicy with another restartPolicy."""
    assert pod(JOB)["restartPolicy"] == "Never"


def test_job_and_init_container_run_the_same() -> None:
    assert CONTAINER == INIT_CONTAINER
    (address,) = CONTAINER["env"]
    assert address["name"] == "FLUX_DATABASE_URL"
    (application,) = pod(DEPLOYMENT)["containers"]
    assert application["env"][0]["valueFrom"] == address["valueFrom"]


def test_a_job_that_succeeds(directory: Path, postgres_database: Postgres) -> None:
    assert run_container(directory, postgres_database).code == 0
    assert len(postgres_database.query("SELECT 1 FROM greetings")) == 1


def test_init_containers_that_start_at_once(
    directory: Path, postgres_database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All replicas start, and one of them has applied."""
    # Not in the Job's arguments, which are run as they are written.
    toml = directory / "flux.toml"
    address = postgres_database.url.replace("$", "$$")
    toml.write_text(f"{toml.read_text('utf-8')}\ndatabase_url = '{address}'\n", "utf-8")
    replicas = DEPLOYMENT["spec"]["replicas"]
    results = run_together(directory, "postgres", [INIT_CONTAINER["args"]] * replicas)
    assert [result.code for result in results] == [0] * replicas
    assert sum("nothing to do" not in result.out for result in results) == 1


def test_a_job_whose_migration_fails(directory: Path, postgres_database: Postgres) -> None:
    add_migration(directory, "SELECT 1 FROM nowhere;")
    assert run_container(directory, postgres_database).code == 1
    assert action(1) == "FailJob"


def test_a_job_whose_configuration_is_wrong(directory: Path, postgres_database: Postgres) -> None:
    (directory / "flux.toml").write_text("[flux]\nbackend = 'postgress'\n", "utf-8")
    assert run_container(directory, postgres_database).code == 2
    assert action(2) == "FailJob"


def test_a_job_whose_image_is_older_than_the_database(
    directory: Path, postgres_database: Postgres
) -> None:
    add_migration(directory, "CREATE TABLE more ();")
    assert run_container(directory, postgres_database).code == 0
    (directory / "migrations" / "20990101_001_more.sql").unlink()
    assert run_container(directory, postgres_database).code == 4
    assert action(4) == "FailJob"


def test_a_job_that_waits_for_the_lock_in_vain(
    directory: Path, postgres_database: Postgres
) -> None:
    with (directory / "flux.toml").open("a", encoding="utf-8") as toml:
        toml.write("\nlock_wait = 0\n")
    with postgres_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(3589)")
        assert run_container(directory, postgres_database).code == 5
    assert action(5) == "Count"


@not_on_windows
def test_a_job_that_is_stopped(directory: Path, postgres_database: Postgres) -> None:
    """The next pod goes on: nothing of the migration is left."""
    add_migration(directory, "CREATE TABLE more (); SELECT pg_sleep(600);")
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    env = flux_environment({"FLUX_DATABASE_URL": postgres_database.url})
    with running([sys.executable, "-m", "flux", *CONTAINER["args"]], directory, env) as flux:
        wait_until(lambda: bool(postgres_database.query(sleeping)), flux.said)
        flux.process.terminate()
        assert flux.exit_code() == 143
    assert action(143) == action(137) == "Count"

    add_migration(directory, "CREATE TABLE more ();")
    assert run_container(directory, postgres_database).code == 0


def commands(path: str) -> str:
    """The indented commands in the comment at the top of an example."""
    comment = (EXAMPLES / path).read_text("utf-8").partition("\napiVersion")[0]
    return "\n".join(re.findall(r"(?m)^#   (.*)", comment))


@not_on_windows
@pytest.mark.parametrize(
    ("states", "code"),
    [
        pytest.param(["", "SuccessCriteriaMet", "SuccessCriteriaMet Complete"], 0, id="complete"),
        pytest.param(["", "FailureTarget", "FailureTarget Failed"], 1, id="failed"),
        pytest.param([], 1, id="never"),
    ],
)
def test_the_commands_that_wait_for_a_job(tmp_path: Path, states: list[str], code: int) -> None:
    """They end with the Job, whichever way it ends, and succeed where it did.

    There is no cluster: `kubectl` tells one of the conditions that a Job has after the other.
    """
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states), "utf-8")
    tell_one = "head -n 1 states; tail -n +2 states >rest; mv rest states"
    programs = {"kubectl": f'if [ "$1" = get ]; then {tell_one}; fi', "sleep": ""}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", commands("kubernetes/job.yaml")],
        cwd=tmp_path,
        env=flux_environment({"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}),
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_AFTER,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert (tmp_path / "states").read_text("utf-8") == ""


# systemd --------------------------------------------------------------------------------------

UNITS = {path.name: path.read_text("utf-8") for path in (EXAMPLES / "systemd").iterdir()}


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign] # as its documentation says
    parser.read_string(UNITS[name])
    return parser


@pytest.fixture
def installed(directory: Path) -> Path:
    """The application with its virtual environment, which lies in /opt/app for the units."""
    programs = directory / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("flux", "python"):
        (programs / name).symlink_to(BIN / name)
    return directory


@not_on_windows
def test_systemd_accepts_the_units(installed: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    files = []
    for name, text in UNITS.items():
        files.append(installed / name)
        files[-1].write_text(text.replace("/opt/app", str(installed)), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *files],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=HANGS_AFTER,
        check=False,
    )
    # The machine's own units, which it reads as well, may have faults.
    assert [line for line in done.stderr.splitlines() if "app" in line] == []


def test_the_application_starts_after_its_migrations() -> None:
    for key in ("Requires", "After"):
        assert unit("app.service")["Unit"][key] == "app-migrations.service"
    for key in ("User", "WorkingDirectory", "EnvironmentFile"):
        assert unit("app.service")["Service"][key] == unit("app-migrations.service")["Service"][key]


@not_on_windows
def test_what_the_unit_runs(installed: Path, postgres_database: Postgres) -> None:
    """Each start of the application runs it; with nothing to do that is fine as well."""
    service = unit("app-migrations.service")["Service"]
    assert service["Type"] == "oneshot"
    assert service["WorkingDirectory"] == "/opt/app"
    command = shlex.split(service["ExecStart"].replace("/opt/app", str(installed)))
    env = flux_environment({"FLUX_DATABASE_URL": postgres_database.url})
    for last in ("20240422_001_add-greetings", "nothing to do"):
        done = subprocess.run(
            command,
            cwd=installed,
            env=env,
            capture_output=True,
            encoding="utf-8",
            timeout=HANGS_AFTER,
            check=False,
        )
        assert (done.returncode, last in done.stdout) == (0, True), done


# GitHub Actions -------------------------------------------------------------------------------

JOBS = read("github-actions/migrations.yml")["jobs"]


def run_commands(commands: Iterable[str], directory: Path, postgres: Postgres) -> list[int]:
    """Run commands until one fails, as a runner does, but those that install; their exit codes."""
    env = flux_environment({"FLUX_DATABASE_URL": postgres.url})
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    codes = []
    for command in commands:
        if command.startswith("pip install "):
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HANGS_AFTER,
            check=False,
        )
        codes.append(done.returncode)
        if codes[-1]:
            break
    return codes


def run_steps(job: str, directory: Path, postgres: Postgres) -> list[int]:
    """Run the commands of a job of the workflow."""
    commands = [step["run"] for step in JOBS[job]["steps"] if "run" in step]
    return run_commands(commands, directory, postgres)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", "github-actions/migrations.yml"),
        ("github-workflows", "github-actions/test.yml"),
        ("gitlab-ci", "gitlab-ci/test.yml"),
    ],
)
def test_the_workflows_are_accepted(schema: str, path: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", f"vendor.{schema}", EXAMPLES / path),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_AFTER,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_workflow_installs_what_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for job in JOBS.values():
        (install,) = (s["run"] for s in job["steps"] if s.get("run", "").startswith("pip "))
        found = re.fullmatch(r'pip install "([\w-]+)\[(\w+)\]>=([\d.]+)"', install)
        assert found
        assert found[1] == project["name"]
        assert found[2] in project["optional-dependencies"]
        assert flux.__version__.startswith(found[3])


def test_the_address_is_that_of_the_service() -> None:
    service = JOBS["try"]["services"]["postgres"]
    (port,) = service["ports"]
    assert JOBS["try"]["env"]["FLUX_DATABASE_URL"] == (
        f"postgresql://postgres:{service['env']['POSTGRES_PASSWORD']}"
        f"@localhost:{port.partition(':')[0]}/postgres"
    )


@not_on_windows
def test_the_workflow_on_good_migrations(directory: Path, postgres_database: Postgres) -> None:
    assert run_steps("try", directory, postgres_database) == [0] * 4
    assert len(postgres_database.query("SELECT 1 FROM greetings")) == 1


@not_on_windows
def test_the_workflow_deploys(directory: Path, postgres_database: Postgres) -> None:
    assert JOBS["deploy"]["needs"] == "try"
    assert run_steps("deploy", directory, postgres_database) == [0] * 2
    assert len(postgres_database.query("SELECT 1 FROM greetings")) == 1


@not_on_windows
@pytest.mark.parametrize(
    ("sql", "undo", "codes"),
    [
        pytest.param("SELECT 1 FROM nowhere", "", [0, 1], id="migration"),
        pytest.param("CREATE TABLE more ()", "DROP TABLE moer", [0, 0, 1], id="undo"),
        pytest.param("CREATE TABLE more ()", "SELECT 1", [0, 0, 0, 1], id="forgetful undo"),
    ],
)
def test_the_workflow_on_a_wrong_migration(
    directory: Path, postgres_database: Postgres, sql: str, undo: str, codes: list[int]
) -> None:
    add_migration(directory, sql)
    (directory / "migrations" / "20990101_001_more.undo.sql").write_text(undo, "utf-8")
    assert run_steps("try", directory, postgres_database) == codes


# Workflows that test migrations -----------------------------------------------------------------

PROVING = read("github-actions/test.yml")["jobs"]["test"]
GITLAB = read("gitlab-ci/test.yml")["test-migrations"]
#: The commands of each, but for those that install.
COMMANDS = {
    "github": [step["run"] for step in PROVING["steps"] if "run" in step],
    "gitlab": [*GITLAB["before_script"], *GITLAB["script"]],
}


def test_both_workflows_run_the_same() -> None:
    assert COMMANDS["github"] == COMMANDS["gitlab"]
    for variable in ("FLUX_DATABASE_URL", "FLUX_SHADOW_URL"):
        assert GITLAB["variables"][variable] == (
            f"postgresql://postgres:{GITLAB['variables']['POSTGRES_PASSWORD']}"
            f"@{GITLAB['services'][0]['alias']}:5432/postgres"
        )


@not_on_windows
@pytest.mark.parametrize(
    ("sql", "undo", "codes"),
    [
        pytest.param("", "", [0, 0, 0, 0], id="all is well"),
        pytest.param("CREATE TABLE more ()", "DROP TABLE more", [0, 0, 1], id="old schema file"),
        pytest.param("CREATE TABLE more ()", "SELECT 1", [0, 1], id="forgetful undo"),
    ],
)
def test_the_test_workflow(
    directory: Path, postgres_database: Postgres, sql: str, undo: str, codes: list[int]
) -> None:
    """Its commands run until one fails; what is wrong decides which."""
    assert run_commands(["flux schema --write"], directory, postgres_database) == [0]
    (directory / "test_it.py").write_text(
        "def test_it(flux_database):\n    assert flux_database.connect()\n", "utf-8"
    )
    if sql:
        add_migration(directory, sql)
        (directory / "migrations" / "20990101_001_more.undo.sql").write_text(undo, "utf-8")
    assert run_commands(COMMANDS["github"], directory, postgres_database) == codes
    assert (directory / "report.xml").exists()
