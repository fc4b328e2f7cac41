"""The command line inside of `manage.py`: Django's settings name configuration and database."""

from __future__ import annotations

import argparse
from typing import Any

from flux.config import FluxConfig
from flux.django import settings
from flux.django.databases import database_to_change, database_to_read
from flux.exceptions import FluxMigrationException
from flux.host import Host

#: What Django's `--verbosity` means for what is told on the way; 1 is as the settings say.
_LOG_LEVELS = {0: "ERROR", 2: "DEBUG", 3: "DEBUG"}


class DjangoHost(Host):
    """A Django project, whose databases are called by their alias."""

    def __init__(self, prog: str, *, verbosity: int) -> None:
        self.prog = prog
        self._verbosity = verbosity
        #: What ended the command, after it was told; None for success.
        self.error: FluxMigrationException | None = None

    def declare_config(self, command: argparse.ArgumentParser) -> None:
        """Add `--database`, as Django's own commands have it; `FLUX` may say something for each."""
        command.add_argument(
            "--database", metavar="ALIAS", help="of DATABASES; default: default, or FLUX's first"
        )

    def config(self, arguments: argparse.Namespace) -> FluxConfig:
        """What `FLUX` says of the database. Raises `InvalidConfigurationError`."""
        config = settings.config_for(_alias(arguments))
        log_level = _LOG_LEVELS.get(self._verbosity, config.log_level)
        return config._replace(log_level=log_level)

    def database(self, arguments: argparse.Namespace) -> Any:
        """The database of the alias. Raises as `database_to_change` does."""
        changes = hasattr(arguments, "lock_wait")
        return (database_to_change if changes else database_to_read)(_alias(arguments))

    def note_error(self, error: FluxMigrationException) -> None:
        """Keep it for the `CommandError` that `call_command` raises."""
        self.error = error


def _alias(arguments: argparse.Namespace) -> str:
    return getattr(arguments, "database", None) or settings.aliases()[0]
