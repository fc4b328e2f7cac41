"""Reading fingerprints in tests: what a database holds now, and what differs, in short words."""

from __future__ import annotations

from pathlib import Path

from flux import FluxConfig
from flux.backends.postgres import PostgresBackend
from flux.backends.sqlite import SQLiteBackend
from flux.fingerprint import Fingerprint, compare
from tests import driver


def postgres_backend(url: str) -> PostgresBackend:
    """The backend for a database, by the driver that is tested; to be opened."""
    config = FluxConfig(backend="postgres", backend_config={"driver": driver.NAME})
    return PostgresBackend.from_config(config, url)


def postgres_fingerprint(url: str) -> Fingerprint:
    """What a PostgreSQL database holds."""
    backend = postgres_backend(url)
    with backend.opened():
        return backend.fingerprint()


def sqlite_fingerprint(path: Path) -> Fingerprint:
    """What a SQLite file holds."""
    backend = SQLiteBackend(str(path))
    with backend.opened():
        return backend.fingerprint()


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What differs, each as `changed column a`."""
    return [f"{one.kind} {one.item.label}" for one in compare(before, after)]
