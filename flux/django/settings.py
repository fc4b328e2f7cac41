"""`FLUX` in Django's settings, as flux's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from django.conf import settings
from django.db import connections

from flux.address import redact
from flux.config import FluxConfig, nearest
from flux.django.databases import backend_of, driver_settings
from flux.exceptions import InvalidConfigurationError, Problem

SOURCE: Final = "FLUX in the settings"
#: What Django's settings say elsewhere.
_ELSEWHERE: Final = {
    "backend": "it follows from the ENGINE of the database",
    "database_url": "the address is taken from DATABASES",
}
#: The keys that only `FLUX` has: of which databases it is, and when a test database is migrated.
_DATABASES, _TEST_ORDER = "databases", "test_order"
_OF_A_DATABASE: Final = tuple(
    name for name in FluxConfig._fields if name not in (*_ELSEWHERE, "path", "directory")
)


def aliases() -> tuple[str, ...]:
    """The aliases of the databases that have flux's migrations; the commands take the first.

    Raises `InvalidConfigurationError`.
    """
    return tuple(_databases()) or ("default",)


def config_for(alias: str) -> FluxConfig:
    """The configuration for the database of an alias. Opens nothing.

    Raises `InvalidConfigurationError`, which names the key.
    """
    databases = _databases()
    if databases and alias not in databases:
        raise InvalidConfigurationError(
            f"{redact(alias)!r} is none of the {_DATABASES} of {SOURCE}",
            hint=f"there are: {', '.join(databases)}",
        )
    if alias not in connections:
        raise InvalidConfigurationError(
            f"there is no {redact(alias)!r} in DATABASES",
            hint=f"there are: {', '.join(connections)}",
        )
    general = {name: value for name, value in _flux().items() if name in _OF_A_DATABASE}
    merged = {**general, **databases.get(alias, {}), "backend": backend_of(alias)}
    config = FluxConfig.from_mapping(merged, source=SOURCE, directory=_project_directory(merged))
    own = {**driver_settings(alias), **config.backend_config}
    return config._replace(backend_config=own)


def test_order() -> Literal["migrate-first", "flux-first"]:
    """Whether a test database gets Django's migrations first, or flux's.

    Raises `InvalidConfigurationError`.
    """
    order: Any = _flux().get(_TEST_ORDER, "migrate-first")
    if order not in ("migrate-first", "flux-first"):
        raise InvalidConfigurationError(
            f'{_TEST_ORDER} of {SOURCE} must be "migrate-first" or "flux-first", not {order!r}'
        )
    return order  # type: ignore[no-any-return]  # one of the two


def _flux() -> Mapping[str, Any]:
    return _checked(
        getattr(settings, "FLUX", {}), SOURCE, (*_OF_A_DATABASE, _DATABASES, _TEST_ORDER)
    )


def _databases() -> dict[str, Mapping[str, Any]]:
    """The settings that each database has of its own, by alias; empty where none is named."""
    place = f"{_DATABASES} of {SOURCE}"
    given = _checked(_flux().get(_DATABASES, {}), place, tuple(connections))
    return {
        alias: _checked(own, f"{alias} in {place}", _OF_A_DATABASE) for alias, own in given.items()
    }


def _checked(given: object, place: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """What was given, if it is a mapping of known keys."""
    if not isinstance(given, Mapping):
        raise InvalidConfigurationError(
            f"{place} must be a mapping, not {type(given).__name__}",
            hint='for instance {"default": {}}' if place.startswith(_DATABASES) else None,
        )
    if problems := [_unknown(key, place, known) for key in given if key not in known]:
        raise InvalidConfigurationError.of(
            tuple(problems), f"{len(problems)} unknown keys in {place}"
        )
    return given


def _unknown(key: object, place: str, known: tuple[str, ...]) -> Problem:
    if key in _ELSEWHERE:
        hint = f"leave it out: {_ELSEWHERE[str(key)]}"
    else:
        near = nearest(str(key), known)
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"
    return Problem("unknown-key", (), f"unknown key {key!r} in {place}", hint)


def _project_directory(given: Mapping[str, Any]) -> str:
    """The directory that relative paths count from, and migrations import from."""
    if base := getattr(settings, "BASE_DIR", None):
        return str(os.fspath(base))
    directory = given.get("migration_directory", "migrations")
    if isinstance(directory, str | os.PathLike) and os.path.isabs(directory):
        return os.path.dirname(directory)
    raise InvalidConfigurationError(
        f"migration_directory of {SOURCE} must be an absolute path",
        hint="a relative one counts from BASE_DIR, which the settings do not have",
    )
