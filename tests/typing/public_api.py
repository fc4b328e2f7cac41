"""What users write against flux, for a type checker alone: nothing runs it.

`scripts/test-wheel` has mypy check it, with `--strict`, against the installed wheel. A line with
`type: ignore` must be an error: mypy reports an ignore that nothing needs.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from typing_extensions import assert_type

import flux
from flux import AppliedMigration, FluxConfig, FluxRunner, Migration, MigrationBackend
from flux.exceptions import FluxMigrationException, Location, MigrationApplyError, Problem
from flux.plan import Plan
from flux.results import BatchResult, Event, Status, StepResult

# One call ------------------------------------------------------------------------------------


def start_up(connection: sqlite3.Connection) -> tuple[str, ...]:
    """An address, a connection, or the configuration's database."""
    assert_type(flux.apply("sqlite:///app.db", "migrations"), BatchResult)
    assert_type(flux.apply(connection, Path("migrations"), to="001"), BatchResult)
    assert_type(flux.apply(config="flux.toml", n=1), BatchResult)
    flux.apply(config=FluxConfig(backend="sqlite"), on_event=tell)
    flux.apply("sqlite:///app.db", "migrations", FluxConfig())  # type: ignore[call-arg]
    flux.apply("sqlite:///app.db", n="1")  # type: ignore[arg-type]
    return flux.apply().applied


def tell(event: Event) -> None:
    """A callback."""
    assert_type(event.kind, Literal["start", "done", "wait", "warning", "progress"])
    assert_type(event.message, str)
    assert_type(event.seconds, float | None)
    if event.step is not None:
        assert_type(event.step.name, str)
    if event.progress is not None:
        assert_type(event.progress.location, Location)
        assert_type(event.progress.percent, int | None)
    event.message = ""  # type: ignore[misc]
    assert_type(event.kind == "finished", bool)  # type: ignore[comparison-overlap]


# A runner ------------------------------------------------------------------------------------


def run() -> None:
    """What it gives back."""
    with FluxRunner.from_file("flux.toml", "sqlite:///test.db") as runner:
        assert_type(runner, FluxRunner)
        assert_type(runner.status(), Status)
        assert_type(runner.status().pending, tuple[str, ...])
        assert_type(runner.status().problems, tuple[Problem, ...])
        assert_type(runner.list_applied_migrations(), list[Migration])
        assert_type(runner.list_unapplied_migrations(), list[Migration])
        assert_type(runner.history(), tuple[AppliedMigration, ...])
        assert_type(runner.plan_apply(1, to=None), Plan)
        assert_type(runner.plan_rollback(None), Plan)
        assert_type(runner.apply_migrations(1, confirm=approve), BatchResult)
        assert_type(runner.rollback_migrations(), BatchResult)
        assert_type(runner.resume_migration("skip"), BatchResult)
        for step in runner.apply_migrations().steps:
            assert_type(step, StepResult)
            assert_type(step.action, Literal["apply", "undo", "run"])
        for row in runner.history():
            assert_type(row.applied_at, datetime.datetime)
        runner.resume_migration("perhaps")  # type: ignore[arg-type]
        runner.apply_migrations("all")  # type: ignore[arg-type]
        FluxRunner.from_file("flux.toml", on_event=approve)  # type: ignore[arg-type]
        FluxRunner.from_file("flux.toml", dry_run=True)  # type: ignore[call-arg]
        runner.apply_everything()  # type: ignore[attr-defined]


def approve(plan: Plan) -> bool:
    """A question."""
    return len(plan.steps) < 10


# Settings, migrations, errors ----------------------------------------------------------------


def configure() -> FluxConfig:
    """A configuration is a frozen record."""
    config = FluxConfig.from_file(Path("flux.toml"))
    assert_type(config.lock_wait, float)
    config.lock_wait = 3  # type: ignore[misc]
    FluxConfig(order="by date")  # type: ignore[arg-type]
    FluxConfig(folder="migrations")  # type: ignore[call-arg]
    return config._replace(order="natural")


def in_memory() -> Migration:
    """A migration without a file."""
    return Migration.from_text("001", "CREATE TABLE a (b int)", undo="DROP TABLE a")


def explain(error: FluxMigrationException) -> str:
    """What an error says."""
    assert_type(error.hint, str | None)
    assert_type(error.location, Location | None)
    if isinstance(error, MigrationApplyError):
        assert_type(error.id, str)
        assert_type(error.done, tuple[str, ...])
    return error.message


# A backend -----------------------------------------------------------------------------------


class CoolBackend(MigrationBackend):
    """The names that a backend must write, with their types."""

    name = "cooldb"

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> CoolBackend:
        """A backend for an address."""
        return cls(connection_uri.removeprefix("cooldb://"))

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """An open connection."""
        with closing(sqlite3.connect(self.path)) as self.dbapi:
            yield self.dbapi

    def migration_lock(self) -> AbstractContextManager[None]:
        """One flux at a time."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing."""
        raise NotImplementedError

    def is_initialized(self) -> bool:
        """Whether there is a history."""
        return True

    def initialize(self) -> None:
        """Make it."""

    def register_migration(self, migration: Migration) -> None:
        """Note it."""

    def unregister_migration(self, migration: Migration) -> None:
        """Forget it."""

    def apply_migration(self, content: str) -> None:
        """Run SQL."""

    def get_applied_migrations(self) -> Iterable[AppliedMigration]:
        """The history."""
        return ()


class HalfBackend(MigrationBackend):
    """A backend with nothing in it."""


HalfBackend()  # type: ignore[abstract]
