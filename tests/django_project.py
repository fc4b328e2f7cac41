"""A Django project as its user has it: a `manage.py`, settings, an application, migrations."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flux_process import FluxResult, flux_environment, run_to_end
from tests.postgres_server import Postgres

_MANAGE = """\
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
_SETTINGS = """\
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_.urls"
STATIC_URL = "/static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.staticfiles",
    "shop",
    "flux.django",
]
"""
#: A model of Django's, and one whose table flux makes.
_MODELS = """\
from django.db import models


class Shelf(models.Model):
    name = models.TextField()


class Book(models.Model):
    title = models.TextField()
    owner = models.ForeignKey("auth.User", models.CASCADE, null=True)

    class Meta:
        managed = False
        db_table = "book"
"""
BOOKS = {
    "001_book.sql": "CREATE TABLE book (id integer PRIMARY KEY, title text NOT NULL, "
    "owner_id integer REFERENCES auth_user (id));\n",
    "001_book.undo.sql": "DROP TABLE book;\n",
    "002_rows.sql": "INSERT INTO book (id, title) VALUES (1, 'One');\n",
    "002_rows.undo.sql": "DELETE FROM book;\n",
}


@dataclass(frozen=True)
class DjangoProject:
    """A project in `root`, whose `manage.py` runs as a process of its own.

    The application `shop` has a model that Django migrates, and one over the table `book`.
    """

    root: Path
    databases: Mapping[str, Mapping[str, Any]]

    def create(self) -> None:
        """Write the project, with no migrations of flux's."""
        self.write("manage.py", _MANAGE)
        self.write("site_/__init__.py", "")
        self.write("site_/urls.py", "urlpatterns = []\n")
        self.write("shop/__init__.py", "")
        self.write("shop/models.py", _MODELS)
        self.write("shop/migrations/__init__.py", "")
        self.write("shop/migrations/0001_shelf.py", _SHELF)
        (self.root / "migrations").mkdir()
        self.configure()

    def configure(self, more: str = "", **databases: Mapping[str, Any]) -> None:
        """Write the settings anew, with `more` of them, and with databases beside the project's."""
        self.write(
            "site_/settings.py",
            f"{_SETTINGS}DATABASES = { ({**self.databases, **databases})!r}\n{more}\n",
        )

    def write(self, name: str, content: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def add(self, files: Mapping[str, str]) -> None:
        """Write files of flux's migration directory by their names in it."""
        for name, content in files.items():
            self.write(f"migrations/{name}", content)

    def manage(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> FluxResult:
        """Run `manage.py ARGUMENTS` to its end."""
        return self.python("manage.py", *arguments, env=env)

    def succeed(self, *arguments: str) -> str:
        """Run `manage.py`, which must exit with 0; its output."""
        result = self.manage(*arguments)
        assert result.code == 0, result
        return result.out

    def run(self, program: str) -> str:
        """Run a Python program inside of the project, which must succeed; its output."""
        self.write("program.py", f"import django\n\ndjango.setup()\n{program}")
        result = self.python("program.py", env={"DJANGO_SETTINGS_MODULE": "site_.settings"})
        assert result.code == 0, result
        return result.out

    def python(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> FluxResult:
        """Run Python in the project."""
        return run_to_end(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.root,
            env=flux_environment({"PYTHONPATH": "", "DJANGO_COLORS": "nocolor", **(env or {})}),
        )


_SHELF = """\
from django.db import migrations, models

_ID = models.BigAutoField(
    auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
)


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency("auth.User")]
    operations = [
        migrations.CreateModel(
            "Shelf",
            [
                ("id", _ID),
                ("name", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            "Book",
            [
                ("id", _ID),
                ("title", models.TextField()),
                ("owner", models.ForeignKey("auth.User", models.CASCADE, null=True)),
            ],
            options={"managed": False, "db_table": "book"},
        ),
    ]
"""


def sqlite_alias(path: Path) -> dict[str, Any]:
    """A SQLite file, as DATABASES has it."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


def postgres_alias(postgres: Postgres) -> dict[str, Any]:
    """A database of the test server's, as DATABASES has it."""
    server = postgres.server
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": postgres.database,
        "HOST": server.host,
        "PORT": server.port,
        "USER": server.user,
        "PASSWORD": server.password,
        "TEST": {"NAME": f"test_{postgres.database}"},
    }
