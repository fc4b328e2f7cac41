"""What is told of a script that takes long: records, and when they are worth a line. Pure."""

from __future__ import annotations

import re

from flux.exceptions import Location
from flux.record import Record

#: Seconds that a script runs before it is told of, and at most between two lines about it.
REPORT_AFTER = 2.0
REPORT_EVERY = 30.0

_FIRST_WORDS = 40  # characters
_QUERY = 100
# A literal that is cut off has no quote at its end.
_TO_HIDE = r"""(?ix) (\bpassword \s*=?\s* e?' | \bpassword \s*=\s* | ://[^\s:/@']*: )
    (?: (?<=') (?:[^']|'')* | (?<!') [^\s',;@]+ )"""


class Blocker(Record):
    """A session that a statement waits for, as far as this user may see it.

    `seconds` is how long it has been in its state; `query` is its last one, cut to a line.
    """

    pid: int
    application: str | None
    host: str | None
    state: str | None
    seconds: float | None
    query: str | None

    def __str__(self) -> str:
        who = ", ".join(filter(None, [self.application, self.host and f"on {self.host}"]))
        text = f"pid {self.pid}" + (f" ({who})" if who else "")
        if self.state:
            text += f", {self.state}"
        if self.seconds is not None:
            text += f" for {self.seconds:.0f} s"
        return text + (f": {one_line(self.query, _QUERY)}" if self.query else "")


class Progress(Record):
    """A script that takes long, and the statement it is at, as far as that is known.

    `location` is that of the statement, or the file alone; `statement` is its first words, and
    `number` (1-based) of `total` which one it is. `seconds` is how long the statement has run,
    `elapsed` how long the script. The database says what it waits for, in its own words, which
    sessions block it, and `phase` and `percent` of an index build. Where all statements are done
    and the transaction ends, `phase` is `at its end`.
    """

    location: Location
    seconds: float
    elapsed: float
    statement: str | None = None
    number: int | None = None
    total: int | None = None
    waits_for: str | None = None
    phase: str | None = None
    percent: int | None = None
    blockers: tuple[Blocker, ...] = ()

    def __str__(self) -> str:
        which = f"{self.number} of {self.total}" if self.number else None
        what = ", ".join(filter(None, [which, self.statement]))
        parts = [
            str(self.location.without_column())
            + (f" ({what})" if what else "")
            + f" runs for {self.seconds:.0f} s"
        ]
        if self.elapsed - self.seconds >= 1:
            parts.append(f"{self.elapsed:.0f} s in all")
        if self.percent is not None:
            parts.append(f"{self.percent} %")
        if self.phase:
            parts.append(self.phase)
        if self.blockers:
            parts.append("blocked by " + "; ".join(map(str, self.blockers)))
        elif self.waits_for and self.percent is None:
            parts.append(f"waits for {self.waits_for}")
        return ", ".join(parts)


class Pace:
    """Which of many reports are worth a line in a log: soon at first, then further apart.

    A statement is told of when it has run for 2, 4, 8, 16 and 32 seconds, and then each 30; a
    script of many short ones in the same way.
    """

    def __init__(self) -> None:
        self._statement: tuple[Location, int | None] | None = None
        self._last = 0.0
        #: Of the script's seconds, those at which the growth begins, and the next ones that count.
        self._begin = 0.0
        self._next = REPORT_AFTER

    def is_due(self, progress: Progress) -> bool:
        """Whether this one is worth a line. To be asked of each, in order."""
        statement = (progress.location, progress.number)
        if progress.elapsed < self._last:  # another script, or another try
            self._statement, self._begin, self._next = None, 0.0, REPORT_AFTER
        if statement != self._statement and progress.seconds >= REPORT_AFTER:
            self._statement = statement
            self._begin = progress.elapsed - progress.seconds
            self._next = self._begin + REPORT_AFTER
        self._last = progress.elapsed
        if progress.elapsed < self._next:
            return False
        while self._next <= progress.elapsed:
            self._next += min(self._next - self._begin, REPORT_EVERY)
        return True


def first_words(sql: str) -> str:
    """The beginning of a statement on one line."""
    return one_line(sql[: 10 * _FIRST_WORDS], _FIRST_WORDS)


def without_passwords(text: str) -> str:
    """SQL with what looks like a password taken out of it."""
    return re.sub(_TO_HIDE, r"\1***", text)


def one_line(text: str, length: int) -> str:
    """Text of somebody's SQL as it may be shown: one line, without passwords, cut to a length.

    What is not printable, such as a terminal's escape sequences, is shown as `?`.
    """
    line = without_passwords(" ".join(text.split()))
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
