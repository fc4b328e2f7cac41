"""Fixtures for pytest, which finds this room by its entry point. All else is `flux.testing`'s.

    def test_users(flux_database):
        connection = flux_database.connect()

    @pytest.mark.flux("20240422_001_add-users")
    def test_names_are_split(flux_migrations):
        flux_migrations.connection.cursor().execute("INSERT INTO users (name) VALUES ('Ada L')")
        flux_migrations.apply(1)

Every test session pays for what is imported here, also one that has nothing to do with flux;
hence that is pytest alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from flux.config import FluxConfig
    from flux.testing import Database, MigrationSteps, ScratchDatabases

_Given = TypeVar("_Given")
_MARKER = (
    'flux(id): the migrations up to this one are applied, as in flux("20240422_001_add-users")'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the ini file."""
    parser.addini(
        "flux_config",
        "flux.toml, or a pyproject.toml with [tool.flux]: the configuration for flux_database and "
        "flux_migrations, relative to pytest's root directory (default: the one that is there)",
        default="",
    )
    parser.addini(
        "flux_url",
        "the address of any database on the server on which flux_database and flux_migrations "
        "make databases; ${NAME} takes an environment variable (default: shadow_url in the "
        "configuration, else the configured database if it is on this machine). The environment "
        "variable FLUX_SHADOW_URL comes before it",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, so that `--strict-markers` knows it."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(scope="session")
def flux_config(pytestconfig: pytest.Config) -> FluxConfig:
    """flux's configuration for the tests; a project may have a fixture of its own in its place."""
    from flux.config import FluxConfig, find_config_file
    from flux.exceptions import FluxMigrationException

    named = str(pytestconfig.getini("flux_config"))
    root = pytestconfig.rootpath
    try:
        return FluxConfig.from_file(root / named if named else find_config_file(str(root)))
    except FluxMigrationException as error:
        error.hint = "flux_config in pytest's ini file names flux's configuration"
        failure = str(error)
    pytest.fail(failure, pytrace=False)


@pytest.fixture(scope="session")
def flux_databases(
    pytestconfig: pytest.Config, flux_config: FluxConfig
) -> Iterator[ScratchDatabases]:
    """What makes the databases, for tests that need more than one; connected for the session."""
    from flux.testing import ScratchDatabases

    if url := str(pytestconfig.getini("flux_url")).strip():
        flux_config = flux_config._replace(shadow_url=url)
    with _told(ScratchDatabases(flux_config)) as databases:
        yield databases


@pytest.fixture
def flux_database(
    request: pytest.FixtureRequest, flux_databases: ScratchDatabases
) -> Iterator[Database]:
    """A database of the test's own, with all migrations applied, or those up to the marker's."""
    with _told(flux_databases.database(_marked(request))) as database:
        yield database


@pytest.fixture
def flux_migrations(
    request: pytest.FixtureRequest, flux_databases: ScratchDatabases
) -> Iterator[MigrationSteps]:
    """A database of the test's own whose migrations are stepped through; at first none is applied.

    With a marker, those up to its migration are.
    """
    with _told(flux_databases.steps(_marked(request))) as steps:
        yield steps


def _marked(request: pytest.FixtureRequest) -> str | None:
    """The id that a test's marker names; None without one."""
    marker = request.node.get_closest_marker("flux")
    if marker is None:
        return None
    if marker.kwargs or len(marker.args) != 1 or not isinstance(marker.args[0], str):
        given = [*map(repr, marker.args), *(f"{n}={v!r}" for n, v in marker.kwargs.items())]
        pytest.fail(
            "the marker flux takes the id of one migration, as in "
            f'@pytest.mark.flux("20240422_001_add-users"), not ({", ".join(given)})',
            pytrace=False,
        )
    return marker.args[0]


@contextmanager
def _told(made: AbstractContextManager[_Given]) -> Iterator[_Given]:
    """What a context manager gives; where it cannot, flux's words without a traceback."""
    from flux.exceptions import FluxMigrationException

    with ExitStack() as stack:
        try:
            given = stack.enter_context(made)
        except FluxMigrationException as error:
            failure = str(error)
        else:
            yield given
            return
    pytest.fail(failure, pytrace=False)
