"""The application: its label, and the checks that it registers."""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.core.checks import Tags, register

from flux.django.checks import check_databases, check_settings, warn_runserver


class FluxMigrationsConfig(AppConfig):
    """The application `flux_migrations`, which has no models."""

    name = "flux.django"
    label = "flux_migrations"
    verbose_name = "flux"

    def ready(self) -> None:
        """Register the system checks. Opens nothing."""
        register(check_settings)
        register(check_databases, Tags.database)
        # Django runs no check with the tag `database` here, and its own notice of unapplied
        # migrations cannot be extended. A command in place of `runserver` would depend on the
        # order of INSTALLED_APPS, and stand in the way of other applications' own.
        if sys.argv[1:2] == ["runserver"]:
            register(warn_runserver)
