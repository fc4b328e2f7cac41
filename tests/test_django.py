"""flux in a Django project: real `manage.py` processes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flux.arguments import build_parser
from flux.exit_codes import DISAGREES, MISUSED, PENDING
from tests.django_project import BOOKS, DjangoProject, postgres_alias, sqlite_alias
from tests.documents import PAGES, read_blocks
from tests.flux_process import flux_environment
from tests.postgres_server import Postgres
from tests.terminal import posix_only

pytest.importorskip("django")


@pytest.fixture
def sqlite_project(tmp_path: Path) -> DjangoProject:
    """A project on a SQLite file that is not there yet."""
    project = DjangoProject(tmp_path, {"default": sqlite_alias(tmp_path / "app.db")})
    project.create()
    return project


@pytest.fixture
def postgres_project(tmp_path: Path, postgres_database: Postgres) -> DjangoProject:
    """A project on a PostgreSQL database of the test's own."""
    project = DjangoProject(tmp_path, {"default": postgres_alias(postgres_database)})
    project.create()
    return project


@pytest.fixture(params=["sqlite", "postgres"])
def project(request: pytest.FixtureRequest) -> DjangoProject:
    """A project on either."""
    found: DjangoProject = request.getfixturevalue(f"{request.param}_project")
    return found


# The commands -------------------------------------------------------------------------------


def test_apply_and_roll_back_beside_migrate(project: DjangoProject) -> None:
    """flux and Django's migrations share a database, and neither sees the other's tables."""
    project.add(BOOKS)
    project.succeed("migrate")
    assert project.succeed("flux", "status").splitlines() == [
        "pending    001_book",
        "pending    002_rows",
        "2 migrations: 2 pending; flux has not touched this database",
    ]
    assert project.succeed("flux", "apply").endswith("2 migrations applied\n")
    assert project.run("from shop.models import Book\nprint(Book.objects.get().title)") == "One\n"
    assert project.succeed("makemigrations", "--check", "--dry-run") == "No changes detected\n"
    assert "No migrations to apply." in project.succeed("migrate")
    assert project.succeed("flux", "validate").startswith("valid: 2 migrations")
    assert project.succeed("flux", "rollback", "--all", "-y").endswith("rolled back\n")
    assert project.succeed("flux", "plan", "--sql").startswith("apply  001_book")


def test_the_table_of_the_guide_on_postgresql(postgres_project: DjangoProject) -> None:
    """The guide's model can be used over it as over one that Django made."""
    blocks = read_blocks(PAGES["docs/guides/django.md"].read_text("utf-8"))
    [table] = [block.text for block in blocks if block.text.startswith("CREATE") and not block.file]
    [model] = [block.text for block in blocks if block.file == "notes/models.py"]
    postgres_project.add({"001_note.sql": table})
    postgres_project.write("notes/__init__.py", "")
    postgres_project.write("notes/models.py", model)
    postgres_project.configure('INSTALLED_APPS += ["notes"]')
    postgres_project.succeed("migrate")
    postgres_project.succeed("flux", "apply")
    program = "from notes.models import Note\nprint(Note.objects.create(text='x').pk)"
    assert postgres_project.run(program) == "1\n"


def test_the_exit_codes_are_those_of_flux(sqlite_project: DjangoProject) -> None:
    project = sqlite_project
    project.add({"1_a.sql": "SELECT 1;\n"})
    assert project.manage("flux", "status", "--check").code == PENDING
    project.succeed("flux", "apply")
    project.add({"1_a.sql": "SELECT 2;\n"})
    assert project.manage("flux", "apply").code == DISAGREES
    assert project.manage("flux", "apply", "--nothing").code == MISUSED
    assert project.manage("flux").code == MISUSED


def test_json(sqlite_project: DjangoProject) -> None:
    sqlite_project.add({"1_a.sql": "SELECT 1;\n"})
    assert json.loads(sqlite_project.succeed("flux", "apply", "--json"))["ok"] is True
    status = json.loads(sqlite_project.succeed("flux", "status", "--json"))
    assert [migration["state"] for migration in status["migrations"]] == ["applied"]


def test_proofs(project: DjangoProject) -> None:
    """`test`, `schema` and `drift`, beside tables that Django makes."""
    project.add(BOOKS)
    project.add({"tests/_setup.sql": "CREATE TABLE auth_user (id integer PRIMARY KEY);"})
    for arguments in (["test"], ["test", "--only", "001_book"], ["schema"]):
        result = project.manage("flux", *arguments)
        assert result.code == 0, result
    project.manage("migrate")
    project.manage("flux", "apply", "-y")
    ignored = ["*auth*", "*django*", "*shop*", "*sequence*"]
    result = project.manage("flux", "drift", *(f"--ignore={pattern}" for pattern in ignored))
    assert (result.code, result.err) == (0, ""), result


def test_new(sqlite_project: DjangoProject) -> None:
    """A migration is written into the directory that the settings name."""
    sqlite_project.configure('FLUX = {"migration_directory": "sql"}')
    (sqlite_project.root / "sql").mkdir()
    sqlite_project.succeed("flux", "new", "--sql", "Add", "shops")
    names = sorted(path.name for path in (sqlite_project.root / "sql").iterdir())
    assert [name.partition("_001_")[2] for name in names] == ["add-shops.sql", "add-shops.undo.sql"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_the_options_of_all_django_commands(sqlite_project: DjangoProject, where: str) -> None:
    """They are taken before and after the name of flux's command, as `manage.py` takes them."""
    project = sqlite_project
    project.add({"1_a.sql": "SELECT 1;\n"})
    (project.root / "elsewhere").mkdir()
    project.write("elsewhere/site_two.py", "from site_.settings import *\n")
    options = [
        "--settings=site_two",
        "--pythonpath=elsewhere",
        "--force-color",
        "--skip-checks",
        "--verbosity=2",
    ]
    command = ["apply", "--traceback"]
    words = [*options, *command] if where == "before" else [*command, *options]
    result = project.manage("flux", *words, env={"NO_COLOR": "1"})
    assert result.code == 0, result
    assert "\x1b[" in result.out
    assert "flux: apply 1_a" in result.err
    plain = project.manage("flux", "status", "--no-color", env={"FORCE_COLOR": "1"})
    assert plain.out.splitlines()[0].startswith("applied")


def test_help(sqlite_project: DjangoProject) -> None:
    shown = sqlite_project.succeed("help", "flux")
    assert shown == sqlite_project.succeed("flux", "--help")
    assert shown.startswith("usage: manage.py flux [-h]")
    assert "manage.py flux apply 1" in sqlite_project.succeed("flux", "apply", "--help")


def test_no_system_check_stands_in_the_way(sqlite_project: DjangoProject) -> None:
    """One that reads a table fails before flux has made it."""
    sqlite_project.write(
        "shop/__init__.py",
        "from django.core.checks import Error, register\n"
        "register(lambda **kwargs: [Error('no table yet')])\n",
    )
    assert sqlite_project.manage("check").code == 1
    sqlite_project.succeed("flux", "status")


@posix_only
def test_sigterm_ends_it_as_it_ends_flux(postgres_project: DjangoProject) -> None:
    """The migration is rolled back at once, and the exit code is flux's."""
    project = postgres_project
    project.add({"1_slow.sql": "CREATE TABLE a ();\nSELECT pg_sleep(60);\n"})
    with subprocess.Popen(
        [sys.executable, "manage.py", "flux", "apply", "--verbosity=2"],
        cwd=project.root,
        env=flux_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            assert "apply 1_slow" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
        finally:
            watchdog.cancel()
            process.kill()
    assert process.returncode == 143
    assert "interrupted at 1_slow" in err
    assert project.succeed("flux", "status").startswith("pending    1_slow")


def test_moving_a_table_from_the_migrations_of_django(project: DjangoProject) -> None:
    """Django's old migrations make it, also in a new database, and flux's go on from there."""
    models = project.root / "shop" / "models.py"
    field = "    name = models.TextField()\n"
    unmanaged = f"{field}\n    class Meta:\n        managed = False\n"
    models.write_text(models.read_text().replace(field, unmanaged))
    assert "Change Meta options on shelf" in project.succeed("makemigrations")
    models.write_text(models.read_text().replace(field, f"{field}    room = models.TextField()\n"))
    assert project.succeed("makemigrations", "--check") == "No changes detected\n"
    project.add(
        {"001_room.sql": "ALTER TABLE shop_shelf ADD COLUMN room text NOT NULL DEFAULT 'hall';\n"}
    )
    project.succeed("migrate")
    project.succeed("flux", "apply")
    assert (
        project.run(
            "from shop.models import Shelf\n"
            "Shelf.objects.create(name='top', room='attic')\n"
            "print(Shelf.objects.get().room)"
        )
        == "attic\n"
    )


# call_command -------------------------------------------------------------------------------


def test_call_command(sqlite_project: DjangoProject) -> None:
    """Its options by name, its output where it is wanted, its errors as Django's."""
    project = sqlite_project
    project.configure(other=sqlite_alias(project.root / "other.db"))
    project.add({"1_a.sql": "SELECT 1;\n", "2_b.sql": "SELECT 2;\n"})
    out = project.run(
        "import io\n"
        "from django.core.management import CommandError, call_command\n"
        "out, err = io.StringIO(), io.StringIO()\n"
        "call_command('flux', 'apply', 1, database='other', stdout=out, stderr=err, verbosity=2)\n"
        "call_command('flux', 'status', '--database=other', stdout=out, no_color=True)\n"
        "print(out.getvalue() + err.getvalue(), end='')\n"
        "for words in (['apply', '--to', 'nothing'], ['status', '--check'], ['aply'], []):\n"
        "    try:\n"
        "        call_command('flux', *words, database='other', stdout=out, stderr=err)\n"
        "    except CommandError as error:\n"
        "        cause = type(error.__cause__).__name__\n"
        "        print(error.returncode, cause, str(error).splitlines()[0])\n"
    )
    first, *rest = out.splitlines()
    assert first.startswith("applied")
    assert rest == [
        "1 migration applied",
        rest[1],
        "pending    2_b",
        "2 migrations: 1 applied, 1 pending",
        f"flux: apply 1_a ({project.root}/migrations/1_a.sql)",
        "2 UnknownMigrationError no migration 'nothing' is on disk",
        "3 NoneType flux status --check --database=other ended with 3",
        "2 NoneType flux aply --database=other ended with 2",
        "2 NoneType flux --database=other ended with 2",
    ]
    assert rest[1].startswith("applied    1_a")
    assert not (project.root / "app.db").exists()


def test_call_command_takes_every_option_by_name() -> None:
    from flux.django.host import DjangoHost
    from flux.django.management.commands.flux import Command

    parser = build_parser(DjangoHost("manage.py flux", verbosity=1))
    [commands] = [action for action in parser._actions if action.dest == "command"]
    assert isinstance(commands.choices, dict)
    options = {
        action.option_strings[0].lstrip("-").replace("-", "_")
        for command in commands.choices.values()
        for action in command._actions
        if action.option_strings
    }
    assert options - {"h", "help"} <= set(Command.stealth_options)


# Databases ----------------------------------------------------------------------------------


def test_reading_makes_no_file(sqlite_project: DjangoProject) -> None:
    """Django's own connection would make an empty one."""
    sqlite_project.add({"1_a.sql": "SELECT 1;\n"})
    for command in ("status", "plan", "validate", "doctor"):
        sqlite_project.manage("flux", command)
    sqlite_project.succeed("check", "--database", "default")
    assert not (sqlite_project.root / "app.db").exists()


def test_sqlite_runs_over_the_connection_of_django(sqlite_project: DjangoProject) -> None:
    """So that a migration sees a database in memory, and the functions that Django adds."""
    project = sqlite_project
    project.configure(memory={"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})
    project.add(
        {"1_a.sql": "CREATE TABLE a AS SELECT django_date_extract('year', '2024-01-02') y;\n"}
    )
    assert (
        project.run(
            "import io\n"
            "from django.core.management import call_command\n"
            "from django.db import connections\n"
            "connection = connections['memory']\n"
            "connection.ensure_connection()\n"
            "before = connection.connection\n"
            "level = before.isolation_level\n"
            "call_command('flux', 'apply', database='memory', stdout=io.StringIO())\n"
            "assert connection.connection is before\n"
            "assert before.isolation_level == level and not before.in_transaction\n"
            "with connection.cursor() as cursor:\n"
            "    print(cursor.execute('SELECT y FROM a').fetchone())\n"
            "    print(cursor.execute('PRAGMA foreign_keys').fetchone())\n"
        )
        == "(2024,)\n(1,)\n"
    )


def test_an_atomic_block_is_refused(sqlite_project: DjangoProject) -> None:
    """A migration would commit what the block has done, and could not be taken back by it."""
    sqlite_project.add({"1_a.sql": "SELECT 1;\n"})
    assert sqlite_project.run(
        "from django.core.management import CommandError, call_command\n"
        "from django.db import transaction\n"
        "with transaction.atomic():\n"
        "    try:\n"
        "        call_command('flux', 'apply')\n"
        "    except CommandError as error:\n"
        "        print(error)\n"
    ) == (
        "Django's connection 'default' is inside of an atomic block, and a migration would commit "
        "it\nhint: run flux outside of it; a test that does is a TransactionTestCase\n"
    )


def test_postgres_settings_reach_libpq(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    """Django's own options are left out, and all others hold for flux's connection as well."""
    project = postgres_project
    owner = f"owner_{postgres_database.database}"
    postgres_database.query(f"CREATE ROLE {owner}")
    postgres_database.query(f"GRANT CREATE ON SCHEMA public TO {owner}")
    options = {
        "application_name": "the \\ shop's",
        "options": "-c work_mem=7MB",
        "assume_role": owner,
        "isolation_level": 1,
        "server_side_binding": False,
        "sslmode": "prefer",
    }
    try:
        project.configure(
            default={**postgres_alias(postgres_database), "OPTIONS": options},
        )
        project.add(
            {
                "1_a.sql": "CREATE TABLE a AS SELECT current_setting('work_mem') AS memory, "
                "current_setting('application_name') AS application;\n"
                "SET ROLE NONE;\n",
                "2_b.sql": "CREATE TABLE b ();\n",
            }
        )
        project.succeed("flux", "apply")
        [(memory, application)] = postgres_database.query("SELECT memory, application FROM a")
        assert memory == "7MB"
        assert application.startswith("the \\ shop's")
        owners = postgres_database.query(
            "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"
        )
        assert owners == [(owner,)]
    finally:
        postgres_database.query(f"DROP OWNED BY {owner} CASCADE")
        postgres_database.query(f"DROP ROLE {owner}")


def test_a_service_and_a_password_file(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    project, server = postgres_project, postgres_database.server
    service = project.write(
        "service.conf",
        f"[shop]\nhost={server.host}\nport={server.port}\nuser={server.user}\n"
        f"dbname={postgres_database.database}\n",
    )
    passfile = project.write("pass", f"*:*:*:*:{server.password}\n")
    passfile.chmod(0o600)
    project.configure(
        default={
            "ENGINE": "django.db.backends.postgresql",
            "OPTIONS": {"service": "shop", "passfile": str(passfile)},
        }
    )
    result = project.manage("flux", "status", env={"PGSERVICEFILE": str(service)})
    assert (result.code, result.out) == (0, "no migrations\n")


def test_a_migration_gets_a_connection_of_djangos_driver(postgres_project: DjangoProject) -> None:
    """Both are installed; flux alone would take psycopg2, and Django takes psycopg 3."""
    shown = "print('module', type(connection).__module__.partition('.')[0])"
    postgres_project.add({"001_look.py": f"def apply(connection):\n    {shown}\n"})
    assert "module psycopg\n" in postgres_project.succeed("flux", "apply")


def test_no_password_is_shown(postgres_project: DjangoProject, postgres_database: Postgres) -> None:
    """Not where it is wrong, where the server is not there, nor in a traceback."""
    project = postgres_project
    secret = "it's \\ a 'xyzzy"
    alias = postgres_alias(postgres_database)
    project.configure(
        default={**alias, "PASSWORD": secret, "OPTIONS": {"sslpassword": "hush-hush"}},
        gone={**alias, "PASSWORD": secret, "PORT": 1},
        wrong={**alias, "PASSWORD": secret, "OPTIONS": {"no_such_parameter": secret}},
    )
    project.add({"1_a.sql": "SELECT 1;\n"})
    for words in (
        ["flux", "status", "--traceback"],
        ["flux", "doctor", "--database=gone"],
        ["flux", "apply", "--traceback", "--database=gone"],
        ["flux", "status", "--traceback", "--database=wrong"],
        ["check", "--database=default", "--database=gone"],
    ):
        result = project.manage(*words)
        assert result.code != 0 or words[0] == "check", words
        for piece in (secret, "xyzzy", "hush-hush", "it\\'s"):
            assert piece not in result.out + result.err, (words, result)


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({}, "DATABASES says nothing of 'other'"),
        ({"ENGINE": "another"}, "flux has no backend for Another, which the database 'other' is"),
        ({"ENGINE": "django.db.backends.sqlite3"}, "Please supply the NAME value."),
        ({"ENGINE": "django.db.backends.postgresql"}, "Please supply the NAME or OPTIONS"),
        (
            {"ENGINE": "django.db.backends.sqlite3", "NAME": "/no/such/directory/app.db"},
            "/no/such/directory",
        ),
    ],
    ids=["nothing", "another kind", "no file", "no database", "no directory"],
)
def test_a_database_that_cannot_be_had(
    sqlite_project: DjangoProject, database: dict[str, Any], message: str
) -> None:
    sqlite_project.write("another/__init__.py", "")
    sqlite_project.write(
        "another/base.py",
        "from django.db.backends.sqlite3 import base\n\n\n"
        "class DatabaseWrapper(base.DatabaseWrapper):\n"
        "    vendor, display_name = 'another', 'Another'\n",
    )
    sqlite_project.configure(other=database)
    for command in ("status", "apply"):
        result = sqlite_project.manage("flux", command, "--database=other")
        assert result.code in (1, 2)
        assert message in result.err
        assert "Traceback" not in result.err


def test_settings_without_databases(sqlite_project: DjangoProject) -> None:
    sqlite_project.configure("DATABASES = {}")
    result = sqlite_project.manage("flux", "status")
    assert (result.code, result.err) == (
        MISUSED,
        "error: DATABASES says nothing of 'default'\n",
    )


@pytest.mark.parametrize("flux", ["{}", "{'databases': {'default': {}}}"])
def test_an_address_in_place_of_an_alias(sqlite_project: DjangoProject, flux: str) -> None:
    """It is no alias, and the message shows no password of it."""
    project = sqlite_project
    project.configure(f"FLUX = {flux}")
    for address in ("postgresql://u:s3cr3t@h/x", "host=h password=s3cr3t"):
        result = project.manage("flux", "apply", "--database", address)
        assert result.code == MISUSED
        assert "hint: there are: default\n" in result.err
        assert "***" in result.err
        assert "s3cr3t" not in result.out + result.err
    assert "s3cr3t" not in project.run(
        "import io\n"
        "from django.core.management import CommandError, call_command\n"
        "for command in ('apply', 'aply'):\n"
        "    try:\n"
        "        call_command('flux', command, database='postgresql://u:s3cr3t@h/x',\n"
        "                     stdout=io.StringIO(), stderr=io.StringIO())\n"
        "    except CommandError as error:\n"
        "        print(error)\n"
    )


def test_a_control_character_in_a_password(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    """Django connects with it, and so does flux."""
    project, role = postgres_project, f"control_{postgres_database.database}"
    password = "a\x01%b'\\ c&=\n\x7f"
    quoted = "E'" + "".join(f"\\x{ord(letter):02x}" for letter in password) + "'"
    postgres_database.query(f"CREATE ROLE {role} LOGIN PASSWORD {quoted}")
    postgres_database.query(f"GRANT CREATE ON SCHEMA public TO {role}")
    alias = {**postgres_alias(postgres_database), "USER": role}
    try:
        project.configure(
            default={**alias, "PASSWORD": password},
            wrong={**alias, "PASSWORD": f"{password}xyzzy"},
            nul={**alias, "PASSWORD": "xyzzy\0"},
            bytes={**alias, "PASSWORD": "xyzzy\udcff"},
        )
        project.add({"1_a.sql": "CREATE TABLE a ();\n"})
        project.succeed("migrate")
        project.succeed("flux", "apply")
        [(owner,)] = postgres_database.query(
            "SELECT tableowner::text FROM pg_tables WHERE tablename = 'a'"
        )
        assert owner == role
        result = project.manage("flux", "status", "--database=wrong", "--traceback")
        assert result.code == 1
        assert "xyzzy" not in result.out + result.err
        for name in ("nul", "bytes"):
            result = project.manage("flux", "status", f"--database={name}")
            assert (result.code, result.err) == (
                MISUSED,
                f"error: password of {name!r} in DATABASES holds a NUL character or bytes that "
                "are not UTF-8, and libpq takes neither\n",
            )
    finally:
        postgres_database.query(f"DROP OWNED BY {role} CASCADE")
        postgres_database.query(f"DROP ROLE {role}")


# The setting FLUX ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flux", "message"),
    [
        (
            "{'migration_dir': 'x'}",
            "unknown key 'migration_dir' in FLUX in the settings\n"
            "hint: did you mean 'migration_directory'?",
        ),
        (
            "{'backend': 'sqlite'}",
            "unknown key 'backend' in FLUX in the settings\n"
            "hint: leave it out: it follows from the ENGINE of the database",
        ),
        (
            "{'database_url': 'x'}",
            "unknown key 'database_url' in FLUX in the settings\n"
            "hint: leave it out: the address is taken from DATABASES",
        ),
        (
            "{'databases': {'defalt': {}}}",
            "unknown key 'defalt' in databases of FLUX in the settings\n"
            "hint: did you mean 'default'?",
        ),
        (
            "{'databases': {'default': {'lock_wiat': 1}}}",
            "unknown key 'lock_wiat' in default in databases of FLUX in the settings\n"
            "hint: did you mean 'lock_wait'?",
        ),
        (
            "{'lockwait': 1, 'databases': {}, 'ordr': 'text'}",
            "2 unknown keys in FLUX in the settings\n"
            "- unknown key 'lockwait' in FLUX in the settings\n"
            "  hint: did you mean 'lock_wait'?\n"
            "- unknown key 'ordr' in FLUX in the settings\n"
            "  hint: did you mean 'order'?",
        ),
        ("'migrations'", "FLUX in the settings must be a mapping, not str"),
        (
            "{'databases': ['default']}",
            "databases of FLUX in the settings must be a mapping, not list\n"
            'hint: for instance {"default": {}}',
        ),
        (
            "{'test_order': 'flux'}",
            'test_order of FLUX in the settings must be "migrate-first" or "flux-first", '
            "not 'flux'",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_settings(
    sqlite_project: DjangoProject, flux: str, message: str
) -> None:
    """A system check tells it, and so do the commands that need it."""
    sqlite_project.configure(f"FLUX = {flux}")
    result = sqlite_project.manage("check")
    assert result.code == 1
    for line in message.splitlines():
        if "hint: " not in line and "unknown keys" not in line:
            assert f"(flux.E001) {line.removeprefix('- ')}\n" in result.err
    if "test_order" not in flux:
        result = sqlite_project.manage("flux", "status")
        assert (result.code, result.err) == (MISUSED, f"error: {message}\n")


def test_what_is_wrong_for_the_backend(project: DjangoProject) -> None:
    """The check knows what a backend takes, and opens nothing for it."""
    project.configure(
        "DATABASES['default']['PORT'] = 1\n"
        "FLUX = {'backend_config': {'migrations_tabel': 'history'}}"
    )
    result = project.manage("check")
    assert result.code == 1
    assert "(flux.E001) " in result.err
    assert "'migrations_tabel'" in result.err
    assert "did you mean 'migrations_table'?" in result.err
    assert not (project.root / "app.db").exists()


def test_settings_without_a_base_directory(sqlite_project: DjangoProject) -> None:
    """Then only an absolute path says where the migrations are."""
    project = sqlite_project
    project.configure("del BASE_DIR")
    result = project.manage("flux", "status")
    assert (result.code, result.err) == (
        MISUSED,
        "error: migration_directory of FLUX in the settings must be an absolute path\n"
        "hint: a relative one counts from BASE_DIR, which the settings do not have\n",
    )
    directory = project.root / "migrations"
    project.configure(f"del BASE_DIR\nFLUX = {{'migration_directory': {str(directory)!r}}}")
    project.succeed("flux", "status")


def test_databases_with_settings_of_their_own(sqlite_project: DjangoProject) -> None:
    project = sqlite_project
    project.configure(
        "FLUX = {'lock_wait': 5, 'databases': {\n"
        "    'stock': {'migration_directory': BASE_DIR / 'stock'},\n"
        "    'default': {'backend_config': {'migrations_table': 'history'}},\n"
        "}}",
        stock=sqlite_alias(project.root / "stock.db"),
        other=sqlite_alias(project.root / "other.db"),
    )
    project.add({"1_a.sql": "SELECT 1;\n"})
    project.write("stock/1_stock.sql", "SELECT 1;\n")
    assert "1_stock" in project.succeed("flux", "apply")  # the first is the commands' default
    assert "1_a" in project.succeed("flux", "apply", "--database", "default")
    with closing(sqlite3.connect(project.root / "app.db")) as connection:
        assert connection.execute("SELECT id FROM history").fetchall() == [("1_a",)]
    result = project.manage("flux", "apply", "--database", "other")
    assert (result.code, result.err) == (
        MISUSED,
        "error: 'other' is none of the databases of FLUX in the settings\n"
        "hint: there are: stock, default\n",
    )


# System checks ------------------------------------------------------------------------------


def test_checks(project: DjangoProject) -> None:
    project.add(BOOKS)
    assert "no issues" in project.succeed("check")
    result = project.manage("check", "--database", "default")
    assert result.code == 0
    assert (
        "(flux.W001) the database 'default' is not up to date: "
        "2 pending migrations (001_book, 002_rows)\n\tHINT: manage.py flux apply\n"
    ) in result.err
    assert project.manage("check", "--database", "default", "--fail-level=WARNING").code == 1
    result = project.manage("migrate")
    assert "flux.W001" in result.err
    project.succeed("flux", "apply")
    assert "no issues" in project.succeed("check", "--database", "default")
    project.add({"002_rows.sql": "SELECT 'changed';\n"})
    result = project.manage("check", "--database", "default")
    assert "(flux.W002) history and migration directory of the database 'default' disagree: " in (
        result.err
    )


def test_a_check_of_a_database_that_is_not_there(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    alias = postgres_alias(postgres_database)
    postgres_project.configure(default={**alias, "PORT": 1})
    result = postgres_project.manage("check", "--database", "default")
    assert result.code == 0
    assert "(flux.W003) the migrations of the database 'default' cannot be examined: cannot " in (
        result.err
    )


def test_a_check_without_a_migration_directory(sqlite_project: DjangoProject) -> None:
    """It names the place, and the command as `manage.py` has it."""
    sqlite_project.configure("FLUX = {'migration_directory': 'sql'}")
    result = sqlite_project.manage("check", "--database", "default")
    assert result.code == 0
    assert (
        "(flux.W003) the migrations of the database 'default' cannot be examined: "
        f"{sqlite_project.root / 'sql'}: "
    ) in result.err
    assert "HINT: `manage.py flux new NAME` makes it" in result.err


@posix_only
@pytest.mark.parametrize("reload", [[], ["--noreload"]], ids=["reloading", "not reloading"])
def test_runserver_tells_what_is_pending(sqlite_project: DjangoProject, reload: list[str]) -> None:
    """Also where an application has a `runserver` of its own, as staticfiles has."""
    project = sqlite_project
    project.configure("DEBUG = True")
    project.add({"1_a.sql": "SELECT 1;\n"})
    with subprocess.Popen(
        [sys.executable, "-u", "manage.py", "runserver", "127.0.0.1:0", *reload],
        cwd=project.root,
        env=flux_environment({"PYTHONUNBUFFERED": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,  # the reloader has a child
    ) as process:
        watchdog = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            assert process.stdout is not None
            shown = "".join(_until(process.stdout, "Quit the server with"))
        finally:
            watchdog.cancel()
            os.killpg(process.pid, signal.SIGKILL)
    assert (
        "(flux.W001) the database 'default' is not up to date: 1 pending migration (1_a)" in shown
    )


def _until(lines: Any, wanted: str) -> Iterator[str]:
    for line in lines:
        yield line
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} was not shown")


# Test databases -----------------------------------------------------------------------------

_TESTS = """\
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase, TransactionTestCase

from shop.models import Book, Shelf


class ATest(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.owner = User.objects.create(username="somebody")

    def test_book(self):
        Book.objects.create(id=7, title="Seven", owner=self.owner)
        self.assertEqual(Book.objects.count(), 2)
        Shelf.objects.create(name="top")


class BTest(TransactionTestCase):
    def test_first(self):
        self._look()

    def test_second(self):
        self._look()

    def _look(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM _flux_migrations ORDER BY id")
            self.assertEqual(cursor.fetchall(), [("001_book",), ("002_rows",)])
        Shelf.objects.create(name="top")
        self.assertEqual(Shelf.objects.count(), 1)
        owner = User.objects.create(username="somebody")
        Book.objects.create(id=7, title="Seven", owner=owner)


class CTest(TestCase):
    def test_book(self):
        self.assertEqual([book.title for book in Book.objects.all()], ["One"])


class DTest(TestCase):
    def test_book(self):
        self.assertEqual(Book.objects.count(), 1)
"""
_OWNER = "owner_id integer REFERENCES auth_user (id)"
_RUNNER = 'TEST_RUNNER = "flux.django.testing.FluxTestRunner"'


def test_a_test_run(project: DjangoProject) -> None:
    """Its database has the tables of both; what empties Django's tables leaves flux's history."""
    project.configure(_RUNNER)
    project.add(BOOKS)
    project.write("shop/tests.py", _TESTS)
    result = project.manage("test")
    assert result.code == 0, result
    assert "Ran 5 tests" in result.err
    assert "flux.W" not in result.err


def test_a_parallel_test_run(project: DjangoProject) -> None:
    """The clones are made of a database that has flux's tables."""
    project.configure(_RUNNER)
    project.add(BOOKS)
    project.write("shop/tests.py", _TESTS)
    result = project.manage("test", "--parallel=2")
    assert result.code == 0, result
    assert "Cloning test database" in result.err


def test_a_database_that_is_kept(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    """In the next run only what is pending is applied to it."""
    project = postgres_project
    project.configure(_RUNNER)
    project.add(BOOKS)
    project.write(
        "shop/tests.py",
        "from django.test import TestCase\nclass A(TestCase):\n    def test(self): pass\n",
    )
    test_database = postgres_alias(postgres_database)["TEST"]["NAME"]
    try:
        project.succeed("test", "--keepdb")
        project.add({"003_more.sql": "CREATE TABLE more ();\n"})
        project.succeed("test", "--keepdb")
        with closing(postgres_database.server.connect(test_database)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT id FROM _flux_migrations ORDER BY id")
            assert [id for (id,) in cursor] == ["001_book", "002_rows", "003_more"]
    finally:
        with closing(postgres_database.server.connect()) as connection:
            connection.cursor().execute(f"DROP DATABASE IF EXISTS {test_database}")
    assert postgres_database.query("SELECT to_regclass('book')") == [(None,)]


_A_TEST = (
    "from django.test import TestCase\n"
    "from shop.models import Book\n\n\n"
    "class A(TestCase):\n"
    "    def test(self):\n"
    "        self.assertEqual(Book.objects.count(), 1)\n"
)


@pytest.mark.parametrize("order", ["migrate-first", "flux-first"])
@pytest.mark.parametrize("mirror", [False, True], ids=["the same database", "a mirror"])
@pytest.mark.parametrize("databases", [("default",), ("default", "migrator")], ids=str)
def test_an_alias_for_the_migrations_alone(
    project: DjangoProject, databases: tuple[str, ...], mirror: bool, order: str
) -> None:
    """Django makes the test database by the other alias, and may never point this one at it.

    The real database is not touched.
    """
    default = {**project.databases["default"]}
    if default["ENGINE"].endswith("sqlite3"):
        default["TEST"] = {"NAME": str(project.root / "test.db")}
    migrator = {**default, "OPTIONS": {"application_name": "migrator"}}
    if default["ENGINE"].endswith("sqlite3"):
        migrator["OPTIONS"] = {"timeout": 7}
    if mirror:
        migrator["TEST"] = {"MIRROR": "default"}
    project.configure(
        f"{_RUNNER}\nFLUX = {{'databases': {{'migrator': {{}}}}, 'test_order': {order!r}}}",
        default=default,
        migrator=migrator,
    )
    project.add({name: text.replace(_OWNER, "owner_id integer") for name, text in BOOKS.items()})
    project.write("shop/tests.py", f"{_A_TEST}\n    databases = {databases!r}\n")
    for _ in range(2):
        result = project.manage("test", "--keepdb", "--verbosity=0")
        assert result.code == 0, result
        project.add({"003_more.sql": "CREATE TABLE more (id integer);\n"})
    status = project.succeed("flux", "status").splitlines()
    assert status[-1] == "3 migrations: 3 pending; flux has not touched this database"
    project.configure(default={**default, "NAME": default["TEST"]["NAME"]})
    status = project.succeed("flux", "status", "--database=default").splitlines()
    assert status[-1] == "3 migrations: 3 applied"
    project.configure(_RUNNER, default=default, migrator=migrator)
    project.succeed("test", "--noinput")  # which removes what was kept


def test_a_mirror_of_a_database_in_memory(sqlite_project: DjangoProject) -> None:
    project = sqlite_project
    project.configure(
        f"{_RUNNER}\nFLUX = {{'databases': {{'migrator': {{}}}}}}",
        migrator={**project.databases["default"], "TEST": {"MIRROR": "default"}},
    )
    project.add(BOOKS)
    project.write("shop/tests.py", _A_TEST)
    project.succeed("test")
    assert not (project.root / "app.db").exists()


def test_aliases_of_one_database_with_roles_of_their_own(
    postgres_project: DjangoProject, postgres_database: Postgres
) -> None:
    """Each has its own migrations applied, by its own role; the same ones are applied once."""
    project, role = postgres_project, f"ddl_{postgres_database.database}"
    server, default = postgres_database.server, postgres_alias(postgres_database)
    postgres_database.query(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'ddl'")
    migrator = {**default, "USER": role, "PASSWORD": "ddl"}
    of_migrator = "'migration_directory': 'ddl', 'backend_config': {'migrations_table': 'ddl'}"
    try:
        project.configure(
            f"{_RUNNER}\nFLUX = {{'databases': {{\n"
            f"    'migrator': {{{of_migrator}}}, 'again': {{{of_migrator}}}, 'default': {{}}\n"
            "}}",
            migrator=migrator,
            again={**migrator, "PASSWORD": "of nobody"},
        )
        project.add({"1_own.sql": "CREATE TABLE own ();\n"})
        project.write("ddl/1_ddl.sql", "CREATE TABLE made ();\n")
        project.write(
            "shop/tests.py",
            "from django.db import connection\n"
            "from django.test import TestCase\n\n\n"
            "class A(TestCase):\n"
            "    def test(self):\n"
            "        with connection.cursor() as cursor:\n"
            "            cursor.execute('SELECT tablename, tableowner FROM pg_tables '\n"
            "                'WHERE tablename IN (%s, %s) ORDER BY 1', ['made', 'own'])\n"
            "            self.assertEqual(cursor.fetchall(), "
            f"[('made', {role!r}), ('own', {server.user!r})])\n",
        )
        project.succeed("test", "--noinput")
        project.succeed("test", "--noinput", "--parallel=2")
        assert postgres_database.query("SELECT to_regclass('made'), to_regclass('own')") == [
            (None, None)
        ]
    finally:
        postgres_database.query(f"DROP ROLE {role}")


def test_flux_first(project: DjangoProject) -> None:
    """For Django's migrations that need the tables of flux's."""
    project.add({"001_isle.sql": "CREATE TABLE isle (id integer PRIMARY KEY);\n"})
    project.write(
        "shop/migrations/0002_isle.py",
        "from django.db import migrations\n\n\n"
        "class Migration(migrations.Migration):\n"
        "    dependencies = [('shop', '0001_shelf')]\n"
        "    operations = [migrations.RunSQL('INSERT INTO isle VALUES (1)')]\n",
    )
    project.write(
        "shop/tests.py",
        "from django.test import TestCase\nclass A(TestCase):\n    def test(self): pass\n",
    )
    project.configure(_RUNNER)
    result = project.manage("test", "--noinput")
    assert result.code == 1
    assert "isle" in result.err
    project.configure(f"{_RUNNER}\nFLUX = {{'test_order': 'flux-first'}}")
    project.succeed("test", "--noinput")


def test_a_migration_that_fails_ends_the_test_run(sqlite_project: DjangoProject) -> None:
    project = sqlite_project
    project.configure(_RUNNER)
    project.add({"1_a.sql": "CREATE TABLE;\n"})
    project.write(
        "shop/tests.py",
        "from django.test import TestCase\nclass A(TestCase):\n    def test(self): pass\n",
    )
    result = project.manage("test")
    assert result.code == 1
    assert f"flux.exceptions.MigrationApplyError: {project.root}/migrations/1_a.sql:1" in result.err


def test_pytest_django(project: DjangoProject) -> None:
    """By the fixture that the guide shows."""
    pytest.importorskip("pytest_django")
    project.add(BOOKS)
    project.write("shop/tests.py", _TESTS)
    project.write(
        "conftest.py",
        "import pytest\n\n"
        "from flux.django.testing import flux_test_databases\n\n\n"
        '@pytest.fixture(scope="session")\n'
        "def django_db_modify_db_settings(django_db_modify_db_settings):\n"
        "    with flux_test_databases():\n"
        "        yield\n",
    )
    project.write(
        "pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = site_.settings\npython_files = tests.py\n"
    )
    result = project.python("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert result.code == 0, result
    assert "5 passed" in result.out
