"""The container image as its users run it; `make test-image` builds it and runs this.

Not a part of `make test`, since it needs root and Debian's buildah. FLUX_TEST_IMAGE is the image.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import flux
from tests.flux_process import FluxResult
from tests.postgres_server import Postgres

EXAMPLE = Path(__file__).parent.parent / "examples" / "container"
IMAGE = os.environ.get("FLUX_TEST_IMAGE", "")
ENDS_WITHIN = 60.0  # seconds

# What a container engine does for `--read-only`. The arguments: the root directory, the one to
# mount at /project, `uid:gid`, and the words of the command.
_AS_PROCESS_1 = ("unshare", "--pid", "--mount", "--fork", "--kill-child")
_READ_ONLY = """
set -e
root=$1 project=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount --bind "$project" "$root/project"
mount -o remount,bind,ro "$root/project"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


class Container(NamedTuple):
    """A container made of an image, with the image's own configuration."""

    name: str
    root: Path
    config: Mapping[str, Any]

    def run(
        self,
        *arguments: str,
        project: Path | None = None,
        url: str | None = None,
        user: str | None = None,
        entrypoint: tuple[str, ...] | None = None,
    ) -> FluxResult:
        """Run the image with arguments, as `docker run --rm IMAGE ARGUMENTS` does.

        Args:
            arguments: what follows the image's name.
            project: a directory to mount at /project.
            url: the value of FLUX_DATABASE_URL.
            user: `uid:gid` in place of the image's.
            entrypoint: words in place of the image's.
        """
        options = [f"--volume={project}:/project"] if project else []
        options += [f"--env=FLUX_DATABASE_URL={url}"] if url else []
        options += [f"--user={user}"] if user else []
        words = [*(entrypoint or self.config["Entrypoint"]), *arguments]
        return _run("buildah", "run", *options, self.name, "--", *words)

    def start_read_only(self, *arguments: str, project: Path, url: str) -> subprocess.Popen[str]:
        """Start it as process 1 of its own, with nothing that it could write to."""
        environment = [*self.config["Env"], f"FLUX_DATABASE_URL={url}"]
        words = ["env", "-i", "-C", self.config["WorkingDir"], *environment]
        words += [*self.config["Entrypoint"], *arguments]
        places = [str(self.root), str(project), self.config["User"]]
        return subprocess.Popen(
            [*_AS_PROCESS_1, "sh", "-c", _READ_ONLY, "sh", *places, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


def _run(*command: str) -> FluxResult:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=ENDS_WITHIN,
        check=False,
    )
    return FluxResult(done.returncode, done.stdout, done.stderr)


def _answer(*command: str) -> str:
    result = _run(*command)
    assert result.code == 0, result
    return result.out.strip()


def _container(image: str) -> Container:
    config = json.loads(_answer("buildah", "inspect", "--type=image", image))["OCIv1"]["config"]
    name = _answer("buildah", "from", "--pull-never", image)
    return Container(name, Path(_answer("buildah", "mount", name)), config)


@pytest.fixture(scope="session")
def image() -> Iterator[Container]:
    """A container of the image."""
    if not IMAGE:
        pytest.fail("FLUX_TEST_IMAGE names no image: `make test-image` builds one", pytrace=False)
    container = _container(IMAGE)
    yield container
    _answer("buildah", "rm", container.name)


@pytest.fixture
def project(image: Container, tmp_path: Path) -> Path:
    """An empty directory that the image's user may write to."""
    directory = tmp_path / "project"
    directory.mkdir()
    os.chown(directory, *map(int, image.config["User"].split(":")))
    return directory


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, which everybody may read and root alone may write."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def test_it_is_flux_with_the_drivers_and_no_tools(image: Container) -> None:
    assert image.run("--version").out.startswith(f"flux {flux.__version__}")
    python = ("/opt/flux/bin/python", "-c")
    assert image.run("import psycopg, psycopg2", entrypoint=python).code == 0
    # Asked for by the exit code: of what ends at once, the engine may lose the output.
    absent = (
        "import sys; from importlib.util import find_spec; sys.exit(find_spec({!r}) is not None)"
    )
    for tool in ("pip", "setuptools", "tests"):
        assert image.run(absent.format(tool), entrypoint=python).code == 0
    assert not (image.root / "source").exists()


def test_what_it_adds_to_its_base_is_small(image: Container) -> None:
    """Two drivers with their own libpq are 24 MB of it."""
    assert sum(path.lstat().st_size for path in (image.root / "opt").rglob("*")) < 40e6


def test_without_a_command_it_fails(image: Container) -> None:
    """So that no deployment that forgot `apply` goes on; the base's own command is not taken."""
    result = image.run()
    assert (result.code, result.out.split()[0]) == (2, "usage:")
    assert not image.config.get("Cmd")


@pytest.mark.parametrize(("user", "id"), [(None, "10001"), ("12345:0", "12345")])
def test_it_is_not_root(
    image: Container, example: Path, postgres_database: Postgres, user: str | None, id: str
) -> None:
    """Neither as its own user, nor as one without a name, as OpenShift gives it; both migrate."""
    uid, _, _ = image.config["User"].partition(":")
    assert (uid.isdigit(), uid) == (True, "10001"), "a number, which Kubernetes can check"
    assert image.run("-u", user=user, entrypoint=("id",)).out == f"{id}\n"
    assert image.run("/project/x", user=user, entrypoint=("touch",)).code != 0
    assert image.run("apply", project=example, url=postgres_database.url, user=user).code == 0
    assert postgres_database.query("SELECT id FROM greetings") == [(1,)]


def test_a_project_from_nothing_on_sqlite(image: Container, project: Path) -> None:
    """`init`, `new` and `apply` in a mounted directory; what they write is there afterwards."""
    assert image.run("init", project=project).code == 0
    assert image.run("new", "--sql", "Add users", project=project).code == 0
    script = next((project / "migrations").glob("*-users.sql"))
    script.write_text("CREATE TABLE users (id integer)", encoding="utf-8")
    applied = image.run("apply", project=project)
    assert (applied.code, applied.out.splitlines()[-1]) == (0, "1 migration applied")
    assert (project / "app.db").exists()
    assert not list(project.rglob("__pycache__"))


def test_exit_codes_pass_through(
    image: Container, example: Path, postgres_database: Postgres
) -> None:
    """Each code that tells a deployment something, and the password in nothing that is said."""
    results = []

    def code(*arguments: str, url: str = postgres_database.url) -> int:
        results.append(image.run(*arguments, project=example, url=url))
        return results[-1].code

    assert code("status", "--check") == 3
    assert code("apply") == 0
    assert code("status", "--check") == 0
    broken = example / "migrations" / "20240423_001_broken.sql"
    broken.write_text("SELECT no_such_column", encoding="utf-8")
    assert code("apply") == 1
    broken.unlink()
    applied = example / "migrations" / "20240422_001_add-greetings.sql"
    applied.write_text("SELECT 1", encoding="utf-8")
    assert code("apply") == 4
    assert code("apply", "--no-such-option") == 2
    said = "".join(result.out + result.err for result in results)
    assert postgres_database.server.password not in said


def test_migrations_that_are_copied_into_an_image(
    image: Container, postgres_database: Postgres
) -> None:
    """The example's own Dockerfile."""
    tag = "localhost/flux-example"
    _answer(
        "buildah", "build", "--pull-never", f"--build-arg=FLUX={IMAGE}", "-t", tag, str(EXAMPLE)
    )
    copied = _container(tag)
    assert copied.run("apply", url=postgres_database.url).code == 0
    assert postgres_database.query("SELECT id FROM greetings") == [(1,)]
    assert copied.config["User"] == image.config["User"]


def test_the_services_of_the_compose_file(image: Container, postgres_database: Postgres) -> None:
    """Without an engine: the words of flux's service in the image, then the application's."""
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))["services"]
    process = image.start_read_only(
        *services["flux"]["command"], project=EXAMPLE, url=postgres_database.url
    )
    out, err = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("1 migration applied\n")

    psql = postgres_database.server.program("psql")
    assert psql is not None
    *shell, script = services["app"]["command"]
    done = subprocess.run(
        [*shell, script.replace("$$", "$")],
        env={"PATH": f"{psql.parent}:{os.defpath}", "FLUX_DATABASE_URL": postgres_database.url},
        capture_output=True,
        encoding="utf-8",
        timeout=ENDS_WITHIN,
        check=True,
    )
    assert "Hello from a migrated database" in done.stdout


def test_sigterm_ends_it_as_process_1(
    image: Container, example: Path, postgres_database: Postgres
) -> None:
    """The kernel hands process 1 only the signals that it asked for; what ran is rolled back."""
    slow = example / "migrations" / "20240423_001_slow.sql"
    slow.write_text("CREATE TABLE half (); SELECT pg_sleep(600)", encoding="utf-8")
    process = image.start_read_only("apply", project=example, url=postgres_database.url)
    try:
        _wait_for_sleep(postgres_database, process)
        os.kill(_only_child(process.pid), signal.SIGTERM)
        out, err = process.communicate(timeout=ENDS_WITHIN)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "interrupted at 20240423_001_slow" in err
    assert "20240422_001_add-greetings" in out
    assert postgres_database.query("SELECT to_regclass('half')") == [(None,)]
    assert postgres_database.query("SELECT id FROM _flux_migrations") == [
        ("20240422_001_add-greetings",)
    ]


def _wait_for_sleep(postgres: Postgres, process: subprocess.Popen[str]) -> None:
    sleeping = """
        SELECT EXISTS (SELECT FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event = 'PgSleep')
    """
    deadline = time.monotonic() + ENDS_WITHIN
    while postgres.query(sleeping) != [(True,)]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the migration did not start"
        time.sleep(0.05)


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return int(child)
