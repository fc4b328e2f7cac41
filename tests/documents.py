"""What stands in a page of the documentation, and a reader who tries it at a terminal.

A page is followed from its top to its end, in a new directory:

- a block after a sentence that ends in "`path`:" is that file, and is written; one in `examples/`
  or `tests/plugins/` is a file of the repository, of which the block shows a piece as it is;
- a `console` block is typed in, `$ ` by `$ `. Where it shows output, that is what has to come;
  `…` stands for anything. A command may fail only where the next one is `echo $?`;
- an `sh` block is typed in as well, without its output;
- a `python` block is run, an `sql` block runs on the page's database, and `json` and `toml` are
  read;
- all else (`text`, `yaml`, …) is only looked at.

The database is `app.db`. A page that names `postgresql://user:password@localhost:5432/app`, or a
database of another name there, gets new ones on a real server in their stead. In a page that uses
`flux new`, 20240422 is today.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tests.flux_process import flux_environment

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Every page by its path in the repository.
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
}
OF_REPOSITORY = ("examples/", "tests/plugins/")
LANGUAGES = {"console", "diff", "dockerfile", "html", "ini", "json", "python", "sh", "sql", "text"}
LANGUAGES |= {"toml", "yaml"}
#: What the name of a file ends in that is of this language.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "dockerfile": ("Dockerfile",),
    "html": (".html",),
    "ini": (".cfg", ".conf", ".ini", ".service", ".timer"),
    "json": (".json",),
    "python": (".py",),
    "sh": (".sh",),
    "sql": (".sql",),
    "text": (".txt",),
    "toml": (".toml",),
    "yaml": (".yaml", ".yml"),
}

#: Programs that are not run, and why; their lines need only be read by a shell without complaint.
NOT_RUN = {
    "docker": "needs a container engine, and images from a registry",
    "kubectl": "needs a cluster",
    "make": "the project's own verbs, which CI runs",
    "pip": "the tests' environment has what it installs",
    "scripts/kill-test": "takes minutes; a test of its own runs it shorter",
    "sudo": "changes the machine",
    "systemctl": "changes the machine",
}
TIMEOUT = 60  # seconds for one command

_ADDRESS = re.compile(r"postgresql://user:password@localhost:5432/(\w+)")
_FILE = re.compile(r"`([\w./-]+)`:$")
_DONE = "the-command-is-done"
#: After these words of the shell a command begins.
_KEYWORDS = {"!", "if", "then", "elif", "else", "while", "until", "do", "exec"}
#: What differs from run to run.
_VARYING = (
    (re.compile(r" *\b\d[\d.]* (?:ms|s|min)\b"), " TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+\d\d:?\d\d"), "WHEN"),
)


class Block(NamedTuple):
    """A fenced block of a page, and the file that it is, where it is one; 1-based line."""

    line: int
    language: str
    text: str
    file: str | None


class Command(NamedTuple):
    """A command of a block, and what a page shows of its output; None where it shows none."""

    text: str
    output: str | None = None


def read_blocks(text: str) -> list[Block]:
    """The blocks of a page. An indented one has the language ''."""
    blocks, before = [], ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "inline":
            before = token.content
        elif token.type in ("fence", "code_block"):
            line = token.map[0] + 1 if token.map else 0
            named = _FILE.search(before)
            file = named[1] if named and named[1].endswith(_endings(token.info)) else None
            blocks.append(Block(line, token.info, token.content, file))
            before = ""
    return blocks


def _endings(language: str) -> tuple[str, ...]:
    return _ENDINGS.get(language, ())


def read_commands(block: Block) -> list[Command]:
    """The commands of a `console` or `sh` block; lines that belong together are one command."""
    commands: list[Command] = []
    for line in block.text.splitlines():
        last = commands[-1] if commands else None
        if last and last.output is None and not _is_whole(last.text):
            commands[-1] = Command(f"{last.text}\n{line.removeprefix('> ')}")
        elif block.language == "console" and not line.startswith("$ "):
            assert last, f"{line!r} is the output of no command"
            commands[-1] = Command(last.text, f"{last.output or ''}{line}\n")
        elif line.strip() and not line.startswith("#"):
            commands.append(Command(line.removeprefix("$ ")))
    return commands


def _is_whole(command: str) -> bool:
    return not command.endswith("\\") and _shell_accepts(command)


def _shell_accepts(command: str) -> bool:
    check = ["bash", "-n", "-c", command]
    return subprocess.run(check, capture_output=True, check=False, timeout=TIMEOUT).returncode == 0


def programs(command: str) -> set[str]:
    """The programs that a command line starts, and the modules that Python runs for it."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found, at_start = set(), True
    for word in lexer:
        if word in _KEYWORDS or set(word) <= set("();&|{}"):
            at_start = True
        elif at_start and not re.match(r"\w+=", word):
            found.add(word)
            at_start = False
        elif word == "-m" and found & {"python", "python3"}:
            at_start = True
    return found


def databases(blocks: list[Block]) -> list[str]:
    """The names of the PostgreSQL databases that a page works in."""
    return sorted({name for block in blocks for name in _ADDRESS.findall(block.text)})


class Reader:
    """Somebody who follows a page in a directory, at a shell that stays open."""

    def __init__(
        self, directory: Path, shell: subprocess.Popen[str], urls: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.urls = urls
        self._shell = shell
        self._code = 0

    def follow(self, blocks: list[Block]) -> None:
        """Do what the page says, block by block. Raises `AssertionError` where it is not so."""
        renews_ids = any("flux new" in block.text for block in blocks)
        for block in blocks:
            text = _ADDRESS.sub(lambda match: self.urls[match[1]], block.text)
            file = block.file
            if renews_ids:
                today = f"{date.today():%Y%m%d}"
                text = text.replace("20240422", today)
                file = file and file.replace("20240422", today)
            try:
                self._follow(block._replace(text=text, file=file))
            except AssertionError as error:
                raise AssertionError(f"the block in line {block.line}: {error}") from None
        assert self._code == 0, f"the last command failed with {self._code}"

    def _follow(self, block: Block) -> None:
        if block.file is not None:
            self._have(block.file, block.text)
        elif block.language in ("console", "sh"):
            for command in read_commands(block):
                self._type(command)
        elif block.language == "python":
            self._run_python(block.text)
        elif block.language == "sql":
            self._run_sql(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)

    def _have(self, file: str, text: str) -> None:
        if file.startswith(OF_REPOSITORY):
            source = re.sub(r"  # type: ignore\[.*\]", "", (ROOT / file).read_text("utf-8"))
            assert text in source, f"this does not stand in {file}"
            return
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _type(self, command: Command) -> None:
        assert self._code == 0 or command.text == "echo $?", (
            f"the command before {command.text!r} failed with {self._code}"
        )
        if programs(command.text) & NOT_RUN.keys():
            assert _shell_accepts(command.text), f"no shell reads {command.text!r}"
            return
        output = self._answer(command.text)
        if command.output is not None:
            assert _resembles(output, command.output), (
                f"{command.text!r} gives\n{output}and not\n{command.output}"
            )
        assert self._code == 0 or command.output is not None, (
            f"{command.text!r} fails with {self._code}:\n{output}"
        )

    def _answer(self, command: str) -> str:
        """What a command writes; its exit code is kept, also for the shell's own `$?`."""
        shell = self._shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        watchdog = threading.Timer(TIMEOUT, _end, [shell])
        watchdog.start()
        try:
            done = f"echo {_DONE} $?"
            shell.stdin.write(f"(exit {self._code})\n{{ {command}\n}} </dev/null\n{done}\n")
            shell.stdin.flush()
            output = ""
            for line in shell.stdout:
                text, mark, code = line.partition(f"{_DONE} ")
                output += text
                if mark:
                    self._code = int(code)
                    return output
        finally:
            watchdog.cancel()
        raise AssertionError(f"{command!r} ended the shell, or ran for {TIMEOUT} s:\n{output}")

    def _run_python(self, source: str) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-"],
            input=source,
            cwd=self.directory,
            env=flux_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"Python fails:\n{done.stdout}"

    def _run_sql(self, text: str) -> None:
        if self.urls:
            import psycopg2

            url = self.urls.get("app") or next(iter(self.urls.values()))
            with closing(psycopg2.connect(url)) as server:
                server.autocommit = True
                server.cursor().execute(text)
        else:
            with closing(sqlite3.connect(self.directory / "app.db")) as database, database:
                database.executescript(text)


@contextmanager
def reader(directory: Path, urls: Mapping[str, str], path: list[str]) -> Iterator[Reader]:
    """A reader with an open shell, whose programs come from `path` before all others.

    What the page has started and left running is killed at the end.
    """
    search = os.pathsep.join([str(Path(sys.executable).parent), *path, os.environ["PATH"]])
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=directory,
        # Lines of processes that run at once must come whole.
        env=flux_environment({"PATH": search, "FLUX_DATABASE_URL": None, "PYTHONUNBUFFERED": None}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    with shell:
        try:
            yield Reader(directory, shell, urls)
        finally:
            _end(shell)


def _end(shell: subprocess.Popen[str]) -> None:
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _resembles(output: str, shown: str) -> bool:
    for pattern, word in _VARYING:
        output, shown = pattern.sub(word, output), pattern.sub(word, shown)
    lines = [re.escape(line.rstrip()) for line in shown.rstrip().split("\n")]
    wanted = "\n".join("(?s:.*?)" if line == "…" else line.replace("…", ".*?") for line in lines)
    actual = "\n".join(line.rstrip() for line in output.rstrip().split("\n"))
    return re.fullmatch(wanted, actual) is not None
