"""Finding a backend: the built-in ones by name, all others among the entry points."""

from __future__ import annotations

import re

from flux.exceptions import BackendNotInstalledError, InvalidBackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from typing import Any

    from flux.backends.base import MigrationBackend

ENTRY_POINT_GROUP = "flux.backend"
#: The entry points of flux's own distribution, known without a scan of what is installed.
BUILT_IN = {
    "sqlite": ("flux.backends.sqlite", "SQLiteBackend"),
    "postgres": ("flux.backends.postgres", "PostgresBackend"),
}


def load_backend(name: str) -> type[MigrationBackend]:
    """The backend class that a name stands for.

    Raises `BackendNotInstalledError` when nothing installed provides it, or its driver is not
    installed, and `InvalidBackendError` when what is there is not a backend.
    """
    if name not in BUILT_IN:
        return _load_plugin(name)
    module_name, class_name = BUILT_IN[name]
    try:
        # Not importlib's function, whose import takes longer than this.
        module = __import__(module_name, fromlist=[class_name])
        built_in: type[MigrationBackend] = getattr(module, class_name)
        built_in.require_driver()
    except ImportError as error:
        raise BackendNotInstalledError(
            f"the driver of the backend {name!r} is not installed: {error}",
            hint=f'pip install "flux-migrations[{name}]"',
        ) from error
    return built_in


def names() -> list[str]:
    """The names of all backends that are installed, sorted."""
    from importlib.metadata import entry_points

    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def _load_plugin(name: str) -> type[MigrationBackend]:
    point = _find_entry_point(name)
    what = f"the backend {name!r} ({point.value})"
    hint = f"it comes with {point.dist.name} {point.dist.version}" if point.dist else None
    try:
        loaded = point.load()
    except Exception as error:
        raise InvalidBackendError(
            f"{what} cannot be loaded: {type(error).__name__}: {error}", hint=hint
        ) from error
    from flux.backends.base import MigrationBackend

    if not (isinstance(loaded, type) and issubclass(loaded, MigrationBackend)):
        raise InvalidBackendError(f"{what} is not a subclass of flux.MigrationBackend", hint=hint)
    if missing := sorted(loaded.__abstractmethods__):
        raise InvalidBackendError(f"{what} lacks {', '.join(missing)}", hint=hint)
    return loaded


def _find_entry_point(name: str) -> EntryPoint:
    from importlib.metadata import entry_points

    if not re.fullmatch(r"[\w.-]+", name):
        from flux import address

        raise BackendNotInstalledError(
            f"{address.redact(name)} is not the name of a backend",
            hint=f"as an address it is one of {address.backend_of(name)}",
        )
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if not points:
        raise BackendNotInstalledError(
            f"no installed package provides the backend {name!r}",
            hint=f"installed are: {', '.join(names())}",
        )
    targets = {point.value for point in points}
    if len(targets) > 1:
        raise InvalidBackendError(
            f"several installed packages provide the backend {name!r}: "
            f"{', '.join(sorted(targets))}",
            hint="uninstall all but one",
        )
    return points[0]


def backend_of_connection(connection: object) -> tuple[str, Any]:
    """The backend's name for an open connection, and the driver's own connection inside it.

    Connections wrapped by SQLAlchemy, Django or a tracer are unwrapped.

    Raises `InvalidBackendError` for a connection of a driver that flux does not know.
    """
    from inspect import ismethod

    found: Any = connection
    for _ in range(8):  # wrappers are few; a wrapper of itself must not hang flux
        for base in type(found).__mro__:
            driver = base.__module__.partition(".")[0]
            if driver in _DRIVERS and base.__name__.lower() in _CONNECTIONS:
                return _DRIVERS[driver], found
        inside = (getattr(found, name, None) for name in _WRAPPED_IN)
        inner = next((it for it in inside if it is not None and not ismethod(it)), None)
        if inner is None:
            break
        found = inner
    raise InvalidBackendError(
        f"flux does not know this kind of connection: {type(connection).__module__}."
        f"{type(connection).__qualname__}",
        hint="hand in a sqlite3, psycopg2 or psycopg connection, or the database's address",
    )


_DRIVERS = {"sqlite3": "sqlite", "psycopg2": "postgres", "psycopg": "postgres"}
#: The names of their classes; the backend tells why it cannot use an asynchronous one.
_CONNECTIONS = ("connection", "asyncconnection")
_WRAPPED_IN = ("driver_connection", "dbapi_connection", "connection", "__wrapped__", "_connection")
