"""Rehearsing: running steps one by one in a scratch database, to look at what each makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from flux.backends.base import MigrationBackend
from flux.checking import problems_of
from flux.config import FluxConfig
from flux.directory import MigrationDirectory
from flux.exceptions import MigrationLoadingError, Problem, ScratchDatabaseError
from flux.findings import listed
from flux.fingerprint import Fingerprint, compare
from flux.hooks import read_setup
from flux.migration import Migration, Script
from flux.plan import Step
from flux.results import Event
from flux.scratch import ScratchPlace
from flux.steps import StepRunner


class Stage(NamedTuple):
    """Where rehearsals are held: what of, and in which place.

    `on_runner` is called with the runner of each scratch database, before anything runs in it.
    """

    config: FluxConfig
    directory: MigrationDirectory
    place: ScratchPlace
    on_event: Callable[[Event], None] | None = None
    on_runner: Callable[[StepRunner], None] = lambda _: None

    @contextmanager
    def rehearsal(self) -> Iterator[Rehearsal]:
        """One scratch database, with what `tests/_setup` makes; dropped at the end. Writes."""
        with (
            self.place.database() as address,
            StepRunner.from_config(self.config, address, on_event=self.on_event) as runner,
        ):
            self.on_runner(runner)
            with runner.stepping() as run:
                rehearsal = Rehearsal(runner.backend, run, self.config.throw_away_server)
                setup = read_setup(self.directory, self.config.project_directory)
                if setup is not None:
                    rehearsal.check([Step("run", setup)])
                    rehearsal.run(Step("run", setup))
                yield rehearsal

    def make(self, steps: Sequence[Step]) -> Fingerprint:
        """What steps make of an empty database. Raises what `Rehearsal` raises."""
        with unchanged_outside(self.config, self.place), self.rehearsal() as rehearsal:
            rehearsal.check(steps)
            for step in steps:
                rehearsal.run(step)
            return rehearsal.fingerprint()


class Rehearsal(NamedTuple):
    """A scratch database in which steps run one by one, as in a batch.

    `run` carries out one step; it raises `MigrationApplyError`. With `reaches_out`, steps may
    reach beyond the database.
    """

    backend: MigrationBackend
    run: Callable[[Step], None]
    reaches_out: bool

    def fingerprint(self) -> Fingerprint:
        """What is in the database now. Read-only."""
        with self.backend.reporting("cannot read the catalog"):
            return self.backend.fingerprint()

    def check(self, steps: Sequence[Step]) -> None:
        """See that steps can run, and run here. Read-only.

        Raises `MigrationLoadingError`, and `ScratchDatabaseError` for what reaches beyond the
        database.
        """
        problems = [problem for step in steps for problem in problems_of(step, self.backend)]
        if problems:
            raise MigrationLoadingError.of(
                tuple(problems), f"{len(problems)} problems in what would run"
            )
        if self.reaches_out:
            return
        refuse_reaching([problem for step in steps for problem in self._reach_of(step)])

    def _reach_of(self, step: Step) -> list[Problem]:
        return [
            problem._replace(ids=(step.name,))
            for script in _scripts(step)
            for problem in self.backend.check_reach(script)
        ]


def refuse_reaching(problems: Sequence[Problem]) -> None:
    """Raise `ScratchDatabaseError` for statements that reach beyond a scratch database."""
    if problems:
        raise ScratchDatabaseError.of(
            tuple(problems), f"{len(problems)} statements reach beyond a scratch database"
        )


@contextmanager
def unchanged_outside(config: FluxConfig, place: ScratchPlace) -> Iterator[None]:
    """See that what runs in the block changes nothing outside of its database. Read-only.

    Raises `ScratchDatabaseError`: what functions do cannot be read in a script.
    """
    if config.throw_away_server:
        yield
        return
    before = place.beyond()
    yield
    if found := compare(before, place.beyond()):
        raise ScratchDatabaseError(
            "what is outside of the scratch database was changed: "
            f"{listed([difference.item.label for difference in found])}",
            hint="put it back; a server where that does not matter is a --throw-away-server",
        )


def one_batch(directory: MigrationDirectory, migrations: Iterable[Migration]) -> list[Step]:
    """The steps that apply these migrations in one batch, with the repeatables around it. Pure."""
    return [
        *(Step("run", repeatable) for repeatable in directory.pre_apply),
        *(Step("apply", migration) for migration in migrations),
        *(Step("run", repeatable) for repeatable in directory.post_apply),
    ]


def _scripts(step: Step) -> list[Script]:
    """All that a step's subject may run: a migration's undo, too."""
    subject = step.subject
    if isinstance(subject, Migration) and subject.read_undo is not None:
        return [subject.script, subject.read_undo()]
    return [subject.script]
