"""Django's system checks: what `FLUX` says, and whether each database is up to date.

https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.core.checks import CheckMessage, Error, Warning

from flux.backends import load_backend
from flux.django import settings
from flux.django.databases import database_to_read
from flux.exceptions import FluxMigrationException
from flux.host import spell
from flux.runner import FluxRunner

if TYPE_CHECKING:
    from flux.results import Status

_NAMES = 3
#: Of no database in particular.
_ADDRESSES: Final = {"sqlite": "sqlite://:memory:", "postgres": "postgresql://"}


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Whether `FLUX` can be read. Opens nothing."""
    try:
        for alias in settings.aliases():
            config = settings.config_for(alias)
            # For the settings of `backend_config`, which it checks; the address opens nothing.
            load_backend(config.backend).from_config(config, _ADDRESSES[config.backend])
        settings.test_order()
    except FluxMigrationException as error:
        return [Error(it.message, hint=it.hint, id="flux.E001") for it in error.problems or [error]]
    return []


def check_databases(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether the databases that were named are up to date, those with flux's migrations. Reads.

    A database that cannot be reached is a warning.
    """
    if check_settings():
        return []  # told already
    return list(_warnings(alias for alias in settings.aliases() if alias in (databases or ())))


def warn_runserver(**kwargs: Any) -> list[CheckMessage]:
    """The notice of `runserver`, for all databases that have flux's migrations. Reads."""
    if check_settings():
        return []
    return list(_warnings(settings.aliases()))


def _warnings(aliases: Iterable[str]) -> Iterable[CheckMessage]:
    for alias in aliases:
        try:
            with FluxRunner.from_config(
                settings.config_for(alias), database_to_read(alias)
            ) as runner:
                yield from _warnings_of(alias, runner.status())
        except FluxMigrationException as error:
            yield Warning(
                f"the migrations of the database {alias!r} cannot be examined: {_told(error)}",
                hint=error.hint and spell(error.hint, "manage.py flux"),
                id="flux.W003",
            )


def _warnings_of(alias: str, status: Status) -> Iterable[CheckMessage]:
    option = "" if alias == settings.aliases()[0] else f" --database {alias}"
    if status.problems:
        yield Warning(
            f"history and migration directory of the database {alias!r} disagree: "
            + "; ".join(problem.message for problem in status.problems),
            hint=f"manage.py flux validate{option}",
            id="flux.W002",
        )
    elif not status.is_settled:
        yield Warning(
            f"the database {alias!r} is not up to date: {_what_is_due(status)}",
            hint=f"manage.py flux apply{option}",
            id="flux.W001",
        )


def _told(error: FluxMigrationException) -> str:
    """The message with the place that it is about."""
    return error.message if error.location is None else f"{error.location}: {error.message}"


def _what_is_due(status: Status) -> str:
    count = len(status.pending)
    if not count:
        return "the last batch is to be finished"
    names = [*status.pending[:_NAMES], *(["…"] if count > _NAMES else [])]
    return f"{count} pending migration{'' if count == 1 else 's'} ({', '.join(names)})"
