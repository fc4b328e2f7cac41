"""flux in Flask applications: real `flask` and gunicorn processes, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flux import FluxConfig
from flux.exceptions import (
    InvalidConfigurationError,
    MigrationApplyError,
    MigrationLoadingError,
)
from flux.exit_codes import DISAGREES, FAILED, MISUSED, PENDING
from tests.flux_process import FluxProcess, FluxResult, flux_environment, run_to_end
from tests.postgres_server import Postgres
from tests.services import HANGS_AFTER, Service, running

flask = pytest.importorskip("flask")
from click.testing import Result  # noqa: E402 - where Flask is installed

from flux.flask import Flux  # noqa: E402

STARTUP = {"FLASK_FLUX_APPLY_ON_STARTUP": "true"}
WORKERS = 8

#: A factory; its settings come from the environment. Its page answers when as many processes as
#: there are workers are asked for it at once.
_APP = """\
import os
import time
from pathlib import Path

from flask import Flask

from flux.flask import Flux

flux = Flux()


def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    flux.init_app(app)

    @app.get("/")
    def meet():
        Path(app.root_path, f"met-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(Path(app.root_path).glob("met-*"))) < app.config.get("WORKERS", 1):
            if time.monotonic() > deadline:
                return "alone", 500
            time.sleep(0.01)
        return str(os.getpid())

    return app
"""
#: None of these can run twice.
RUNS = {
    "001_runs.sql": "CREATE TABLE runs (name text NOT NULL);\n",
    "001_runs.undo.sql": "DROP TABLE runs;\n",
    "002_first.sql": "INSERT INTO runs VALUES ('first');\n",
    "002_first.undo.sql": "DELETE FROM runs WHERE name = 'first';\n",
    "003_second.sql": "INSERT INTO runs VALUES ('second');\n",
    "003_second.undo.sql": "DELETE FROM runs WHERE name = 'second';\n",
}
#: The process that the reloader of `flask run` serves with has WERKZEUG_RUN_MAIN.
_WHO = """\
import os


def apply(connection):
    connection.execute("CREATE TABLE who (serves text)")
    connection.execute("INSERT INTO who VALUES (?)", (os.environ.get("WERKZEUG_RUN_MAIN", "no"),))
"""


@dataclass(frozen=True)
class FlaskProject:
    """An application factory `shop` in `root`, whose settings are in the environment."""

    root: Path
    env: Mapping[str, str]
    postgres: Postgres | None = None

    def add(self, files: Mapping[str, str]) -> None:
        """Write files of the migration directory by their names in it."""
        (self.root / "migrations").mkdir(exist_ok=True)
        for name, content in files.items():
            (self.root / "migrations" / name).write_text(content, encoding="utf-8")

    def flask(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> FluxResult:
        """Run `flask --app shop ARGUMENTS` to its end."""
        return run_to_end(
            [sys.executable, "-m", "flask", "--app", "shop", *arguments],
            cwd=self.root,
            env=flux_environment({**self.env, **(env or {})}),
        )

    def succeed(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> str:
        """Run `flask`, which must exit with 0; its output."""
        result = self.flask(*arguments, env=env)
        assert result.code == 0, result
        return result.out

    def serving(self, command: list[str], **env: str) -> AbstractContextManager[Service]:
        """The application served by a program, which applies at its start-up."""
        # gunicorn has a socket in the home directory.
        env = {**self.env, **STARTUP, "HOME": str(self.root), **env}
        return running(command, self.root, flux_environment(env))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement on the application's database, and commit it."""
        if self.postgres is not None:
            return self.postgres.query(sql)
        with closing(sqlite3.connect(self.root / "instance" / "app.db")) as connection, connection:
            return connection.execute(sql).fetchall()

    @property
    def has_history(self) -> bool:
        """Whether flux has written anything to the database."""
        if self.postgres is not None:
            return self.query("SELECT to_regclass('_flux_migrations')") != [(None,)]
        return (self.root / "instance" / "app.db").exists()


@pytest.fixture
def sqlite_project(tmp_path: Path) -> FlaskProject:
    """An application on a SQLite file that is not there yet."""
    (tmp_path / "shop.py").write_text(_APP)
    (tmp_path / "instance").mkdir()
    project = FlaskProject(tmp_path, {"FLASK_FLUX_DATABASE_URL": "sqlite:///app.db"})
    project.add(RUNS)
    return project


@pytest.fixture
def postgres_project(tmp_path: Path, postgres_database: Postgres) -> FlaskProject:
    """An application on a PostgreSQL database of the test's own."""
    (tmp_path / "shop.py").write_text(_APP)
    project = FlaskProject(
        tmp_path, {"FLASK_FLUX_DATABASE_URL": postgres_database.url}, postgres_database
    )
    project.add(RUNS)
    return project


@pytest.fixture(params=["sqlite", "postgres"])
def project(request: pytest.FixtureRequest) -> FlaskProject:
    """An application on either."""
    found: FlaskProject = request.getfixturevalue(f"{request.param}_project")
    return found


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application in this process, at `tmp_path`; it names no database."""
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "instance").mkdir()
    made = flask.Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    made.testing = True
    return made


def add(app: Any, files: Mapping[str, str], directory: str = "migrations") -> None:
    """Write migrations of an application in this process."""
    path = Path(app.root_path, directory)
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_text(content, encoding="utf-8")


def run(app: Any, *arguments: str) -> Result:
    """`flask flux ARGUMENTS` in this process."""
    done: Result = app.test_cli_runner().invoke(args=["flux", *arguments])
    return done


def config_of(app: Any) -> FluxConfig:
    """What the settings of an application mean to flux."""
    config: FluxConfig = app.extensions["flux"].runner().config
    return config


def get(server: Service) -> str:
    """What an application answers, when it is there."""
    address = "http://127.0.0.1:"
    server.wait_for(address)
    found = re.search(rf"{address}(\d+)", server.said())
    assert found
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}", timeout=HANGS_AFTER) as answer:
        body: bytes = answer.read()
    return body.decode()


def tables(path: Path) -> set[str]:
    """The names of all tables in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}


# The commands -------------------------------------------------------------------------------


def test_apply_and_roll_back(project: FlaskProject) -> None:
    assert project.succeed("flux", "status").splitlines() == [
        "pending    001_runs",
        "pending    002_first",
        "pending    003_second",
        "3 migrations: 3 pending; flux has not touched this database",
    ]
    assert project.succeed("flux", "apply", "2").endswith("2 migrations applied\n")
    assert project.query("SELECT name FROM runs") == [("first",)]
    assert project.succeed("flux", "rollback", "-y").endswith("1 migration rolled back\n")
    assert project.succeed("flux", "apply").endswith("2 migrations applied\n")
    assert project.succeed("flux", "apply") == "nothing to do\n"
    assert project.succeed("flux", "rollback", "--all", "-y").endswith("rolled back\n")
    assert project.succeed("flux", "plan", "--sql").startswith("apply  001_runs")


def test_proofs(project: FlaskProject) -> None:
    assert project.succeed("flux", "test", "--only", "001_runs").endswith("1 proven\n")
    assert "table " in project.succeed("flux", "schema")
    project.succeed("flux", "apply")
    assert project.succeed("flux", "drift").startswith("no drift")


def test_output_and_exit_codes_are_those_of_flux(
    sqlite_project: FlaskProject, run_flux: FluxProcess
) -> None:
    """Each command, once by `flask flux` and once by `flux` with the same settings in a file."""
    (sqlite_project.root / "flux.toml").write_text(
        '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///instance/app.db"\n'
    )
    for arguments, code in (
        (["status", "--check"], PENDING),
        (["plan", "--sql"], 0),
        (["apply", "--json", "--to", "1_no"], MISUSED),
        (["rollback"], MISUSED),
        (["apply", "--no-such-option"], MISUSED),
        (["validate"], 0),
        (["status", "--json"], 0),
    ):
        by_flask, by_flux = sqlite_project.flask("flux", *arguments), run_flux(*arguments)
        assert by_flask.code == by_flux.code == code, (arguments, by_flask, by_flux)
        assert by_flask.out.replace(f"{sqlite_project.root}{os.sep}", "") == by_flux.out
    sqlite_project.succeed("flux", "apply")
    sqlite_project.add({"002_first.sql": "SELECT 2;\n"})
    assert sqlite_project.flask("flux", "apply").code == DISAGREES
    failing = {"002_first.sql": RUNS["002_first.sql"], "004_wrong.sql": "SELECT nothing;\n"}
    sqlite_project.add(failing)
    result = sqlite_project.flask("flux", "apply")
    assert result.code == FAILED
    assert "004_wrong.sql:1" in result.err
    assert "Traceback" not in result.err


def test_help(app: Any) -> None:
    Flux(app)
    for arguments, start in (
        (["--help"], "usage: flask flux [-h]"),
        (["-h"], "usage: flask flux [-h]"),
        (["apply", "--help"], "usage: flask flux apply [-h]"),
    ):
        result = run(app, *arguments)
        assert result.exit_code == 0
        assert result.output.startswith(start)
    assert "  flux  Database migrations.\n" in app.test_cli_runner().invoke(args=["--help"]).output
    assert run(app).exit_code == MISUSED
    assert run(app, "init").exit_code == MISUSED  # the settings stand for its file


def test_new(app: Any) -> None:
    """It needs no database, and writes where the settings say."""
    app.config["FLUX_MIGRATION_DIRECTORY"] = "sql"
    Flux(app)
    assert run(app, "new", "--sql", "Add", "shops").exit_code == 0
    names = sorted(path.name for path in Path(app.root_path, "sql").iterdir())
    assert [name.partition("_001_")[2] for name in names] == ["add-shops.sql", "add-shops.undo.sql"]


def test_json(app: Any) -> None:
    add(app, RUNS)
    app.config["FLUX_DATABASE_URL"] = "app.db"
    Flux(app)
    assert json.loads(run(app, "apply", "--json").output)["ok"] is True
    assert json.loads(run(app, "plan", "--json").output)["steps"] == []


# The settings -------------------------------------------------------------------------------


def test_every_setting_of_the_file_has_its_name(app: Any) -> None:
    app.config.update(
        FLUX_BACKEND="postgres",
        FLUX_MIGRATION_DIRECTORY=Path("db") / "sql",
        FLUX_LOG_LEVEL="ERROR",
        FLUX_APPLY_REPEATABLE_ON_UNDO=False,
        FLUX_POST_APPLY_ON_FAILURE=True,
        FLUX_ORDER="natural",
        FLUX_MISSING="allow-newer",
        FLUX_LATE="allow",
        FLUX_LOCK_WAIT=7,
        FLUX_CONNECT_WAIT=8,
        FLUX_DATABASE_URL="postgresql://u:p@localhost/shop",
        FLUX_SHADOW_URL="postgresql://u:p@localhost/other",
        FLUX_THROW_AWAY_SERVER=True,
        FLUX_REQUIRE_UNDO=True,
        FLUX_IGNORE=["audit.*"],
        FLUX_SCHEMA_FILE="db/schema.txt",
        FLUX_BACKEND_CONFIG={"migrations_schema": "flux"},
    )
    Flux(app)
    config = config_of(app)
    settings = config._asdict()
    assert {name for name in settings if f"FLUX_{name.upper()}" in app.config} | {
        "path",
        "directory",
    } == set(settings)
    assert config._replace(path=None) == FluxConfig(
        backend="postgres",
        migration_directory=os.path.join(app.root_path, "db", "sql"),
        log_level="ERROR",
        apply_repeatable_on_undo=False,
        post_apply_on_failure=True,
        order="natural",
        missing="allow-newer",
        late="allow",
        lock_wait=7,
        connect_wait=8,
        database_url="postgresql://u:p@localhost/shop",
        shadow_url="postgresql://u:p@localhost/other",
        throw_away_server=True,
        require_undo=True,
        ignore=("audit.*",),
        schema_file=os.path.join(app.root_path, "db/schema.txt"),
        backend_config={"migrations_schema": "flux"},
        directory=app.root_path,
    )


def test_the_guide_names_settings_that_are_there() -> None:
    guide = Path(__file__).parents[1] / "docs" / "guides" / "flask.md"
    named = set(re.findall(r"FLUX_[A-Z_]+", guide.read_text("utf-8")))
    own = {"FLUX_APPLY_ON_STARTUP", "FLUX_CONFIG"}
    assert own <= named <= own | {f"FLUX_{name.upper()}" for name in FluxConfig._fields}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"FLUX_DATABASE_ULR": "postgresql://u:hush@h/d"},
            "app.config: unknown key 'FLUX_DATABASE_ULR' in app.config\n"
            "hint: did you mean 'FLUX_DATABASE_URL'?",
            id="unknown",
        ),
        pytest.param(
            {"FLUX_APPLY_ON_START": True},
            "app.config: unknown key 'FLUX_APPLY_ON_START' in app.config\n"
            "hint: did you mean 'FLUX_APPLY_ON_STARTUP'?",
            id="one of Flask's only",
        ),
        pytest.param(
            {"FLUX_BACKEND_CONFIGURATION": {}},
            "app.config: unknown key 'FLUX_BACKEND_CONFIGURATION' in app.config\n"
            "hint: did you mean 'FLUX_BACKEND_CONFIG'?",
            id="backend_config",
        ),
        pytest.param(
            {"FLUX_LOCK_WAIT": "soon"},
            "app.config: FLUX_LOCK_WAIT in app.config must be a number of seconds, 0 or more, "
            "not 'soon'",
            id="type",
        ),
        pytest.param(
            {"FLUX_DATABASE_URL": 5},
            "app.config: FLUX_DATABASE_URL in app.config must be the address of a database",
            id="no address",
        ),
        pytest.param(
            {"FLUX_BACKEND_CONFIG": "hush"},
            "FLUX_BACKEND_CONFIG in app.config must be a mapping of the backend's settings",
            id="no mapping",
        ),
        pytest.param(
            {"FLUX_APPLY_ON_STARTUP": "false"},
            "FLUX_APPLY_ON_STARTUP in app.config must be true or false, not 'false'",
            id="start-up",
        ),
        pytest.param(
            {"FLUX_CONFIG": "flux.toml", "FLUX_ORDER": "natural", "FLUX_APPLY_ON_STARTUP": True},
            "FLUX_CONFIG in app.config stands for all settings of a flux.toml, and FLUX_ORDER "
            "stands beside it\nhint: keep one of the two",
            id="a file, and settings",
        ),
        pytest.param(
            {"FLUX_CONFIG": "no.toml"},
            "{root}/no.toml: cannot be read: No such file or directory",
            id="no file",
        ),
    ],
)
def test_a_wrong_setting_ends_the_start(app: Any, settings: dict[str, Any], message: str) -> None:
    app.config.update(settings)
    with pytest.raises(InvalidConfigurationError) as caught:
        Flux(app)
    assert str(caught.value) == message.replace("{root}", app.root_path)


def test_a_wrong_setting_is_told_by_flask_flux(sqlite_project: FlaskProject) -> None:
    """Without a traceback; and no other command of `flask` minds."""
    wrong = {"FLASK_FLUX_LOKC_WAIT": "5"}
    result = sqlite_project.flask("flux", "status", env=wrong)
    assert result.code == MISUSED
    assert "did you mean 'FLUX_LOCK_WAIT'?" in result.err
    assert "Traceback" not in result.err
    sqlite_project.succeed("routes", env=wrong)


def test_paths_count_from_the_application(sqlite_project: FlaskProject, tmp_path: Path) -> None:
    """Not from the working directory: migrations from `root_path`, SQLite from the instance."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "flux", "apply"],
        cwd=elsewhere,
        env=flux_environment({**sqlite_project.env, "PYTHONPATH": str(sqlite_project.root)}),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert sqlite_project.query("SELECT count(*) FROM runs") == [(2,)]
    assert list(elsewhere.iterdir()) == []


def test_the_setting_comes_before_the_argument(app: Any) -> None:
    Flux(app, directory="of-argument")
    app.config["FLUX_DATABASE_URL"] = "app.db"
    assert config_of(app).migration_directory == os.path.join(app.root_path, "of-argument")
    app.config["FLUX_MIGRATION_DIRECTORY"] = "of-setting"
    assert config_of(app).migration_directory == os.path.join(app.root_path, "of-setting")


def test_the_directory_of_flask_migrate(app: Any) -> None:
    """It has the same name by default."""
    add(app, {"env.py": "", "script.py.mako": "", "alembic.ini": ""})
    app.config["FLUX_DATABASE_URL"] = "app.db"
    with pytest.raises(MigrationLoadingError, match=r"a directory of Alembic's .*\nhint: give"):
        Flux(app).apply()


@pytest.mark.parametrize("sqlalchemy", [False, True], ids=["its own", "Flask-SQLAlchemy's"])
def test_a_file_in_place_of_the_settings(app: Any, sqlalchemy: bool) -> None:
    """So that `flux` and `flask flux` go by one; an address that it has comes first."""
    name = "sqlite:///instance/theirs.db" if sqlalchemy else "sqlite:///instance/own.db"
    own = 'database_url = "sqlite:///instance/own.db"\n' if not sqlalchemy else ""
    Path(app.root_path, "flux.toml").write_text(
        f'[flux]\nbackend = "sqlite"\nmigration_directory = "sql"\n{own}'
    )
    add(app, RUNS, "sql")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite:///theirs.db", FLUX_CONFIG="flux.toml")
    app.config["FLUX_APPLY_ON_STARTUP"] = True
    Flux(app)
    assert "runs" in tables(Path(app.root_path, name.removeprefix("sqlite:///")))


@pytest.mark.parametrize(
    ("address", "backend"),
    [
        ("postgresql://localhost/shop", "postgres"),
        ("host=localhost dbname=shop", "postgres"),
        ("sqlite:///shop.db", "sqlite"),
        ("shop.db", "sqlite"),
    ],
)
def test_the_address_says_the_backend(app: Any, address: str, backend: str) -> None:
    app.config["FLUX_DATABASE_URL"] = address
    Flux(app)
    assert config_of(app).backend == backend


def test_no_database(app: Any) -> None:
    Flux(app)
    result = run(app, "status")
    assert result.exit_code == MISUSED
    assert "no database is named" in result.output
    assert "FLUX_DATABASE_URL" in result.output


def test_the_environment_comes_before_the_settings(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere; also before Flask-SQLAlchemy's database in memory."""
    pytest.importorskip("flask_sqlalchemy").SQLAlchemy().init_app(
        _with(app, SQLALCHEMY_DATABASE_URI="sqlite://")
    )
    add(app, RUNS)
    Flux(app)
    monkeypatch.setenv("FLUX_DATABASE_URL", str(tmp_path / "of-environment.db"))
    assert run(app, "apply").exit_code == 0
    assert "runs" in tables(tmp_path / "of-environment.db")


def test_an_address_is_taken_as_it_is(app: Any) -> None:
    """A program reads the environment itself: its dollar signs are of the password."""
    address = "postgresql://u:a$$b${HOME}@localhost/shop"
    app.config["FLUX_DATABASE_URL"] = address
    Flux(app)
    assert config_of(app).resolve_url() == address


def test_no_password_is_shown(sqlite_project: FlaskProject) -> None:
    """Not of a database that is not there, nor of an address that cannot be read."""
    for address in ("postgresql://u:hush-hush@127.0.0.1:1/shop", "postgresql://u:hush-hush@h:x/d"):
        for options in ([], ["--traceback"]):
            result = sqlite_project.flask(
                "flux", "status", *options, env={"FLASK_FLUX_DATABASE_URL": address}
            )
            assert result.code
            assert result.err
            assert "hush" not in result.out + result.err


# Flask-SQLAlchemy ---------------------------------------------------------------------------


def _with(app: Any, **settings: Any) -> Any:
    app.config.update(settings)
    return app


def _initialised(app: Any, kind: str, url: Any) -> Any:
    """The application with Flask-SQLAlchemy, or with Flask-SQLAlchemy-Lite; its engine."""
    if kind == "Flask-SQLAlchemy":
        extension = pytest.importorskip("flask_sqlalchemy").SQLAlchemy()
        app.config["SQLALCHEMY_DATABASE_URI"] = url
    else:
        extension = pytest.importorskip("flask_sqlalchemy_lite").SQLAlchemy()
        app.config["SQLALCHEMY_ENGINES"] = {"default": url}
    extension.init_app(app)
    with app.app_context():
        return extension.engine


KINDS = ["Flask-SQLAlchemy", "Flask-SQLAlchemy-Lite"]


def _select(engine: Any, sql: str) -> list[tuple[Any, ...]]:
    """What SQLAlchemy reads, which then lets go of the database."""
    import sqlalchemy

    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(sqlalchemy.text(sql))]
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url", ["sqlite:///shop.db", "sqlite:///50%.db", "sqlite+pysqlite:///shop.db?timeout=9"]
)
def test_the_same_file_is_meant(app: Any, kind: str, url: str) -> None:
    """Flask-SQLAlchemy counts it from the instance folder, and decodes no `%`."""
    engine = _initialised(app, kind, url)
    add(app, RUNS)
    Flux(app)
    assert run(app, "apply").exit_code == 0
    assert _select(engine, "SELECT name FROM runs") == [("first",), ("second",)]
    engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory(app: Any, kind: str, url: str) -> None:
    """It is migrated over the one connection that there is, which stays open."""
    engine = _initialised(app, kind, url)
    add(app, RUNS)
    extension = Flux(app)
    assert extension.apply().applied == ("001_runs", "002_first", "003_second")
    assert extension.apply().applied == ()
    assert _select(engine, "SELECT name FROM runs") == [("first",), ("second",)]
    engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("driver", ["", "+psycopg2", "+psycopg"])
def test_postgres(app: Any, kind: str, driver: str, postgres_database: Postgres) -> None:
    import sqlalchemy

    url = sqlalchemy.make_url(postgres_database.url)
    engine = _initialised(app, kind, url.set(drivername=f"postgresql{driver}"))
    add(app, RUNS)
    assert Flux(app).apply().applied == ("001_runs", "002_first", "003_second")
    assert _select(engine, "SELECT name FROM runs") == [("first",), ("second",)]
    engine.dispose()


def test_an_address_with_all_sorts_of_characters(app: Any) -> None:
    """libpq reads what SQLAlchemy wrote."""
    import sqlalchemy
    from psycopg2.extensions import parse_dsn

    password = "a$$b ${c}:/?#@%41"
    url = sqlalchemy.URL.create(
        "postgresql+psycopg2",
        "u",
        password,
        "localhost",
        5432,
        "two words",
        query={"options": "-c search_path=a+b"},
    )
    _initialised(app, KINDS[0], url).dispose()
    Flux(app)
    meant = parse_dsn(config_of(app).resolve_url().replace("+psycopg2", ""))
    assert (meant["password"], meant["dbname"]) == (password, "two words")
    assert meant["options"] == "-c search_path=a+b"


@pytest.mark.parametrize("text", [True, False], ids=["text", "URL"])
def test_before_flask_sqlalchemy_is_initialised(app: Any, text: bool) -> None:
    """The setting is read, and means the same file."""
    import sqlalchemy

    url = "sqlite:///shop.db"
    app.config["SQLALCHEMY_DATABASE_URI"] = url if text else sqlalchemy.make_url(url)
    add(app, RUNS)
    app.config["FLUX_APPLY_ON_STARTUP"] = True
    Flux(app)
    assert "runs" in tables(Path(app.instance_path, "shop.db"))


def test_flux_database_url_comes_before_that_of_flask_sqlalchemy(app: Any) -> None:
    _initialised(app, KINDS[0], "sqlite:///theirs.db").dispose()
    app.config["FLUX_DATABASE_URL"] = "sqlite:///ours.db"
    add(app, RUNS)
    Flux(app).apply()
    assert "runs" in tables(Path(app.instance_path, "ours.db"))
    assert not Path(app.instance_path, "theirs.db").exists()


# In a program -------------------------------------------------------------------------------


def test_several_applications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One extension serves them, each with its own settings."""
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)
    extension = Flux()
    apps = [flask.Flask(name, root_path=str(tmp_path)) for name in ("one", "two")]
    add(apps[0], RUNS)
    for app in apps:
        app.config["FLUX_DATABASE_URL"] = str(tmp_path / f"{app.name}.db")
        extension.init_app(app)
    with apps[1].app_context():
        assert extension.apply(n=1).applied == ("001_runs",)
    assert run(apps[0], "apply", "2").exit_code == 0
    for app, count in zip(apps, (2, 1), strict=True):
        with app.app_context(), extension.runner() as runner:
            assert len(runner.history()) == count


def test_without_an_application() -> None:
    with pytest.raises(RuntimeError, match="no current application"):
        Flux().runner()


def test_events(app: Any) -> None:
    add(app, RUNS)
    app.config["FLUX_DATABASE_URL"] = "app.db"
    kinds: list[str] = []
    Flux(app).apply(to="001_runs", on_event=lambda event: kinds.append(event.kind))
    assert kinds == ["start", "done"]


# At start-up --------------------------------------------------------------------------------


def test_a_program_that_makes_the_application(app: Any) -> None:
    add(app, RUNS)
    app.config.update(FLUX_DATABASE_URL="app.db", FLUX_APPLY_ON_STARTUP=True)
    Flux(app)
    assert "runs" in tables(Path(app.instance_path, "app.db"))


def test_not_unless_it_is_wished(app: Any) -> None:
    add(app, RUNS)
    app.config["FLUX_DATABASE_URL"] = "app.db"
    Flux(app)
    assert list(Path(app.instance_path).iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["routes"], ["shell"], ["flux", "status"], ["--help"]], ids=" ".join
)
def test_commands_of_flask_apply_nothing(
    sqlite_project: FlaskProject, arguments: list[str]
) -> None:
    sqlite_project.succeed(*arguments, env=STARTUP)
    assert not sqlite_project.has_history


def _flask_run(*options: str) -> list[str]:
    command = [sys.executable, "-m", "flask", "--app", "shop", "run", "--port", "0"]
    return [*command, "--host", "127.0.0.1", *options]


def test_flask_run_applies(sqlite_project: FlaskProject) -> None:
    with sqlite_project.serving(_flask_run()) as server:
        get(server)
        assert sqlite_project.query("SELECT count(*) FROM runs") == [(2,)]


@pytest.mark.parametrize("option", ["--reload", "--debug"])
def test_the_reloader_leaves_it_to_the_one_that_serves(
    sqlite_project: FlaskProject, option: str
) -> None:
    """The process that watches the files makes the application as well."""
    sqlite_project.add({"004_who.py": _WHO})
    with sqlite_project.serving(_flask_run(option)) as server:
        get(server)
        assert sqlite_project.query("SELECT serves FROM who") == [("true",)]


# gunicorn -----------------------------------------------------------------------------------


def _gunicorn(*options: str) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), *options]
    return [*command, "--bind", "127.0.0.1:0", "--timeout", "90", "shop:create_app()"]


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["each worker", "before the fork"])
def test_eight_workers_apply_once(project: FlaskProject, options: list[str]) -> None:
    """Each migration ran once, and all eight serve: each answers when eight are asked."""
    pytest.importorskip("gunicorn")
    with project.serving(_gunicorn(*options), FLASK_WORKERS=str(WORKERS)) as server:
        with ThreadPoolExecutor(WORKERS) as asking:
            answers = list(asking.map(get, [server] * WORKERS))
        assert len(set(answers)) == WORKERS
        assert project.query("SELECT name FROM runs ORDER BY name") == [("first",), ("second",)]
        assert project.query("SELECT count(*) FROM _flux_migrations") == [(3,)]
    assert server.said().count("Booting worker") == WORKERS  # none had to be started anew


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["each worker", "before the fork"])
def test_a_failure_ends_gunicorn(sqlite_project: FlaskProject, options: list[str]) -> None:
    """It starts no worker again and again; what it says names the place."""
    pytest.importorskip("gunicorn")
    sqlite_project.add({"002_first.sql": "INSERT INTO nowhere VALUES (1);\n"})
    with sqlite_project.serving(_gunicorn(*options)) as server:
        # 3 is gunicorn's for a worker that did not start; where several do not, it stumbles.
        assert server.exit_code() in (1, 3)
    said = server.said()
    assert re.search(r"MigrationApplyError: .*002_first\.sql:1", said), said
    assert "no such table: nowhere" in said
    assert said.count("Booting worker") <= WORKERS


def test_a_failure_in_a_program(app: Any) -> None:
    add(app, {"001_wrong.sql": "SELECT nothing;\n"})
    app.config.update(FLUX_DATABASE_URL="app.db", FLUX_APPLY_ON_STARTUP=True)
    with pytest.raises(MigrationApplyError):
        Flux(app)
