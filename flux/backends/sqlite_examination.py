"""Examining a SQLite database for `flux doctor`: the library, the file, what lies beside it.

Reads only: no file is created, and no lock is taken but what every reader takes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from flux.address import redact
from flux.backends.sqlite_lock import lock_path
from flux.findings import Finding, ok, problem, warning

#: The oldest SQLite that flux is meant for, of January 2020.
OLDEST = (3, 31)
#: Up to this size a file is read through to see whether it is whole: bytes.
CHECKED_UP_TO = 64 * 2**20
_MEMORY = ":memory:"
_RESERVED_BYTE = str(0x40000000 + 1)


def examine(path: str, fetch: Callable[[str], list[Any]]) -> list[Finding]:
    """Everything about the database at `path`, whose rows `fetch` gives. Read-only."""
    found = [*describe_library(sqlite3.sqlite_version_info)]
    if path == _MEMORY:
        return [*found, warning("file", "a database in memory is gone when flux ends", None)]
    found += _examine_rights(path)
    if os.path.exists(path):
        found += [*_examine_content(path, fetch), *_examine_lock(path)]
    return found


def describe_library(version: tuple[int, ...]) -> list[Finding]:
    """What the version of the library means. Pure."""
    name = "SQLite " + ".".join(map(str, version))
    if version[:2] < OLDEST:
        return [
            warning(
                "server",
                f"{name} is older than {OLDEST[0]}.{OLDEST[1]}, and flux is not meant for it",
                "a newer Python, or a newer system, brings a newer SQLite",
            )
        ]
    return [ok("server", name)]


def _examine_rights(path: str) -> list[Finding]:
    folder = os.path.dirname(os.path.abspath(path))
    found = []
    if not os.access(folder, os.W_OK):
        found.append(
            problem(
                "rights",
                f"this user may not write the directory {folder}, in which SQLite keeps its "
                "journal and flux its lock",
                "give the user the right to, or use another directory",
            )
        )
    if not os.path.exists(path):
        return found or [ok("file", f"{redact(path)} is not there yet; `flux apply` creates it")]
    for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal", lock_path(path)):
        if os.path.exists(name) and not os.access(name, os.W_OK):
            found.append(
                problem(
                    "rights",
                    f"this user may not write {redact(name)}",
                    "whoever runs migrations must be able to: give the file to that user, or run "
                    "flux as its owner",
                )
            )
    return found or [ok("rights", "the file and its directory can be written")]


def _examine_content(path: str, fetch: Callable[[str], list[Any]]) -> list[Finding]:
    [(mode,)] = fetch("PRAGMA journal_mode")
    size = os.path.getsize(path)
    if size > CHECKED_UP_TO:
        return [ok("file", f"journal mode {mode}; too large to be read through here")]
    errors = [text for (text,) in fetch("PRAGMA quick_check(3)") if text != "ok"]
    if errors:
        return [
            problem(
                "file",
                "it is damaged: " + "; ".join(errors),
                "restore it from a backup; https://sqlite.org/recovery.html tells what else helps",
            )
        ]
    found = [ok("file", f"whole; journal mode {mode}")]
    tables = sorted({row[0] for row in fetch("PRAGMA foreign_key_check")})
    if tables:
        found.append(
            warning(
                "file",
                f"rows of {', '.join(tables)} refer to rows that are not there",
                "PRAGMA foreign_key_check lists them; flux only holds new ones against a migration",
            )
        )
    return found


def _examine_lock(path: str) -> list[Finding]:
    """Who has the lock, or, where that cannot be told without taking it, who took it last."""
    lock = lock_path(path)
    if not os.path.exists(lock):
        return [ok("lock", "nobody has taken it yet")]
    uri = "file:" + lock.replace("%", "%25").replace("?", "%3F").replace("#", "%23") + "?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            row = connection.execute("SELECT name, since FROM holder").fetchone()
    except sqlite3.Error:
        return [ok("lock", f"{lock} is being written just now")]
    if row is None:
        return [ok("lock", "nobody has taken it yet")]
    if _is_held(lock):
        return [
            warning(
                "lock",
                f"{row[0]}, since {row[1]} UTC, is running migrations on this database now",
                "`flux apply` waits for it, for up to `lock_wait` seconds",
            )
        ]
    return [ok("lock", f"last taken by {row[0]}, at {row[1]} UTC")]


def _is_held(lock: str) -> bool:
    """Whether a process has SQLite's RESERVED lock on a file, where Linux tells of locks.

    SQLite's own file is not opened: to close it would free a lock of this process
    (https://sqlite.org/howtocorrupt.html, 2.2). That lock is on one byte
    (https://sqlite.org/src/doc/trunk/src/os.h, RESERVED_BYTE).
    """
    try:
        with open("/proc/locks", encoding="ascii") as file:
            lines = file.read().split("\n")
        inode = str(os.stat(lock).st_ino)
    except OSError:
        return False
    return any(
        place.rpartition(":")[2] == inode and first == _RESERVED_BYTE
        for *_, place, first, _last in (line.split() for line in lines if line)
    )
