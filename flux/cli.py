"""The command line: arguments → calls → exit code. The only room that prints.

Each command is a function of its arguments that returns an exit code. Results go to standard
output; errors, questions' refusals and waits to standard error.
"""

from __future__ import annotations

# What `signal` makes enums of, which takes long.
import _signal  # type: ignore[import-not-found]
import os
import sys

from flux.arguments import VERSION, Arguments, build_parser, leave_untranslated, parse
from flux.console import interrupted, load_config, open_runner, print_json, show_error, tell
from flux.exit_codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    PENDING,
    TERMINATED,
    code_of_error,
    code_of_findings,
    code_of_problems,
)
from flux.host import Host, Shell
from flux.terminal import (
    StatusLine,
    ask,
    can_ask,
    is_completing,
    make_streams_robust,
    palette_for,
    question_stream,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from flux.config import FluxConfig
    from flux.exceptions import Problem
    from flux.migration import Placement
    from flux.plan import Plan
    from flux.results import BatchResult, Event
    from flux.runner import FluxRunner


def main(argv: Sequence[str] | None = None, host: Host | None = None) -> int:
    """Run the command line (default: that of the process) and return the exit code.

    `host` is the framework that it was given to, where it is not flux's own.
    """
    host = host or Shell()
    if is_completing():
        from flux.completion import complete

        complete(build_parser(host).with_all_commands())
    make_streams_robust()
    arguments = parse(argv, host)
    arguments.out = sys.stdout
    arguments.reached = None
    arguments.line = StatusLine(sys.stderr)
    with _Sigterm() as sigterm:
        return _run(arguments, sigterm)


def _run(arguments: Arguments, sigterm: _Sigterm) -> int:
    """Run the command, and tell how it ended."""

    def tell_interruption(interruption: KeyboardInterrupt) -> int:
        show_error(arguments, interrupted(arguments.reached, interruption))
        return TERMINATED if sigterm.was_received else INTERRUPTED

    def abandon() -> NoReturn:
        code = tell_interruption(KeyboardInterrupt())
        arguments.out.flush()
        os._exit(code)

    arguments.abandon = abandon
    try:
        code = _COMMANDS[arguments.command or ""](arguments)
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
        from flux.exceptions import as_told

        error = as_told(caught)
        show_error(arguments, error)
        return code_of_error(error)
    finally:
        sys.stdout = arguments.out


def run() -> int:
    """`main`, for a process that ends with it."""
    import gc

    # Looking for garbage among the objects of thousands of migrations takes time, and finds none.
    gc.set_threshold(50_000)
    leave_untranslated()
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

    config = load_config(arguments)
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
            known_ids=_recorded_ids(arguments, config),
            order=config.order,
        )
    for file in files:
        print(f"created  {file}")
    return DONE


def _recorded_ids(arguments: Arguments, config: FluxConfig) -> list[str]:
    """The ids in the history, where a database is named and answers; a word where it does not."""
    from flux.exceptions import FluxMigrationException, InvalidConfigurationError
    from flux.runner import FluxRunner

    database = arguments.host.database(arguments)
    try:
        database = config.resolve_url() if database is None else database
    except InvalidConfigurationError:
        return []
    try:
        backend = FluxRunner.from_config(config, database).backend
        with backend.opened():
            return list(backend.read_state().applied)
    except FluxMigrationException as error:
        tell(f"the new id does not heed the history: {error.message}")
        return []


def _status(arguments: Arguments) -> int:
    from flux import render

    with open_runner(arguments) as runner:
        status = runner.status()
    if arguments.json:
        print_json(arguments, render.status_data(status))
    else:
        print(arguments.host.spell(render.status_text(status, palette_for(sys.stdout))))
    code = code_of_problems(status.problems)
    if code == DONE and arguments.check and not status.is_settled:
        return PENDING
    return code


def _plan(arguments: Arguments) -> int:
    from flux import render

    with open_runner(arguments) as runner:
        plan = runner.plan_apply(arguments.n, to=arguments.to)
        runner.check(plan)
        in_doubt = runner.is_in_doubt
    sql_of = [render.step_sql(step) for step in plan.steps] if arguments.sql else []
    if arguments.json:
        print_json(arguments, render.plan_data(plan, sql_of=sql_of, in_doubt=in_doubt))
    else:
        text = render.plan_text(plan, palette_for(sys.stdout), sql_of=sql_of, in_doubt=in_doubt)
        print(arguments.host.spell(text))
    return DONE


def _validate(arguments: Arguments) -> int:
    from flux import render
    from flux.exceptions import MigrationLoadingError

    problems: tuple[Problem, ...]
    count = 0
    try:
        with open_runner(arguments) as runner:
            problems = (*runner.status().problems, *runner.check_directory())
            count = len(runner.directory.migrations)
    except MigrationLoadingError as error:
        if not error.problems:
            raise
        problems = error.problems
    if arguments.json:
        print_json(arguments, {"problems": render.problems_data(problems)})
    elif problems:
        print(arguments.host.spell(render.problems_text(problems, palette_for(sys.stdout))))
    else:
        print(f"valid: {count} migration{'' if count == 1 else 's'}, in order with the history")
    return code_of_problems(problems)


def _doctor(arguments: Arguments) -> int:
    from flux import render
    from flux.doctor import examine

    if arguments.json:
        # A migration that prints must not spoil the JSON.
        sys.stdout = sys.stderr
    palette = palette_for(sys.stdout)
    findings = []
    host = arguments.host
    for finding in examine(lambda: host.config(arguments), lambda: host.database(arguments)):
        findings.append(finding)
        if not arguments.json:
            print(host.spell(render.finding_text(finding, palette)), flush=True)
    if arguments.json:
        print_json(arguments, render.findings_data(findings))
    else:
        print(f"\n{render.findings_summary(findings)}")
    return code_of_findings(findings)


def _completion(arguments: Arguments) -> int:
    from flux.completion import script

    print(script(arguments.shell), end="")
    return DONE


def _version(arguments: Arguments) -> int:
    from flux.versions import describe

    print(describe())
    return DONE


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

    if not arguments.auto_approve and (arguments.json or not can_ask()):
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


def _resume(arguments: Arguments) -> int:
    arguments.auto_approve = True  # to have named the command, and the answer, is to have approved
    return _change(arguments, "", lambda runner, confirm: runner.resume_migration(arguments.answer))


def _change(
    arguments: Arguments,
    question: str,
    act: Callable[[FluxRunner, Callable[[Plan], bool] | None], BatchResult],
) -> int:
    """What the changing commands share: asking, showing what happens, and the last line."""
    from flux import render
    from flux.interruption import Interruptible
    from flux.results import StepResult

    palette = palette_for(sys.stdout)
    done = arguments.done = []

    asked: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        arguments.line.clear()
        stream = question_stream()
        if asked:
            print("meanwhile the plan has changed:", file=stream)
        asked.append(plan)
        text = render.plan_text(plan, palette_for(stream), in_doubt=runner.is_in_doubt)
        print(text, file=stream)
        return ask(question)

    def on_done(event: Event) -> None:
        if event.step is not None:
            done.append(StepResult(event.step.action, event.step.name, event.seconds or 0.0))
            if not arguments.json:
                print(render.done_text(event.step, event.seconds or 0.0, palette), flush=True)
        if steps.was_interrupted:
            raise KeyboardInterrupt

    asks = can_ask() and not arguments.json and not arguments.auto_approve
    with open_runner(arguments, on_done) as runner:
        steps = Interruptible(runner.backend.cancel, arguments.abandon)
        if runner.backend.cancellable:
            runner.call = steps
        result = act(runner, confirm if asks else None)
    arguments.line.clear()
    if arguments.json:
        print_json(arguments, {"ok": True, **render.result_data(result.steps), "error": None})
    else:
        print(render.result_text(result))
    return DONE


# Proofs, which most runs of flux do not need -------------------------------------------------


def _test(arguments: Arguments) -> int:
    from flux.cli_proof import test

    return test(arguments)


def _schema(arguments: Arguments) -> int:
    from flux.cli_proof import show_schema

    return show_schema(arguments)


def _drift(arguments: Arguments) -> int:
    from flux.cli_proof import drift

    return drift(arguments)


class _Sigterm:
    """Lets SIGTERM do what Ctrl-C does, within a `with` block."""

    def __enter__(self) -> _Sigterm:
        self.was_received = False
        try:
            self._before = _signal.signal(_signal.SIGTERM, self._interrupt)
        except ValueError:
            self._before = None  # not in the main thread, which alone gets signals
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            _signal.signal(_signal.SIGTERM, self._before)

    def _interrupt(self, signal_number: int, frame: object) -> NoReturn:
        self.was_received = True
        raise _Terminated


class _Terminated(KeyboardInterrupt):
    """What SIGTERM raises. Python does not take it for the KeyboardInterrupt after which it ends
    itself by SIGINT: one out of a text that `eval` runs, as the classes of many modules do, even
    where it was caught.
    """


_COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "init": _init,
    "new": _new,
    "status": _status,
    "plan": _plan,
    "apply": _apply,
    "rollback": _rollback,
    "resume": _resume,
    "validate": _validate,
    "test": _test,
    "schema": _schema,
    "drift": _drift,
    "doctor": _doctor,
    "completion": _completion,
    VERSION: _version,
}
