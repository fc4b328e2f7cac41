"""What the commands share: the configuration, the runner, and how results and errors are shown.

Results go to standard output; errors, waits and progress to standard error.
"""

from __future__ import annotations

import sys
from functools import partial

from flux.arguments import Arguments
from flux.terminal import palette_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux.config import FluxConfig
    from flux.exceptions import FluxMigrationException
    from flux.progress import Pace, Progress
    from flux.results import Event
    from flux.runner import FluxRunner
    from flux.steps import StepRunner


def load_config(arguments: Arguments) -> FluxConfig:
    """The configuration that is meant, with what the command line says differently."""
    config = arguments.host.config(arguments)
    given = {
        setting: getattr(arguments, option, None)
        for setting, option in (
            ("lock_wait", "lock_wait"),
            ("connect_wait", "wait"),
            ("late", "late"),
        )
    }
    return config._replace(**{name: value for name, value in given.items() if value is not None})


def open_runner(arguments: Arguments, on_done: Callable[[Event], None] | None = None) -> FluxRunner:
    """A runner for the configuration and the database that are meant; it tells what it does."""
    from flux.runner import FluxRunner

    config = load_config(arguments)
    keep_output_clean(arguments)
    database = arguments.host.database(arguments)
    on_event = listener(arguments, config, on_done)
    runner = FluxRunner.from_config(config, database, on_event=on_event)
    runner.on_scratch = partial(_let_interrupt, arguments)
    return runner


def _let_interrupt(arguments: Arguments, scratch: StepRunner) -> None:
    """Let Ctrl-C end at once what runs in a scratch database, and what comes after it."""
    if not scratch.backend.cancellable:
        return
    from flux.interruption import Interruptible

    steps = Interruptible(scratch.backend.cancel, arguments.abandon)

    def call(act: Callable[[], None]) -> None:
        steps(act)
        if steps.was_interrupted:
            raise KeyboardInterrupt

    scratch.call = call


def keep_output_clean(arguments: Arguments) -> None:
    """With `--json`, have what a migration prints go elsewhere: it must not spoil the JSON."""
    if arguments.json:
        sys.stdout = sys.stderr


def listener(
    arguments: Arguments, config: FluxConfig, on_done: Callable[[Event], None] | None = None
) -> Callable[[Event], None]:
    """What tells of the events of a runner, as the configuration's `log_level` wants it."""
    pace: Pace | None = None

    def tell_progress(progress: Progress) -> None:
        from flux.progress import Pace

        nonlocal pace
        pace = pace or Pace()
        if config.log_level == "ERROR":
            return
        if arguments.line.can_rewrite:
            shorter = progress._replace(statement=None)
            arguments.line.show(f"flux: {progress}", f"flux: {shorter}")
        elif pace.is_due(progress):
            tell(str(progress))

    def tell_event(event: Event) -> None:
        if event.progress is not None:
            tell_progress(event.progress)
            return
        arguments.line.clear()
        if event.kind in ("wait", "warning") and config.log_level != "ERROR":
            tell(event.message)
        elif event.kind == "start" and event.step is not None:
            arguments.reached = event.step.name
            if config.log_level == "DEBUG":
                tell(f"{event.step.action} {event.step.name} ({event.step.path})")
        elif event.kind == "done" and on_done is not None:
            on_done(event)

    return tell_event


def print_json(arguments: Arguments, data: dict[str, Any]) -> None:
    """Write a command's result as one JSON document."""
    import json

    from flux.render import FORMAT

    sys.stdout = arguments.out
    document = {"format": FORMAT, "command": arguments.command, **data}
    print(json.dumps(document, indent=2, ensure_ascii=False))


def show_error(arguments: Arguments, error: FluxMigrationException) -> None:
    """Tell of the error that ended a command."""
    from flux import render

    arguments.line.clear()
    if getattr(arguments, "traceback", False):
        import traceback

        traceback.print_exception(error)
    if getattr(arguments, "json", False):
        data: dict[str, Any] = {"error": render.error_data(error)}
        if arguments.done is not None:
            data = {"ok": False, **render.result_data(arguments.done), **data}
        print_json(arguments, data)
    else:
        if sys.stdout is not None:
            sys.stdout.flush()
        text = arguments.host.spell(render.error_text(error, palette_for(sys.stderr)))
        print(text, file=sys.stderr)
    arguments.host.note_error(error)


def interrupted(reached: str | None, cause: BaseException) -> FluxMigrationException:
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


def tell(message: str) -> None:
    """Write a line beside the result."""
    print(f"flux: {message}", file=sys.stderr, flush=True)
