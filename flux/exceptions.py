"""Everything a user can be told.

FluxMigrationException
├── InvalidConfigurationError           the command line, flux.toml or a setting is wrong
│   └── UnknownMigrationError           a target names a migration that is not there
├── BackendLoadingError                 the database's backend cannot be had
│   ├── BackendNotInstalledError        … because nothing installed provides it
│   └── InvalidBackendError             … because what is installed is not one
├── MigrationLoadingError               files that cannot be read as migrations
│   └── InvalidMigrationModuleError     … a Python file that fails, or lacks `apply()`
├── MigrationDirectoryCorruptedError    history and directory disagree: divergent, missing, late
├── IrreversibleMigrationError          a migration to roll back has no undo
├── DatabaseUnavailableError            the database cannot be reached, opened or written
│   └── ConnectionStateError            a connection that was handed in cannot be used as it is
├── MigrationLockError                  another process holds the lock for longer than we wait
├── ApprovalError                       the plan was not approved
├── ScratchDatabaseError                a scratch database cannot be made, or must not be
├── HalfDoneError                       a migration is half applied or undone, and comes first
└── MigrationApplyError                 a migration, an undo or a repeatable failed
    └── MigrationInDoubtError           … or it is not known whether its last statement took effect
"""

from __future__ import annotations

from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Location(Record):
    """A place in a file: `path`, and where known 1-based `line` and `column` and the line's text.

    `column` is None where the place within the line is not known; it is never guessed.
    `within` names what the lines count in when that is not the file itself
    (`apply()` for the text that a Python migration returned).
    """

    path: str
    line: int | None = None
    column: int | None = None
    source: str | None = None
    within: str | None = None

    @classmethod
    def of_offset(cls, path: str, text: str, offset: int, *, within: str | None = None) -> Location:
        """The location of the character at a 0-based `offset` of `text`."""
        start = text.rfind("\n", 0, offset) + 1
        end = text.find("\n", offset)
        return cls(
            path,
            text.count("\n", 0, offset) + 1,
            offset - start + 1,
            text[start : end if end >= 0 else len(text)],
            within,
        )

    def without_column(self) -> Location:
        """The same line, for an error of which no column is known."""
        return self._replace(column=None)

    def __str__(self) -> str:
        """`path:line:column`, as editors and terminals open it."""
        place = [self.path]
        if self.within is None:
            place += [str(n) for n in (self.line, self.column) if n is not None]
            return ":".join(place)
        inner = f"line {self.line}" if self.line is not None else ""
        if self.column is not None:
            inner += f", column {self.column}"
        return f"{self.path} ({', '.join(filter(None, [inner, f'in what {self.within} gave']))})"

    def drawing(self) -> str:
        """The line itself, with a caret below the column where one is known."""
        if self.source is None:
            return ""
        # A long line is cut around the column, so that the caret stays in sight.
        start = max(0, (self.column or 1) - 60)
        line = self.source[start : start + 100].rstrip()
        margin = f"{self.line} | "
        drawing = margin + line.expandtabs(4)
        if self.column is not None:
            before = line[: self.column - 1 - start].expandtabs(4)
            drawing += "\n" + " " * (len(margin) - 2) + "| " + " " * len(before) + "^"
        return drawing


class Problem(Record):
    """One thing that is wrong: what kind, which migrations, in words, and the way out.

    `kind` is a word of flux's vocabulary (`divergent`, `missing`, `late`, `duplicate`, …).
    """

    kind: str
    ids: tuple[str, ...]
    message: str
    hint: str | None = None
    location: Location | None = None

    def __str__(self) -> str:
        return describe(self.message, self.location, self.hint)


def describe(message: str, location: Location | None, hint: str | None) -> str:
    """The message with its place, a drawing of the line, and the hint, each on lines of its own."""
    parts = [f"{location}: {message}" if location is not None else message]
    if location is not None and (drawing := location.drawing()):
        parts.append("\n".join("    " + line for line in drawing.split("\n")))
    if hint:
        parts.append(f"hint: {hint}")
    return "\n".join(parts)


class FluxMigrationException(Exception):
    """The root of all errors that flux raises.

    `message` says what happened, `location` where, `hint` what to do next, and `problems`
    lists every offender when several were found together. `str()` shows all of them.
    """

    def __init__(
        self,
        message: str,
        *,
        location: Location | None = None,
        hint: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint
        self.problems = problems

    @classmethod
    def of(cls, problems: tuple[Problem, ...], summary: str) -> Self:
        """An error of one or several problems; `summary` is the message for several."""
        if len(problems) > 1:
            return cls(summary, problems=problems)
        problem = problems[0]
        return cls(problem.message, location=problem.location, hint=problem.hint, problems=problems)

    def __str__(self) -> str:
        parts = [describe(self.message, self.location, None)]
        if [problem.message for problem in self.problems] != [self.message]:
            parts += [f"- {problem}".replace("\n", "\n  ") for problem in self.problems]
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)

    def add_hint(self, hint: str) -> None:
        """Put one more hint behind those that are there."""
        self.hint = f"{self.hint}; {hint}" if self.hint else hint

    def hide(self, hide: Callable[[str], str]) -> None:
        """Put what `hide` gives in the place of each text; it replaces secrets.

        A cause that holds one is cut off, with all that is behind it.
        """
        self.message = hide(self.message)
        self.args = (self.message,)
        self.hint = hide(self.hint) if self.hint else self.hint
        for cause in (self.__cause__, self.__context__):
            while cause is not None:
                if hide(f"{cause} {cause!r}") != f"{cause} {cause!r}":
                    self.__cause__ = self.__context__ = None
                cause = cause.__cause__ or cause.__context__

    def __reduce__(self) -> tuple[object, ...]:
        # By default unpickling calls __init__, and an error of a worker process is lost for want
        # of its keyword arguments.
        return _without_init, (type(self), self.args), self.__dict__


def _without_init(
    type_: type[FluxMigrationException], args: tuple[object, ...]
) -> FluxMigrationException:
    return type_.__new__(type_, *args)


class InvalidConfigurationError(FluxMigrationException):
    """The command line, the configuration file or a setting is wrong."""


class UnknownMigrationError(InvalidConfigurationError):
    """A target names a migration that is not there, or that is not in the needed state."""


class BackendLoadingError(FluxMigrationException):
    """The backend for the database cannot be had."""


class BackendNotInstalledError(BackendLoadingError):
    """No installed package provides the backend, or its driver is not installed."""


class InvalidBackendError(BackendLoadingError):
    """What the entry point names fails to import, or is not a `flux.MigrationBackend`."""


class MigrationLoadingError(FluxMigrationException):
    """Files of the migration directory cannot be read as migrations."""


class InvalidMigrationModuleError(MigrationLoadingError):
    """A Python migration fails when it is read, or has no usable `apply()`."""


class MigrationDirectoryCorruptedError(FluxMigrationException):
    """The history and the migration directory disagree; `problems` says in what."""


class IrreversibleMigrationError(FluxMigrationException):
    """A migration that is to be rolled back has no undo."""


class DatabaseUnavailableError(FluxMigrationException):
    """The database cannot be reached, opened, read or written."""


class ConnectionStateError(DatabaseUnavailableError):
    """A connection that was handed in cannot be used in the state it is in."""


class MigrationLockError(FluxMigrationException):
    """Another process holds the migration lock, and it was waited for long enough.

    `holder` says who, as far as the database tells.
    """

    def __init__(self, message: str, *, holder: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class ApprovalError(FluxMigrationException):
    """The plan was shown and not approved, or needs an approval that nobody can give."""


class ScratchDatabaseError(FluxMigrationException):
    """A scratch database cannot be made, or must not be made there."""


class HalfDoneError(FluxMigrationException):
    """A migration is half applied or half undone, and has to be done before anything else."""


#: How many steps a message names one by one.
_LISTED = 10


class MigrationApplyError(FluxMigrationException):
    """A migration, an undo or a repeatable failed.

    `id` names it; `done` lists what the batch had finished, in order; `state` says in words what
    is in the database now. The driver's own exception is the `__cause__`. Where the connection
    broke only after the COMMIT had arrived, `done` ends with `id` itself.
    """

    def __init__(
        self,
        message: str,
        *,
        id: str,
        state: str,
        done: tuple[str, ...] = (),
        location: Location | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, location=location, hint=hint)
        self.id = id
        self.state = state
        self.done = done

    def __str__(self) -> str:
        parts = [super().__str__()]
        if before := [name for name in self.done if name != self.id]:
            many = f"{len(before)} steps, from {before[0]} to {before[-1]}"
            listed = ", ".join(before) if len(before) <= _LISTED else many
            parts.append(f"done before it: {listed}")
        if self.state:
            parts.append(f"state: {self.state}")
        return "\n".join(parts)


class MigrationInDoubtError(MigrationApplyError):
    """An earlier run was cut off, and whether its last statement took effect cannot be known.

    Somebody has to look, and to say so: `flux resume --skip` or `flux resume --retry`.
    """


def as_told(error: BaseException) -> FluxMigrationException:
    """Any error as one that can be told: files that cannot be written, and what nobody foresaw."""
    if isinstance(error, FluxMigrationException):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        told = FluxMigrationException(f"{error.filename}: {error.strerror}")
    else:
        told = FluxMigrationException(
            f"unexpected {type(error).__name__}: {error}",
            hint="--traceback shows where it comes from",
        )
    told.__cause__ = error
    return told
