"""Scratch databases: throw-away ones, made to prove something in. What backends have in common.

Each has a name by which flux knows its own, and says in its comment who made it and when. It is
dropped at the end, also after an error; what a crash left is swept up by the next run, when it is
older than an hour and nobody uses it. Templates stay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from flux.fingerprint import Fingerprint

#: What the names of scratch databases, and of templates, begin with.
SCRATCH, TEMPLATE = "flux_scratch_", "flux_template_"
#: Seconds after which a scratch database that nobody uses was left by a crash.
LEFT_AFTER = 3600.0


class ScratchPlace(ABC):
    """Where scratch databases are made: a server, or a directory. A context manager.

    Addresses are as the backend's `from_config` takes them; they may hold a password.
    """

    @abstractmethod
    def __enter__(self) -> ScratchPlace:
        """Connect; raises `DatabaseUnavailableError`."""

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
        """Drop a scratch database that `create` or `clone` made, whoever is connected to it."""

    @abstractmethod
    def sweep(self) -> list[str]:
        """Drop what was left by a crash; the names of what was dropped."""

    @abstractmethod
    def clone(self, key: str, build: Callable[[str], None]) -> str:
        """Make a scratch database as the template of that key is; its address.

        Where there is no such template, one process makes an empty database, calls `build` with
        its address and makes it the template; the others wait. Raises `ScratchDatabaseError`, and
        what `build` raises.
        """

    def beyond(self) -> Fingerprint:
        """What a statement in a scratch database can change outside of it, such as roles."""
        return Fingerprint()

    @contextmanager
    def database(self) -> Iterator[str]:
        """An empty scratch database until the block ends; its address."""
        address = self.create()
        try:
            yield address
        finally:
            self.drop(address)
