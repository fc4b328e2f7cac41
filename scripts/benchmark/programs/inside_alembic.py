"""Alembic inside a program."""

from alembic import command
from alembic.config import Config


def nothing_to_do(url: str) -> None:
    """Apply what is pending, of which there is nothing."""
    command.upgrade(Config("alembic.ini"), "head")
