"""Helpers for test suites: databases of a test's own, and the contract of backends.

    with ScratchDatabases("flux.toml") as databases:
        with databases.database() as database:  # all migrations are applied
            connection = database.connect()
        with databases.steps() as migrations:  # none is
            migrations.to("20240422_001_add-users")
            migrations.connection.cursor().execute("INSERT INTO users …")
            migrations.apply(1)

`flux.pytest_plugin` has the same as fixtures. `BackendContract` holds what flux needs of a
backend, as tests. Nothing here needs a test runner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from hashlib import sha256
from types import TracebackType
from typing import Any, Final

import flux
from flux import directory as directories
from flux.backends import load_backend
from flux.backends.base import MigrationBackend
from flux.config import FluxConfig
from flux.contract import BackendContract
from flux.directory import MigrationDirectory
from flux.exceptions import FluxMigrationException, ScratchDatabaseError
from flux.hooks import read_setup
from flux.migration import Repeatable, Script
from flux.plan import Step, find_migration
from flux.rehearsal import refuse_reaching, unchanged_outside
from flux.results import BatchResult
from flux.runner import FluxRunner
from flux.scratch import ScratchPlace
from flux.shadow import scratch_place

__all__ = ["BackendContract", "Database", "MigrationSteps", "ScratchDatabases"]

_HINT: Final = (
    "name a server for the databases of tests: FLUX_SHADOW_URL, or shadow_url in the configuration"
)


class Database:
    """A database of a test's own: its address, and connections to it."""

    def __init__(self, config: FluxConfig, url: str, stack: ExitStack) -> None:
        """What is opened is closed by `stack`."""
        self._config = config
        self._stack = stack
        #: The address, as flux and the driver take it; it may hold a password.
        self.url = url

    def connect(self) -> Any:
        """A new DB-API connection of the backend's driver, closed when the test has ended.

        It is in autocommit: others see at once what a statement has done, and between statements
        no transaction is open that a migration would have to wait for.
        """
        backend = load_backend(self._config.backend).from_config(self._config, self.url)
        self._stack.enter_context(backend.opened())
        return backend.dbapi


class MigrationSteps(Database):
    """A database whose migrations are stepped through, forwards and backwards.

    A step runs migrations alone: the scripts around a batch are those of today, and may need what
    the last migration makes. Those of pre-apply have run once, before the first migration.
    """

    def __init__(self, runner: FluxRunner, url: str, stack: ExitStack) -> None:
        """`runner` is open on that database."""
        super().__init__(runner.config, url, stack)
        self._runner = runner

    @cached_property
    def connection(self) -> Any:
        """One connection as `connect` gives it, opened when it is first used."""
        return self.connect()

    @property
    def applied(self) -> tuple[str, ...]:
        """The ids of the migrations that are applied, in order."""
        return tuple(one.id for one in self._runner.list_applied_migrations())

    def to(self, id: str) -> BatchResult:
        """Apply or undo until this migration is the newest that is applied. Writes.

        Raises `UnknownMigrationError`, and what `apply` and `rollback` raise.
        """
        if id in self.applied:
            return self._runner.rollback_migrations(None, to=id)
        return self._runner.apply_migrations(to=id)

    def apply(self, n: int | None = None) -> BatchResult:
        """Apply the next `n` migrations, or all. Writes. Raises `MigrationApplyError`."""
        _refuse_id(n)
        return self._runner.apply_migrations(n)

    def rollback(self, n: int | None = 1) -> BatchResult:
        """Undo the newest `n` migrations, or all for None. Writes.

        Raises `IrreversibleMigrationError` and `MigrationApplyError`.
        """
        _refuse_id(n)
        return self._runner.rollback_migrations(n)


class ScratchDatabases:
    """Databases for tests, each made for one and dropped after it. A context manager.

    A migrated one is a copy of a template, which is built when it is first needed and stays for
    the next run; it costs what the database's size makes it cost. It is built anew when a
    migration, a repeatable, a setting or flux is another one. Several processes may use one
    template; while one of them builds it, the others wait.
    """

    def __init__(self, config: FluxConfig | str | os.PathLike[str], url: str | None = None) -> None:
        """`config` is a configuration or the path of its file.

        `url` is of any database on the server on which to make them. Without it, that is the
        environment's FLUX_SHADOW_URL or the configuration's `shadow_url`, else the server of the
        configured database, if it is on this machine.
        """
        self.config = config if isinstance(config, FluxConfig) else FluxConfig.from_file(config)
        self._url = url
        self._stack = ExitStack()
        self._place: ScratchPlace
        #: Why a template could not be built, by its key: what failed fails for every test.
        self._failed: dict[str, FluxMigrationException] = {}
        #: Whether nothing on disk reaches beyond a database.
        self._is_checked = False

    def __enter__(self) -> ScratchDatabases:
        """Connect, and sweep up what crashes have left.

        Raises `ScratchDatabaseError`, `InvalidConfigurationError`, `BackendLoadingError` and
        `DatabaseUnavailableError`.
        """
        try:
            self._place = self._stack.enter_context(
                scratch_place(self.config, shadow_url=self._url)
            )
        except ScratchDatabaseError as error:
            if error.hint and "--here" in error.hint:  # which is for the command line
                error.hint = _HINT
            raise
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @cached_property
    def directory(self) -> MigrationDirectory:
        """The migration directory, read once. Raises `MigrationLoadingError`."""
        return directories.read_configured(self.config)

    @cached_property
    def _setup(self) -> Repeatable | None:
        """What each database begins with, read once."""
        return read_setup(self.directory, self.config.project_directory)

    @contextmanager
    def database(self, to: str | None = None) -> Iterator[Database]:
        """A database with all migrations applied, or those up to `to`; dropped at the end. Writes.

        The scripts of post-apply have run where all migrations are applied.

        Raises `ScratchDatabaseError`, `UnknownMigrationError`, `MigrationLoadingError`, and what
        `FluxRunner.apply_migrations` raises.
        """
        directory = self.directory if to is None else _up_to(self.directory, to)
        url = self._clone(directory, to)
        with self._dropped(url) as stack:
            yield Database(self.config, url, stack)

    @contextmanager
    def steps(self, to: str | None = None) -> Iterator[MigrationSteps]:
        """A database in which no migration is applied, or those up to `to`. Writes.

        Raises what `database` raises.
        """
        alone = self.directory._replace(post_apply=())
        url = self._place.create() if to is None else self._clone(_up_to(alone, to), to)
        with self._dropped(url) as stack:
            migrations = alone._replace(pre_apply=())
            runner = FluxRunner.from_config(self.config, url, directory=migrations)
            if not self._is_checked:  # once; all undoes are read for it
                scripts = (*self._scripts(self.directory), *_undoes(self.directory))
                self._refuse_reaching(runner.backend, scripts)
                self._is_checked = True
            stack.enter_context(runner)
            if to is None:
                self._set_up(runner)
            yield MigrationSteps(runner, url, stack)

    @contextmanager
    def _dropped(self, url: str) -> Iterator[ExitStack]:
        """Close what is opened in a database, and drop it at the end."""
        try:
            with ExitStack() as stack:
                yield stack
        finally:
            self._place.discard(url)

    def _clone(self, directory: MigrationDirectory, to: str | None) -> str:
        """Copy the template of what a directory has, which is up to `to`; its address."""
        key = template_key(self.config, directory, self._setup)
        if key in self._failed:
            raise self._failed[key]
        project = os.path.realpath(self.config.migration_directory)

        def build(url: str) -> None:
            rest = directory._replace(pre_apply=())
            with FluxRunner.from_config(self.config, url, directory=rest) as runner:
                self._refuse_reaching(runner.backend, self._scripts(directory))
                with unchanged_outside(self.config, self._place):
                    self._set_up(runner)
                    runner.apply_migrations()

        try:
            if to is None:
                return self._place.clone(key, build, project=project)
            return self._place.clone(key, build, project=f"{project} at {to}", keep=1)
        except FluxMigrationException as error:
            self._failed[key] = error
            raise

    def _set_up(self, runner: FluxRunner) -> None:
        """Run what comes before the first migration."""
        first = [*filter(None, [self._setup]), *self.directory.pre_apply]
        if first:
            with runner.stepping() as run:
                for repeatable in first:
                    run(Step("run", repeatable))

    def _scripts(self, directory: MigrationDirectory) -> Iterator[Script]:
        """What is run to make a database with all migrations."""
        setup = [self._setup] if self._setup is not None else []
        for repeatable in (*setup, *directory.pre_apply, *directory.post_apply):
            yield repeatable.script
        for migration in directory.migrations:
            yield migration.script

    def _refuse_reaching(self, backend: MigrationBackend, scripts: Iterable[Script]) -> None:
        """Refuse what would change more than the database, unless that does not matter."""
        if not self.config.throw_away_server:
            refuse_reaching(
                [problem for script in scripts for problem in backend.check_reach(script)]
            )


def _refuse_id(n: object) -> None:
    if isinstance(n, str):
        raise TypeError(f"n is a number of migrations; to({n!r}) goes to one")


def template_key(
    config: FluxConfig, directory: MigrationDirectory, setup: Repeatable | None = None
) -> str:
    """Forty letters and digits that stand for all that makes a template what it is. Pure.

    Those are the migrations and the repeatables with their order, the setup before them, the
    helpers beside them, flux's version, and the backend with its settings. What a Python migration
    imports from elsewhere is seen only where it gives its text.
    """
    parts: list[object] = [flux.__version__, config.backend, sorted(config.backend_config.items())]
    parts += directories.read_helpers(directory.path)
    setups = [setup] if setup is not None else []
    named = [
        *(("setup", one.name, one.script) for one in setups),
        *(("migration", one.id, one.script) for one in directory.migrations),
        *(("run", one.name, one.script) for one in (*directory.pre_apply, *directory.post_apply)),
    ]
    parts += [(kind, name, script.hash, script.directives.given) for kind, name, script in named]
    return sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _up_to(directory: MigrationDirectory, id: str) -> MigrationDirectory:
    """The directory without the migrations behind this one, and without scripts that need them.

    Raises `UnknownMigrationError`.
    """
    ids = [migration.id for migration in directory.migrations]
    end = find_migration(id, ids) + 1
    after = directory.post_apply if end == len(ids) else ()
    return directory._replace(migrations=directory.migrations[:end], post_apply=after)


def _undoes(directory: MigrationDirectory) -> Iterator[Script]:
    """What undoes the migrations, read from disk."""
    for migration in directory.migrations:
        if migration.read_undo is not None:
            yield migration.read_undo()
