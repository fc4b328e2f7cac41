"""Completion in a shell: at a real prompt, and quiet whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.flux_process import flux_environment
from tests.project import Project
from tests.shells import TAB, ShellUnavailableError, at_shell, find_shell
from tests.terminal import posix_only

pytestmark = posix_only
KILL_LINE = "\x15"
SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def shop(project: Project) -> Project:
    project.add({"001_book.sql": "", "002_author.sql": "", "010_shelf.sql": ""})
    return project


def require(shell: str) -> None:
    try:
        find_shell(shell)
    except ShellUnavailableError as error:
        unavailable(str(error))


# At a prompt --------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["flux", "flux-migrations"])
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_command_option_and_id(
    shop: Project, tmp_path_factory: pytest.TempPathFactory, shell: str, program: str
) -> None:
    """What the line became is what flux then runs: a part of an id would be refused."""
    require(shell)
    with at_shell(shell, tmp_path_factory.mktemp("home"), shop.root) as terminal:
        terminal.type(f"{program} pl{TAB}--t{TAB}")
        terminal.read_until("--t")
        terminal.type("o 002" + TAB + "\n")
        shown = terminal.read_until("apply  002_author")
    assert "apply  001_book" in shown
    assert not shop.database.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_lists_the_ids_that_a_rollback_can_go_back_to(
    shop: Project, tmp_path_factory: pytest.TempPathFactory, shell: str
) -> None:
    require(shell)
    with at_shell(shell, tmp_path_factory.mktemp("home"), shop.root) as terminal:
        terminal.type(f"flux rollback --to 00{TAB}{TAB}")
        shown = terminal.read_until("001_book")
        if "002_author" not in shown:
            shown += terminal.read_until("002_author")
    assert "010_shelf" not in shown


@pytest.mark.parametrize("shell", SHELLS)
def test_a_broken_project_is_no_noise_at_the_prompt(
    shop: Project, tmp_path_factory: pytest.TempPathFactory, shell: str
) -> None:
    require(shell)
    shop.write("flux.toml", "not TOML")
    with at_shell(shell, tmp_path_factory.mktemp("home"), shop.root) as terminal:
        sum_of = "(math 20 + 22)" if shell == "fish" else "$((20 + 22))"
        terminal.type(f"flux apply --to 0{TAB}{KILL_LINE}echo still {sum_of}\n")
        shown = terminal.read_until("still 42")
    assert "Traceback" not in shown
    assert "TOML" not in shown


# What flux answers --------------------------------------------------------------------------


def completions(directory: Path, line: str, **environment: str) -> list[str]:
    """What flux gives for a line, asked as argcomplete's scripts ask: on file descriptor 8."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m flux 8>&1 9>/dev/null 1>/dev/null', sys.executable],
        cwd=directory,
        env=flux_environment(
            {
                "_ARGCOMPLETE": "1",
                "_ARGCOMPLETE_IFS": "\n",
                "_ARGCOMPLETE_SHELL": "bash",
                "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
                "COMP_LINE": line,
                "COMP_POINT": str(len(line)),
                **environment,
            }
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split("\n") if done.stdout else []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("flux ro", ["rollback"], id="a command"),
        pytest.param("flux apply --au", ["--auto-approve"], id="an option"),
        pytest.param("flux apply --to ", ["001_book", "002_author", "010_shelf"], id="ids"),
        pytest.param("flux plan --to=01", ["--to=010_shelf"], id="an id after ="),
        pytest.param("flux rollback --to ", ["002_author", "001_book"], id="ids to go back to"),
        pytest.param("flux apply --config other.toml --to ", ["9_x", "10_x"], id="another file"),
        pytest.param("flux init p", ["postgres"], id="a backend"),
        pytest.param("flux completion f", ["fish"], id="a shell"),
        pytest.param("flux status flux", ["flux.toml"], id="an address as a file"),
        pytest.param("flux plan --config oth", ["other.toml"], id="a configuration as a file"),
        pytest.param("flux apply --lock-wait ", [], id="a number"),
        pytest.param("flux new --sql x", [], id="a name"),
        pytest.param("flux apply --config nowhere.toml --to ", [], id="no such file"),
    ],
)
def test_what_is_completed(shop: Project, line: str, expected: list[str]) -> None:
    shop.write(
        "other.toml", '[flux]\nbackend = "sqlite"\nmigration_directory = "m"\norder = "natural"\n'
    )
    for name in ("10_x.sql", "9_x.py", "9_x.txt", "_helper.py"):
        shop.write(f"m/{name}", "raise Exception('a migration is not run')")
    before = shop.files()
    assert completions(shop.root, line) == expected
    assert shop.files() == before


def test_the_help_of_a_command_is_shown_beside_it(shop: Project) -> None:
    found = completions(shop.root, "flux st", _ARGCOMPLETE_DFS="\t", _ARGCOMPLETE_SHELL="fish")
    assert found == ["status\tshow every migration and its state"]


def test_no_file_to_configure_flux_is_no_noise(tmp_path: Path) -> None:
    assert completions(tmp_path, "flux apply --to ") == []


# Without the library ------------------------------------------------------------------------


@pytest.fixture
def without_library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which argcomplete cannot be imported, as where it is not installed."""
    home = tmp_path_factory.mktemp("broken")
    (home / "argcomplete.py").write_text("raise ModuleNotFoundError(\"No module 'argcomplete'\")")
    return {"PYTHONPATH": str(home)}


def test_without_the_library_the_command_says_what_to_install(
    project: Project, without_library: dict[str, str]
) -> None:
    result = project.run("completion", "bash", env=without_library)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: completion needs the package argcomplete, which is not installed\n"
        'hint: pip install "flux-migrations[completion]", where this flux is installed\n'
    )


def test_without_the_library_nothing_runs_in_its_place(
    shop: Project, without_library: dict[str, str]
) -> None:
    """A script in a shell's own files outlives the library; TAB must not run a command then."""
    before = shop.files()
    assert completions(shop.root, "flux apply ", **without_library) == []
    assert shop.files() == before


def test_a_shell_that_has_no_script(project: Project) -> None:
    assert "(choose from 'bash', 'zsh', 'fish')" in project.fail("completion", "tcsh", code=2)
