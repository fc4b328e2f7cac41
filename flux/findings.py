"""What an examination finds: frozen records, and how grave each is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flux.exceptions import FluxMigrationException, Problem

_NAMES_SHOWN = 5

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at: how it stands, what it is about, and what to do.

    A `problem` would stop `apply`, a `warning` may bite later, `ok` is as it should be. `about` is
    one word (`config`, `rights`, …). `kind` is that of the `Problem` behind it, or None.
    """

    level: Level
    about: str
    message: str
    hint: str | None = None
    kind: str | None = None


def ok(about: str, message: str, hint: str | None = None) -> Finding:
    """Something that is as it should be; `hint` says what would be better still."""
    return Finding("ok", about, message, hint)


def warning(about: str, message: str, hint: str | None = None) -> Finding:
    """Something that lets `apply` run, and may bite later."""
    return Finding("warning", about, message, hint)


def problem(about: str, message: str, hint: str | None = None) -> Finding:
    """Something that would stop `apply`."""
    return Finding("problem", about, message, hint)


def of_problem(about: str, found: Problem) -> Finding:
    """The finding of a problem that another room has found, with its place in a file."""
    from flux.exceptions import describe

    return Finding(
        "problem", about, describe(found.message, found.location, None), found.hint, found.kind
    )


def of_error(about: str, error: FluxMigrationException) -> tuple[Finding, ...]:
    """The findings of an error: of each of its problems, or of itself."""
    from flux.exceptions import describe

    if error.problems:
        return tuple(of_problem(about, found) for found in error.problems)
    return (problem(about, describe(error.message, error.location, None), error.hint),)


def listed(names: Sequence[str]) -> str:
    """The first of several names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
