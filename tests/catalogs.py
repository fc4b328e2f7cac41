"""Reading fingerprints in tests: what a database holds now, and what differs, in short words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def taken_back(backend: PostgresBackend) -> Iterator[Callable[[str], None]]:
    """A transaction that is rolled back; what is given runs SQL in it, in the schema `public`."""

    def run(sql: str) -> None:
        # A fingerprint sets another path, which in a transaction stays.
        backend.run_sql(f"SET LOCAL search_path = public;\n{sql}")

    backend.run_sql("BEGIN")
    try:
        yield run
    finally:
        backend.run_sql("ROLLBACK")


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
