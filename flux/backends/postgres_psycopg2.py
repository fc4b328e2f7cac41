"""PostgreSQL by psycopg2."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO

import psycopg2
from psycopg2 import extensions

from flux.backends.postgres_driver import Driver, Meanwhile
from flux.exceptions import ConnectionStateError
from flux.interruption import in_thread, uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final


class Psycopg2(Driver):
    """See `Driver`."""

    name: ClassVar[str] = "psycopg2"
    version: ClassVar[str] = psycopg2.__version__.partition(" ")[0]  # type: ignore[attr-defined] # which the stubs lack
    error: ClassVar[type[Exception]] = psycopg2.Error
    address_error: ClassVar[type[Exception]] = psycopg2.ProgrammingError
    attributes: ClassVar[tuple[str, ...]] = ("cursor_factory", "notices", "notifies")
    transaction_attributes: ClassVar[tuple[str, ...]] = (
        "isolation_level",
        "readonly",
        "deferrable",
    )

    def connect(self, address: str, meanwhile: Meanwhile = None, **options: Any) -> Any:
        """A new connection in autocommit, by libpq's address and further parameters of libpq."""
        # libpq waits in it without running Python code, as long as a silent host lets it.
        connection = in_thread(partial(psycopg2.connect, address, **options), meanwhile)
        connection.autocommit = True
        return connection

    def parameters(self, connection: Any) -> dict[str, Any]:
        """The parameters of libpq for one more connection like this one, its password included."""
        info = connection.info
        return {**info.dsn_parameters, "password": info.password}

    def parsed(self, address: str) -> dict[str, Any]:
        """The parameters that an address of libpq's gives."""
        return dict(extensions.parse_dsn(address))

    def check(self, connection: Any) -> None:
        """Raises `ConnectionStateError` where flux cannot use a connection that was handed in."""
        if connection.async_:
            raise ConnectionStateError("this connection is asynchronous, and flux is not")

    def read_only(self, connection: Any) -> bool | None:
        """What the transactions are to be that the driver begins; None where it says nothing."""
        value: bool | None = connection.readonly
        return value

    def cursor(self, connection: Any) -> Any:
        """A cursor that gives plain tuples, of a message's last result."""
        return connection.cursor(cursor_factory=_Cursor)

    def identifier(self, connection: Any, name: str) -> str:
        """A name as an SQL identifier, in quotes."""
        return extensions.quote_ident(name, connection)

    def literal(self, connection: Any, text: str) -> str:
        """A text as an SQL literal."""
        adapted = extensions.adapt(text)
        adapted.prepare(connection)
        return str(adapted.getquoted().decode(extensions.encodings[connection.encoding]))

    def send(
        self, connection: Any, text: str, rows: str | None, hear: Callable[[str], bool]
    ) -> None:
        """Execute one message, in one round trip; `rows` follow a COPY that ends it."""
        data = (rows or "").encode(extensions.encodings[connection.encoding])
        kept = connection.notices
        connection.notices = told = deque[str]()

        def execute() -> None:
            with self.cursor(connection) as cursor:
                if rows is None:
                    cursor.execute(text)
                else:
                    cursor.copy_expert(text, BytesIO(data))

        try:
            # The driver decodes the notices once the message has ended, and swallows what is raised
            # meanwhile.
            uninterrupted(execute)
        finally:
            connection.notices = kept
            others = [notice for notice in told if not hear(notice)]
            for notice in others:
                kept.append(notice)
            if others and type(kept) is list:
                del kept[:-50]  # as the driver keeps its own

    @contextmanager
    def lending(self, connection: Any) -> Iterator[None]:
        """Have a migration's own code use a connection, and keep the driver's encoding."""
        encoding = connection.encoding
        try:
            yield
        finally:
            if not connection.closed:
                # Where it is another one, this ends the transaction, as setting it did before.
                connection.set_client_encoding(encoding)

    def words(self, error: BaseException) -> str:
        """What an error says that has nothing from the server in it: libpq's own words."""
        return str(error).strip()


class _Cursor(extensions.cursor):
    """A cursor that reads flux's own queries, whatever types the connection was given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for one in _TYPES:
            extensions.register_type(one, self)


_TYPES: Final[tuple[Any, ...]] = (
    extensions.BOOLEAN,
    extensions.FLOAT,
    extensions.INTEGER,
    extensions.LONGINTEGER,
    extensions.UNICODE,
)


DRIVER: Final = Psycopg2()
