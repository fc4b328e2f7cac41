"""The command line's words: what may be said, and what was said. argparse alone."""

from __future__ import annotations

import argparse
import re
import sys
from functools import cached_property, partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TextIO

    from flux.host import Host
    from flux.migration import Late
    from flux.results import StepResult
    from flux.runner import Answer
    from flux.terminal import StatusLine

_EPILOG = """\
exit codes:
  0  done, or nothing to do           3  status --check, and something is pending
  1  it failed, or was declined       4  history and directory disagree
  2  the command line or the             (drift: database and migrations do)
     configuration is wrong           5  another process held the lock for too long
                                    130, 143  interrupted
"""


class Arguments(argparse.Namespace):
    """The command line as it was parsed; a command reads the ones it declares."""

    host: Host
    command: str | None
    version: bool
    config: str | None
    traceback: bool
    uri: str | None
    n: int | None
    to: str | None
    late: Late | None
    json: bool
    sql: bool
    all: bool
    check: bool
    pre: bool
    post: bool
    name: list[str]
    backend: str
    shell: str
    auto_approve: bool
    answer: Answer | None
    since: str | None
    only: str | None
    proves_late: bool
    require_undo: bool
    junit: str | None
    live: bool
    write: bool
    ignore: list[str]
    shadow_url: str | None
    here: bool
    throw_away_server: bool
    lock_wait: float | None
    wait: float | None
    #: Standard output, also while what migrations print goes elsewhere.
    out: TextIO
    #: Says that flux was interrupted, and ends the process with all its threads.
    abandon: Callable[[], NoReturn]
    #: The step that was started last; None before the first.
    reached: str | None
    #: Where progress is shown at a terminal.
    line: StatusLine
    #: What `apply`, `rollback` or `resume` has done so far; None for other commands.
    done: list[StepResult] | None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves a line alone that fits: to wrap one, argparse imports `textwrap`, which is slow."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [text] if len(text) <= width else super()._split_lines(text, width)


#: With a width of its own: to ask the terminal for one, argparse imports `shutil`, which is slow.
_HELP_FORMATTER = partial(_HelpFormatter, width=90)


#: In `arguments.command`: the versions were asked for.
VERSION = "--version"
#: argparse's words for a command that is not there.
_NO_COMMAND = r"invalid choice: '([^']*)'"
#: What is meant as N or as an id, and would be a new SQLite file.
_NO_ADDRESS = r"-|\d[^./:=]*\Z"


class _UsageError(Exception):
    """The command line is wrong; told by `parse`, which knows what of it may be shown."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(parser, message)
        self.parser = parser
        self.message = message


def parse(argv: Sequence[str] | None, host: Host) -> Arguments:
    """Parse a command line (None: that of the process), which was given to `host`.

    Prints the help and raises `SystemExit` with 2 where no command is named, or the usage where
    the command line is wrong.
    """
    parser = build_parser(host)
    try:
        return _parsed(parser, argv, Arguments(host=host))
    except _UsageError as error:
        message = _without_secrets(error.message, sys.argv[1:] if argv is None else argv)
        argparse.ArgumentParser.error(error.parser, message)


def _parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, namespace: Arguments
) -> Arguments:
    arguments = parser.parse_args(argv, namespace=namespace)
    if arguments.version:
        arguments.command = VERSION
    if arguments.command is None:
        parser.print_help()
        raise SystemExit(2)
    arguments.done = [] if hasattr(arguments, "lock_wait") else None
    uri: str = getattr(arguments, "uri", None) or ""
    takes_count = hasattr(arguments, "n") and arguments.n is None
    if takes_count and uri.isascii() and uri.isdigit():
        # A lone argument of digits is N.
        arguments.uri, arguments.n = None, int(uri)
    elif hasattr(arguments, "n") and re.match(_NO_ADDRESS, uri):
        parser.error(
            f"{uri!r} is no database's address (N is a whole number, and --to names a migration; "
            f"a SQLite file of that name is sqlite:///{uri})"
        )
    return arguments


def _without_secrets(message: str, words: Sequence[str]) -> str:
    """A message that may quote words of the command line; an address may be in a wrong place."""
    from flux import address

    for word in words:
        for given in (word, word[2:], word.partition("=")[2]):
            if (shown := address.redact(given)) != given:
                message = message.replace(repr(given), repr(shown)).replace(given, shown)
    return message


def leave_untranslated() -> None:
    """Have argparse say its words as they are: for a process that is flux's own.

    Python has no translations of them, and to look for some takes longer than to parse.
    """
    vars(argparse)["_"] = lambda text: text


def build_parser(host: Host) -> _Parser:
    """The parser of the whole command line; that of a command is made when it is named."""
    parser = _Parser(
        prog=host.prog,
        description="Database migrations for Python projects.",
        epilog=_EPILOG,
        formatter_class=_HELP_FORMATTER,
    )
    # No `version` action, which wants its text made at once: to look for drivers takes long.
    parser.add_argument(
        "--version", action="store_true", help="show the versions of flux, Python and the drivers"
    )
    lazy: Any = _LazyParser
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=lazy
    )
    parser.commands = commands.choices
    command = partial(_command, commands, host)
    host.declare_commands(command)
    command("new", "write an empty migration", 'new --sql "Add users"', _declare_new)
    command("status", "show every migration and its state", "status --check", _declare_status)
    command("plan", "show what apply would run", "plan --sql", _declare_plan)
    command("apply", "apply pending migrations", "apply 1", _declare_apply)
    command(
        "rollback",
        "undo the newest migration",
        "rollback --to ID -y",
        _declare_rollback,
        "What was applied last is undone first: where late migrations were applied after\n"
        "newer ones, they count as the newest.",
    )
    command(
        "resume",
        "go on with a migration that is half done",
        "resume --skip",
        _declare_resume,
        "The next apply or rollback goes on with a migration that was cut off.\n"
        "Only where flux cannot find out whether its last statement took effect\n"
        "does it ask: look, and give --skip or --retry.",
    )
    command(
        "test",
        "prove in a scratch database that each undo undoes",
        "test --since ID",
        _declare_test,
        "Applies each migration, undoes it, applies it again, and compares the schema\n"
        "each time. Runs the hooks of the directory tests/ around it.",
    )
    command(
        "schema",
        "print the schema that the migrations make",
        "schema --check",
        _declare_schema,
        "The migrations are applied in a scratch database, and its catalog is read.",
    )
    command(
        "drift",
        "compare a database with what its applied migrations make",
        "drift --ignore 'extension *'",
        _declare_drift,
    )
    command(
        "doctor",
        "examine everything that apply needs, and say what to do",
        "doctor --json",
        _declare_doctor,
        "Looks at the configuration, the directory, the connection, the server, the\n"
        "rights, the settings and the history. Changes nothing, and waits for nobody.",
    )
    command(
        "validate",
        "check the directory, and the history against it",
        "validate --json",
        _declare_validate,
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that knows what a mistyped command was meant to be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: The parsers of the commands, by their names.
        self.commands: dict[str, Any] = {}

    def with_all_commands(self) -> _Parser:
        """This parser, with those of all commands made."""
        for name, lazy in self.commands.items():
            self.commands[name] = lazy.made
        return self

    def error(self, message: str) -> NoReturn:
        """Leave it to `parse` to tell what is wrong."""
        if self.commands and (wrong := re.search(_NO_COMMAND, message)):
            from flux.config import nearest

            near = nearest(wrong[1], tuple(self.commands))
            message += f"; did you mean {near!r}?" if near else ""
        raise _UsageError(self, message)


class _LazyParser:
    """Stands for the parser of a command, which is made when something is asked of it.

    To make those of all commands takes longer than most commands run.
    """

    def __init__(self, declare: Callable[[argparse.ArgumentParser], None], **options: Any) -> None:
        self._declare = declare
        self._options = options

    @cached_property
    def made(self) -> argparse.ArgumentParser:
        """The parser, with its arguments."""
        parser = _Parser(**self._options)
        self._declare(parser)
        return parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


def _command(
    commands: Any,
    host: Host,
    name: str,
    summary: str,
    example: str,
    declare: Callable[[argparse.ArgumentParser, Host], None],
    more: str = "",
) -> None:
    def declare_all(command: argparse.ArgumentParser) -> None:
        host.declare_config(command)
        command.add_argument("--traceback", action="store_true", help="errors with their traceback")
        declare(command, host)

    commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}." + (f"\n\n{more}" if more else ""),
        epilog=f"example:\n  {host.prog} {example}",
        formatter_class=_HELP_FORMATTER,
        declare=declare_all,
    )


def _declare_new(new: argparse.ArgumentParser, host: Host) -> None:
    new.add_argument("name", nargs="+", metavar="NAME", help="what it does, in a few words")
    new.add_argument("--sql", action="store_true", help="SQL files instead of a Python one")
    place = new.add_mutually_exclusive_group()
    place.add_argument("--pre", action="store_true", help="a repeatable run before each batch")
    place.add_argument("--post", action="store_true", help="a repeatable run after each batch")


def _declare_status(status: argparse.ArgumentParser, host: Host) -> None:
    _add_database(status, host)
    status.add_argument(
        "--check", action="store_true", help="exit with 3 when something is pending"
    )
    _add_late(status)
    _add_json(status)


def _declare_plan(plan: argparse.ArgumentParser, host: Host) -> None:
    _add_database(plan, host)
    _add_count(plan, "at most N migrations; default: all")
    _add_to(plan, "up to and including this migration")
    _add_late(plan)
    plan.add_argument("--sql", action="store_true", help="with the SQL of each step")
    _add_json(plan)


def _declare_apply(apply: argparse.ArgumentParser, host: Host) -> None:
    _add_database(apply, host)
    _add_count(apply, "at most N migrations; default: all")
    _add_to(apply, "up to and including this migration")
    _add_late(apply)
    _add_changing(apply)


def _declare_rollback(rollback: argparse.ArgumentParser, host: Host) -> None:
    _add_database(rollback, host)
    _add_count(rollback, "the newest N migrations; default: 1")
    _add_to(rollback, "all that were applied after this migration, which stays")
    rollback.add_argument("--all", action="store_true", help="all migrations")
    _add_changing(rollback)


def _declare_resume(resume: argparse.ArgumentParser, host: Host) -> None:
    _add_database(resume, host)
    answer = resume.add_mutually_exclusive_group()
    for name, meaning in (("skip", "it took effect"), ("retry", "it did not: run it again")):
        answer.add_argument(
            f"--{name}", action="store_const", dest="answer", const=name, help=meaning
        )
    _add_late(resume)
    _add_lock_wait(resume)
    _add_json(resume)


def _declare_test(test: argparse.ArgumentParser, host: Host) -> None:
    _add_database(test, host)
    chosen = test.add_mutually_exclusive_group()
    chosen.add_argument("--since", metavar="ID", help="this migration and all newer ones")
    chosen.add_argument("--only", metavar="ID", help="this migration alone")
    chosen.add_argument(
        "--late",
        action="store_true",
        dest="proves_late",
        help="whether it matters that late migrations of the database are late",
    )
    test.add_argument("--require-undo", action="store_true", help="fail where there is no undo")
    test.add_argument("--junit", metavar="PATH", help="write a JUnit report, too")
    _add_scratch(test)
    _add_json(test)


def _declare_schema(schema: argparse.ArgumentParser, host: Host) -> None:
    _add_database(schema, host)
    what = schema.add_mutually_exclusive_group()
    what.add_argument("--live", action="store_true", help="the schema of the database itself")
    what.add_argument("--write", action="store_true", help="write the schema file")
    what.add_argument(
        "--check", action="store_true", help="fail where the schema file is out of date"
    )
    _add_ignore(schema)
    _add_scratch(schema)
    _add_json(schema)


def _declare_drift(drift: argparse.ArgumentParser, host: Host) -> None:
    _add_database(drift, host)
    _add_ignore(drift)
    _add_scratch(drift)
    _add_json(drift)


def _declare_doctor(doctor: argparse.ArgumentParser, host: Host) -> None:
    host.declare_database(doctor)
    _add_json(doctor)


def _declare_validate(validate: argparse.ArgumentParser, host: Host) -> None:
    _add_database(validate, host)
    _add_late(validate)
    _add_json(validate)


def _add_database(command: argparse.ArgumentParser, host: Host) -> None:
    host.declare_database(command)
    command.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        help="how long to wait for a database that is still starting; default: 0",
    )


def _add_ignore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out what has such a name, as audit.*; may be given again",
    )


def _add_scratch(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--shadow-url", metavar="URI", help="make scratch databases on the server of this database"
    )
    command.add_argument(
        "--here", action="store_true", help="make them beside the database, wherever that is"
    )
    command.add_argument(
        "--throw-away-server",
        action="store_true",
        help="let statements reach beyond a scratch database, such as CREATE ROLE",
    )


def _add_count(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("n", nargs="?", type=_count, metavar="N", help=what)


def _add_to(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--to", metavar="ID", help=what)


def _add_late(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-late",
        action="store_const",
        const="allow",
        dest="late",
        help="accept migrations that are older than the newest applied one",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON: docs/json.md")


def _add_changing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--auto-approve", "-y", action="store_true", help="do not ask")
    _add_lock_wait(command)
    _add_json(command)


def _add_lock_wait(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lock-wait", type=_seconds, metavar="SECONDS", help="how long to wait for another flux"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"N is a number, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds, 0 or more, not {text!r}")
    return seconds
