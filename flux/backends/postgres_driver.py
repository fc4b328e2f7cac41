"""The drivers for PostgreSQL: what the other rooms ask of one, and which one it is.

Only `postgres_psycopg2` and `postgres_psycopg` import a driver, each its own, and only when it is
chosen.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from flux.exceptions import BackendNotInstalledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final, TypeAlias

#: The drivers as `driver` in `[backend]` names them, the preferred one first, and what of
#: flux-migrations installs each.
EXTRAS: Final = {"psycopg2": "postgres", "psycopg": "psycopg"}
#: What is called while a driver waits for a server, if anything is.
Meanwhile: TypeAlias = "Callable[[], None] | None"
#: What a driver imports and has no use for. psycopg2 has `ssl` set up what OpenSSL needed before
#: 1.1; that takes half the time of its import, and libpq does it by itself (PQinitOpenSSL).
_NEEDLESS: Final = {"psycopg2": "ssl"}
IDLE: Final = 0  # PQTRANS_IDLE of libpq, in both drivers: no transaction is open


class Driver(ABC):
    """What differs between the drivers. The connections are the drivers' own.

    What their connections have in common is used as it is: `autocommit`, `closed`, `commit`,
    `rollback`, `cancel`, `close`, `fileno`, and `info` with `transaction_status` and
    `backend_pid`; and `diag` of an error.

    `error` is the root of the driver's exceptions, `address_error` is for an address that does
    not parse.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    error: ClassVar[type[Exception]]
    address_error: ClassVar[type[Exception]]
    #: What code may set of a connection; the latter while no transaction is open.
    attributes: ClassVar[tuple[str, ...]]
    transaction_attributes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def connect(self, address: str, meanwhile: Meanwhile = None, **options: Any) -> Any:
        """A new connection in autocommit, by libpq's address and further parameters of libpq.

        `meanwhile` may be called while it waits for the server; it does not raise.
        """

    @abstractmethod
    def parameters(self, connection: Any) -> dict[str, Any]:
        """The parameters of libpq for one more connection like this one, its password included."""

    @abstractmethod
    def parsed(self, address: str) -> dict[str, Any]:
        """The parameters that an address of libpq's gives."""

    @abstractmethod
    def check(self, connection: Any) -> None:
        """Raises `ConnectionStateError` where flux cannot use a connection that was handed in."""

    @abstractmethod
    def read_only(self, connection: Any) -> bool | None:
        """What the transactions are to be that the driver begins; None where it says nothing."""

    @abstractmethod
    def cursor(self, connection: Any) -> Any:
        """A cursor that gives plain tuples, of a message's last result.

        Whatever factories the connection has; and what it executes is never prepared.
        """

    @abstractmethod
    def identifier(self, connection: Any, name: str) -> str:
        """A name as an SQL identifier, in quotes."""

    @abstractmethod
    def literal(self, connection: Any, text: str) -> str:
        """A text as an SQL literal."""

    @abstractmethod
    def send(
        self, connection: Any, text: str, rows: str | None, hear: Callable[[str], bool]
    ) -> None:
        """Execute one message, in one round trip; `rows` follow a COPY that ends it.

        `hear` is called with each notice as it comes. What it returns False for goes to where the
        connection's notices go.
        """

    @abstractmethod
    def lending(self, connection: Any) -> AbstractContextManager[None]:
        """Have a migration's own code use a connection, with what rules flux's next message.

        For SQL the session's settings are restored; this is for what the driver itself keeps.
        What else the code has set, `put_back` puts back when its transaction has ended.
        """

    @abstractmethod
    def words(self, error: BaseException) -> str:
        """What an error says that has nothing from the server in it: libpq's own words."""

    def kept(self, connection: Any) -> dict[str, Any]:
        """What the driver keeps for a connection, as `put_back` takes it. Asks no server."""
        names = (*self.attributes, *self.transaction_attributes)
        return {name: getattr(connection, name) for name in names}

    def put_back(self, connection: Any, kept: dict[str, Any]) -> None:
        """Have the driver's part in an idle connection as it was; it is in autocommit then."""
        names = (*self.attributes, *self.transaction_attributes)
        changed = [name for name in names if getattr(connection, name) is not kept[name]]
        if not set(changed).isdisjoint(self.transaction_attributes):
            connection.autocommit = False  # in autocommit, psycopg2 would set the session's own
        for name in changed:
            setattr(connection, name, kept[name])
        connection.autocommit = True

    @contextmanager
    def borrowing(self, connection: Any) -> Iterator[None]:
        """Have a connection that was handed in in autocommit, and then as it was."""
        before = connection.autocommit
        connection.autocommit = True
        try:
            with self._keeping_read_only(connection):
                yield
        finally:
            if not connection.closed:
                connection.autocommit = before

    @contextmanager
    def _keeping_read_only(self, connection: Any) -> Iterator[None]:
        """Have `read_only` hold for flux's transactions, too: a driver says it in its own BEGIN."""
        value = self.read_only(connection)
        if value is None:
            yield
            return
        name = "default_transaction_read_only"
        with self.cursor(connection) as cursor:
            cursor.execute(
                "SELECT CASE source WHEN 'session' THEN setting ELSE 'DEFAULT' END "
                f"FROM pg_catalog.pg_settings WHERE name = '{name}'"
            )
            [(before,)] = cursor.fetchall()
            cursor.execute(f"SET {name} = {value}")
        try:
            yield
        finally:
            if not connection.closed:
                with self.cursor(connection) as cursor:
                    cursor.execute(f"SET {name} = {before}")


def is_plain(text: str) -> bool:
    """Whether there is nothing to quote in a text, as in most ids and in all hashes. Pure."""
    return text.isascii() and f"_{text}".replace("-", "_").isidentifier()


def require_one() -> None:
    """Look whether a driver is installed; imports none. Raises `ImportError`."""
    if _first_installed() is None:
        raise ImportError(f"No module named {' or '.join(map(repr, EXTRAS))}")


def choose(name: str | None) -> Driver:
    """The driver of that name, or the first of those that are installed.

    Raises `BackendNotInstalledError`.
    """
    name = name or _first_installed() or next(iter(EXTRAS))
    try:
        with _without(_NEEDLESS.get(name)):
            # Not importlib's function, whose import takes longer than this.
            room = __import__(f"flux.backends.postgres_{name}", fromlist=["DRIVER"])
    except Exception as error:  # a broken driver may raise anything
        raise BackendNotInstalledError(
            f"the driver {name} cannot be imported: {error}",
            hint=f'pip install "flux-migrations[{EXTRAS[name]}]"',
        ) from error
    driver: Driver = room.DRIVER
    return driver


@contextmanager
def _without(module: str | None) -> Iterator[None]:
    """Have imports of a module fail, where no other thread could notice."""
    if module is None or module in sys.modules or len(sys._current_frames()) > 1:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]


def driver_of(connection: Any) -> Driver:
    """The driver that a connection is of."""
    modules = [base.__module__.partition(".")[0] for base in type(connection).__mro__]
    return choose(next(name for name in EXTRAS if name in modules))


def _first_installed() -> str | None:
    return next(filter(_is_installed, EXTRAS), None)


def _is_installed(module: str) -> bool:
    """What importlib.util tells, whose own import takes longer than to ask."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return module in sys.modules or any(finder.find_spec(module, None) for finder in finders)
