"""Scratch databases: throw-away ones, made to prove something in. What backends have in common.

Each has a name by which flux knows its own, and which tells when it was made; where the database
has comments, its own says who made it and when. It is dropped at the end, also after an error;
what a crash left is swept up by the next run, when it is older than an hour and nobody uses it.
Templates stay, but for the oldest of a project.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from flux.exceptions import FluxMigrationException, Problem
from flux.fingerprint import Fingerprint
from flux.migration import Script
from flux.statements import Dialect, SplitError, Statement, split

#: What the names of scratch databases begin with, and of templates, and of what becomes one.
SCRATCH, TEMPLATE, BUILDING = "flux_scratch_", "flux_template_", "flux_building_"
#: Seconds after which a scratch database that nobody uses was left by a crash.
LEFT_AFTER: Final = 3600.0
#: How many templates of one project stay when a new one is made.
KEPT_TEMPLATES: Final = 5

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME: Final = re.compile(
    rf"(?:{SCRATCH}|{BUILDING})(?P<made>[0-9a-z]{{1,10}})_(?P<pid>\d+)_[0-9a-f]+"
)


class ScratchPlace(ABC):
    """Where scratch databases are made: a server, or a directory. A context manager.

    Addresses are as the backend's `from_config` takes them; they may hold a password.
    """

    @abstractmethod
    def __enter__(self) -> ScratchPlace:
        """Connect; raises `DatabaseUnavailableError`, or `ScratchDatabaseError`."""

    @abstractmethod
    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The place in words, without any secret: `the server at db.example.com`."""

    @property
    @abstractmethod
    def is_near(self) -> bool:
        """Whether it is this machine's own: a file, a socket, a loopback address."""

    @abstractmethod
    def create(self) -> str:
        """Make an empty scratch database; its address. Raises `ScratchDatabaseError`."""

    @abstractmethod
    def drop(self, address: str) -> None:
        """Drop a scratch database that `create` or `clone` made, whoever is connected to it.

        Raises `ScratchDatabaseError`, also where it is none of flux's.
        """

    @abstractmethod
    def sweep(self) -> list[str]:
        """Drop what was left by a crash; the names of what was dropped."""

    @abstractmethod
    def clone(
        self,
        key: str,
        build: Callable[[str], None],
        *,
        project: str = "",
        keep: int = KEPT_TEMPLATES,
    ) -> str:
        """Make a scratch database as the template of that key is; its address.

        Where there is no such template, one process makes an empty database, calls `build` with
        its address and makes it the template; the others wait. `key` is of small letters and
        digits, at most 40. When one is built, the `keep` newest of the `project` stay.

        Raises `ScratchDatabaseError`, and what `build` raises.
        """

    def beyond(self) -> Fingerprint:
        """What a statement in a scratch database can change outside of it, such as roles."""
        return Fingerprint()

    #: Told of what goes wrong and ends nothing; a program puts its own in place of it.
    announce: Callable[[str], None] = staticmethod(lambda _: None)

    def discard(self, address: str) -> None:
        """Drop a scratch database; where that cannot be, say so, and leave it to a later sweep."""
        try:
            self.drop(address)
        except FluxMigrationException as error:
            self.announce(f"{error.message}; a later run drops it")

    @contextmanager
    def database(self) -> Iterator[str]:
        """An empty scratch database until the block ends; its address."""
        address = self.create()
        try:
            yield address
        finally:
            self.discard(address)


# Names --------------------------------------------------------------------------------------


def new_name(prefix: str, now: float) -> str:
    """A name of its own: `flux_scratch_t5y8qk_4711_1f0c9a3e`. `now` is in seconds since 1970."""
    return f"{prefix}{_base36(int(now))}_{os.getpid()}_{os.urandom(4).hex()}"


def made_at(name: str) -> float | None:
    """When a database of this name was made, in seconds since 1970; None for no name of flux's."""
    match = _NAME.fullmatch(name)
    return float(int(match["made"], 36)) if match else None


def pid_in(name: str) -> int | None:
    """The process that made a database of this name; None for no name of flux's."""
    match = _NAME.fullmatch(name)
    return int(match["pid"]) if match else None


def check_key(key: str) -> None:
    """Raise `ValueError` for a key that cannot stand in the name of a template."""
    if not re.fullmatch(r"[0-9a-z]{1,40}", key):
        raise ValueError(f"a key is of at most 40 small letters and digits, not {key!r}")


def digest(*texts: str) -> str:
    """Eight hexadecimal digits that stand for these texts in a name."""
    from hashlib import sha256

    return sha256("\0".join(texts).encode()).hexdigest()[:8]


def owner() -> str:
    """Who makes scratch databases: `alice@laptop, pid 4711`."""
    from getpass import getuser
    from socket import gethostname

    try:
        user = getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in some containers
        user = "?"
    return f"{user}@{gethostname()}, pid {os.getpid()}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def reaching(
    script: Script,
    dialect: Dialect,
    reach_of: Callable[[str], str | None],
    *,
    to: str,
    hint: str,
) -> list[Problem]:
    """A problem for each statement of a script of which `reach_of` says what reaches out. Pure."""
    try:
        pieces = split(script.text or "", dialect)
    except SplitError:
        return []  # which is told elsewhere
    return [
        Problem(
            "reaches-beyond",
            (),
            f"{what} reaches beyond the database, to {to}",
            hint,
            script.location(piece.start),
        )
        for piece in pieces
        if isinstance(piece, Statement) and (what := reach_of(piece.text))
    ]
