"""Scratch databases on SQLite: files in a directory of this user's own, and templates beside them.

The directory's name can be foreseen, as templates have to be found again; hence it is used only
where it is this user's, no link, and closed to all others.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Final

from flux import address
from flux.backends.patience import Patience
from flux.backends.sqlite_lock import SideDatabaseLock, lock_path
from flux.exceptions import ScratchDatabaseError
from flux.scratch import (
    BUILDING,
    KEPT_TEMPLATES,
    LEFT_AFTER,
    SCRATCH,
    TEMPLATE,
    ScratchPlace,
    check_key,
    digest,
    made_at,
    new_name,
    pid_in,
)

_ENDING: Final = ".db"
_BESIDE: Final = ("-wal", "-shm", "-journal")
#: The scratch files that this process has made and not yet dropped.
_OURS: set[str] = set()


class SQLiteScratchPlace(ScratchPlace):
    """See `ScratchPlace`. The directory is made when it is entered, and stays."""

    def __init__(self, *, wait: float) -> None:
        """`wait` is how many seconds to wait while another process builds a template."""
        self._wait = wait
        self._directory = ""

    def __enter__(self) -> SQLiteScratchPlace:
        self._directory = _own_directory()
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return

    @property
    def description(self) -> str:
        """The directory, by its path."""
        return f"the directory {self._directory}"

    @property
    def is_near(self) -> bool:
        """Always: files are this machine's own."""
        return True

    # Making and dropping ---------------------------------------------------------------------

    def create(self) -> str:
        """Make an empty scratch database: a file without anything in it."""
        path = self._path(new_name(SCRATCH, time.time()))
        with _reporting("cannot make a scratch database"):
            _make_file(path)
        _OURS.add(path)
        return address.of_sqlite_file(path)

    def drop(self, address_: str) -> None:
        """Remove the file, and what SQLite and flux keep beside it."""
        path = address.sqlite_path(address_)
        folder, name = os.path.split(path)
        if folder != self._directory or not name.startswith(SCRATCH):
            raise ScratchDatabaseError(f"{path} is no scratch database of flux's: it stays")
        with _reporting("cannot drop a scratch database"):
            _remove(path)
        _OURS.discard(path)

    def sweep(self) -> list[str]:
        """Remove what is older than an hour, and neither its maker's process lives nor a writer."""
        latest = time.time() - LEFT_AFTER
        swept = []
        for name in self._names(SCRATCH, BUILDING):
            path = self._path(name)
            try:
                if _changed(path, name) < latest and not _is_in_use(path, name):
                    _remove(path)
                    swept.append(name)
            except OSError:
                continue  # it vanished meanwhile, or is open, on Windows
        return swept

    # Templates -------------------------------------------------------------------------------

    def clone(
        self,
        key: str,
        build: Callable[[str], None],
        *,
        project: str = "",
        keep: int = KEPT_TEMPLATES,
    ) -> str:
        """Copy the template of that key; see `ScratchPlace`."""
        from shutil import copyfile

        check_key(key)
        family = digest(project)
        template = self._path(f"{TEMPLATE}{key}_{family}")
        path = self._path(new_name(SCRATCH, time.time()))
        _OURS.add(path)
        try:
            with _reporting("cannot make a scratch database"):
                _make_file(path)
                while True:
                    try:
                        copyfile(template, path)
                        return address.of_sqlite_file(path)
                    except FileNotFoundError:
                        self._make_template(template, build, family, keep)
        except BaseException:
            with suppress(OSError):
                _remove(path)
            _OURS.discard(path)
            raise

    def _make_template(
        self, template: str, build: Callable[[str], None], family: str, keep: int
    ) -> None:
        with self._alone(template):
            if os.path.exists(template):
                return
            path = self._path(new_name(BUILDING, time.time()))
            _OURS.add(path)
            try:
                _make_file(path)
                build(address.of_sqlite_file(path))
                _close(path)
                os.chmod(path, stat.S_IRUSR)  # to be read alone
                os.replace(path, template)
            finally:
                _remove(path)
                _OURS.discard(path)
            self._drop_old(family, keep)

    def _drop_old(self, family: str, keep: int) -> None:
        paths = [self._path(name) for name in self._names(TEMPLATE) if name.endswith(f"_{family}")]
        with suppress(OSError):
            paths.sort(key=os.path.getmtime, reverse=True)
            for path in paths[keep:]:
                os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # else Windows keeps it
                _remove(path)

    @contextmanager
    def _alone(self, template: str) -> Iterator[None]:
        """Keep other processes from building the same template meanwhile."""
        with closing(SideDatabaseLock(template)) as lock:
            patience = Patience(self._wait)
            while not lock.try_to_acquire():
                if patience.is_over:
                    raise ScratchDatabaseError(
                        f"{lock.describe_holder() or 'another process'} still builds the template "
                        f"{template}, after {patience.waited:.0f} s",
                        hint="wait for it to end, or wait longer: lock_wait in the configuration",
                    )
                patience.pause()
            yield

    # Files -----------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name + _ENDING)

    def _names(self, *prefixes: str) -> list[str]:
        """The databases of flux's with these prefixes, also such of which only a rest is left."""
        with os.scandir(self._directory) as entries:
            names = {
                entry.name.partition(_ENDING)[0]
                for entry in entries
                if entry.name.startswith(prefixes) and _ENDING in entry.name
            }
        return sorted(names)


def _own_directory() -> str:
    """The directory of this user's scratch databases, made where it is not there. Writes."""
    from tempfile import gettempdir

    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows the parent is the user's own
    path = os.path.join(os.path.realpath(gettempdir()), f"flux-scratch-{user}")
    with _reporting("cannot make the directory of scratch databases"):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    is_closed = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or os.name == "nt"
    is_own = stat.S_ISDIR(found.st_mode) and (found.st_uid == user or os.name == "nt")
    if not (is_own and is_closed):
        raise ScratchDatabaseError(
            f"{path} is not a directory of this user's alone, and flux makes no scratch databases "
            "in it",
            hint="remove it, or give it the mode 700; or name another directory by TMPDIR",
        )
    return path


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _remove(path: str) -> None:
    """Remove a database and all that is beside it; the database last."""
    lock = lock_path(path)
    for one in (*(path + ending for ending in _BESIDE), lock, lock + "-journal", path):
        with suppress(FileNotFoundError):
            os.remove(one)


def _changed(path: str, name: str) -> float:
    """When something of a database was written last, or when it was made, in seconds since 1970."""
    times = [made_at(name) or 0.0]
    for one in (path, path + "-wal"):
        with suppress(FileNotFoundError):
            times.append(os.path.getmtime(one))
    return max(times)


def _is_in_use(path: str, name: str) -> bool:
    """Whether the process that made it lives, or another one holds a lock on it."""
    pid = pid_in(name)
    if pid == os.getpid():
        return path in _OURS
    if pid is not None and os.name == "posix" and _lives(pid):
        return True
    if not os.path.exists(path):
        return False
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False  # half of a file
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's, since
        return False
    return True


def _close(path: str) -> None:
    """See that a database is whole in its one file. Raises `ScratchDatabaseError`."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise ScratchDatabaseError(f"cannot make a template: {error}") from error
    for ending in ("-wal", "-journal"):
        if os.path.exists(path + ending):
            raise ScratchDatabaseError(
                "cannot make a template: a connection to the database is still open",
                hint="close what the migrations have opened",
            )


@contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Turn an `OSError` into a `ScratchDatabaseError` that says `what`."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise ScratchDatabaseError(f"{what}: {place}{error.strerror}") from error
