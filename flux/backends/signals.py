"""What a backend raises for the runner, which alone turns it into what a user is told."""

from __future__ import annotations

from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.journal import Entry
    from flux.statements import Statement


class HistoryChangedError(Exception):
    """A migration's own transaction found another history than the plan was made for.

    The runner reads the history again and plans again; nothing of the migration ran.
    """


class TransactionEndedError(Exception):
    """A migration ended the transaction that flux had opened for it.

    `failure` is what the migration itself raised after that, if it did.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__("the transaction was ended")
        self.failure = failure


class LockLostError(Exception):
    """The migration lock was no longer held when a migration was to commit; it did not."""


class StatementError(Exception):
    """A statement failed; the driver's exception is the `__cause__`.

    `offset` is 0-based in the script's text. `exact` says that it is the very character the
    database named, rather than the start of the statement. Statement `number` of `total`
    (1-based) is None where it is not known which one failed.
    """

    def __init__(
        self, *, offset: int | None, exact: bool, number: int | None, total: int | None
    ) -> None:
        super().__init__("a statement failed")
        self.offset = offset
        self.exact = exact
        self.number = number
        self.total = total


class InDoubtError(Exception):
    """Whether a unit took effect that an earlier run reached cannot be known.

    `entry` is its row of the journal, `statement` what stands in its place in the file now.
    """

    def __init__(self, entry: Entry, statement: Statement | None) -> None:
        super().__init__("it cannot be known whether a statement took effect")
        self.entry = entry
        self.statement = statement


class ChangedError(InDoubtError):
    """A unit took effect though an earlier run did not come to note it, and is another one now."""


class ErrorReport(Record):
    """What a database says of an error: its message, its detail, and what may help."""

    message: str
    detail: str | None = None
    hint: str | None = None
