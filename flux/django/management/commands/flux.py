"""`manage.py flux`: flux's command line, with Django's options taken out of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final, NoReturn

from django.core.management.base import BaseCommand, CommandError, handle_default_options
from django.db import connections

from flux import cli
from flux.address import redact
from flux.django.host import DjangoHost

#: The options that `call_command` takes by name.
_OPTIONS: Final = (
    "all",
    "allow_late",
    "auto_approve",
    "check",
    "database",
    "here",
    "ignore",
    "json",
    "junit",
    "late",
    "live",
    "lock_wait",
    "only",
    "post",
    "pre",
    "require_undo",
    "retry",
    "shadow_url",
    "since",
    "skip",
    "sql",
    "throw_away_server",
    "to",
    "traceback",
    "wait",
    "write",
)


class Command(BaseCommand):
    """Runs one of flux's commands.

    No system check runs before it: one that reads a table would need a migration first.
    """

    help = "Database migrations by flux: status, plan, apply, rollback and others."
    requires_system_checks = ()
    stealth_options = (*_OPTIONS, "skip_checks")

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        """Run a command line of `manage.py`, and end the process with flux's exit code."""
        words, options = _split(argv[2:])
        handle_default_options(options)
        host = DjangoHost(_prog(*argv[:2]), verbosity=options.verbosity)
        try:
            with _colours(vars(options)):
                code = cli.main(words, host)
        finally:
            connections.close_all()
        raise SystemExit(code)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print the help of all commands, for `manage.py help flux`."""
        _run(["--help"], DjangoHost(_prog(prog_name, subcommand), verbosity=1))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what `call_command` was given as it is."""
        parser.add_argument("args", nargs=argparse.REMAINDER)

    def handle(self, *words: str, **options: Any) -> None:
        """Run a command for `call_command`. Raises `CommandError`, which has the exit code."""
        host = DjangoHost("manage.py flux", verbosity=options["verbosity"])
        given = [*words, *_words(options)]
        out: Any = self.stdout
        err: Any = self.stderr
        out.ending = err.ending = ""  # they would end each piece of a line
        err.style_func = None
        with redirect_stdout(out), redirect_stderr(err), _colours(options):
            code = _run(given, host)
        if code:
            message = str(host.error or f"flux {' '.join(map(redact, given))} ended with {code}")
            raise CommandError(host.spell(message), returncode=code) from host.error


def _run(words: Sequence[str], host: DjangoHost) -> int:
    """`cli.main`, also where argparse ends it."""
    try:
        return cli.main(words, host)
    except SystemExit as end:
        return int(end.code or 0)


def _split(words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """flux's words of a command line, and the options that all of Django's commands have.

    `--traceback` is flux's own. There are no checks that `--skip-checks` could leave out.
    """
    parser = argparse.ArgumentParser(prog="manage.py flux", add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    parser.add_argument("--skip-checks", action="store_true")
    parser.add_argument("-v", "--verbosity", type=int, choices=range(4), default=1)
    colours = parser.add_mutually_exclusive_group()
    colours.add_argument("--no-color", action="store_true")
    colours.add_argument("--force-color", action="store_true")
    options, ours = parser.parse_known_args(words)
    return ours, options


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """The options that `call_command` was given by name, as words of a command line."""
    for name in _OPTIONS:
        option, value = f"--{name.replace('_', '-')}", options.get(name)
        if value is True:
            yield option
        elif isinstance(value, list | tuple):  # one that may be given again
            yield from (f"{option}={one}" for one in value)
        elif value is not None and value is not False:
            yield f"{option}={value}"


def _prog(program: str, command: str) -> str:
    return f"{os.path.basename(program)} {command}"


@contextmanager
def _colours(options: Mapping[str, Any]) -> Iterator[None]:
    """Say to flux by its variables what Django's two options say."""
    wanted = {}
    if options["no_color"]:
        wanted = {"NO_COLOR": "1"}
    elif options["force_color"]:
        wanted = {"NO_COLOR": "", "FORCE_COLOR": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
