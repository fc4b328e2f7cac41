"""What runs: the versions of flux, of Python, and of the drivers that are installed.

Nothing is imported that a broken driver could fail at: the versions are those of the packages.
"""

from __future__ import annotations

from flux import __version__

#: The packages in which the drivers come, and what each driver is called.
_DRIVERS = {
    "psycopg2": "psycopg2",
    "psycopg2-binary": "psycopg2",
    "psycopg": "psycopg",
}


def describe() -> str:
    """One line, as for instance `flux 0.1.0 (Python 3.11.2, SQLite 3.40.1, psycopg2 2.9.10)`."""
    from platform import python_version

    return f"flux {__version__} ({', '.join([f'Python {python_version()}', *_drivers()])})"


def _drivers() -> list[str]:
    from importlib.metadata import version

    found = []
    try:
        from sqlite3 import sqlite_version

        found.append(f"SQLite {sqlite_version}")
    except ImportError:
        pass  # a Python that was built without it
    for package, driver in _DRIVERS.items():
        try:
            found.append(f"{driver} {version(package)}")
        except Exception:  # noqa: S112 - it is not installed, or what describes it is broken
            continue
    return found
