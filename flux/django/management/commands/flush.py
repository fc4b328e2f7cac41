"""Django's `flush`, as its tests call it: also for tables that refer to Django's."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush
from django.db import connections

from flux.django import settings


class Command(flush.Command):
    """Empties what refers to Django's tables with them, after a TransactionTestCase.

    Django empties its own tables, and PostgreSQL refuses to truncate `auth_user` while a table of
    flux's refers to it; SQLite refuses to delete rows that are referred to.
    """

    def handle(self, **options: Any) -> None:
        """Flush. Writes. `manage.py flush`, which never gives this option, is Django's own."""
        alias = options["database"]
        if "allow_cascade" not in options or alias not in settings.aliases():
            super().handle(**options)
            return
        options["allow_cascade"] = True
        # The tables are emptied in any order, and only Django's own foreign keys are deferred.
        with connections[alias].constraint_checks_disabled():
            super().handle(**options)
