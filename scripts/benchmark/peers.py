"""Other tools: how each one's project looks, its commands, and what is installed for it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmark.changes import Change, text
from benchmark.environments import PSYCOPG2, Environment, npm_directory, python_environment
from benchmark.processes import Command
from benchmark.tools import Place, Tool


class Upstream(Tool):
    """flux-migrations 0.0.3, of which flux takes over histories."""

    name = "flux-migrations 0.0.3"
    dialects = ("postgres",)

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files, each with its undo."""
        (place.directory / "flux.toml").write_text(
            '[flux]\nbackend = "postgres"\nmigration_directory = "migrations"\n'
        )
        _write_pairs(place.directory / "migrations", changes, ".sql", ".undo.sql")

    def apply(self, place: Place) -> Command:
        return self._flux(place, "apply", "--auto-approve", place.url)

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._flux(place, "rollback", "--auto-approve", place.url, str(len(changes)))

    def status(self, place: Place) -> Command:
        return self._flux(place, "status", place.url)

    def help(self, place: Place) -> Command:
        return self._flux(place, "--help")

    def inside(self, place: Place) -> Command:
        return self._inside(place, "inside_upstream")

    def _flux(self, place: Place, *words: str) -> Command:
        return self._command(place, self.environment.program("flux"), *words)


class Yoyo(Tool):
    """yoyo-migrations, with SQL files."""

    name = "yoyo"
    version = "9.0.0"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files, each with its rollback."""
        _write_pairs(place.directory / "migrations", changes, ".sql", ".rollback.sql")

    def apply(self, place: Place) -> Command:
        return self._yoyo(place, "apply")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._yoyo(place, "rollback", "--revision", changes[0].id)

    def status(self, place: Place) -> Command:
        return self._yoyo(place, "list")

    def help(self, place: Place) -> Command:
        return self._command(place, self.environment.program("yoyo"), "--help")

    def inside(self, place: Place) -> Command:
        return self._inside(place, "inside_yoyo")

    def _yoyo(self, place: Place, command: str, *words: str) -> Command:
        common = ("--batch", "--no-config-file", "--database", place.url)
        return self._command(
            place, self.environment.program("yoyo"), command, *common, *words, "migrations"
        )


class Alembic(Tool):
    """Alembic, with a transaction for each migration: with one for all, locks run out."""

    name = "Alembic"
    version = "1.20.1"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """One module for each change; SQLite takes statements one by one."""
        (place.directory / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
        versions = place.directory / "migrations" / "versions"
        versions.mkdir(parents=True)
        (versions.parent / "env.py").write_text(_ALEMBIC_ENV)
        for change in changes:
            before = f"{change.number - 1}" if change.number > 1 else None
            (versions / f"{change.id}.py").write_text(
                "from alembic import op\n\n"
                f'revision = "{change.number}"\ndown_revision = {before!r}\n\n\n'
                f"def upgrade():\n{_executed(place, change.apply)}\n\n"
                f"def downgrade():\n{_executed(place, change.undo)}"
            )

    def apply(self, place: Place) -> Command:
        return self._alembic(place, "upgrade", "head")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._alembic(place, "downgrade", f"-{len(changes)}")

    def status(self, place: Place) -> Command:
        return self._alembic(place, "current")

    def help(self, place: Place) -> Command:
        return self._alembic(place, "--help")

    def inside(self, place: Place) -> Command:
        return self._inside(place, "inside_alembic")

    def _alembic(self, place: Place, *words: str) -> Command:
        return self._command(place, self.environment.program("alembic"), *words)

    def _told(self, place: Place) -> dict[str, str]:
        return {"DATABASE_URL": place.url.replace("postgresql://", "postgresql+psycopg2://")}


_ALEMBIC_ENV = """\
import os

from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""


def _executed(place: Place, statements: tuple[str, ...]) -> str:
    texts = [text(statements)] if place.dialect == "postgres" else statements
    return "".join(f'    op.execute("""{one}""")\n' for one in texts)


class Django(Tool):
    """Django's migrations, as RunSQL operations of one application."""

    name = "Django"
    version = "5.2.19"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """A project with one application."""
        (place.directory / "settings.py").write_text(_DJANGO_SETTINGS)
        migrations = place.directory / "app" / "migrations"
        migrations.mkdir(parents=True)
        for package in (migrations.parent, migrations):
            (package / "__init__.py").write_text("")
        for before, change in zip((None, *changes), changes, strict=False):
            needed = [("app", _django_name(before))] if before else []
            (migrations / f"{_django_name(change)}.py").write_text(
                "from django.db import migrations\n\n\n"
                "class Migration(migrations.Migration):\n"
                f"    dependencies = {needed}\n"
                f'    operations = [migrations.RunSQL("""{text(change.apply)}""", '
                f'"""{text(change.undo)}""")]\n'
            )

    def apply(self, place: Place) -> Command:
        return self._django(place, "migrate", "--verbosity=0")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        last = changes[0].number - 1
        target = _django_name(changes[0]._replace(number=last)) if last else "zero"
        return self._django(place, "migrate", "--verbosity=0", "app", target)

    def status(self, place: Place) -> Command:
        return self._django(place, "showmigrations")

    def help(self, place: Place) -> Command:
        return self._django(place, "help")

    def inside(self, place: Place) -> Command:
        return self._inside(place, "inside_django")

    def _django(self, place: Place, *words: str) -> Command:
        return self._command(place, self.environment.program("django-admin"), *words)

    def _told(self, place: Place) -> dict[str, str]:
        here = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(place.directory)}
        return {**super()._told(place), **here}


_DJANGO_SETTINGS = """\
import os
from urllib.parse import urlsplit

SECRET_KEY = "none"
INSTALLED_APPS = ["app"]
url = urlsplit(os.environ["DATABASE_URL"])
if url.scheme == "sqlite":
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": url.path[1:]}
else:
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:],
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": url.password,
    }
DATABASES = {"default": database}
"""


def _django_name(change: Change) -> str:
    return f"{change.number:06}_change"


class Dbmate(Tool):
    """dbmate, a program without an interpreter."""

    name = "dbmate"
    version = "2.36.0"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files with both directions."""
        _write_both(place, changes, "-- migrate:up", "-- migrate:down")

    def apply(self, place: Place) -> Command:
        return self._dbmate(place, "migrate")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        """It undoes one at a time."""
        words = shlex.join(self._dbmate(place, "rollback").words)
        loop = f"for i in $(seq {len(changes)}); do {words} || exit; done"
        return self._command(place, "/bin/sh", "-c", loop)

    def status(self, place: Place) -> Command:
        return self._dbmate(place, "status")

    def help(self, place: Place) -> Command:
        return self._dbmate(place, "--help")

    def _dbmate(self, place: Place, *words: str) -> Command:
        common = ("--migrations-dir", "migrations", "--no-dump-schema")
        return self._command(place, self.environment.program("dbmate"), *common, *words)

    def _told(self, place: Place) -> dict[str, str]:
        postgres = place.dialect == "postgres"
        return {"DATABASE_URL": place.url + ("?sslmode=disable" if postgres else "")}


class NodePgMigrate(Tool):
    """node-pg-migrate, with SQL files and, as it does by itself, one transaction for all."""

    name = "node-pg-migrate"
    version = "9.0.0"
    dialects = ("postgres",)

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files with both directions."""
        _write_both(place, changes, "-- Up Migration", "-- Down Migration")

    def apply(self, place: Place) -> Command:
        return self._node(place, "up")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._node(place, "down", str(len(changes)))

    def help(self, place: Place) -> Command:
        return self._node(place, "--help")

    def _node(self, place: Place, *words: str) -> Command:
        program = self.environment.program("node-pg-migrate")
        return self._command(place, program, "--no-verbose", *words)


def _write_pairs(directory: Path, changes: Sequence[Change], apply: str, undo: str) -> None:
    directory.mkdir()
    for change in changes:
        (directory / f"{change.id}{apply}").write_text(text(change.apply))
        (directory / f"{change.id}{undo}").write_text(text(change.undo))


def _write_both(place: Place, changes: Sequence[Change], apply: str, undo: str) -> None:
    migrations = place.directory / "migrations"
    migrations.mkdir()
    for change in changes:
        (migrations / f"{change.id}.sql").write_text(
            f"{apply}\n{text(change.apply)}\n{undo}\n{text(change.undo)}"
        )


def _in_python(name: str, *requirements: str) -> Callable[[], Environment]:
    return lambda: python_environment(name, PSYCOPG2, *requirements)


def _dbmate() -> Environment:
    machine = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64"}.get(platform.machine(), "arm64")
    modules = npm_directory("dbmate", f"dbmate@{Dbmate.version}")
    return Environment(modules / "@dbmate" / f"{sys.platform}-{machine}" / "bin")


def _node_pg_migrate() -> Environment:
    modules = npm_directory(
        "node-pg-migrate", f"node-pg-migrate@{NodePgMigrate.version}", "pg@8.23.1"
    )
    return Environment(modules / ".bin", {"PATH": os.environ.get("PATH", "")})


#: The other tools, and what installs each. 0.0.3 works with no newer Typer, Click or SQLAlchemy.
PEERS: Mapping[type[Tool], Callable[[], Environment]] = {
    Upstream: _in_python(
        "upstream",
        "flux-migrations[postgres]==0.0.3",
        "click==8.1.8",
        "sqlalchemy==2.0.51",
    ),
    Yoyo: _in_python("yoyo", f"yoyo-migrations=={Yoyo.version}"),
    Alembic: _in_python("alembic", f"alembic=={Alembic.version}", "sqlalchemy==2.1.9"),
    Django: _in_python("django", f"django=={Django.version}"),
    Dbmate: _dbmate,
    NodePgMigrate: _node_pg_migrate,
}
