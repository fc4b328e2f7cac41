"""Completion in bash, zsh and fish, by argcomplete: the script for a shell, and what it asks flux.

What is completed comes from the parser and from file names. No database is opened, no migration
run, and whatever goes wrong is kept from the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from flux.exceptions import FluxMigrationException, InvalidConfigurationError

if TYPE_CHECKING:
    import argparse

#: The names that the command has.
_PROGRAMS = ("flux", "flux-migrations")


def script(shell: str) -> str:
    """The script that makes `bash`, `zsh` or `fish` ask flux for completions.

    Raises `InvalidConfigurationError` where argcomplete is not installed.
    """
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise InvalidConfigurationError(
            "completion needs the package argcomplete, which is not installed",
            hint='pip install "flux-migrations[completion]", where this flux is installed',
        ) from error
    # Without bash's own defaults: file names are no ids.
    return shellcode(_PROGRAMS, use_defaults=False, shell=shell)


def complete(parser: argparse.ArgumentParser) -> NoReturn:
    """Give the shell what the command line that it has so far can go on with, and end flux.

    It reads the environment that argcomplete's scripts set, and ends the process.
    """
    try:
        from argcomplete import autocomplete

        autocomplete(
            parser,
            always_complete_options="long",
            default_completer=_candidates,  # type: ignore[arg-type] # any function of these will do
        )
    except Exception:  # noqa: S110 - a traceback in the middle of a prompt helps nobody
        pass
    raise SystemExit(1)


def _candidates(
    *, prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **_: Any
) -> Iterable[str]:
    """What may stand for an argument, by its name."""
    find = _FINDERS.get(action.dest)
    try:
        return find(prefix, parsed_args) if find else ()
    except FluxMigrationException:
        return ()


def _files(prefix: str, _: argparse.Namespace) -> Iterable[str]:
    from argcomplete.completers import FilesCompleter

    return FilesCompleter()(prefix)


def _backends(*_: Any) -> Iterable[str]:
    from flux.backends import names

    return names()


def _ids(_: str, arguments: argparse.Namespace) -> Iterable[str]:
    """The ids on disk in their order; for a rollback the newest first, without the newest itself.

    Above that one there is nothing that a rollback to it could undo.
    """
    from flux.config import FluxConfig, find_config_file
    from flux.directory import list_ids
    from flux.migration import sort_key

    config = FluxConfig.from_file(getattr(arguments, "config", None) or find_config_file())
    ids = sorted(list_ids(config.migration_directory), key=sort_key(config.order))
    return ids[-2::-1] if arguments.command == "rollback" else ids


_FINDERS: dict[str, Callable[[str, argparse.Namespace], Iterable[str]]] = {
    "uri": _files,
    "config": _files,
    "backend": _backends,
    "to": _ids,
}
