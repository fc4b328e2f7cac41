"""The command line: arguments → calls → exit code. The only room that prints.

Each command is a function of its arguments that returns an exit code. Results go to standard
output; errors, questions' refusals and waits to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from flux import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TextIO

    from flux.config import FluxConfig
    from flux.exceptions import FluxMigrationException, Problem
    from flux.migration import Placement
    from flux.plan import Plan
    from flux.render import Palette
    from flux.runner import BatchResult, Event, FluxRunner, StepResult

DONE, FAILED, MISUSED, PENDING, DISAGREES, LOCKED = range(6)
INTERRUPTED, TERMINATED = 130, 143

_EPILOG = """\
exit codes:
  0  done, or nothing to do           3  status --check, and something is pending
  1  it failed, or was declined       4  history and directory disagree
  2  the command line or the          5  another process held the lock for too long
     configuration is wrong         130, 143  interrupted
"""


class Arguments(argparse.Namespace):
    """The command line as it was parsed; a command reads the ones it declares."""

    command: str
    run: Callable[[Arguments], int]
    config: str | None
    traceback: bool
    uri: str | None
    n: int | None
    to: str | None
    json: bool
    sql: bool
    all: bool
    check: bool
    pre: bool
    post: bool
    name: list[str]
    backend: str
    auto_approve: bool
    lock_wait: float | None
    #: Standard output, also while what migrations print goes elsewhere.
    out: TextIO
    #: Says that flux was interrupted, and ends the process with all its threads.
    abandon: Callable[[], NoReturn]
    #: The step that was started last; None before the first.
    reached: str | None
    #: What `apply` or `rollback` has done so far; None for other commands.
    done: list[StepResult] | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (default: that of the process) and return the exit code."""
    _make_streams_robust()
    arguments = _parse(argv)
    arguments.out = sys.stdout
    arguments.reached = None
    terminations = _interrupt_on_sigterm()

    def tell_interruption(interruption: KeyboardInterrupt) -> int:
        _show_error(arguments, _interruption(arguments.reached, interruption))
        return TERMINATED if terminations else INTERRUPTED

    def abandon() -> NoReturn:
        code = tell_interruption(KeyboardInterrupt())
        arguments.out.flush()
        os._exit(code)

    arguments.abandon = abandon
    try:
        code = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a failure to write is told, too
        return code
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), arguments.out.fileno())
        return FAILED
    except KeyboardInterrupt as interruption:
        return tell_interruption(interruption)
    except (Exception, SystemExit) as caught:
        error = _as_told(caught)
        _show_error(arguments, error)
        return _exit_code(error)
    finally:
        sys.stdout = arguments.out


def run() -> int:
    """`main`, for a process that ends with it."""
    import gc

    try:
        return main()
    finally:
        # Python would look through all objects for garbage once more before it ends.
        gc.freeze()


# Commands -----------------------------------------------------------------------------------


def _init(arguments: Arguments) -> int:
    from flux.backends import load_backend
    from flux.config import CONFIG_FILE
    from flux.exceptions import InvalidConfigurationError
    from flux.scaffold import write_config

    path = arguments.config or CONFIG_FILE
    if arguments.config is None and _is_configured_elsewhere():
        raise InvalidConfigurationError(
            "[tool.flux] in pyproject.toml configures flux already, and is left as it is",
            hint="remove it first, or name another file with --config",
        )
    for written in write_config(path, load_backend(arguments.backend), arguments.backend):
        print(f"created  {written}")
    return DONE


def _is_configured_elsewhere() -> bool:
    from flux.config import CONFIG_FILE, find_config_file
    from flux.exceptions import InvalidConfigurationError

    try:
        return find_config_file() != CONFIG_FILE
    except InvalidConfigurationError:
        return False


def _new(arguments: Arguments) -> int:
    from datetime import date

    from flux import scaffold

    config = _load_config(arguments)
    ending = ".sql" if arguments.sql else ".py"
    if arguments.pre or arguments.post:
        placement: Placement = "pre-apply" if arguments.pre else "post-apply"
        files = scaffold.new_repeatable(
            config.migration_directory,
            placement,
            " ".join(arguments.name),
            ending=ending,
            today=date.today(),
            order=config.order,
        )
    else:
        files = scaffold.new_migration(
            config.migration_directory,
            " ".join(arguments.name),
            ending=ending,
            today=date.today(),
            known_ids=_recorded_ids(config),
            order=config.order,
        )
    for file in files:
        print(f"created  {file}")
    return DONE


def _recorded_ids(config: FluxConfig) -> list[str]:
    """The ids in the history, where a database is named and answers; a word where it does not."""
    from flux.backends import load_backend
    from flux.exceptions import FluxMigrationException, InvalidConfigurationError

    try:
        url = config.resolve_url()
    except InvalidConfigurationError:
        return []
    try:
        backend = load_backend(config.backend).from_config(config, url)
        with backend.opened():
            return list(backend.read_state().applied)
    except FluxMigrationException as error:
        _tell(f"the new id does not heed the history: {error.message}")
        return []


def _status(arguments: Arguments) -> int:
    from flux import render

    with _runner(arguments) as runner:
        status = runner.status()
    if arguments.json:
        _print_json(arguments, render.status_data(status))
    else:
        print(render.status_text(status, _palette(sys.stdout)))
    code = _problems_code(status.problems)
    if code == DONE and arguments.check and not status.is_settled:
        return PENDING
    return code


def _plan(arguments: Arguments) -> int:
    from flux import render

    with _runner(arguments) as runner:
        plan = runner.plan_apply(arguments.n, to=arguments.to)
        runner.check(plan)
    sql_of = [render.step_sql(step) for step in plan.steps] if arguments.sql else []
    if arguments.json:
        _print_json(arguments, render.plan_data(plan, sql_of=sql_of))
    else:
        print(render.plan_text(plan, _palette(sys.stdout), sql_of=sql_of))
    return DONE


def _validate(arguments: Arguments) -> int:
    from flux import render
    from flux.exceptions import MigrationLoadingError

    problems: tuple[Problem, ...]
    count = 0
    try:
        with _runner(arguments) as runner:
            problems = (*runner.status().problems, *runner.check_directory())
            count = len(runner.directory.migrations)
    except MigrationLoadingError as error:
        if not error.problems:
            raise
        problems = error.problems
    if arguments.json:
        _print_json(arguments, {"problems": render.problems_data(problems)})
    elif problems:
        print(render.problems_text(problems, _palette(sys.stdout)))
    else:
        print(f"valid: {count} migration{'' if count == 1 else 's'}, in order with the history")
    return _problems_code(problems)


def _apply(arguments: Arguments) -> int:
    return _change(
        arguments,
        "Apply this?",
        lambda runner, confirm: runner.apply_migrations(
            arguments.n, to=arguments.to, confirm=confirm
        ),
    )


def _rollback(arguments: Arguments) -> int:
    from flux.exceptions import InvalidConfigurationError

    if not (arguments.auto_approve or _can_ask(arguments)):
        raise InvalidConfigurationError(
            "rollback changes the database, and "
            + ("--json does not ask" if arguments.json else "there is no terminal to ask at"),
            hint="give --auto-approve (-y) to go ahead without a question",
        )
    if sum([arguments.all, arguments.to is not None, arguments.n is not None]) > 1:
        raise InvalidConfigurationError("give one of N, --all and --to ID")
    n = None if arguments.all else 1 if arguments.n is None else arguments.n
    return _change(
        arguments,
        "Roll this back?",
        lambda runner, confirm: runner.rollback_migrations(n, to=arguments.to, confirm=confirm),
    )


def _change(
    arguments: Arguments,
    question: str,
    act: Callable[[FluxRunner, Callable[[Plan], bool] | None], BatchResult],
) -> int:
    """What `apply` and `rollback` share: asking, showing what happens, and the last line."""
    from flux import render
    from flux.interruption import Interruptible
    from flux.runner import StepResult

    palette = _palette(sys.stdout)
    done = arguments.done = []

    asked: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        stream = _question_stream()
        if asked:
            print("meanwhile the plan has changed:", file=stream)
        asked.append(plan)
        print(render.plan_text(plan, _palette(stream)), file=stream)
        return _ask(question)

    def on_done(event: Event) -> None:
        if event.step is not None:
            done.append(StepResult(event.step.action, event.step.name, event.seconds or 0.0))
            if not arguments.json:
                print(render.done_text(event.step, event.seconds or 0.0, palette), flush=True)
        if steps.was_interrupted:
            raise KeyboardInterrupt

    asks = _can_ask(arguments) and not arguments.auto_approve
    with _runner(arguments, on_done) as runner:
        steps = Interruptible(runner.backend.cancel, arguments.abandon)
        runner.call = steps
        result = act(runner, confirm if asks else None)
    if arguments.json:
        _print_json(arguments, {"ok": True, **render.result_data(result.steps), "error": None})
    else:
        print(render.result_text(result))
    return DONE


# What commands share ------------------------------------------------------------------------


def _load_config(arguments: Arguments) -> FluxConfig:
    from flux.config import FluxConfig, find_config_file

    config = FluxConfig.from_file(arguments.config or find_config_file())
    lock_wait = getattr(arguments, "lock_wait", None)
    return config if lock_wait is None else config._replace(lock_wait=lock_wait)


def _runner(arguments: Arguments, on_done: Callable[[Event], None] | None = None) -> FluxRunner:
    from flux.runner import FluxRunner

    config = _load_config(arguments)

    def tell_event(event: Event) -> None:
        if event.kind in ("wait", "warning") and config.log_level != "ERROR":
            _tell(event.message)
        elif event.kind == "start" and event.step is not None:
            arguments.reached = event.step.name
            if config.log_level == "DEBUG":
                _tell(f"{event.step.action} {event.step.name} ({event.step.path})")
        elif event.kind == "done" and on_done is not None:
            on_done(event)

    if arguments.json:
        # A migration that prints must not spoil the JSON.
        sys.stdout = sys.stderr
    return FluxRunner.from_config(config, arguments.uri, on_event=tell_event)


def _print_json(arguments: Arguments, data: dict[str, Any]) -> None:
    import json

    from flux.render import FORMAT

    sys.stdout = arguments.out
    document = {"format": FORMAT, "command": arguments.command, **data}
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _show_error(arguments: Arguments, error: FluxMigrationException) -> None:
    from flux import render

    if arguments.traceback:
        import traceback

        traceback.print_exception(error)
    if getattr(arguments, "json", False):
        data: dict[str, Any] = {"error": render.error_data(error)}
        if arguments.done is not None:
            data = {"ok": False, **render.result_data(arguments.done), **data}
        _print_json(arguments, data)
    else:
        if sys.stdout is not None:
            sys.stdout.flush()
        print(render.error_text(error, _palette(sys.stderr)), file=sys.stderr)


def _interruption(reached: str | None, cause: BaseException) -> FluxMigrationException:
    """What an interruption leaves behind; `reached` is the last step that was started."""
    from flux.exceptions import FluxMigrationException

    told = FluxMigrationException("interrupted: nothing was changed")
    if reached is not None:
        told = FluxMigrationException(
            f"interrupted at {reached}: what ran in a transaction is rolled back, what was done "
            "before it stays",
            hint="`flux status` shows where things stand",
        )
    told.__cause__ = cause
    return told


def _as_told(error: BaseException) -> FluxMigrationException:
    """Any error as one that can be told: files that cannot be written, and what nobody foresaw."""
    from flux.exceptions import FluxMigrationException

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


def _exit_code(error: FluxMigrationException) -> int:
    from flux import exceptions

    codes = {
        exceptions.InvalidConfigurationError: MISUSED,
        exceptions.BackendLoadingError: MISUSED,
        exceptions.MigrationDirectoryCorruptedError: DISAGREES,
        exceptions.MigrationLockError: LOCKED,
    }
    return next((code for type_, code in codes.items() if isinstance(error, type_)), FAILED)


def _problems_code(problems: Sequence[Problem]) -> int:
    from flux.plan import DISAGREEMENTS

    if any(problem.kind in DISAGREEMENTS for problem in problems):
        return DISAGREES
    return FAILED if problems else DONE


def _tell(message: str) -> None:
    print(f"flux: {message}", file=sys.stderr, flush=True)


def _can_ask(arguments: Arguments) -> bool:
    return _is_terminal(sys.stdin) and _question_stream() is not None and not arguments.json


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _question_stream() -> TextIO | None:
    """Where a question is seen: standard output, or error where the output goes elsewhere."""
    return next(filter(_is_terminal, (sys.stdout, sys.stderr)), None)


def _ask(question: str) -> bool:
    # Not as input's own prompt, which goes to standard error.
    print(f"{question} [y/N] ", end="", flush=True, file=_question_stream())
    try:
        answer = input()
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")


def _palette(stream: TextIO | None) -> Palette:
    from flux.render import COLOURED, PLAIN

    if os.environ.get("NO_COLOR"):
        return PLAIN
    is_terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    wants = os.environ.get("FORCE_COLOR") or is_terminal
    return COLOURED if wants else PLAIN


def _make_streams_robust() -> None:
    """An id that the terminal's encoding lacks is shown escaped, rather than ending flux."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _interrupt_on_sigterm() -> list[int]:
    """Let SIGTERM do what Ctrl-C does; the list that is given back has an entry when it came."""
    import signal

    received: list[int] = []

    def on_sigterm(signal_number: int, frame: object) -> NoReturn:
        received.append(signal_number)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, on_sigterm)
    except ValueError:
        pass  # not in the main thread, which alone gets signals
    return received


# The parser ---------------------------------------------------------------------------------

#: With a width of its own: to ask the terminal for one, argparse imports `shutil`, which is slow.
_HELP_FORMATTER = partial(argparse.RawDescriptionHelpFormatter, width=90)


def _parse(argv: Sequence[str] | None) -> Arguments:
    parser = build_parser()
    arguments = parser.parse_args(argv, namespace=Arguments())
    if not hasattr(arguments, "run"):
        parser.print_help()
        raise SystemExit(MISUSED)
    arguments.done = [] if hasattr(arguments, "auto_approve") else None
    uri: str = getattr(arguments, "uri", None) or ""
    takes_count = hasattr(arguments, "n") and arguments.n is None
    if takes_count and uri.isascii() and uri.isdigit():
        # A lone argument of digits is N.
        arguments.uri, arguments.n = None, int(uri)
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="flux",
        description="Database migrations for Python projects.",
        epilog=_EPILOG,
        formatter_class=_HELP_FORMATTER,
    )
    parser.add_argument("--version", action="version", version=f"flux {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    init = _command(commands, "init", _init, "write a commented flux.toml", "flux init postgres")
    init.add_argument(
        "backend", nargs="?", default="sqlite", metavar="BACKEND", help="default: sqlite"
    )

    new = _command(commands, "new", _new, "write an empty migration", 'flux new --sql "Add users"')
    new.add_argument("name", nargs="+", metavar="NAME", help="what it does, in a few words")
    new.add_argument("--sql", action="store_true", help="SQL files instead of a Python one")
    place = new.add_mutually_exclusive_group()
    place.add_argument("--pre", action="store_true", help="a repeatable run before each batch")
    place.add_argument("--post", action="store_true", help="a repeatable run after each batch")

    status = _command(
        commands, "status", _status, "show every migration and its state", "flux status --check"
    )
    _add_uri(status)
    status.add_argument(
        "--check", action="store_true", help="exit with 3 when something is pending"
    )
    _add_json(status)

    plan = _command(commands, "plan", _plan, "show what apply would run", "flux plan --sql")
    _add_uri(plan)
    _add_count(plan, "at most N migrations; default: all")
    _add_to(plan, "up to and including this migration")
    plan.add_argument("--sql", action="store_true", help="with the SQL of each step")
    _add_json(plan)

    apply = _command(
        commands, "apply", _apply, "apply pending migrations", "flux apply sqlite:///app.db 1"
    )
    _add_uri(apply)
    _add_count(apply, "at most N migrations; default: all")
    _add_to(apply, "up to and including this migration")
    _add_changing(apply)

    rollback = _command(
        commands, "rollback", _rollback, "undo the newest migration", "flux rollback --to ID -y"
    )
    _add_uri(rollback)
    _add_count(rollback, "the newest N migrations; default: 1")
    _add_to(rollback, "all that are newer than this migration, which stays")
    rollback.add_argument("--all", action="store_true", help="all migrations")
    _add_changing(rollback)

    validate = _command(
        commands,
        "validate",
        _validate,
        "check the directory, and the history against it",
        "flux validate --json",
    )
    _add_uri(validate)
    _add_json(validate)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[Arguments], int], summary: str, example: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=_HELP_FORMATTER,
    )
    command.add_argument(
        "--config", metavar="PATH", help="the configuration file; default: flux.toml"
    )
    command.add_argument("--traceback", action="store_true", help="errors with their traceback")
    command.set_defaults(run=run)
    return command


def _add_uri(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "uri",
        nargs="?",
        metavar="URI",
        help="the database's address; default: FLUX_DATABASE_URL, else database_url in the file",
    )


def _add_count(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("n", nargs="?", type=_count, metavar="N", help=what)


def _add_to(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--to", metavar="ID", help=what)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON: docs/json.md")


def _add_changing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--auto-approve", "-y", action="store_true", help="do not ask")
    command.add_argument(
        "--lock-wait", type=_seconds, metavar="SECONDS", help="how long to wait for another flux"
    )
    _add_json(command)


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
