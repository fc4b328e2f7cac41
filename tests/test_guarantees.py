"""docs/guarantees.md names the test that shows each promise; the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
_NAMED = re.compile(r"`(tests/\w+\.py)?(?:::(\w+))?`")


def _promises() -> list[str]:
    """The paragraphs that begin with a promise."""
    return [part for part in PAGE.split("\n\n") if part.startswith("**")]


def _named(promise: str) -> list[tuple[str, str]]:
    """The files and tests that a promise names; `::test` alone is in the file named before."""
    found, file = [], ""
    for match in _NAMED.finditer(promise):
        file = match[1] or file
        if file and (match[1] or match[2]):
            found.append((file, match[2] or ""))
    return found


def _tests_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", _promises(), ids=lambda promise: str(promise)[2:50])
def test_each_promise_names_tests_that_are_there(promise: str) -> None:
    named = _named(promise)
    assert named != []
    assert [(file, test) for file, test in named if test and test not in _tests_in(file)] == []


def test_there_are_promises() -> None:
    assert len(_promises()) > 15
