"""The documentation is true: its commands and its code run, and it names all there is, no more."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

import flux
from flux import FluxConfig, MigrationBackend, exceptions, exit_codes
from flux.arguments import build_parser
from flux.backends import load_backend
from flux.exceptions import FluxMigrationException, InvalidConfigurationError
from flux.host import Shell
from tests.conftest import unavailable
from tests.documents import DOCS, LANGUAGES, PAGES, ROOT, databases, read_blocks, reader
from tests.postgres_server import PostgresServer, own_database

BACKENDS = ("postgres", "sqlite")

# What the pages show is run -----------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="the pages are written for a POSIX shell")
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """From top to end, in a new directory, as `tests/documents.py` says."""
    if shutil.which("bash") is None:
        unavailable("documentation: there is no bash")
    blocks = read_blocks(PAGES[page].read_text("utf-8"))
    strange = [(block.line, block.language) for block in blocks if block.language not in LANGUAGES]
    assert strange == [], "a block is fenced, and names one of the languages of tests/documents.py"
    with ExitStack() as stack:
        urls, path = {}, []
        if names := databases(blocks):
            server: PostgresServer = request.getfixturevalue("server")
            path = [str(server.bin_dir)]
            for name in names:
                urls[name] = server.url(stack.enter_context(own_database(server)).database)
        stack.enter_context(reader(tmp_path, urls, path)).follow(blocks)


def _code_spans(text: str) -> list[str]:
    """What stands between backticks in the sentences and tables of a page."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    return [child.content for child in inline if child.type == "code_inline"]


def _as_typed(span: str) -> list[str] | None:
    """The arguments in `flux apply N`, with something in place of N; None where it is no command.

    A command alone is named and not typed: `flux new` takes more.
    """
    span = span.partition("|")[0]
    words = shlex.split(span) if re.match(r"flux [a-z-]", span) and "…" not in span else []
    if len(words) < 3 and words[1:] and words[1] in _commands():
        return None
    return [re.sub(r"^(N|SECONDS)$", "1", word) for word in words[1:]] or None


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_are_ones(page: str) -> None:
    """`flux status --check` in a sentence is a command line that flux takes."""
    wrong = []
    for span in _code_spans(PAGES[page].read_text("utf-8")):
        if (arguments := _as_typed(span)) is None:
            continue
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                build_parser(Shell()).parse_args(arguments)
            except SystemExit as end:
                wrong += [span] if end.code else []
    assert wrong == []


# Nothing is left out, and nothing is made up ------------------------------------------------


def _sections(page: str) -> dict[str, str]:
    """The text below each heading of a page, to the next one."""
    parts = re.split(r"(?m)^#+ (.*)\n", (DOCS / page).read_text("utf-8"))
    return {
        heading.strip("`"): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _first_column(text: str) -> set[str]:
    """What stands between backticks in the first column of the tables."""
    rows = re.findall(r"(?m)^\| *(`.*?) *\|", text)
    return {span for row in rows for span in re.findall(r"`([^`]*)`", row)}


def _commands() -> dict[str, argparse.ArgumentParser]:
    [action] = [
        action
        for action in build_parser(Shell())._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(action.choices)


def _words_of(parser: argparse.ArgumentParser) -> set[str]:
    """The arguments of a command as its help writes them: `URI`, `--to ID`, `-y`."""
    words = set()
    for action in parser._actions:
        if not action.option_strings:
            words.add(str(action.metavar))
        value = f" {action.metavar}" if action.nargs != 0 else ""
        words |= {f"{option}{value}" for option in action.option_strings}
    return words


#: Those of every command; a section of their own says what they are.
_EVERYWHERE = {"-h", "--help", "--config PATH", "--traceback"}


def test_every_command_has_a_section() -> None:
    documented = {name for name in _sections("commands.md") if name.startswith("flux ")}
    assert documented == {f"flux {name}" for name in _commands()}


@pytest.mark.parametrize("command", _commands())
def test_every_argument_of_a_command_is_documented(command: str) -> None:
    section = _sections("commands.md").get(f"flux {command}", "")
    assert _first_column(section) == _words_of(_commands()[command]) - _EVERYWHERE


def test_the_arguments_of_every_command_are_documented() -> None:
    assert _first_column(_sections("commands.md")["Every command"]) == _EVERYWHERE
    lacking = {name: _EVERYWHERE - _words_of(parser) for name, parser in _commands().items()}
    assert [name for name, words in lacking.items() if words] == []


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_every_exit_code_is_documented(page: str) -> None:
    text = PAGES[page].read_text("utf-8")
    rows = re.findall(r"(?m)^\| (\d[\d, ]*) \|", text)
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert {int(code) for row in rows for code in row.split(",")} == codes


#: Fields of a configuration that no file sets.
_NO_SETTINGS = {"backend_config", "directory", "path"}


def test_every_setting_is_documented() -> None:
    documented = _first_column(_sections("configuration.md")["[flux]"])
    assert documented == {*FluxConfig._fields} - _NO_SETTINGS


def _settings_of(backend: str) -> set[str]:
    """The settings that a backend knows, as it tells them to somebody who gives another one."""
    unknown = FluxConfig(backend=backend, backend_config={"?": 0})
    try:
        load_backend(backend).from_config(unknown, f"{backend}://")
    except InvalidConfigurationError as error:
        return set(str(error.hint).removeprefix("there are: ").split(", "))
    raise AssertionError("a backend refuses settings that it does not know")


@pytest.mark.parametrize(("backend", "heading"), [("postgres", "PostgreSQL"), ("sqlite", "SQLite")])
def test_every_setting_of_a_backend_is_documented(backend: str, heading: str) -> None:
    assert _first_column(_sections("configuration.md")[heading]) == _settings_of(backend)


def _directives() -> set[str]:
    backends = [load_backend(name) for name in BACKENDS]
    return {name.replace("_", "-") for backend in backends for name in backend.directives}


@pytest.mark.parametrize("page", ["README.md", "docs/migrations.md"])
def test_every_directive_is_documented(page: str) -> None:
    parts = PAGES[page].read_text("utf-8").split("| directive | ")
    assert len(parts) == 2
    documented = _first_column(parts[1].partition("\n\n")[0])
    assert {name.partition("=")[0] for name in documented} == _directives()


def _public(module: object) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")}


def test_every_public_name_is_documented() -> None:
    text = (DOCS / "library.md").read_text("utf-8")
    assert [name for name in flux.__all__ if not re.search(rf"`(flux\.)?{name}\b", text)] == []


def test_every_exception_is_documented() -> None:
    there_are = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, FluxMigrationException)
    }
    documented = set(re.findall(r"`(\w+(?:Error|Exception))`", _sections("library.md")["Errors"]))
    assert documented - {"ValueError", "RuntimeError"} == there_are


def test_every_method_of_a_runner_is_documented() -> None:
    names = {
        name.partition("(")[0] for name in _first_column(_sections("library.md")["FluxRunner"])
    }
    public = {
        name
        for name, value in vars(flux.FluxRunner).items()
        if not name.startswith("_") and callable(value)
    }
    assert names == public


def test_every_name_of_a_backend_is_documented() -> None:
    guide = (DOCS / "backends.md").read_text("utf-8")
    assert {name for name in _public(MigrationBackend) if f"`{name}" not in guide} == set()


# The site -----------------------------------------------------------------------------------


def test_the_site_is_built(tmp_path: Path) -> None:
    """Strictly: a link or an anchor that leads nowhere fails, and so does a page in no menu."""
    if importlib.util.find_spec("mkdocs") is None:
        unavailable("documentation: MkDocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    written = {
        path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")
    }
    assert written <= pages
    assert list(_loaded_from_elsewhere(tmp_path)) == []


def _loaded_from_elsewhere(site: Path) -> Iterator[Any]:
    """Scripts, styles, pictures and fonts that a reader's browser would fetch from the network."""
    tag = r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=|url\(|@import "
    fetched = re.compile(rf"(?:{tag})[\"']?(?:https?:)?//[^\"') >]+")
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        yield from ((path.name, found[0]) for found in fetched.finditer(path.read_text("utf-8")))
