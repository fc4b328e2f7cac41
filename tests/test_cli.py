"""The command line as its users meet it: a process, its two streams, its exit code, a terminal."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flux.arguments import build_parser
from flux.host import Shell
from tests.flux_process import flux_environment
from tests.project import Project
from tests.terminal import at_terminal, posix_only

COMMANDS = (
    "init",
    "new",
    "status",
    "plan",
    "apply",
    "rollback",
    "resume",
    "validate",
    "doctor",
    "completion",
)


@pytest.fixture
def shop(project: Project) -> Project:
    """A project of three migrations, each with its undo."""
    for number, table in enumerate(("book", "author", "shelf"), 1):
        project.add(
            {
                f"00{number}_{table}.sql": f"CREATE TABLE {table} (id);\n",
                f"00{number}_{table}.undo.sql": f"DROP TABLE {table};\n",
            }
        )
    return project


IDS = ["001_book", "002_author", "003_shelf"]


def without_times(output: str) -> str:
    """The output with each duration and time of day replaced."""
    output = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", "TIME", output)
    return re.sub(r" +\d+(\.\d+)? m?s\b", " DURATION", output)


# The command line itself --------------------------------------------------------------------


def test_the_way_of_a_newcomer(project: Project) -> None:
    """What `init` and `new` write can be applied, shown and rolled back as it is."""
    (project.root / "flux.toml").unlink()
    (project.root / "migrations").rmdir()
    assert project.succeed("init") == f"created  flux.toml\ncreated  migrations{os.sep}\n"
    for arguments in (
        ["Add users"],
        ["--sql", "Add", "users"],
        ["--pre", "x"],
        ["--post", "--sql", "x"],
    ):
        project.succeed("new", *arguments)
    assert project.succeed("apply").endswith("\n2 migrations applied\n")
    assert project.succeed("status").endswith("\n2 migrations: 2 applied\n")
    assert project.succeed("validate").startswith("valid: 2 migrations")
    assert project.succeed("rollback", "-y").endswith("\n1 migration rolled back\n")
    assert len(project.applied()) == 1


def test_the_help_is_what_argparse_makes_of_it(project: Project) -> None:
    """Also in a process of flux's own, which looks for no translations."""
    assert project.succeed("--help") == build_parser(Shell()).format_help()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_is_right(project: Project, command: str) -> None:
    shown = project.succeed(command, "--help")
    example = shown.rpartition("example:\n  ")[2].strip()
    assert example.startswith(f"flux {command} ")
    assert build_parser(Shell()).parse_args(shlex.split(example)[1:]).command == command
    assert command in project.succeed("--help")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param([], "usage: flux", id="no command"),
        pytest.param(["aply"], "invalid choice: 'aply'", id="no such command"),
        pytest.param(["aply"], "; did you mean 'apply'?\n", id="a mistyped command"),
        pytest.param(["rolback", "-y"], "; did you mean 'rollback'?\n", id="another one"),
        pytest.param(["xyzzy"], "'validate')\n", id="a command that is like none"),
        pytest.param(["apply", "app.db", "-1"], "-1", id="a negative N"),
        pytest.param(["apply", "app.db", "x"], "N is a number, not 'x'", id="N is no number"),
        pytest.param(["apply", "app.db", "٣"], "N is a number, not '٣'", id="another digit"),
        pytest.param(["apply", "--lock-wait", "nan"], "a number of seconds", id="no seconds"),
        pytest.param(["apply", "--lock-wait=-1"], "a number of seconds", id="negative seconds"),
        pytest.param(["new", "--pre", "--post", "x"], "not allowed with", id="pre and post"),
        pytest.param(["new"], "NAME", id="new what"),
    ],
)
def test_a_wrong_command_line_is_2(shop: Project, arguments: list[str], word: str) -> None:
    before = shop.files()
    result = shop.run(*arguments)
    assert result.code == 2
    assert word in result.out + result.err
    assert shop.files() == before


def test_version_with_a_broken_package(project: Project) -> None:
    """What describes a driver cannot be read: it is left out."""
    project.write("broken/psycopg-3.dist-info/METADATA", b"\xff\xfe")
    shown = project.succeed("--version", env={"PYTHONPATH": str(project.root / "broken")})
    assert shown.startswith("flux ")


def test_version(project: Project) -> None:
    import flux

    shown = project.succeed("--version")
    assert shown.startswith(f"flux {flux.__version__} (Python {platform.python_version()}, ")
    assert f", SQLite {sqlite3.sqlite_version}" in shown
    assert shown.endswith(")\n")
    assert project.succeed("--version", "apply") == shown
    assert not project.database.exists()


@pytest.mark.parametrize(
    ("package", "driver"),
    [
        pytest.param("psycopg2-binary", "psycopg2", id="psycopg2"),
        pytest.param("psycopg", "psycopg", id="psycopg 3"),
    ],
)
def test_version_names_the_drivers_also_broken_ones(
    project: Project, tmp_path_factory: pytest.TempPathFactory, package: str, driver: str
) -> None:
    """Somebody who reports that a driver cannot be loaded has to be able to say which it is."""
    home = tmp_path_factory.mktemp("broken")
    (home / f"{driver}.py").write_text("raise ImportError('libpq.so.5 is not there')")
    shown = project.succeed("--version", env={"PYTHONPATH": str(home)})
    assert f", {driver} {version(package)}" in shown


# Each command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "arguments", "error"),
    [
        pytest.param(
            {"flux.toml": "mine"},
            [],
            "error: flux.toml is there already, and is left as it is\n"
            "hint: remove it first, or name another file with --config\n",
            id="flux.toml",
        ),
        pytest.param(
            {"conf/my.toml": ""},
            ["--config", "conf/my.toml"],
            "error: conf/my.toml is there already, and is left as it is\n"
            "hint: remove it first, or name another file with --config\n",
            id="another file",
        ),
        pytest.param(
            {"pyproject.toml": '[tool.flux]\nbackend = "sqlite"\n'},
            [],
            "error: [tool.flux] in pyproject.toml configures flux already, and is left as it is\n"
            "hint: remove it first, or name another file with --config\n",
            id="pyproject.toml",
        ),
        pytest.param(
            {},
            ["nosuchdb"],
            "error: no installed package provides the backend 'nosuchdb'\n"
            "hint: installed are: postgres, sqlite\n",
            id="no such backend",
        ),
        pytest.param(
            {},
            ["--config", "no/such/flux.toml"],
            "error: no/such/flux.toml: cannot be written: No such file or directory\n",
            id="no such directory",
        ),
    ],
)
def test_init_never_overwrites(
    project: Project, files: dict[str, str], arguments: list[str], error: str
) -> None:
    (project.root / "flux.toml").unlink()
    for name, content in files.items():
        project.write(name, content)
    before = project.files()
    result = project.run("init", *arguments)
    # Which other backends are installed is not this test's business.
    assert re.sub(r"are: .*", "are: postgres, sqlite", result.err) == error
    assert result.code == 2
    assert project.files() == before


@pytest.mark.parametrize("arguments", [[], ["sqlite"], ["postgres"], ["--config", "conf.toml"]])
def test_what_init_writes_is_a_configuration(project: Project, arguments: list[str]) -> None:
    (project.root / "flux.toml").unlink()
    project.succeed("init", *arguments)
    path = arguments[-1] if "--config" in arguments else "flux.toml"
    text = (project.root / path).read_text(encoding="utf-8")
    every_setting = re.sub(r"(?m)^# (?=\w+ = )", "", text)
    for content in (text, every_setting):
        project.write(path, content)
        result = project.run(
            "validate", "app.db", *arguments[-2:] if "--config" in arguments else []
        )
        if "postgres" not in arguments:
            assert (result.code, result.err) == (0, "")


def test_new_gives_ids_that_sort_last(project: Project) -> None:
    """Last on disk and in the history, of which this directory may not hold all."""
    today = r"\d{8}_\d{3}"
    first = project.succeed("new", "--sql", "Add users: “all” of them")
    assert re.fullmatch(
        rf"created  migrations/({today}_add-users-all-of-them)\.sql\n"
        r"created  migrations/\1\.undo\.sql\n",
        first,
    )
    assert re.fullmatch(rf"created  migrations/{today}_two\.py\n", project.succeed("new", "two"))
    project.succeed("apply")
    project.query(
        "INSERT INTO _flux_migrations VALUES ('29991231_007_x', 'of another branch', '2026-01-01')"
    )
    assert project.succeed("new", "three") == "created  migrations/29991231_008_three.py\n"
    assert re.fullmatch(
        rf"created  migrations/pre-apply/{today}_four\.sql\n",
        project.succeed("new", "--pre", "--sql", "four"),
    )
    assert re.fullmatch(
        rf"created  migrations/post-apply/{today}_five\.py\n",
        project.succeed("new", "--post", "five"),
    )


def test_new_without_its_database_says_what_it_cannot_know(project: Project) -> None:
    project.write("app.db", "no database, and long enough to be one" * 50)
    result = project.run("new", "x")
    assert result.code == 0
    assert result.err == (
        "flux: the new id does not heed the history: cannot read the history: file is not a "
        "database\n"
    )
    assert len(list((project.root / "migrations").iterdir())) == 1


def test_status_of_each_kind(shop: Project) -> None:
    assert shop.succeed("status") == (
        "pending    001_book\npending    002_author\npending    003_shelf\n"
        "3 migrations: 3 pending; flux has not touched this database\n"
    )
    shop.succeed("apply", "2")
    assert without_times(shop.succeed("status")) == (
        "applied    001_book    TIME\napplied    002_author  TIME\npending    003_shelf\n"
        "3 migrations: 2 applied, 1 pending\n"
    )
    shop.add({"002_author.sql": "SELECT 1;", "000.sql": "SELECT 1;"})
    (shop.root / "migrations" / "001_book.sql").unlink()
    (shop.root / "migrations" / "001_book.undo.sql").unlink()
    result = shop.run("status")
    assert (result.code, result.err) == (4, "")
    assert without_times(result.out) == (
        "late       000\n"
        "missing    001_book    TIME\n"
        "divergent  002_author  TIME\n"
        "pending    003_shelf\n"
        "\n"
        "- migrations/000.sql: 000 is late: it is pending, and 002_author, which is newer, is "
        "applied\n"
        "  hint: if it is applied nowhere yet, rename it so that it sorts last; or roll back what "
        "is newer, and apply again; or let `flux test --late` prove that their order does not "
        "matter, and give `--allow-late`\n"
        "- 001_book is missing: the history has it, and the directory does not\n"
        "  hint: restore the file; if it was renamed, give it back the name it was applied with\n"
        "- migrations/002_author.sql: 002_author is divergent: it has changed since it was "
        "applied\n"
        "  hint: restore the file as it was applied, and put the change into a new migration"
        "; or roll back to before it, and change it then\n"
        "\n"
        "4 migrations: 1 pending, 1 late, 1 divergent, 1 missing\n"
    )


def test_status_check_tells_by_its_exit_code(shop: Project) -> None:
    assert shop.run("status").code == 0
    assert shop.run("status", "--check").code == 3
    shop.succeed("apply", "2")
    assert shop.run("status", "--check").code == 3
    shop.succeed("apply")
    assert shop.run("status", "--check").code == 0


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param([], IDS, id="all"),
        pytest.param(["2"], IDS[:2], id="N"),
        pytest.param(["app.db", "1"], IDS[:1], id="URI and N"),
        pytest.param(["0"], [], id="none"),
        pytest.param(["99"], IDS, id="more than there are"),
        pytest.param(["--to", IDS[1]], IDS[:2], id="to"),
        pytest.param(["--to", IDS[2], "1"], IDS[:1], id="to and N"),
    ],
)
def test_plan_shows_what_apply_does(shop: Project, arguments: list[str], shown: list[str]) -> None:
    lines = "".join(f"apply  {id}\n" for id in shown) or "nothing to do\n"
    assert shop.succeed("plan", *arguments) == lines
    assert not shop.database.exists()
    done = without_times(shop.succeed("apply", *arguments))
    assert [line.split()[-1] for line in done.splitlines()[:-1]] == shown
    assert (shop.applied() if shown else []) == shown


def test_plan_shows_the_sql(shop: Project) -> None:
    shop.add(
        {
            "004.py": "def apply():\n    yield 'SELECT 1'\n    yield 'SELECT 2'\n",
            "005.py": "def apply(connection):\n    pass\n",
        }
    )
    shop.succeed("apply", "--to", "003_shelf")
    assert shop.succeed("plan", "--sql") == (
        "apply  004\n\n    SELECT 1\n    ;\n    SELECT 2\n\n"
        "apply  005\n\n    -- a Python function in migrations/005.py, which is given the "
        "connection\n"
    )


def test_plan_marks_migrations_without_a_statement(project: Project) -> None:
    """As `flux new` leaves them: most often they are not written yet."""
    project.succeed("new", "--sql", "Not written yet")
    [id] = {path.name.partition(".")[0] for path in (project.root / "migrations").iterdir()}
    project.add(
        {
            "000_1.sql": "",
            "000_2.sql": "-- one\n/* two */\n\n",
            "000_3.sql": "-- one\nSELECT 1",
            "000_4.py": "def apply():\n    return ''\n",
            "000_5.py": "def apply(connection):\n    pass\n",
            "pre-apply/p.sql": "-- nothing\n",
        }
    )
    assert project.succeed("plan") == (
        "run    pre-apply/p\n"
        "apply  000_1  (it holds no statement)\n"
        "apply  000_2  (it holds no statement)\n"
        "apply  000_3\n"
        "apply  000_4  (it holds no statement)\n"
        "apply  000_5\n"
        f"apply  {id}  (it holds no statement)\n"
    )
    assert project.succeed("apply").endswith("\n6 migrations applied\n")


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        pytest.param([], IDS[:2], id="one by default"),
        pytest.param(["2"], IDS[:1], id="N"),
        pytest.param(["app.db", "2"], IDS[:1], id="URI and N"),
        pytest.param(["--to", IDS[0]], IDS[:1], id="to"),
        pytest.param(["--to", IDS[2]], IDS, id="to the newest"),
        pytest.param(["--all"], [], id="all"),
        pytest.param(["7"], [], id="more than there are"),
    ],
)
def test_rollback_undoes_no_more_than_it_is_told(
    shop: Project, arguments: list[str], left: list[str]
) -> None:
    shop.succeed("apply")
    shop.succeed("rollback", "-y", *arguments)
    assert shop.applied() == left
    assert shop.tables() == sorted(id.partition("_")[2] for id in left)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(
            [],
            "error: rollback changes the database, and there is no terminal to ask at\n"
            "hint: give --auto-approve (-y) to go ahead without a question\n",
            id="nobody to ask",
        ),
        pytest.param(
            ["-y", "--all", "1"], "error: give one of N, --all and --to ID\n", id="all and N"
        ),
        pytest.param(
            ["-y", "--all", "--to", IDS[0]],
            "error: give one of N, --all and --to ID\n",
            id="all and to",
        ),
        pytest.param(
            ["-y", "--to", "001_bok"],
            "error: no migration '001_bok' is applied\nhint: did you mean '001_book'?\n",
            id="to what is not applied",
        ),
    ],
)
def test_rollback_that_is_not_clear_is_2(shop: Project, arguments: list[str], error: str) -> None:
    shop.succeed("apply")
    assert shop.fail("rollback", *arguments, code=2) == error
    assert shop.applied() == IDS


def test_apply_to_what_is_not_there_is_2(shop: Project) -> None:
    assert shop.fail("apply", "--to", "nowhere", code=2) == (
        "error: no migration 'nowhere' is on disk\nhint: `flux status` lists them\n"
    )
    assert not shop.database.exists()


def test_validate(shop: Project) -> None:
    assert shop.succeed("validate") == ("valid: 3 migrations, in order with the history\n")
    shop.succeed("apply")
    shop.add({"001_book.sql": "SELECT 1;", "001_book.undo.sql": "COMMIT;"})
    result = shop.run("validate")
    assert (result.code, result.err) == (4, "")
    assert result.out == (
        "- migrations/001_book.sql: 001_book is divergent: it has changed since it was applied\n"
        "  hint: restore the file as it was applied, and put the change into a new migration"
        "; or roll back to before it, and change it then\n"
        "- migrations/001_book.undo.sql:1:1: COMMIT inside a migration, which flux runs in a "
        "transaction of its own\n"
        "      1 | COMMIT;\n"
        "        | ^\n"
        "  hint: remove it, or run the whole file without a transaction: -- flux: "
        "no-transaction\n"
    )
    (shop.root / "migrations" / "001_book.sql").write_bytes(b"CREATE TABLE book (id);\n")
    assert shop.run("validate").code == 1


# Addresses and configuration ----------------------------------------------------------------


def databases(project: Project) -> list[str]:
    return sorted(
        str(path.relative_to(project.root))
        for path in project.root.rglob("*")
        if path.is_file() and path.suffix in ("", ".db") and "-flux-lock" not in path.name
    )


def test_a_lone_argument_of_digits_is_n(shop: Project) -> None:
    shop.succeed("apply", "2")
    assert databases(shop) == ["app.db"]
    assert shop.applied() == IDS[:2]
    shop.succeed("apply", "./5")
    assert databases(shop) == ["5", "app.db"]
    shop.succeed("rollback", "./5", "2", "-y")
    assert shop.applied() == IDS[:2], "the other database's were undone"
    # What takes no N takes no digits for it either.
    assert shop.succeed("status", "5") == shop.succeed("status", "./5")
    assert "1 applied, 2 pending" in shop.succeed("status", "5")


@pytest.mark.parametrize(
    "arguments", [("apply", "1x"), ("apply", "1", "2"), ("rollback", "-y", "20240101_001_users")]
)
def test_what_is_no_address_makes_no_database(shop: Project, arguments: tuple[str, ...]) -> None:
    """A mistyped N, or an id without its --to, is not the name of a new file."""
    before = shop.files()
    err = shop.fail(*arguments, code=2)
    assert " is no database's address (N is a whole number, and --to names a migration; " in err
    assert shop.files() == before


@pytest.mark.parametrize(
    ("argument", "variable", "made"),
    [
        pytest.param(None, None, "app.db", id="the file's"),
        pytest.param(None, "sqlite:///env.db", "env.db", id="the environment's before it"),
        pytest.param("arg.db", "sqlite:///env.db", "arg.db", id="the argument before both"),
    ],
)
def test_the_address_is_the_one_that_was_said_last(
    shop: Project, argument: str | None, variable: str | None, made: str
) -> None:
    shop.succeed("apply", *[argument] if argument else [], env={"FLUX_DATABASE_URL": variable})
    assert databases(shop) == [made]


def test_paths_in_the_configuration_count_from_its_file(shop: Project) -> None:
    """The rest counts from the working directory, wherever that is."""
    elsewhere = shop.root / "elsewhere"
    elsewhere.mkdir()
    config = str(shop.root / "flux.toml")
    assert shop.run("apply", "1", "--config", config, cwd=elsewhere).code == 0
    assert databases(shop) == ["app.db"]
    assert shop.run("apply", "other.db", "1", "--config", "../flux.toml", cwd=elsewhere).code == 0
    assert databases(shop) == ["app.db", "elsewhere/other.db"]


def test_pyproject_configures_as_well(shop: Project) -> None:
    (shop.root / "flux.toml").unlink()
    shop.write(
        "pyproject.toml",
        '[tool.flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///${WHERE}/py.db"\n'
        '[tool.flux.backend_config]\nmigrations_table = "mine"\n',
    )
    (shop.root / "there").mkdir()
    shop.succeed("apply", env={"WHERE": "there"})
    assert databases(shop) == ["there/py.db"]
    with closing(sqlite3.connect(shop.root / "there" / "py.db")) as connection:
        assert connection.execute("SELECT count(*) FROM mine").fetchone() == (3,)


BAD = "flux.toml"


@pytest.mark.parametrize(
    ("files", "error"),
    [
        pytest.param(
            {"pyproject.toml": '[tool.flux]\nbackend = "sqlite"\n'},
            "error: both flux.toml and [tool.flux] in pyproject.toml configure flux\n"
            "hint: keep one of the two\n",
            id="two configurations",
        ),
        pytest.param(
            {BAD: None},
            "error: there is no flux.toml here ({root})\n"
            "hint: run `flux init` to write one, or name another file with --config\n",
            id="none",
        ),
        pytest.param(
            {BAD: '[flux]\nbackend = "sqlite"\n'},
            "error: no database is named\n"
            "hint: give its address on the command line, in the environment variable "
            "FLUX_DATABASE_URL, or as database_url in flux.toml\n",
            id="no database",
        ),
        pytest.param(
            {BAD: '[flux]\nbackend = "sqlite"\ndatabase_url = "${NO_SUCH_VARIABLE}"\n'},
            "error: flux.toml: database_url needs the environment variable 'NO_SUCH_VARIABLE', "
            "which is not set\n",
            id="a variable that is not set",
        ),
    ],
)
def test_a_wrong_configuration_is_2(
    shop: Project, files: Mapping[str, str | None], error: str
) -> None:
    for name, content in files.items():
        if content is None:
            (shop.root / name).unlink()
        else:
            shop.write(name, content)
    before = shop.files()
    for command in ("status", "plan", "apply", "validate"):
        assert shop.fail(command, code=2) == error.format(root=shop.root)
    assert shop.files() == before


# JSON ---------------------------------------------------------------------------------------


def read_json(output: str) -> Any:
    """The document, its durations and times replaced by the names of their types."""
    times = ("seconds", "applied_at")

    def replaced(value: Any) -> Any:
        if isinstance(value, list):
            return [replaced(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        return {
            key: type(inner).__name__ if key in times and inner is not None else replaced(inner)
            for key, inner in value.items()
        }

    return replaced(json.loads(output))


def row(number: int, state: str) -> dict[str, Any]:
    id = IDS[number - 1]
    applied_at = None if state == "pending" else "str"
    path = f"migrations/{id}.sql"
    return {"id": id, "state": state, "applied_at": applied_at, "path": path, "half": None}


def location(path: str, line: int | None = None, column: int | None = None) -> dict[str, Any]:
    return {"path": path, "line": line, "column": column, "within": None}


DIVERGENT = {
    "kind": "divergent",
    "ids": ["001_book"],
    "message": "001_book is divergent: it has changed since it was applied",
    "hint": "restore the file as it was applied, and put the change into a new migration"
    "; or roll back to before it, and change it then",
    "location": location("migrations/001_book.sql"),
}
DISAGREEMENT = {
    "type": "MigrationDirectoryCorruptedError",
    "message": "history and migration directory disagree",
    "hint": None,
    "location": None,
    "problems": [DIVERGENT],
}
FAILURE = {
    "type": "MigrationApplyError",
    "message": "applying 003_shelf failed: no such table: nowhere",
    "hint": None,
    "location": location("migrations/003_shelf.sql", 2),
    "problems": [],
    "name": "003_shelf",
    "state": "rolled back; the database is as it was before 003_shelf",
    "done": ["002_author"],
}
NO_CONFIGURATION: dict[str, Any] = {
    "type": "InvalidConfigurationError",
    "message": "cannot be read: No such file or directory",
    "hint": None,
    "location": location("no.toml"),
    "problems": [],
}


def of_one_problem(type_: str, kind: str, ids: list[str], **told: Any) -> dict[str, Any]:
    """An error that is its only problem: it is told as itself, and listed as well."""
    return {"type": type_, **told, "problems": [{"kind": kind, "ids": ids, **told}]}


CANNOT_RUN = of_one_problem(
    "MigrationLoadingError",
    "transaction-control",
    ["002_author"],
    message="COMMIT inside a migration, which flux runs in a transaction of its own",
    hint="remove it, or run the whole file without a transaction: -- flux: no-transaction",
    location=location("migrations/002_author.sql", 1, 1),
)
UNREADABLE = of_one_problem(
    "InvalidMigrationModuleError",
    "invalid-module",
    ["004"],
    message="has no apply()",
    hint="define apply() that returns SQL text, or apply(connection) that does the work itself",
    location=location("migrations/004.py"),
)
UNKNOWN_KEY = of_one_problem(
    "InvalidConfigurationError",
    "unknown-key",
    [],
    message="unknown key 'tabel' in [backend]",
    hint="there are: migrations_table, busy_timeout",
    location=location("flux.toml"),
)


def step(action: str, name: str) -> dict[str, Any]:
    return {"action": action, "name": name, "seconds": "float"}


def planned(number: int, **more: str) -> dict[str, Any]:
    id = IDS[number - 1]
    return {"action": "apply", "name": id, "path": f"migrations/{id}.sql", **more}


@pytest.mark.parametrize(
    ("change", "arguments", "code", "document"),
    [
        pytest.param(
            {},
            ["status"],
            0,
            {
                "initialized": True,
                "unfinished_batch": False,
                "changed_repeatables": [],
                "migrations": [row(1, "applied"), row(2, "pending"), row(3, "pending")],
                "problems": [],
            },
            id="status",
        ),
        pytest.param(
            {},
            ["status", "new.db", "--check"],
            3,
            {
                "initialized": False,
                "unfinished_batch": False,
                "changed_repeatables": [],
                "migrations": [row(1, "pending"), row(2, "pending"), row(3, "pending")],
                "problems": [],
            },
            id="status of an untouched database",
        ),
        pytest.param(
            {"001_book.sql": "SELECT 1"},
            ["status"],
            4,
            {
                "initialized": True,
                "unfinished_batch": False,
                "changed_repeatables": [],
                "migrations": [row(1, "divergent"), row(2, "pending"), row(3, "pending")],
                "problems": [DIVERGENT],
            },
            id="status with a problem",
        ),
        pytest.param(
            {},
            ["plan"],
            0,
            {"finishes_batch": False, "steps": [planned(2), planned(3)]},
            id="plan",
        ),
        pytest.param(
            {},
            ["plan", "--sql", "1"],
            0,
            {
                "finishes_batch": False,
                "steps": [planned(2, sql="CREATE TABLE author (id);")],
            },
            id="plan with SQL",
        ),
        pytest.param(
            {}, ["plan", "0"], 0, {"finishes_batch": False, "steps": []}, id="plan of nothing"
        ),
        pytest.param(
            {"001_book.sql": "SELECT 1"}, ["plan"], 4, {"error": DISAGREEMENT}, id="plan fails"
        ),
        pytest.param({}, ["validate"], 0, {"problems": []}, id="validate"),
        pytest.param(
            {"001_book.sql": "SELECT 1"},
            ["validate"],
            4,
            {"problems": [DIVERGENT]},
            id="validate with a problem",
        ),
        pytest.param(
            {},
            ["apply"],
            0,
            {
                "ok": True,
                "steps": [step("apply", IDS[1]), step("apply", IDS[2])],
                "error": None,
            },
            id="apply",
        ),
        pytest.param(
            {}, ["apply", "0"], 0, {"ok": True, "steps": [], "error": None}, id="apply of nothing"
        ),
        pytest.param(
            {"003_shelf.sql": "\nINSERT INTO nowhere VALUES (1);"},
            ["apply"],
            1,
            {"ok": False, "steps": [step("apply", IDS[1])], "error": FAILURE},
            id="apply fails",
        ),
        pytest.param(
            {"001_book.sql": "SELECT 1"},
            ["apply"],
            4,
            {"ok": False, "steps": [], "error": DISAGREEMENT},
            id="apply is stopped",
        ),
        pytest.param(
            {"002_author.sql": "COMMIT;"},
            ["apply"],
            1,
            {"ok": False, "steps": [], "error": CANNOT_RUN},
            id="apply of what cannot run",
        ),
        pytest.param(
            {"004.py": ""}, ["plan"], 1, {"error": UNREADABLE}, id="plan of what cannot be read"
        ),
        pytest.param(
            {"../flux.toml": '[flux]\nbackend = "sqlite"\n[backend]\ntabel = 1'},
            ["status", "app.db"],
            2,
            {"error": UNKNOWN_KEY},
            id="status with an unknown key",
        ),
        pytest.param(
            {},
            ["rollback", "-y"],
            0,
            {"ok": True, "steps": [step("undo", IDS[0])], "error": None},
            id="rollback",
        ),
        pytest.param(
            {},
            ["rollback"],
            2,
            {
                "ok": False,
                "steps": [],
                "error": {
                    "type": "InvalidConfigurationError",
                    "message": "rollback changes the database, and --json does not ask",
                    "hint": "give --auto-approve (-y) to go ahead without a question",
                    "location": None,
                    "problems": [],
                },
            },
            id="rollback without approval",
        ),
        *(
            pytest.param(
                {},
                [command, "--config", "no.toml"],
                2,
                {
                    **({"ok": False, "steps": []} if command == "apply" else {}),
                    "error": NO_CONFIGURATION,
                },
                id=f"{command} without a configuration",
            )
            for command in ("status", "plan", "validate", "apply")
        ),
    ],
)
def test_json_is_one_document_of_its_format(
    shop: Project, change: dict[str, str], arguments: list[str], code: int, document: object
) -> None:
    """docs/json.md is a contract: every key, also where something failed; nothing beside it."""
    shop.succeed("apply", "1")
    shop.add(change)
    result = shop.run(*arguments, "--json")
    assert (result.code, result.err) == (code, "")
    assert isinstance(document, dict)
    assert read_json(result.out) == {"format": 1, "command": arguments[0], **document}


@pytest.mark.parametrize("command", ["status", "plan", "validate", "apply"])
def test_json_is_not_spoilt_by_migrations_that_print(shop: Project, command: str) -> None:
    shop.add(
        {
            "004.py": "import sys\nprint('read')\ndef apply(connection):\n    print('run')\n"
            "    sys.stdout.write('written')\n"
        }
    )
    result = shop.run(command, "--json")
    assert result.code == 0
    assert json.loads(result.out)["command"] == command
    assert result.err == "read\n" + ("run\nwritten" if command == "apply" else "")


def test_json_holds_any_text_as_it_is(shop: Project) -> None:
    shop.add({'004_é "quoted" 日本.sql': "SELECT 'ü';"})
    document = json.loads(shop.succeed("plan", "--json", "--sql"))
    assert document["steps"][3]["name"] == '004_é "quoted" 日本'
    assert document["steps"][3]["sql"] == "SELECT 'ü';"


# Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param(
            "def helper():\n    return 1 / 0\n\ndef apply():\n    return helper()\n",
            "error: migrations/004.py:2: apply() fails: ZeroDivisionError: division by zero\n"
            "    2 |     return 1 / 0\n",
            id="resolving",
        ),
        pytest.param(
            "import nothing_of_this_name\n",
            "error: migrations/004.py:1: fails when it is read: ModuleNotFoundError: No module "
            "named 'nothing_of_this_name'\n"
            "    1 | import nothing_of_this_name\n",
            id="reading",
        ),
        pytest.param(
            "def apply(:\n",
            "error: migrations/004.py:1:11: SyntaxError: invalid syntax\n"
            "    1 | def apply(:\n"
            "      |           ^\n",
            id="syntax",
        ),
        pytest.param(
            "def work(connection):\n    connection.execute('SELECT x')\n\n"
            "def apply(connection):\n    work(connection)\n",
            "error: migrations/004.py:2: applying 004 failed: OperationalError: no such column: "
            "x\n"
            "    2 |     connection.execute('SELECT x')\n"
            "done before it: 001_book, 002_author, 003_shelf\n"
            "state: rolled back; the database is as it was before 004\n",
            id="running",
        ),
        pytest.param(
            "import sys\nsys.exit(0)\n",
            "error: migrations/004.py:2: fails when it is read: SystemExit: 0\n"
            "    2 | sys.exit(0)\n",
            id="exiting when it is read",
        ),
        pytest.param(
            "def apply():\n    return 'SELECT 1;\\nFAIL;'\n",
            "error: migrations/004.py (line 2, in what apply() gave): applying 004 failed: near "
            '"FAIL": syntax error\n'
            "    2 | FAIL;\n"
            "done before it: 001_book, 002_author, 003_shelf\n"
            "state: rolled back; the database is as it was before 004\n",
            id="text from Python",
        ),
    ],
)
def test_an_error_of_a_python_migration_points_into_its_own_file(
    shop: Project, source: str, error: str
) -> None:
    shop.add({"004.py": source})
    assert shop.fail("apply") == error


@pytest.mark.parametrize(
    ("change", "arguments", "code"),
    [
        pytest.param({"001_book.sql": "SELECT 1"}, ["apply"], 4, id="disagreement"),
        pytest.param({"002_author.sql": "FAIL"}, ["apply"], 1, id="a failure"),
        pytest.param({}, ["apply", "--config", "no.toml"], 2, id="configuration"),
        pytest.param({}, ["apply", "--to", "x", "--json"], 2, id="with JSON"),
    ],
)
def test_a_traceback_is_shown_on_demand_and_changes_nothing_else(
    shop: Project, change: dict[str, str], arguments: list[str], code: int
) -> None:
    shop.succeed("apply", "1")
    shop.add(change)
    plain, traced = shop.run(*arguments), shop.run(*arguments, "--traceback")
    assert (plain.code, traced.code) == (code, code)
    assert "Traceback" not in plain.err
    assert traced.err.startswith("Traceback (most recent call last):\n")
    assert traced.err.endswith(plain.err)
    assert traced.out == plain.out


def test_what_nobody_foresaw_is_told_without_a_traceback(shop: Project) -> None:
    """An error of flux or of a backend: its kind, its words, and how to see where it was."""
    shop.succeed("apply")
    shop.query("UPDATE _flux_migrations SET applied_at = 'noon'")
    error = (
        "error: unexpected ValueError: Invalid isoformat string: 'noon'\n"
        "hint: --traceback shows where it comes from\n"
    )
    for command in ("status", "apply"):
        assert shop.fail(command) == error
    traced = shop.run("status", "--traceback")
    assert traced.err.startswith("Traceback")
    assert traced.err.endswith(error)
    document = json.loads(shop.run("status", "--json").out)
    assert document["error"]["message"] == "unexpected ValueError: Invalid isoformat string: 'noon'"


@pytest.mark.parametrize(
    "address",
    ["postgresql://user:s3cr3t@host/db", "postgresql://user:s3c/r3t@host/db"],
)
def test_no_password_is_shown(shop: Project, address: str) -> None:
    for more in ([], ["--traceback"], ["--json"]):
        for where in ("argument", "environment"):
            arguments = [address] if where == "argument" else []
            env = {"FLUX_DATABASE_URL": address} if where == "environment" else {}
            result = shop.run("apply", *arguments, *more, env=env)
            assert result.code == 2
            assert "r3t" not in result.out + result.err


def test_a_name_that_the_terminal_cannot_show_is_escaped(shop: Project) -> None:
    shop.add({"004_é.sql": "SELECT 1"})
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert "pending    004_\\xe9\n" in shop.succeed("status", env=env)


def run_shell(project: Project, command: str) -> tuple[int, str]:
    """Run a line of the shell in which FLUX stands for flux; its exit code and standard error."""
    flux = f"{shlex.quote(sys.executable)} -m flux"
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; " + command.replace("FLUX", flux)],
        cwd=project.root,
        env=flux_environment(),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stderr


@posix_only
@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        pytest.param("FLUX status | true", 1, "", id="a reader that has gone"),
        pytest.param("FLUX status --json | true", 1, "", id="with JSON"),
        pytest.param("FLUX apply | cat > /dev/null", 0, "", id="a reader that stays"),
        pytest.param("FLUX status >&-", 0, "", id="no standard output"),
        pytest.param("FLUX apply 2>&-", 0, "", id="no standard error"),
        pytest.param("FLUX apply <&-", 0, "", id="no standard input"),
        pytest.param(
            "FLUX status > /dev/full",
            1,
            "error: unexpected OSError: [Errno 28] No space left on device\n"
            "hint: --traceback shows where it comes from\n",
            id="a full disk",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
        ),
    ],
)
def test_output_that_nobody_takes(shop: Project, command: str, code: int, error: str) -> None:
    # More than a pipe and Python's buffer hold would tell it at once; little tells it at the end.
    result = run_shell(shop, command)
    if "| true" in command:
        # Whether `true` has ended by then is a matter of luck; a traceback never is.
        assert result in [(1, ""), (0, "")]
    else:
        assert result == (code, error)


@posix_only
def test_a_reader_that_goes_in_mid_batch_leaves_whole_migrations(shop: Project) -> None:
    source = "import os, time\ndef apply(connection):\n    while not os.path.exists('go on'):\n"
    shop.add({"004.py": source + "        time.sleep(0.01)\n", "005.sql": "SELECT 1"})
    with shop.started("apply") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        shop.write("go on", "")
        assert process.stderr.read() == ""
        assert process.wait() == 1
    done = shop.applied()
    assert done == [*IDS, "004"][: len(done)]
    assert len(shop.tables()) == min(len(done), 3)
    shop.succeed("apply")
    assert shop.applied() == [*IDS, "004", "005"]


# At a terminal ------------------------------------------------------------------------------


QUESTION = "Apply this? [y/N] "
PLAN = "apply  001_book\napply  002_author\napply  003_shelf\n"
NO_COLOR: dict[str, str | None] = {"NO_COLOR": "1"}


@posix_only
@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", " YES \n"])
def test_apply_shows_the_plan_and_asks(shop: Project, answer: str) -> None:
    with at_terminal(shop, "apply", env=NO_COLOR) as terminal:
        assert terminal.read_until(QUESTION) == PLAN + QUESTION
        assert not shop.database.exists(), "nothing is written while it asks"
        terminal.type(answer)
        assert terminal.read_to_the_end().endswith("\n3 migrations applied\n")
        assert terminal.process.wait() == 0
    assert shop.applied() == IDS


@posix_only
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("n\n", id="no"),
        pytest.param("\n", id="the default"),
        pytest.param("yep\n", id="something else"),
        pytest.param("\x04", id="the end of input"),
    ],
)
def test_a_plan_that_is_declined_is_1(shop: Project, answer: str) -> None:
    before = shop.files()
    with at_terminal(shop, "apply", env=NO_COLOR) as terminal:
        terminal.read_until(QUESTION)
        terminal.type(answer)
        shown = terminal.read_to_the_end()
        assert shown.endswith("\nerror: nothing was changed: the plan was not approved\n")
        assert terminal.process.wait() == 1
    assert shop.files() == before


@posix_only
def test_rollback_shows_the_plan_and_asks(shop: Project) -> None:
    shop.succeed("apply")
    with at_terminal(shop, "rollback", "2", env=NO_COLOR) as terminal:
        question = "Roll this back? [y/N] "
        assert terminal.read_until(question) == f"undo   003_shelf\nundo   002_author\n{question}"
        assert shop.applied() == IDS
        terminal.type("y\n")
        assert terminal.read_to_the_end().endswith("\n2 migrations rolled back\n")
        assert terminal.process.wait() == 0
    assert shop.applied() == IDS[:1]


@posix_only
def test_the_question_remarks_on_migrations_without_a_statement(project: Project) -> None:
    project.add({"001.sql": "-- later\n"})
    with at_terminal(project, "apply", env=NO_COLOR) as terminal:
        assert terminal.read_until(QUESTION) == ("apply  001  (it holds no statement)\n" + QUESTION)


@posix_only
@pytest.mark.parametrize("flag", ["-y", "--auto-approve"])
def test_auto_approve_does_not_ask(shop: Project, flag: str) -> None:
    for command in ("apply", "rollback"):
        with at_terminal(shop, command, flag) as terminal:
            assert "[y/N]" not in terminal.read_to_the_end()
            assert terminal.process.wait() == 0
    assert shop.applied() == IDS[:2]


@posix_only
def test_nothing_to_do_asks_nothing(shop: Project) -> None:
    shop.succeed("apply")
    with at_terminal(shop, "apply") as terminal:
        assert terminal.read_to_the_end() == "nothing to do\n"
        assert terminal.process.wait() == 0


@posix_only
def test_a_plan_that_changed_before_the_lock_is_shown_and_asked_again(shop: Project) -> None:
    """What runs is what was approved, and not what another process has left of it."""
    with at_terminal(shop, "apply", env=NO_COLOR) as terminal:
        terminal.read_until(QUESTION)
        shop.succeed("apply", "1")
        terminal.type("y\n")
        assert terminal.read_until(QUESTION) == (
            "y\nmeanwhile the plan has changed:\napply  002_author\napply  003_shelf\n" + QUESTION
        )
        assert shop.applied() == IDS[:1]
        # It asks without the lock: others need not wait for an answer.
        shop.succeed("apply", "1", "--lock-wait", "0")
        terminal.type("y\n")
        assert (
            terminal.read_until(QUESTION)
            == "y\nmeanwhile the plan has changed:\napply  003_shelf\n" + QUESTION
        )
        terminal.type("y\n")
        assert terminal.read_to_the_end().endswith("\n1 migration applied\n")
        assert terminal.process.wait() == 0
    assert shop.applied() == IDS


@posix_only
def test_a_plan_that_another_process_has_carried_out_is_nothing_to_do(shop: Project) -> None:
    with at_terminal(shop, "apply", env=NO_COLOR) as terminal:
        terminal.read_until(QUESTION)
        shop.succeed("apply")
        terminal.type("y\n")
        assert terminal.read_to_the_end() == "y\nnothing to do\n"
        assert terminal.process.wait() == 0


@posix_only
def test_the_question_is_seen_where_errors_go_elsewhere(shop: Project) -> None:
    """`flux apply 2> log` must not wait for an answer to a question that is in the log."""
    with at_terminal(shop, "apply", env=NO_COLOR, stderr=subprocess.PIPE) as terminal:
        terminal.read_until(QUESTION)
        terminal.type("n\n")
        terminal.read_to_the_end()
        assert terminal.process.stderr is not None
        assert terminal.process.stderr.read().startswith(b"error: nothing was changed")


@posix_only
def test_the_question_is_seen_where_the_output_goes_elsewhere(shop: Project) -> None:
    """`flux apply > log` asks, at the terminal; the log has what was done."""
    for command, question, plan, done in (
        ("apply", QUESTION, PLAN, "3 migrations applied"),
        ("rollback", "Roll this back? [y/N] ", "undo   003_shelf\n", "1 migration rolled back"),
    ):
        with at_terminal(shop, command, env=NO_COLOR, stdout=subprocess.PIPE) as terminal:
            assert terminal.read_until(question) == plan + question
            terminal.type("y\n")
            assert terminal.process.stdout is not None
            log = without_times(terminal.process.stdout.read().decode())
            assert [line.split()[-1] for line in log.splitlines()[:-1]] == [
                line.split()[-1] for line in plan.splitlines()
            ]
            assert log.splitlines()[-1] == done
            assert terminal.process.wait() == 0
            assert terminal.read_to_the_end() == "y\n"
    assert shop.applied() == IDS[:2]


@posix_only
def test_where_neither_output_nor_errors_are_seen_nothing_is_asked(shop: Project) -> None:
    shop.succeed("apply", "1")
    with at_terminal(shop, "rollback", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as terminal:
        assert terminal.process.stderr is not None
        assert terminal.process.stderr.read().startswith(
            b"error: rollback changes the database, and there is no terminal to ask at\n"
        )
        assert terminal.process.wait() == 2
    assert shop.applied() == IDS[:1]


@posix_only
@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        pytest.param({}, True, id="a terminal"),
        pytest.param({"NO_COLOR": "1"}, False, id="NO_COLOR"),
        pytest.param({"NO_COLOR": ""}, True, id="an empty NO_COLOR is none"),
        pytest.param({"TERM": "dumb"}, False, id="a terminal without colours"),
    ],
)
def test_colour_only_at_a_terminal_that_wants_it(
    shop: Project, env: dict[str, str | None], coloured: bool
) -> None:
    with at_terminal(shop, "status", env=env) as terminal:
        assert ("\x1b[" in terminal.read_to_the_end()) == coloured
    shop.add({"001_book.sql": "FAIL"})
    with at_terminal(shop, "apply", "-y", env=env) as terminal:
        shown = terminal.read_to_the_end()
        assert ("\x1b[31merror:\x1b[0m " in shown) == coloured
        assert "error:" in shown


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        pytest.param({}, False, id="no terminal"),
        pytest.param({"FORCE_COLOR": "1"}, True, id="FORCE_COLOR"),
        pytest.param({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, id="NO_COLOR comes first"),
    ],
)
def test_colour_without_a_terminal(
    shop: Project, env: dict[str, str | None], coloured: bool
) -> None:
    assert ("\x1b[" in shop.run("status", env=env).out) == coloured


@posix_only
def test_colours_do_not_move_columns(shop: Project) -> None:
    shop.succeed("apply", "1")
    plain = shop.succeed("status")
    coloured = shop.succeed("status", env={"FORCE_COLOR": "1"})
    uncoloured = re.sub(r"\x1b\[\d+m", "", coloured)
    assert [line.rstrip() for line in uncoloured.splitlines()] == plain.splitlines()


# Interruptions ------------------------------------------------------------------------------

INTERRUPTED = (
    "error: interrupted at 004: what ran in a transaction is rolled back, what was done before it "
    "stays\n"
    "hint: `flux status` shows where things stand\n"
)
RUNS_ON = {
    "Python": (
        "004.py",
        "import time\ndef apply(connection):\n    connection.execute('CREATE TABLE half (id)')\n"
        "    open('running', 'w').close()\n    while True:\n        time.sleep(0.01)\n",
    ),
    # A statement in which no Python code runs, and so no handler of a signal.
    "SQL": (
        "004.py",
        "def apply(connection):\n    connection.execute('CREATE TABLE half (id)')\n"
        "    open('running', 'w').close()\n"
        "    connection.execute('WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT count(*) FROM n')\n",
    ),
}


@posix_only
@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "JSON"])
@pytest.mark.parametrize("kind", list(RUNS_ON))
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_migration_is_rolled_back(
    shop: Project, kind: str, number: signal.Signals, code: int, json_flag: list[str]
) -> None:
    """And what was done before it stays, and the lock is free."""
    name, source = RUNS_ON[kind]
    shop.add({name: source})
    with shop.started("apply", *json_flag) as process:
        while not (shop.root / "running").exists():
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == code
    if json_flag:
        document = json.loads(out)
        assert (document["ok"], [s["name"] for s in document["steps"]]) == (False, IDS)
        assert document["error"]["message"].startswith("interrupted at 004: ")
        assert err == ""
    else:
        assert err == INTERRUPTED
    assert shop.tables() == ["author", "book", "shelf"]
    assert shop.applied() == IDS
    shop.add({name: "def apply(): return 'CREATE TABLE whole (id)'\n"})
    shop.succeed("apply", "--lock-wait", "0")


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_statement_is_rolled_back(
    shop: Project, number: signal.Signals, code: int
) -> None:
    """The same of a migration in SQL, of which no Python code ever runs."""
    slow = "SELECT count(*) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    goes_alone = "/* no PRAGMA, but the word is enough */"
    shop.add({"004.sql": f"{goes_alone} CREATE TABLE half (id);\n{slow} SELECT i FROM n);\n"})
    with shop.started("apply") as process:
        assert process.stdout is not None
        for _ in IDS:
            process.stdout.readline()
        # From here on nobody else can write; that is when it runs.
        with closing(sqlite3.connect(shop.database, timeout=0)) as connection:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    break
                connection.execute("ROLLBACK")
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (code, INTERRUPTED)
    assert shop.tables() == ["author", "book", "shelf"]


@posix_only
def test_sigterm_in_what_eval_runs_ends_with_its_own_code(shop: Project) -> None:
    """Python ends itself by SIGINT after a KeyboardInterrupt that came out of `eval`."""
    waits = "open('running', 'w').close() or __import__('time').sleep(60)"
    shop.add({"004.py": f"eval({waits!r})\ndef apply(): return 'SELECT 1'\n"})
    with shop.started("apply") as process:
        while not (shop.root / "running").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143


@posix_only
def test_an_interrupted_question_changes_nothing(shop: Project) -> None:
    before = shop.files()
    with at_terminal(shop, "apply", env=NO_COLOR) as terminal:
        terminal.read_until(QUESTION)
        while terminal.process.poll() is None:
            # Again and again: Python misses one that comes just before it begins to read a line.
            terminal.process.send_signal(signal.SIGINT)
            try:
                terminal.process.wait(1)
            except subprocess.TimeoutExpired:
                pass
        assert terminal.read_to_the_end().endswith("error: interrupted: nothing was changed\n")
        assert terminal.process.returncode == 130
    assert shop.files() == before


@posix_only
def test_an_interrupted_wait_leaves_the_holder_alone(shop: Project) -> None:
    name, source = RUNS_ON["Python"]
    shop.add({name: source})
    with shop.started("apply") as holder:
        while not (shop.root / "running").exists():
            assert holder.poll() is None
        with shop.started("apply") as waiter:
            assert waiter.stderr is not None
            assert waiter.stderr.readline().startswith("flux: waiting for pid ")
            waiter.send_signal(signal.SIGTERM)
            assert waiter.wait() == 143
        assert holder.poll() is None
        assert "is running migrations" in shop.fail("apply", "--lock-wait=0", code=5)
