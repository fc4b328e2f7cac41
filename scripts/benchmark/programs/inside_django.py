"""Django's `migrate` inside a program."""

import django
from django.core.management import call_command
from django.db import connections

django.setup()


def nothing_to_do(url: str) -> None:
    """Apply what is pending, of which there is nothing."""
    call_command("migrate", verbosity=0)
    connections.close_all()
