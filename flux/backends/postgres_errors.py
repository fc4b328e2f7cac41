"""What PostgreSQL's errors say: which statement failed, what it means to flux, what may help."""

from __future__ import annotations

from flux.backends.postgres_driver import Driver
from flux.backends.postgres_lock import FENCE_LOST, HISTORY_CHANGED, LOCK_BUSY, LOCK_LOST
from flux.backends.signals import (
    ErrorReport,
    HistoryChangedError,
    LockLostError,
    StatementError,
    TransactionEndedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.backends.postgres_message import Message

#: SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html).
UNDEFINED_TABLE = "42P01"
INSUFFICIENT_PRIVILEGE = "42501"
LOCK_NOT_AVAILABLE = "55P03"
_INVALID_TEXT_REPRESENTATION = "22P02"

NO_TRANSACTION_HINT = "run the whole file without a transaction: -- flux: no-transaction"
#: What flux says, also where the server gives a hint, by SQLSTATE.
_HINTS = {
    "2D000": NO_TRANSACTION_HINT,  # invalid_transaction_termination
    "25001": NO_TRANSACTION_HINT,  # active_sql_transaction
    "25006": "this server is a standby, or the user's transactions are read-only: "
    "give the address of the primary",  # read_only_sql_transaction
    "55P04": "put the ALTER TYPE … ADD VALUE into a migration of its own, before this one; "
    "a new value can be used only when it is committed",  # unsafe_new_enum_value_usage
    "53200": "a migration locks more objects than the server has room for: split it, or raise "
    "max_locks_per_transaction",  # out_of_memory
}


_ENCODING_HINT = "hand in a connection whose client_encoding is UTF8"


class InvalidIndexError(Exception):
    """A statement ended well, and the index that it was for is INVALID: `path`, as SQL has it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the index {path} is INVALID: an earlier attempt left it, and the server does not use "
            "it"
        )
        self.path = path


class EncodingError(Exception):
    """A text holds a character that the encoding of the connection does not have."""

    def __init__(self, error: UnicodeEncodeError) -> None:
        character = error.object[error.start]
        super().__init__(
            f"the character {character} (U+{ord(character):04X}) cannot be sent: "
            f"the connection's encoding, {error.encoding}, does not have it"
        )


def sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of a driver's error; None where the server has given none."""
    code: str | None = getattr(getattr(error, "diag", None), "sqlstate", None)
    return code


def report(error: BaseException, driver: Driver) -> ErrorReport:
    """The server's message, detail and hint; or a hint of flux's own."""
    if isinstance(error, InvalidIndexError):
        way_out = f"drop it, and apply again: DROP INDEX CONCURRENTLY {error.path}"
        return ErrorReport(str(error), None, way_out)
    if isinstance(error, EncodingError):
        return ErrorReport(str(error), None, _ENCODING_HINT)
    if not isinstance(error, driver.error):
        return ErrorReport(str(error).strip() or type(error).__name__)
    diag: Any = getattr(error, "diag", None)  # which every error of both drivers has
    message = diag.message_primary or " ".join(driver.words(error).split()) or type(error).__name__
    detail = "; ".join(filter(None, [diag.message_detail, diag.context]))
    hint = _HINTS.get(diag.sqlstate or "") or diag.message_hint
    return ErrorReport(message, detail.replace("\n", "; ") or None, hint)


def statement_error(
    error: Any, message: Message, total: int, reached: int | None
) -> StatementError:
    """Which statement failed: by the server's position, else by the marker before it.

    `error` is a driver's.
    """
    from flux.backends.postgres_message import segment_at

    position = error.diag.statement_position
    segment = segment_at(message, int(position)) if position else None
    if segment is not None and position is not None:
        offset = segment.statement.start + int(position) - 1 - segment.start
        return StatementError(offset=offset, exact=True, number=segment.number, total=total)
    for candidate in message.segments:
        if candidate.number == reached:
            return StatementError(
                offset=candidate.statement.start, exact=False, number=reached, total=total
            )
    return StatementError(offset=None, exact=False, number=None, total=total)


def encoding_error(error: UnicodeEncodeError, message: Message, total: int) -> StatementError:
    """Which statement, and where in it, has a character that cannot be sent."""
    from flux.backends.postgres_message import segment_at

    failure = StatementError(offset=None, exact=False, number=None, total=total)
    if error.object == message.text and (segment := segment_at(message, error.start + 1)):
        offset = segment.statement.start + error.start - segment.start
        failure = StatementError(offset=offset, exact=True, number=segment.number, total=total)
    elif error.object == message.rows:
        [*_, (_, statement, number)] = message.segments
        failure = StatementError(offset=statement.start, exact=False, number=number, total=total)
    failure.__cause__ = EncodingError(error)
    return failure


def meaning(error: Exception) -> Exception:
    """What an error means to the runner, where it is one that flux raised on purpose."""
    cause: Any = error.__cause__ if isinstance(error, StatementError) else error
    is_in_script = isinstance(error, StatementError) and error.number is not None
    if is_in_script or sqlstate(cause) != _INVALID_TEXT_REPRESENTATION:
        return error
    text = cause.diag.message_primary or ""
    if HISTORY_CHANGED in text or LOCK_BUSY in text:
        return HistoryChangedError()
    if LOCK_LOST in text:
        return LockLostError()
    if FENCE_LOST in text:
        return TransactionEndedError()
    return error
