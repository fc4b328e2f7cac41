"""Examining a project from its configuration to its database: what stands in the way of `apply`.

Reads only: takes no lock, creates nothing, and waits for nobody. A check that fails does not keep
the others from being made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from flux import directory as directories
from flux.address import redact
from flux.exceptions import (
    BackendLoadingError,
    DatabaseUnavailableError,
    FluxMigrationException,
    InvalidConfigurationError,
    MigrationLoadingError,
)
from flux.findings import Finding, listed, of_error, of_problem, ok, problem, warning
from flux.migration import is_legacy_hash
from flux.runner import FluxRunner

if TYPE_CHECKING:
    from flux.backends.base import MigrationBackend
    from flux.config import FluxConfig
    from flux.directory import MigrationDirectory
    from flux.results import Status

_Result = TypeVar("_Result")
#: A check: gives its findings one by one, and what the next one needs, or None.
_Check = Generator[Finding, None, _Result | None]


def examine(
    load_config: Callable[[], FluxConfig], find_database: Callable[[], Any]
) -> Iterator[Finding]:
    """Every finding about a project and its database, in the order of the checks. Read-only.

    `load_config` gives the configuration, and `find_database` an address, an open connection, or
    None for the configuration's; what they raise becomes a finding.
    """
    config = yield from _examine_config(load_config)
    if config is None:
        return
    directory = yield from _examine_directory(config)
    database = yield from _examine_address(config, find_database)
    if database is None:
        return
    runner = yield from _examine_driver(config, database, directory)
    if runner is not None:
        yield from _examine_database(runner, has_directory=directory is not None)


def _examine_config(load_config: Callable[[], FluxConfig]) -> _Check[FluxConfig]:
    try:
        config = load_config()
    except FluxMigrationException as error:
        yield from of_error("config", error)
        return None
    yield ok("config", f"{config.path or 'the settings'}: backend {config.backend!r}")
    return config


def _examine_directory(config: FluxConfig) -> _Check[MigrationDirectory]:
    path = config.migration_directory
    try:
        directory = directories.read_configured(config)
    except MigrationLoadingError as error:
        yield from of_error("directory", error)
        return None
    yield ok("directory", f"{path}: {_count(len(directory.migrations), 'migration')}")
    if passed_over := directories.list_passed_over(path):
        yield warning(
            "directory",
            f"no migrations, and passed over: {listed(passed_over)}",
            "a migration's name ends in .sql or .py, and it lies in the migration directory "
            "itself; put an underscore before the name of what is meant to be passed over",
        )
    return directory


def _examine_address(config: FluxConfig, find_database: Callable[[], Any]) -> _Check[Any]:
    try:
        database = find_database()
        if database is not None and not isinstance(database, str):
            yield ok("address", "an open connection")
            return database
        source = config.source_of_url(database)
        database = config.resolve_url(database)
    except FluxMigrationException as error:
        yield from of_error("address", error)
        return None
    yield ok("address", redact(database) + (f", from {source}" if source else ""))
    return database


def _examine_driver(
    config: FluxConfig, database: Any, directory: MigrationDirectory | None
) -> _Check[FluxRunner]:
    try:
        return FluxRunner.from_config(config, database, directory=directory)
    except BackendLoadingError as error:
        yield from of_error("driver", error)
    except InvalidConfigurationError as error:
        yield from of_error("config", error)
    except FluxMigrationException as error:
        yield from of_error("connection", error)
    return None


def _examine_database(runner: FluxRunner, *, has_directory: bool) -> Iterator[Finding]:
    backend = runner.backend
    backend.announce = _refuse_to_wait
    started = time.perf_counter()
    try:
        with runner.about_address(), backend.opened():
            seconds = time.perf_counter() - started
            yield ok(
                "connection", f"connected in {_milliseconds(seconds)}{_describe_answer(backend)}"
            )
            try:
                with backend.reporting("cannot examine the database"):
                    found = backend.examine()
                yield from found
            except FluxMigrationException as error:
                yield from of_error("connection", error)
            if has_directory:
                yield from _examine_history(runner)
    except FluxMigrationException as error:
        yield from of_error("connection", error)


def _describe_answer(backend: MigrationBackend) -> str:
    """How long an answer takes, where this is a question that the database understands."""
    started = time.perf_counter()
    try:
        backend.fetch("SELECT 1")
    except backend.driver_error:
        return ""
    return f"; an answer takes {_milliseconds(time.perf_counter() - started)}"


def _examine_history(runner: FluxRunner) -> Iterator[Finding]:
    try:
        status = runner.status()
        history = runner.history()
    except FluxMigrationException as error:
        yield from of_error("history", error)
        return
    legacy = sum(is_legacy_hash(row.hash) for row in history)
    yield from describe_history(status, rows=len(history), legacy=legacy)
    # A script that is wrong stops the batch that it is in, and only that one.
    for found in runner.check_directory():
        yield of_problem("directory", found)


def describe_history(status: Status, *, rows: int, legacy: int) -> list[Finding]:
    """What a status says: the history, what is wrong with it, and what was cut off. Pure.

    `rows` counts the rows of the history, `legacy` those of flux-migrations 0.0.3.
    """
    if not status.initialized:
        found = [ok("history", "flux has not touched this database; `flux apply` begins a history")]
    else:
        old = f", {legacy} of them by flux-migrations 0.0.3" if legacy else ""
        pending = f"; {len(status.pending)} pending" if status.pending else ""
        found = [ok("history", f"{_count(rows, 'migration')} applied{old}{pending}")]
    found += [of_problem("history", one) for one in status.problems]
    for row in status.rows:
        if row.half is None:
            continue
        command = {"apply": "apply", "undo": "rollback"}[row.half.direction]
        if status.in_doubt:
            found.append(
                problem(
                    "journal",
                    f"{row.half}, and whether statement {row.half.goes_on_at} took effect is not "
                    "known",
                    "look, and run `flux resume --skip` if it did, else `flux resume --retry`",
                )
            )
        else:
            found.append(
                warning(
                    "journal",
                    f"{row.half}",
                    f"`flux {command}` goes on with statement {row.half.goes_on_at}",
                )
            )
    if status.unfinished:
        found.append(
            warning(
                "journal",
                "the last batch stopped before its post-apply scripts ran",
                "`flux apply` finishes it",
            )
        )
    return found


def _refuse_to_wait(message: str) -> NoReturn:
    """Take a wait for a finding: an examination waits for nobody."""
    raise DatabaseUnavailableError(f"it would have to wait: {message}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
