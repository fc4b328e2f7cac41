"""Django's test databases, made by flux as well as by Django's migrations.

`TEST_RUNNER = "flux.django.testing.FluxTestRunner"` does it for `manage.py test`, and
`flux_test_databases()` around whatever else makes them. docs/guides/django.md has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from django.db import connections
from django.db.models.signals import pre_migrate
from django.test.runner import DiscoverRunner

from flux.config import FluxConfig
from flux.django import settings
from flux.django.databases import database_to_change
from flux.runner import FluxRunner


class FluxTestRunnerMixin:
    """For a test runner of your own: it stands before Django's among the bases."""

    def setup_databases(self, **kwargs: Any) -> Any:
        """Make the test databases. Writes. Raises what `FluxRunner.apply_migrations` raises."""
        with flux_test_databases():
            return super().setup_databases(**kwargs)  # type: ignore[misc]  # the runner's


class FluxTestRunner(FluxTestRunnerMixin, DiscoverRunner):
    """Django's test runner, with test databases that have flux's migrations."""


@contextmanager
def flux_test_databases() -> Iterator[None]:
    """Apply flux's migrations to every test database that is made within the block.

    They follow Django's own, or come before as well (`"test_order": "flux-first"` in `FLUX`), and
    precede the clones of parallel runs. Of a database that was kept, only what is pending runs.
    """
    with ExitStack() as stack:
        for alias, ours in _made_for().items():
            stack.enter_context(_applying_in(connections[alias].creation, alias, ours))
        yield


def _made_for() -> dict[str, list[str]]:
    """For which aliases of flux's a test database is, by each alias that Django may make it by.

    Django makes one for all aliases of the same signature, by the first of those that are tested,
    and none for a mirror. A signature is another one when the database is made.
    """
    mirrored = {alias: connections[alias].settings_dict["TEST"]["MIRROR"] for alias in connections}
    found: dict[str, list[str]] = {}
    for ours in settings.aliases():
        signature = _signature(mirrored[ours] or ours)
        for alias, mirror in mirrored.items():
            if not mirror and _signature(alias) == signature:
                found.setdefault(alias, []).append(ours)
    return found


def _signature(alias: str) -> object:
    return connections[alias].creation.test_db_signature()


@contextmanager
def _applying_in(creation: Any, alias: str, ours: list[str]) -> Iterator[None]:
    """Let the creation of one test database apply flux's migrations."""
    # Between the making of a database and of its clones, Django calls nothing that is meant for
    # others to extend.
    create = creation.create_test_db
    creation.create_test_db = _followed_by_flux(create, alias, ours)

    def apply_first(*, using: str, **kwargs: Any) -> None:
        if using == alias:
            _apply(alias, ours)

    if settings.test_order() == "flux-first":
        pre_migrate.connect(apply_first)
    try:
        yield
    finally:
        pre_migrate.disconnect(apply_first)
        creation.create_test_db = create


def _followed_by_flux(
    create: Callable[..., str], alias: str, ours: list[str]
) -> Callable[..., str]:
    @wraps(create)
    def create_test_db(*args: Any, **kwargs: Any) -> str:
        name = create(*args, **kwargs)
        _apply(alias, ours)
        return name

    return create_test_db


def _apply(alias: str, ours: list[str]) -> None:
    """Apply what is pending on the database that an alias stands for at the moment. Writes.

    It is reached by flux's own aliases, with their roles. Where several have the same migrations
    and the same history, the first applies them.
    """
    applied: list[FluxConfig] = []
    for own in ours:
        config = settings.config_for(own)
        if config not in applied:
            with _at_the_database_of(alias, own):
                runner = FluxRunner.from_config(config, database_to_change(own))
                with runner:
                    runner.apply_migrations()
            applied.append(config)


@contextmanager
def _at_the_database_of(alias: str, own: str) -> Iterator[None]:
    """Let an alias of flux's stand for the test database of another one.

    Django does so later, and not at all where no test uses it: it stands for the real database.
    """
    if own == alias:
        yield
        return
    connection = connections[own]
    before = dict(connection.settings_dict)
    connection.close()
    connection.creation.set_as_test_mirror(connections[alias].settings_dict)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(before)
