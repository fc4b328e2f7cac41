"""The settings of the PostgreSQL backend, their defaults and their limits. Pure."""

from __future__ import annotations

from flux.backends.postgres_driver import EXTRAS
from flux.config import FluxConfig, TypeOrTypes, check_keys
from flux.exceptions import InvalidConfigurationError, Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SCHEMA = "public"
DEFAULT_TABLE = "_flux_migrations"
DEFAULT_LOCK_ID = 3589  # "flux" on a phone's keypad
DEFAULT_LOCK_TIMEOUT = 5.0
DEFAULT_LOCK_RETRIES = 10
NAME_BYTES = 63  # what the server takes of a name; the rest it cuts off in silence

_TIMES: dict[str, TypeOrTypes] = {
    "lock_timeout": (int, float),
    "statement_timeout": (int, float),
    "lock_retries": int,
}


def read_settings(config: FluxConfig) -> dict[str, Any]:
    """The keyword arguments of a backend. Raises `InvalidConfigurationError`."""
    settings = config.backend_config
    check_keys(
        settings,
        {
            "driver": str,
            "migrations_schema": str,
            "migrations_table": str,
            "migrations_lock_id": int,
            **_TIMES,
        },
        config.path,
    )
    schema = settings.get("migrations_schema", DEFAULT_SCHEMA)
    table = settings.get("migrations_table", DEFAULT_TABLE)
    lock_id = settings.get("migrations_lock_id", DEFAULT_LOCK_ID)
    wrong = None
    if settings.get("driver", "psycopg2") not in EXTRAS:
        names = " or ".join(f'"{name}"' for name in EXTRAS)
        wrong = f"driver in [backend] must be {names}"
    for key, name in (("migrations_schema", schema), ("migrations_table", table)):
        if not 1 <= len(name.encode()) <= NAME_BYTES or "\0" in name:
            wrong = f"{key} in [backend] must be 1 to {NAME_BYTES} bytes of text, "
            wrong += "which is what PostgreSQL takes for a name"
    for key in _TIMES:
        if not 0 <= settings.get(key, 0) < 2**31 / 1000:
            wrong = f"{key} in [backend] must be 0 or more, and less than 2147483"
    if not -(2**63) <= lock_id < 2**63:
        wrong = "migrations_lock_id in [backend] must fit into 64 bits"
    if wrong is not None:
        raise InvalidConfigurationError(
            wrong, location=Location(config.path) if config.path else None
        )
    return {
        "schema": schema,
        "table": table,
        "lock_id": lock_id,
        "lock_wait": config.lock_wait,
        **{key: settings[key] for key in _TIMES if key in settings},
    }
