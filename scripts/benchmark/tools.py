"""What is compared: flux, the floors, and what all tools have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from benchmark.changes import Change, text
from benchmark.environments import Environment
from benchmark.processes import PROGRAMS, Command

Dialect = Literal["postgres", "sqlite"]


class Place(NamedTuple):
    """A project of one tool, and its database by its URL."""

    directory: Path
    dialect: Dialect
    url: str


class Tool:
    """A tool, how it wants its project, and its commands; None for what it does not do."""

    name: str
    version: str = ""
    dialects: tuple[Dialect, ...] = ("postgres", "sqlite")

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """Write a project with these changes into an empty directory."""
        raise NotImplementedError

    def apply(self, place: Place) -> Command | None:
        """Apply all that is pending."""
        raise NotImplementedError

    def nothing(self, place: Place) -> Command | None:
        """Apply where nothing is pending."""
        return self.apply(place)

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command | None:
        """Undo these, which are the newest."""
        return None

    def status(self, place: Place) -> Command | None:
        """Say what is applied."""
        return None

    def help(self, place: Place) -> Command | None:
        """Say what there is to say."""
        return None

    def inside(self, place: Place) -> Command | None:
        """A program that applies what is pending each time it is asked."""
        return None

    def _command(self, place: Place, *words: str) -> Command:
        return Command(words, place.directory, {**self.environment.variables, **self._told(place)})

    def _told(self, place: Place) -> dict[str, str]:
        """What the tool reads of its environment."""
        return {"DATABASE_URL": place.url}

    def _inside(self, place: Place, program: str) -> Command:
        return self._command(
            place, self.environment.python, str(PROGRAMS / "inside.py"), program, place.url
        )


class Flux(Tool):
    """flux, as the checkout has it."""

    name = "flux"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files, each with its undo."""
        (place.directory / "flux.toml").write_text(f'[flux]\nbackend = "{place.dialect}"\n')
        migrations = place.directory / "migrations"
        migrations.mkdir()
        for change in changes:
            (migrations / f"{change.id}.sql").write_text(text(change.apply))
            (migrations / f"{change.id}.undo.sql").write_text(text(change.undo))

    def apply(self, place: Place) -> Command:
        return self._flux(place, "apply", "-y")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._flux(place, "rollback", "-y", place.url, str(len(changes)))

    def status(self, place: Place) -> Command:
        return self._flux(place, "status")

    def validate(self, place: Place) -> Command:
        """Check the directory, and the history against it."""
        return self._flux(place, "validate")

    def help(self, place: Place) -> Command:
        return self._flux(place, "--help")

    def inside(self, place: Place) -> Command:
        return self._inside(place, "inside_flux")

    def _flux(self, place: Place, *words: str) -> Command:
        return self._command(place, self.environment.program("flux"), *words)

    def _told(self, place: Place) -> dict[str, str]:
        return {"FLUX_DATABASE_URL": place.url}


class FluxAsModule(Flux):
    """`python -m flux`."""

    name = "python -m flux"

    def _flux(self, place: Place, *words: str) -> Command:
        return self._command(place, self.environment.python, "-m", "flux", *words)


class PythonFlux(Flux):
    """flux with migrations in Python, whose functions return the text."""

    name = "flux, Python files"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """Python files, each with both directions."""
        super().write(place, ())
        for change in changes:
            (place.directory / "migrations" / f"{change.id}.py").write_text(
                f'def apply():\n    return """{text(change.apply)}"""\n\n\n'
                f'def undo():\n    return """{text(change.undo)}"""\n'
            )


class Floor(Tool):
    """The least that does the work: a loop over files, with each one's hash in a history."""

    name = "floor"

    def write(self, place: Place, changes: Sequence[Change]) -> None:
        """SQL files, each with its undo."""
        for change in changes:
            (place.directory / f"{change.id}.sql").write_text(text(change.apply))
            (place.directory / f"{change.id}.undo.sql").write_text(text(change.undo))

    def apply(self, place: Place) -> Command:
        return self._floor(place, f"{place.dialect}_apply")

    def nothing(self, place: Place) -> Command:
        """See that nothing is pending, and that every hash is as it was."""
        return self._floor(place, f"{place.dialect}_nothing")

    def rollback(self, place: Place, changes: Sequence[Change]) -> Command:
        return self._floor(place, f"{place.dialect}_rollback", str(len(changes)))

    def status(self, place: Place) -> Command:
        """Read the history, and not the files."""
        return self._floor(place, f"{place.dialect}_history")

    def empty(self, place: Place) -> Command:
        """A Python that does nothing."""
        return self._command(place, self.environment.python, "-c", "pass")

    def inside(self, place: Place) -> Command:
        return self._inside(place, f"{place.dialect}_nothing")

    def _floor(self, place: Place, program: str, *words: str) -> Command:
        path = str(PROGRAMS / f"{program}.py")
        return self._command(place, self.environment.python, path, place.url, *words)


class BatchedFloor(Floor):
    """The same with fifty migrations in each message to the server."""

    name = "floor, batched"
    dialects = ("postgres",)

    def apply(self, place: Place) -> Command:
        return self._floor(place, "postgres_apply_batched")
