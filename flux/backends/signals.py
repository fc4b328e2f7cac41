"""What a backend raises for the runner, which alone turns it into what a user is told."""

from __future__ import annotations

from typing import NamedTuple


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
    (1-based) is None where it is not known which one failed. `rolled_back` says that the script
    had a transaction of its own open, which flux has rolled back.
    """

    def __init__(
        self, *, offset: int | None, exact: bool, number: int | None, total: int | None
    ) -> None:
        super().__init__("a statement failed")
        self.offset = offset
        self.exact = exact
        self.number = number
        self.total = total
        self.rolled_back = False


class ErrorReport(NamedTuple):
    """What a database says of an error: its message, its detail, and what may help."""

    message: str
    detail: str | None = None
    hint: str | None = None
