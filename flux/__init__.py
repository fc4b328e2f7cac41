"""flux: database migrations for Python projects.

The public names are listed in `__all__`; each is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers see it, True; `typing` takes long to import
if TYPE_CHECKING:
    from flux.backends.base import MigrationBackend
    from flux.config import FluxConfig
    from flux.migration import AppliedMigration, Migration
    from flux.runner import FluxRunner, apply

__version__ = "0.1.0"

__all__ = [
    "AppliedMigration",
    "FluxConfig",
    "FluxRunner",
    "Migration",
    "MigrationBackend",
    "apply",
]

_HOMES = {
    "AppliedMigration": "flux.migration",
    "FluxConfig": "flux.config",
    "FluxRunner": "flux.runner",
    "Migration": "flux.migration",
    "MigrationBackend": "flux.backends.base",
    "apply": "flux.runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'flux' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
