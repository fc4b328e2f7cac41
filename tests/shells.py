"""bash, zsh and fish at a pseudo-terminal, each set up as the guide says, and TAB pressed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flux_process import flux_environment
from tests.project import HANGS_AFTER
from tests.terminal import Terminal

SCRIPT = Path(__file__).parent.parent / "scripts" / "shell"
TAB = "\t"
READY = "ready> "

#: What stands in the shell's own file, where it is, and how the shell is told to read it.
_SETUP = {
    "bash": ("bashrc", "PS1='{ready}'\nbind 'set bell-style none'\n"),
    "zsh": (".zshrc", "PROMPT='{ready}'\nautoload -U compinit && compinit -u -D\n"),
    "fish": (
        "fish/config.fish",
        "function fish_prompt; echo -n '{ready}'; end\nset fish_greeting\n",
    ),
}
_LOAD = {
    "bash": 'eval "$(flux completion bash)"\n',
    "zsh": 'eval "$(flux completion zsh)"\n',
    "fish": "flux completion fish | source\n",
}


class ShellUnavailableError(Exception):
    """A shell cannot be run here; the message says why."""


class ShellTerminal(Terminal):
    """A shell at a pseudo-terminal; what it shows is without colours and movements."""

    def _read(self) -> str:
        before = len(self.shown)
        piece = super()._read()
        # Of a sequence that is cut in two, what is left is not what a test looks for.
        plain = re.sub(r"\x1b(?:\[[0-9;?>=]*[a-zA-Z]|\][^\x07]*\x07|[()].|[=>78M])", "", piece)
        self.shown = self.shown[:before] + plain
        return plain or (" " if piece else "")


def find_shell(name: str) -> str:
    """The path of a shell: the installed one, or Debian's package.

    Raises: ShellUnavailableError when there is none.
    """
    if found := shutil.which(name):
        return found
    try:
        done = subprocess.run(
            [SCRIPT, name], capture_output=True, encoding="utf-8", check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShellUnavailableError(f"{name}: scripts/shell: {error}") from None
    if done.returncode != 0:
        raise ShellUnavailableError(f"{name}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def at_shell(name: str, home: Path, directory: Path) -> Iterator[ShellTerminal]:
    """A shell in `directory`, whose own files are in `home`, with flux and its completion."""
    import pty

    program = find_shell(name)
    file, setup = _SETUP[name]
    path = home / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(setup.replace("{ready}", READY) + _LOAD[name])
    command = [program, "-i"]
    if name == "bash":
        command = [program, "--rcfile", str(path), "-i"]
    elif name == "zsh" and (unpacked := Path(program).with_name("setup")).exists():
        (home / ".zshenv").write_text(unpacked.read_text())
    environment = flux_environment(
        {
            "HOME": str(home),
            "ZDOTDIR": str(home),
            "XDG_CONFIG_HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "TERM": "xterm",
            "COLUMNS": None,
        }
    )
    master, slave = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,
    ) as process:
        os.close(slave)
        watchdog = threading.Timer(HANGS_AFTER, process.kill)
        watchdog.start()
        try:
            terminal = ShellTerminal(process, master)
            terminal.resize(columns=100)
            terminal.read_until(READY)
            yield terminal
        finally:
            process.kill()
            os.close(master)
            watchdog.cancel()


def _take_terminal() -> None:
    """Make standard input the terminal of the session, as job control wants it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
