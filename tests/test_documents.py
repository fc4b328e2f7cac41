"""The reader of the documentation notices what is not true."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.documents import databases, programs, read_blocks, read_commands, reader

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it types into a POSIX shell")


def _follow(directory: Path, page: str) -> None:
    with reader(directory, {}, []) as somebody:
        somebody.follow(read_blocks(page))


def test_a_true_page(tmp_path: Path) -> None:
    """Files, the shell's memory, exit codes, times and `…`, all in one page."""
    _follow(
        tmp_path,
        "Write this into `a/b.txt`:\n\n```text\none\ntwo\n```\n\n"
        "```sh\n# a remark\nexport NAME=me\ncd a  # stays\n```\n\n"
        "```console\n$ cat b.txt\none\n…\n$ echo $NAME took \\\n> 12 ms\nme took 3.5 s\n"
        "$ (exit 4)\n…\n$ echo $?\n4\n```\n"
        "```python\nopen('c', 'w').close()\n```\n```sql\nSELECT 1;\n```\n",
    )
    assert (tmp_path / "a" / "b.txt").read_text("utf-8") == "one\ntwo\n"
    assert (tmp_path / "c").exists()
    assert (tmp_path / "app.db").exists()


@pytest.mark.parametrize(
    ("page", "says"),
    [
        pytest.param("```console\n$ echo 1\n2\n```", "'echo 1' gives\n1\n", id="other output"),
        pytest.param("```console\n$ echo 1\n1\n2\n```", "'echo 1' gives\n1\n", id="less output"),
        pytest.param("```sh\nls nowhere\n```", "fails with 2", id="a failure"),
        pytest.param("```console\n$ false\n…\n$ true\n```", "failed with 1", id="not mentioned"),
        pytest.param("```console\n$ false\n…\n```", "failed with 1", id="a failure at the end"),
        pytest.param("```sh\npip install (\n```", "no shell reads", id="not run, and wrong"),
        pytest.param("```sh\nexit\n```", "ended the shell", id="no shell any more"),
        pytest.param("```python\nimport nothing\n```", "No module named", id="Python"),
        pytest.param("```console\nflux\n```", "of no command", id="no prompt"),
        pytest.param(
            "`examples/bookshop/flux.toml`:\n\n```toml\nx = 1\n```",
            "not stand in",
            id="not in a file",
        ),
    ],
)
def test_a_page_that_is_not_true(tmp_path: Path, page: str, says: str) -> None:
    with pytest.raises(AssertionError, match=r"line 1|line 3|last command") as caught:
        _follow(tmp_path, page)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("flux apply", {"flux"}),
        ("NAME=1 pip install x && flux status # docker", {"pip", "flux"}),
        ("cat a | sort > b; echo 'docker run'", {"cat", "sort", "echo"}),
        ("python -m pip install x", {"python", "pip"}),
        ("if flux status 2>&1; then\n  kubectl get\nfi", {"flux", "kubectl"}),
    ],
)
def test_which_programs_a_command_starts(command: str, found: set[str]) -> None:
    assert programs(command) == found


def test_lines_that_belong_together_are_one_command() -> None:
    [block] = read_blocks("```sh\nfor x in 1 2\ndo\n  echo $x\ndone\nls\n```")
    assert [command.text for command in read_commands(block)] == [
        "for x in 1 2\ndo\n  echo $x\ndone",
        "ls",
    ]


def test_a_name_before_a_block_is_a_file_where_its_ending_is_that_of_the_language() -> None:
    page = "of `flux.plan`:\n\n```python\n```\n\n`a.py`:\n\n```python\n```\n`b.py`:\n\n```sql\n```"
    assert [block.file for block in read_blocks(page)] == [None, "a.py", None]


def test_the_databases_of_a_page() -> None:
    page = "```sh\nflux apply postgresql://user:password@localhost:5432/shop?sslmode=require\n```"
    assert databases(read_blocks(page)) == ["shop"]
