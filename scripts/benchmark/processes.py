"""Running commands: how long each takes, what of it is CPU, and its peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmark.environments import PLAIN

PROGRAMS = Path(__file__).with_name("programs")


class Command(NamedTuple):
    """A command line, where it runs, and what it has in its environment besides."""

    words: tuple[str, ...]
    directory: Path
    variables: Mapping[str, str] = {}


class Sample(NamedTuple):
    """What one run took: seconds, seconds of CPU (its own and its children's), bytes at its peak.

    The CPU and the memory of what runs inside a program for long are not known, and 0.
    """

    seconds: float
    cpu: float = 0
    memory: int = 0


class CommandFailedError(Exception):
    """A command failed; the message has it and what it said."""


class Runner:
    """Runs commands to their end, by a small process of its own.

    What a process has needed at its peak counts from the process that starts it, until it is
    another program. So the one that starts is smaller than any that is measured.
    """

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output

    def run(self, command: Command) -> Sample:
        """Run a command, which must succeed."""
        assert self._process.stdin
        assert self._process.stdout
        job = {
            "words": command.words,
            "directory": str(command.directory),
            "variables": {**PLAIN, **command.variables},
            "output": str(self._output),
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code, *sample = json.loads(self._process.stdout.readline())
        if code != 0:
            said = self._output.read_text("utf-8", "replace")[-3000:]
            raise CommandFailedError(f"{' '.join(command.words)} ended with {code}:\n{said}")
        return Sample(*sample)


@contextmanager
def running(work: Path) -> Iterator[Runner]:
    """A runner, which writes what the last command said into a file in `work`."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", PROGRAMS / "starter.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Runner(process, work / "output.txt")
        process.communicate()


class Resident:
    """A program that goes on running, and does its work each time it is asked to."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self._process = process
        self._said = said

    def ask(self) -> Sample:
        """Have it do its work once."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise CommandFailedError(self._said.read_text("utf-8", "replace")[-3000:])
        return Sample(float(line))


@contextmanager
def resident(command: Command, said: Path) -> Iterator[Resident]:
    """A program that has done its work once already; `said` is where its errors go."""
    with (
        said.open("w") as errors,
        subprocess.Popen(
            command.words,
            cwd=command.directory,
            env={**PLAIN, **command.variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        program = Resident(process, said)
        program.ask()
        yield program
        process.communicate()
