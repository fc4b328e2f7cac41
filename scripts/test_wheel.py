"""Build the distributions, look into them, and try the installed wheel as its users have it.

The wheel is built from the sdist, as an index's users may do it; it must hold the files of the
checkout and nothing else, and be the same as one that is built from the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"
#: What an sdist has beside the package; setuptools writes PKG-INFO and setup.cfg.
BESIDE = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def main() -> None:
    """Fail by an AssertionError, or by the output of the program that failed."""
    with tempfile.TemporaryDirectory(prefix="flux-wheel-") as directory:
        work = Path(directory).resolve()
        source = copy_source(work / "source")
        tools = environment(work / "tools")
        run(tools / "python", "-m", "pip", "install", "--quiet", "--group", "package", cwd=source)
        run(tools / "python", "-m", "build", "--outdir", work / "dist", source)
        run(tools / "python", "-m", "build", "--wheel", "--outdir", work / "direct", source)
        [sdist], [wheel] = (work / "dist").glob("*.tar.gz"), (work / "dist").glob("*.whl")
        [direct] = (work / "direct").glob("*.whl")

        run(tools / "twine", "check", "--strict", sdist, wheel)
        check_contents(source, sdist, wheel, direct)
        try_extras(tools, wheel)
        installed = environment(work / "venv")
        run(installed / "python", "-m", "pip", "install", "--quiet", wheel)
        check_types(tools, installed, work)
        check_metadata(installed)
        try_commands(installed, work / "project")
        try_fixtures(installed, work / "tests")
        print(f"the wheel works: {wheel.name}")


def copy_source(target: Path) -> Path:
    """A copy of what the distributions are made of, since setuptools leaves files behind."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "flux", target / "flux", ignore=ignore)
    return target


def environment(path: Path) -> Path:
    """Make a virtual environment; where its programs are."""
    venv.create(path, with_pip=True)
    programs = path / BIN
    # 25.1 is the first that knows --group
    run(programs / "python", "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
    return programs


# What is in them ----------------------------------------------------------------------------


def check_contents(source: Path, sdist: Path, wheel: Path, direct: Path) -> None:
    """Both hold the package as it is in the checkout, and nothing that does not belong there."""
    package = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in (source / "flux").rglob("*")
        if path.is_file()
    }
    assert "flux/py.typed" in package
    in_wheel = wheel_files(wheel)
    of_package = {name for name in in_wheel if ".dist-info/" not in name}
    assert of_package == set(package), sorted(of_package ^ set(package))
    assert {name: in_wheel[name] for name in of_package} == package
    assert in_wheel == wheel_files(direct), "the wheel from the sdist is another one"
    with tarfile.open(sdist) as tar:
        files = {member.name.partition("/")[2] for member in tar if member.isfile()}
    in_sdist = {name for name in files if not name.startswith("flux_migrations.egg-info/")}
    assert in_sdist == set(package) | BESIDE, sorted(in_sdist ^ (set(package) | BESIDE))


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """What a wheel holds, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_metadata(installed: Path) -> None:
    """What Python knows of the installed distribution: version, entry points, marker of types."""
    program = """if True:
        from importlib import metadata
        from pathlib import Path
        import flux

        assert metadata.version("flux-migrations") == flux.__version__
        backends = {entry.name: entry for entry in metadata.entry_points(group="flux.backend")}
        assert {"postgres", "sqlite"} <= set(backends), backends
        backends["sqlite"].load()
        [plugin] = (one for one in metadata.entry_points(group="pytest11") if one.name == "flux")
        assert plugin.value == "flux.pytest_plugin", plugin
        assert Path(flux.__file__).with_name("py.typed").exists()
    """
    run(installed / "python", "-I", "-c", program)


def try_extras(tools: Path, wheel: Path) -> None:
    """pip finds packages for every extra that the metadata names."""
    [metadata] = (text for name, text in wheel_files(wheel).items() if name.endswith("/METADATA"))
    for extra in Parser().parsestr(metadata.decode()).get_all("Provides-Extra", []):
        if extra == "postgres-source" and shutil.which("pg_config") is None:
            print("without pg_config psycopg2 does not tell what it needs: an extra is not tried")
            continue
        how = ["--quiet", "--dry-run", "--ignore-installed"]
        run(tools / "python", "-m", "pip", "install", *how, f"{wheel}[{extra}]")


# What users do with it ----------------------------------------------------------------------


def check_types(tools: Path, installed: Path, work: Path) -> None:
    """Typical code of users has the types that it should have, and the errors."""
    code = work / "public_api.py"  # away from the checkout, so that flux is the installed one
    shutil.copy(ROOT / "tests" / "typing" / code.name, code)
    python = ["--python-executable", str(installed / "python")]
    run(tools / "mypy", "--strict", "--cache-dir", os.devnull, *python, code, cwd=work)


def try_commands(installed: Path, project: Path) -> None:
    """Every command says its help; a project is made, migrated, looked at and rolled back."""
    project.mkdir()
    flux = installed / "flux"
    version = run(flux, "--version", cwd=project)
    for other in ([installed / "flux-migrations"], [installed / "python", "-m", "flux"]):
        assert run(*other, "--version", cwd=project) == version
    listed = run(flux, "--help", cwd=project).partition("COMMAND\n")[2]
    commands = re.findall(r"^    (\w[\w-]*)  ", listed, re.MULTILINE)
    assert {"init", "new", "status", "plan", "apply", "rollback", "resume"} <= {*commands}, commands
    for command in commands:
        assert f"flux {command}" in run(flux, command, "--help", cwd=project)

    run(flux, "init", cwd=project)
    run(flux, "new", "--sql", "Add users", cwd=project)
    run(flux, "new", "Add orders", cwd=project)
    for path in (project / "migrations").glob("*.sql"):
        verb = "DROP TABLE users" if ".undo." in path.name else "CREATE TABLE users (id integer)"
        path.write_text(f"{verb};\n", encoding="utf-8")
    assert "2 migrations" in run(flux, "validate", cwd=project)
    assert "add-users" in run(flux, "plan", "--sql", cwd=project)
    run(flux, "apply", "-y", cwd=project)
    run(flux, "status", "--check", cwd=project)
    run(flux, "rollback", "--all", "-y", cwd=project)
    assert "2 pending" in run(flux, "status", cwd=project)


def try_fixtures(installed: Path, project: Path) -> None:
    """pytest finds the fixtures by itself, and a test has a migrated database."""
    run(installed / "python", "-m", "pip", "install", "--quiet", "pytest")
    (project / "migrations").mkdir(parents=True)
    (project / "migrations" / "1_users.sql").write_text("CREATE TABLE users (id integer);\n")
    (project / "flux.toml").write_text('[flux]\nbackend = "sqlite"\n')
    (project / "test_users.py").write_text(
        "def test_users(flux_database):\n"
        "    flux_database.connect().execute('INSERT INTO users VALUES (1)')\n"
    )
    assert "1 passed" in run(installed / "python", "-m", "pytest", cwd=project)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program, which must succeed; what it printed."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("FLUX_DATABASE_URL", "PYTHONPATH"):
        environment.pop(name, None)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
