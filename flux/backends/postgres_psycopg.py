"""PostgreSQL by psycopg 3.

Without parameters it sends a message as it is, by the simple query protocol. The server must not
prepare what flux sends: behind a pooler, the next message may go to another session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import psycopg
from psycopg import conninfo, pq
from psycopg.abc import AdaptContext, Buffer
from psycopg.abc import Loader as AbcLoader
from psycopg.adapt import Loader
from psycopg.errors import error_from_result
from psycopg.rows import tuple_row
from psycopg.types.bool import BoolLoader
from psycopg.types.numeric import FloatLoader, IntLoader

from flux.backends.postgres_driver import Driver, Meanwhile
from flux.exceptions import ConnectionStateError


class Psycopg(Driver):
    """See `Driver`."""

    name: ClassVar[str] = "psycopg"
    version: ClassVar[str] = psycopg.__version__.partition(" ")[0]
    error: ClassVar[type[Exception]] = psycopg.Error
    address_error: ClassVar[type[Exception]] = psycopg.ProgrammingError
    attributes: ClassVar[tuple[str, ...]] = (
        "row_factory",
        "cursor_factory",
        "server_cursor_factory",
        "prepare_threshold",
        "prepared_max",
    )
    transaction_attributes: ClassVar[tuple[str, ...]] = (
        "isolation_level",
        "read_only",
        "deferrable",
    )

    def connect(self, address: str, meanwhile: Meanwhile = None, **options: Any) -> Any:
        """A new connection in autocommit, by libpq's address and further parameters of libpq."""
        # It waits in Python, and so can be interrupted; `meanwhile` would need a thread of its own.
        return psycopg.connect(address, autocommit=True, prepare_threshold=None, **options)

    def parameters(self, connection: Any) -> dict[str, Any]:
        """The parameters of libpq for one more connection like this one, its password included."""
        info = connection.info
        return {**info.get_parameters(), "password": info.password}

    def parsed(self, address: str) -> dict[str, Any]:
        """The parameters that an address of libpq's gives."""
        return dict(conninfo.conninfo_to_dict(address))

    def check(self, connection: Any) -> None:
        """Raises `ConnectionStateError` where flux cannot use a connection that was handed in."""
        if isinstance(connection, psycopg.AsyncConnection):
            raise ConnectionStateError("this connection is asynchronous, and flux is not")
        if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            raise ConnectionStateError(
                "this connection is in pipeline mode, in which a message is one statement",
                hint="leave the block of connection.pipeline() before handing it to flux",
            )

    def read_only(self, connection: Any) -> bool | None:
        """What the transactions are to be that the driver begins; None where it says nothing."""
        value: bool | None = connection.read_only
        return value

    def cursor(self, connection: Any) -> Any:
        """A cursor that gives plain tuples, of a message's last result; it prepares nothing."""
        cursor = _Cursor(connection, row_factory=tuple_row)
        for type_name, loader in _LOADERS.items():
            cursor.adapters.register_loader(type_name, loader)
        return cursor

    def identifier(self, connection: Any, name: str) -> str:
        """A name as an SQL identifier, in quotes."""
        encoding = connection.info.encoding
        escaping = pq.Escaping(connection.pgconn)
        return str(escaping.escape_identifier(name.encode(encoding)), encoding)

    def literal(self, connection: Any, text: str) -> str:
        """A text as an SQL literal."""
        encoding = connection.info.encoding
        escaping = pq.Escaping(connection.pgconn)
        return str(escaping.escape_literal(text.encode(encoding)), encoding)

    def send(
        self, connection: Any, text: str, rows: str | None, hear: Callable[[str], bool]
    ) -> None:
        """Execute one message, in one round trip; `rows` follow a COPY that ends it."""
        pgconn = connection.pgconn
        kept = pgconn.notice_handler

        interruptions: list[BaseException] = []

        def take(notice: pq.abc.PGresult) -> None:
            try:
                if not hear(str(notice.error_message, "utf-8", "replace")):
                    kept(notice)
            except BaseException as error:  # which the driver would swallow
                interruptions.append(error)

        pgconn.notice_handler = take
        try:
            if rows is None:
                with self.cursor(connection) as cursor:
                    cursor.execute(text)
            else:
                _copy(connection, text, rows)
        finally:
            pgconn.notice_handler = kept
            if interruptions:
                raise interruptions[0]

    def kept(self, connection: Any) -> dict[str, Any]:
        """What the driver keeps for a connection, as `put_back` takes it. Asks no server."""
        handlers = {name: [*getattr(connection, name)] for name in _HANDLERS}
        return {**super().kept(connection), **handlers}

    def put_back(self, connection: Any, kept: dict[str, Any]) -> None:
        """Have the driver's part in an idle connection as it was; it is in autocommit then."""
        for name in _HANDLERS:
            getattr(connection, name)[:] = kept[name]
        super().put_back(connection, kept)

    @contextmanager
    def lending(self, connection: Any) -> Iterator[None]:
        """Have a migration's own code use a connection, and leave nothing prepared behind it."""
        before = connection.prepare_threshold
        connection.prepare_threshold = None
        try:
            yield
        finally:
            connection.prepare_threshold = before

    def words(self, error: BaseException) -> str:
        """What an error says that has nothing from the server in it: libpq's own words."""
        text = str(error).strip()
        # For several hosts the driver says what of the last one, and then what of each.
        each = (text.partition(_SEVERAL)[2] or text).split("\n- ")
        return "\n".join(_PREFIX.sub("", _HOST.sub("", one)) for one in each)


#: Lists of functions that are called with notices and notifications. The driver adds to them and
#: takes from them, and has no public way to read them.
_HANDLERS: Final = ("_notice_handlers", "_notify_handlers")
_SEVERAL: Final = "\nMultiple connection attempts failed. All failures were:\n- "
_HOST: Final = re.compile(r"^host: .*?, port: .*?, hostaddr: (?:'[^']*'|None): ")
#: What the driver writes before libpq's words.
_PREFIX = re.compile(r"^(?:[a-z ]+ failed|connection is bad): ")


class _Cursor(psycopg.Cursor[Any]):
    """A cursor that prepares nothing, and goes on to the last result of a message."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> _Cursor:
        """Execute a message."""
        super().execute(query, params, prepare=False, **options)
        while self.nextset():
            pass
        return self


class _TextLoader(Loader):
    """Texts as `str`, also where the session has no encoding and the driver gives bytes."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        encoding = self.connection.info.encoding if self.connection is not None else "ascii"
        self._encoding = "utf-8" if encoding == "ascii" else encoding

    def load(self, data: Buffer) -> str:
        """The text of a value."""
        return str(data, self._encoding)


#: What flux's own queries give, whatever the application has its connection read such types as.
_LOADERS: Final[dict[str, type[AbcLoader]]] = {
    "bool": BoolLoader,
    "float8": FloatLoader,
    "int4": IntLoader,
    "int8": IntLoader,
    "name": _TextLoader,
    "text": _TextLoader,
    "varchar": _TextLoader,
}


def _copy(connection: Any, text: str, rows: str) -> None:
    """Execute a message that a COPY ends. The driver's own `copy` takes no more than a COPY."""
    pgconn, encoding = connection.pgconn, connection.info.encoding
    data = rows.encode(encoding)
    result = pgconn.exec_(text.encode(encoding))
    if result.status == pq.ExecStatus.COPY_IN:
        pgconn.nonblocking = 0  # libpq waits until it has sent all
        try:
            pgconn.put_copy_data(data)
            pgconn.put_copy_end()
            while (one := pgconn.get_result()) is not None:
                result = one
        finally:
            if not connection.closed:
                pgconn.nonblocking = 1
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise error_from_result(result, encoding)


DRIVER: Final = Psycopg()
