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
        for alias in settings.aliases():
            stack.enter_context(_applying_in(connections[alias].creation, alias))
        yield


@contextmanager
def _applying_in(creation: Any, alias: str) -> Iterator[None]:
    """Let the creation of one test database apply flux's migrations."""
    # Between the making of a database and of its clones, Django calls nothing that is meant for
    # others to extend.
    create = creation.create_test_db
    creation.create_test_db = _followed_by_flux(create, alias)

    def apply_first(*, using: str, **kwargs: Any) -> None:
        if using == alias:
            _apply(alias)

    if settings.test_order() == "flux-first":
        pre_migrate.connect(apply_first)
    try:
        yield
    finally:
        pre_migrate.disconnect(apply_first)
        creation.create_test_db = create


def _followed_by_flux(create: Callable[..., str], alias: str) -> Callable[..., str]:
    @wraps(create)
    def create_test_db(*args: Any, **kwargs: Any) -> str:
        name = create(*args, **kwargs)
        _apply(alias)
        return name

    return create_test_db


def _apply(alias: str) -> None:
    """Apply what is pending on the database that an alias stands for at the moment. Writes."""
    runner = FluxRunner.from_config(settings.config_for(alias), database_to_change(alias))
    with runner:
        runner.apply_migrations()
