"""Running a migration's Python: the only room that does. Reads no file itself.

What a file's `apply()` and `undo()` give is a `Script`; what is wrong with them is said with the
file's own line, without flux's frames.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, ModuleType

from flux.exceptions import InvalidMigrationModuleError, Location, MigrationLoadingError
from flux.migration import Script, read_directives
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

Importable = Callable[[], AbstractContextManager[None]]
#: The functions that a file may have; those of test hooks last.
Function: TypeAlias = "Literal['apply', 'undo', 'before', 'after', 'undone']"

#: Flags of code objects, as `inspect` names them, without its price.
_CO_VARARGS, _CO_VARKEYWORDS, _CO_GENERATOR = 0x04, 0x08, 0x20
_CO_ASYNC = 0x80 | 0x200


@contextmanager
def importable(project_directory: str, path: str) -> Iterator[None]:
    """Let migrations import from the project, and from helpers beside them, while they run.

    Writes no bytecode beside the files. The helpers are forgotten afterwards: those of another
    migration directory may have the same names.
    """
    beside = os.path.abspath(path)
    directories = (os.path.abspath(project_directory), beside)
    added = [directory for directory in directories if directory not in sys.path]
    known = set(sys.modules)
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path[:0] = added
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        for directory in added:
            if directory in sys.path:
                sys.path.remove(directory)
        for name in sys.modules.keys() - known:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(beside + os.sep):
                del sys.modules[name]


class PythonFile(Record):
    """A Python migration that was run: its path, its source and its names."""

    path: str
    source: str
    names: dict[str, Any]
    importable: Importable

    @classmethod
    def run(cls, path: str, source: str, importable: Importable) -> PythonFile:
        """Run the text of a file. Raises `InvalidMigrationModuleError` where that fails."""
        # Not through importlib, which would write a __pycache__ into the directory.
        name = f"flux_migration_{abs(hash(path)):x}"
        module = ModuleType(name)
        module.__file__ = os.path.abspath(path)
        sys.modules[name] = module
        try:
            exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own migration
        except SyntaxError as error:
            if error.filename != path:  # of a module that it imports
                raise python_error(path, error, "fails when it is read") from error
            raise _syntax_error(path, error) from error
        except (Exception, SystemExit) as error:
            raise python_error(path, error, "fails when it is read") from error
        finally:
            sys.modules.pop(name, None)
        return cls(path, source, module.__dict__, importable)

    def has(self, name: str) -> bool:
        """Whether the file defines a name."""
        return name in self.names

    def script(self, direction: Function) -> Script:
        """Resolve `apply()` or another: to its text, or to itself when it takes a connection."""
        function = self.names.get(direction)
        if not callable(function) or isinstance(function, type):
            raise InvalidMigrationModuleError(
                f"has no {direction}()",
                location=Location(self.path),
                hint=f"define {direction}() that returns SQL text, "
                f"or {direction}(connection) that does the work itself",
            )
        parameters = _count_parameters(function)
        if problem := _unusable(function, parameters):
            raise InvalidMigrationModuleError(
                f"{direction}() {problem}",
                location=Location(self.path),
                hint="a plain function: without parameters, to return SQL text, "
                "or with one, to be given the connection",
            )
        directives = read_directives(self.source, ".py", self.path)
        if parameters == 0:
            within = f"{direction}()"
            raw = self._resolve(function, direction)
            refuse_nul(raw, self.path, within=within)
            return Script.from_text(raw, self.path, within=within, directives=directives)
        from flux.syntax_hash import syntax_hash

        try:
            hash = syntax_hash(self.source)
        except (RecursionError, ValueError) as error:
            raise python_error(self.path, error, "cannot be hashed") from error
        return Script(
            path=self.path,
            hash=hash,
            function=self._guarded(function, direction),
            directives=directives,
            source=self.source,
        )

    def _guarded(
        self, function: Callable[[Any], object], direction: Function
    ) -> Callable[[Any], None]:
        """The function, with nothing that it leaves undone passing for done."""

        def run(connection: Any) -> None:
            with self.importable():
                try:
                    result = function(connection)
                except SystemExit as error:
                    message = f"it ends Python: SystemExit: {error}"
                    raise RuntimeError(message).with_traceback(error.__traceback__) from None
            if isinstance(
                result, str | list | tuple | CoroutineType | GeneratorType | AsyncGeneratorType
            ):
                _close(result)
                raise TypeError(
                    f"{direction}(connection) returns a {type(result).__name__}, "
                    "which nothing would run"
                )

        return run

    def _resolve(self, function: Callable[..., object], direction: Function) -> str:
        try:
            result = function()
            texts = [result] if isinstance(result, str) else _texts(result)
            for text in texts:
                text.encode()
        except _NotTextError as error:
            hint = f"{direction}() returns SQL text, or several texts"
            if error.args[0] == "None":
                hint += "; is a `return` missing?"
            raise InvalidMigrationModuleError(
                f"{direction}() gives {error.args[0]} instead of SQL text",
                location=Location(self.path),
                hint=hint,
            ) from None
        except (Exception, SystemExit) as error:
            raise python_error(self.path, error, f"{direction}() fails") from error
        # A text may end in a comment, or without its semicolon.
        return "\n;\n".join(texts)


class _NotTextError(Exception):
    """Something else than text came out of `apply()` or `undo()`; says what."""


def _texts(result: object) -> list[str]:
    if result is None:
        raise _NotTextError("None")
    if isinstance(result, bytes | dict) or not isinstance(result, Iterable):
        _close(result)
        raise _NotTextError(f"an object of type {type(result).__name__}")
    texts = list(result)
    for text in texts:
        if not isinstance(text, str):
            raise _NotTextError(f"an iterable that holds a {type(text).__name__}")
    return texts


def _close(result: object) -> None:
    # Python would warn of a coroutine that nobody awaits.
    if isinstance(result, CoroutineType):
        result.close()


def _unusable(function: Callable[..., object], parameters: int | None) -> str | None:
    """Why flux cannot call such a function, in words; None where it can."""
    code = getattr(function, "__code__", None)
    flags = code.co_flags if code is not None else 0
    if flags & _CO_ASYNC:
        return "is async, and flux is not"
    if parameters is None:
        return "does not say whether it takes the connection"
    if parameters > 1:
        return f"takes {parameters} parameters"
    if parameters == 1 and flags & _CO_GENERATOR:
        return "takes the connection and yields, and nothing would run it"
    return None


def _count_parameters(function: Callable[..., object]) -> int | None:
    """How many positional parameters a function takes; None where it does not say."""
    if isinstance(function, FunctionType):
        code = function.__code__
        if not (code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS) or code.co_kwonlyargcount):
            return code.co_argcount
    from inspect import Parameter, signature

    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = [parameter.kind for parameter in parameters]
    positional = sum(
        kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
    needs_keyword = any(
        parameter.kind is Parameter.KEYWORD_ONLY and parameter.default is Parameter.empty
        for parameter in parameters
    )
    if needs_keyword or (not positional and Parameter.VAR_POSITIONAL in kinds):
        return None
    return positional


def _syntax_error(path: str, error: SyntaxError) -> InvalidMigrationModuleError:
    source = (error.text or "").rstrip("\n") or None
    column = error.offset if source and error.offset and error.offset > 0 else None
    return InvalidMigrationModuleError(
        f"SyntaxError: {error.msg}", location=Location(path, error.lineno, column, source)
    )


def python_error(path: str, error: BaseException, what: str) -> InvalidMigrationModuleError:
    """An error that points at the line of the migration's own file where it came from."""
    said = f": {error}" if str(error) else ""
    return InvalidMigrationModuleError(
        f"{what}: {type(error).__name__}{said}", location=python_location(path, error)
    )


def python_location(path: str, error: BaseException) -> Location:
    """The innermost line of the file at `path` in an exception's traceback."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if line is None:
        return Location(path)
    import linecache

    linecache.checkcache(path)
    return Location(path, line, None, linecache.getline(path, line).rstrip("\n") or None)


def refuse_nul(text: str, path: str, *, within: str | None = None) -> None:
    """Raise `MigrationLoadingError` for a NUL byte in SQL text or in a file."""
    offset = text.find("\0")
    if offset >= 0:
        raise MigrationLoadingError(
            "holds a NUL byte, at which drivers would cut the text",
            location=Location.of_offset(path, text, offset, within=within)._replace(source=None),
        )
