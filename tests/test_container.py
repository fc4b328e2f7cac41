"""The files of the container image agree with the project. `make test-image` builds and runs it."""

from __future__ import annotations

import re
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "container"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def instructions(dockerfile: Path) -> list[tuple[str, list[str]]]:
    """Each instruction of a Dockerfile with its words."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines if line.strip()]


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile copies out of the directory that it is built in."""
    return [
        source
        for name, words in instructions(dockerfile)
        if name == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    ]


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path of the top level out: the last line that fits decides."""
    answer = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.lstrip("!")):
            answer = not line.startswith("!")
    return answer


def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
    return loaded["services"]  # type: ignore[no-any-return] # YAML has no types


def test_the_drivers_are_extras_of_the_project() -> None:
    run = [
        word for name, words in instructions(ROOT / "Dockerfile") if name == "RUN" for word in words
    ]
    extras = next(re.findall(r"\w+", word) for word in run if word.startswith(".["))
    assert set(extras) <= set(PYPROJECT["project"]["optional-dependencies"])


def test_the_entry_point_is_a_command_of_the_project() -> None:
    (entrypoint,) = (
        words for name, words in instructions(ROOT / "Dockerfile") if name == "ENTRYPOINT"
    )
    assert entrypoint == ["[flux]"]  # a list, so that flux is process 1, and no shell
    assert "flux" in PYPROJECT["project"]["scripts"]


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    """Neither the history of the project nor anyone's environment is sent to a container engine."""
    sources = copied(ROOT / "Dockerfile")
    assert [source for source in sources if ignored(source) or not (ROOT / source).exists()] == []
    others = {path.name for path in ROOT.iterdir()} - set(sources)
    assert "tests" in others
    assert [name for name in others | {".git", ".venv", ".env"} if not ignored(name)] == []


def test_the_build_copies_what_the_wheel_is_made_of() -> None:
    named = [PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"]]
    assert {"pyproject.toml", "flux", *named} == set(copied(ROOT / "Dockerfile"))


def test_the_example_copies_what_is_there() -> None:
    assert all((EXAMPLE / source).exists() for source in copied(EXAMPLE / "Dockerfile"))


@pytest.mark.parametrize(
    ("service", "needs", "condition"),
    [
        ("flux", "database", "service_healthy"),
        ("app", "flux", "service_completed_successfully"),
    ],
)
def test_the_compose_file_starts_one_after_the_other(
    service: str, needs: str, condition: str
) -> None:
    assert services()[service]["depends_on"] == {needs: {"condition": condition}}


def test_the_compose_file_builds_this_image() -> None:
    assert (EXAMPLE / services()["flux"]["build"]).resolve() == ROOT
