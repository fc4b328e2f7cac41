"""A database of Django's settings, as flux takes one: an address, or Django's own connection."""

from __future__ import annotations

import os
import re
from typing import Any, Final
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from flux.address import keyword
from flux.exceptions import (
    ConnectionStateError,
    DatabaseUnavailableError,
    InvalidConfigurationError,
)

_BACKENDS: Final = {"postgresql": "postgres", "sqlite": "sqlite"}
#: What `get_connection_params` gives for the driver (psycopg2 or psycopg 3) rather than for libpq.
_OF_THE_DRIVER: Final = (
    "async",
    "async_",
    "autocommit",
    "client_encoding",
    "connection_factory",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
)
_NOT_FOR_LIBPQ: Final = r"[\x00\ud800-\udfff]"
_CONTROL: Final = r"[\x01-\x1f\x7f]"


def backend_of(alias: str) -> str:
    """The name of flux's backend for a database. Raises `InvalidConfigurationError`."""
    connection = connections[alias]
    try:
        return _BACKENDS[connection.vendor]
    except KeyError:
        if connection.vendor == "unknown":  # Django's stand-in for what the settings lack
            raise InvalidConfigurationError(f"DATABASES says nothing of {alias!r}") from None
        raise InvalidConfigurationError(
            f"flux has no backend for {connection.display_name}, which the database {alias!r} is"
        ) from None


def driver_settings(alias: str) -> dict[str, str]:
    """The settings in `[backend]` that give migrations connections of Django's own driver."""
    connection: Any = connections[alias]
    return {"driver": connection.Database.__name__} if connection.vendor == "postgresql" else {}


def database_to_read(alias: str) -> Any:
    """The database for those who only read: of a SQLite file that is not there, its path.

    Django's connection would create the file.
    """
    connection = connections[alias]
    if backend_of(alias) == "sqlite" and not _is_in_memory(connection):
        path = str(connection.settings_dict["NAME"])
        if path and not path.startswith("file:") and not os.path.exists(path):
            return os.path.abspath(path)
    return database_to_change(alias)


def database_to_change(alias: str) -> Any:
    """Django's own connection for SQLite; else an address, as the settings have it.

    Raises `ConnectionStateError` where Django's connection is inside of a transaction,
    `DatabaseUnavailableError` where it cannot be opened, and `InvalidConfigurationError`.
    """
    if backend_of(alias) == "sqlite":
        return _sqlite_connection(alias)
    return _libpq_parameters(alias)


def _is_in_memory(connection: Any) -> bool:
    return bool(connection.is_in_memory_db())


def _sqlite_connection(alias: str) -> Any:
    connection = connections[alias]
    if connection.in_atomic_block:
        raise ConnectionStateError(
            f"Django's connection {alias!r} is inside of an atomic block, and a migration would "
            "commit it",
            hint="run flux outside of it; a test that does is a TransactionTestCase",
        )
    try:
        connection.ensure_connection()
    except ImproperlyConfigured as error:
        raise InvalidConfigurationError(str(error)) from error
    except DatabaseError as error:
        path = connection.settings_dict["NAME"]
        raise DatabaseUnavailableError(
            f"cannot open the database {alias!r} ({path}): {error}"
        ) from error
    return connection.connection


def _libpq_parameters(alias: str) -> str:
    """The parameters that Django connects with, as an address of libpq's.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
    """
    connection: Any = connections[alias]
    try:
        parameters = connection.get_connection_params()
    except ImproperlyConfigured as error:
        raise InvalidConfigurationError(str(error)) from error
    given = {
        name: str(value)
        for name, value in parameters.items()
        if name not in _OF_THE_DRIVER and value is not None
    }
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        # As a parameter of the connection, so that RESET ROLE comes back to it.
        role_option = "-c role=" + re.sub(r"([\\\s])", r"\\\1", role)
        given["options"] = f"{given.get('options', '')} {role_option}".strip()
    for name, value in given.items():
        if re.search(_NOT_FOR_LIBPQ, value):
            raise InvalidConfigurationError(
                f"{name} of {alias!r} in DATABASES holds a NUL character or bytes that are not "
                "UTF-8, and libpq takes neither"
            )
    if any(re.search(_CONTROL, value) for value in given.values()):
        # Only a URL has a way to write one.
        return "postgresql://?" + urlencode(given, quote_via=quote)
    return " ".join(keyword(name, value) for name, value in given.items())
