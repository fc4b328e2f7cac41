"""Where scratch databases may be made: beside the target where that is near, else at a shadow.

A statement in a scratch database costs its server time, disk and locks. On a server that is not
this machine's own, flux makes them only where it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flux.config import FluxConfig
from flux.exceptions import ScratchDatabaseError
from flux.scratch import ScratchPlace
from flux.steps import StepRunner

_NAME_ONE = "name a server for them: {}FLUX_SHADOW_URL or shadow_url in the configuration; or {}"


@contextmanager
def scratch_place(
    config: FluxConfig, database: Any = None, *, shadow_url: str | None = None, here: bool = False
) -> Iterator[ScratchPlace]:
    """The place for scratch databases, connected, with what crashes left there swept up. Writes.

    It is on the server of `shadow_url` or of the configuration's, where there is one. Else it is
    beside the target `database` (an address, an open connection, or None for the configuration's),
    which has to be SQLite or on a socket or loopback address; `here` says that it may be anywhere.

    Raises `ScratchDatabaseError`, `InvalidConfigurationError` and `DatabaseUnavailableError`.
    """
    shadow = config.resolve_shadow_url(shadow_url)
    if shadow is not None:
        database = shadow
    elif config.backend == "sqlite" and database is None and not config.names_database:
        database = ":memory:"  # beside any SQLite database is the same place
    runner = StepRunner.from_config(config, database)
    hint = _NAME_ONE.format("--shadow-url, ", "say --here")
    with _place_of(runner, hint=None if shadow or here else hint) as place:
        yield place


@contextmanager
def scratch_place_beside(target: StepRunner) -> Iterator[ScratchPlace]:
    """The same for the database that a runner has open. Writes."""
    shadow = target.config.resolve_shadow_url()
    runner = target if shadow is None else StepRunner.from_config(target.config, shadow)
    hint = _NAME_ONE.format("", "prove it elsewhere by `flux test --late`, and give `--allow-late`")
    with _place_of(runner, hint=None if shadow else hint) as place:
        yield place


@contextmanager
def _place_of(runner: StepRunner, *, hint: str | None) -> Iterator[ScratchPlace]:
    """The place beside a database; `hint` says what to do where only a near one will do."""
    with runner.about_address(), runner.backend.scratch_place() as place:
        if hint is not None and not place.is_near:
            raise ScratchDatabaseError(
                f"scratch databases would be made on {place.description}, "
                "which is not this machine's own",
                hint=hint,
            )
        place.sweep()
        yield place
