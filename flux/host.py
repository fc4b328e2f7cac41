"""Where the command line is given: in a shell, or inside of a framework's own.

A host says which options name the configuration and the database, and what they stand for. All
else about the commands is the same everywhere.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from flux.config import FluxConfig
    from flux.exceptions import FluxMigrationException

#: Those that `flux completion` has a script for.
SHELLS = ("bash", "zsh", "fish")


def spell(text: str, prog: str) -> str:
    """A text whose commands in backquotes are called `prog`. Pure."""
    return text.replace("`flux ", f"`{prog} ")


class Host:
    """A framework's: the configuration and the database come from its settings."""

    #: How the command line is called, for its help.
    prog = "flux"

    def declare_commands(self, command: Callable[..., None]) -> None:
        """Add the commands that this host alone has.

        `command` takes name, summary, example, and what declares the arguments of its parser.
        """

    def declare_config(self, command: argparse.ArgumentParser) -> None:
        """Add the options that say which configuration, to every command."""

    def declare_database(self, command: argparse.ArgumentParser) -> None:
        """Add the arguments that say which database, to the commands that use one."""

    def config(self, arguments: argparse.Namespace) -> FluxConfig:
        """The configuration that is meant. Raises `InvalidConfigurationError`."""
        raise NotImplementedError

    def database(self, arguments: argparse.Namespace) -> Any:
        """The address or the open connection that is meant; None for the configuration's."""
        return None

    def spell(self, text: str) -> str:
        """A text whose commands in backquotes are called as they are here. Pure."""
        return spell(text, self.prog)

    def note_error(self, error: FluxMigrationException) -> None:
        """Take note of what ended the command; it was shown already."""


class Shell(Host):
    """flux's own: a file and an address."""

    def declare_commands(self, command: Callable[..., None]) -> None:
        """Add `init` and `completion`: a framework has settings, and completion, of its own."""
        command("init", "write a commented flux.toml", "init postgres", _declare_init)
        command(
            "completion",
            "write the script that completes flux in a shell",
            "completion bash",
            _declare_completion,
        )

    def declare_config(self, command: argparse.ArgumentParser) -> None:
        """Add `--config`."""
        command.add_argument(
            "--config", metavar="PATH", help="the configuration file; default: flux.toml"
        )

    def declare_database(self, command: argparse.ArgumentParser) -> None:
        """Add the address, which may be left out."""
        command.add_argument(
            "uri",
            nargs="?",
            metavar="URI",
            help="the database's address; default: FLUX_DATABASE_URL, else database_url in the "
            "file",
        )

    def config(self, arguments: argparse.Namespace) -> FluxConfig:
        """The file that was named, or the project's."""
        from flux.config import FluxConfig, find_config_file

        return FluxConfig.from_file(arguments.config or find_config_file())

    def database(self, arguments: argparse.Namespace) -> Any:
        """The address that was given."""
        return getattr(arguments, "uri", None)


def _declare_init(init: argparse.ArgumentParser, host: Host) -> None:
    init.add_argument(
        "backend", nargs="?", default="sqlite", metavar="BACKEND", help="default: sqlite"
    )


def _declare_completion(completion: argparse.ArgumentParser, host: Host) -> None:
    completion.add_argument(
        "shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}"
    )
