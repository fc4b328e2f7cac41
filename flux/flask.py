"""flux in a Flask application: `Flux(app)`, or `Flux().init_app(app)` in a factory.

`flask flux` has the commands, and the settings `FLUX_…` of `app.config` stand for `flux.toml`.
docs/guides/flask.md describes all of it.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import click
from flask import Flask, current_app, has_app_context
from flask.cli import ScriptInfo, run_command
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from flux.address import relative_to
from flux.cli import main
from flux.config import FluxConfig
from flux.exceptions import InvalidConfigurationError
from flux.host import Host
from flux.runner import FluxRunner

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from flux.results import BatchResult, Event

_PREFIX: Final = "FLUX_"
_SOURCE: Final = "app.config"
#: Those that a file has not.
_APPLY_ON_STARTUP: Final = "FLUX_APPLY_ON_STARTUP"
_CONFIG: Final = "FLUX_CONFIG"


class Flux:
    """The extension. One may serve several applications, each with settings of its own.

    `directory` is where the migrations are when `FLUX_MIGRATION_DIRECTORY` does not say so; a
    relative one counts from the `root_path` of the application.
    """

    def __init__(
        self, app: Flask | None = None, directory: str | os.PathLike[str] = "migrations"
    ) -> None:
        self._app = app
        self._directory = directory
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add `flask flux`; with `FLUX_APPLY_ON_STARTUP`, apply what is pending. Writes then.

        A command of `flask` other than `flask run` applies nothing, and reports wrong settings
        only if it is flux's own.

        Raises `InvalidConfigurationError`, and what `FluxRunner.apply_migrations` raises.
        """
        app.extensions["flux"] = self
        app.cli.add_command(_command)
        if _is_made_for_a_command():
            return
        config = self._config(app)
        if _applies_on_startup(app):
            with FluxRunner.from_config(config, _database(app, config)) as runner:
                runner.apply_migrations()

    def apply(
        self,
        *,
        n: int | None = None,
        to: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> BatchResult:
        """Apply pending migrations, as `flux.apply` does. Writes.

        Raises what `FluxRunner.apply_migrations` raises, and `RuntimeError` as `runner` does.
        """
        with self.runner(on_event=on_event) as runner:
            return runner.apply_migrations(n, to=to)

    def runner(self, *, on_event: Callable[[Event], None] | None = None) -> FluxRunner:
        """A runner for the current application, or the one that the extension was made with.

        Raises `InvalidConfigurationError` and `BackendLoadingError`, and `RuntimeError` where
        there is no application.
        """
        app = current_app if has_app_context() else self._app
        if app is None:
            raise RuntimeError("there is no current application: call it within app.app_context()")
        config = self._config(app)
        return FluxRunner.from_config(config, _database(app, config), on_event=on_event)

    def _config(self, app: Flask) -> FluxConfig:
        """The settings of an application as flux's configuration.

        Raises `InvalidConfigurationError`, which names the setting.
        """
        if _CONFIG in app.config:
            return _config_of_file(app)
        settings = {"migration_directory": self._directory, **app.config.get_namespace(_PREFIX)}
        url = settings.get("database_url") or _sqlalchemy_address(app)
        if isinstance(url, str):
            # Counted as Flask-SQLAlchemy does, so that one text is one database.
            settings["database_url"] = relative_to(url.strip(), app.instance_path)
        return FluxConfig.from_mapping(
            settings,
            source=_SOURCE,
            directory=app.root_path,
            prefix=_PREFIX,
            others=("apply_on_startup", "config"),
        )


class FlaskHost(Host):
    """A Flask application, whose settings name its database."""

    prog = "flask flux"

    def __init__(self, app: Flask) -> None:
        self._app = app

    def config(self, arguments: argparse.Namespace) -> FluxConfig:
        """The settings of the application. Raises `InvalidConfigurationError`."""
        extension: Flux = self._app.extensions["flux"]
        return extension._config(self._app)

    def database(self, arguments: argparse.Namespace) -> Any:
        """The connection of a database in memory; None for the one that the settings name."""
        return _database(self._app, self.config(arguments))


# flux reads its own words, `--help` among them.
@click.command(
    "flux",
    short_help="Database migrations.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _command(context: click.Context, arguments: tuple[str, ...]) -> None:
    context.exit(main(arguments, FlaskHost(context.ensure_object(ScriptInfo).load_app())))


def _config_of_file(app: Flask) -> FluxConfig:
    """What a `flux.toml` says, with Flask-SQLAlchemy's address where it has none."""
    own = (_APPLY_ON_STARTUP, _CONFIG)
    beside = [name for name in app.config if name.startswith(_PREFIX) and name not in own]
    if beside:
        raise InvalidConfigurationError(
            f"{_CONFIG} in {_SOURCE} stands for all settings of a flux.toml, and "
            f"{', '.join(beside)} stands beside it",
            hint="keep one of the two",
        )
    path = app.config[_CONFIG]
    if not isinstance(path, str | os.PathLike):
        raise InvalidConfigurationError(f"{_CONFIG} in {_SOURCE} must be the path of a flux.toml")
    config = FluxConfig.from_file(os.path.join(app.root_path, path))
    url = None if config.database_url else _sqlalchemy_address(app)
    # A dollar sign of it begins no variable, as one in the file does.
    return config if url is None else config._replace(database_url=url.replace("$", "$$"))


def _applies_on_startup(app: Flask) -> bool:
    wanted = app.config.get(_APPLY_ON_STARTUP, False)
    if not isinstance(wanted, bool):  # the text "false" would be true
        raise InvalidConfigurationError(
            f"{_APPLY_ON_STARTUP} in {_SOURCE} must be true or false, not {wanted!r}"
        )
    return wanted


def _is_made_for_a_command() -> bool:
    """Whether `flask` makes the application for something else than to serve it.

    The process that watches the files for `flask run --reload` only starts the one that serves.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.find_object(ScriptInfo) is None:
        return False
    if context.command is not run_command:
        return True
    reload = context.params["reload"]
    watches = get_debug_flag() if reload is None else reload
    return watches and not is_running_from_reloader()


# Flask-SQLAlchemy ---------------------------------------------------------------------------


def _database(app: Flask, config: FluxConfig) -> Any:
    """The database as flux takes one: None where an address is named.

    A SQLite database in memory is Flask-SQLAlchemy's connection: an address would open another.
    """
    engine = None if config.names_database else _sqlalchemy_engine(app)
    if engine is None:
        return None
    with closing(engine.raw_connection()) as pooled:
        return pooled.driver_connection  # the only one of its pool, which keeps it open


def _sqlalchemy_address(app: Flask) -> str | None:
    """Flask-SQLAlchemy's default database; None for none, or one in memory."""
    engine = _sqlalchemy_engine(app)
    url = app.config.get("SQLALCHEMY_DATABASE_URI") if engine is None else engine.url
    if url is None:
        return None
    if isinstance(url, str):
        return relative_to(url, app.instance_path)
    if url.get_backend_name() != "sqlite":
        return _libpq_url(url)
    if url.database in (None, "", ":memory:"):
        return None
    return os.path.join(app.instance_path, url.database)


def _libpq_url(url: Any) -> str:
    """A URL for libpq: SQLAlchemy leaves spaces as they are, and in parameters writes `+`."""
    start = url.set(query={}).render_as_string(hide_password=False).replace(" ", "%20")
    return f"{start}?{urlencode(url.query, doseq=True, quote_via=quote)}" if url.query else start


def _sqlalchemy_engine(app: Flask) -> Any:
    """The default engine, where Flask-SQLAlchemy or Flask-SQLAlchemy-Lite has made one."""
    extension = app.extensions.get("sqlalchemy")
    if extension is None:
        return None
    with app.app_context():
        engines = extension.engines
    return engines.get(None) or engines.get("default")
